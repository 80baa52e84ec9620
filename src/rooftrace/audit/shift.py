"""Compare the images of two sets in scale, bands, pixel type and nodata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rooftrace.audit.facts import MOST_IDS, Finding, SceneFacts
from rooftrace.audit.scale import ScaleEstimate, ScaleShift
from rooftrace.core.text import plain_number

_LEAST_FLAT = 0.02
"""Share of an image from which unmarked nodata matters."""

_SAME_SCALE = 1.15
"""Factor within which two scales are called the same; every augmentation covers it."""


@dataclass(frozen=True)
class SetForm:
    """Size, bands and resolution of the images of a set.

    Args:
        images: Number of images that could be read.
        height_px, width_px: Median size.
        bands: Numbers of bands, each with its number of images.
        dtypes: Pixel types, each with its number of images.
        gsd_m: Median metres per pixel of the images for which it is known.
    """

    images: int
    height_px: float
    width_px: float
    bands: tuple[tuple[int, int], ...]
    dtypes: tuple[tuple[str, int], ...]
    gsd_m: float | None


@dataclass(frozen=True)
class SetComparison:
    """Two sets side by side: A is the training data, B the images that the model is for.

    Args:
        a, b: Form of the images of each set.
        scale: Scale of B relative to A.
        unmarked: Ids of the images of B with unmarked nodata.
    """

    a: SetForm
    b: SetForm
    scale: ScaleShift
    unmarked: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self) | {"scale": self.scale.to_json()}

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of the columns of `rows` after the name."""
        return "this set", "other set", ""

    @property
    def rows(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Name and cells of the comparison table, one row for each figure."""
        rows = [
            ("images", (f"{self.a.images:,}", f"{self.b.images:,}", "")),
            ("size, median (px)", (_size(self.a), _size(self.b), "")),
            ("bands", (list_names(self.a.bands), list_names(self.b.bands), "")),
            ("pixel values", (list_names(self.a.dtypes), list_names(self.b.dtypes), "")),
            ("metres per pixel", (_metres(self.a.gsd_m), _metres(self.b.gsd_m), "")),
        ]
        rows += [
            (
                f"scale, by {each.method}",
                ("1", format_factor(each), "" if each.sure else "not sure"),
            )
            for each in self.scale.estimates
        ]
        return tuple(rows)


def compare_sets(
    a: Sequence[SceneFacts], b: Sequence[SceneFacts], scale: ScaleShift
) -> SetComparison:
    """Compare the figures of two sets.

    Scenes whose image could not be read or has no valid pixel are left out.

    Args:
        a: Facts of the training data.
        b: Facts of the images that the model is for.
        scale: Result of `estimate_scale`.
    """
    a = [facts for facts in a if not facts.image_error and facts.valid_share > 0]
    b = [facts for facts in b if not facts.image_error and facts.valid_share > 0]
    unmarked = tuple(facts.id for facts in b if facts.flat_share > _LEAST_FLAT)
    return SetComparison(_form(a), _form(b), scale, unmarked)


def _form(facts: Sequence[SceneFacts]) -> SetForm:
    shapes = np.array([f.shape_yx for f in facts], dtype=float).reshape(-1, 2)
    height, width = np.median(shapes, axis=0) if len(shapes) else (0.0, 0.0)
    gsds = [f.gsd_m for f in facts if f.gsd_m is not None]
    return SetForm(
        images=len(facts),
        height_px=float(height),
        width_px=float(width),
        bands=tuple(Counter(f.bands for f in facts).most_common()),
        dtypes=tuple(Counter(f.dtype for f in facts).most_common()),
        gsd_m=float(np.median(gsds)) if gsds else None,
    )


def format_factor(estimate: ScaleEstimate) -> str:
    """Return a factor with its interval: `2.10 (1.80 to 2.45)`."""
    if estimate.high - estimate.low < 0.005 * estimate.factor:
        return f"{estimate.factor:.2f}"
    return f"{estimate.factor:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _size(form: SetForm) -> str:
    return f"{form.height_px:.0f} × {form.width_px:.0f}"


def list_names(counts: Sequence[tuple[object, int]]) -> str:
    """Return the names of counts as text, the commonest first."""
    return ", ".join(str(name) for name, _ in counts) or "none"


def _metres(gsd_m: float | None) -> str:
    return "unknown" if gsd_m is None else plain_number(gsd_m)


def shift_findings(comparison: SetComparison) -> list[Finding]:
    """Return what to know before a model that is trained on set A is used on set B."""
    return [*_form_findings(comparison), *_scale_findings(comparison)]


def _form_findings(comparison: SetComparison) -> list[Finding]:
    a, b = comparison.a, comparison.b
    found = []
    if a.bands and b.bands and {n for n, _ in b.bands} - {n for n, _ in a.bands}:
        found.append(
            Finding(
                "shift.bands",
                "error",
                f"The other images have {list_names(b.bands)} bands, these {list_names(a.bands)}",
                "A model reads a fixed number of bands.",
                "Convert both sets to the same bands before training.",
            )
        )
    if a.dtypes and b.dtypes and {n for n, _ in b.dtypes} - {n for n, _ in a.dtypes}:
        found.append(
            Finding(
                "shift.dtype",
                "warning",
                f"The other images are {list_names(b.dtypes)}, these {list_names(a.dtypes)}",
                "The same ground then has other pixel values than in the training data.",
                "Convert both sets to the same pixel type with the same stretch.",
            )
        )
    if comparison.unmarked:
        found.append(
            Finding(
                "shift.nodata",
                "warning",
                f"Unmarked nodata in {len(comparison.unmarked)} of {b.images} other images",
                "A model would look for buildings there.",
                "Declare the colour as nodata of the other set, such as --against-set "
                "nodata=[255,255,255].",
                comparison.unmarked[:MOST_IDS],
                len(comparison.unmarked),
            )
        )
    return found


def _scale_findings(comparison: SetComparison) -> list[Finding]:
    scale = comparison.scale
    best = scale.best
    if best is None:
        factors = " ".join(f"By {e.method}: {format_factor(e)}." for e in scale.estimates)
        return [
            Finding(
                "shift.scale.unknown",
                "note",
                "The scale of the other images relative to these is unknown",
                " ".join([factors, *(each.detail for each in scale.estimates)]).strip()
                or "Too few images could be read, or they are too small.",
                "Find out the metres per pixel of both sets and set them: gsd_m = ... in "
                "[[data.train]], and --gsd for prediction.",
            )
        ]
    found = []
    if not _is_same(best.factor):
        found.append(
            Finding(
                "shift.scale",
                "warning",
                f"The other images are {_times(best)} than these",
                f"Estimated by {best.method}. {best.detail} A model finds buildings less "
                "reliably if their size in pixels changes.",
                _scale_remedy(comparison, best),
            )
        )
    for other in scale.estimates:
        differs = other.low > best.high * _SAME_SCALE or other.high < best.low / _SAME_SCALE
        if other.sure and differs:
            found.append(
                Finding(
                    "shift.scale.contradiction",
                    "warning",
                    f"Two estimates of the scale contradict each other: {format_factor(best)} by "
                    f"{best.method}, {format_factor(other)} by {other.method}",
                    other.detail,
                    "Check the metres per pixel of both sets, in their files and in the "
                    "configuration, and check that both show the same kind of place.",
                )
            )
    return found


def _is_same(factor: float) -> bool:
    return 1 / _SAME_SCALE <= factor <= _SAME_SCALE


def _scale_remedy(comparison: SetComparison, best: ScaleEstimate) -> str:
    """Return TOML lines, in metres if they are known, otherwise as a range of scales."""
    gsd_a = comparison.scale.gsd_a_m
    if gsd_a is not None:
        gsd_b = comparison.scale.gsd_b_m or gsd_a * best.factor
        coarse = max(gsd_a, gsd_b)
        given = f" Predict with --gsd {plain_number(gsd_b, 2)}."
        predict = "" if comparison.scale.gsd_b_m else given
        finest_m, coarsest_m = (plain_number(one, 2) for one in (coarse / 1.25, coarse * 1.25))
        return (
            "Train at the coarser scale; finer images are resampled to it: "
            f"gsd_m = {plain_number(coarse, 2)}; "
            f"[augment] gsd_range_m = [{finest_m}, {coarsest_m}].{predict}"
        )
    low, high = best.low / 1.1, best.high * 1.1
    finer = "" if best.factor > 1 else " Enlarging adds no detail; finer images would be better."
    return (
        f"Train on samples that cover {best.factor:.2g} times the length along each side: "
        f"[augment] scale_range = [{low:.2g}, {high:.2g}]; "
        f"crop_px = {_crop_px(comparison, high)}.{finer}"
    )


def _crop_px(comparison: SetComparison, largest_factor: float) -> int:
    """Return the largest usual crop that images of A still fill at the coarsest scale drawn."""
    side = min(comparison.a.height_px, comparison.a.width_px) / max(largest_factor, 1.0)
    return int(np.clip(side // 32 * 32, 64, 512))


def _times(estimate: ScaleEstimate) -> str:
    """Return a factor in words: `2.1 times coarser (1.8 to 2.5)`."""
    factor, low, high = estimate.factor, estimate.low, estimate.high
    word = "coarser"
    if factor < 1:
        factor, low, high, word = 1 / factor, 1 / high, 1 / low, "finer"
    spread = f" ({low:.1f} to {high:.1f})" if f"{low:.1f}" != f"{high:.1f}" else ""
    return f"{factor:.1f} times {word}{spread}"
