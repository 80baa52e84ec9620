#!/usr/bin/env bash
# togeojson reads each bool of a KML as true.
#
# Guess before the run: a KML of GDAL with a column of bools, "checked", comes through togeojson,
# which reads the types of the schema, with true for "true" and false for "false".
# Seen: all houses are checked: "false" and "0" become true, as "true" and "1" do. The column of
# heights in the same file becomes numbers, a height that is missing stays missing, and GDAL reads
# the same file with the right bools. There is no message.
# Versions: @tmcw/togeojson 7.1.3, @xmldom/xmldom 0.9.12 (npm), pyogrio 0.12.1. Source:
# typeConverters in lib/kml/shared.ts turns the text to a bool as JavaScript does, for which each
# text that is not empty is true.
# Hurt: who shows reviewed, demolished or residential houses of a KML in a web map: all of them are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 geopandas==1.1.2 \
  shapely==2.1.2 pandas==2.3.3 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import geopandas as gpd
import shapely

houses = gpd.GeoDataFrame(
    {"Name": list("abc"), "checked": [True, False, False], "height": [5.5, None, 2.0]},
    geometry=[shapely.box(13 + i / 1000, 52, 13.0005 + i / 1000, 52.0005) for i in range(3)],
    crs=4326,
)
houses.to_file("houses.kml", driver="LIBKML", engine="pyogrio")
back = gpd.read_file("houses.kml", engine="pyogrio")["checked"].tolist()
print("GDAL reads", back)
assert [bool(value) for value in back] == [True, False, False]
PYTHON
npm install --silent --no-fund --no-audit @tmcw/togeojson@7.1.3 @xmldom/xmldom@0.9.12
cat > read.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import fs from "node:fs";
import { kml } from "@tmcw/togeojson";
import { DOMParser } from "@xmldom/xmldom";

function columns(text) {
  const { features } = kml(new DOMParser().parseFromString(text, "text/xml"));
  return features.map(({ properties: { name, checked, height } }) => [name, checked, height]);
}

const text = fs.readFileSync("houses.kml", "utf8");
assert(text.includes('<SimpleField name="checked" type="bool"/>'));
assert.strictEqual(text.match(/<SimpleData name="checked">false</g).length, 2);
const seen = columns(text);
console.log("togeojson reads", seen);
assert.deepStrictEqual(seen, [["a", true, 5.5], ["b", true, undefined], ["c", true, 2]]);
const digits = columns(text.replaceAll(">false<", ">0<").replaceAll(">true<", ">1<"));
console.log("with 0 and 1", digits);
assert.deepStrictEqual(digits, seen);
JAVASCRIPT
node read.mjs
