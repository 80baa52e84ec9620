"""The figures of an evaluation, each with the name of what it is a ratio over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rooftrace.metrics.pixel import PixelCounts, per_image

__all__ = ["EvalReport", "ImageScore"]


@dataclass(frozen=True)
class ImageScore:
    """The counts of one image."""

    id: str
    counts: PixelCounts


@dataclass(frozen=True)
class EvalReport:
    """How well a model agrees with labels.

    Args:
        images: one entry an image.
        classes: names; index 0 is the background.
        building_class: whose figures are the headline.
        context: what it was measured on and with: data, split, bundle, threshold, engine.
    """

    images: tuple[ImageScore, ...]
    classes: tuple[str, ...]
    building_class: int
    context: dict[str, Any]

    @property
    def pooled(self) -> PixelCounts:
        """Counts added over all images: large images weigh more."""
        return sum((image.counts for image in self.images), PixelCounts.zero(len(self.classes)))

    def to_json(self) -> dict[str, Any]:
        """Figures in 0..1; None where one is not defined (a class that does not occur)."""
        pooled, index = self.pooled, self.building_class
        by_image = per_image([image.counts for image in self.images], index)
        return {
            "images": len(self.images),
            "pixel": {"accuracy": _known(pooled.accuracy)}
            | _of_class(pooled, index)
            | {"mean_iou": _known(pooled.mean_iou)},
            "per_image": {name: _known(value) for name, value in by_image.items()},
            "classes": {name: _of_class(pooled, i) for i, name in enumerate(self.classes)},
            "protocol": {
                "pixel": "pooled: pixel counts are added over all images, then ratios are taken",
                "per_image": "mean over images; an image without the class in truth and "
                "prediction counts as 1",
                "class": self.classes[index],
                "valid_pixels": pooled.pixels,
            },
            **self.context,
        }

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of the headline figures, for a table."""
        plain = self.to_json()
        name = self.classes[self.building_class]
        rows = [(f"{key} (pooled)", value) for key, value in plain["pixel"].items()]
        rows += [(f"{key} (mean per image)", value) for key, value in plain["per_image"].items()]
        rows += [(f"IoU of {c} (pooled)", v["iou"]) for c, v in plain["classes"].items()]
        shown = [(key, "–" if value is None else f"{value:.4f}") for key, value in rows]
        return [
            ("images", str(len(self.images))),
            ("class", name),
            *((key[0].upper() + key[1:] if key[0] != "I" else key, value) for key, value in shown),
        ]


def _of_class(counts: PixelCounts, index: int) -> dict[str, float | None]:
    return {
        "precision": _known(counts.precision(index)),
        "recall": _known(counts.recall(index)),
        "dice": _known(counts.dice(index)),
        "iou": _known(counts.iou(index)),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
