#!/usr/bin/env bash
# geostyler-qgis-parser fills houses that are outlines: a fill of opacity 0 or none becomes solid.
#
# Guess before the run: a polygon of opacity 0 has alpha 0 in the style of QGIS, and one without a
# colour has style "no"; a symbolizer with visibility false is left out.
# Seen: opacity 0.01 becomes alpha 3 and 0.5 becomes 128, but fillOpacity 0, and opacity 0, become
# 255: solid red over the imagery. A polygon with an outline and no colour, or with "transparent",
# which is what the parser itself makes of an outline without a fill when it reads one, is solid
# black; also an outline of opacity 0 is drawn whole. Visibility false paints all. The SLD parser
# of the same style keeps opacity 0 and leaves out a fill without colour. There is no message.
# Versions: geostyler-qgis-parser 4.1.0, geostyler-sld-parser 9.0.3 (the latest), node 20. Source:
# dist/QGISStyleParser.js, qmlColorFromHexAndOpacity: alpha(opacity || 1) makes 1 of 0, and
# Color(undefined) is black; getQmlFillSymbolFromSymbolizer never writes style "no".
# Hurt: who draws roofs as outlines to compare them with imagery and hands the style to QGIS.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit --legacy-peer-deps geostyler-qgis-parser@4.1.0 \
  geostyler-cql-parser@4.1.1 geostyler-sld-parser@9.0.3 geostyler-style@12.0.0 > npm.log
cat > town.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { QGISStyleParser } from "geostyler-qgis-parser";
import { SldStyleParser } from "geostyler-sld-parser";

const style = (fill) => ({
  name: "houses", rules: [{ name: "houses", symbolizers: [{ kind: "Fill", ...fill }] }],
});
const value = (text, name) =>
  text.match(new RegExp(`name="${name}" value="([^"]*)"`))?.[1];
const written = async (fill) => {
  const result = await new QGISStyleParser().writeStyle(style(fill));
  assert(!result.errors && !result.warnings);
  assert.equal(value(result.output, "style"), undefined);
  const colours = [value(result.output, "color"), value(result.output, "outline_color")];
  console.log(JSON.stringify(fill), "becomes fill", colours[0], "outline", colours[1]);
  return colours;
};
const RED = "#ff0000", outlineColor = "#0000ff";
const blue = "0,0,255,255";
assert.deepEqual(await written({ color: RED, fillOpacity: 0.5, outlineColor }),
  ["255,0,0,128", blue]);
assert.deepEqual(await written({ color: RED, fillOpacity: 0.01, outlineColor }),
  ["255,0,0,3", blue]);
assert.deepEqual(await written({ color: RED, fillOpacity: 0, outlineColor }),
  ["255,0,0,255", blue]);
assert.deepEqual(await written({ color: RED, opacity: 0, outlineColor }), ["255,0,0,255", blue]);
assert.deepEqual(await written({ outlineColor }), ["0,0,0,255", blue]);
assert.deepEqual(await written({ color: "transparent", outlineColor }), ["0,0,0,255", blue]);
assert.equal((await written({ color: RED, outlineColor, outlineOpacity: 0 }))[1], blue);
assert.equal((await written({ color: RED, visibility: false }))[0], "255,0,0,255");

const outline = '<qgis version="3.34.0"><renderer-v2 type="singleSymbol"><symbols>' +
  '<symbol type="fill" name="0"><layer class="SimpleLine" enabled="1"><Option type="Map">' +
  '<Option type="QString" name="line_style" value="solid"/>' +
  '<Option type="QString" name="line_color" value="0,0,255,255"/>' +
  "</Option></layer></symbol></symbols></renderer-v2></qgis>";
const [fill] = (await new QGISStyleParser().readStyle(outline)).output.rules[0].symbolizers;
assert.equal(fill.color, "transparent");
assert.deepEqual(await written(fill), ["0,0,0,255", blue]);

const sld = async (fill) => (await new SldStyleParser().writeStyle(style(fill))).output;
const [, kept] = (await sld({ color: RED, fillOpacity: 0 })).match(/fill-opacity">(.*?)</);
console.log("SLD: opacity", kept, "fill", /<Fill>/.test(await sld({ outlineColor })));
assert.equal(kept, "0");
assert(!/<Fill>/.test(await sld({ outlineColor })));
JAVASCRIPT
node town.mjs
