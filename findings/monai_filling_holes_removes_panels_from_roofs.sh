#!/usr/bin/env bash
# MONAI's FillHoles removes every class that lies within another: solar panels from their roofs.
#
# Guess before the run: as documented, an enclosed hole is a pixel of the background which is only
# enclosed by a single class; pixels of other classes are none, and stay.
# Seen: of a roof of class 1 with a hole of 9 pixels and solar panels of class 2 in it, 96 pixels,
# the hole is filled and the panels are gone: the roof has 900 pixels. It is the same if only class
# 1 is to be filled. In the form of one channel per class the panels keep their channel, and 96
# pixels have two classes. There is no message.
# Versions: monai 1.6.1, torch 2.13.0, scikit-image 0.26.0, scipy 1.17.1. Source: monai/transforms/
# utils.py, fill_holes: what a flood from the edge through all other labels does not reach.
# Hurt: who cleans a map of several classes after prediction: panels, dormers and green roofs,
# trees and pools in courtyards vanish where their class touches one other alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 \
  scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import torch
from monai.transforms import FillHoles

ROOF, PANEL = 1, 2
town = torch.zeros(1, 40, 40)
town[0, 5:35, 5:35] = ROOF
town[0, 12:18, 12:28] = PANEL
town[0, 25:28, 25:28] = 0
channels = torch.stack([town[0] == number for number in range(3)]).float()


def pixels(mask):
    return [int((mask == number).sum()) for number in range(3)]


seen = {
    "before": pixels(town),
    "filled": pixels(FillHoles()(town.clone())),
    "roof alone": pixels(FillHoles(applied_labels=[ROOF])(town.clone())),
    "panel alone": pixels(FillHoles(applied_labels=[PANEL])(town.clone())),
    "channels": [int(each) for each in FillHoles()(channels.clone()).sum(dim=(1, 2))],
}
for name, (ground, roof, panel) in seen.items():
    print(f"{name}: ground", ground, "roof", roof, "panels", panel)
assert seen["before"] == seen["panel alone"] == [709, 795, 96]
assert seen["filled"] == seen["roof alone"] == [700, 900, 0]
assert seen["channels"][1:] == [900, 96]
PYTHON
