#!/usr/bin/env bash
# transformers.js makes a map of a network's output once: the second time all houses are ground.
#
# Guess before the run: post_process_semantic_segmentation reads the logits and returns a map, so
# that of one output a small map can be shown first and one of the size of the image afterwards.
# Seen: of a house of 20 x 10 pixels the first map has 200 pixels and the second, of the same
# output, none; nor has one of 80 x 80 pixels after one without target_sizes, where there are 800
# else. The largest logit of each pixel is written over the first class of the output itself, so
# that the first class wins ever after. With target_sizes alone, which copy, any number of maps is
# right. No message.
# Versions: @huggingface/transformers 4.3.1 (npm). Source: src/image_processors_utils.js,
# post_process_semantic_segmentation, buffer = data[0].data, a view.
# Hurt: who shows a preview, compares sizes, or takes probabilities after the map from the logits:
# the ground is everywhere, at the probability of the houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit --ignore-scripts @huggingface/transformers@4.3.1
cat > maps.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { SegformerImageProcessor, Tensor } from "@huggingface/transformers";

const SIDE = 40, processor = new SegformerImageProcessor({});

/** Return the output of a network that finds a house of 20 x 10 pixels: logits of ground, house. */
function network() {
  const logits = new Float32Array(2 * SIDE * SIDE);
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++) {
      const house = row >= 10 && row < 20 && column >= 10 && column < 30 ? 3 : -3;
      logits[row * SIDE + column] = -house;
      logits[(SIDE + row) * SIDE + column] = house;
    }
  return { logits: new Tensor("float32", logits, [1, 2, SIDE, SIDE]) };
}

/** Return the pixels of the house in maps of one output, of these sizes one after the other. */
function pixels(...sizes) {
  const output = network();
  return sizes.map((size) => {
    const target = size === null ? null : [[size, size]];
    const [{ segmentation }] = processor.post_process_semantic_segmentation(output, target);
    return segmentation.data.reduce((sum, number) => sum + number, 0);
  });
}

const seen = {
  "as it is, twice": pixels(null, null),
  "as it is, then 80 x 80": pixels(null, 80),
  "80 x 80, then as it is": pixels(80, null),
  "80 x 80, twice": pixels(80, 80),
};
for (const [name, found] of Object.entries(seen))
  console.log(name, "- pixels of the house:", ...found);
assert.deepEqual(Object.values(seen), [[200, 0], [200, 0], [800, 200], [800, 800]]);
JAVASCRIPT
node maps.mjs
