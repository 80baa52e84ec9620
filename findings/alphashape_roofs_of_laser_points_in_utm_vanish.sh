#!/usr/bin/env bash
# alphashape makes nothing of a house of 39 m2 if its laser points are in UTM.
#
# Guess before the run: the alpha shape of points on a roof is the same wherever the roof stands:
# moved to UTM, its area stays what it is to a millionth.
# Seen: of an L-shaped house of 39 m2 the alpha shape is 39.0 to 39.5 m2 near the origin, for points
# 0.5, 0.25 and 0.1 m apart and a radius of 1.2 or 2 steps. At 500,000 E 5,800,000 N it is, at 1.2
# steps, 25 m2 in eight parts, and nothing for the two denser scans; at two steps, 39.8, 9 and
# nothing: the denser the scan, the less of the house is left. 58 km from the origin all is right.
# There is no message.
# Versions: alphashape 1.3.1 (the latest), numpy 2.2.6, scipy 1.15.3, shapely 2.1.2. Source:
# alphashape/alphashape.py, circumcenter: the linear system is made of products of coordinates, 3e13
# in UTM, of which float64 keeps steps of 4 mm2, and solve loses what tells the corners apart.
# Subtracting the first point before the call mends it.
# Hurt: who makes footprints of the roof points of a laser scan: in degrees and near the origin, as
# in the examples, it works.
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

HOUSE = shapely.Polygon([(0, 0), (8, 0), (8, 3), (3, 3), (3, 8), (0, 8)])
UTM = np.array([500_000, 5_800_000])


def area(step, radius, origin):
    """Return the area of the alpha shape of points on the roof, and the number of its parts."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 8 + step / 2, step)] * 2), axis=-1).reshape(-1, 2)
    points = grid[shapely.covers(HOUSE.buffer(1e-9), shapely.points(grid))]
    points += np.random.default_rng(1).uniform(-0.04, 0.04, points.shape) * step
    shape = alphashape.alphashape((points + origin).tolist(), 1 / radius)
    return shape.area, len(getattr(shape, "geoms", [shape]))


for steps, most in ((1.2, (35, 5, 0.5)), (2, (45, 20, 0.5))):
    for step, limit in zip((0.5, 0.25, 0.1), most):
        near, parts = area(step, steps * step, [0, 0])
        away, _ = area(step, steps * step, UTM / 100)
        there, count = area(step, steps * step, UTM)
        print(f"points every {step} m, radius {steps * step:.2f} m: {near:.2f} m2 near the origin,",
              f"{away:.2f} m2 at {UTM // 100}, {there:.2f} m2 in {count} parts in UTM")
        assert abs(near - 39) < 0.6 and parts == 1
        assert abs(away - near) < 1e-3
        assert there < limit
PYTHON
