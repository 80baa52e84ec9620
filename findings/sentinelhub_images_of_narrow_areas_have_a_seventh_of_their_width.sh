#!/usr/bin/env bash
# sentinelhub gives a narrow area in degrees a seventh of the pixels across that it has.
#
# Guess before the run: bbox_to_dimensions gives "width and height in pixels for a given bbox of a
# given pixel resolution (in meters)": 558 x 11,141 pixels of 10 m for a strip of 5.6 x 111 km in
# Norway, and 2,976 x 2,224 for Munich, give or take the scale of UTM, of 0.1 %.
# Seen: 78 x 11,154 for the strip, and 2,901 x 2,321 for Munich, 3 % too few and 4 % too many.
# Where the meridian of the UTM zone runs through the area, the numbers are right. An area of 55
# km by 11 near Bergen has 26 % too few rows, and one near Oslo 19 % too many. bbox_to_resolution
# says the same of the metres of a pixel. There is no message.
# Versions: sentinelhub 3.12.0, pyproj 3.7.2. Source: sentinelhub/geo_utils.py, to_utm_bbox: width
# and height are the differences between two opposite corners in UTM, whose north is turned by up
# to 3 degrees there.
# Hurt: who orders images by a box in degrees, as the examples of the package do: pixels are not
# square and not as large as asked for, and houses are stretched by as much.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentinelhub==3.12.0 pyproj==3.7.2 \
  numpy==2.4.6 shapely==2.2.0
venv/bin/python - <<'PYTHON'
from pyproj import Geod
from sentinelhub import CRS, BBox, bbox_to_dimensions
from sentinelhub.geo_utils import bbox_to_resolution

# West, south, east and north in degrees.
areas = {
    "strip in Norway": (11.8, 59.5, 11.9, 60.5),
    "strip at the meridian": (8.95, 59.5, 9.05, 60.5),
    "near Bergen": (5.0, 60.3, 5.99, 60.4),
    "near Oslo": (11.0, 59.85, 12.0, 59.95),
    "Munich": (11.35, 48.05, 11.75, 48.25),
}
earth = Geod(ellps="WGS84")
seen = {}
for name, (west, south, east, north) in areas.items():
    middle = (south + north) / 2
    width = earth.inv(west, middle, east, middle)[2] / 10
    height = earth.inv(west, south, west, north)[2] / 10
    found = bbox_to_dimensions(BBox((west, south, east, north), CRS.WGS84), 10)
    seen[name] = [*found, round(100 * (found[0] / width - 1)), round(100 * (found[1] / height - 1))]
    print(f"{name:22} {width:.0f} x {height:.0f} pixels of 10 m; found {found[0]} x {found[1]},",
          f"{seen[name][2]} % and {seen[name][3]} % off")
assert seen["strip in Norway"] == [78, 11154, -86, 0]
assert seen["strip at the meridian"][2:] == [0, 0]
assert seen["near Bergen"][2:] == [1, -26] and seen["near Oslo"][2:] == [-1, 19]
assert seen["Munich"] == [2901, 2321, -3, 4]

strip = BBox(areas["strip in Norway"], CRS.WGS84)
metres = bbox_to_resolution(strip, 558, 11141)
print("metres of a pixel of 558 x 11,141 on the strip:", *(round(value, 1) for value in metres))
assert [round(value, 1) for value in metres] == [1.4, 10]
PYTHON
