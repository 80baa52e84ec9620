"""Networks from their configuration, and what has to be known of them to use them."""

from __future__ import annotations

from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from torch import nn

from rooftrace.core.errors import ConfigError
from rooftrace.models.zoo.config import ARCHITECTURES, ModelConfig

__all__ = ["build_model", "check_side", "multiple_px", "needs_fixed_size"]

_USUAL_PX = 32


def build_model(
    config: ModelConfig, *, bands: int, channels: int, base: Path = Path()
) -> nn.Module:
    """A network from (n, band, y, x) normalised pixels to (n, channel, y, x) logits.

    Args:
        bands: of the image; the first convolution of a pretrained encoder is adapted to them.
        channels: of the answer.
        base: folder that a relative weights file starts from.

    Raises:
        ConfigError: options that do not fit each other, weights that cannot be had or do not fit.
    """
    architecture = ARCHITECTURES[config.architecture]
    return architecture.build(config, bands=bands, channels=channels, base=base)


def multiple_px(net: nn.Module) -> int:
    """What the height and width of a network's input must be multiples of.

    Its own `multiple_px`, else the stride of its encoder, else 32.
    """
    stride = getattr(getattr(net, "encoder", None), "output_stride", _USUAL_PX)
    return int(getattr(net, "multiple_px", stride))


def check_side(net: nn.Module, bands: int, side_px: int, key: str) -> None:
    """Find out whether a network takes squares of so many pixels, by one that is empty.

    Args:
        key: of the configuration, that says so.

    Raises:
        ConfigError: it does not, or answers in another size.
    """
    multiple = multiple_px(net)
    net.eval()
    with torch.no_grad():
        try:
            rows, columns = net(torch.zeros(1, bands, side_px, side_px)).shape[-2:]
            problem = f"the answer has {rows} × {columns} px"
        except (RuntimeError, ValueError, AssertionError) as error:
            rows = columns = 0
            told = str(error)[:200].rstrip(".")
            problem = f"it is no multiple of {multiple}" if side_px % multiple else told
    if (rows, columns) != (side_px, side_px):
        raise ConfigError(
            f"The network cannot take {key} = {side_px}: {problem}.",
            remedy=f"Choose a multiple of {multiple}; a transformer that takes one size alone may "
            "have model.options.img_size.",
        )


def needs_fixed_size(net: nn.Module, bands: int, multiple_px: int) -> bool:
    """Whether a network has to be exported for inputs of one size alone."""
    # Pooling to a fixed number of cells has windows of uneven sizes: no ONNX operator does that for
    # an input whose size is not known.
    for module in net.modules():
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            size = module.output_size
            if any(side != 1 for side in (size if isinstance(size, tuple) else (size,))):
                return True
    net.eval()
    with torch.no_grad():
        try:
            for shape in ((2 * multiple_px, 3 * multiple_px), (5 * multiple_px, 4 * multiple_px)):
                if net(torch.zeros(1, bands, *shape)).shape[-2:] != shape:
                    return True
        except (RuntimeError, ValueError):
            return True
    return False
