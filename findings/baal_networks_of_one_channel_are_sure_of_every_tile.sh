#!/usr/bin/env bash
# baal finds no uncertainty in networks of one channel, and rates a calibrated one at 0.5.
#
# Guess before the run: to_prob takes the logits of a single channel through the sigmoid, so the
# heuristics and metrics of baal know networks with one channel, house or not, and rank tiles as for
# the same network with two, ground and house.
# Seen: Entropy is 0 for every tile, whether the network says 0.01, 0.5 or 0.99, so that the last
# tiles in the list are labelled first; with two channels it is the tile of 0.5. BALD counts dropout
# from 0.9 to 1 by a 26th of what dropout from 0 to 0.1 counts; with two channels both are
# equal. Certainty takes 0.01 for the least certain. ECE of scores that are right on the
# average is 0.50 in place of 0.01, whether scores or logits are given. There is no message.
# Versions: baal 2.1.0, torch 2.13.0, scipy 1.17.1, numpy 2.4.6. Source: baal/utils/array_utils.py,
# to_prob (expit where there is one class); baal/active/heuristics/heuristics.py sums and
# normalises over axis 1 alone; ECE.update in baal/utils/metrics.py takes argmax of one.
# Hurt: who lets baal choose which tiles to label next for a network of buildings with one output:
# labelling goes to tiles by their place in the list.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 scipy==1.17.1 \
  scikit-learn==1.9.0 structlog==22.3.0 torchmetrics==1.9.0 tqdm==4.70.1 pillow==13.0.0 \
  matplotlib==3.11.2 numpy==2.4.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps baal==2.1.0
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import torch
from baal.active.heuristics import BALD, Certainty, Entropy
from baal.utils.metrics import ECE


def tiles(*passes):
    """Return tiles of 4 x 4 pixels with these scores of two passes, of one channel and of two."""
    one = np.stack([np.broadcast_to(np.array(both), (1, 4, 4, 2)) for both in passes])
    return one, np.concatenate([1 - one, one], axis=1)


def rank(heuristic, scores):
    order, values = heuristic(reduction="mean").get_ranks(scores.copy())
    return order.tolist(), values.round(3).tolist()


SCORES = (0.01, 0.2, 0.37, 0.5, 0.8, 0.99)
one, two = tiles(*((score, score) for score in SCORES))
for heuristic in (Entropy, Certainty):
    print(heuristic.__name__, "one channel:", *rank(heuristic, one), "two:", *rank(heuristic, two))
assert rank(Entropy, one) == ([5, 4, 3, 2, 1, 0], [0] * 6) and rank(Entropy, two)[0][0] == 3
assert rank(Certainty, one)[0][0] == 0 and rank(Certainty, two)[0][0] == 3

one, two = tiles((0, 0.1), (0.9, 1))
print("BALD one channel:", *rank(BALD, one), "two:", *rank(BALD, two))
(ground, house), both = rank(BALD, one)[1], rank(BALD, two)[1]
assert both[0] == both[1] > 0.03 and ground > 0.03 and house < 0.002

random = np.random.default_rng(0)
score = random.uniform(size=(4, 1, 50, 50))
truth = torch.as_tensor((random.uniform(size=score.shape) < score)[:, 0].astype(int))
seen = {}
for name, output in (
    ("one channel", score), ("its logits", np.log(score / (1 - score))),
    ("two channels", np.concatenate([1 - score, score], axis=1)),
):
    metric = ECE()
    metric.update(torch.as_tensor(output), truth)
    seen[name] = round(float(metric.value), 2)
    print("ECE of calibrated scores,", name, seen[name])
assert seen == {"one channel": 0.5, "its logits": 0.5, "two channels": 0.01}
PYTHON
