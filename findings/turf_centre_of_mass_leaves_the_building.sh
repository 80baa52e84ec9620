#!/usr/bin/env bash
# turf's centre of mass of a building in two parts is that of its convex hull, beside both parts.
#
# Guess before the run: centerOfMass weighs the parts of a MultiPolygon and the polygons of a
# collection by their areas, and a hole is not there, whichever way its ring runs.
# Seen: everything that is no Polygon is replaced by its convex hull: for a house of 10 x 10 and its
# annex of 2 x 2, 10 units to the east, it is 9.05 to the east in place of 5.62. In a Polygon the
# vertices of all rings are one ring: with a yard that runs in the direction of the exterior, which
# GeoJSON readers must accept, the centre moves toward the yard (5.21 in place of 4.75).
# Versions: @turf/center-of-mass 7.4.0, @turf/helpers 7.4.0, shapely 2.1.2. Source: centerOfMass in
# packages/turf-center-of-mass/index.ts (convex for all other types, coordEach over all rings); its
# README names Feature and FeatureCollection and the formula for polygons, and no hull.
# Hurt: who places buildings as points, for labels or to count them by cell: points in gardens and
# courtyards, and blocks that count for the next cell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit @turf/center-of-mass@7.4.0 @turf/helpers@7.4.0
cat > centres.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { centerOfMass } from "@turf/center-of-mass";
import { feature, featureCollection } from "@turf/helpers";

const square = (west, south, size) => [
  [west, south], [west + size, south], [west + size, south + size], [west, south + size], [west, south],
];
const house = square(0, 0, 10);
const polygon = (...rings) => ({ type: "Polygon", coordinates: rings });
const buildings = {
  house: polygon(house),
  yard: polygon(house, square(6, 6, 3).reverse()),
  yardOfSameDirection: polygon(house, square(6, 6, 3)),
  twoParts: { type: "MultiPolygon", coordinates: [[house], [square(20, 0, 2)]] },
};
const seen = Object.entries(buildings).map(([name, geometry]) =>
  ({ name, geometry, centre: centerOfMass(feature(geometry)).geometry.coordinates }));
const two = featureCollection([feature(polygon(house)), feature(polygon(square(20, 0, 2)))]);
seen.push({ name: "twoFeatures", geometry: buildings.twoParts, centre: centerOfMass(two).geometry.coordinates });
fs.writeFileSync("seen.json", JSON.stringify(seen));
JAVASCRIPT
node centres.mjs
venv/bin/python - <<'PYTHON'
import json
import shapely

seen = {}
for one in json.load(open("seen.json")):
    outline = shapely.from_geojson(json.dumps(one["geometry"]))
    centres = shapely.Point(one["centre"]), outline.centroid
    seen[one["name"]] = tuple(round(centre.x, 2) for centre in centres)
    print(one["name"], "x of the centre by turf and by shapely:", seen[one["name"]])
    if one["name"].startswith("two"):
        assert not outline.intersects(centres[0].buffer(0.01)) or centres[0].x < 10
        hull = outline.convex_hull.centroid
        assert centres[0].distance(hull) < 1e-9
assert seen == {
    "house": (5, 5), "yard": (4.75, 4.75), "yardOfSameDirection": (5.21, 4.75),
    "twoParts": (9.05, 5.62), "twoFeatures": (9.05, 5.62),
}
PYTHON
