#!/usr/bin/env bash
# panoptica leaves out a house at the edge of a town if its numbers in both maps add up to 256.
#
# Guess before the run: the numbers of instances in two maps are free; of three houses, all found
# exactly, three are true positives, whatever they are called.
# Seen: three for the numbers 1, 2, 200 in the truth and 1, 2, 57 in the prediction, and two for 1,
# 2, 200 and 1, 2, 56: the house to the right counts neither as a truth nor as a prediction, and
# panoptic quality is 1 of two houses. Maps of 64 bits are stored in 8 where they fit, both are
# added in 8 bits to find what is not ground, and the rest is cropped: 200 + 56 is ground. There is
# no message. Of maps with numbers of more than 8 bits it is those that add up to 65,536.
# Versions: panoptica 2.1.7, numpy 2.2.6. Source: panoptica/_functionals.py, _get_paired_crop,
# prediction_arr + reference_arr.
# Hurt: who rates buildings in crops of a town whose numbers go on from tile to tile: now and then a
# house at the edge is neither missed nor found, and the counts of two predictions differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check panoptica==2.1.7 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import contextlib
import io

import numpy as np
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator


def town(numbers):
    """Return a map of three houses of 20 x 20 pixels in a row, with these numbers."""
    houses = np.zeros((60, 200), np.int64)
    for place, number in enumerate(numbers):
        houses[20:40, 20 + 50 * place : 40 + 50 * place] = number
    return houses


def rate(truth, prediction):
    evaluator = Panoptica_Evaluator(expected_input=InputType.UNMATCHED_INSTANCE,
                                    instance_matcher=NaiveThresholdMatching(), verbose=False)
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluator.evaluate(town(prediction), town(truth))
    found = next(iter(found.values())) if isinstance(found, dict) else found
    return [found.tp, found.fp, found.fn, round(float(found.pq), 3)]


cases = {"same": ((1, 2, 3), (1, 2, 3)), "257": ((1, 2, 200), (1, 2, 57)),
         "256": ((1, 2, 200), (1, 2, 56)), "256 twice": ((1, 101, 200), (1, 155, 56)),
         "65,536": ((1, 2, 60_000), (1, 2, 5_536))}
seen = {name: rate(*numbers) for name, numbers in cases.items()}
for name, found in seen.items():
    print(*cases[name], "TP, FP, FN and panoptic quality:", *found)
assert seen["same"] == seen["257"] == [3, 0, 0, 1]
assert seen["256"] == seen["65,536"] == [2, 0, 0, 1]
assert seen["256 twice"] == [1, 0, 0, 1]
PYTHON
