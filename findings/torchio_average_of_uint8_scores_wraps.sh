#!/usr/bin/env bash
# torchio's average of overlapping tiles makes 8 of scores of 200, where four tiles overlap.
#
# Guess before the run: GridAggregator with overlap_mode="average" has the mean of the tiles,
# whatever the type of the scores is, as "hann" has, and as the result, which is of 32-bit floats,
# suggests.
# Seen: a house has 200 of 255 in each tile of 32 x 32 pixels that overlap by half. With scores of
# 8 bits it is 200 where one tile lies, 72 where two and 8 where four do: the sum is kept in 8
# bits, and divided as floats. At a threshold of 128 most of the house is gone. "hann" and "crop"
# have 200, and "average" has it for 16 bits and floats. There is no message.
# Versions: torchio 1.2.1, torch 2.13.0, numpy 2.4.6. Source: torchio/data/inference/aggregator.py,
# add_batch, self._output_tensor of batch.dtype; "hann" makes it a float.
# Hurt: who averages the output of a network in 8 bits, or scores that were stored so to save
# memory: buildings get holes along the tiles, the more, the surer the network is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torchio==1.2.1 torch==2.13.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import torch
import torchio
from torch.utils.data import DataLoader

SIDE = 64
scene = torch.zeros(1, SIDE, SIDE, 1)
scene[0, 4:60, 4:60] = 200
house = scene[0, :, :, 0] > 0


def whole(mode, kind):
    """Return the values in the house that tiles with scores of this kind give, and its pixels."""
    subject = torchio.Subject(scene=torchio.ScalarImage(tensor=scene))
    sampler = torchio.inference.GridSampler(subject, (32, 32, 1), (16, 16, 0))
    aggregator = torchio.inference.GridAggregator(sampler, overlap_mode=mode)
    for batch in DataLoader(sampler, batch_size=4):
        scores = batch["scene"][torchio.DATA].to(kind)
        aggregator.add_batch(scores, batch[torchio.LOCATION])
    found = aggregator.get_output_tensor()[0, :, :, 0].float().round()
    return sorted(int(value) for value in found[house].unique()), int((found > 128).sum())


print("pixels of the house:", int(house.sum()))
cases = [(mode, kind) for mode in ("crop", "average", "hann")
         for kind in (torch.float32, torch.int16, torch.uint8)]
seen = {case: whole(*case) for case in cases}
for (mode, kind), (values, above) in seen.items():
    print(mode, kind, "- values in the house:", *values, "pixels above 128:", above)
for case, found in seen.items():
    if case == ("average", torch.uint8):
        assert found[0] == [8, 72, 200] and found[1] < house.sum() / 4
    else:
        assert found == ([200], house.sum())
PYTHON
