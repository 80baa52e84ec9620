#!/usr/bin/env bash
# TrackEval's decay of a mask that drifts off is 0.64, and 0.13 or NaN if the clip is longer.
#
# Guess before the run: J-Decay is the mean IoU of the first quarter of a clip less that of the
# last; a clip with more frames of the same drift has the same decay, as it has the same mean.
# Seen: of a house whose mask drifts by 15 of 20 pixels, J-Mean is 0.52 for any number of frames,
# and J-Decay 0.64 for 100, 200 and 255. For 400 frames it is 0.13; for 256, 300, 600 and 1,000 it
# is NaN, with NumPy's warning of an empty mean. F-Decay does the same. The numbers of the frames
# at which the quarters begin are stored in 8 bits: the last frame of 400, 399, becomes 143.
# Versions: trackeval 1.3.0, pycocotools 2.0.11, numpy 2.4.6. Source: trackeval/metrics/j_and_f.py,
# eval_sequence, ids.astype(np.uint8).
# Hurt: who rates masks over time in clips of more than ten seconds: some clips seem not to decay,
# and one NaN makes the mean over all clips NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trackeval==1.3.0 pycocotools==2.0.11 \
  scikit-image==0.26.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import contextlib
import io
import math

import numpy as np
from pycocotools import mask as masks
from trackeval.metrics import JAndF


def house(west):
    """Return the mask of a house of 20 x 20 pixels in a frame of 40 x 60."""
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[10:30, west : west + 20] = 1
    return masks.encode(mask)


def decay(frames):
    """Return J-Mean, J-Decay and F-Decay of a house whose mask drifts to the east by 15 pixels."""
    numbers = [np.array([0])] * frames
    with contextlib.redirect_stdout(io.StringIO()):
        found = JAndF().eval_sequence({
            "seq": "clip", "num_timesteps": frames, "num_gt_ids": 1, "num_tracker_ids": 1,
            "gt_ids": numbers, "tracker_ids": numbers, "gt_dets": [[house(10)]] * frames,
            "tracker_dets": [[house(10 + 15 * frame // (frames - 1))] for frame in range(frames)]})
    return [round(float(found[name]), 2) for name in ("J-Mean", "J-Decay", "F-Decay")]


seen = {frames: decay(frames) for frames in (100, 200, 255, 256, 300, 400, 600, 1000)}
for frames, found in seen.items():
    print(frames, "frames: J-Mean, J-Decay and F-Decay", *found)
for frames, (mean, of_j, of_f) in seen.items():
    assert mean == 0.52
    if frames < 256:
        assert abs(of_j - 0.64) < 0.02 and abs(of_f - 0.51) < 0.02
    elif frames == 400:
        assert abs(of_j - 0.13) < 0.02 and abs(of_f - 0.22) < 0.02
    else:
        assert math.isnan(of_j) and math.isnan(of_f)
PYTHON
