"""Pixel metrics: accuracy, IoU, Dice, precision and recall from a confusion matrix.

Every figure is a function of one confusion matrix. Therefore figures can be pooled over images
(counts are added, then the ratio is taken) or averaged over images (the ratio of each image, then
the mean). The two differ; each figure says which one it is.

The matrix is also written as a table of text and drawn as a picture.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.metrics.resampling import Ratio, quotient

__all__ = [
    "PixelCounts",
    "PixelFigure",
    "confusion_csv",
    "draw_confusion",
    "image_values",
    "per_image",
    "pixel_ratio",
]

PixelFigure = Literal["accuracy", "iou", "dice", "precision", "recall", "mean_iou", "mean_dice"]

_OF_CLASS: tuple[PixelFigure, ...] = ("dice", "iou", "precision", "recall")
_OF_IMAGE: tuple[PixelFigure, ...] = ("accuracy", "mean_iou")
_MEAN_OF: dict[str, PixelFigure] = {"mean_iou": "iou", "mean_dice": "dice"}


@dataclass(frozen=True)
class PixelCounts:
    """Confusion matrix of pixels.

    Args:
        matrix: (classes, classes) int64; row = truth, column = prediction.
    """

    matrix: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> PixelCounts:
        return cls(np.zeros((classes, classes), dtype=np.int64))

    @classmethod
    def of(
        cls,
        truth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        valid: NDArray[np.bool_] | None = None,
        *,
        classes: int,
    ) -> PixelCounts:
        """Count the pixels of arrays of equal shape; pixels that are not `valid` are left out.

        Raises:
            ValueError: The shapes differ, or an index is not below `classes`.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
        if valid is not None:
            truth, prediction = truth[valid], prediction[valid]
        for side in (truth, prediction):
            # A prediction beyond the last column would be counted in the next row.
            if side.size and not (side.min() >= 0 and side.max() < classes):
                raise ValueError(f"a class index is not in 0..{classes - 1}")
        cells = truth.astype(np.int64) * classes + prediction
        counted = np.bincount(cells.ravel(), minlength=classes * classes)
        return cls(counted.reshape(classes, classes).astype(np.int64))

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.matrix + other.matrix)

    @property
    def pixels(self) -> int:
        return int(self.matrix.sum())

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right class; NaN without pixels."""
        return self._of("accuracy")

    def iou(self, index: int) -> float:
        """Return the intersection over union (Jaccard 1912) of a class; NaN where neither side has
        it.
        """
        return self._of("iou", index)

    def dice(self, index: int) -> float:
        """Return the Dice coefficient (Dice 1945), which is F1, of a class; NaN where neither side
        has it.
        """
        return self._of("dice", index)

    def precision(self, index: int) -> float:
        """Return the share of the pixels predicted as a class that are right; NaN without any."""
        return self._of("precision", index)

    def recall(self, index: int) -> float:
        """Return the share of a class's pixels that are predicted as it; NaN where the truth has
        none.
        """
        return self._of("recall", index)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur on either side."""
        return self._of("mean_iou")

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur on either side."""
        return self._of("mean_dice")

    def _of(self, figure: PixelFigure, index: int = 0) -> float:
        ratio = pixel_ratio(figure, len(self.matrix), index)
        return float(ratio(self.matrix.reshape(1, -1).astype(np.float64))[0])


def pixel_ratio(figure: PixelFigure, classes: int, index: int = 0) -> Ratio:
    """Return a figure as a function of flattened matrices, row by row: (n, classes²) to (n,).

    Args:
        figure: Name; `PixelCounts` describes each, and where it is not defined.
        classes: Number of classes.
        index: Class index, for figures of one class.
    """
    if figure == "mean_iou" or figure == "mean_dice":
        each = [pixel_ratio(_MEAN_OF[figure], classes, i) for i in range(classes)]
        return lambda sums: _mean_known(np.stack([ratio(sums) for ratio in each]))
    cells = np.zeros((4, classes, classes))
    both, truth, predicted, every = cells
    both[index, index] = truth[index] = predicted[:, index] = every[:] = 1
    over, under = {
        "accuracy": (np.eye(classes), every),
        "iou": (both, truth + predicted - both),
        "dice": (2 * both, truth + predicted),
        "precision": (both, predicted),
        "recall": (both, truth),
    }[figure]
    return quotient(over.ravel(), under.ravel())


def image_values(counts: Sequence[PixelCounts], index: int) -> dict[str, NDArray[np.float64]]:
    """Return (images,) values of each figure: of one class, accuracy, and the mean IoU over the
    classes that occur in the image.

    An image where neither truth nor prediction has the class is fully right and counts as 1. Where
    only one side has the class, the image counts as 0, also in precision and recall.
    `dice_nonempty` is NaN for images of the first kind, so that they are left out, as in some
    contests.
    """
    if not counts:
        return {name: np.zeros(0) for name in (*_OF_CLASS, *_OF_IMAGE, "dice_nonempty")}
    classes = len(counts[0].matrix)
    flat = np.stack([one.matrix.ravel() for one in counts]).astype(np.float64)
    is_absent = np.isnan(pixel_ratio("dice", classes, index)(flat))
    values: dict[str, NDArray[np.float64]] = {}
    for name in _OF_CLASS:
        value = pixel_ratio(name, classes, index)(flat)
        values[name] = np.where(is_absent, 1.0, np.nan_to_num(value))
    values["dice_nonempty"] = np.where(is_absent, np.nan, values["dice"])
    for name in _OF_IMAGE:
        values[name] = pixel_ratio(name, classes)(flat)
    return values


def per_image(counts: Sequence[PixelCounts], index: int) -> dict[str, float]:
    """Return the mean over images of each of `image_values`; NaN without images.

    An image without a valid pixel has no accuracy and no mean IoU, and is left out of their means.
    """
    values = image_values(counts, index)
    return {name: float(_mean_known(value[:, None])[0]) for name, value in values.items()}


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) means over the first axis without NaN; NaN where all values are NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    made = np.full(count.shape, np.nan)
    return np.asarray(np.divide(np.nansum(values, axis=0), count, out=made, where=count > 0))


_INK = (30, 30, 30)
_FAINT = (150, 150, 150)
_LOW, _HIGH = np.array((255, 255, 255)), np.array((8, 48, 107))
_NOTHING = (235, 235, 235)
"""Colour of the rows of classes that do not occur in the truth."""

_LARGEST_CELL_PX = 64
_SMALLEST_CELL_PX = 12
_MATRIX_PX = 960
_READABLE_CELL_PX = 26
_LONGEST_NAME = 22
_MARGIN_PX = 12


def confusion_csv(counts: PixelCounts, classes: Sequence[str]) -> str:
    """Return a table of the pixels of each true class (row) by predicted class (column)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth / prediction", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.matrix.tolist()))
    return text.getvalue()


def draw_confusion(counts: PixelCounts, classes: Sequence[str]) -> Image.Image:
    """Draw the matrix: for each true class (row), the share that was predicted as each class.

    A darker cell has a larger share; numbers are percentages. The right column shows the share of
    each true class in all pixels.

    Args:
        counts: Pixel counts.
        classes: Names by class index.
    """
    cell = min(_LARGEST_CELL_PX, max(_SMALLEST_CELL_PX, _MATRIX_PX // len(classes)))
    font = ImageFont.load_default(size=min(15, max(10, cell // 3)))
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
             for name in classes]  # fmt: skip
    labels_px = round(max(font.getlength(name) for name in names)) + 2 * _MARGIN_PX
    title = "Share of each true class (row) that was predicted as (column), %"
    title_font = ImageFont.load_default(size=15)
    left, top = labels_px, labels_px + 2 * _MARGIN_PX + 15
    side = cell * len(classes)
    support = counts.matrix.sum(axis=1)
    width = max(left + side + 90, round(title_font.getlength(title)) + 2 * _MARGIN_PX)
    page = Image.new("RGB", (width, top + side + _MARGIN_PX), "white")
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, fill=_INK, font=title_font)
    draw.text((left + side + 10, top - 8), "of all", fill=_FAINT, font=font, anchor="lb")
    shares = counts.matrix / np.maximum(support, 1)[:, None]
    for row, name in enumerate(names):
        y = top + row * cell
        middle = y + cell // 2
        draw.text((left - 8, middle), name, fill=_INK, font=font, anchor="rm")
        above = _upright(name, font)
        page.paste(above, (left + row * cell + (cell - above.width) // 2, top - above.height))
        of_all = support[row] / max(counts.pixels, 1)
        draw.text((left + side + 10, middle), f"{of_all:.2%}", fill=_FAINT, font=font, anchor="lm")
        for col in range(len(names)):
            box = (left + col * cell, y, left + (col + 1) * cell, y + cell)
            _cell(draw, box, shares[row, col] if support[row] else None, font)
    for index in range(len(names)):
        low = left + index * cell, top + index * cell
        draw.rectangle((*low, low[0] + cell, low[1] + cell), outline=_INK)
    return page


def _cell(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    share: float | None,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    if share is None:
        draw.rectangle(box, fill=_NOTHING, outline=(215, 215, 215))
        return
    colour: NDArray[np.float64] = _LOW + (_HIGH - _LOW) * share**0.7
    red, green, blue = colour.round().astype(int).tolist()
    draw.rectangle(box, fill=(red, green, blue), outline=(215, 215, 215))
    if share < 0.0005 or box[2] - box[0] < _READABLE_CELL_PX:
        return
    text = f"{share:.0%}"[:-1] if share >= 0.0995 else f"{share:.1%}"[:-1]
    ink = "white" if share > 0.45 else _INK
    draw.text(
        ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, fill=ink, font=font, anchor="mm"
    )


def _upright(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """Draw a text that runs upwards, 18 pixels wide."""
    length = round(font.getlength(text))
    line = Image.new("RGB", (length + 16, 18), "white")
    ImageDraw.Draw(line).text((8, 9), text, fill=_INK, font=font, anchor="lm")
    return line.rotate(90, expand=True)
