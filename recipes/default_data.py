"""Cut the training folders of the default model out of $ROOFTRACE_DATA.

    python recipes/default_data.py OUT

writes OUT/PLACE/{images,masks}/NAME.tif for the OpenAerialMap places, for the chips of Banepa, and
for generated scenes. The other places are pairs already, and are read where they are.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import from_bounds
from rasterio.windows import Window

from rooftrace.testing import write_pairs

CELL_PX = 512
"""A zoom 19 tile in a mosaic of zoom 20: the mosaics are covered by whole ones of these."""

WORLD_M = 2 * math.pi * 6378137
GENERATED_SEEDS = range(1000, 1024)


def cut_place(place: str, data: Path, out: Path) -> int:
    """Cut the covered parts of a mosaic, each connected one by itself, with rasterised labels."""
    labels = gpd.read_file(data / "oam" / place / "labels.geojson").to_crs(3857)
    with rasterio.open(data / "scenes" / f"{place}_z20.tif") as scene:
        covered = scene.read_masks(1)
        rows, cols = covered.shape[0] // CELL_PX, covered.shape[1] // CELL_PX
        cells = covered.reshape(rows, CELL_PX, cols, CELL_PX).max(axis=(1, 3)) > 0
        count, index, stats, _ = cv2.connectedComponentsWithStats(cells.astype(np.uint8))
        for number in range(1, count):
            left, top, width, height = (int(v) * CELL_PX for v in stats[number, :4])
            window = Window(left, top, width, height)
            image = scene.read([1, 2, 3], window=window)
            own = np.kron(index == number, np.ones((CELL_PX, CELL_PX), dtype=bool))
            own = own[top : top + height, left : left + width] & (
                covered[top : top + height, left : left + width] > 0
            )
            transform = scene.window_transform(window)
            mask = burn(labels.geometry, transform, (height, width))
            write_pair(out / place, f"{place}_{number:03d}", image, own, mask, transform, 3857)
    return count - 1


def cut_chips(data: Path, out: Path) -> int:
    """The chips of Banepa are zoom 19 tiles by name, at twice the usual size."""
    labels = gpd.read_file(data / "banepa-chips" / "labels.geojson").to_crs(3857)
    paths = sorted((data / "banepa-chips" / "images").glob("*.tif"))
    for path in paths:
        match = re.fullmatch(r"OAM-(\d+)-(\d+)-(\d+)", path.stem)
        assert match is not None
        x, y, zoom = (int(group) for group in match.groups())
        side = WORLD_M / 2**zoom
        left, top = -WORLD_M / 2 + x * side, WORLD_M / 2 - y * side
        with rasterio.open(path) as chip:
            image = chip.read([1, 2, 3])
        shape = image.shape[1:]
        transform = from_bounds(left, top - side, left + side, top, shape[1], shape[0])
        mask = burn(labels.geometry, transform, shape)
        valid = np.ones(shape, dtype=bool)
        write_pair(out / "banepa-chips", path.stem, image, valid, mask, transform, 3857)
    return len(paths)


def burn(geometry: Any, transform: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    shapes = [(g, 255) for g in geometry if g is not None and not g.is_empty]
    burnt: NDArray[np.uint8] = rasterize(
        shapes, out_shape=shape, transform=transform, dtype="uint8"
    )
    return burnt


def write_pair(
    folder: Path,
    name: str,
    image: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    mask: NDArray[np.uint8],
    transform: Any,
    epsg: int,
) -> None:
    for kind, data in (("images", image), ("masks", mask[None])):
        path = folder / kind / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        profile = {
            "driver": "GTiff", "dtype": "uint8", "count": len(data), "height": data.shape[1],
            "width": data.shape[2], "crs": f"EPSG:{epsg}", "transform": transform,
            "compress": "deflate", "tiled": True,
        }  # fmt: skip
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as out:
            out.write(data)
            if kind == "images":
                out.write_mask(valid)


def main() -> None:
    out = Path(sys.argv[1])
    data = Path(os.environ["ROOFTRACE_DATA"])
    counts = {
        place: cut_place(place, data, out)
        for place in ("zanzibar", "nairobi", "banepa", "catanduanes", "kampala")
    }
    counts["banepa-chips"] = cut_chips(data, out)
    write_pairs(out / "generated", seeds=GENERATED_SEEDS, shape_yx=(512, 512))
    counts["generated"] = len(GENERATED_SEEDS)
    print(json.dumps(counts))  # noqa: T201


if __name__ == "__main__":
    main()
