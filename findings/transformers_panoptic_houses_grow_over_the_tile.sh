#!/usr/bin/env bash
# transformers' panoptic map of a tile with one house is that house, from edge to edge.
#
# Guess before the run: post_process_panoptic_segmentation makes masks at mask_threshold, as
# documented, and leaves pixels that no mask reaches without a segment, as MaskFormer's own code,
# which calls them void.
# Seen: a network that finds one house of 40 x 40 pixels, with a probability of 0.998 in it and
# 0.002 outside, and no query for ground. The house has all 147,456 pixels of the tile, with every
# mask_threshold; of three houses one has all the ground. Each pixel goes to the best query,
# however low its probability; the threshold only decides whether a segment is left out, by the
# share of its pixels that others have taken. post_process_instance_segmentation of Mask2Former has
# 1,600 pixels. There is no message.
# Versions: transformers 5.24.0, torch 2.13.0, numpy 2.4.6. Source:
# transformers/models/mask2former/image_processing_mask2former.py, compute_segments and
# check_segment_validity, mask_labels == k; the same in MaskFormer, OneFormer and DETR.
# Hurt: who trains such a network on buildings alone, where ground is no class: masks and areas are
# those of the nearest house, and the panoptic quality is near 0 though the network is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check transformers==5.24.0 torch==2.13.0 \
  pillow==12.0.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
from types import SimpleNamespace

import torch
import transformers

transformers.logging.set_verbosity_error()
SIDE, HOUSE = 384, 0


def network(places):
    """Return the output of a network that finds a house of 40 x 40 pixels at each place."""
    masks = torch.full((1, len(places), SIDE, SIDE), -6.0)
    for query, (row, column) in enumerate(places):
        masks[0, query, row : row + 40, column : column + 40] = 6
    classes = torch.tensor([10.0, -10.0]).repeat(1, len(places), 1)
    return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)


def pixels(name, places, method="panoptic", **options):
    """Return the pixels of each house."""
    processor = getattr(transformers, name)()
    process = getattr(processor, f"post_process_{method}_segmentation")
    (found,) = process(network(places), target_sizes=[(SIDE, SIDE)], **options)
    return [int((found["segmentation"] == one["id"]).sum()) for one in found["segments_info"]]


ONE, THREE = [(50, 50)], [(50, 50), (50, 200), (250, 100)]
for name in ("Mask2FormerImageProcessor", "MaskFormerImageProcessor"):
    of_one = [pixels(name, ONE, mask_threshold=threshold) for threshold in (0.1, 0.5, 0.9)]
    of_three = pixels(name, THREE)
    print(name, "pixels of one house at thresholds of 0.1, 0.5 and 0.9:", *of_one)
    print(name, "pixels of three houses:", *of_three, "in all", sum(of_three), "of", SIDE**2)
    assert of_one == [[SIDE**2]] * 3
    assert sum(of_three) == SIDE**2
instances = pixels("Mask2FormerImageProcessor", ONE, "instance")
print("Mask2FormerImageProcessor, instances: pixels of one house:", *instances)
assert instances == [1600]
PYTHON
