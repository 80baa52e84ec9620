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

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import Window

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from town import write_pairs

PIECE_PX = 1536
"""Three tiles of zoom 19 in a mosaic of zoom 20: 220 m on the ground."""

CHIP_PX = 512
WORLD_M = 2 * math.pi * 6378137
GENERATED_SEEDS = range(1000, 1024)


def cut_place(place: str, data: Path, out: Path) -> int:
    """Cut a mosaic, most of which is empty, into pieces that hold something; rasterise labels."""
    labels = gpd.read_file(data / "oam" / place / "labels.geojson").to_crs(3857)
    written = 0
    with rasterio.open(data / "scenes" / f"{place}_z20.tif") as scene:
        covered = scene.read_masks(1) > 0
        for top in range(0, scene.height, PIECE_PX):
            for left in range(0, scene.width, PIECE_PX):
                piece = covered[top : top + PIECE_PX, left : left + PIECE_PX]
                if not piece.any():
                    continue
                # Trimmed to what is covered, so that random crops seldom miss it.
                rows, cols = np.flatnonzero(piece.any(axis=1)), np.flatnonzero(piece.any(axis=0))
                window = Window(
                    left + int(cols[0]), top + int(rows[0]),
                    int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1,
                )  # fmt: skip
                valid = piece[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
                transform = scene.window_transform(window)
                mask = burn(labels.geometry, transform, valid.shape)
                image = scene.read([1, 2, 3], window=window)
                name = f"{place}_{top:05d}_{left:05d}"
                write_pair(out / place, name, image, valid, mask, transform, 3857)
                written += 1
    return written


def join_chips(data: Path, out: Path) -> int:
    """The chips of Banepa, zoom 19 tiles by name at twice the usual size, joined to one scene."""
    labels = gpd.read_file(data / "banepa-chips" / "labels.geojson").to_crs(3857)
    chips = {}
    for path in sorted((data / "banepa-chips" / "images").glob("*.tif")):
        match = re.fullmatch(r"OAM-(\d+)-(\d+)-19", path.stem)
        assert match is not None
        with rasterio.open(path) as chip:
            chips[int(match[2]), int(match[1])] = chip.read([1, 2, 3])
    first_row, first_col = (min(key[axis] for key in chips) for axis in (0, 1))
    rows, cols = (max(key[axis] for key in chips) + 1 for axis in (0, 1))
    shape = ((rows - first_row) * CHIP_PX, (cols - first_col) * CHIP_PX)
    image = np.zeros((3, *shape), dtype=np.uint8)
    valid = np.zeros(shape, dtype=bool)
    for (row, col), pixels in chips.items():
        top, left = (row - first_row) * CHIP_PX, (col - first_col) * CHIP_PX
        image[:, top : top + CHIP_PX, left : left + CHIP_PX] = pixels
        valid[top : top + CHIP_PX, left : left + CHIP_PX] = True
    side = WORLD_M / 2**19
    left_m, top_m = -WORLD_M / 2 + first_col * side, WORLD_M / 2 - first_row * side
    transform = from_origin(left_m, top_m, side / CHIP_PX, side / CHIP_PX)
    mask = burn(labels.geometry, transform, shape)
    write_pair(out / "banepa-chips", "banepa_chips", image, valid, mask, transform, 3857)
    return len(chips)


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
    counts["banepa-chips"] = join_chips(data, out)
    write_pairs(out / "generated", seeds=GENERATED_SEEDS, shape_yx=(512, 512))
    counts["generated"] = len(GENERATED_SEEDS)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
