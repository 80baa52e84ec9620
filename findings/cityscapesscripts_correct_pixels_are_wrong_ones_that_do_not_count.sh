#!/usr/bin/env bash
# cityscapesScripts counts as correct the wrong pixels of ignored ground, and no other.
#
# Guess before the run: with args.evalPixelAccuracy each image has nbNotIgnoredPixels, the pixels
# of classes that count, and nbCorrectPixels, those of them that the map has right; of a perfect
# map of 3,200 pixels of building and road beside 800 ignored ones, 3,200 and 3,200.
# Seen: 800 and 0. A map with all 3,200 wrong has the same 800 and 0, and one that is right where
# it counts and says road on the ignored ground has 800 and 800, which reads as an accuracy of 1.
# IoU is right in each. There is no message.
# Versions: cityscapesScripts 2.3.0, numpy 2.3.5, Pillow 12.0.0. Source:
# cityscapesscripts/evaluation/ evalPixelLevelSemanticLabeling.py, evaluatePair: np.in1d(...,
# notIgnoredLabels, invert=True) marks what is ignored, and the pixels counted as correct are
# those where map and truth differ.
# Hurt: who rates maps of building and road by pixel accuracy with the script of the benchmark:
# the numbers follow the guesses on ground that has no label, and the worst map may look perfect.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps cityscapesScripts==2.3.0
# It asks for the backport of typing, too, which Python has had since 3.5.
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.3.5 Pillow==12.0.0 \
  pyquaternion==0.9.9 matplotlib==3.10.7 coloredlogs==15.0.1 tqdm==4.67.1 appdirs==1.4.4 \
  2> conflicts.txt || { cat conflicts.txt; exit 1; }
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from PIL import Image
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as rating

IGNORED, ROAD, BUILDING = 0, 7, 11
truth = np.full((40, 100), ROAD, np.uint8)
truth[:, 60:80] = BUILDING
truth[:, 80:] = IGNORED
wrong = np.select([truth == ROAD, truth == BUILDING], [BUILDING, ROAD], IGNORED).astype(np.uint8)
guessed = np.where(truth == IGNORED, ROAD, truth).astype(np.uint8)
Image.fromarray(truth).save("town_labelIds.png")
Image.fromarray(truth.astype(np.int32)).save("town_instanceIds.png")

args = rating.args
args.evalPixelAccuracy, args.JSONOutput, args.quiet = True, False, True
seen = {}
for name, town in {"perfect": truth, "all wrong": wrong, "guess on ignored": guessed}.items():
    Image.fromarray(town).save("map.png")
    result = rating.evaluateImgLists(["map.png"], ["town_labelIds.png"], args)
    pixels = result["perImageScores"]["map.png"]
    seen[name] = (pixels["nbNotIgnoredPixels"], pixels["nbCorrectPixels"])
    print(f"{name:16} IoU of buildings {result['classScores']['building']:.2f}",
          "pixels that count and correct ones:", *seen[name])
    assert result["classScores"]["building"] == (0 if name == "all wrong" else 1)
assert seen == {"perfect": (800, 0), "all wrong": (800, 0), "guess on ignored": (800, 800)}
PYTHON
