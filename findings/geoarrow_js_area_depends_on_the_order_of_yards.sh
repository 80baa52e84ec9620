#!/usr/bin/env bash
# geoarrow-js gives a block with two courtyards an area that depends on the order of its rings.
#
# Guess before the run: area of a polygon is that of its exterior without its holes, as in shapely;
# the order of the holes does not matter, nor the direction in which a ring runs.
# Seen: a block of 20 x 20 m with two yards of 5 x 5 m has 280 square metres, and 420 with its yards
# in the other order, which is more than the block without them; 350 are right. All rings are taken
# as one, whose jumps from ring to ring enclose a triangle. With one yard these cancel out: 375 is
# right if the yard runs against the exterior, and 425 is found if it runs as the exterior does.
# Versions: @geoarrow/geoarrow-js 0.3.3, apache-arrow 21.2.0, @math.gl/polygon 4.1.0 (npm), shapely
# 2.1.2. Source: src/algorithm/area.ts and utils/polygon.ts (makeMathGlPolygon), which give the
# coordinates of all rings to math.gl's Polygon; its README speaks of no limit.
# Hurt: who sums footprints in the browser from GeoArrow or GeoParquet: blocks with yards, the large
# buildings of old towns, are off by a fifth, in both directions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit \
  @geoarrow/geoarrow-js@0.3.3 apache-arrow@21.2.0 @math.gl/polygon@4.1.0
cat > measure.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import * as arrow from "apache-arrow";
import { algorithm } from "@geoarrow/geoarrow-js";

const square = (west, south, size) => [
  [west, south], [west + size, south], [west + size, south + size], [west, south + size],
  [west, south],
];
const list = (child, offsets) => arrow.makeData({
  type: new arrow.List(new arrow.Field("item", child.type)),
  length: offsets.length - 1, valueOffsets: Int32Array.from(offsets), child,
});

/** One polygon as geoarrow.polygon with interleaved coordinates. */
function polygon(rings) {
  const numbers = arrow.makeData({
    type: new arrow.Float64(), data: Float64Array.from(rings.flat(2)),
  });
  const points = arrow.makeData({
    type: new arrow.FixedSizeList(2, new arrow.Field("xy", numbers.type)),
    length: numbers.length / 2, child: numbers,
  });
  const ends = rings.map((_, last) => rings.slice(0, last + 1).flat().length);
  return list(list(points, [0, ...ends]), [0, rings.length]);
}

const block = square(0, 0, 20);
const west = square(2, 12, 5).reverse();
const east = square(12, 2, 5).reverse();
const blocks = {
  "no yard": [block],
  "one yard": [block, west],
  "one yard, as the exterior": [block, square(2, 12, 5)],
  "two yards": [block, west, east],
  "two yards, the other first": [block, east, west],
};
const areas = Object.entries(blocks).map(([name, rings]) =>
  [name, rings, algorithm.area(polygon(rings)).values[0]]);
fs.writeFileSync("areas.json", JSON.stringify(areas));
JAVASCRIPT
node measure.mjs
venv/bin/python - <<'PYTHON'
import json
import shapely

seen = []
for name, rings, area in json.load(open("areas.json")):
    outline = shapely.Polygon(rings[0], rings[1:])
    assert outline.is_valid
    seen.append((area, outline.area))
    print(f"{name:28} geoarrow-js {area}, shapely {outline.area}")
assert seen == [(400, 400), (375, 375), (425, 375), (280, 350), (420, 350)]
PYTHON
