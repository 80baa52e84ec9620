#!/usr/bin/env bash
# geostats finds no deviation in built-up shares between 0 and 0.2: all classes have the same bounds.
#
# Guess before the run: stddev, cov and getClassStdDeviation depend on the values' spread, whatever
# their unit is: shares in per cent have 100 times the deviation of the same as fractions.
# Seen: 101 shares from 0 to 0.2 have a deviation of 0.058; geostats says 0, and 5.83 for the same in
# per cent. The four classes by deviation all begin and end at 0.1, so that half of the cells have no
# class. From 0 to 0.25 the deviation is 0.1 in place of 0.073, 37 % too much, and the coefficient of
# variation 0.8 in place of 0.58. variance(false) and stddev(false) round as well. No message.
# Versions: geostats 2.1.0 (npm, the latest). Source: lib/geostats.js, variance: "var round =
# (typeof round === 'undefined')" looks at the variable that it declares, which is undefined, so that
# the variance is always rounded to two decimals, before stddev takes its root.
# Hurt: who draws maps of densities, scores or heights in kilometres by standard deviations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geostats@2.1.0
cat > look.cjs <<'JAVASCRIPT'
const assert = require('node:assert');
const Geostats = require('geostats');

/** Return evenly spread values from 0 to a largest one, and their true standard deviation. */
function series(top) {
  const values = Array.from({length: 101}, (_, index) => (top * index) / 100);
  const squares = values.map((value) => (value - top / 2) ** 2);
  return [values, Math.sqrt(squares.reduce((one, two) => one + two) / values.length)];
}

for (const [top, deviation, variation] of [[0.2, 0, 0], [0.25, 0.1, 0.8], [20, 5.83, 0.58]]) {
  const [values, right] = series(top);
  const fresh = () => new Geostats(values);
  const seen = [fresh().stddev(), fresh().cov()];
  const bounds = fresh().getClassStdDeviation(4).map((bound) => Math.round(bound * 1000) / 1000);
  console.log(`0 to ${top}: deviation ${right.toFixed(3)}, geostats ${seen[0]}, variation`,
    `${(right / top * 2).toFixed(2)}, geostats ${seen[1]}, bounds`, bounds);
  assert.deepStrictEqual(seen, [deviation, variation]);
  assert.strictEqual(fresh().variance(false), fresh().variance());
}
const [values] = series(0.2);
const shares = new Geostats(values);
assert.strictEqual(new Set(shares.getClassStdDeviation(4)).size, 1);
const lost = values.filter((value) => typeof shares.getClass(value) !== 'number').length;
console.log(`${lost} of 101 cells have no class`);
assert.strictEqual(lost, 50);
JAVASCRIPT
node look.cjs
