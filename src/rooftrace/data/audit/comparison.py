"""Two sets side by side: what their images look like, as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.audit.facts import MOST_IDS, SceneFacts
from rooftrace.data.audit.scale import ScaleEstimate, ScaleShift

__all__ = [
    "Comparison",
    "FeatureShift",
    "SetForm",
    "compare",
    "ks_distance",
    "listed",
    "said_factor",
]

_LEAST_KS = 0.3
_CLEAR_EFFECT = 0.5
"""What Cohen 1988 calls a medium effect; with the distance above it makes a finding."""

_LEAST_FLAT = 0.02
"""Share of an image from which nodata that nothing marks bends its figures."""


@dataclass(frozen=True)
class SetForm:
    """What the files of a set are, each with the number of images.

    Args:
        images: that could be read.
        height_px, width_px: median.
        bands, dtypes: how many images have how many bands, which dtype.
        gsd_m: median metres per pixel of the images that know it.
        class_shares: of all pixels that labels know; empty without labels.
    """

    images: int
    height_px: float
    width_px: float
    bands: tuple[tuple[int, int], ...]
    dtypes: tuple[tuple[str, int], ...]
    gsd_m: float | None
    class_shares: tuple[float, ...]


@dataclass(frozen=True)
class FeatureShift:
    """How one figure of images differs between two sets.

    Args:
        name: of the field of `SceneFacts`; `band 1` and so on for its mean.
        median_a, median_b: of the images of each set.
        low_a, high_a: 1 and 99 % of the first set.
        effect: difference of the means, B minus A, in standard deviations pooled over both sets
            (Cohen 1988); None where both are constant.
        ks: two-sample Kolmogorov-Smirnov distance, 0 for the same distribution, 1 where the two
            do not overlap (Smirnov 1948, Annals of Mathematical Statistics 19).
        chance: the distance that two samples of one distribution reach in one of twenty cases.
        outside: how many images of B lie outside of `low_a`..`high_a`.
        compared: of so many.
        ids: of those, the farthest first; at most `MOST_IDS`.
    """

    name: str
    median_a: float
    median_b: float
    low_a: float
    high_a: float
    effect: float | None
    ks: float
    chance: float
    outside: int
    compared: int
    ids: tuple[str, ...]

    @property
    def is_clear(self) -> bool:
        """Whether the shift is larger than chance, and large enough to matter."""
        if self.effect is None:
            # Two constants, such as the saturation of grey images: they differ wholly or not.
            return self.ks > max(_LEAST_KS, self.chance)
        return self.ks > max(_LEAST_KS, self.chance) and abs(self.effect) >= _CLEAR_EFFECT


@dataclass(frozen=True)
class Comparison:
    """Two sets side by side: A is what is trained on, B what the model is for.

    Args:
        a, b: what their files are.
        features: brightness, contrast, saturation, sharpness, and the mean of each band that both
            have; of the images without unmarked nodata.
        scale: of B against A.
        unmarked: images of B that have nodata which nothing marks.
    """

    a: SetForm
    b: SetForm
    features: tuple[FeatureShift, ...]
    scale: ScaleShift
    unmarked: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"scale": self.scale.to_json()}

    @property
    def class_shift(self) -> float | None:
        """Half the sum of differences of class shares (total variation): 0..1.

        None where a set has no labels, or they have different numbers of classes.
        """
        a, b = self.a.class_shares, self.b.class_shares
        if not a or len(a) != len(b):
            return None
        return float(np.abs(np.subtract(a, b)).sum() / 2)

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of what `rows` hold after their names."""
        return "this set", "the other", "overlap", "outside"

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, cells) as people read them, one row a figure."""
        rows = [
            ("images", (f"{self.a.images:,}", f"{self.b.images:,}", "", "")),
            ("size, median (px)", (_size(self.a), _size(self.b), "", "")),
            ("bands", (listed(self.a.bands), listed(self.b.bands), "", "")),
            ("pixel values", (listed(self.a.dtypes), listed(self.b.dtypes), "", "")),
            ("metres per pixel", (_metres(self.a.gsd_m), _metres(self.b.gsd_m), "", "")),
        ]
        rows += [
            (
                f"scale, by {each.method}",
                ("1", said_factor(each), "", "" if each.sure else "not sure"),
            )
            for each in self.scale.estimates
        ]
        rows += [
            (
                feature.name,
                (
                    f"{feature.median_a:.3g}",
                    f"{feature.median_b:.3g}",
                    f"{1 - feature.ks:.0%}",
                    f"{feature.outside:,}",
                ),
            )
            for feature in self.features
        ]
        if self.class_shift is not None:
            rows += [
                (f"share of class {number}", (f"{one:.1%}", f"{other:.1%}", "", ""))
                for number, (one, other) in enumerate(zip(self.a.class_shares, self.b.class_shares))
            ]
        return tuple(rows)


def compare(a: Sequence[SceneFacts], b: Sequence[SceneFacts], scale: ScaleShift) -> Comparison:
    """Hold the figures of two sets against each other.

    Args:
        a: of what is trained on.
        b: of what the model is for.
        scale: see `estimate_scale`.

    Scenes whose image could not be read, or has no valid pixel, are left out.
    """
    a = [facts for facts in a if not facts.image_error and facts.valid_share > 0]
    b = [facts for facts in b if not facts.image_error and facts.valid_share > 0]
    features = []
    forms = _form(a), _form(b)
    unmarked = tuple(facts.id for facts in b if facts.flat_share > _LEAST_FLAT)
    # Brightness and contrast of white fill would be taken for those of the ground.
    a, b = ([f for f in each if f.flat_share <= _LEAST_FLAT] for each in (a, b))
    if a and b:
        read: dict[str, Callable[[SceneFacts], float]] = {
            "brightness": lambda facts: facts.brightness,
            "contrast": lambda facts: facts.contrast,
            "saturation": lambda facts: facts.saturation,
            "sharpness": lambda facts: facts.sharpness,
        }
        features = [_feature(name, of, a, b) for name, of in read.items()]
        bands = {len(facts.mean) for facts in (*a, *b)}
        if len(bands) == 1:
            features += [
                _feature(f"band {band + 1}", lambda facts, band=band: facts.mean[band], a, b)  # type: ignore[misc]
                for band in range(bands.pop())
            ]
    return Comparison(*forms, tuple(features), scale, unmarked)


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Two-sample Kolmogorov-Smirnov distance: the largest gap between the cumulative shares.

    Args:
        a, b: (n,) and (m,) values, at least one each.
    """
    values = np.concatenate([a, b])
    below_a = np.searchsorted(np.sort(a), values, side="right") / len(a)
    below_b = np.searchsorted(np.sort(b), values, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def _feature(
    name: str,
    of: Callable[[SceneFacts], float],
    a: Sequence[SceneFacts],
    b: Sequence[SceneFacts],
) -> FeatureShift:
    one, other = (np.array([of(facts) for facts in each], dtype=float) for each in (a, b))
    low, high = np.quantile(one, [0.01, 0.99])
    away = np.maximum(low - other, other - high)
    order = [index for index in np.argsort(-away, kind="stable") if away[index] > 0]
    pooled = float(np.sqrt((one.var() + other.var()) / 2))
    return FeatureShift(
        name=name,
        median_a=float(np.median(one)),
        median_b=float(np.median(other)),
        low_a=float(low),
        high_a=float(high),
        effect=float((other.mean() - one.mean()) / pooled) if pooled > 0 else None,
        ks=ks_distance(one, other),
        # The asymptotic 5 % point.
        chance=float(1.358 * np.sqrt((len(one) + len(other)) / (len(one) * len(other)))),
        outside=len(order),
        compared=len(other),
        ids=tuple(b[index].id for index in order[:MOST_IDS]),
    )


def _form(facts: Sequence[SceneFacts]) -> SetForm:
    shapes = np.array([f.shape_yx for f in facts], dtype=float).reshape(-1, 2)
    height, width = np.median(shapes, axis=0) if len(shapes) else (0.0, 0.0)
    gsds = [f.gsd_m for f in facts if f.gsd_m is not None]
    labels = [f.label.class_px for f in facts if f.label is not None]
    shares: tuple[float, ...] = ()
    if labels and (total := sum(map(sum, labels))):
        shares = tuple(float(px) / total for px in np.sum(labels, axis=0))
    return SetForm(
        images=len(facts),
        height_px=float(height),
        width_px=float(width),
        bands=tuple(Counter(f.bands for f in facts).most_common()),
        dtypes=tuple(Counter(f.dtype for f in facts).most_common()),
        gsd_m=float(np.median(gsds)) if gsds else None,
        class_shares=shares,
    )


def said_factor(estimate: ScaleEstimate) -> str:
    """`2.10 (1.80 to 2.45)`."""
    if estimate.high - estimate.low < 0.005 * estimate.factor:
        return f"{estimate.factor:.2f}"
    return f"{estimate.factor:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _size(form: SetForm) -> str:
    return f"{form.height_px:.0f} × {form.width_px:.0f}"


def listed(counts: Sequence[tuple[object, int]]) -> str:
    """The names of counts, the commonest first, for people."""
    return ", ".join(str(name) for name, _ in counts) or "none"


def _metres(gsd_m: float | None) -> str:
    return "unknown" if gsd_m is None else f"{gsd_m:.3g}"
