#!/usr/bin/env bash
# geojson-bounds puts the centre of each house in Tokyo into another street.
#
# Guess before the run: centroid() returns the centre of a polygon, as PostGIS does, whose
# conventions the package follows "as much as possible": that of a house lies within it.
# Seen: of 200 houses of 10 m in Tokyo none has its centre within its walls; half are off by more
# than 45 m, the worst by more than 400 m. In Sydney none either, half by 11 m or more. In Ghent
# the worst is 4 m off, in Kampala 0.3 m. A house with its first corner as origin has the right
# centre. Areas of 1e-8 square degrees are differences of products of 5,000, of which few digits
# are left, and the coordinates are multiplied with them. There is no message.
# Versions: geojson-bounds 1.0.4, Node.js 20. Source: index.js, fetchCentroid: no corner is
# subtracted before the sums.
# Hurt: who labels houses, joins them to districts or addresses by their centres, or finds the tile
# of a house: the farther from 0, 0 and the smaller the house, the more go wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
npm install --silent --no-audit --no-fund geojson-bounds@1.0.4 > /dev/null
cat > houses.cjs <<'JS'
const assert = require("node:assert")
const { centroid } = require("geojson-bounds")

const METRE = 1 / 111320 // in degrees of latitude

/** Return how far centres of 200 houses of 10 m are off, in metres, and how many lie outside. */
function errors(west, south, shift) {
  const metre = METRE / Math.cos(south * Math.PI / 180) // in degrees of longitude
  const found = []
  for (let number = 0; number < 200; number++) {
    const x = west + number * 23 * metre + number % 7 * 1e-5
    const y = south + number * 29 * METRE + number % 11 * 1e-5
    const corners = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]].map(
      ([east, north]) => [x + east * metre, y + north * METRE])
    const origin = shift ? corners[0] : [0, 0]
    const ring = corners.map(corner => [corner[0] - origin[0], corner[1] - origin[1]])
    const centre = centroid({ type: "Polygon", coordinates: [ring] })
    const [east, north] = [(centre[0] + origin[0] - x) / metre, (centre[1] + origin[1] - y) / METRE]
    found.push({ off: Math.hypot(east - 5, north - 5),
                 outside: Math.max(Math.abs(east - 5), Math.abs(north - 5)) > 5 })
  }
  const off = found.map(house => house.off).sort((a, b) => a - b)
  const outside = found.filter(house => house.outside).length
  return { middle: off[100], worst: off[199], outside }
}

const seen = {}
for (const [name, west, south, shift] of [
  ["Tokyo", 139.7, 35.6], ["Sydney", 151.2, -33.87], ["Ghent", 3.72, 51.05],
  ["Kampala", 32.58, 0.31], ["Tokyo from the first corner", 139.7, 35.6, true],
]) {
  const { middle, worst, outside } = seen[name] = errors(west, south, shift)
  console.log(`${name}: half are off by ${middle.toFixed(2)} m or more, the worst by ` +
    `${worst.toFixed(1)} m; ${outside} of 200 lie outside of the house`)
}
assert(seen.Tokyo.outside === 200 && seen.Tokyo.middle > 40 && seen.Tokyo.worst > 400)
assert(seen.Sydney.outside === 200 && seen.Sydney.middle > 10)
assert(seen.Ghent.outside === 0 && seen.Ghent.worst > 2)
assert(seen.Kampala.worst < 0.5 && seen["Tokyo from the first corner"].worst < 0.001)
JS
node houses.cjs
