#!/usr/bin/env bash
# alphashape fills each courtyard, however wide it is, and keeps the pavilion in it as no part.
#
# Guess before the run: the alpha shape of points on a block round a courtyard has a hole where no
# circle of the radius fits between the points, as gaps between two houses are left open.
# Seen: of a block of 40 x 40 m with a courtyard of 24 x 24 m and points every metre the alpha shape
# of radius 2 m is 1,600 m2, two thirds more than the 1,024 m2 of the block, and has no hole; with a
# pavilion of 4 x 4 m in the courtyard it is 1,600 too. A courtyard that is open on one side, and a
# gap of 3 m between two houses, stay open. There is no message.
# Versions: alphashape 1.3.1 (the latest), numpy 2.2.6, scipy 1.15.3, shapely 2.1.2. Source:
# alphashape/alphashape.py, end of alphashape: polygonize makes a face of each closed ring of edges,
# the courtyard's too, and unary_union joins all faces.
# Hurt: who makes footprints of blocks from laser points or from centres of pixels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check alphashape==1.3.1 numpy==2.2.6 \
  scipy==1.15.3 shapely==2.1.2 trimesh==4.9.0 rtree==1.4.1 networkx==3.4.2 2> pip.log
venv/bin/python -W ignore - <<'PYTHON'
import alphashape
import numpy as np
import shapely

yard = shapely.box(8, 8, 32, 32)
block = shapely.box(0, 0, 40, 40) - yard
grid = np.stack(np.meshgrid(np.arange(0, 41.0), np.arange(0, 41.0)), axis=-1).reshape(-1, 2)
grid += np.random.default_rng(1).uniform(-0.01, 0.01, grid.shape)
for name, building, expected, holes in (
    ("a courtyard", block, 1600, 0),
    ("a courtyard and a pavilion", block | shapely.box(18, 18, 22, 22), 1600, 0),
    ("a courtyard open to the south", block - shapely.box(8, 0, 32, 9), 832, 0),
    ("two houses", shapely.box(0, 0, 18, 40) | shapely.box(22, 0, 40, 40), 1440, 0),
):
    points = grid[shapely.covers(building.buffer(0.02), shapely.points(grid))]
    shape = alphashape.alphashape(points.tolist(), 1 / 2)
    parts = getattr(shape, "geoms", [shape])
    count = sum(len(part.interiors) for part in parts)
    print(f"{name}: {building.area:.0f} m2, alpha shape {shape.area:.0f} m2 in {len(parts)} parts,",
          f"{count} holes")
    assert abs(shape.area - expected) < 0.03 * expected
    assert count == holes
PYTHON
