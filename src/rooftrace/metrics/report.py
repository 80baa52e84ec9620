"""The figures of an evaluation, each with the name of what it is a ratio over."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rooftrace.metrics.boundary import BoundaryCounts, boundary_per_image
from rooftrace.metrics.builtup import BuiltUpCounts
from rooftrace.metrics.curves import ThresholdCurve
from rooftrace.metrics.interval import DRAWS, LEVEL, Interval
from rooftrace.metrics.objects import F1_IOUS, ObjectCounts
from rooftrace.metrics.pixel import PixelCounts, per_image
from rooftrace.metrics.polygons import PolygonCounts
from rooftrace.metrics.reliability import Reliability
from rooftrace.metrics.scene import ImageScore
from rooftrace.metrics.spread import SceneCounts

__all__ = ["EvalReport"]

_PIXEL = ("accuracy", "precision", "recall", "dice", "iou", "mean_iou")
_PER_IMAGE = ("dice", "dice_nonempty", "iou", "boundary_iou")


@dataclass(frozen=True)
class EvalReport:
    """How well a model agrees with labels.

    Args:
        images: one entry an image.
        classes: names; index 0 is the background.
        building_class: whose figures are the headline.
        context: what it was measured on and with: data, split, bundle, threshold, engine.
        coarse: of a refined model, the same of its segmenter alone, on the same images.
        notes: what was assumed, for the person to see.
        name: of what is judged.
        curve: of the building's probability; None where it is not known.
        coco: average precision and recall as of COCO; None where they could not be computed.
    """

    images: tuple[ImageScore, ...]
    classes: tuple[str, ...]
    building_class: int
    context: dict[str, Any]
    coarse: EvalReport | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    curve: ThresholdCurve | None = None
    coco: dict[str, float] | None = None

    @cached_property
    def pooled(self) -> PixelCounts:
        """Counts added over all images: large images weigh more."""
        return sum((image.counts for image in self.images), PixelCounts.zero(len(self.classes)))

    @cached_property
    def objects(self) -> ObjectCounts:
        """Buildings of all images."""
        return sum((image.objects for image in self.images), ObjectCounts())

    @cached_property
    def outlines(self) -> BoundaryCounts:
        """Pixels along the outlines of the buildings of all images."""
        return sum((image.outlines for image in self.images), BoundaryCounts.zero())

    @cached_property
    def polygons(self) -> PolygonCounts:
        """Outlines of matched buildings of all images; where metres are known of some alone, of
        those.
        """
        each = [image.polygons for image in self.images]
        metres = [one for one in each if one.unit == "m"]
        return sum(metres or each, PolygonCounts())

    @cached_property
    def built_up(self) -> BuiltUpCounts | None:
        """Cells of all images; None where metres are not known of any."""
        known = [one for image in self.images if (one := image.built_up) is not None]
        return sum(known[1:], known[0]) if known else None

    @cached_property
    def reliability(self) -> Reliability | None:
        """Of the scores of the predicted buildings; None where there are none."""
        score = np.concatenate([np.zeros(0), *(image.score for image in self.images)])
        right = np.concatenate([np.zeros(0, bool), *(image.right for image in self.images)])
        return Reliability.of(score, right) if len(score) else None

    @cached_property
    def scene_counts(self) -> SceneCounts:
        """What intervals and comparisons are made of."""
        return SceneCounts.of(self.images, self.building_class)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals over scenes, by `SceneCounts.ratios`."""
        return self.scene_counts.intervals()

    @property
    def places(self) -> dict[str, EvalReport]:
        """The same of the images of each place; none where there is one place alone."""
        names = sorted({image.group for image in self.images})
        if len(names) < 2:
            return {}
        return {
            name: replace(
                self,
                images=tuple(image for image in self.images if image.group == name),
                coarse=None, curve=None, coco=None,
            )
            for name in names
        }  # fmt: skip

    @property
    def is_binary(self) -> bool:
        """Whether there is no class but the building."""
        return len(self.classes) == 2

    def headline(self, counts: PixelCounts) -> float:
        """What images are ranked by: IoU of the building; of more classes the mean of those that
        occur. NaN where there is nothing to judge.
        """
        return counts.iou(self.building_class) if self.is_binary else counts.mean_iou

    def to_json(self) -> dict[str, Any]:
        """Figures in 0..1; None where one is not defined (a class that does not occur).

        `support` is the number of valid pixels that are the class.
        """
        coarse = self.coarse
        beside = {} if coarse is None else {"coarse": coarse._figures() | coarse.context}
        return {
            "images": len(self.images),
            "name": self.name,
            **self._figures(),
            **self._more(),
            **beside,
            "protocol": {
                "pixel": "pooled: pixel counts are added over all images, then ratios are taken",
                "per_image": "mean over images; an image without the class in truth and "
                "prediction counts as 1; dice_nonempty leaves such images out",
                "class": self.classes[self.building_class],
                "confusion": "pixels, in the order of the classes; row = truth, "
                "column = prediction",
                "objects": "buildings of all images: a footprint and a labelled building match "
                "where their IoU is above 0.5; where labels do not tell buildings apart, connected "
                "regions; what is known by less than half is not judged",
                "polygons": "pairs of a labelled and a predicted polygon of an IoU of 0.5 or more; "
                "those that an edge of the image or nodata cuts are left out",
                "intervals": "95 % over scenes (or their groups) drawn anew; they tell of the "
                "choice of scenes, not of other places, nor of another training",
                "boundary": "outlines of the class, pixel counts added over all images: the IoU of "
                f"inner bands {self.outlines.band_px} px wide, and F1 at several tolerances; edges "
                "of an image and of nodata are no outlines",
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
            "pixel": {"accuracy": _known(pooled.accuracy)}
            | _of_class(pooled, index)
            | {"mean_iou": _known(pooled.mean_iou)},
            "boundary": {name: _known(value) for name, value in self.outlines.figures().items()},
            "per_image": {name: _known(value) for name, value in by_image.items()},
            "classes": {
                name: _of_class(pooled, i) | {"support": int(pooled.matrix[i].sum())}
                for i, name in enumerate(self.classes)
            },
            "confusion": pooled.matrix.tolist(),
            "objects": _of_objects(self.objects),
        }

    def _more(self) -> dict[str, Any]:
        """What a table of headlines has no room for."""
        reliability, built_up, curve = self.reliability, self.built_up, self.curve
        return {
            "intervals": {name: one.to_json() for name, one in self.intervals.items()},
            "polygons": _all_known(self.polygons.figures()),
            "coco": None if self.coco is None else _all_known(self.coco),
            "calibration": None if reliability is None else _of_scores(reliability),
            "density": None if built_up is None else built_up.to_json(),
            "places": {
                name: {"images": len(place.images), **_place_figures(place)}
                for name, place in self.places.items()
            },
            "curve": None if curve is None else _of_curve(curve),
        }  # fmt: skip

    def by_image(self) -> list[dict[str, Any]]:
        """Figures of each image; None where one is not defined."""
        index = self.building_class
        others = None if self.coarse is None else self.coarse.by_image()
        return [
            {
                "id": image.id,
                "iou": _known(image.counts.iou(index)),
                "dice": _known(image.counts.dice(index)),
                "mean_iou": _known(image.counts.mean_iou),
                "precision": _known(image.counts.precision(index)),
                "recall": _known(image.counts.recall(index)),
                "labelled": image.objects.labelled,
                "predicted": image.objects.predicted,
                "group": image.group,
                "valid_pixels": image.counts.pixels,
                "object_f1": _known(image.objects.f1),
                "boundary_iou": _known(image.outlines.iou),
            }
            | ({} if others is None else {"coarse": others[number]})
            for number, image in enumerate(self.images)
        ]

    def class_rows(self) -> list[tuple[str, ...]]:
        """Of each class its name, IoU, Dice, precision, recall, and its share of the valid pixels
        of the truth, for a table.
        """
        pooled = self.pooled
        rows = []
        for index, name in enumerate(self.classes):
            figures = _of_class(pooled, index)
            share = pooled.matrix[index].sum() / max(pooled.pixels, 1)
            shown = [_shown(figures[key]) for key in ("iou", "dice", "precision", "recall")]
            rows.append((name, *shown, f"{share:.2%}"))
        return rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of the table of `rows`."""
        return ("figure", "value") if self.coarse is None else ("figure", "refined", "coarse")

    def rows(self) -> list[tuple[str, ...]]:
        """Name and value of the headline figures, for a table; of a refined model both values."""
        own = self._own_rows()
        if self.coarse is None:
            return [*own]
        return [(*row, other) for row, (_, other) in zip(own, self.coarse._own_rows())]

    def limits(self) -> dict[str, str]:
        """By the names of `rows`, the interval of those figures that have one."""
        named = {
            **{f"{_told(key)} (pooled)": f"pixel.{key}" for key in _PIXEL},
            **{f"{_told(key)} (mean per image)": f"per_image.{key}" for key in _PER_IMAGE},
            "F1 of buildings (pooled)": "objects.f1",
            "Boundary IoU (pooled)": "boundary.boundary_iou",
            f"IoU of {self.classes[self.building_class]} (pooled)": "pixel.iou",
        }
        limits = {n: one for n, key in named.items() if (one := self.intervals.get(key))}
        return {n: f"{one.low:.3f} – {one.high:.3f}" for n, one in limits.items() if one.is_known}

    def _own_rows(self) -> list[tuple[str, str]]:
        plain = self._figures()
        outlines = [(f"{_told(key)} (pooled)", value) for key, value in plain["boundary"].items()]
        if not self.is_binary:
            pooled = self.pooled
            known = sum(not math.isnan(pooled.iou(i)) for i in range(len(self.classes)))
            return [
                ("images", str(len(self.images))),
                ("classes that occur", f"{known} of {len(self.classes)}"),
                ("Accuracy (pooled)", _shown(plain["pixel"]["accuracy"])),
                ("Mean IoU (pooled)", _shown(plain["pixel"]["mean_iou"])),
                ("Mean Dice (pooled)", _shown(_known(pooled.mean_dice))),
                ("F1 of buildings (pooled)", _shown(plain["objects"]["f1"])),
                *((key, _shown(value)) for key, value in outlines),
            ]
        name = self.classes[self.building_class]
        rows = [(f"{_told(key)} (pooled)", value) for key, value in plain["pixel"].items()]
        per_image = {key: plain["per_image"][key] for key in _PER_IMAGE}
        rows += [(f"{_told(key)} (mean per image)", value) for key, value in per_image.items()]
        rows += [(f"IoU of {c} (pooled)", v["iou"]) for c, v in plain["classes"].items()]
        rows += [("F1 of buildings (pooled)", plain["objects"]["f1"]), *outlines]
        shown = [(key, _shown(value)) for key, value in rows]
        return [
            ("images", str(len(self.images))),
            ("class", name),
            *shown,
        ]


def _of_class(counts: PixelCounts, index: int) -> dict[str, float | None]:
    return {
        "precision": _known(counts.precision(index)),
        "recall": _known(counts.recall(index)),
        "dice": _known(counts.dice(index)),
        "iou": _known(counts.iou(index)),
    }


def _of_objects(objects: ObjectCounts) -> dict[str, Any]:
    return {
        **{name: _known(value) for name, value in objects.figures().items()},
        "f1_at_iou": {f"{iou:.2f}": _known(objects.f1_at(iou)) for iou in F1_IOUS},
        "by_size": [
            {
                "from_m2": row.from_m2,
                "to_m2": row.to_m2 if math.isfinite(row.to_m2) else None,
                "labelled": row.labelled,
                "found": row.found,
                "recall": _known(row.recall),
                "predicted": row.predicted,
                "right": row.right,
                "precision": _known(row.precision),
            }
            for row in objects.by_size
        ],
    }


def _of_scores(scores: Reliability) -> dict[str, Any]:
    return {
        "buildings": scores.objects,
        "ece": _known(scores.ece),
        "brier": _known(scores.brier),
        "log_loss": _known(scores.log_loss),
        "bins": [
            {"count": count, "mean_score": _known(mean), "share_right": _known(share)}
            for count, mean, share in zip(
                scores.count.tolist(), scores.mean_score.tolist(), scores.share_right.tolist()
            )
        ],
    }


def _of_curve(curve: ThresholdCurve) -> dict[str, Any]:
    def listed(values: np.ndarray) -> list[float | None]:
        return [_known(value) for value in values.tolist()]

    return {
        "average_precision": _known(curve.average_precision()),
        "best_iou_threshold": curve.best("iou"),
        "best_iou": _known(float(curve.iou().max())),
        "thresholds": listed(curve.thresholds),
        **{name: listed(getattr(curve, name)()) for name in ("precision", "recall", "iou")},
    }


def _place_figures(place: EvalReport) -> dict[str, Any]:
    pooled, index = place.pooled, place.building_class
    return _of_class(pooled, index) | {
        "mean_iou": _known(pooled.mean_iou),
        "object_f1": _known(place.objects.f1),
        "boundary_iou": _known(place.outlines.iou),
        "labelled": place.objects.labelled,
        "predicted": place.objects.predicted,
    }


def _all_known(figures: dict[str, float | int] | dict[str, float]) -> dict[str, float | None]:
    return {name: _known(value) for name, value in figures.items()}


def _told(key: str) -> str:
    """Such as `boundary_f1_2px` in words: Boundary F1 at 2 px."""
    if key == "dice_nonempty":
        return "Dice without empty images"
    words = key.replace("_f1_", " F1 at ").replace("iou", "IoU").replace("px", " px")
    return words[0].upper() + words[1:].replace("_", " ")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
