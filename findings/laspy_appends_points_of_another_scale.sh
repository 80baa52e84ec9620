#!/usr/bin/env bash
# laspy appends points as raw integers, so tiles with an offset or a scale of their own move.
#
# Guess before the run: append_points converts to the scale and offset of the file, as write_points
# of the same library does; or it refuses, as both refuse another point format.
# Seen: of two neighbouring tiles of 1 km whose offsets are their corners, the appended one lies on
# the first. Appended points of 1 mm to a file of 1 cm have a height of 102.5 m in place of 10.25 m.
# The header's extent is that of the wrong points, and there is no message. write_points is right.
# Versions: laspy 2.7.0. Source: laspy/lasappender.py, append_points, which compares formats only;
# its issue 254; pull request 327 changed the writer and not the appender.
# Hurt: who joins a survey tile by tile to measure heights: half of the town stands on the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check laspy==2.7.0 numpy==2.2.6
venv/bin/python -W error - <<'PYTHON'
import shutil
import laspy
import numpy as np


def tile(name, corner, scale):
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales = [corner, 5_000_000, 0], [scale] * 3
    roof = laspy.LasData(header)
    roof.x, roof.y, roof.z = np.array([[corner + 1.5], [5_000_002.5], [10.25]])
    roof.write(name)


def last(name):
    roof = laspy.read(name)
    assert round(float(roof.header.x_max), 3) == round(float(np.max(roof.x)), 3)
    return round(float(roof.x[-1]), 3), round(float(roof.z[-1]), 3)


tile("west.las", 500_000, 0.01)
tile("east.las", 501_000, 0.01)
tile("fine.las", 500_000, 0.001)
seen = {}
for name in ("east.las", "fine.las"):
    points = laspy.read(name).points
    shutil.copy("west.las", "appended.las")
    with laspy.open("appended.las", mode="a") as file:
        file.append_points(points)
    with laspy.open("written.las", mode="w", header=laspy.read("west.las").header) as file:
        file.write_points(laspy.read("west.las").points)
        file.write_points(points)
    seen[name] = last(name), last("written.las"), last("appended.las")
    print(name, "x and z of the roof, written, appended:", *seen[name])
east, fine = (501_001.5, 10.25), (500_001.5, 10.25)
assert seen["east.las"] == (east, east, fine)
assert seen["fine.las"] == (fine, fine, (500_015.0, 102.5))
PYTHON
