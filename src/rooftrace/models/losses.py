"""Losses, and sums of them written as `"0.6*ce + 0.4*dice"`.

Each takes logits (n, channel, y, x), the target (n, y, x) of class indices and the validity
(n, y, x), and answers a scalar; pixels that are not valid have no part in it. One channel stands
for two classes: its logit is the difference of their two, so that cross-entropy over two classes
and binary cross-entropy are the same function.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rooftrace.core.errors import ConfigError
from rooftrace.core.registry import Registry

__all__ = ["LOSSES", "Loss", "parse_loss"]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: Registry[Loss] = Registry("loss")

_SMOOTH = 1.0
"""Pixels added to both sides of an overlap, so that an empty batch has a gradient."""


@LOSSES.register("ce")
def cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean negative log likelihood of the true class."""
    if logits.shape[1] == 1:
        truth = target.to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits[:, 0], truth, reduction="none")
    else:
        each = F.cross_entropy(logits, target.long(), reduction="none")
    return _masked_mean(each, valid)


@LOSSES.register("bce")
def binary_cross_entropy(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean over channels of the binary cross-entropy, each channel against the rest."""
    each = F.binary_cross_entropy_with_logits(logits, _one_hot(target, logits), reduction="none")
    return _masked_mean(each.mean(dim=1), valid)


@LOSSES.register("dice")
def dice(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - Dice over the batch, mean over channels (Milletari et al. 2016, "V-Net")."""
    both, sides = _overlap(logits, target, valid)
    return (1 - (2 * both + _SMOOTH) / (sides + _SMOOTH)).mean()


@LOSSES.register("jaccard")
def jaccard(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - IoU over the batch, mean over channels (Rahman and Wang 2016)."""
    both, sides = _overlap(logits, target, valid)
    return (1 - (both + _SMOOTH) / (sides - both + _SMOOTH)).mean()


class _Sum(nn.Module):
    def __init__(self, terms: list[tuple[float, Loss]]) -> None:
        super().__init__()
        self._terms = terms

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        # Sums over many pixels overflow or lose their small parts in half precision.
        logits = logits.float()
        total = logits.new_zeros(())
        for weight, loss in self._terms:
            total = total + weight * loss(logits, target, valid)
        return total


def parse_loss(text: str) -> Loss:
    """A weighted sum of registered losses.

    Raises:
        ConfigError: not a sum of `WEIGHT*NAME`, or an unknown name.
    """
    terms = []
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.]+(?:e-?\d+)?)\s*\*)?\s*([a-z_]+)\s*", term)
        if match is None:
            raise ConfigError(
                f"loss = {text!r}: {term.strip()!r} is not WEIGHT*NAME.",
                remedy='For example: loss = "0.6*ce + 0.4*dice"',
            )
        try:
            weight = float(match[1] or 1)
        except ValueError:
            raise ConfigError(
                f"loss = {text!r}: {match[1]!r} is not a number.", remedy="Correct the weight."
            ) from None
        terms.append((weight, LOSSES[match[2]]))
    return _Sum(terms)


def _masked_mean(each: Tensor, valid: Tensor) -> Tensor:
    weight = valid.to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def _one_hot(target: Tensor, logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return target[:, None].to(logits.dtype)
    return F.one_hot(target.long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)


def _overlap(logits: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(channel,) soft intersection, and (channel,) sum of the two sides."""
    probability = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    weight = valid[:, None].to(logits.dtype)
    truth = _one_hot(target, logits) * weight
    probability = probability * weight
    dims = (0, 2, 3)
    both = (probability * truth).sum(dim=dims)
    return both, probability.sum(dim=dims) + truth.sum(dim=dims)


def probabilities(logits: Tensor) -> Tensor:
    """(n, channel, y, x) logits to what a bundle answers: see `BundleSpec`."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)
