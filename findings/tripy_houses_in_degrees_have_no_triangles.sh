#!/usr/bin/env bash
# tripy makes no triangle of a house in degrees, and half of a hall with a porch.
#
# Guess before the run: earclip cuts a polygon of n corners into n - 2 triangles that cover it, in
# metres and in degrees alike.
# Seen: near 52 degrees north a house of 10 x 10 m has 2 triangles in metres and none in degrees, an
# L of 15 x 15 m none of 4. A square of 20 x 20 m has both, but with a porch of 4 x 2 m one of 6,
# 200 of 408 m2; a hall of 50 x 50 m with a porch of 10 x 5 m three of 6, 1,825 of 2,550 m2. In metres,
# also in UTM, all is covered. The list is short, and there is no message.
# Versions: tripy 1.0.0 (the latest), shapely 2.1.2 (to measure). Source: tripy.py: a corner is in a
# triangle if the areas differ by less than EPSILON = 1.5e-8, which in square degrees is 113 m2 at
# 52 degrees: each corner of a house is in each triangle, so that none is an ear, and earclip stops.
# Hurt: who makes roofs or meshes of footprints in longitude and latitude, as GeoJSON has them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tripy==1.0.0 numpy==2.2.6 \
  shapely==2.1.2 2> pip.log
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import shapely
import tripy

PLACE = np.array([13.4, 52.5])
DEGREES = np.array([1 / 67_860, 1 / 111_270])
square = [(0, 0), (1, 0), (1, 1), (0, 1)]
corner = [(0, 0), (1, 0), (1, 0.4), (0.4, 0.4), (0.4, 1), (0, 1)]
porch = [(0, 0), (1, 0), (1, 0.4), (1.1, 0.4), (1.1, 0.6), (1, 0.6), (1, 1), (0, 1)]


def cut(metres, scale, origin):
    """Return the number of triangles, and the share of the polygon that they cover."""
    triangles = tripy.earclip([tuple(corner) for corner in metres * scale + origin])
    back = [shapely.Polygon((np.array(one) - origin) / scale) for one in triangles]
    return len(triangles), round(shapely.union_all(back).area / shapely.Polygon(metres).area, 2)


for name, shape, side, expected in (
    ("a square", square, 10, (0, 0)),
    ("an L", corner, 15, (0, 0)),
    ("a square", square, 20, (2, 1)),
    ("a square with a porch", porch, 20, (1, 0.49)),
    ("a square with a porch", porch, 50, (3, 0.72)),
):
    metres = np.array(shape, dtype=float) * side
    whole = (len(shape) - 2, 1)
    near, utm = cut(metres, 1, np.zeros(2)), cut(metres, 1, np.array([500_000.0, 5_800_000.0]))
    seen = cut(metres, DEGREES, PLACE)
    print(f"{name} of {side} m: {near[0]} triangles in metres; in degrees {seen[0]},",
          f"{seen[1]:.0%} of the area")
    assert near == utm == whole
    assert seen == expected
PYTHON
