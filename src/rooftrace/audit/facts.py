"""Figures of scenes and sets, and findings: the plain data behind the audit's page and JSON.

Each check of a set reads a `FindingContext` and makes a finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rooftrace.core.report import Report
from rooftrace.core.text import plural
from rooftrace.labels.source import SceneSet

MOST_IDS = 100
"""Maximum number of scene ids in a finding; its `count` includes all scenes."""

Severity = Literal["error", "warning", "note"]
"""`error`: training would fail or learn wrong things. `warning`: it costs accuracy, or scores would
be too good. `note`: good to know."""


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """Figures of one label.

    Args:
        class_px: Number of valid pixels of each class.
        buildings_px: (n,) int64 area of every building, that is, of the 8-connected components of
            the building class among valid pixels.
        cut: Number of buildings that touch the edge of the image.
        unknown_share: Share of the image's valid pixels that the label leaves unknown.
    """

    class_px: tuple[int, ...]
    buildings_px: NDArray[np.int64]
    cut: int
    unknown_share: float = 0.0


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """Figures of one scene, some two kilobytes for a scene of any size.

    Args:
        image: Name of the image, or its path if it is a file.
        group: Group of the scene, see `core.types.Scene`.
        shape_yx: Size in pixels.
        bands: Number of bands without alpha.
        dtype: Type of the pixels.
        file_format: Format of the file by its content ("PNG", "JPEG", "GTiff"); "" if not a file.
        gsd_m: Metres per pixel, None if unknown.
        is_georeferenced: True if the position of the image on the ground is known.
        valid_share: Share of all pixels that are not nodata.
        flat_share: Share of the valid pixels with the commonest colour of fill in pieces at the
            edge, that is, unmarked nodata; see `fill_at_edges`.
        flat_colour: That colour; None if `flat_share` is 0.
        mean, std: Mean and deviation of each band over valid pixels, in shares of full scale.
        brightness: Mean luma (ITU-R BT.601 of the first three bands), 0..1.
        contrast: Standard deviation of the luma.
        saturation: Mean of (max - min) over the first three bands, 0..1; 0 for fewer bands.
        sharpness: Variance of the Laplacian of the luma over the variance of the luma; no unit,
            from 0.
        phash: 64-bit perceptual hash, see `audit.duplicates`.
        thumbnail: (32, 32) float16 in 0..1, see `audit.duplicates.grey_thumbnail`; None without a
            valid pixel.
        label: Figures of the label; None if there is none or it could not be read.
        image_error, label_error: Reason why the image or label could not be read, otherwise "".
        label_remedy: Remedy of `label_error`.
        measured_share: Share of all pixels that were measured. For a large scene it is below 1, and
            the other figures are those of the measured part.
    """

    id: str
    image: str
    group: str = ""
    shape_yx: tuple[int, int] = (0, 0)
    bands: int = 0
    dtype: str = ""
    file_format: str = ""
    gsd_m: float | None = None
    is_georeferenced: bool = False
    valid_share: float = 0.0
    flat_share: float = 0.0
    flat_colour: tuple[float, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    sharpness: float = 0.0
    phash: int = 0
    label: LabelFacts | None = None
    image_error: str = ""
    label_error: str = ""
    label_remedy: str = ""
    measured_share: float = 1.0
    thumbnail: NDArray[np.float16] | None = field(default=None, repr=False, compare=False)

    def built_up(self, building_class: int) -> float | None:
        """Return the share of the building class among known valid pixels; None without any."""
        if self.label is None or not (total := sum(self.label.class_px)):
            return None
        return self.label.class_px[building_class] / total


@dataclass(frozen=True, slots=True)
class Offset:
    """Offset of the labels of a scene or a set against their images.

    Args:
        id: Id of the scene, or name of the set.
        rows, cols: Shift of the label in pixels, down and right, at which it fits best.
        confidence: Confidence of the estimate, 0..1; below `offset.SURE` it does not count.
        level: Level of the estimate.
        scenes: Number of scenes in the estimate; all have about the same metres per pixel.
        gsd_m: Metres per pixel, None if unknown.
        buildings: Number of buildings whose outlines were compared.
    """

    id: str
    rows: float
    cols: float
    confidence: float
    level: Literal["scene", "set"] = "scene"
    scenes: int = 1
    gsd_m: float | None = None
    buildings: int = 0

    @property
    def px(self) -> float:
        """Length of the shift in pixels."""
        return float(np.hypot(self.rows, self.cols))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a set.

    Args:
        key: Stable name for programs, such as `label.offset`.
        title: One line that says what was found, with its figure.
        detail: Reason why it matters, and the way it was found.
        remedy: Advice; empty if there is nothing to do.
        ids: Ids of the scenes concerned, the worst first; at most `MOST_IDS`.
        count: Number of all scenes concerned.
    """

    key: str
    severity: Severity
    title: str
    detail: str = ""
    remedy: str = ""
    ids: tuple[str, ...] = field(default=())
    count: int = 0


LOW_SHARE = 0.01
"""Built-up share up to which an image counts as nearly empty."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHARE_BINS = np.linspace(0, 1, 41)


@dataclass(frozen=True)
class Histogram:
    """Counts per bin: `counts[i]` values with `edges[i] <= value < edges[i + 1]`.

    The last bin includes its upper edge.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: ArrayLike, edges: ArrayLike) -> Histogram:
        counts, used = np.histogram(np.asarray(values, dtype=float), np.asarray(edges, dtype=float))
        return cls(tuple(used.tolist()), tuple(counts.tolist()))


@dataclass(frozen=True)
class Spread:
    """A distribution in seven figures.

    Args:
        count: Number of values.
        mean: Mean value.
        quantiles: Quantiles at 5, 25, 50, 75 and 95 %.
    """

    count: int
    mean: float
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, values: ArrayLike) -> Spread | None:
        """Return the distribution of values; None if there are none."""
        known = np.asarray(values, dtype=float)
        if not known.size:
            return None
        quantiles = np.quantile(known, _QUANTILES)
        return cls(int(known.size), float(known.mean()), tuple(quantiles.tolist()))

    @property
    def median(self) -> float:
        return self.quantiles[2]


@dataclass(frozen=True)
class SetStatistics(Report):
    """Figures of a set.

    Args:
        images: Number of images, including unreadable ones.
        unreadable: Number of images that could not be read.
        georeferenced: Number of images whose position on the ground is known.
        labelled: Number of images with a readable label.
        unreadable_labels: Number of labels that could not be read.
        pixels: Number of pixels of all images.
        valid_share: Share of pixels that are not nodata.
        sizes: (rows, columns, images), the commonest first.
        kinds: (text, images), the commonest first; the text gives bands, dtype and file format.
        gsd_m: Metres per pixel of the images for which it is known.
        built_up: Built-up share per labelled image.
        low_share: Share of labelled images with a built-up share up to `LOW_SHARE`.
        empty: Number of labelled images without a building.
        class_share: Share of each class among labelled pixels.
        buildings: Number of buildings in all images.
        cut: Number of buildings that touch an image edge.
        per_image: Buildings per image.
        size_px, size_m2: Area of a building; in m² only where metres are known.
    """

    images: int
    unreadable: int
    georeferenced: int
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


def compute_statistics(
    facts: Sequence[SceneFacts], classes: int, building_class: int
) -> SetStatistics:
    """Return the figures of a set."""
    read = [f for f in facts if not f.image_error]
    labelled = [f for f in read if f.label is not None]
    pixels = np.array([f.shape_yx[0] * f.shape_yx[1] for f in read], dtype=float)
    valid = np.array([f.valid_share for f in read])
    shares = [f.built_up(building_class) for f in labelled]
    built_up = np.array([share for share in shares if share is not None])
    class_px = np.array([f.label.class_px for f in labelled if f.label], dtype=float)
    per_class = class_px.sum(axis=0) if len(class_px) else np.zeros(classes)
    areas = [f.label.buildings_px for f in labelled if f.label]
    sizes_px = np.concatenate(areas) if areas else np.zeros(0)
    in_m2 = [f.label.buildings_px * f.gsd_m**2 for f in labelled if f.label and f.gsd_m is not None]
    sizes_m2 = np.concatenate([np.zeros(0), *in_m2])
    return SetStatistics(
        images=len(facts),
        unreadable=len(facts) - len(read),
        georeferenced=sum(f.is_georeferenced for f in read),
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
    )


def _kind_of(facts: SceneFacts) -> str:
    stored = f", {facts.file_format}" if facts.file_format else ""
    return f"{plural(facts.bands, 'band')} of {facts.dtype}{stored}"


def _by_magnitude(areas: NDArray[np.generic]) -> Histogram | None:
    """Return a histogram with eight bins per factor of ten over the range of the areas."""
    if not len(areas):
        return None
    known = np.maximum(areas.astype(float), 1e-3)
    low, high = np.floor(np.log10(known.min())), np.ceil(np.log10(known.max()))
    return Histogram.of(
        known, np.logspace(low, max(high, low + 1), int(8 * max(high - low, 1)) + 1)
    )


@dataclass(frozen=True)
class FindingContext:
    """Facts of a set, grouped as the checks need them."""

    facts: tuple[SceneFacts, ...]
    source: SceneSet

    @cached_property
    def read(self) -> list[SceneFacts]:
        """Scenes whose image could be read."""
        return [f for f in self.facts if not f.image_error]

    @cached_property
    def shown(self) -> list[SceneFacts]:
        """Scenes whose image has valid pixels."""
        return [f for f in self.read if f.valid_share > 0]

    @cached_property
    def labelled(self) -> list[tuple[SceneFacts, LabelFacts]]:
        """Scenes whose label could be read, with the facts of the label."""
        return [(f, f.label) for f in self.read if f.label is not None]

    @cached_property
    def buildings(self) -> int:
        """Number of buildings in all labels."""
        return sum(len(label.buildings_px) for _, label in self.labelled)

    @cached_property
    def class_px(self) -> list[int]:
        """Valid pixels of each class in all labels."""
        return [sum(px) for px in zip(*(label.class_px for _, label in self.labelled))]

    def built_up(self, facts: SceneFacts) -> float:
        """Return the share of buildings in a scene; 0 if its label knows no pixel."""
        return facts.built_up(self.source.building_class) or 0.0


def make_finding(
    key: str,
    severity: Severity,
    title: str,
    scenes: Sequence[SceneFacts] = (),
    *,
    detail: str = "",
    remedy: str = "",
    by: Callable[[SceneFacts], float] | None = None,
) -> Finding | None:
    """Return a finding about `scenes`, ordered by `by` greatest value first; None for none."""
    if not scenes:
        return None
    worst = scenes if by is None else sorted(scenes, key=by, reverse=True)
    ids = tuple(f.id for f in worst[:MOST_IDS])
    return Finding(key, severity, title, detail, remedy, ids, len(scenes))


def share(part: float, whole: float) -> str:
    """Return a share in per cent, with two digits if it is small: `0.4 %`."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"
