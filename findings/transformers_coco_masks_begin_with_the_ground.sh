#!/usr/bin/env bash
# transformers' COCO annotations of three buildings are four masks, which no COCO tool can read.
#
# Guess before the run: post_process_instance_segmentation(return_coco_annotation=True) returns one
# mask for each entry of segments_info, and its runs are those of COCO, to which the docstring
# refers: lengths of 0 and 1 by turns, column by column, which pycocotools decodes.
# Seen: the list begins with the ground, which has the id -1, so that the mask beside the first
# building is the ground, beside the second the first building, and the last building has none. Runs
# are pairs of a first pixel, counted from 1, and a length, row by row. pycocotools calls them
# invalid. Read so and moved by one place, they are right; where the tile is one roof, so that
# no ground is left, they are not moved. Without return_coco_annotation, ids and mask are right.
# Versions: transformers 5.24.0, torch 2.14.1, pycocotools 2.0.11. Source:
# convert_segmentation_to_rle and binary_mask_to_rle in image_processing_mask2former.py, the same in
# MaskFormer, OneFormer and DETR.
# Hurt: who writes predictions to COCO from it, and repairs the runs by hand: each building has the
# class and the score of its neighbour in the list.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 pycocotools==2.0.11 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
from types import SimpleNamespace

import numpy as np
import torch
from pycocotools import mask as coco
from transformers import MaskFormerImageProcessor

SIZE = 96


def post_process(houses, **options):
    """Result for a network that finds each (top, bottom, left, right) with classes 0, 1, 2, ..."""
    masks = torch.full((1, len(houses), SIZE, SIZE), -10.0)
    kinds = torch.full((1, len(houses), len(houses) + 1), -10.0)
    for number, (top, bottom, left, right) in enumerate(houses):
        masks[0, number, top:bottom, left:right] = 10
        kinds[0, number, number] = 10
    outputs = SimpleNamespace(class_queries_logits=kinds, masks_queries_logits=masks)
    return MaskFormerImageProcessor().post_process_instance_segmentation(
        outputs, target_sizes=[(SIZE, SIZE)], **options
    )[0]


def drawn(runs):
    """Mask of pairs of a first pixel, counted from 1, and a length, row by row."""
    flat = np.zeros(SIZE * SIZE, bool)
    for first, length in zip(runs[::2], runs[1::2]):
        flat[first - 1 : first - 1 + length] = True
    return flat.reshape(SIZE, SIZE)


houses = [(10, 20, 30, 50), (40, 60, 10, 20), (70, 90, 60, 90)]
plain = post_process(houses)
masks = [(plain["segmentation"] == one["id"]).numpy() for one in plain["segments_info"]]
print("pixels of the buildings:", [int(mask.sum()) for mask in masks])
for mask, one in zip(masks, plain["segments_info"], strict=True):
    top, bottom, left, right = houses[one["label_id"]]
    assert abs(int(mask.sum()) - (bottom - top) * (right - left)) <= 5

found = post_process(houses, return_coco_annotation=True)
assert found["segments_info"] == plain["segments_info"]
lists = found["segmentation"]
sizes = [int(drawn(one).sum()) for one in lists]
print(len(found["segments_info"]), "entries,", len(lists), "masks of", sizes, "pixels")
assert len(found["segments_info"]) == 3 and len(lists) == 4
assert np.array_equal(drawn(lists[0]), ~np.any(masks, axis=0))
for runs, mask in zip(lists[1:], masks, strict=True):
    assert np.array_equal(drawn(runs), mask)
for runs in lists:
    try:
        coco.decode(coco.frPyObjects({"size": [SIZE, SIZE], "counts": runs}, SIZE, SIZE))
    except ValueError as error:
        print("pycocotools:", error)
    else:
        raise AssertionError("pycocotools reads the runs")

full = post_process([(0, SIZE, 0, 48), (0, SIZE, 48, SIZE)], return_coco_annotation=True)
assert len(full["segments_info"]) == len(full["segmentation"]) == 2
PYTHON
