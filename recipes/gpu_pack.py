"""Pack the training and validation images of the bundled model into files that travel.

    python recipes/default_data.py work/default-data
    python recipes/gpu_pack.py work/default-data work/packs --parts 3

writes `work/packs/part-0.zip` and so on, of about equal size and with images of every place each,
the ImageNet weights of the encoder as `encoder.safetensors`, and what fits of the bundled model's
weights as `bundled.safetensors`, for `gpu_train.py` on a machine that has a GPU and nothing else of
this project. It needs the extra `pretrained`. An entry is one image as JPEG and its labels as PNG
of 16 bits: 0 ground, 1 nodata, 2 not labelled, from 3 on a number for each building. Images finer
than 0.2 m per pixel are averaged to 0.2 m. `index.json` of each part has, for each entry, place,
metres per pixel, part (train or val), and whether its numbers are single buildings (from polygons,
or masks of detached houses) or connected regions.

`labels` holds outlines that we drew, see docs/default-model.md.

Negatives: two classes of `ucm-empty` (`HELD_OUT`) are validation. The images of Dubai have coarse
labels, so only what is labelled as road, land, water or vegetation counts, as ground.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from safetensors.torch import save_file
from torch import nn

from rooftrace.core.config import load_config
from rooftrace.models.start import load_matching, read_start
from rooftrace.models.zoo import build_model
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
ENCODER = "tu-efficientnet_lite2"

FINEST_M = 0.2
HELD_OUT = ("overpass", "tenniscourt")
NODATA, UNLABELLED, FIRST = 1, 2, 3
WHITE = 255
MIN_WHITE_PX = 400
"""A smaller white patch is a roof, not nodata."""

DUBAI_M = 1.0
DUBAI_EVERY = 3
"""One in so many images of Dubai is taken: they are large, and teach only ground."""

JPEG_QUALITY, GROUND_QUALITY = 88, 75
"""Of images with buildings, and of those without."""


Plane = NDArray[Any]
"""Pixels as OpenCV types them: images (y, x, 3) uint8 in BGR, masks (y, x) uint8 or bool."""


@dataclass(frozen=True)
class Entry:
    """An image (y, x, 3) in BGR with its numbers (y, x)."""

    place: str
    name: str
    gsd_m: float
    part: str
    image: Plane
    numbers: Plane
    single: bool


def pairs(
    folder: Path,
    gsd_m: float,
    part_of: Callable[[int, str], str],
    *,
    single: bool = False,
    white_is_nodata: bool = False,
    shift_px: tuple[int, int] = (0, 0),
    finest_m: float = FINEST_M,
) -> Iterator[Entry]:
    """Yield the pairs of a folder with `images` and `masks`; part "" leaves an image out."""
    for index, path in enumerate(sorted((folder / "images").iterdir())):
        part = part_of(index, path.stem)
        if not part:
            continue
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        assert image is not None, path
        assert mask is not None, path
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        shown = image[..., 3] > 0 if image.shape[2] == 4 else np.ones(mask.shape, dtype=bool)
        image = np.ascontiguousarray(image[..., :3])
        if white_is_nodata:
            shown &= ~large_white(image)
        known = np.ones(mask.shape, dtype=bool)
        if shift_px != (0, 0):
            down, right = shift_px
            matrix = np.array([[1, 0, right], [0, 1, down]], dtype=np.float32)
            size = mask.shape[::-1]
            mask = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST)
            known = cv2.warpAffine(known.astype(np.uint8), matrix, size) > 0
        yield resized(folder.name, path.stem, gsd_m, part, image, mask, shown, known, single,
                      finest_m=finest_m)  # fmt: skip


def large_white(image: Plane) -> Plane:
    """Return where an image is white over more than a roof."""
    white = (image == WHITE).all(axis=2).astype(np.uint8)
    _, regions, stats, _ = cv2.connectedComponentsWithStats(white)
    large = stats[:, cv2.CC_STAT_AREA] >= MIN_WHITE_PX
    large[0] = False
    return np.asarray(large[regions], dtype=bool)


def resized(
    place: str,
    name: str,
    gsd_m: float,
    part: str,
    image: Plane,
    mask: Plane,
    shown: Plane,
    known: Plane,
    single: bool,
    narrow_gaps: bool = False,
    finest_m: float = FINEST_M,
) -> Entry:
    """Return a pair as an entry, averaged where it is finer than `finest_m`.

    With `narrow_gaps`, buildings are numbered before that, so that gaps of a pixel still part them.
    """
    regions: Plane | None = parted(mask > 127) if narrow_gaps else None
    if gsd_m < finest_m:
        size = tuple(round(side * gsd_m / finest_m) for side in mask.shape[::-1])
        if regions is not None:
            regions = cv2.resize(regions, size, interpolation=cv2.INTER_NEAREST)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        shown, known = (
            cv2.resize(one.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
            for one in (shown, known)
        )
        gsd_m = finest_m
    if regions is None:
        regions = cv2.connectedComponents((mask > 127).astype(np.uint8))[1]
    in_building = (mask > 127) & (regions > 0)
    numbers = np.where(in_building, regions + (FIRST - 1), 0).astype(np.uint16)
    numbers[~known] = UNLABELLED
    numbers[~shown] = NODATA
    return Entry(place, name, gsd_m, part, image, numbers, single)


def parted(mask: Plane) -> NDArray[np.float32]:
    """Return the numbers (y, x) of buildings that at most a seam of two pixels joins, 0 outside."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    _, nearest = cv2.distanceTransformWithLabels(
        1 - inner, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    return np.where(mask, nearest, 0).astype(np.float32)


def scenes(folder: Path, place: str, labels: Path | None, part: str) -> Iterator[Entry]:
    """Yield the georeferenced pieces that `default_data.py` cut, with single buildings."""
    outlines = None if labels is None else gpd.read_file(labels)
    for path in sorted((folder / place / "images").glob("*.tif")):
        with rasterio.open(path) as scene:
            pixels = np.ascontiguousarray(scene.read([3, 2, 1]).transpose(1, 2, 0))
            shown = scene.read_masks(1) > 0
            transform, crs = scene.transform, scene.crs
        gsd_m = metres_per_pixel(path) if crs else 0.3
        if outlines is None:
            mask = folder / place / "masks" / path.name
            with rasterio.open(mask) as labelled:
                plane = labelled.read(1)
            yield resized(place, path.stem, gsd_m, part, pixels, plane, shown,
                          np.ones_like(shown), single=True)  # fmt: skip
            continue
        scale = min(1.0, gsd_m / FINEST_M)
        height, width = (round(side * scale) for side in shown.shape)
        image = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        seen = cv2.resize(shown.astype(np.uint8) * 255, (width, height)) > 127
        to_map = transform @ Affine.scale(shown.shape[1] / width, shown.shape[0] / height)
        shapes = [
            (outline, number)
            for number, outline in enumerate(outlines.to_crs(crs).geometry, FIRST)
            if outline is not None and not outline.is_empty
        ]
        numbers = rasterize(shapes, out_shape=(height, width), transform=to_map, dtype="uint16")
        numbers[~seen] = NODATA
        yield Entry(place, path.stem, gsd_m / scale, part, image, numbers, single=True)


def metres_per_pixel(path: Path) -> float:
    """Return the ground size of a pixel of a scene in EPSG:3857 or in metres."""
    with rasterio.open(path) as scene:
        size = abs(scene.transform.a)
        if scene.crs.to_epsg() != 3857:
            return float(size)
        latitude = rasterio.warp.transform_bounds(scene.crs, 4326, *scene.bounds)[1]
    return float(size * np.cos(np.radians(latitude)))


def mosaic(
    found: Iterator[Entry], row_column: str, *, narrow_gaps: bool = False
) -> Iterator[Entry]:
    """Yield the training tiles of one seamless area as one image, and the other tiles as they are.

    Args:
        row_column: Pattern of the names, with a group for the row and one for the column.
    """
    tiles: dict[tuple[int, int], Entry] = {}
    for entry in found:
        match = re.fullmatch(row_column, entry.name)
        if match is None or entry.part != "train":
            yield entry
        else:
            tiles[int(match[1]), int(match[2])] = entry
    first_row, first_col = (min(key[axis] for key in tiles) for axis in (0, 1))
    rows, cols = (max(key[axis] for key in tiles) + 1 for axis in (0, 1))
    tile = next(iter(tiles.values()))
    side = tile.numbers.shape[0]
    shape = ((rows - first_row) * side, (cols - first_col) * side)
    image, mask = np.full((*shape, 3), 128, np.uint8), np.zeros(shape, np.uint8)
    shown = np.zeros(shape, dtype=bool)
    for (row, col), entry in tiles.items():
        top, left = (row - first_row) * side, (col - first_col) * side
        area = np.s_[top : top + side, left : left + side]
        image[area], shown[area] = entry.image, entry.numbers != NODATA
        mask[area] = np.where(entry.numbers >= FIRST, 255, 0)
    yield resized(tile.place, "mosaic", tile.gsd_m, "train", image, mask, shown,
                  np.ones_like(shown), tile.single, narrow_gaps)  # fmt: skip


def dubai(folder: Path) -> Iterator[Entry]:
    """Yield the images of Dubai with their ground; what else there is, is not labelled."""
    ground = {(0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4), (0xFE, 0xDD, 0x3A), (0xE2, 0xA9, 0x29)}
    for path in sorted(folder.glob("Tile */images/*.jpg"))[::DUBAI_EVERY]:
        image = cv2.imread(str(path))
        mask = cv2.imread(str(path.parents[1] / "masks" / f"{path.stem}.png"))
        assert image is not None
        assert mask is not None
        is_ground = np.zeros(image.shape[:2], dtype=bool)
        for red, green, blue in ground:
            is_ground |= (mask == (blue, green, red)).all(axis=2)
        # The labels are some pixels off, so a margin beside buildings does not count either.
        is_ground = cv2.erode(is_ground.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        numbers = np.where(is_ground, 0, UNLABELLED).astype(np.uint16)
        name = f"{path.parents[1].name}-{path.stem}".replace(" ", "")
        yield Entry("dubai", name, DUBAI_M, "train", image, numbers, single=False)


def drawn(
    place: str, images: Path, labels: Path, gsd_m: float, white_is_nodata: bool
) -> Iterator[Entry]:
    """Yield the images of a COCO file of polygons; regions of crowds are not labelled."""
    coco = json.loads(labels.read_text())
    outlines: dict[int, list[tuple[bool, list[list[float]]]]] = {}
    for one in coco["annotations"]:
        outlines.setdefault(one["image_id"], []).append((one["iscrowd"] == 1, one["segmentation"]))
    for described in coco["images"]:
        image = cv2.imread(str(images / described["file_name"]))
        assert image is not None, described
        numbers = np.zeros(image.shape[:2], dtype=np.uint16)
        shapes = outlines.get(described["id"], [])
        for number, (unlabelled, rings) in enumerate(shapes, FIRST):
            value = UNLABELLED if unlabelled else number
            corners = [np.reshape(ring, (-1, 1, 2)) for ring in rings]
            # OpenCV counts from the centre of the first pixel, COCO from its corner.
            steps = [np.round((ring - 0.5) * 16).astype(np.int32) for ring in corners]
            cv2.fillPoly(numbers, steps, value, shift=4)
        if white_is_nodata:
            numbers[large_white(image) & (numbers < FIRST)] = NODATA
        name = Path(described["file_name"]).stem
        size = tuple(round(side * min(1, gsd_m / FINEST_M)) for side in numbers.shape[::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        numbers = cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST)
        yield Entry(place, name, max(gsd_m, FINEST_M), "train", image, numbers, single=True)


def entries(data: Path, cut: Path) -> Iterator[Entry]:
    """Yield all entries, see `data/splits.json` of the project's data."""

    def all_train(_: int, name: str) -> str:
        return "train"

    def jonkoping(_: int, name: str) -> str:
        return "train" if int(name.rsplit("_", 1)[1]) <= 12 else "val"

    def rotterdam(index: int, _: str) -> str:
        return "" if index == 144 else ("train" if index < 150 else "val")

    for place in ("zanzibar", "nairobi", "banepa"):
        yield from scenes(cut, place, data / "oam" / place / "labels.geojson", "train")
    yield from scenes(cut, "banepa-chips", data / "banepa-chips" / "labels.geojson", "train")
    yield from scenes(cut, "generated", None, "train")
    yield from scenes(cut, "catanduanes", data / "oam/catanduanes/labels.geojson", "val")
    yield from pairs(
        data / "massachusetts", 1.0, lambda index, _: "train" if index < 15 else "val",
        single=True, white_is_nodata=True,
    )  # fmt: skip
    yield from pairs(data / "rotterdam", 0.5, rotterdam, shift_px=(-4, 1))
    yield from mosaic(
        pairs(data / "jonkoping", 0.15, jonkoping, single=True), r"barnarp_(\d+)_(\d+)"
    )
    accra = pairs(data / "accra", 0.1, all_train, single=True, finest_m=0.1)
    yield from mosaic(accra, r"r(\d+)_c(\d+)", narrow_gaps=True)
    yield from pairs(data / "vienna", 0.3, lambda *_: "val")
    for place, gsd_m, single in (
        ("khartoum", 0.39, False), ("khartoum-chip", 0.3, False), ("vegas", 0.39, True),
        ("nacala", 0.0485, True), ("geneva", 0.25, False),
        ("chicago", 0.3, False), ("kitsap", 0.3, True), ("tyrol", 0.3, True),
        ("cyl-farms", 0.25, True), ("naip-california", 0.6, True), ("drone-empty", 0.1, True),
        ("dubai-coast-empty", 1.0, True),
    ):  # fmt: skip
        yield from pairs(data / place, gsd_m, all_train, single=single)
    yield from pairs(
        data / "ucm-empty", 0.3,
        lambda _, name: "val" if name.startswith(HELD_OUT) else "train", single=True,
    )  # fmt: skip
    yield from dubai(data / "dubai")
    for place, images, gsd_m, white_is_nodata in (
        ("ucm-drawn", data / "ucm-unlabelled" / "images", 0.3, False),
        ("banepa-drawn", data / "banepa-chips" / "unlabelled", 0.132, True),
    ):
        labels = RECIPES / "labels" / f"{place}.json"
        yield from drawn(place, images, labels, gsd_m, white_is_nodata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cut", type=Path, help="Folder that default_data.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=int, default=3)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    parts = [Part() for _ in range(given.parts)]
    for entry in entries(Path(os.environ["ROOFTRACE_DATA"]), given.cut):
        min(parts, key=lambda part: part.size).add(entry)
    write_weights(given.out)
    for index, part in enumerate(parts):
        path = given.out / f"part-{index}.zip"
        path.write_bytes(part.finish())
        print(path, len(part.index), f"{path.stat().st_size / 1e6:.1f} MB")


def write_weights(out: Path) -> None:
    """Write weights to start from, in half precision: of ImageNet, and of the bundled model."""
    config = load_config(RECIPES / "default.toml", TrainConfig).model
    encoder = build_model(
        config.model_copy(update={"encoder_weights": "imagenet"}), bands=3, channels=2
    ).encoder
    assert isinstance(encoder, nn.Module)
    net = build_model(config, bands=3, channels=2)
    print(load_matching(net, read_start("default").weights, other_head=True).describe())
    for module, name in ((encoder, "encoder"), (net, "bundled")):
        state = module.state_dict()
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(half, str(out / f"{name}.safetensors"))


class Part:
    """One file of a pack, in memory."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.archive = zipfile.ZipFile(self.buffer, "w", zipfile.ZIP_STORED)
        self.index: list[dict[str, object]] = []

    @property
    def size(self) -> int:
        return self.buffer.tell()

    def add(self, entry: Entry) -> None:
        """Write the image and the numbers of an entry."""
        key = f"{entry.place}/{entry.name}"
        # Nodata is made smooth, so that it costs nothing.
        image = np.where((entry.numbers == NODATA)[..., None], 128, entry.image).astype(np.uint8)
        best = JPEG_QUALITY if (entry.numbers >= FIRST).any() else GROUND_QUALITY
        quality = [cv2.IMWRITE_JPEG_QUALITY, best]
        for suffix, pixels, options in (
            ("jpg", image, quality),
            ("png", entry.numbers, [cv2.IMWRITE_PNG_COMPRESSION, 9]),
        ):
            written, data = cv2.imencode(f".{suffix}", pixels, options)
            assert written
            self.archive.writestr(f"{key}.{suffix}", data.tobytes())
        self.index.append(
            {"key": key, "place": entry.place, "gsd_m": entry.gsd_m, "part": entry.part,
             "single": entry.single}
        )  # fmt: skip

    def finish(self) -> bytes:
        """Return the file."""
        self.archive.writestr("index.json", json.dumps(self.index))
        self.archive.close()
        return self.buffer.getvalue()


if __name__ == "__main__":
    main()
