#!/usr/bin/env bash
# geotiff_tiler_res cuts no tile of a second town, or writes them over those of the first.
#
# Guess before the run: process_directory makes one data set of all folders with a scene and its
# buildings, "with all outputs saved in centralized" folders; three towns of 16 tiles each, all
# with houses, are 48 tiles.
# Seen: 16. With resume=True, the default, all are of the first town that is read, and the others
# are "Successfully processed" with 0 tiles; of a larger second town, of 25 tiles, the last 9 are
# there. With resume=False, too, 16 are there: those of the last town.
# Versions: geotiff_tiler_res 0.1.0, rasterio 1.4.4, numpy 2.2.6. Source: geotiff_tiler/tiler.py,
# export_geotiff_tiles: the number of files in the folder, or 0, is both the name of the next tile
# and the count of tiles of this scene that are done.
# Hurt: who cuts training data from several towns: the network sees one, the log says that all are
# processed, and a split by town has nothing to test on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geotiff_tiler_res==0.1.0 \
  rasterio==1.4.4 numpy==2.2.6 geopandas==1.2.0 shapely==2.1.2 matplotlib==3.10.7 tqdm==4.67.1
venv/bin/python -W ignore - <<'PYTHON'
import contextlib
import io
from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from geotiff_tiler import process_directory
from rasterio.transform import from_origin
from shapely import box

TILE = 256


def town(folder, west, tiles):
    """Write a scene of tiles x tiles tiles with a house in each, at this easting."""
    side = tiles * TILE
    grid = from_origin(west, 5_000_000, 1, 1)
    folder.mkdir(parents=True)
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", width=side, height=side, count=3,
                       dtype="uint8", crs=32633, transform=grid, tiled=True) as scene:
        scene.write(np.full((3, side, side), 120, np.uint8))
    houses = [box(west + x + 20, 5_000_000 - y - 40, west + x + 40, 5_000_000 - y - 20)
              for x in range(0, side, TILE) for y in range(0, side, TILE)]
    kinds = {"kind": ["house"] * len(houses)}
    geopandas.GeoDataFrame(kinds, geometry=houses, crs=32633).to_file(
        folder / "houses.geojson")


def cut(towns, output, resume):
    """Return the number of tiles of each town, and whether the log reports an error."""
    log = io.StringIO()
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        process_directory(towns, output, tile_size=TILE, stride=TILE, class_value_field="kind",
                          resume=resume)
    assert "Error" not in log.getvalue() and "successfully" in log.getvalue().lower()
    counts = Counter()
    for file in Path(output, "images").glob("*.tif"):
        with rasterio.open(file) as tile:
            counts[int(tile.bounds.left) // 10_000] += 1
    return sorted(counts.values())


for number, name in enumerate(("east", "north", "west")):
    town(Path("equal", name), 500_000 + 10_000 * number, 4)
for resume in (True, False):
    seen = cut("equal", f"equal_{resume}", resume)
    print(f"three towns of 16 tiles, resume={resume}: tiles of each town that is there:", seen)
    assert seen == [16]

# The order of folders is that of the file system, so the larger town comes in a second call.
town(Path("first", "small"), 500_000, 4)
town(Path("second", "large"), 510_000, 5)
cut("first", "both", True)
seen = cut("second", "both", True)
print("a town of 16 tiles and one of 25:", seen)
assert seen == [9, 16]
PYTHON
