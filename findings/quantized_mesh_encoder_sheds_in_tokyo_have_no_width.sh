#!/usr/bin/env bash
# quantized-mesh-encoder moves walls in Tokyo by up to 0.7 m, so that sheds have no width.
#
# Guess before the run: encode() writes corners, given in float64, as parts of the tile's bounds in
# 15 bits, as the format has it: at level 16 a tile of 250 m, and steps of 8 mm.
# Seen: of sheds of 1 m in a tile of Tokyo one in four has no width at all, its two walls being in
# one place, and the others are 1.4 m wide; houses of 10 m are 9.6 or 11 m. Tiles of level 18 are no
# better. In Ghent widths are right to 3 cm. Corners become float32 in degrees, of which one step is
# 1.4 m at 140 degrees east, before they are set in relation to the bounds. There is no message.
# Versions: quantized-mesh-encoder 0.5.0, numpy 2.4.6. Source: quantized_mesh_encoder/encode.py,
# encode: positions.reshape(-1, 3).astype(np.float32) before interp_positions.
# Hurt: who shows a surface model with roofs, or buildings as terrain, in Cesium far from Greenwich:
# walls lean and stand beside those of the imagery and of 3D tiles.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 attrs==26.1.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps quantized-mesh-encoder==0.5.0
venv/bin/python -W error - <<'PYTHON'
import io
import struct

import numpy as np
from quantized_mesh_encoder import encode


def widths(longitude, latitude, level, metres):
    """Return widths in metres of 200 houses of one tile after writing it, west to east."""
    span = 180 / 2**level
    west = (longitude + 180) // span * span - 180
    south = (latitude + 90) // span * span - 90
    degree = 111_320 * np.cos(np.radians(south))
    left = west + np.linspace(0.1, 0.7, 200) * span
    walls = np.stack([left, left + metres / degree], axis=-1)
    # A roof of two triangles for each house, and the tile's corners.
    corners = [(west, south, 0), (west + span, south, 0),
               (west, south + span, 0), (west + span, south + span, 0)]
    triangles = [(0, 1, 2), (1, 3, 2)]
    for first, last in walls.tolist():
        start = len(corners)
        corners += [(x, south + part * span, 9) for part in (0.4, 0.5) for x in (first, last)]
        triangles += [(start, start + 1, start + 2), (start + 1, start + 3, start + 2)]
    file = io.BytesIO()
    encode(file, np.array(corners), np.array(triangles), bounds=(west, south, west + span,
                                                                   south + span))
    data = file.getvalue()
    count = struct.unpack_from("<I", data, 88)[0]
    assert count == len(corners)
    codes = np.frombuffer(data, "<u2", count, 92).astype(int)
    east = np.cumsum((codes >> 1) ^ -(codes & 1))[4:].reshape(-1, 4) / 32767 * span * degree
    return (east[:, 1] - east[:, 0]).round(2)


seen = {}
for place, longitude, latitude in (("Tokyo", 139.7, 35.6), ("Ghent", 3.7, 51.05)):
    for level in (16, 18):
        for metres in (1, 10):
            found = widths(longitude, latitude, level, metres)
            seen[place, level, metres] = found
            print(f"{place}, level {level}: houses of {metres} m are {found.min()} to "
                  f"{found.max()} m wide, {np.mean(found == 0):.0%} have no width")
for level in (16, 18):
    sheds, houses = seen["Tokyo", level, 1], seen["Tokyo", level, 10]
    assert 0.2 < np.mean(sheds == 0) < 0.4 and sheds.max() > 1.3
    assert houses.min() < 9.7 and houses.max() > 10.9
    for metres in (1, 10):
        assert np.abs(seen["Ghent", level, metres] - metres).max() < 0.03
PYTHON
