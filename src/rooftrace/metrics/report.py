"""Evaluation report: all figures of one model, with their intervals.

Figures are functions of counts that are added over scenes. `SceneCounts` holds the counts for
intervals and comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np

from rooftrace.core.types import Floats
from rooftrace.metrics.boundary import WIDTH_PX, BoundaryCounts, PolygonCounts, boundary_per_image
from rooftrace.metrics.calibration import Reliability
from rooftrace.metrics.image_counts import BuiltUpCounts, ImageCounts
from rooftrace.metrics.objects import F1_IOUS, ObjectCounts
from rooftrace.metrics.pixel import (
    PixelCounts,
    PixelFigure,
    ThresholdCurve,
    image_values,
    per_image,
    pixel_ratio,
    trivial_note,
)
from rooftrace.metrics.resampling import (
    DRAWS,
    LEVEL,
    Interval,
    PairedTest,
    Ratio,
    all_rounded,
    mean_counts,
    paired_permutation_test,
    quotient,
    resample,
    rounded,
)


@dataclass(frozen=True)
class SceneCounts:
    """Counts of every scene, from which figures are computed.

    Args:
        counts: (scenes, k) float64, all counts side by side.
        ratios: Function for each figure that computes it from (n, k) sums; the names are those of
            the report, such as `pixel.iou`, `per_image.dice` and `objects.f1`.
        groups: Place of each scene.
    """

    counts: Floats
    ratios: dict[str, Ratio]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, images: Sequence[ImageCounts], building_class: int) -> SceneCounts:
        """Collect the counts of scenes with equal classes; without a scene there is no figure."""
        if not images:
            return cls(np.zeros((0, 0)), {}, ())
        table = _Columns()
        classes = len(images[0].counts.matrix)
        where = table.add([image.counts.matrix.ravel() for image in images])
        for figure in get_args(PixelFigure):
            ratio = pixel_ratio(figure, classes, building_class)
            table.ratios[f"pixel.{figure}"] = _of_part(ratio, where)
        values = image_values([image.counts for image in images], building_class)
        # An image without outlines on both sides is fully right, as in `image_values`.
        borders = np.array([image.outlines.iou for image in images])
        values["boundary_iou"] = np.where(np.isnan(borders), 1.0, borders)
        for name, each in values.items():
            table.ratio(f"per_image.{name}", table.add(mean_counts(each)), (1, 0), (0, 1))
        where = table.add([image.outlines.band for image in images])
        table.ratio("boundary.boundary_iou", where, (1, 0), (0, 1))
        where = table.add(
            [(o.matched, o.labelled, o.predicted) for o in (image.objects for image in images)]
        )
        table.ratio("objects.precision", where, (1, 0, 0), (0, 0, 1))
        table.ratio("objects.recall", where, (1, 0, 0), (0, 1, 0))
        table.ratio("objects.f1", where, (2, 0, 0), (0, 1, 1))
        return cls(np.hstack(table.columns), table.ratios, tuple(image.group for image in images))

    def intervals(self) -> dict[str, Interval]:
        """Return the interval of every figure, all from the same draws."""
        drawn = resample(self.counts, groups=self.groups)
        return {name: drawn.interval(ratio) for name, ratio in self.ratios.items()}

    def against(self, other: SceneCounts, figures: Sequence[str]) -> dict[str, PairedTest]:
        """Test each figure for a difference to another model on the same scenes."""
        return {
            name: paired_permutation_test(
                self.counts, other.counts, self.ratios[name], groups=self.groups
            )
            for name in figures
        }


class _Columns:
    """Counts side by side, with the ratios over them."""

    def __init__(self) -> None:
        self.columns: list[Floats] = []
        self.ratios: dict[str, Ratio] = {}
        self._width = 0

    def add(self, counts: Sequence[object] | Floats) -> slice:
        """Append (scenes, k) counts and return their columns."""
        self.columns.append(np.asarray(counts, np.float64))
        start, self._width = self._width, self._width + self.columns[-1].shape[1]
        return slice(start, self._width)

    def ratio(self, name: str, where: slice, over: Sequence[float], under: Sequence[float]) -> None:
        self.ratios[name] = _of_part(quotient(over, under), where)


def _of_part(ratio: Ratio, where: slice) -> Ratio:
    return lambda sums: ratio(sums[:, where])


FIGURES = {
    "pixel.iou": "IoU (pooled)",
    "pixel.dice": "Dice (pooled)",
    "pixel.precision": "Precision (pooled)",
    "pixel.recall": "Recall (pooled)",
    "pixel.accuracy": "Accuracy (pooled)",
    "pixel.mean_iou": "Mean IoU (pooled)",
    "per_image.iou": "IoU (mean per image)",
    "per_image.dice": "Dice (mean per image)",
    "per_image.dice_nonempty": "Dice (mean per image with buildings)",
    "boundary.boundary_iou": "Boundary IoU (pooled)",
    "objects.f1": "F1 of buildings (pooled)",
    "objects.precision": "Precision of buildings (pooled)",
    "objects.recall": "Recall of buildings (pooled)",
}
"""Names of the headline figures, which have intervals, by the names of `SceneCounts.ratios`."""

_FIRST_OF_MANY = ("pixel.mean_iou", "pixel.accuracy")
"""Figures that come first if there are several classes."""


_PARTS_OF_FIGURES = (
    "pixel", "per_image", "boundary", "objects", "polygons", "coco", "calibration", "density",
)  # fmt: skip
"""Parts of a report that hold single figures."""


@dataclass(frozen=True)
class EvalReport:
    """Agreement of a model with labels.

    Args:
        images: Counts of each image.
        classes: Names; index 0 is the background.
        building_class: Index of the class of the headline figures.
        context: Conditions of the measurement: data, split, bundle, threshold, engine.
        notes: Assumptions and warnings for the user.
        name: Name of the model or of the predictions.
        curve: Threshold curve of the building's probability; None where it is not known.
        coco: COCO average precision and recall; None where they could not be computed.
    """

    images: tuple[ImageCounts, ...]
    classes: tuple[str, ...]
    building_class: int
    context: dict[str, Any]
    notes: tuple[str, ...] = ()
    name: str = ""
    curve: ThresholdCurve | None = None
    coco: dict[str, float] | None = None

    @cached_property
    def pooled(self) -> PixelCounts:
        """Pixel counts added over all images: large images have more weight."""
        return sum((image.counts for image in self.images), PixelCounts.zero(len(self.classes)))

    @property
    def trivial(self) -> str:
        """Sentence on a model hardly better than calling all ground building, or ""."""
        index = self.building_class
        return trivial_note(self.name, self.pooled.iou(index), self.pooled.share(index))

    @cached_property
    def objects(self) -> ObjectCounts:
        """Counts of buildings over all images."""
        return sum((image.objects for image in self.images), ObjectCounts())

    @cached_property
    def outlines(self) -> BoundaryCounts:
        """Counts of the pixels along the outlines of buildings over all images."""
        return sum((image.outlines for image in self.images), BoundaryCounts.zero())

    @cached_property
    def polygons(self) -> PolygonCounts:
        """Sums over matched outlines of all images.

        If metres are known only for some images, the others are left out.
        """
        each = [image.polygons for image in self.images]
        metres = [one for one in each if one.unit == "m"]
        return sum(metres or each, PolygonCounts())

    @cached_property
    def built_up(self) -> BuiltUpCounts | None:
        """Sums over the cells of all images; None where metres are not known for any."""
        counts = [one for image in self.images if (one := image.built_up) is not None]
        return sum(counts[1:], counts[0]) if counts else None

    @cached_property
    def reliability(self) -> Reliability | None:
        """Reliability of the scores of predicted buildings; None without buildings."""
        score = np.concatenate([np.zeros(0), *(image.score for image in self.images)])
        right = np.concatenate([np.zeros(0, bool), *(image.right for image in self.images)])
        return Reliability.of(score, right) if len(score) else None

    @cached_property
    def scene_counts(self) -> SceneCounts:
        """Counts for intervals and comparisons."""
        return SceneCounts.of(self.images, self.building_class)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals over scenes, with the names of `SceneCounts.ratios`."""
        return self.scene_counts.intervals()

    @property
    def places(self) -> dict[str, EvalReport]:
        """Reports of the images of each place; empty if there is only one place."""
        names = sorted({image.group for image in self.images})
        if len(names) < 2:
            return {}
        return {
            name: replace(
                self,
                images=tuple(image for image in self.images if image.group == name),
                curve=None, coco=None,
            )
            for name in names
        }  # fmt: skip

    @property
    def is_binary(self) -> bool:
        """True if the building is the only class besides the background."""
        return len(self.classes) == 2

    def headline(self, counts: PixelCounts) -> float:
        """Return the figure by which images are ranked.

        It is the IoU of the building, or with more classes the mean IoU of those that occur. NaN
        where there is nothing to compare.
        """
        return counts.iou(self.building_class) if self.is_binary else counts.mean_iou

    def to_json(self) -> dict[str, Any]:
        """Return figures in 0..1; None where a figure is not defined (a class that does not occur).

        `support` is the number of valid pixels of the class.
        """
        return {
            "images": len(self.images),
            "name": self.name,
            **self._figures(),
            **self._details(),
            "protocol": {
                "class": self.classes[self.building_class],
                "boundary": f"inner bands {WIDTH_PX} px wide",
                "bootstrap": {"draws": DRAWS, "seed": 0, "level": LEVEL},
                "valid_pixels": self.pooled.pixels,
            },
            **self.context,
        }

    def _figures(self) -> dict[str, Any]:
        pooled, index = self.pooled, self.building_class
        by_image = per_image([image.counts for image in self.images], index)
        by_image |= boundary_per_image([image.outlines for image in self.images])
        return {
            "pixel": {"accuracy": rounded(pooled.accuracy)}
            | _of_class(pooled, index)
            | {"mean_iou": rounded(pooled.mean_iou)},
            "boundary": all_rounded(self.outlines.figures()),
            "per_image": all_rounded(by_image),
            "classes": {
                name: _of_class(pooled, i) | {"support": int(pooled.matrix[i].sum())}
                for i, name in enumerate(self.classes)
            },
            "confusion": pooled.matrix.tolist(),
            "objects": _of_objects(self.objects),
        }

    def _details(self) -> dict[str, Any]:
        """Return the parts that a table of headline figures leaves out."""
        reliability, built_up, curve = self.reliability, self.built_up, self.curve
        return {
            "intervals": {name: one.to_json() for name, one in self.intervals.items()},
            "polygons": all_rounded(self.polygons.figures()),
            "coco": None if self.coco is None else all_rounded(self.coco),
            "calibration": None if reliability is None else _of_scores(reliability),
            "density": None if built_up is None else built_up.to_json(),
            "places": {row.pop("place"): row for row in self.by_place()} if self.places else {},
            "curve": None if curve is None else _of_curve(curve),
        }  # fmt: skip

    def by_image(self) -> list[dict[str, Any]]:
        """Return the figures of each image; None where a figure is not defined."""
        index = self.building_class
        return [
            {
                "id": image.id,
                **_of_class(image.counts, index),
                "mean_iou": rounded(image.counts.mean_iou),
                "labelled": image.objects.labelled,
                "predicted": image.objects.predicted,
                "group": image.group,
                "valid_pixels": image.counts.pixels,
                "object_f1": rounded(image.objects.f1),
                "boundary_iou": rounded(image.outlines.iou),
            }
            for image in self.images
        ]

    def figure_rows(self) -> list[dict[str, Any]]:
        """Return each single figure, with the limits of its interval where it has one."""
        plain = self._figures() | self._details()
        rows = []
        for part in _PARTS_OF_FIGURES:
            for name, value in (plain[part] or {}).items():
                if value is None or isinstance(value, (int, float)):
                    one = plain["intervals"].get(f"{part}.{name}", {})
                    limits = {"low": one.get("low"), "high": one.get("high")}
                    rows.append({"figure": f"{part}.{name}", "value": value, **limits})
        return rows

    def by_place(self) -> list[dict[str, Any]]:
        """Return the figures of each place, also of a single one."""
        places = self.places or {image.group: self for image in self.images[:1]}
        return [
            {"place": name, "images": len(place.images), **_place_figures(place)}
            for name, place in places.items()
        ]

    def class_rows(self) -> list[tuple[str, ...]]:
        """Return table rows: name, IoU, Dice, precision, recall and share of the valid pixels of
        each class.
        """
        pooled = self.pooled
        rows = []
        for index, name in enumerate(self.classes):
            figures = _of_class(pooled, index)
            share = pooled.matrix[index].sum() / max(pooled.pixels, 1)
            cells = [_shown(figures[key]) for key in ("iou", "dice", "precision", "recall")]
            rows.append((name, *cells, f"{share:.2%}"))
        return rows

    @property
    def headline_figures(self) -> list[tuple[str, Interval]]:
        """Names and values of the headline figures, with their intervals."""
        keys = list(FIGURES)
        if not self.is_binary:
            keys.sort(key=lambda key: (*_FIRST_OF_MANY, key).index(key))
        return [(FIGURES[key], self.intervals[key]) for key in keys if key in self.intervals]


def _of_class(counts: PixelCounts, index: int) -> dict[str, float | None]:
    names = ("precision", "recall", "dice", "iou")
    return {name: rounded(getattr(counts, name)(index)) for name in names}


def _of_objects(objects: ObjectCounts) -> dict[str, Any]:
    return {
        **all_rounded(objects.figures()),
        "f1_at_iou": {f"{iou:.2f}": rounded(objects.f1_at(iou)) for iou in F1_IOUS},
        "by_size": [
            asdict(row)
            | {"recall": rounded(row.recall), "precision": rounded(row.precision)}
            | ({} if math.isfinite(row.to_m2) else {"to_m2": None})
            for row in objects.by_size
        ],
    }


def _of_scores(scores: Reliability) -> dict[str, Any]:
    return {
        "buildings": scores.objects,
        **{
            name: rounded(getattr(scores, name))
            for name in ("ece", "ece_by_chance", "brier", "log_loss")
        },
        "bins": [
            {"count": count, "mean_score": rounded(mean), "share_right": rounded(share)}
            for count, mean, share in zip(
                scores.count.tolist(), scores.mean_score.tolist(), scores.share_right.tolist()
            )
        ],
    }


def _of_curve(curve: ThresholdCurve) -> dict[str, Any]:
    def listed(values: np.ndarray) -> list[float | None]:
        return [rounded(value) for value in values.tolist()]

    return {
        "average_precision": rounded(curve.average_precision()),
        "best_iou_threshold": curve.best(),
        "best_iou": rounded(float(curve.iou().max())),
        "thresholds": listed(curve.thresholds),
        **{name: listed(getattr(curve, name)()) for name in ("precision", "recall", "iou")},
    }


def _place_figures(place: EvalReport) -> dict[str, Any]:
    pooled, index = place.pooled, place.building_class
    return _of_class(pooled, index) | {
        "mean_iou": rounded(pooled.mean_iou),
        "object_f1": rounded(place.objects.f1),
        "boundary_iou": rounded(place.outlines.iou),
        "labelled": place.objects.labelled,
        "predicted": place.objects.predicted,
    }


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
