#!/usr/bin/env bash
# pyshp gives each house after a deleted one the height of the next, and drops the last house.
#
# Guess before the run: a house that is marked as deleted in the table is left out, as GDAL does, or
# returned with the others, as the README of pyshp says ("all records regardless of their deletion
# flag"); each other house keeps its own record.
# Seen: of four houses with the second one deleted, iterShapeRecords, shapeRecords and the GeoJSON of
# the reader give the outline of the second with the height of the third, that of the third with the
# height of the fourth, and no fourth. With a bbox around all of them, each outline has its record,
# and the deleted one None. len() is 4. There is no message.
# Versions: pyshp 3.1.6, pyogrio 0.12.1. Source: shapefile.py, Reader.iterShapeRecords zips iterShapes,
# which has all shapes, with iterRecords, which "excludes 'deleted' records".
# Hurt: who reads footprints that were edited in place and not packed since (dBase, shapelib, GDAL with
# AUTO_REPACK=NO): heights and names stand on the wrong houses from the deleted one on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyshp==3.1.6 pyogrio==0.12.1 \
  numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import pyogrio.raw
import shapefile

with shapefile.Writer("houses") as writer:
    writer.field("height", "N", 6, 0)
    for east, height in ((0, 3), (20, 6), (40, 9), (60, 12)):
        writer.poly([[(east, 0), (east, 10), (east + 10, 10), (east + 10, 0), (east, 0)]])
        writer.record(height)
with open("houses.dbf", "r+b") as table:
    head = table.read(12)
    second = int.from_bytes(head[8:10], "little") + int.from_bytes(head[10:12], "little")
    table.seek(second)
    assert table.read(1) == b" "
    table.seek(second)
    table.write(b"*")

_, _, outlines, (heights,) = pyogrio.raw.read("houses.shp")
gdal = len(outlines), heights.tolist()
reader = shapefile.Reader("houses")
seen = [(item.shape.bbox[0], item.record and item.record[0]) for item in reader.shapeRecords()]
within = [
    (item.shape.bbox[0], item.record and item.record[0])
    for item in reader.iterShapeRecords(bbox=[-1, -1, 99, 99])
]
features = reader.__geo_interface__["features"]
print("GDAL, houses and their heights:", gdal)
print("pyshp, east and height:", seen)
print("the same within a bbox:", within)
assert gdal == (3, [3, 9, 12])
assert len(reader) == 4
assert seen == [(0, 3), (20, 9), (40, 12)]
assert within == [(0, 3), (20, None), (40, 9), (60, 12)]
assert [item["properties"]["height"] for item in features] == [3, 9, 12]
assert [item["geometry"]["coordinates"][0][0][0] for item in features] == [0, 20, 40]
PYTHON
