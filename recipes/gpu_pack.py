"""Pack the training and validation images of the bundled model into files that travel.

    python recipes/default_data.py work/default-data
    python recipes/gpu_pack.py work/default-data work/packs --parts 4

writes `work/packs/part-0.zip` and so on, of about equal size and with images of every place each,
and the ImageNet weights of the encoder as `encoder.safetensors`, for `gpu_train.py` on a machine
that has a GPU and nothing else of this project. It needs the extra `pretrained`. An entry is one
image as JPEG and its labels as PNG of 16 bits: 0 ground, 1 nodata, 2 not labelled, from 3 on a
number for each building. Images finer than 0.2 m per pixel are averaged to 0.2 m. `index.json` of
each part has, for each entry, place, metres per pixel, part (train or val), and whether its numbers
are single buildings (from polygons, or masks of detached houses) or connected regions.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from safetensors.torch import save_file
from torch import nn

from rooftrace.core.config import load_config
from rooftrace.core.types import InstanceReader
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.zoo import build_model
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent

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


def averaged(entry: Entry) -> Entry:
    """Return an entry at no less than `FINEST_M`; buildings keep their numbers."""
    if entry.gsd_m >= FINEST_M:
        return entry
    size = tuple(round(side * entry.gsd_m / FINEST_M) for side in entry.numbers.shape[::-1])
    built = np.where(entry.numbers >= FIRST, np.uint8(255), np.uint8(0))
    is_built = cv2.resize(built, size, interpolation=cv2.INTER_AREA) > 127
    numbers = cv2.resize(entry.numbers, size, interpolation=cv2.INTER_NEAREST)
    numbers[(numbers >= FIRST) & ~is_built] = 0
    image = cv2.resize(entry.image, size, interpolation=cv2.INTER_AREA)
    return replace(entry, gsd_m=FINEST_M, image=image, numbers=numbers)


def pairs(
    folder: Path,
    gsd_m: float,
    part_of: Callable[[int, str], str],
    *,
    single: bool = False,
    white_is_nodata: bool = False,
    shift_px: tuple[int, int] = (0, 0),
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
        known: Plane = np.ones(mask.shape, dtype=np.uint8)
        if shift_px != (0, 0):
            down, right = shift_px
            matrix = np.array([[1, 0, right], [0, 1, down]], dtype=np.float32)
            mask, known = (
                cv2.warpAffine(plane, matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST)
                for plane in (mask, known)
            )
        numbers = regions(mask)
        numbers[known == 0] = UNLABELLED
        numbers[~shown] = NODATA
        yield Entry(folder.name, path.stem, gsd_m, part, image, numbers, single)


def large_white(image: Plane) -> Plane:
    """Return where an image is white over more than a roof."""
    white = (image == WHITE).all(axis=2).astype(np.uint8)
    _, patches, stats, _ = cv2.connectedComponentsWithStats(white)
    large = stats[:, cv2.CC_STAT_AREA] >= MIN_WHITE_PX
    large[0] = False
    return np.asarray(large[patches], dtype=bool)


def regions(mask: Plane) -> Plane:
    """Return the numbers of the connected regions of a mask, 0 outside."""
    numbers = cv2.connectedComponents((mask > 127).astype(np.uint8))[1]
    return np.where(numbers > 0, numbers + (FIRST - 1), 0).astype(np.uint16)


def scenes(folder: Path, place: str, labels: Path | None, part: str) -> Iterator[Entry]:
    """Yield the georeferenced pieces that `default_data.py` cut, with single buildings."""
    outlines = None if labels is None else gpd.read_file(labels)
    for path in sorted((folder / place / "images").glob("*.tif")):
        with rasterio.open(path) as scene:
            image = np.ascontiguousarray(scene.read([3, 2, 1]).transpose(1, 2, 0))
            shown = scene.read_masks(1) > 0
            transform, crs = scene.transform, scene.crs
        if outlines is None:
            with rasterio.open(folder / place / "masks" / path.name) as labelled:
                numbers = regions(labelled.read(1))
        else:
            shapes = [
                (outline, number)
                for number, outline in enumerate(outlines.to_crs(crs).geometry, FIRST)
                if outline is not None and not outline.is_empty
            ]
            numbers = rasterize(shapes, shown.shape, transform=transform, dtype="uint16")
        numbers[~shown] = NODATA
        gsd_m = metres_per_pixel(path) if crs else 0.3
        yield Entry(place, path.stem, gsd_m, part, image, numbers, single=True)


def metres_per_pixel(path: Path) -> float:
    """Return the ground size of a pixel of a scene in EPSG:3857 or in metres."""
    with rasterio.open(path) as scene:
        size = abs(scene.transform.a)
        if scene.crs.to_epsg() != 3857:
            return float(size)
        latitude = rasterio.warp.transform_bounds(scene.crs, 4326, *scene.bounds)[1]
    return float(size * np.cos(np.radians(latitude)))


def mosaic(tiles_of: Iterator[Entry], row_column: str) -> Entry:
    """Return the tiles of one seamless area as one image.

    Buildings that at most a seam of two pixels joins are parted.

    Args:
        row_column: Pattern of the names, with a group for the row and one for the column.
    """
    tiles: dict[tuple[int, int], Entry] = {}
    for entry in tiles_of:
        match = re.fullmatch(row_column, entry.name)
        assert match is not None, entry.name
        tiles[int(match[1]), int(match[2])] = entry
    first_row, first_col = (min(key[axis] for key in tiles) for axis in (0, 1))
    rows, cols = (max(key[axis] for key in tiles) + 1 for axis in (0, 1))
    side = entry.numbers.shape[0]
    shape = ((rows - first_row) * side, (cols - first_col) * side)
    image = np.full((*shape, 3), 128, np.uint8)
    numbers = np.full(shape, NODATA, np.uint16)
    for (row, col), tile in tiles.items():
        top, left = (row - first_row) * side, (col - first_col) * side
        area = np.s_[top : top + side, left : left + side]
        image[area], numbers[area] = tile.image, tile.numbers
    built = numbers >= FIRST
    inner = cv2.erode(built.astype(np.uint8), np.ones((3, 3), np.uint8))
    _, nearest = cv2.distanceTransformWithLabels(
        1 - inner, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP
    )
    numbers[built] = nearest[built] + (FIRST - 1)
    return replace(entry, name="mosaic", image=image, numbers=numbers)


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
    place: str, images: Path, gsd_m: float, *, white_is_nodata: bool = False
) -> Iterator[Entry]:
    """Yield the images with outlines that we drew; regions of crowds are not labelled."""
    given = SourceConfig(path=f"labels/{place}.json", images=str(images))
    source = open_source(given, LabelConfig(classes=("background", "building")), RECIPES)
    for entry, scene in source.opened():
        assert isinstance(scene.label, InstanceReader)
        image = np.ascontiguousarray(scene.image.read().data[2::-1].transpose(1, 2, 0))
        outlines = scene.label.read_instances()
        assert outlines is not None
        numbers = np.where(outlines > 0, outlines + (FIRST - 1), 0).astype(np.uint16)
        numbers[~scene.label.read().valid] = UNLABELLED
        if white_is_nodata:
            numbers[large_white(image) & (numbers < FIRST)] = NODATA
        yield Entry(place, entry.id, gsd_m, "train", image, numbers, single=True)


def entries(data: Path, cut: Path) -> Iterator[Entry]:
    """Yield all entries, see `data/splits.json` of the project's data."""

    def all_train(_: int, name: str) -> str:
        return "train"

    def jonkoping(_: int, name: str) -> str:
        return "" if int(name.rsplit("_", 1)[1]) <= 12 else "val"

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
    yield from pairs(data / "jonkoping", 0.15, jonkoping, single=True)
    yield mosaic(pairs(data / "accra", 0.1, all_train, single=True), r"r(\d+)_c(\d+)")
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
    yield from drawn("ucm-drawn", data / "ucm-unlabelled" / "images", 0.3)
    unlabelled = data / "banepa-chips" / "unlabelled"
    yield from drawn("banepa-drawn", unlabelled, 0.132, white_is_nodata=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cut", type=Path, help="Folder that default_data.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=int, default=4)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    # First, since it fails where an extra is missing.
    write_encoder(given.out / "encoder.safetensors")
    parts = [Part() for _ in range(given.parts)]
    for entry in entries(Path(os.environ["ROOFTRACE_DATA"]), given.cut):
        min(parts, key=lambda part: part.size).add(averaged(entry))
    for index, part in enumerate(parts):
        path = given.out / f"part-{index}.zip"
        path.write_bytes(part.finish())
        print(path, len(part.index), f"{path.stat().st_size / 1e6:.1f} MB")


def write_encoder(path: Path) -> None:
    """Write the ImageNet weights of the encoder, in half precision."""
    config = load_config(RECIPES / "default.toml", TrainConfig).model
    encoder = build_model(config, bands=3, channels=2).encoder
    assert isinstance(encoder, nn.Module)
    state = encoder.state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, str(path))


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
