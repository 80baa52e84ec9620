#!/usr/bin/env bash
# TerraTorch keeps the place of a tile in 32 bits: in UTM its results lie on a grid of half metres.
#
# Guess before the run: with return_georeference a dataset hands on the transform and the bounds of
# each GeoTIFF, so that what EmbeddingGenerationTask writes covers the tile it was made from.
# Seen: northings above 4,194,304 m are rounded to 0.5 m, and above 8,388,608 m to 1 m. Of ten tiles
# of 102.4 m, one above the other with pixels of 0.1 m, the northern edges move by up to two pixels
# to the north or to the south, so the tiles no longer meet: there are gaps of 0.1 m between them
# and one overlap of 0.4 m.
# Versions: terratorch 1.2.13, rasterio 1.4.4, torch 2.13.0. Source: terratorch/datasets/utils.py,
# extract_georeference, dtype=np.float32 for "geotransform" and "bounds"; written by
# terratorch/tasks/embedding_generation.py.
# Hurt: who compares features of orthophotos with building outlines, or mosaics them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6 \
  rasterio==1.4.4 scikit-learn==1.7.2
venv/bin/pip install --quiet --disable-pip-version-check --no-deps terratorch==1.2.13
venv/bin/python - <<'PYTHON'
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

# The package imports all its models; this module of it needs none of them.
(site,) = [path for path in sys.path if (Path(path) / "terratorch/tasks").is_dir()]
spec = spec_from_file_location("utils", Path(site) / "terratorch/datasets/utils.py")
utils = module_from_spec(spec)
spec.loader.exec_module(utils)


def read(north):
    """Return the northern and southern edge that TerraTorch reads of a tile of 102.4 m."""
    with rasterio.open("tile.tif", "w", driver="GTiff", width=1024, height=1024, count=1,
                       dtype="uint8", crs="EPSG:25833",
                       transform=from_origin(391234.3, north, 0.1, 0.1)) as tile:
        tile.write(np.zeros((1, 1024, 1024), np.uint8))
    found = utils.extract_georeference(Path("tile.tif"))
    return float(found["geotransform"][3]), float(found["bounds"][1])


norths = [5824321.3 - 102.4 * tile for tile in range(10)]
edges = [read(north) for north in norths]
moved = [edge[0] - north for edge, north in zip(edges, norths)]
# What is written has the northern edge and the height of the tile.
gaps = [upper[0] - 102.4 - lower[0] for upper, lower in zip(edges, edges[1:])]
print("northern edges move by", *(f"{move:+.2f}" for move in moved), "m")
print("between neighbours:", *(f"{gap:+.2f}" for gap in gaps), "m")
assert all(edge[0] % 0.5 == 0 and edge[1] % 0.5 == 0 for edge in edges)
assert [round(move, 1) for move in moved] == [0.2, 0.1, 0, -0.1, -0.2] * 2
assert [round(gap, 1) for gap in gaps] == [0.1] * 4 + [-0.4] + [0.1] * 4
PYTHON
