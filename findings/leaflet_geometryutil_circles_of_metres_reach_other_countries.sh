#!/usr/bin/env bash
# Leaflet.GeometryUtil finds the nearest point of a circle of 20 m 1,300 km away.
#
# Guess before the run: closestOnCircle of an L.Circle, whose radius is in metres, is a point 20 m
# from its centre, and closestLayer takes the circle 21 m away and not a house 222 m away.
# Seen: the point nearest to a place east of a circle in Berlin lies at 33.4 degrees east, in
# Russia: the radius in metres is added in degrees. closestLayer and nClosestLayers put a house at
# 222 m before the circle, closestLayerSnap moves a mouse beside the circle there and, with any
# tolerance, says that nothing is near. A circle of 200 m has its nearest point at 213 degrees east.
# There is no message. layersWithin takes the centre, and is right to the radius.
# Versions: leaflet-geometryutil 0.10.3 (the latest), leaflet 1.9.4. Source:
# src/leaflet.geometryutil.js, closestOnCircle; the tests of pull request 101, which brought it,
# have circles of 5 "metres" at 0, 0 whose nearest points lie at 5 degrees.
# Hurt: whose map snaps to trees, hydrants or ranges of a mast, or looks up the nearest building.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit leaflet@1.9.4 leaflet-geometryutil@0.10.3 jsdom@29.1.1
cat > circle.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { JSDOM } = require("jsdom");

const { window } = new JSDOM('<div id="map"></div>');
Object.assign(globalThis, { window, document: window.document });
Object.defineProperty(globalThis, "navigator", { value: window.navigator, configurable: true });
const L = require("leaflet");
require("leaflet-geometryutil");

const map = L.map("map", { center: [52.5, 13.4], zoom: 17, maxZoom: 19 });
const place = L.latLng(52.5, 13.4006);
const tree = L.circle([52.5, 13.4], { radius: 20 });
const house = L.polygon([
  [52.502, 13.4006], [52.502, 13.4008], [52.503, 13.4008], [52.503, 13.4006],
]);

const near = L.GeometryUtil.closestOnCircle(tree, place);
const far = L.GeometryUtil.closestOnCircle(L.circle([52.5, 13.4], { radius: 200 }), place);
console.log("the circle is", (place.distanceTo(tree.getLatLng()) - 20).toFixed(1), "m away, but its",
  "nearest point", near, "is", (place.distanceTo(near) / 1000).toFixed(0), "km away");
assert.ok(Math.abs(place.distanceTo(tree.getLatLng()) - 40.6) < 0.1);
assert.ok(Math.abs(near.lng - 33.4) < 1e-9 && Math.abs(near.lat - 52.5) < 1e-9);
assert.ok(Math.abs(place.distanceTo(near) - 1346000) < 10000);
assert.ok(Math.abs(far.lng - 213.4) < 1e-9);

const found = L.GeometryUtil.closestLayer(map, [tree, house], place);
const [first, second] = L.GeometryUtil.nClosestLayers(map, [tree, house], place);
console.log("closestLayer takes the house,", place.distanceTo(found.latlng).toFixed(0), "m away");
assert.ok(found.layer === house && first.layer === house && second.layer === tree);
assert.ok(Math.abs(place.distanceTo(found.latlng) - 222.4) < 0.1);
assert.strictEqual(L.GeometryUtil.closestLayerSnap(map, [tree], place, 100), null);
const [within] = L.GeometryUtil.layersWithin(map, [tree, house], place, 100);
assert.ok(within.layer === tree);
process.exit(0);
JAVASCRIPT
node circle.cjs
