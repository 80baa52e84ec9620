#!/usr/bin/env bash
# terraformer finds what lies in a block of several parts only if it lies in the last part.
#
# Guess before the run: contains and within of @terraformer/spatial answer for a MultiPolygon as for
# its parts: a house that lies in one of them is within it, whichever it is; a polygon that covers a
# courtyard is not within the building round that courtyard.
# Seen: of two plots in one MultiPolygon, the second contains its house and the first does not; in
# the other order of the plots it is the other way round. Two houses, each in one of the plots, are
# not within both plots as one MultiPolygon. A roof of 8 x 8 m over a courtyard of 4 x 4 m is within
# the ring of building round it. For points, for a single plot and with intersects the answers are
# right. There is no message.
# Versions: @terraformer/spatial 2.2.2 (npm). Source: within in dist/t-spatial.esm.js: the loop over
# the parts keeps the answer of the last one; within of two polygons asks for one point of the first
# and for edges that cross, which an inner ring within the first does not do.
# Hurt: who assigns houses to plots or districts that have several parts in a web map or in a filter
# for ArcGIS services: houses in all parts but one are missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @terraformer/spatial@2.2.2
cat > look.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import {contains, intersects, within} from '@terraformer/spatial';

const square = (x, y, side) =>
  [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]];
const polygon = (...rings) => ({type: 'Polygon', coordinates: rings});
const parts = (...polygons) => ({
  type: 'MultiPolygon', coordinates: polygons.map((part) => part.coordinates)});
const first = polygon(square(0, 0, 10));
const second = polygon(square(20, 0, 10));
const house = polygon(square(2, 2, 4));
const other = polygon(square(22, 2, 4));
const corner = {type: 'Point', coordinates: [2, 2]};

const seen = {};
for (const [order, plots] of [['first last', [first, second]], ['last first', [second, first]]]) {
  const block = parts(...plots);
  seen[order] = {
    house: contains(block, house),
    other: contains(block, other),
    both: within(parts(house, other), block),
    meets: intersects(block, house),
    corner: contains(block, corner),
  };
}
seen.plot = [contains(first, house), intersects(first, house), contains(first, other)];
const ring = polygon(square(0, 0, 10), square(3, 3, 4).reverse());
seen.roof = within(polygon(square(1, 1, 8)), ring);
seen.yard = within(polygon(square(4, 4, 2)), ring);
console.log(JSON.stringify(seen, null, 1));
assert.deepStrictEqual(seen, {
  'first last': {house: false, other: true, both: false, meets: true, corner: true},
  'last first': {house: true, other: false, both: false, meets: true, corner: true},
  plot: [true, true, false],
  roof: true,
  yard: false,
});
JAVASCRIPT
node look.mjs
