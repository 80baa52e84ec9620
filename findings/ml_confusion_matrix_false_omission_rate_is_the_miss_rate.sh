#!/usr/bin/env bash
# ml-confusion-matrix (mljs) gives the rate of missed houses for the rate of houses in the ground.
#
# Guess before the run: the false omission rate is the share of tiles called ground that hold a
# house, FN / (FN + TN), and with the negative predictive value it adds up to 1.
# Seen: it is FN / (FN + TP), the false negative rate, digit for digit. Of 1,000 tiles with 50
# houses, 20 of them missed and 10 false, 20 of 960 tiles called ground hold one: 0.0208. The
# library says 0.4, and 1.379 for the sum with the negative predictive value, 0.979. Where houses
# are common it is too low: 900 of 1,000 tiles with 90 missed, 0.1 in place of 0.5. The others (the
# predictive values, rates, F1, MCC, accuracy) are right.
# Versions: ml-confusion-matrix 2.0.0 (npm). Source: src/index.ts, getFalseOmissionRate divides by
# FN + TP; its comment is the name of the rate alone. No issue is on it.
# Hurt: who decides by it whether tiles called empty need a second look: the answer is of another
# question, by a factor of 19 for scattered houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit ml-confusion-matrix@2.0.0 > npm.log
cat > rates.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { ConfusionMatrix } from "ml-confusion-matrix";

const tiles = (...counts) => counts.flatMap(([number, truth, said]) =>
  Array(number).fill([truth, said]));
const HOUSE = "house", GROUND = "ground";
function rates(found, missed, wrong, empty) {
  const pairs = tiles(
    [found, HOUSE, HOUSE], [missed, HOUSE, GROUND], [wrong, GROUND, HOUSE],
    [empty, GROUND, GROUND]);
  const matrix = ConfusionMatrix.fromLabels(
    pairs.map(([truth]) => truth), pairs.map(([, said]) => said));
  const [omission, miss, value] = [
    matrix.getFalseOmissionRate(HOUSE), matrix.getFalseNegativeRate(HOUSE),
    matrix.getNegativePredictiveValue(HOUSE),
  ].map((rate) => Math.round(rate * 1e4) / 1e4);
  const right = Math.round((missed / (missed + empty)) * 1e4) / 1e4;
  console.log({ omission, miss, value, right });
  return { omission, miss, value, right };
}
assert.deepStrictEqual(rates(30, 20, 10, 940),
  { omission: 0.4, miss: 0.4, value: 0.9792, right: 0.0208 });
assert.deepStrictEqual(rates(810, 90, 10, 90),
  { omission: 0.1, miss: 0.1, value: 0.5, right: 0.5 });
JAVASCRIPT
node rates.mjs
