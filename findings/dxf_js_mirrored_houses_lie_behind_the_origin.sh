#!/usr/bin/env bash
# dxf (npm) puts houses that a drafter mirrored behind the origin, and their round towers right.
#
# Guess before the run: a house at x 100 to 110 m that is mirrored and moved to 190 to 200 m is
# there in the polylines, whichever entity draws it; toPolylines and toSVG agree.
# Seen: mirrored entities keep their numbers in a system of their own (extrusion 0, 0, -1), of which
# the reader has to turn the sign of x. toPolylines does so for circles and for ellipses, but not
# for polylines, new or old: the house lies at -200 to -190 m, two times its easting away, while the
# round tower beside it is right. The ellipse, which DXF keeps in world coordinates, is turned
# without need and lies at -200 to -190 m too. ezdxf 1.4.5 has all four at 190 to 200 m. In UTM the
# houses are up to 1,700 km off. No warning.
# Versions: dxf 5.3.1, node 20. Source: dxf/src/entityToPolyline.js, the branches for LWPOLYLINE and
# POLYLINE never look at extrusionZ, that for ELLIPSE does. Issue 147 was on toSVG's LWPOLYLINE, and
# its mend (5.3.1 has it) is in toSVG alone.
# Hurt: who takes ground plans from drawings to a map with it: mirrored halves of semi-detached
# houses leave the town, and the box of the drawing doubles.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ezdxf==1.4.5
npm install --silent --no-fund --no-audit dxf@5.3.1 > npm.log
venv/bin/python - <<'PYTHON'
import ezdxf
from ezdxf import bbox
from ezdxf.math import Matrix44

drawing = ezdxf.new("R2010")
space = drawing.modelspace()
shapes = [
    space.add_lwpolyline([(100, 0), (110, 0), (110, 6), (100, 6)], close=True),
    space.add_polyline2d([(100, 20), (110, 20), (110, 26), (100, 26)], close=True),
    space.add_circle((105, 45), 5),
    space.add_ellipse((105, 65), (5, 0), 0.5),
]
for shape in shapes:
    shape.transform(Matrix44.scale(-1, 1, 1) @ Matrix44.translate(300, 0, 0))
    box = bbox.extents([shape])
    print("ezdxf", shape.dxftype(), round(box.extmin.x), "to", round(box.extmax.x))
    assert (round(box.extmin.x), round(box.extmax.x)) == (190, 200)
drawing.saveas("town.dxf")
PYTHON
cat > read.cjs <<'JS'
const assert = require('assert');
const { Helper } = require('dxf');
const text = require('fs').readFileSync('town.dxf', 'utf8');
const found = new Helper(text).toPolylines().polylines.map(({ vertices }) => {
  const x = vertices.map((vertex) => Math.round(vertex[0]));
  return [Math.min(...x), Math.max(...x)];
});
console.log('dxf', JSON.stringify(found));
assert.deepStrictEqual(found, [[-200, -190], [-200, -190], [190, 200], [-200, -190]]);
assert(/matrix\(-1 0 0 1 0 0\)">\s*<path d="M-200,0L/.test(new Helper(text).toSVG()));
JS
node read.cjs
