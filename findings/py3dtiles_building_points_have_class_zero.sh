#!/usr/bin/env bash
# py3dtiles gives all points of older LAS files class 0, and folds intensities of text at 256.
#
# Guess before the run: extra fields that are asked for are those of the file: class 6 for points on
# buildings, from any point format, and intensities as they stand, from 0 to 1 or to 4000.
# Seen: of point format 6 the tiles have class 6. Of formats 0 to 5, all that LAS had up to 1.3,
# "classification" is said to be missing and left out, and "raw_classification", the name that the
# reader knows, is 0 for all points, without a message. From an XYZ file intensities from 0 to 1 are
# 0 or 1, and those to 4000 are 255 at most, in a field of type float32.
# Versions: py3dtiles 12.1.1, laspy 2.7.0, numpy 2.3.5. Source: py3dtiles/reader/las_reader.py takes
# names from point_format.dtype(), where several fields share a byte, and run() looks for them among
# dimension_names; reader/xyz_reader.py, run: np.array(data, dtype=np.uint8).
# Hurt: who shows a scan by class or by intensity in a browser: there are no buildings in it, and
# bright roofs are as dark as asphalt.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check py3dtiles==12.1.1 laspy==2.7.0 numpy==2.3.5
cat > tiles.py <<'PYTHON'
from pathlib import Path

import laspy
import numpy as np
from py3dtiles.convert import convert
from py3dtiles.tileset.content import read_binary_tile_content

COUNT = 400


def field(source, name):
    """Return type, smallest, largest and number of different values of a field in the tiles."""
    folder = Path(f"{source}_{name}")
    convert(source, outfolder=folder, rgb=False, extra_fields=[name], jobs=1)
    tiles = [read_binary_tile_content(path) for path in folder.rglob("*.pnts")]
    values = [tile.get_extra_field(name) for tile in tiles if name in tile.get_extra_field_names()]
    if not values:
        return None
    values = np.concatenate(values)
    return str(values.dtype), float(values.min()), float(values.max()), len(set(values))


def main():
    places = np.random.default_rng(0).uniform((0, 0, 100), (20, 20, 108), (COUNT, 3))
    seen = {}
    for highest in (1, 4000):
        np.savetxt(f"to_{highest}.xyz", np.c_[places, np.linspace(0, highest, COUNT)], fmt="%.3f")
        seen[highest] = field(f"to_{highest}.xyz", "intensity")
    for point_format in (3, 6):
        scan = laspy.LasData(laspy.LasHeader(point_format=point_format, version="1.4"))
        scan.x, scan.y, scan.z = places.T
        scan.classification = np.full(COUNT, 6)
        scan.return_number = np.full(COUNT, 1)
        scan.write(f"format_{point_format}.las")
        for name in ("classification", "raw_classification"):
            seen[point_format, name] = field(f"format_{point_format}.las", name)
    for key, value in seen.items():
        print(key, value)
    assert seen[1] == ("float32", 0, 1, 2)
    assert seen[4000][0] == "float32" and seen[4000][2] <= 255
    assert seen[6, "classification"] == ("uint8", 6, 6, 1)
    assert seen[3, "classification"] is None
    assert seen[3, "raw_classification"] == ("uint8", 0, 0, 1)


if __name__ == "__main__":
    main()
PYTHON
venv/bin/python -W ignore tiles.py
