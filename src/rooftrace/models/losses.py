"""Losses by name, and sums of them written as `"0.6*ce + 0.4*tversky(alpha=0.3, beta=0.7)"`.

Each takes logits (n, channel, y, x), the target (n, y, x) of class indices and the validity (n, y,
x), and returns a scalar that ignores invalid pixels. One channel stands for two classes: its logit
is the difference of their two logits, so that cross-entropy over two classes equals binary
cross-entropy.

A sum is written as in Python: terms `LOSS` or `WEIGHT*LOSS`, joined by `+`. A loss is a name, or a
call with keywords whose values are numbers, names, quoted strings, or lists of them.
"""

from __future__ import annotations

import ast
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from rooftrace.core.config import Config, Registry, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import first_line, plural


class Loss(Config):
    """Base of a loss; its fields are its parameters.

    A loss is called with logits (n, channel, y, x), the target (n, y, x) and the validity (n, y,
    x), and returns a scalar in fp32 or better. The target of an invalid pixel may be any number.
    """

    model_config = ConfigDict(strict=True)

    def __call__(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        self.check(max(2, logits.shape[1]))
        # In half precision, sums over many pixels overflow or lose small terms.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.value(logits, target.long().masked_fill(~valid, 0), valid)

    @abstractmethod
    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Return the scalar; the targets are int64 and valid classes everywhere."""

    def check(self, classes: int) -> None:
        """Raise ConfigError if a parameter does not fit this number of classes."""
        del classes


LOSSES: Registry[type[Loss]] = Registry("loss")

_SHOWN = 80
"""Maximum number of characters of an expression in a message."""


def check_one_per_class(name: str, values: Sequence[float] | None, classes: int) -> None:
    """Raise ConfigError if there are `values`, but not one per class."""
    if values is not None and len(values) != classes:
        raise ConfigError(
            f"{name} of the loss has {plural(len(values), 'value')} for {classes} classes: "
            f"{list(values)}.",
            remedy="Give one per class, in the order of data.labels.classes.",
        )


def masked_mean(each: Tensor, valid: Tensor, *, divided_by: Tensor | None = None) -> Tensor:
    """Return the sum of (n, y, x) values over valid pixels, divided by the number of valid pixels.

    Args:
        each: Values.
        valid: Validity of each pixel.
        divided_by: (n, y, x) weights that are summed instead of that number; above 0 where valid.

    Returns:
        A scalar; 0 if no pixel is valid.
    """
    inside = valid.to(each.dtype)
    total = (inside if divided_by is None else inside * divided_by).sum()
    return (each * inside).sum() / total.clamp(min=torch.finfo(each.dtype).tiny)


def one_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Convert (n, y, x) classes to (n, channel, y, x) shares in the format of `logits`."""
    if logits.shape[1] == 1:
        return target[:, None].to(logits.dtype)
    # F.one_hot returns int64 with the channels last, and takes three times as long.
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    return (target[:, None] == classes).to(logits.dtype)


def probabilities(logits: Tensor) -> Tensor:
    """Convert (n, channel, y, x) logits to the output of a bundle, see `BundleSpec`."""
    return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


@LOSSES.register("boundary")
class Boundary(Loss):
    """Mean over pixels and channels of |predicted - truth| times the distance from the true outline
    (Kervadec et al. 2019, "Boundary loss for highly unbalanced segmentation").

    It is the paper's ∫ φ·s with the constant -∫ φ·g that the paper drops, so that the best s
    has 0: φ is the signed distance, negative inside, s the prediction, g the truth. Distances are
    shares of the diagonal of the sample, from a pixel's centre to the edge of the nearest valid
    pixel on the other side. They are 0 if a class has no outline, so add a loss of overlap or of
    pixels to this one.

    Distances are computed for each batch on the CPU.
    """

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        truth = one_hot(target, logits)
        distance = torch.from_numpy(
            _distances(truth.bool().cpu().numpy(), valid[:, None].cpu().numpy())
        ).to(logits)
        each = (probabilities(logits) - truth).abs() * distance
        return masked_mean(each.mean(dim=1), valid)


def _distances(inside: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return distances from the outline of `inside` as shares of the diagonal, with its shape."""
    distances = np.zeros(inside.shape, np.float32)
    diagonal_px = math.hypot(*inside.shape[-2:])
    for number, channel in np.ndindex(inside.shape[:2]):
        here, known = inside[number, channel], valid[number, 0]
        for side, other in ((here & known, ~here & known), (~here & known, here & known)):
            if side.any() and other.any():
                to_other = cv2.distanceTransform(
                    (~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
                )
                # The distance between centres, minus the half pixel to the edge between them.
                distances[number, channel][side] = (to_other[side] - 0.5) / diagonal_px
    return distances


@LOSSES.register("lovasz")
class Lovasz(Loss):
    """A convex surrogate of 1 - IoU (Berman et al. 2018, "The Lovász-Softmax loss").

    With one channel: Lovász hinge of the second class, 0 where every margin is at least 1. With
    several: Lovász softmax, the mean over the classes in the truth.

    Args:
        per: `image`: mean over the images that have a valid pixel; `batch`: the pixels of all
            images are treated as one image.
    """

    per: Literal["image", "batch"] = "image"

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        inside, truth = valid[:, None], one_hot(target, logits)
        hinge = logits.shape[1] == 1
        errors = 1 - logits * (2 * truth - 1) if hinge else (truth - logits.softmax(dim=1)).abs()
        truth = truth * inside
        each = _extension(self._rows(errors.masked_fill(~inside, -1)), self._rows(truth))
        # A class that is absent from the truth is left out of the softmax; for the hinge, a scene
        # without a building is valid data.
        counted = self._rows(inside if hinge else truth > 0).any(dim=-1)
        classes = counted.sum(dim=1)
        groups = (each * counted).sum(dim=1) / classes.clamp(min=1)
        return groups.sum() / (classes > 0).sum().clamp(min=1)

    def _rows(self, values: Tensor) -> Tensor:
        """Reshape (n, channel, y, x) to (group, channel, pixel)."""
        if self.per == "batch":
            values = values.movedim(0, 1)[None]
        return values.flatten(start_dim=2)


def _extension(errors: Tensor, truth: Tensor) -> Tensor:
    """Return the (…,) inner products of errors (…, pixel), in falling order, with the gradient of
    the Jaccard loss (…, pixel) there: Algorithm 1 of the paper. Errors below 0 count as 0.
    """
    ordered, index = errors.sort(dim=-1, descending=True)
    truth = truth.gather(-1, index)
    positives = truth.sum(dim=-1, keepdim=True)
    both = positives - truth.cumsum(dim=-1)
    either = positives + (1 - truth).cumsum(dim=-1)
    jaccard = 1 - both / either
    gradient = jaccard.diff(dim=-1, prepend=torch.zeros_like(positives))
    return (ordered.relu() * gradient).sum(dim=-1)


_SMOOTH = 1.0
"""Pixels added to both sides of an overlap, so that an empty batch has a gradient."""


@LOSSES.register("dice")
class Dice(Loss):
    """1 - Dice over the batch, mean over channels (Milletari et al. 2016, "V-Net")."""

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        both, predicted, truth = _overlap(logits, target, valid)
        return (1 - (2 * both + _SMOOTH) / (predicted + truth + _SMOOTH)).mean()


@LOSSES.register("jaccard")
class Jaccard(Loss):
    """1 - IoU over the batch, mean over channels (Rahman and Wang 2016)."""

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        both, predicted, truth = _overlap(logits, target, valid)
        return (1 - (both + _SMOOTH) / (predicted + truth - both + _SMOOTH)).mean()


@LOSSES.register("tversky")
class Tversky(Loss):
    """1 - Tversky index over the batch, mean over channels (Salehi et al. 2017, "Tversky Loss
    Function for Image Segmentation Using 3D Fully Convolutional Deep Networks").

    With 1 and 1 it equals `jaccard`; the defaults are the values that the paper found best.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives.
    """

    alpha: Annotated[float, Field(ge=0)] = 0.3
    beta: Annotated[float, Field(ge=0)] = 0.7

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        both, predicted, truth = _overlap(logits, target, valid)
        errors = self.alpha * (predicted - both) + self.beta * (truth - both)
        return (1 - (both + _SMOOTH) / (both + errors + _SMOOTH)).mean()


class _Overlap(NamedTuple):
    both: Tensor
    predicted: Tensor
    truth: Tensor


def _overlap(logits: Tensor, target: Tensor, valid: Tensor) -> _Overlap:
    """Return (channel,) soft areas in pixels: intersection, prediction and truth."""
    weight = valid[:, None].to(logits.dtype)
    truth = one_hot(target, logits) * weight
    predicted = probabilities(logits) * weight
    dims = (0, 2, 3)
    return _Overlap((predicted * truth).sum(dim=dims), predicted.sum(dim=dims), truth.sum(dim=dims))


Weights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=2)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Entropy(Loss):
    """Parameters of the two cross-entropies.

    `class_weights` defaults to equal ones; pixels of a class of weight 0 are ignored.
    `label_smoothing` is the share of the truth that is spread evenly over the classes (Szegedy et
    al. 2016, "Rethinking the Inception Architecture").
    """

    class_weights: Weights | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def check(self, classes: int) -> None:
        check_one_per_class("class_weights", self.class_weights, classes)

    def _of_two_classes(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        first, second = self.class_weights or (1.0, 1.0)
        truth = self._smoothed(target.to(logits.dtype))
        z = logits[:, 0]
        each = -second * truth * F.logsigmoid(z) - first * (1 - truth) * F.logsigmoid(-z)
        return self._mean(each, target, valid)

    def _smoothed(self, truth: Tensor) -> Tensor:
        """Smooth the truth of two classes, or of one class against the rest."""
        return truth * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _mean(self, each: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Return the mean of weighted values, divided by the weights of the true classes."""
        if self.class_weights is None:
            return masked_mean(each, valid)
        weights = each.new_tensor(self.class_weights)[target]
        return masked_mean(each, valid & (weights > 0), divided_by=weights)


@LOSSES.register("ce")
class CrossEntropy(_Entropy):
    """Mean negative log likelihood of the true class; parameters as in `_Entropy`."""

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return self._of_two_classes(logits, target, valid)
        weights = logits.new_tensor(self.class_weights) if self.class_weights else None
        each = F.cross_entropy(
            logits, target, weights, reduction="none", label_smoothing=self.label_smoothing
        )
        return self._mean(each, target, valid)


@LOSSES.register("bce")
class BinaryCrossEntropy(_Entropy):
    """Mean over channels of the binary cross-entropy, each channel against the rest.

    The weights of several classes apply to the channels; the weights of two classes that share one
    channel apply to pixels, as in cross-entropy.
    """

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return self._of_two_classes(logits, target, valid)
        truth = self._smoothed(one_hot(target, logits))
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        weights = logits.new_tensor(self.class_weights or [1.0] * logits.shape[1])
        shares = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        return masked_mean((each * shares[:, None, None]).sum(dim=1), valid)


@LOSSES.register("focal")
class Focal(Loss):
    """Cross-entropy in which a pixel has the weight (1 - p)^γ by the probability p of its true
    class (Lin et al. 2017, "Focal Loss for Dense Object Detection"); the mean over valid pixels.

    Args:
        gamma: γ; 0 is cross-entropy.
        alpha: Weight of the second of two classes, where the first has 1 - alpha; or one weight per
            class. Default: all 1.
    """

    gamma: Annotated[float, Field(ge=0)] = 2.0
    alpha: Share | Weights | None = None

    def check(self, classes: int) -> None:
        if isinstance(self.alpha, tuple):
            check_one_per_class("alpha", self.alpha, classes)
        elif self.alpha is not None and classes != 2:
            raise ConfigError(
                f"alpha of the loss is {self.alpha} for {classes} classes; a single number needs "
                "two classes.",
                remedy=f"Give a list of {classes} weights.",
            )

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        odds = _log_odds_of_truth(logits, target)
        # (1 - p)^γ as an exponential: the power has no finite gradient at p = 1 if γ < 1.
        each = -F.logsigmoid(odds) * (self.gamma * F.logsigmoid(-odds)).exp()
        if self.alpha is not None:
            alpha = self.alpha if isinstance(self.alpha, tuple) else (1 - self.alpha, self.alpha)
            each = each * each.new_tensor(alpha)[target]
        return masked_mean(each, valid)


@LOSSES.register("focal_dice")
class FocalDice(Loss):
    """`focal + dice`, the unweighted sum of the two.

    Args:
        gamma: γ of the focal loss.
    """

    gamma: Annotated[float, Field(ge=0)] = 2.0

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        focal = Focal(gamma=self.gamma).value(logits, target, valid)
        return focal + Dice().value(logits, target, valid)


def _log_odds_of_truth(logits: Tensor, target: Tensor) -> Tensor:
    """Return (n, y, x) log p / (1 - p) of the probability of the true class."""
    if logits.shape[1] == 1:
        return torch.where(target == 1, logits[:, 0], -logits[:, 0])
    true = target[:, None]
    rest = logits.scatter(1, true, -torch.inf).logsumexp(dim=1)
    return logits.gather(1, true)[:, 0] - rest


class LossSum(Loss):
    """A weighted sum of losses.

    Args:
        terms: Weight and loss of each term.
    """

    terms: tuple[tuple[float, Loss], ...]

    def check(self, classes: int) -> None:
        for _, loss in self.terms:
            loss.check(classes)

    def value(self, logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for weight, loss in self.terms:
            total = total + weight * loss.value(logits, target, valid)
        return total


def parse_loss(text: str) -> LossSum:
    """Parse a weighted sum of registered losses, such as `"ce + 0.4*tversky(alpha=0.3, beta=0.7)"`.

    Raises:
        ConfigError: The text is not such a sum; or a loss or parameter is unknown (the nearest are
            named); or a value has the wrong type or is out of range.
    """
    try:
        # In parentheses a sum may have several lines. Nothing of it is run.
        node = ast.parse(f"({text}\n)", mode="eval").body
        return LossSum(terms=tuple(_terms(node, text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"loss = {text[:_SHOWN]!r} is not a sum of losses: {first_line(error)}.",
            remedy='For example: loss = "0.6*ce + 0.4*tversky(alpha=0.3, beta=0.7)"',
        ) from error


def _terms(node: ast.expr, text: str) -> Iterator[tuple[float, Loss]]:
    """Yield weight and loss of each term; a ValueError names what is not one."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _terms(node.left, text)
        node = node.right
    weight: Any = 1.0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight, node = _value(node.left), node.right
    if not isinstance(weight, float) or not 0 <= weight < math.inf:
        raise ValueError(f"received the weight {weight}, expected a finite number from 0 on")
    settings: dict[str, Any] = {}
    if isinstance(node, ast.Call) and not node.args:
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in settings:
                raise ValueError(
                    f"received {ast.unparse(keyword)!r}, expected each NAME=VALUE once"
                )
            settings[keyword.arg] = _value(keyword.value)
        node = node.func
    if not isinstance(node, ast.Name):
        raise ValueError(f"received {ast.unparse(node)[:_SHOWN]!r}, expected a loss or WEIGHT*LOSS")
    kind = LOSSES[node.id]
    if settings and not kind.model_fields:
        raise ConfigError(
            f"loss = {text!r}: {node.id} takes no parameters, but received {sorted(settings)}.",
            remedy=f"Write {node.id} without parameters.",
        )
    yield weight, parse_config(settings, kind, source=f"loss = {text!r}: {node.id}")


def _value(node: ast.expr) -> float | str | tuple[Any, ...]:
    """Return a number, a name or quoted string, or a list of them."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.List):
        return tuple(_value(element) for element in node.elts)
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1.0, node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return sign * float(value)
    if isinstance(value, str):
        return value
    raise ValueError(
        f"received {ast.unparse(node)[:_SHOWN]!r}, expected a number, a name or a list of them"
    )
