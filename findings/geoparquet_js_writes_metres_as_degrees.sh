#!/usr/bin/env bash
# geoparquet and hyparquet turn a table in UTM into GeoJSON whose degrees are metres.
#
# Guess before the run: toGeoJson transforms the coordinates to longitude and latitude, which is
# what GeoJSON holds by RFC 7946, or it refuses a file whose metadata name another system.
# Seen: the coordinates are those of the file, 500000 and 5500000, and no member names the system,
# which the file's metadata do, in full. So it is with hyparquet, by the recipe that geoparquet's
# README recommends since the package is deprecated. A table in EPSG:4326 is right. Besides,
# toGeoJson leaves out a row without geometry, so that the third row becomes the second feature. No
# message.
# Versions: geoparquet 0.6.0, hyparquet 1.33.0 (npm), geopandas 1.2.0, pyarrow 22.0.0. Source:
# geoparquet/src/toGeoJson.js reads the primary column of the "geo" metadata and not its crs; the
# README speaks of reading and converting files "into GeoJSON", with a link to RFC 7946.
# Hurt: who shows footprints from GeoParquet on a web map: projected ones, as most cadastres have
# them, are off the map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 pyarrow==22.0.0 \
  shapely==2.1.2 numpy==2.4.6
npm install --silent --no-fund --no-audit geoparquet@0.6.0 hyparquet@1.33.0
cat > write.py <<'PYTHON'
import geopandas
import shapely

boxes = [shapely.box(500_000, 5_500_000, 500_020, 5_500_010), None,
         shapely.box(500_050, 5_500_000, 500_060, 5_500_010)]
town = geopandas.GeoDataFrame({"name": ["a", "b", None], "floors": [3, 2, 1]}, geometry=boxes,
                              crs=32633)
town.to_parquet("metres.parquet")
town.to_crs(4326).to_parquet("degrees.parquet")
PYTHON
venv/bin/python write.py
cat > read.mjs <<'JAVASCRIPT'
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";
import { toGeoJson } from "geoparquet";

const found = {};
for (const name of ["metres", "degrees"]) {
  const file = await asyncBufferFromFile(`${name}.parquet`);
  found[name] = { geoparquet: await toGeoJson({ file }) };
  const rows = await parquetReadObjects({ file });
  found[name].hyparquet = {
    type: "FeatureCollection",
    features: rows.map(({ geometry, ...properties }) => ({ type: "Feature", geometry, properties })),
  };
}
const text = (key, value) => (typeof value === "bigint" ? Number(value) : value);
console.log(JSON.stringify(found, text));
JAVASCRIPT
node read.mjs > read.json
venv/bin/python - <<'PYTHON'
import json

import pyarrow.parquet
from shapely.geometry import shape

metadata = json.loads(pyarrow.parquet.read_metadata("metres.parquet").metadata[b"geo"])
system = metadata["columns"]["geometry"]["crs"]["id"]
with open("read.json") as file:
    read = json.load(file)
right = [500_000, 5_500_000, 500_020, 5_500_010]
for name, collections in read.items():
    for library, collection in collections.items():
        features = collection["features"]
        bounds = [round(value, 5) for value in shape(features[0]["geometry"]).bounds]
        floors = [feature["properties"]["floors"] for feature in features]
        print(f"{library} from {name}: {sorted(collection)} bounds: {bounds} floors: {floors}")
        assert sorted(collection) == ["features", "type"]
        assert floors == ([3, 1] if library == "geoparquet" else [3, 2, 1])
        assert bounds == right if name == "metres" else 14.9 < bounds[0] < 15.1
print("the system that the metadata name:", system)
assert system == {"authority": "EPSG", "code": 32633}
PYTHON
