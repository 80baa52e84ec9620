#!/usr/bin/env bash
# laspy's convert sets the scan angle of every point to 0 where it crosses from old to new formats.
#
# Guess before the run: convert to point format 6 turns the angle of format 3, in whole degrees, into
# the new one in steps of 0.006 degrees, and back; class 12, "overlap", becomes the new flag.
# Seen: from format 3 to 6 angles of -15, 0 and 15 degrees are 0, and from 6 to 3 as well, since the
# two fields have different names; points of class 12 keep the class and the flag is 0. Intensity,
# class and coordinates are right, and nothing is said. A class above 31, in contrast, raises.
# Versions: laspy 2.7.0, numpy 2.4.6. Source: laspy/lib.py, convert, and point/record.py,
# PackedPointRecord.from_point_record: fields of the same name are copied, all others stay 0.
# The documentation of convert names versions of the file and no field.
# Hurt: who takes points near the nadir, or leaves out overlapping strips, before roofs and heights are
# measured: each point passes the filter, and slanting rays count walls as roofs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check laspy==2.7.0 numpy==2.4.6
venv/bin/python -W error - <<'PYTHON'
import laspy
import numpy as np


def scan(point_format, version, **fields):
    """Return three points with the given fields."""
    points = laspy.LasData(laspy.LasHeader(point_format=point_format, version=version))
    points.x = points.y = points.z = np.arange(3.0)
    for name, values in fields.items():
        points[name] = np.array(values)
    return points


old = scan(3, "1.2", scan_angle_rank=[-15, 0, 15], classification=[6, 12, 6],
           intensity=[100, 200, 300])
new = scan(6, "1.4", scan_angle=[-2500, 0, 2500], classification=[6, 6, 6])
converted = laspy.convert(old, point_format_id=6)
back = laspy.convert(new, point_format_id=3)
print("3 to 6:", list(converted.scan_angle), "overlap:", list(converted.overlap))
print("6 to 3:", list(back.scan_angle_rank))
assert not np.any(converted.scan_angle) and not np.any(back.scan_angle_rank)
assert list(converted.classification) == [6, 12, 6] and not np.any(converted.overlap)
assert list(converted.intensity) == [100, 200, 300]
assert list(converted.x) == [0, 1, 2] and list(back.classification) == [6, 6, 6]
PYTHON
