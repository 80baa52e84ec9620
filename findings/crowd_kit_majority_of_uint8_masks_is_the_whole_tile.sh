#!/usr/bin/env bash
# Crowd-Kit's majority of three masks of uint8 says that every pixel of the tile is a building.
#
# Guess before the run: SegmentationMajorityVote takes the pixels that at least half of the
# annotators marked, whatever the type of the masks is: 99 pixels for three masks of a house of 100
# pixels.
# Seen: 99 for masks of bool, int32 and int64, and 400 of 400 for uint8 and uint16, in which masks
# are stored and read. It asks whether twice the votes less the number of annotators are 0 or more;
# in unsigned integers they always are. A tile that nobody marked anything in is one building.
# There is no message. SegmentationEM and SegmentationRASA have the same result for all types.
# Versions: crowd-kit 1.4.2, numpy 2.4.6, pandas 3.0.3. Source: crowdkit/aggregation/
# image_segmentation/segmentation_majority_vote.py, fit.
# Hurt: who lets several people draw the same tile and reads their masks from PNG: labels without
# any ground, or a baseline that every other way of aggregation beats.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check crowd-kit==1.4.2 numpy==2.4.6 pandas==3.0.3
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import pandas as pd
from crowdkit.aggregation import SegmentationEM, SegmentationMajorityVote, SegmentationRASA

house = np.zeros((20, 20), int)
house[5:15, 5:15] = 1
narrow, low = house.copy(), house.copy()
narrow[5:15, 5] = 0
low[14, 5:15] = 0
TILES = {"town": [house, narrow, low], "field": [np.zeros_like(house)] * 3}


def pixels(way, kind):
    """Return the pixels of the building that three annotators drew, in each tile."""
    rows = [(tile, f"annotator {number}", mask.astype(kind))
            for tile, masks in TILES.items() for number, mask in enumerate(masks)]
    found = way().fit_predict(pd.DataFrame(rows, columns=["task", "worker", "segmentation"]))
    return [int(found[tile].sum()) for tile in TILES]


KINDS = (bool, np.int32, np.int64, np.uint8, np.uint16)
seen = {(way.__name__, kind.__name__): pixels(way, kind)
        for way in (SegmentationMajorityVote, SegmentationEM) for kind in KINDS}
seen |= {("SegmentationRASA", kind.__name__): pixels(SegmentationRASA, kind) for kind in KINDS}
for (way, kind), found in seen.items():
    print(way, kind, "town:", found[0], "field:", found[1], "of 400 pixels")
for (way, kind), found in seen.items():
    wrong = way == "SegmentationMajorityVote" and kind.startswith("uint")
    assert found == ([400, 400] if wrong else [100 if way == "SegmentationEM" else 99, 0])
PYTHON
