#!/usr/bin/env bash
# geostyler-qgis-parser turns "height is known" into "height is not known", and paints all by ELSE.
#
# Guess before the run: a rule of QGIS becomes a rule of GeoStyler that paints the same houses; what
# the parser can't read is an error or a warning (a style has unsupportedProperties for it), and a
# rule that is switched off paints nothing.
# Seen: "height" IS NOT NULL gives the same filter as IS NULL, ["==", "height", null], which the SLD
# parser writes as PropertyIsNull: the houses with a height are those without. ELSE, ILIKE and
# $area > 50 give a rule without a filter, which paints all houses, over those of the rules before.
# A rule with checkstate="0" and a category with render="false" are painted as well. The rules below
# a group are gone, and the group paints nothing. Output has no errors and no warnings.
# Versions: geostyler-qgis-parser 4.1.0 with geostyler-cql-parser 4.1.1, geostyler-sld-parser 9.0.3
# (the latest), node 20. Source: dist/QGISStyleParser.js, getRulesFromQmlObject sets a filter only
# if there is one, and reads neither checkstate nor render nor inner rules; dist/CqlParser.js of
# geostyler-cql-parser, read: catch gives undefined, and its cql-parser.cjs forgets NOT before NULL.
# Hurt: who takes a style of buildings from QGIS to a web map: other houses are coloured.
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

const symbol = (name) =>
  `<symbol type="fill" name="${name}"><layer class="SimpleFill" enabled="1"><Option type="Map">` +
  `<Option type="QString" name="color" value="255,${name},0,255"/></Option></layer></symbol>`;
const symbols = `<symbols>${symbol(0)}${symbol(1)}${symbol(2)}</symbols>`;
const escape = (text) => text.replaceAll('"', "&quot;").replaceAll(">", "&gt;");
const read = async (kind, inner) => {
  const result = await new QGISStyleParser().readStyle(
    `<qgis version="3.34.0"><renderer-v2 ${kind}>${inner}${symbols}</renderer-v2></qgis>`);
  assert(!result.errors && !result.warnings && !result.unsupportedProperties);
  return result.output;
};
const ruled = (rules) => read('type="RuleRenderer"', `<rules key="r">${rules}</rules>`);
const one = (filter) => ruled(`<rule key="a" symbol="0" label="a" filter="${escape(filter)}"/>`);

const filters = {};
const asked = ['"class" = \'house\'', '"height" > 3', '"height" IS NULL', '"height" IS NOT NULL',
  "ELSE", "\"class\" ILIKE 'ho%'", "$area > 50"];
for (const filter of asked) {
  const [rule] = (await one(filter)).rules;
  assert.equal(rule.symbolizers[0].kind, "Fill");
  filters[filter] = rule.filter;
  console.log(filter, "becomes", JSON.stringify(rule.filter) ?? "no filter");
}
assert.deepEqual(Object.values(filters), [["==", "class", "house"], [">", "height", 3],
  ["==", "height", null], ["==", "height", null], undefined, undefined, undefined]);
const sld = (await new SldStyleParser().writeStyle(await one('"height" IS NOT NULL'))).output;
console.log("SLD:", sld.match(/<[a-z:]*Filter.*Filter>/s)[0]);
assert(/PropertyIsNull/.test(sld) && !/Not>/.test(sld));

const off = await ruled('<rule key="a" symbol="0" label="on"/>' +
  '<rule key="b" symbol="1" label="off" checkstate="0"/>' +
  '<rule key="c" label="group"><rule key="d" symbol="2" label="inner"/></rule>');
const painted = (style) => style.rules.filter((rule) => rule.symbolizers).map((rule) => rule.name);
console.log("painted rules:", painted(off), "of", off.rules.map((rule) => rule.name));
assert.deepEqual(painted(off), ["on", "off"]);
const categories = await read('type="categorizedSymbol" attr="class"', "<categories>" +
  '<category value="house" symbol="0" label="house" render="true"/>' +
  '<category value="shed" symbol="1" label="shed" render="false"/></categories>');
console.log("painted categories:", painted(categories));
assert.deepEqual(painted(categories), ["class = house", "class = shed"]);
JAVASCRIPT
node town.mjs
