"""What every loss is, and what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from pydantic import ConfigDict
from torch import Tensor

from rooftrace.core.config import Config
from rooftrace.core.errors import ConfigError
from rooftrace.core.registry import Registry

__all__ = ["LOSSES", "Loss", "check_one_each", "masked_mean", "one_hot", "probabilities"]


class Loss(Config):
    """A loss; its fields are its parameters.

    Called with logits (n, channel, y, x), the target (n, y, x) and the validity (n, y, x) it
    answers a scalar, in fp32 at least. Where a pixel is not valid its target may be anything.
    """

    model_config = ConfigDict(strict=True)

    def __call__(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        self.check(max(2, logits.shape[1]))
        # Sums over many pixels overflow or lose their small parts in half precision.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.value(logits, target.long().masked_fill(~valid, 0), valid)

    @abstractmethod
    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """The scalar for float logits and int64 targets that are classes everywhere."""

    def check(self, classes: int) -> None:
        """Raises ConfigError where a parameter does not fit so many classes."""
        del classes


LOSSES: Registry[type[Loss]] = Registry("loss")


def check_one_each(name: str, values: Sequence[float] | None, classes: int) -> None:
    """Raises ConfigError where there are `values`, but not one per class."""
    if values is not None and len(values) != classes:
        raise ConfigError(
            f"{name} of the loss has {len(values)} values for {classes} classes: {list(values)}.",
            remedy="Give one per class, in the order of data.labels.classes.",
        )


def masked_mean(each: Tensor, valid: Tensor, *, divided_by: Tensor | None = None) -> Tensor:
    """Sum of (n, y, x) values where they are valid, over the number of valid pixels.

    Args:
        divided_by: (n, y, x), summed instead of that number; above 0 where valid.

    Returns:
        A scalar; 0 where nothing is valid.
    """
    inside = valid.to(each.dtype)
    total = (inside if divided_by is None else inside * divided_by).sum()
    return (each * inside).sum() / total.clamp(min=torch.finfo(each.dtype).tiny)


def one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """(n, y, x) classes to (n, channel, y, x) shares, with the channels and dtype of `logits`."""
    if logits.shape[1] == 1:
        return target[:, None].to(logits.dtype)
    # Compared, and not F.one_hot: that makes int64 with the channels last, in thrice the time.
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    return (target[:, None] == classes).to(logits.dtype)


def probabilities(logits: Tensor) -> Tensor:
    """(n, channel, y, x) logits to what a bundle answers: see `BundleSpec`."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
