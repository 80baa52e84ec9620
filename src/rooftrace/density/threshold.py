"""The threshold between sparse and dense built-up shares, given or fitted on labelled examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rooftrace.core.config import Config, parse_config
from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.core.text import json_kind, reason_of
from rooftrace.core.types import BoolArray, Floats
from rooftrace.io.files import write_json

Share = Annotated[float, Field(ge=0, le=1)]

_MIN_EXAMPLES = 10
"""Number of examples of each class below which a fit is unreliable."""

_RESAMPLES = 1000
_LEVEL = 0.95


class ThresholdFit(Config):
    """Quality of a fitted threshold on its examples.

    Args:
        threshold_interval: 95 % interval of the threshold by the bootstrap: examples are resampled
            within each class and the threshold is fitted again (Efron & Tibshirani 1993,
            percentiles).
        balanced_accuracy: Mean of the two classes' shares that are classified correctly, on the
            examples themselves (Brodersen et al. 2010).
        balanced_accuracy_interval: 95 % interval of the fitted threshold's accuracy on resampled
            examples.
        leave_one_out: Balanced accuracy where each example is classified by a threshold that was
            fitted without it: the accuracy to expect on further images.
        sparse_as_sparse, sparse_as_dense, dense_as_sparse, dense_as_dense: Number of examples by
            true class and assigned class.
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
    """The built-up share at which dense begins.

    Args:
        threshold: Smallest built-up share that is dense.
        sparse, dense: Names of the two classes.
        fit: Quality of the fit; None where the threshold was given.
    """

    threshold: Share
    sparse: str = "sparse"
    dense: str = "dense"
    fit: ThresholdFit | None = None

    def classes(self, share: Floats) -> NDArray[np.object_]:
        """Return the class of each share; None where the share is NaN."""
        known = np.where(share >= self.threshold, self.dense, self.sparse).astype(np.object_)
        known[np.isnan(share)] = None
        return known

    def write(self, path: Path) -> None:
        """Write a file that `read_threshold` reads."""
        write_json(path, self.model_dump())


DEFAULT_THRESHOLD = DensityThreshold(threshold=0.2)
"""Upper end of "sparsely built" among the local climate zones. The building surface fraction is 10
to 20 % there, and at least 20 % in all zones that are built more densely (Stewart & Oke 2012,
Bull. Amer. Meteor. Soc. 93, table 3).
"""


def read_threshold(path: Path) -> DensityThreshold:
    """Return the threshold that a fit has written.

    Raises:
        ConfigError: The file cannot be read or has other contents.
    """
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The threshold {path} cannot be read: {reason_of(error)}.",
            remedy="Give a share from 0 to 1, or the JSON that density --fit has written.",
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"The threshold {path} holds {json_kind(raw)}; a JSON object was expected.",
            remedy="Give a share from 0 to 1, or the JSON that density --fit has written.",
        )
    return parse_config(raw, DensityThreshold, source=str(path))


def balanced_accuracy(dense: BoolArray, called: BoolArray) -> float:
    """Return the mean of the shares of dense and of sparse examples that are classified correctly.

    Args:
        dense: (n,) True for dense examples; both classes occur.
        called: (n,) True for examples classified as dense.
    """
    return float(np.mean([called[dense].mean(), (~called)[~dense].mean()]))


def fit_threshold(
    shares: Floats, dense: BoolArray, *, sparse_name: str = "sparse", dense_name: str = "dense",
    seed: int = 0,
) -> tuple[DensityThreshold, tuple[str, ...]]:  # fmt: skip
    """Return the threshold with the best balanced accuracy.

    Where several thresholds are equally good, it is the middle of the widest gap between two
    examples.

    Args:
        shares: (n,) built-up shares, 0..1.
        dense: (n,) True for dense examples; at least two of each class.
        sparse_name, dense_name: Names of the two classes.
        seed: Seed of the bootstrap.

    Returns:
        The threshold, and notes for the user.

    Raises:
        LabelError: A class has fewer than two examples.
    """
    counts = {dense_name: int(dense.sum()), sparse_name: int((~dense).sum())}
    for name, count in counts.items():
        if count < 2:
            raise LabelError(
                f"{count} example{'s are' if count != 1 else ' is'} labelled {name!r}; a "
                "threshold needs two or more of each class.",
                remedy=f"Label more images; a reliable fit needs {_MIN_EXAMPLES} of each class.",
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
        f"only {count} examples are labelled {name!r}: with fewer than {_MIN_EXAMPLES} the "
        "threshold is unreliable"
        for name, count in counts.items()
        if count < _MIN_EXAMPLES
    ]
    least, most = float(shares[dense].min()), float(shares[~dense].max())
    if least <= most:
        between = int(((shares >= least) & (shares <= most)).sum())
        notes.append(
            f"the classes overlap: the smallest share of {dense_name!r} is {least:.1%}, the "
            f"largest of {sparse_name!r} is {most:.1%}, and {between} of {len(shares)} examples "
            "lie between them"
        )
    found = DensityThreshold(threshold=threshold, sparse=sparse_name, dense=dense_name, fit=fit)
    return found, tuple(notes)


def _best(shares: Floats, dense: BoolArray) -> float:
    """Return the middle of the widest gap between shares among those with the best accuracy."""
    at, place = np.unique(shares, return_inverse=True)
    dense_at = np.bincount(place, dense, minlength=len(at))
    sparse_at = np.bincount(place, ~dense, minlength=len(at))
    # A threshold in gap k calls the examples from k on dense: in the first gap all, in the last
    # none.
    right_dense = dense_at.sum() - np.concatenate([[0], np.cumsum(dense_at)])
    right_sparse = np.concatenate([[0], np.cumsum(sparse_at)])
    # Scores are integers, so that equally good thresholds compare equal.
    score = right_dense * sparse_at.sum() + right_sparse * dense_at.sum()
    edges = np.concatenate([[0.0], at, [1.0]])
    width = np.where(score == score.max(), np.diff(edges), -1.0)
    gap = int(width.argmax())
    middle = float((edges[gap] + edges[gap + 1]) / 2)
    # The middle of two adjacent floating-point numbers may be the lower one, which would then be
    # dense.
    return max(middle, float(np.nextafter(edges[gap], 1.0))) if 0 < gap < len(at) else middle


def _resampled(
    shares: Floats, dense: BoolArray, threshold: float, seed: int
) -> tuple[Floats, Floats]:
    """Return thresholds fitted on resampled examples, and the accuracies of the one threshold on
    them.
    """
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
