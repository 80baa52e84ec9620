#!/usr/bin/env bash
# pydelatin squeezes the terrain of scenes that are not square, and snaps it in UTM to half metres.
#
# Guess before the run: rescale_positions moves vertices from pixels into an extent, [minx, miny,
# maxx, maxy], each axis by its own length, so that the far corner of the mesh is that of the
# extent and distances between walls are kept.
# Seen: of a raster of 201 x 101 pixels in an extent of 200 x 100 m, the mesh spans 200 x 50 m: a
# hall 40 m wide and 30 m deep comes back 15 m deep, and 17.5 m from its place. One of 101 x 201 is
# squeezed from west to east; a square one is right near zero. At a northing of 5,500,000 m all
# vertices lie at half metres: of 501 walls, one every 0.2 m, 400 are elsewhere, and two or three
# share a place; at 52 degrees north the steps are 0.42 m. There is no message.
# Versions: pydelatin 0.4.0 (the latest), numpy 2.2.6. Source: pydelatin/util.py, rescale_positions:
# tile_size is the largest of all x and y, and both scales divide by it; the result is float32.
# Hurt: who makes a terrain below houses from a scene that is no square tile, or in metres.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pydelatin==0.4.0 numpy==2.2.6
cat > town.py <<'PYTHON'
import numpy
from pydelatin import Delatin
from pydelatin.util import rescale_positions

EAST, NORTH = 500_000, 5_500_000


def mesh(rows, columns):
    """Return the sizes of the mesh and of its hall of 40 x 30 m, in pixels of 1 m."""
    heights = numpy.zeros((rows, columns), "float32")
    heights[50:81, 50:91] = 10
    vertices = Delatin(heights, max_error=0.1).vertices
    west, south, east, north = 0, 0, columns - 1, rows - 1
    placed = rescale_positions(vertices, (west, south, east, north))
    hall = placed[placed[:, 2] > 9]
    sizes = [numpy.ptp(part[:, :2], axis=0).tolist() for part in (placed, hall)]
    pixels = vertices[vertices[:, 2] > 9]
    centres = [(part[:, :2].min(axis=0) + part[:, :2].max(axis=0)) / 2 for part in (pixels, hall)]
    away = numpy.abs(centres[0] - centres[1]).tolist()
    print(f"{columns} x {rows} pixels: mesh {sizes[0]} hall {sizes[1]} away {away}")
    return [*sizes, away]


assert mesh(101, 201) == [[200, 50], [40, 15], [0, 17.5]]
assert mesh(201, 101) == [[50, 200], [20, 30], [35, 0]]
assert mesh(201, 201) == [[200, 200], [40, 30], [0, 0]]

walls = numpy.arange(501, dtype="float64")
vertices = numpy.stack([walls, walls, numpy.zeros(501)], axis=1)
placed = rescale_positions(vertices, (EAST, NORTH, EAST + 100, NORTH + 100))[:, 1]
true = NORTH + walls * 0.2
error = numpy.abs(placed.astype("float64") - true)
print("north coordinates", len(numpy.unique(placed)), "of 501, errors up to", error.max().round(3))
print("moved", int((error > 1e-6).sum()))
assert len(numpy.unique(placed)) == 201 and 0.199 < error.max() < 0.201
assert int((error > 1e-6).sum()) == 400
assert set((placed.astype("float64") * 2 % 1).tolist()) == {0}
degrees = rescale_positions(vertices, (13, 52, 13.001, 52.001))[:, 1].astype("float64")
step = numpy.diff(numpy.unique(degrees)).min() * 111_300
print("metres between neighbours at 52 degrees north:", step.round(2))
assert 0.41 < step < 0.43
PYTHON
venv/bin/python town.py
