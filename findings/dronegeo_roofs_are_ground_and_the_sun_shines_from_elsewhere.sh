#!/usr/bin/env bash
# dronegeo takes roofs for ground by the order of points, and turns the sun by the side of the sky.
#
# Guess before the run: create_dtm takes points of class 2 alone, in whatever order, and raises an
# error "if zero points match", as it says; a hillshade with the sun in the north is brightest on
# roofs that face north, since azimuth 0 is north and 90 east there.
# Seen: of a hall 10 m high on ground of 2 m, with classes 6 and 2, the terrain is 2 m if the points
# are mixed. If the points of the hall come first, as in a file sorted by class, the terrain has the
# hall at 10 m: a chunk without ground counts as ground whole (100,000 points here, 2,500,000 by
# default). Without class 2 in the file there is no error, and the terrain is the surface. With the
# sun in the north a pyramid is brightest on its east side, with the sun in the east on its north,
# and with the default, north-west, on the east and south; its aspect map is right. No message.
# Versions: dronegeo 0.1.3 (the latest), laspy 2.6.1, rasterio 1.4.3. Source: dronegeo/dem/
# surface_models.py, create_dtm: "if not np.any(g_mask)" within the loop over chunks;
# dronegeo/analysis/morphology.py, generate_hillshade: 360 - azimuth + 90 counts from the east
# against the clock, and aspect_rad, which is subtracted, from the north with it.
# Hurt: who takes heights of buildings as surface less terrain: halls have none; and who looks for
# sunny roofs in a hillshade.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dronegeo==0.1.3 laspy==2.6.1 \
  numpy==2.2.6 rasterio==1.4.3 scipy==1.15.3
cat > town.py <<'PYTHON'
import dronegeo
import laspy
import numpy
import rasterio
from rasterio.transform import from_origin

EAST, NORTH = 500_000, 5_500_000
dronegeo.set_compute_config(chunk_size=100_000)


def heights(x, y, z, classes):
    """Return the heights of the terrain model of these points, in cells of 1 m."""
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.01] * 3, [EAST, NORTH, 0]
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z, cloud.classification = x + EAST, y + NORTH, z, classes
    cloud.write("town.las")
    dronegeo.dem.create_dtm("town.las", "terrain.tif", resolution=1, k_neighbors=1)
    with rasterio.open("terrain.tif") as model:
        return numpy.unique(model.read(1, masked=True).compressed()).tolist()


axis = numpy.arange(0.05, 60, 0.1)
x, y = (grid.ravel() for grid in numpy.meshgrid(axis, axis))
hall = (numpy.abs(x - 30) < 20) & (numpy.abs(y - 30) < 20)
z = numpy.where(hall, 10, 2)
classes = numpy.where(hall, 6, 2).astype("uint8")
order = numpy.argsort(~hall, kind="stable")
mixed = heights(x, y, z, classes)
ordered = heights(x[order], y[order], z[order], classes[order])
without = heights(x, y, z, numpy.where(hall, 6, 1).astype("uint8"))
print(f"terrain around a hall of {hall.sum()} points: mixed {mixed}, by class {ordered}")
print("without points of class 2", without)
assert mixed == [2] and ordered == [2, 10] and without == [2, 10]

rows, columns = numpy.mgrid[0:41, 0:41]
roof = numpy.minimum.reduce([rows, 40 - rows, columns, 40 - columns]).astype("float32")
with rasterio.open(
    "roof.tif", "w", driver="GTiff", height=41, width=41, count=1, dtype="float32",
    transform=from_origin(EAST, NORTH, 1, 1),
) as model:
    model.write(roof, 1)
SIDES = {"north": (6, 20), "east": (20, 34), "south": (34, 20), "west": (20, 6)}
dronegeo.analysis.generate_aspect_map("roof.tif", "aspect.tif")
with rasterio.open("aspect.tif") as model:
    aspect = model.read(1)
assert [float(aspect[SIDES[side]]) for side in SIDES] == [0, 90, 180, 270]


def brightest(azimuth):
    """Return the sides of the roof that are brightest with the sun at this azimuth."""
    dronegeo.analysis.generate_hillshade("roof.tif", "shade.tif", azimuth_deg=azimuth)
    with rasterio.open("shade.tif") as model:
        shade = model.read(1).astype(int)
    found = {side: shade[place] for side, place in SIDES.items()}
    bright = [side for side in found if found[side] >= max(found.values()) - 1]
    print("sun at", azimuth, "brightest", bright)
    return bright


assert brightest(0) == ["east"] and brightest(90) == ["north"]
assert brightest(315) == ["east", "south"]
PYTHON
venv/bin/python -W ignore town.py
