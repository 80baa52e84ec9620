"""Cut the training folders of the default model out of $ROOFTRACE_DATA.

    python recipes/default_data.py OUT

writes OUT/PLACE/{images,masks}/NAME.tif for the OpenAerialMap places, for the chips of Banepa, and
for generated scenes. The other places are pairs already, and are read where they are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.windows import Window

from rooftrace.labels.slippy_tiles import open_mosaic

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from town import write_pairs

PIECE_PX = 1536
"""Three tiles of zoom 19 in a mosaic of zoom 20: 220 m on the ground."""

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
    """The chips of Banepa, tiles by name at twice the usual size, joined to one scene."""
    folder = data / "banepa-chips"
    scene = open_mosaic(folder / "images").read()
    labels = gpd.read_file(folder / "labels.geojson").to_crs(3857)
    transform = scene.grid.transform
    mask = burn(labels.geometry, transform, scene.valid.shape)
    write_pair(out / "banepa-chips", "banepa_chips", scene.data, scene.valid, mask, transform, 3857)
    return len(list((folder / "images").glob("*.tif")))


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
