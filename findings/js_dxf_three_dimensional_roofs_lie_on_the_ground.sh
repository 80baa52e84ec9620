#!/usr/bin/env bash
# @tarikjabiri/dxf writes roofs with addPolyline3D that lie on the ground in the drawing.
#
# Guess before the run: addPolyline3D writes a 3D polyline, as addLWPolyline writes one in the
# plane; with the flag Closed it is closed, and the corners keep their heights of 3 and 5 m.
# Seen: the numbers are in the file, but the entity says that it is a 2D polyline: bit 8 of its
# flags is off, while each vertex says that it is of a 3D polyline. A reader takes the one height of
# a 2D polyline, which is 0: ezdxf has roofs from 0 to 0 m, open or closed, and finds no error in
# the file. With the flag Polyline3D given too, they reach from 3 to 5 m.
# Versions: @tarikjabiri/dxf 2.9.0 (npm), ezdxf 1.4.5. Source: lib/index.mjs, addPolyline3D hands
# the options to Polyline, which sets no flag of its own; the types say PolylineOptions with all
# optional.
# Hurt: who exports roofs, eaves or ridges to a drawing: the plan is right and the model is flat.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ezdxf==1.4.5
npm install --silent --no-fund --no-audit @tarikjabiri/dxf@2.9.0 > npm.log
cat > write.cjs <<'JAVASCRIPT'
const { DxfWriter, PolylineFlags, point3d } = require("@tarikjabiri/dxf");

const roof = [[0, 0, 3], [10, 0, 3], [10, 6, 5], [0, 6, 5]].map(
  (corner) => ({ point: point3d(...corner) }));
const drawing = new DxfWriter();
drawing.addPolyline3D(roof);
drawing.addPolyline3D(roof, { flags: PolylineFlags.Closed });
drawing.addPolyline3D(roof, { flags: PolylineFlags.Closed | PolylineFlags.Polyline3D });
require("node:fs").writeFileSync("roofs.dxf", drawing.stringify());
JAVASCRIPT
node write.cjs
venv/bin/python - <<'PYTHON'
import ezdxf
from ezdxf import bbox

drawing = ezdxf.readfile("roofs.dxf")
assert not drawing.audit().errors
found = []
for roof in drawing.modelspace():
    box = bbox.extents([roof])
    heights = [vertex.dxf.location.z for vertex in roof.vertices]
    found.append((roof.is_3d_polyline, roof.is_closed, box.extmin.z, box.extmax.z))
    print("3D, closed, lowest, highest:", *found[-1], "numbers in the file", heights)
    assert heights == [3, 3, 5, 5]
assert found == [(False, False, 0, 0), (False, True, 0, 0), (True, True, 3, 5)]
PYTHON
