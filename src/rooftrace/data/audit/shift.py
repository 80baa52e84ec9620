"""In what the images of two sets differ, and what to train with so that it does not matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rooftrace.data.audit.comparison import (
    Comparison,
    FeatureShift,
    compare,
    listed,
    said_factor,
)
from rooftrace.data.audit.facts import MOST_IDS, Finding
from rooftrace.data.audit.scale import ScaleEstimate

__all__ = ["Comparison", "compare", "shift_findings"]

_SAME_SCALE = 1.15
"""Within this factor two scales are called the same: every augmentation covers it."""

_WARN_OUTSIDE = 0.1
"""From this share of images outside the range of the other set a shift is a warning."""

_CLASS_SHIFT = 0.1


def shift_findings(comparison: Comparison) -> list[Finding]:
    """What a person should know before a model of set A is used on set B."""
    found = [*_form_findings(comparison), *_scale_findings(comparison)]
    found += [
        _feature_finding(feature, comparison)
        for feature in comparison.features
        if feature.is_clear and feature.name in _REMEDIES
    ]
    shift = comparison.class_shift
    if shift is not None and shift >= _CLASS_SHIFT:
        ours, theirs = (
            " / ".join(f"{share:.1%}" for share in form.class_shares)
            for form in (comparison.a, comparison.b)
        )
        found.append(
            Finding(
                "shift.classes",
                "note",
                f"The classes are balanced differently, by {shift:.0%} of the pixels",
                f"From {ours} to {theirs}. Probabilities are calibrated for the share of buildings "
                "in training.",
                "Choose the threshold on images like those that the model is for.",
            )
        )
    return found


def _form_findings(comparison: Comparison) -> list[Finding]:
    a, b = comparison.a, comparison.b
    found = []
    if a.bands and b.bands and {n for n, _ in b.bands} - {n for n, _ in a.bands}:
        found.append(
            Finding(
                "shift.bands",
                "error",
                f"The other images have {listed(b.bands)} bands, these have {listed(a.bands)}",
                "A model takes images of one number of bands.",
                "Bring both sets to the same bands before training.",
            )
        )
    if a.dtypes and b.dtypes and {n for n, _ in b.dtypes} - {n for n, _ in a.dtypes}:
        found.append(
            Finding(
                "shift.dtype",
                "warning",
                f"The other images hold {listed(b.dtypes)} values, these {listed(a.dtypes)}",
                "The same ground then has other pixel values, and a model knows those alone that "
                "it was trained on.",
                "Convert both sets with the same stretch to the same dtype.",
            )
        )
    if comparison.unmarked:
        found.append(
            Finding(
                "shift.nodata",
                "warning",
                f"{len(comparison.unmarked)} of {b.images} other images have nodata that nothing "
                "marks",
                "A model would look for buildings there. They are left out of the comparison of "
                "colours.",
                "Say the colour where the set is read: nodata = [255, 255, 255].",
                comparison.unmarked[:MOST_IDS],
                len(comparison.unmarked),
            )
        )
    return found


def _scale_findings(comparison: Comparison) -> list[Finding]:
    scale = comparison.scale
    best = scale.best
    if best is None:
        told = " ".join(f"By {each.method}: {said_factor(each)}." for each in scale.estimates)
        return [
            Finding(
                "shift.scale.unknown",
                "note",
                "Whether the other images have the same scale cannot be told from what is there",
                " ".join([told, *(each.detail for each in scale.estimates)]).strip()
                or "Too few images could be read, or they are too small.",
                "Find out the metres per pixel of both sets and say them: gsd_m = ... in "
                "[[data.train]], --gsd on prediction.",
            )
        ]
    found = []
    if not _is_same(best.factor):
        found.append(
            Finding(
                "shift.scale",
                "warning",
                f"The other images are {_times(best)} than these",
                f"By {best.method}. {best.detail} Method: {best.source}.",
                _scale_remedy(comparison, best),
            )
        )
    for other in scale.estimates:
        apart = other.low > best.high * _SAME_SCALE or other.high < best.low / _SAME_SCALE
        if other.sure and apart:
            found.append(
                Finding(
                    "shift.scale.contradiction",
                    "warning",
                    f"By {best.method} the scales differ by {said_factor(best)}, but by "
                    f"{other.method} {said_factor(other)}",
                    other.detail,
                    "Check the metres per pixel that are said or stored, and that both sets show "
                    "the same kind of place.",
                )
            )
    return found


def _is_same(factor: float) -> bool:
    return 1 / _SAME_SCALE <= factor <= _SAME_SCALE


def _scale_remedy(comparison: Comparison, best: ScaleEstimate) -> str:
    """TOML lines: in metres where they are known, else as the share of ground that is shown."""
    gsd_a = comparison.scale.gsd_a_m
    if gsd_a is not None:
        gsd_b = comparison.scale.gsd_b_m or gsd_a * best.factor
        coarse = max(gsd_a, gsd_b)
        said = "" if comparison.scale.gsd_b_m else f" Predict with --gsd {gsd_b:.2g}."
        return (
            f"Train at the coarser scale, to which finer images are brought: gsd_m = {coarse:.2g}; "
            f"[augment] gsd_range_m = [{coarse / 1.25:.2g}, {coarse * 1.25:.2g}].{said}"
        )
    low, high = best.low / 1.1, best.high * 1.1
    finer = "" if best.factor > 1 else " Enlarging invents no detail; finer images would be better."
    return (
        f"Train on samples that show {best.factor:.2g} times the ground along each side: [augment] "
        f"scale_range = [{low:.2g}, {high:.2g}]; crop_px = {_crop_px(comparison, high)}.{finer}"
    )


def _crop_px(comparison: Comparison, largest_factor: float) -> int:
    """The largest usual crop that images of A still fill at the coarsest scale drawn."""
    side = min(comparison.a.height_px, comparison.a.width_px) / max(largest_factor, 1.0)
    return int(np.clip(side // 32 * 32, 64, 512))


def _feature_finding(feature: FeatureShift, comparison: Comparison) -> Finding:
    title, remedy = _REMEDIES[feature.name](feature)
    share = feature.outside / feature.compared
    effect = "" if feature.effect is None else f", {abs(feature.effect):.1f} standard deviations"
    detail = (
        f"Median {feature.median_b:.3g} against {feature.median_a:.3g}{effect}; the distributions "
        f"overlap by {1 - feature.ks:.0%} (one minus the Kolmogorov-Smirnov distance). "
        f"{feature.outside} of {feature.compared} images lie outside of what 98 % of these "
        f"show ({feature.low_a:.3g} to {feature.high_a:.3g})."
    )
    best = comparison.scale.best
    if feature.name == "sharpness" and best is not None and not _is_same(best.factor):
        detail += " Some of it comes from the other scale."
    return Finding(
        f"shift.{feature.name}",
        "warning" if share >= _WARN_OUTSIDE else "note",
        title,
        detail,
        remedy,
        feature.ids,
        feature.outside,
    )


def _brightness(feature: FeatureShift) -> tuple[str, str]:
    shift = feature.median_b - feature.median_a
    word = "brighter" if shift > 0 else "darker"
    limit = min(1.0, max(0.1, 1.5 * abs(shift)))
    return (
        f"The other images are {word} by {abs(shift):.0%} of the full scale",
        f"[augment] brightness = {limit:.2f}",
    )


def _contrast(feature: FeatureShift) -> tuple[str, str]:
    return _ratio(feature, "contrast", "contrast")


def _saturation(feature: FeatureShift) -> tuple[str, str]:
    if feature.median_b < 0.005 < feature.median_a:
        return "The other images have no colour", "[augment] grey = 0.5"
    if feature.median_a < 0.005 < feature.median_b:
        return "The other images are in colour, these are not", "Convert them to grey."
    title, remedy = _ratio(feature, "colour", "saturation")
    return title, f"{remedy}; grey = 0.15" if feature.median_b < feature.median_a else remedy


def _sharpness(feature: FeatureShift) -> tuple[str, str]:
    title, _ = _ratio(feature, "sharpness", "blur")
    if feature.median_b < feature.median_a:
        return title, "[augment] blur = 0.5; blur_sigma_px = 2.0; coarsen = 0.3"
    remedy = (
        "No augmentation invents detail: add some sharp images to the training set, or allow for "
        "noise and sharpening with [augment] noise = 0.05; jpeg = 0.2"
    )
    return title, remedy


def _ratio(feature: FeatureShift, what: str, key: str) -> tuple[str, str]:
    ratio = max(feature.median_b, 1e-6) / max(feature.median_a, 1e-6)
    word = "more" if ratio > 1 else "less"
    times = max(ratio, 1 / ratio)
    limit = min(4.0, max(1.2, times * 1.2))
    return (
        f"The other images have {word} {what}, by a factor of {times:.1f}",
        f"[augment] {key} = {limit:.1f}",
    )


_REMEDIES: dict[str, Callable[[FeatureShift], tuple[str, str]]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
}


def _times(estimate: ScaleEstimate) -> str:
    """`2.1 times coarser (1.8 to 2.5)`."""
    factor, low, high = estimate.factor, estimate.low, estimate.high
    word = "coarser"
    if factor < 1:
        factor, low, high, word = 1 / factor, 1 / high, 1 / low, "finer"
    spread = f" ({low:.1f} to {high:.1f})" if f"{low:.1f}" != f"{high:.1f}" else ""
    return f"{factor:.1f} times {word}{spread}"
