#!/usr/bin/env bash
# cleanlab lists one tile more than those whose labels are below the threshold, also if none is.
#
# Guess before the run: issues_from_scores returns, as documented, the images whose label quality
# score falls below the threshold; an empty list for data without faults.
# Seen: of tiles with scores of 0.95, 0.99 and 0.97 and a threshold of 0.1, it names the first; of
# 0.05, 0.99 and 0.97 the first and the third. The best of the tiles above the threshold is always
# added, unless all tiles are below. The mask of pixels that the same function returns, if it is
# given the scores of pixels, has no pixel too many. There is no message.
# Versions: cleanlab 2.9.0, numpy 2.4.6. Source: cleanlab/segmentation/rank.py, issues_from_scores,
# ranking[: cutoff + 1].
# Hurt: who cleans labels until the list is empty: it never is, and a loop that drops or relabels
# what it names takes one good tile in each round.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cleanlab==2.9.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from cleanlab.segmentation.rank import get_label_quality_scores, issues_from_scores

BAD = 0.1


def named(scores):
    return [int(each) for each in issues_from_scores(np.array(scores), threshold=BAD)]


cases = [(0.95, 0.99, 0.97), (0.05, 0.99, 0.97), (0.05, 0.01, 0.97), (0.05, 0.01, 0.09)]
seen = {scores: named(scores) for scores in cases}
for scores, found in seen.items():
    below = [number for number, score in enumerate(scores) if score < BAD]
    print("scores", *scores, "below the threshold:", below, "named:", found)
assert list(seen.values()) == [[0], [0, 2], [1, 0, 2], [1, 0, 2]]

# The whole way: three tiles whose labels the model agrees with.
labels = np.zeros((3, 20, 20), int)
labels[:, 5:15, 5:15] = 1
houses = np.where(labels == 1, 0.98, 0.02)
predicted = np.stack([1 - houses, houses], axis=1)
scores, of_pixels = get_label_quality_scores(labels, predicted, verbose=False)
print("perfect labels: scores", *scores.round(2),
      "tiles named:", len(issues_from_scores(scores, threshold=BAD)),
      "pixels named:", int(issues_from_scores(scores, of_pixels, threshold=BAD).sum()))
assert len(issues_from_scores(scores, threshold=BAD)) == 1
assert not issues_from_scores(scores, of_pixels, threshold=BAD).any()
PYTHON
