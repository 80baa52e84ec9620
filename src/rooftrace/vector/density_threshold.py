"""Sparse or dense: a threshold on the built-up share, given or fitted on labelled examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rooftrace.core.config import Config, parse_config
from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.io.atomic import write_atomically

__all__ = [
    "DEFAULT_THRESHOLD",
    "DensityThreshold",
    "ThresholdFit",
    "balanced_accuracy",
    "fit_threshold",
    "read_threshold",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Share = Annotated[float, Field(ge=0, le=1)]

_FEWEST = 10
"""Examples of a class, with fewer of which a fit says little."""

_RESAMPLES = 1000
_LEVEL = 0.95


class ThresholdFit(Config):
    """How well a fitted threshold tells its examples apart.

    Args:
        threshold_interval: of the threshold, 95 %, by the bootstrap: examples drawn anew from each
            class, and the threshold fitted again (Efron & Tibshirani 1993, percentiles).
        balanced_accuracy: the mean of the two classes' shares that are called right, on the
            examples themselves (Brodersen et al. 2010).
        balanced_accuracy_interval: 95 %, of the fitted threshold on examples drawn anew.
        leave_one_out: the balanced accuracy where each example is called by a threshold that was
            fitted without it: what is to be expected of further images.
        sparse_as_sparse, sparse_as_dense, dense_as_sparse, dense_as_dense: how many examples of
            each class are called what.
    """

    threshold_interval: tuple[Share, Share]
    balanced_accuracy: Share
    balanced_accuracy_interval: tuple[Share, Share]
    leave_one_out: Share
    sparse_as_sparse: int
    sparse_as_dense: int
    dense_as_sparse: int
    dense_as_dense: int


class DensityThreshold(Config):
    """Where dense begins.

    Args:
        threshold: a built-up share of at least this is dense.
        sparse, dense: what the two are called.
        fit: how it was found; None where it was given.
    """

    threshold: Share
    sparse: str = "sparse"
    dense: str = "dense"
    fit: ThresholdFit | None = None

    def classes(self, share: Floats) -> NDArray[np.object_]:
        """The class of each share; None where that is NaN."""
        known = np.where(share >= self.threshold, self.dense, self.sparse).astype(np.object_)
        known[np.isnan(share)] = None
        return known

    def write(self, path: Path) -> None:
        """Writes what `read_threshold` reads."""
        write_atomically(path, (json.dumps(self.model_dump(), indent=1) + "\n").encode())


DEFAULT_THRESHOLD = DensityThreshold(threshold=0.2)
"""The upper end of "sparsely built" among the local climate zones, whose building surface fraction
is 10 to 20 % there and at least 20 % in all that is built more densely (Stewart & Oke 2012, Bull.
Amer. Meteor. Soc. 93, table 3)."""


def read_threshold(path: Path) -> DensityThreshold:
    """The threshold that a fit has written.

    Raises:
        ConfigError: the file cannot be read, or is something else.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The threshold {path} cannot be read: {error}.",
            remedy="Give a share from 0 to 1, or the JSON that density --fit has written.",
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"The threshold {path} holds {type(raw).__name__}; a JSON object was expected.",
            remedy="Give a share from 0 to 1, or the JSON that density --fit has written.",
        )
    return parse_config(raw, DensityThreshold, source=str(path))


def balanced_accuracy(dense: Bools, called: Bools) -> float:
    """The mean of the shares of the dense and of the sparse that are called so.

    Args:
        dense: (n,) what they are; both kinds occur.
        called: (n,) what they are called.
    """
    return float(np.mean([called[dense].mean(), (~called)[~dense].mean()]))


def fit_threshold(
    shares: Floats, dense: Bools, *, sparse_name: str = "sparse", dense_name: str = "dense",
    seed: int = 0,
) -> tuple[DensityThreshold, tuple[str, ...]]:  # fmt: skip
    """The threshold of the best balanced accuracy.

    Where several are equally good, it lies in the middle of the widest gap between two examples.

    Args:
        shares: (n,) built-up shares, 0..1.
        dense: (n,) whether each is dense; at least two of either kind.
        seed: of the bootstrap.

    Returns:
        The threshold, and what a person should know of it.

    Raises:
        LabelError: fewer than two of a kind.
    """
    counts = {dense_name: int(dense.sum()), sparse_name: int((~dense).sum())}
    for name, count in counts.items():
        if count < 2:
            raise LabelError(
                f"{count} example{'s are' if count != 1 else ' is'} labelled {name!r}; a "
                "threshold is fitted on two or more of each class.",
                remedy=f"Label more images; from {_FEWEST} of each on a fit says something.",
            )
    threshold = _best(shares, dense)
    called = shares >= threshold
    thresholds, accuracies = _resampled(shares, dense, threshold, seed)
    one_out = np.array(
        [_best(np.delete(shares, i), np.delete(dense, i)) for i in range(len(shares))]
    )
    fit = ThresholdFit(
        threshold_interval=_interval(thresholds),
        balanced_accuracy=balanced_accuracy(dense, called),
        balanced_accuracy_interval=_interval(accuracies),
        leave_one_out=balanced_accuracy(dense, shares >= one_out),
        sparse_as_sparse=int((~dense & ~called).sum()),
        sparse_as_dense=int((~dense & called).sum()),
        dense_as_sparse=int((dense & ~called).sum()),
        dense_as_dense=int((dense & called).sum()),
    )
    notes = [
        f"only {count} examples are labelled {name!r}: with fewer than {_FEWEST} the threshold is "
        "not to be relied on"
        for name, count in counts.items()
        if count < _FEWEST
    ]
    least, most = float(shares[dense].min()), float(shares[~dense].max())
    if least <= most:
        between = int(((shares >= least) & (shares <= most)).sum())
        notes.append(
            f"the classes overlap: the least share of {dense_name!r} is {least:.1%}, the largest "
            f"of {sparse_name!r} is {most:.1%}, and {between} of {len(shares)} examples lie from "
            "one to the other"
        )
    found = DensityThreshold(threshold=threshold, sparse=sparse_name, dense=dense_name, fit=fit)
    return found, tuple(notes)


def _best(shares: Floats, dense: Bools) -> float:
    """The middle of the widest of the gaps between shares in which the accuracy is best."""
    at, place = np.unique(shares, return_inverse=True)
    dense_at = np.bincount(place, dense, minlength=len(at))
    sparse_at = np.bincount(place, ~dense, minlength=len(at))
    # In gap k, those from k on are called dense; the first calls all of them so, the last none.
    right_dense = dense_at.sum() - np.concatenate([[0], np.cumsum(dense_at)])
    right_sparse = np.concatenate([[0], np.cumsum(sparse_at)])
    # As whole numbers, so that what is equally good is equal.
    score = right_dense * sparse_at.sum() + right_sparse * dense_at.sum()
    edges = np.concatenate([[0.0], at, [1.0]])
    width = np.where(score == score.max(), np.diff(edges), -1.0)
    gap = int(width.argmax())
    middle = float((edges[gap] + edges[gap + 1]) / 2)
    # The middle of two neighbouring numbers may be the lower one, which then were dense.
    return max(middle, float(np.nextafter(edges[gap], 1.0))) if 0 < gap < len(at) else middle


def _resampled(shares: Floats, dense: Bools, threshold: float, seed: int) -> tuple[Floats, Floats]:
    """Thresholds, and accuracies of the one threshold, on examples drawn anew from each class."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(dense), np.flatnonzero(~dense)]
    thresholds, accuracies = np.empty(_RESAMPLES), np.empty(_RESAMPLES)
    for turn in range(_RESAMPLES):
        drawn = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        thresholds[turn] = _best(shares[drawn], dense[drawn])
        accuracies[turn] = balanced_accuracy(dense[drawn], shares[drawn] >= threshold)
    return thresholds, accuracies


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
