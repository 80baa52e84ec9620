#!/usr/bin/env bash
# darwin-py's grey masks give the first of 16 kinds of roofs the value of the 15th.
#
# Guess before the run: an export as grey masks writes each kind of roof with its own value, the one
# that the table beside it, class_mapping.csv, names.
# Seen: of 16 kinds the first is 239 where the table says 15, and 239 is the 15th kind. The numbers
# of the kinds are replaced by grey values one after the other in the same array: 1 becomes 15, and
# when it is the turn of 15, both become 239. With 40 kinds six are lost. Up to 15 kinds beside the
# background no grey value is the number of a later kind, and all is right.
# Versions: darwin-py 3.6.3, numpy 2.2.6, upolygon 0.2.3. Source: darwin/exporter/formats/mask.py,
# export, mode "grey": the loop over palette.values().
# Hurt: who labels kinds of roofs, uses or damage in V7 and trains on the masks: two kinds are one,
# and whoever reads the masks by the table finds none of the first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check darwin-py==3.6.3 upolygon==0.2.3 \
  numpy==2.2.6
HOME=$folder venv/bin/python -W ignore - <<'PYTHON'
import csv
from pathlib import Path

import darwin.datatypes as dt
import numpy as np
from darwin.exporter.formats import mask
from PIL import Image


def export(kinds):
    """Return the values of kinds of roofs in a grey mask, and those that the table names."""
    roofs = []
    for kind in range(kinds):
        left, right = 10 * kind, 10 * kind + 8
        outline = [{"x": x, "y": y} for x, y in [(left, 0), (right, 0), (right, 8), (left, 8)]]
        box = {"x": left, "y": 0, "w": 8, "h": 8}
        roofs.append(dt.make_polygon(f"roof {kind + 1:02}", [outline], box))
    tile = dt.AnnotationFile(
        path=Path("tile.json"), filename="tile.png", annotations=roofs, remote_path="/",
        annotation_classes={roof.annotation_class for roof in roofs},
        image_width=10 * kinds, image_height=10)
    mask.export([tile], Path(str(kinds)), "grey")
    pixels = np.array(Image.open(Path(str(kinds), "masks", "tile.png")))
    with open(Path(str(kinds), "class_mapping.csv"), newline="") as file:
        table = [int(row["class_color"]) for row in csv.DictReader(file)]
    return pixels[4, 4::10].tolist(), table[1:]


for kinds in (15, 16, 40):
    values, table = export(kinds)
    wrong = [kind + 1 for kind in range(kinds) if values[kind] != table[kind]]
    print(f"{kinds} kinds: {len(set(values))} values in the mask, not that of the table: {wrong}")
    assert len(set(table)) == kinds
    assert wrong == {15: [], 16: [1], 40: [1, 2, 3, 4, 5, 6]}[kinds]
    assert len(set(values)) == kinds - len(wrong)
    if kinds == 16:
        assert (values[0], table[0], values[14], table[14]) == (239, 15, 239, 239)
PYTHON
