from __future__ import annotations

import pytest
import torch
from torch import nn

from rooftrace.train.depthwise import DepthwiseConv2d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (3, 5)])
def test_maps_and_gradients_are_those_of_a_plain_convolution(
    kernel: tuple[int, int], stride: int
) -> None:
    torch.manual_seed(0)
    padding = (kernel[0] // 2, kernel[1] // 2)
    plain = nn.Conv2d(6, 6, kernel, stride, padding, groups=6)
    ours = nn.Conv2d(6, 6, kernel, stride, padding, groups=6)
    ours.load_state_dict(plain.state_dict())
    DepthwiseConv2d.take_over(ours)
    images = torch.randn(2, 6, 9, 12).contiguous(memory_format=torch.channels_last)
    theirs, given = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected = plain(theirs)
    with torch.autocast("cpu", torch.bfloat16):
        maps = ours(given)
    towards = torch.randn_like(expected)
    expected.backward(towards)
    maps.float().backward(towards)
    pairs = [(maps.detach().float(), expected.detach()), (given.grad, theirs.grad)]
    pairs += [(one.grad, other.grad) for one, other in zip(ours.parameters(), plain.parameters())]
    for found, wanted in pairs:
        assert found is not None
        assert wanted is not None
        assert (found - wanted).abs().max() < 0.01 * wanted.abs().max()  # bf16 has 8 bits
    assert type(ours) is DepthwiseConv2d
    assert torch.equal(ours(images), plain(images))


def test_only_plain_depthwise_convolutions_are_taken_over() -> None:
    net = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2), nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
    )  # fmt: skip
    DepthwiseConv2d.take_over(net)
    assert [type(one) is DepthwiseConv2d for one in net] == [True] + 5 * [False]
