"""The figures of a whole set, from those of its scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rooftrace.data.audit.facts import SceneFacts

__all__ = ["FilterRow", "Histogram", "Summary", "summarise"]

LOW_SHARE = 0.01
"""At or below this built-up share an image is called nearly empty."""

FILTERS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Least built-up shares for which the table says what would be kept."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHARE_BINS = np.linspace(0, 1, 41)


@dataclass(frozen=True)
class Histogram:
    """Counts between edges: `counts[i]` of `edges[i] <= value < edges[i + 1]`, the last closed."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: ArrayLike, edges: ArrayLike) -> Histogram:
        counts, used = np.histogram(np.asarray(values, dtype=float), np.asarray(edges, dtype=float))
        return cls(tuple(used.tolist()), tuple(counts.tolist()))


@dataclass(frozen=True)
class Spread:
    """A distribution in seven figures; None where there is nothing to describe.

    Args:
        quantiles: at 5, 25, 50, 75 and 95 %.
    """

    count: int
    mean: float
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, values: ArrayLike) -> Spread | None:
        known = np.asarray(values, dtype=float)
        if not known.size:
            return None
        quantiles = np.quantile(known, _QUANTILES)
        return cls(int(known.size), float(known.mean()), tuple(quantiles.tolist()))

    @property
    def median(self) -> float:
        return self.quantiles[2]


@dataclass(frozen=True)
class FilterRow:
    """What a filter by built-up share keeps.

    Args:
        least: `min_built_up`.
        images: how many stay, `images_share` of the labelled ones.
        building_share: of all building pixels, those in the images that stay.
        mean_built_up: of the images that stay; None where none does.
    """

    least: float
    images: int
    images_share: float
    building_share: float
    mean_built_up: float | None


@dataclass(frozen=True)
class Summary:
    """A set in figures.

    Args:
        images: that were looked at; `unreadable` of them could not be read.
        labelled: with a label that could be read; `unreadable_labels` have one that could not.
        pixels: of all images; `valid_share` of them are not nodata.
        sizes: (rows, columns, images), the commonest first; likewise `kinds` as (text, images):
            bands, dtype and file format.
        gsd_m: of the images that have one.
        built_up: share of the building class per labelled image.
        low_share: of the labelled images, those at or below `LOW_SHARE`; `empty` hold no building.
        class_share: of the labelled pixels, per class.
        buildings: of all images; `cut` of them touch an edge.
        per_image: buildings.
        size_px, size_m2: area of a building; m² where metres are known.
    """

    images: int
    unreadable: int
    labelled: int
    unreadable_labels: int
    pixels: int
    valid_share: float
    sizes: tuple[tuple[int, int, int], ...]
    kinds: tuple[tuple[str, int], ...]
    gsd_m: Spread | None
    built_up: Spread | None
    built_up_histogram: Histogram | None
    low_share: float
    empty: int
    class_share: tuple[float, ...]
    buildings: int
    cut: int
    per_image: Spread | None
    size_px: Spread | None
    size_px_histogram: Histogram | None
    size_m2: Spread | None
    size_m2_histogram: Histogram | None
    filters: tuple[FilterRow, ...]
    brightness: Spread | None
    contrast: Spread | None
    saturation: Spread | None
    sharpness: Spread | None

    def to_json(self) -> dict[str, Any]:
        """Plain data; the contract of `summary` in `rooftrace inspect --json`."""
        return asdict(self)


def summarise(facts: Sequence[SceneFacts], classes: int, building_class: int) -> Summary:
    """Add up the scenes of a set.

    Args:
        facts: of its scenes, those that could not be read among them.
        classes: how many there are.
        building_class: index of the one that is counted.
    """
    read = [f for f in facts if not f.image_error]
    labelled = [f for f in read if f.label is not None]
    pixels = np.array([f.shape_yx[0] * f.shape_yx[1] for f in read], dtype=float)
    valid = np.array([f.valid_share for f in read])
    shares = [(f, share) for f in labelled if (share := f.built_up(building_class)) is not None]
    built_up = np.array([share for _, share in shares])
    class_px = np.array([f.label.class_px for f in labelled if f.label], dtype=float)
    per_class = class_px.sum(axis=0) if len(class_px) else np.zeros(classes)
    areas = [f.label.buildings_px for f in labelled if f.label]
    sizes_px = np.concatenate(areas) if areas else np.zeros(0)
    sizes_m2 = _in_m2(labelled)
    return Summary(
        images=len(facts),
        unreadable=len(facts) - len(read),
        labelled=len(labelled),
        unreadable_labels=sum(bool(f.label_error) for f in read),
        pixels=int(pixels.sum()),
        valid_share=float((pixels * valid).sum() / max(pixels.sum(), 1)),
        sizes=tuple(
            (*shape, count) for shape, count in Counter(f.shape_yx for f in read).most_common()
        ),
        kinds=tuple(Counter(_kind_of(f) for f in read).most_common()),
        gsd_m=Spread.of([f.gsd_m for f in read if f.gsd_m is not None]),
        built_up=Spread.of(built_up),
        built_up_histogram=Histogram.of(built_up, _SHARE_BINS) if len(built_up) else None,
        low_share=float((built_up <= LOW_SHARE).mean()) if len(built_up) else 0.0,
        empty=int((built_up == 0).sum()),
        class_share=tuple((per_class / max(per_class.sum(), 1)).tolist()),
        buildings=len(sizes_px),
        cut=sum(f.label.cut for f in labelled if f.label),
        per_image=Spread.of([len(area) for area in areas]),
        size_px=Spread.of(sizes_px),
        size_px_histogram=_by_magnitude(sizes_px),
        size_m2=Spread.of(sizes_m2),
        size_m2_histogram=_by_magnitude(sizes_m2),
        filters=_filters(shares, building_class),
        brightness=Spread.of([f.brightness for f in read]),
        contrast=Spread.of([f.contrast for f in read]),
        saturation=Spread.of([f.saturation for f in read]),
        sharpness=Spread.of([f.sharpness for f in read]),
    )


def _kind_of(facts: SceneFacts) -> str:
    stored = f", {facts.file_format}" if facts.file_format else ""
    return f"{facts.bands} band{'s' * (facts.bands != 1)} of {facts.dtype}{stored}"


def _in_m2(labelled: Sequence[SceneFacts]) -> NDArray[np.float64]:
    parts = [f.label.buildings_px * f.gsd_m**2 for f in labelled if f.label and f.gsd_m is not None]
    return np.concatenate(parts) if parts else np.zeros(0)


def _by_magnitude(areas: NDArray[np.generic]) -> Histogram | None:
    """Eight bins to a factor of ten, over what occurs."""
    if not len(areas):
        return None
    known = np.maximum(areas.astype(float), 1e-3)
    low, high = np.floor(np.log10(known.min())), np.ceil(np.log10(known.max()))
    return Histogram.of(
        known, np.logspace(low, max(high, low + 1), int(8 * max(high - low, 1)) + 1)
    )


def _filters(
    shares: Sequence[tuple[SceneFacts, float]], building_class: int
) -> tuple[FilterRow, ...]:
    if not shares:
        return ()
    share = np.array([value for _, value in shares])
    building = np.array([f.label.class_px[building_class] if f.label else 0 for f, _ in shares])
    rows = []
    for least in FILTERS:
        kept = share >= least if least else np.ones(len(share), dtype=bool)
        rows.append(
            FilterRow(
                least,
                int(kept.sum()),
                float(kept.mean()),
                float(building[kept].sum() / max(building.sum(), 1)),
                float(share[kept].mean()) if kept.any() else None,
            )
        )
    return tuple(rows)
