#!/usr/bin/env bash
# OpenLayers reads Esri JSON and gives the yard of a house to another part whose box it lies in.
#
# Guess before the run: Esri JSON has the rings of all parts in one list, outer ones clockwise; a
# reader puts each hole into the outer ring that contains it, whatever the order of the rings.
# Seen: a school has a wing in the form of a U and, between its arms, a house with a yard. If the U
# stands behind the house in the list, the yard becomes a hole of the U, beside which it lies. The
# house is solid: a point in the yard is inside of the building, and the feature as GeoJSON is
# invalid. The area of the whole is right, since holes are subtracted wherever they lie. With the
# house behind the U all is right. Esri's own converter to GeoJSON is right in all orders.
# Versions: ol 10.11.0, @esri/arcgis-to-geojson-utils 1.3.0 (npm), shapely 2.1.2. Source:
# convertRings in ol/format/EsriJSON.js, which compares extents, from the last ring to the first.
# Hurt: who loads buildings of an ArcGIS server into a web map or converts them there: courtyards
# are built up, clicks in them find the house, and other programs refuse the geometry.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit ol@10.11.0 @esri/arcgis-to-geojson-utils@1.3.0
cat > read.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { arcgisToGeoJSON } from "@esri/arcgis-to-geojson-utils";
import EsriJSON from "ol/format/EsriJSON.js";
import GeoJSON from "ol/format/GeoJSON.js";

const wing = [[0, 0], [0, 20], [5, 20], [5, 5], [15, 5], [15, 20], [20, 20], [20, 0], [0, 0]];
const house = [[7, 8], [7, 18], [13, 18], [13, 8], [7, 8]];
const yard = [[9, 10], [11, 10], [11, 12], [9, 12], [9, 10]];
const orders = {
  "wing, house, yard": [wing, house, yard],
  "house, wing, yard": [house, wing, yard],
  "house, yard, wing": [house, yard, wing],
};
const seen = {};
for (const [order, rings] of Object.entries(orders)) {
  const school = { attributes: {}, geometry: { rings, spatialReference: { wkid: 4326 } } };
  const read = new EsriJSON().readFeature(school).getGeometry();
  seen[order] = {
    openlayers: new GeoJSON().writeGeometryObject(read),
    area: read.getArea(),
    yardInside: read.intersectsCoordinate([10, 11]),
    esri: arcgisToGeoJSON(school).geometry,
  };
}
fs.writeFileSync("seen.json", JSON.stringify(seen));
JAVASCRIPT
node read.mjs
venv/bin/python - <<'PYTHON'
import json
import shapely

for order, seen in json.load(open("seen.json")).items():
    school = shapely.from_geojson(json.dumps(seen["openlayers"]))
    esri = shapely.from_geojson(json.dumps(seen["esri"]))
    right = order == "wing, house, yard"
    print(f"{order}: area {seen['area']}, the yard is inside: {seen['yardInside']},",
          f"valid: {school.is_valid}")
    assert seen["area"] == esri.area == 306
    assert seen["yardInside"] is not right and school.is_valid is right
    assert esri.is_valid and not esri.intersects(shapely.Point(10, 11))
PYTHON
