"""Depthwise convolutions whose gradients do not hold up training on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sides = tuple[int, int]

_FAST = 3
"""Side of the kernel for which oneDNN has a fast gradient in bf16."""


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution whose gradients are fast under autocast to bf16 on a CPU.

    PyTorch 2.13 takes 50 ms there for the gradient of 720 kernels of 5 x 5 on 8 maps of 16 x 16,
    60 times as long as for the maps themselves, and as long for that of maps at stride 2. In
    kernels of 3 x 3 and in fp32 neither is slow.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (its name in torch)
        if (
            torch.is_grad_enabled()
            and input.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
        ):
            maps: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]  # untyped in torch
                input.bfloat16(), self.weight, self.bias, self.stride, self.padding
            )
            return maps
        return super().forward(input)

    @classmethod
    def take_over(cls, net: nn.Module) -> nn.Module:
        """Make all plain depthwise convolutions of a network, in place, such ones."""
        for module in net.modules():
            if (
                type(module) is nn.Conv2d
                and module.groups == module.in_channels == module.out_channels > 1
                and min(module.kernel_size) >= _FAST
                and module.dilation == (1, 1)
                and module.padding_mode == "zeros"
                and not isinstance(module.padding, str)
            ):
                module.__class__ = cls
        return net


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bf16 with a gradient of our own."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None,
        stride: Sides, padding: Sides,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        inner = None if bias is None else bias.bfloat16()
        return F.conv2d(maps, weight.bfloat16(), inner, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_maps = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_maps = _gradient_of_maps(gradient, maps, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(gradient, maps, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.float32)
        return of_maps, of_weight, of_bias, None, None


def _gradient_of_maps(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: Sides, padding: Sides
) -> Tensor:
    """Return the gradient of the maps; at a stride, where bf16 is slow, by way of fp32."""
    dtype = torch.bfloat16 if stride == (1, 1) else torch.float32
    given = gradient.to(dtype), maps.to(dtype), weight.to(dtype)
    return _backward(*given, stride, padding, (True, False, False))[0].to(maps.dtype)


def _gradient_of_weight(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: Sides, padding: Sides
) -> Tensor:
    """Return the gradient of the kernels, put together from that of kernels of 3 x 3.

    The gradient of a kernel's element is the sum of the gradient's maps times the maps shifted to
    that element, so any 3 x 3 of its elements are a convolution of that size on shifted maps.
    """
    height, width = weight.shape[2:]
    kernel = torch.empty(len(weight), 1, _FAST, _FAST, dtype=maps.dtype)
    wanted = (False, True, False)
    if height == width == _FAST:
        return _backward(gradient, maps, kernel, stride, padding, wanted)[1].float()
    rows, cols = ((n - 1) * by + _FAST for n, by in zip(gradient.shape[2:], stride))
    found = torch.empty_like(weight, dtype=torch.float32)
    for row in _starts(height):
        for col in _starts(width):
            # Cut out or filled up with zeros, whichever the shift needs.
            above, before = padding[0] - row, padding[1] - col
            shifted = F.pad(
                maps, (before, cols - before - maps.shape[3], above, rows - above - maps.shape[2])
            ).contiguous(memory_format=torch.channels_last)
            part = _backward(gradient, shifted, kernel, stride, (0, 0), wanted)[1]
            found[:, :, row : row + _FAST, col : col + _FAST] = part
    return found


def _backward(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: Sides, padding: Sides,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of maps, weight and bias, as far as they are wanted."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
    return found


def _starts(side: int) -> list[int]:
    """Return where kernels of 3 begin that cover one of `side`."""
    return sorted({min(at, side - _FAST) for at in range(0, side, _FAST)})
