#!/usr/bin/env bash
# geobuf for Python reads degrees of geobuf for JavaScript as millions of degrees.
#
# Guess before the run: both are the reference readers and writers of Geobuf, so that a house that
# one writes is where the other reads it; places may be rounded to six decimals, as documented.
# Seen: a house of Berlin at 13.404954, 52.520008 is read by Python at 13404954, 52520008. A house
# whose corners have at most five decimals is right, and so is whatever Python wrote itself, and
# all is right when JavaScript reads either. One corner with a sixth decimal moves the whole file.
# There is no message.
# Versions: geobuf 2.0.1 and protobuf 6.33.1 (PyPI), geobuf 4.0.0 and pbf 4.0.1 (npm). Source:
# encode.js writes the precision unless it is 6, the default of geobuf.proto; since its 2.0 the
# Python package has a proto3 file, where what is left out is 0 (geobuf/decode.py: e is
# 10**data.precision). The same of dimensions was reported as an error (pygeobuf's issue 59) and
# mended in 2.0.1.
# Hurt: who reads buildings that a browser or Node wrote: nearly all have six decimals or more, and
# a table of them has areas a billion times as large, or is off the map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geobuf==2.0.1 protobuf==6.33.1
npm install --silent --no-fund --no-audit geobuf@4.0.0 pbf@4.0.1
cat > write.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { encode } from "geobuf";
import Pbf from "pbf";

for (const [name, x, y] of [["six", 13.404954, 52.520008], ["five", 13.40495, 52.52]]) {
  const ring = [[x, y], [x + 0.001, y], [x + 0.001, y + 0.001], [x, y]]
    .map((corner) => corner.map((value) => Number(value.toFixed(name === "six" ? 6 : 5))));
  const house = { type: "Polygon", coordinates: [ring] };
  fs.writeFileSync(`${name}.json`, JSON.stringify(house));
  fs.writeFileSync(`${name}.pbf`, encode(house, new Pbf()));
}
JAVASCRIPT
cat > read.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { decode } from "geobuf";
import Pbf from "pbf";

for (const name of ["six", "five"])
  for (const file of [`${name}.pbf`, `${name}.python.pbf`]) {
    const read = decode(new Pbf(fs.readFileSync(file))).coordinates[0];
    const own = JSON.parse(fs.readFileSync(`${name}.json`)).coordinates[0];
    if (JSON.stringify(read) !== JSON.stringify(own)) throw new Error(`${file}: ${read}`);
  }
console.log("JavaScript reads all as they were written");
JAVASCRIPT
node write.mjs
venv/bin/python - <<'PYTHON'
import json

import geobuf

for name, factor in (("six", 1_000_000), ("five", 1)):
    own = json.load(open(f"{name}.json"))
    x, y = geobuf.decode(open(f"{name}.pbf", "rb").read())["coordinates"][0][0]
    own_x, own_y = own["coordinates"][0][0]
    print(f"{own_x}, {own_y} is read at {x:.6f}, {y:.6f}")
    assert abs(x - factor * own_x) < 1e-6 and abs(y - factor * own_y) < 1e-6
    written = geobuf.encode(own)
    assert geobuf.decode(written)["coordinates"] == own["coordinates"]
    open(f"{name}.python.pbf", "wb").write(written)
PYTHON
node read.mjs
