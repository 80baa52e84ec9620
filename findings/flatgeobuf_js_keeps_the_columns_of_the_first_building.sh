#!/usr/bin/env bash
# flatgeobuf for JavaScript writes the columns of the first building only, in its types.
#
# Guess before the run: serialize of a FeatureCollection has the columns of all its features, as
# GDAL has, or raises; a number that the first building lacks (null) is a number for the others.
# Seen: columns are the properties of the first feature. If it has no "name", no building has one;
# if its "height" is null, heights are text: 9.5 comes back as "9.5", and 12 and 9.5 are sorted as
# words. With another building in front the same town has everything. There is no message.
# Versions: flatgeobuf 4.5.0 (npm), pyogrio 0.12.1 with the GDAL 3.11.4 of its wheel. Source:
# lib/mjs/generic/featurecollection.js, introspectHeaderMeta.
# Hurt: who serves footprints to a web map from GeoJSON of OpenStreetMap or of several sources,
# whose features have different properties: filters and labels find nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 numpy==2.2.6
npm install --silent --no-fund --no-audit flatgeobuf@4.5.0
cat > write.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { serialize } from "flatgeobuf/lib/mjs/geojson.js";

const house = (x, properties) => ({
  type: "Feature", properties,
  geometry: { type: "Polygon", coordinates: [[[x, 0], [x + 10, 0], [x + 10, 10], [x, 10], [x, 0]]] },
});
const bare = house(0, { number: 1, height: null });
const known = house(20, { number: 2, height: 9.5, name: "town hall" });
for (const [name, features] of [["bare", [bare, known]], ["known", [known, bare]]]) {
  const town = { type: "FeatureCollection", features };
  fs.writeFileSync(`${name}.json`, JSON.stringify(town));
  fs.writeFileSync(`${name}.fgb`, serialize(town));
}
JAVASCRIPT
node write.mjs
venv/bin/python - <<'PYTHON'
from pyogrio import read_info
from pyogrio.raw import read


def columns(name):
    info = read_info(name)
    *_, values = read(name, read_geometry=False)
    found = dict(zip(map(str, info["fields"]), map(str, info["dtypes"]), strict=True))
    print(name, found, [value.tolist() for value in values])
    return found


for name in ("bare.json", "known.json", "known.fgb"):
    found = columns(name)
    assert found.keys() == {"number", "height", "name"} and found["height"] == "float64"
assert columns("bare.fgb") == {"number": "float64", "height": "object"}
PYTHON
