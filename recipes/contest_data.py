"""A building contest as it is held, made of $ROOFTRACE_DATA; docs/contest.md goes through it.

    python recipes/contest_data.py OUT

writes

    OUT/train.csv, train_img/      1024² at 0.5 m, `img_id,img_path,mask_rle`
    OUT/test.csv, test_img/        224² at 0.3 m, and nothing that says so
    OUT/sample_submission.csv      `-1` for each of them
    OUT/solution.csv, places.csv   the truth, and where each image is from: hidden from contestants
    OUT/near_img/                  224² at 0.3 m out of towns of the training: for the audit alone

Images are RGB, as in the contest, so only ground is taken of which every pixel is known. Only in
Massachusetts is any of it 512 m wide: other training images are sheets of pieces side by side. As
in the contest every training image holds a building, and a test image need not. No ground of the
test is trained on; Khartoum, Las Vegas and Catanduanes are in no training image at all.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.windows import Window

from rooftrace.labels.rle import NO_RUNS, encode_runs

TRAIN_PX, TRAIN_GSD_M = 1024, 0.5
TEST_PX, TEST_GSD_M = 224, 0.3
PIECE_PX = 256
"""Side in pixels (128 m) of pieces of an aerial mosaic, whose covered parts are scattered."""

WORLD_M = 2 * math.pi * 6378137
WHITE = 255
SUBURBS = 60
"""Test images of Massachusetts, of which there would be far more than of all other places."""

NEAR = 90
"""Images of what the audit can be held against."""


class Piece(NamedTuple):
    """An image (y, x, RGB) and its mask (y, x), without a pixel that is not known."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def windows(known: NDArray[np.bool_], side: int, step: int) -> Iterator[tuple[int, int]]:
    """Row and column of squares without a pixel that is not known, none over another."""
    free = known.copy()
    for row in range(0, known.shape[0] - side + 1, step):
        for col in range(0, known.shape[1] - side + 1, step):
            square = free[row : row + side, col : col + side]
            if square.all():
                yield row, col
                square[:] = False


def resized(image: NDArray[np.uint8], mask: NDArray[np.uint8], side: int) -> Piece:
    """A square to another number of pixels; of the mask what is half covered is in."""
    how = cv2.INTER_AREA if side < len(image) else cv2.INTER_LINEAR
    share = cv2.resize((mask > 0).astype(np.float32), (side, side), interpolation=how)
    return Piece(np.asarray(cv2.resize(image, (side, side), interpolation=how)), share >= 0.5)


def read_pair(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """An image of a folder of pairs (RGB), its mask, and which pixels are known."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(path.parent.parent / "masks" / path.name), cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None:
        sys.exit(f"{path} or its mask cannot be read.")
    known = image[..., 3] > 0 if image.shape[2] == 4 else np.ones(mask.shape, dtype=bool)
    return np.ascontiguousarray(image[..., 2::-1]), np.asarray(mask), known


def squares(paths: Iterable[Path], gsd_m: float, px: int, to_gsd_m: float) -> Iterator[Piece]:
    """All squares of `px` pixels at `to_gsd_m` that images without a georeference hold."""
    side = round(px * to_gsd_m / gsd_m)
    for path in paths:
        image, mask, known = read_pair(path)
        if path.parts[-3] == "massachusetts":
            known = covered(image)
        for row, col in windows(known, side, max(1, side // 20)):
            at = np.s_[row : row + side, col : col + side]
            yield resized(image[at], mask[at], px)


def covered(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels that are not white nodata; single white pixels are roofs."""
    white = (image == WHITE).all(axis=2).astype(np.uint8)
    return np.asarray(cv2.morphologyEx(white, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) == 0)


def mosaic(data: Path, place: str, px: int, gsd_m: float) -> Iterator[Piece]:
    """All squares of `px` pixels at `gsd_m` that the mosaic of a place covers."""
    labels = gpd.read_file(data / "oam" / place / "labels.geojson").to_crs(3857)
    with rasterio.open(data / "scenes" / f"{place}_z20.tif") as scene:
        ground_m = scene.res[0] * math.cos(math.radians(latitude(scene.bounds)))
        side, grain = round(px * gsd_m / ground_m), 16
        known = scene.read_masks(1)[::grain, ::grain] > 0
        for row, col in windows(known, side // grain + 2, 1):
            window = Window((col + 0.5) * grain, (row + 0.5) * grain, side, side)
            image = scene.read(
                [1, 2, 3], window=window, out_shape=(3, px, px), resampling=Resampling.average
            )
            transform = scene.window_transform(window) * rasterio.Affine.scale(side / px)
            mask = rasterize(labels.geometry, (px, px), transform=transform, dtype="uint8")
            yield Piece(np.ascontiguousarray(image.transpose(1, 2, 0)), mask > 0)


def latitude(bounds: rasterio.coords.BoundingBox) -> float:
    """Degrees north of the middle of a scene in EPSG:3857."""
    north = (bounds.bottom + bounds.top) / WORLD_M * math.pi
    return math.degrees(math.atan(math.sinh(north)))


def sheets(pieces: list[Piece]) -> Iterator[Piece]:
    """Training images of pieces of one size side by side; the last column and row may be cut.

    Pieces that fill no sheet are left out.
    """
    px = len(pieces[0].mask)
    across = math.ceil(TRAIN_PX / px)
    for start in range(0, len(pieces) - across**2 + 1, across**2):
        rows = [pieces[first : first + across] for first in range(start, start + across**2, across)]
        image = np.vstack([np.hstack([piece.image for piece in row]) for row in rows])
        mask = np.vstack([np.hstack([piece.mask for piece in row]) for row in rows])
        yield Piece(image[:TRAIN_PX, :TRAIN_PX], mask[:TRAIN_PX, :TRAIN_PX])


def training(data: Path) -> Iterator[tuple[str, Piece]]:
    towns = sorted((data / "massachusetts" / "images").iterdir())[:15]
    for piece in squares(towns, 1.0, TRAIN_PX, TRAIN_GSD_M):
        yield "massachusetts", piece
    rows = sorted((data / "rotterdam" / "images").iterdir())[:150]
    for piece in sheets([*squares(rows, 0.5, TEST_PX, TRAIN_GSD_M)]):
        yield "rotterdam", piece
    # Zanzibar last, of which there is most: what fills no sheet is left out.
    aerial = ("banepa", "nairobi", "zanzibar")
    for piece in sheets([p for name in aerial for p in mosaic(data, name, PIECE_PX, TRAIN_GSD_M)]):
        yield "openaerialmap", piece


def test(data: Path) -> Iterator[tuple[str, Piece]]:
    at = (TEST_PX, TEST_GSD_M)
    for piece in mosaic(data, "catanduanes", *at):
        yield "catanduanes", piece
    for place, part, gsd_m in (("khartoum", 0, 0.39), ("rotterdam", 150, 0.5), ("vegas", 0, 0.39)):
        paths = sorted((data / place / "images").iterdir())[part:]
        for piece in squares(paths, gsd_m, *at):
            yield place, piece
    towns = sorted((data / "massachusetts" / "images").iterdir())[15:]
    pieces = list(squares(towns, 1.0, *at))
    for number in np.linspace(0, len(pieces) - 1, SUBURBS).astype(int):
        yield "massachusetts", pieces[number]


def near(data: Path) -> list[Piece]:
    towns = sorted((data / "massachusetts" / "images").iterdir())[:15:3]
    pieces = list(squares(towns, 1.0, TEST_PX, TEST_GSD_M))
    return [pieces[number] for number in np.linspace(0, len(pieces) - 1, NEAR).astype(int)]


def write_table(path: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_images(
    out: Path, kind: str, digits: int, given: Iterable[Piece]
) -> list[tuple[str, str]]:
    """Images by number in the contest's names: id and path of each."""
    rows = []
    for number, piece in enumerate(given):
        name = f"{kind.upper()}_{number:0{digits}d}"
        path = f"./{kind}_img/{name}.png"
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(out / path), piece.image[..., ::-1]):
            sys.exit(f"{out / path} cannot be written.")
        rows.append((name, path))
    return rows


def main() -> None:
    out = Path(sys.argv[1])
    data = Path(os.environ["ROOFTRACE_DATA"])
    trained = [(place, piece) for place, piece in training(data) if piece.mask.any()]
    rows = write_images(out, "train", 4, (piece for _, piece in trained))
    runs = [encode_runs(piece.mask, "row") for _, piece in trained]
    table = [(*row, masks) for row, masks in zip(rows, runs)]
    write_table(out / "train.csv", [("img_id", "img_path", "mask_rle"), *table])

    tested = list(test(data))
    asked = write_images(out, "test", 5, (piece for _, piece in tested))
    truth = [encode_runs(piece.mask, "row") for _, piece in tested]
    header = ("img_id", "mask_rle")
    ids = [name for name, _ in asked]
    write_table(out / "test.csv", [("img_id", "img_path"), *asked])
    write_table(out / "sample_submission.csv", [header, *((name, NO_RUNS) for name in ids)])
    write_table(out / "solution.csv", [header, *zip(ids, truth)])
    places = [(name, place) for name, (place, _) in zip(ids, tested)]
    names = [(name, place) for (name, _), (place, _) in zip(rows, trained)]
    write_table(out / "places.csv", [("img_id", "place"), *names, *places])
    write_images(out, "near", 2, near(data))
    print(json.dumps({"train": counted(trained), "test": counted(tested)}, indent=1))


def counted(given: list[tuple[str, Piece]]) -> dict[str, dict[str, float]]:
    """Images of each place, those without a building, and the built-up share."""
    found = {}
    for place in dict(given):
        masks = [piece.mask for name, piece in given if name == place]
        found[place] = {
            "images": len(masks),
            "empty": sum(not mask.any() for mask in masks),
            "built_up": round(float(np.mean(masks)), 3),
        }
    return found


if __name__ == "__main__":
    main()
