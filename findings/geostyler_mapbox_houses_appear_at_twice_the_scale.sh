#!/usr/bin/env bash
# GeoStyler takes the zoom levels of Mapbox for those of 256 pixels: scales are wrong by two.
#
# Guess before the run: minzoom 14 of a Mapbox style, where a tile of 512 pixels is the world at zoom
# 0, is 4.78 m per pixel at the equator, 1:17,062 at 0.28 mm per pixel; in SLD that is the
# MaxScaleDenominator, and a house of an SLD below 1:5,000 has minzoom 15.77.
# Seen: minzoom 14 becomes 1:34,124, so that a map server draws the houses one level earlier, at half
# their size, four times as many in a picture; 1:5,000 becomes minzoom 16.77, and a web map shows no
# house until 1:2,500. There and back within Mapbox styles nothing changes. There is no message.
# Versions: geostyler-mapbox-parser 6.2.0, geostyler-sld-parser 9.0.3 (npm, the latest). Source:
# src/Util/MapboxStyleUtil.ts, getResolutions: 78,271.5 m, which is zoom 0, is pushed as zoom 1, with
# twice as much before it.
# Hurt: who moves a style for buildings between MapLibre and GeoServer or QGIS: layers with scale
# limits meant to keep millions of houses out of small scales let them in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geostyler-mapbox-parser@6.2.0 geostyler-sld-parser@9.0.3 \
  esbuild@0.25.12 lodash@4.17.21
cat > style.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import MapboxStyleParser from 'geostyler-mapbox-parser';
import SldStyleParser from 'geostyler-sld-parser';

const EQUATOR = 2 * Math.PI * 6378137;
const scaleOf = (zoom) => EQUATOR / 512 / 2 ** zoom / 0.00028;
const zoomOf = (scale) => Math.log2(EQUATOR / 512 / 0.00028 / scale);
const mapbox = new MapboxStyleParser();
const sld = new SldStyleParser();
const text = (xml, tag) => Number(xml.match(new RegExp(`<${tag}>([^<]*)</${tag}>`))[1]);

const {output: style} = await mapbox.readStyle({
  version: 8, name: 'town', sources: {town: {type: 'vector'}},
  layers: [{
    id: 'houses', type: 'fill', source: 'town', 'source-layer': 'houses', minzoom: 14, maxzoom: 16,
    paint: {'fill-color': '#aa0000'},
  }],
});
const {output: xml} = await sld.writeStyle(style);
const limits = ['MaxScaleDenominator', 'MinScaleDenominator'].map((tag) => text(xml, tag));
const right = [14, 16].map(scaleOf);
console.log('zoom 14 and 16 are', right.map(Math.round), 'and become', limits.map(Math.round));
limits.forEach((limit, index) => assert(Math.abs(limit / right[index] - 2) < 1e-6));

const {output: again} = await sld.readStyle(xml.replace(/<(M..ScaleDenominator)>[^<]*/g,
  (_, tag) => `<${tag}>${tag.startsWith('Max') ? 5000 : 1000}`));
const {output: web} = await mapbox.writeStyle(again);
const {minzoom, maxzoom} = web.layers[0];
console.log('1:5,000 is zoom', zoomOf(5000).toFixed(2), 'and becomes', minzoom.toFixed(2),
  `1:${Math.round(scaleOf(minzoom))}`);
assert(Math.abs(minzoom - zoomOf(5000) - 1) < 1e-5);
assert(Math.abs(maxzoom - zoomOf(1000) - 1) < 1e-5);

const {output: back} = await mapbox.writeStyle(style);
assert.deepStrictEqual([back.layers[0].minzoom, back.layers[0].maxzoom], [14, 16]);
JAVASCRIPT
node_modules/.bin/esbuild style.mjs --bundle --platform=node --format=esm --log-level=error \
  --outfile=bundle.mjs
node bundle.mjs
