#!/usr/bin/env bash
# transformers squeezes the buildings of a padded tile: the padding is resized along with the mask.
#
# Guess before the run: an image processor that pads the images of a batch to one size, and returns
# a pixel_mask that says where, takes the padding off before it resizes masks to target_sizes.
# Seen: a batch of a tile of 100 x 100 pixels and one of 50 x 100 from the edge of the scene, which
# is padded at the bottom. A network that finds its house exactly has it in the rows 20 to 39 of the
# tile. post_process_instance_segmentation and post_process_semantic_segmentation put it into the
# rows 10 to 19: the whole padded mask is resized to 50 x 100. In a batch of its own the same tile
# is right. No parameter takes the pixel_mask, and nothing is said. Both processors do it, that of
# MaskFormer and that of Mask2Former.
# Versions: transformers 5.24.0, torch 2.14.1. Source: image_processing_mask2former.py and
# image_processing_maskformer.py, the post_process functions, which interpolate to target_size;
# transformers issue 39382 is about scores that differ by batch.
# Hurt: who predicts tiles of several sizes in one batch: in each but the largest, buildings are
# moved to the upper left and too small, by the share that is padded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
from types import SimpleNamespace

import numpy as np
import torch
from transformers import MaskFormerImageProcessor, Mask2FormerImageProcessor


def rows(processor, sizes, method):
    """First and last row and column of the house in the mask of the last tile of a batch."""
    tiles = [np.zeros((height, width, 3), np.uint8) for height, width in sizes]
    batch = processor(tiles, do_resize=False, return_tensors="pt")
    padded = batch["pixel_values"].shape[-2:]
    assert batch["pixel_mask"][-1].sum() == sizes[-1][0] * sizes[-1][1]
    # a perfect network: query 0 is the house, query 1 the ground around it
    house = torch.full((len(sizes), *padded), -10.0)
    house[:, 20:40, 20:40] = 10
    kinds = torch.full((len(sizes), 2, 3), -10.0)
    kinds[:, 0, 1] = kinds[:, 1, 0] = 10
    outputs = SimpleNamespace(
        class_queries_logits=kinds, masks_queries_logits=torch.stack([house, -house], 1)
    )
    found = getattr(processor, method)(outputs, target_sizes=sizes)[-1]
    if method == "post_process_semantic_segmentation":
        mask = found == 1
    else:
        segment = next(one for one in found["segments_info"] if one["label_id"] == 1)
        mask = found["segmentation"] == segment["id"]
    assert mask.shape == sizes[-1]
    y, x = torch.nonzero(mask, as_tuple=True)
    return tuple(int(value) for value in (y.min(), y.max(), x.min(), x.max()))


def near(found, expected):
    return np.abs(np.subtract(found, expected)).max() <= 1


for kind in (MaskFormerImageProcessor, Mask2FormerImageProcessor):
    for method in ("post_process_semantic_segmentation", "post_process_instance_segmentation"):
        alone = rows(kind(), [(50, 100)], method)
        together = rows(kind(), [(100, 100), (50, 100)], method)
        print(kind.__name__, method, "rows and columns alone:", alone, "in a batch:", together)
        assert near(alone, (20, 39, 20, 39))
        assert near(together, (10, 19, 20, 39))
PYTHON
