"""A picture of predictions on some validation tiles: image, truth, prediction and errors.

`PanelCallback` draws it after each epoch of a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rooftrace.core.types import Sample
from rooftrace.io.files import write_atomically
from rooftrace.io.image_write import as_rgb
from rooftrace.io.legend import Colour, Legend
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.samples.dataset import EvalTiles
from rooftrace.train.callbacks import MetricsRecorder
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import collate
from rooftrace.train.task import TrainingTask

RGB = NDArray[np.uint8]

_CELL_PX = 200
_GAP_PX = 4
_BETWEEN_PX = 28
_TEXT_PX = 15
_LINE_PX = 24
_CELLS = ("image", "truth", "prediction", "errors")

_PAPER, _INK, _SOFT = (250, 249, 246), (29, 31, 36), (93, 99, 112)
# Colours of Okabe and Ito's palette, which colour-blind people can distinguish.
_MISSED, _FALSE, _RIGHT = (213, 94, 0), (86, 180, 233), (235, 235, 235)
_UNKNOWN = (70, 60, 84)


@dataclass(frozen=True)
class PanelTile:
    """One tile of a panel.

    Args:
        name: Name of its folder.
        image: (band, y, x) pixel values.
        target: (y, x) class indices.
        valid: (y, x) validity; the label is unknown elsewhere.
        probability: (1, y, x) of the second class, or (class, y, x).
    """

    name: str
    image: NDArray[Any]
    target: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    probability: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.uint8]:
        if len(self.probability) == 1:
            found = self.probability[0] > 0.5
        else:
            found = self.probability.argmax(axis=0)
        return np.asarray(found, np.uint8)


def draw_panel(shown: Sequence[PanelTile], *, legend: Legend, title: str) -> bytes:
    """Return a PNG with four cells per tile, and two tiles per line if there are more than three.

    With one class to find, truth and prediction are white on black, brighter where it is more
    probable. With several, they have the colours of the classes, and the classes that occur are
    listed below.
    """
    columns = 2 if len(shown) > 3 else 1
    lines = -(-len(shown) // columns)
    strip_px = len(_CELLS) * (_CELL_PX + _GAP_PX) - _GAP_PX
    width = 2 * _GAP_PX + columns * strip_px + (columns - 1) * _BETWEEN_PX
    entries = _entries(shown, legend)
    font = ImageFont.load_default(_TEXT_PX)
    rows = _wrap(entries, width, font)
    top_px = 2 * _LINE_PX + _GAP_PX
    height = top_px + lines * (_LINE_PX + _CELL_PX + _GAP_PX) + _LINE_PX * len(rows) + _GAP_PX
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((_GAP_PX, 4), title, fill=_INK, font=font)
    for number, one in enumerate(shown):
        line, column = divmod(number, columns)
        left = _GAP_PX + column * (strip_px + _BETWEEN_PX)
        top = top_px + line * (_LINE_PX + _CELL_PX + _GAP_PX)
        pen.text((left, top + 3), _caption(one, len(legend.names)), fill=_INK, font=font)
        for place, (name, cell) in enumerate(zip(_CELLS, _cells(one, legend))):
            x = left + place * (_CELL_PX + _GAP_PX)
            page.paste(Image.fromarray(_fit(cell)), (x, top + _LINE_PX))
            if line == 0:
                pen.text((x, _LINE_PX + 4), name, fill=_SOFT, font=font)
    for line, row in enumerate(rows):
        top = height - _LINE_PX * (len(rows) - line) - _GAP_PX // 2
        for left, (name, colour) in row:
            pen.rectangle((left, top + 5, left + 13, top + 18), fill=colour, outline=_SOFT)
            pen.text((left + 20, top + 3), name, fill=_INK, font=font)
    stream = io.BytesIO()
    page.save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _caption(one: PanelTile, classes: int) -> str:
    counts = PixelCounts.of(one.target, one.predicted, one.valid, classes=classes)
    iou = counts.iou(1) if classes == 2 else counts.mean_iou
    return f"{one.name}: IoU {iou:.2f}" if np.isfinite(iou) else f"{one.name}: nothing to find"


def _cells(one: PanelTile, legend: Legend) -> tuple[RGB, RGB, RGB, RGB]:
    """Return four (y, x, 3) pictures; unknown pixels are dark in all but the image."""
    image = as_rgb(_pixels(one), one.valid)
    # A network that has diverged answers NaN.
    probability = np.nan_to_num(one.probability)
    if len(one.probability) == 1:
        truth = np.repeat((255 * (one.target == 1))[..., None], 3, axis=2)
        shading = np.repeat((255 * probability[0])[..., None], 3, axis=2)
    else:
        colours = legend.table[:, :3]
        truth = colours[one.target]
        shading = colours[one.predicted] * probability.max(axis=0)[..., None]
    cells = [truth, shading, _errors(one, image)]
    hidden = ~one.valid
    for cell in cells:
        cell[hidden] = _UNKNOWN
    truth, shading, errors = (np.ascontiguousarray(cell.astype(np.uint8)) for cell in cells)
    return image, truth, shading, errors


def _pixels(one: PanelTile) -> NDArray[Any]:
    """Return 8-bit images as they are; `as_rgb` stretches others."""
    values = one.image
    eight_bit = values.min(initial=0) >= 0 and 1 < values.max(initial=0) <= 255
    return values.round().astype(np.uint8) if eight_bit else values


def _errors(one: PanelTile, image: RGB) -> NDArray[Any]:
    """Draw correct pixels light and wrong ones in colour, over the image in faint grey."""
    grey = 40 + 0.35 * image.mean(axis=2, keepdims=True)
    drawn = np.repeat(grey, 3, axis=2)
    found, there = one.predicted > 0, one.target > 0
    drawn[found & (one.predicted == one.target)] = _RIGHT
    drawn[there & (one.predicted != one.target)] = _MISSED
    drawn[found & ~there] = _FALSE
    return drawn


def _fit(cell: RGB) -> RGB:
    """Scale a picture to the size of a cell, with its sides in proportion."""
    scale = _CELL_PX / max(cell.shape[:2])
    size = [max(1, round(side * scale)) for side in cell.shape[1::-1]]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(cell, size, interpolation=way), np.uint8)


def _entries(shown: Sequence[PanelTile], legend: Legend) -> list[tuple[str, Colour]]:
    several = len(legend.names) > 2
    entries = [
        ("correct", _RIGHT),
        ("missed, or another class" if several else "missed", _MISSED),
        ("found where there is none", _FALSE),
        ("unknown", _UNKNOWN),
    ]
    if several:
        occurring: set[int] = set()
        for one in shown:
            occurring |= set(np.unique(one.target[one.valid]).tolist())
            occurring |= set(np.unique(one.predicted[one.valid]).tolist())
        entries += [(legend.names[i], legend.rgb(i)) for i in sorted(occurring)]
    return entries


def _wrap(
    entries: Sequence[tuple[str, Colour]], width: int, font: Any
) -> list[list[tuple[int, tuple[str, Colour]]]]:
    """Arrange the entries of a legend in lines, each with its left edge."""
    rows: list[list[tuple[int, tuple[str, Colour]]]] = [[]]
    left = _GAP_PX
    for entry in entries:
        needed = 20 + round(font.getlength(entry[0])) + 24
        if rows[-1] and left + needed > width:
            rows.append([])
            left = _GAP_PX
        rows[-1].append((left, entry))
        left += needed
    return rows


_CANDIDATES = 3
"""Number of tiles from which one place of the panel is chosen."""


class PanelCallback(Callback):
    """Writes panel.png after each epoch, and panel_best.png for the best `val_iou`.

    Args:
        run: Folder of the run.
        tiles: Tiles of the validation folders.
    """

    def __init__(self, run: Path, tiles: Sequence[EvalTiles], config: TrainConfig) -> None:
        self._run, self._tiles, self._config = run, tiles, config
        self._chosen: list[tuple[int, int]] | None = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, TrainingTask)
        if self._chosen is None:
            self._chosen = choose_tiles(self._tiles, self._config.watch.panel)
        recorder = MetricsRecorder.of(trainer)
        row = recorder.rows[-1]
        shown = []
        for first in range(0, len(self._chosen), self._config.batch_size):
            part = self._chosen[first : first + self._config.batch_size]
            samples = [self._tiles[folder][index] for folder, index in part]
            answers = _predict(pl_module, samples)
            shown += [
                PanelTile(self._tiles[folder].name, s.image, s.target, s.valid, answer)
                for (folder, _), s, answer in zip(part, samples, answers)
            ]
        labels = self._config.data.labels
        picture = draw_panel(
            shown,
            legend=Legend(labels.classes, labels.class_colours()),
            title=f"epoch {row['epoch']:.0f}, validation IoU {row['val_iou']:.3f}",
        )
        write_atomically(self._run / "panel.png", picture)
        if recorder.is_best:
            write_atomically(self._run / "panel_best.png", picture)


def choose_tiles(tiles: Sequence[EvalTiles], count: int) -> list[tuple[int, int]]:
    """Choose at most `count` tiles as (folder, index): folders in turn, evenly spread over each.

    Among neighbours a tile with labelled objects is preferred. The choice is always the same, so
    that the panels of two epochs, and of two runs on the same data, can be compared.
    """
    places = [0] * len(tiles)
    while sum(places) < count:
        with_room = [f for f, part in enumerate(tiles) if places[f] < len(part)]
        if not with_room:
            break
        for folder in with_room[: count - sum(places)]:
            places[folder] += 1
    chosen = []
    for folder, wanted in enumerate(places):
        bounds = np.linspace(0, len(tiles[folder]), wanted + 1).astype(int)
        for low, high in pairwise(bounds):
            chosen.append((folder, _most_informative(tiles[folder], range(low, high))))
    return chosen


def _most_informative(tiles: EvalTiles, places: range) -> int:
    """Return the tile with the most objects among three; if they have none, the first that has
    some.
    """
    near = places[:: max(1, len(places) // _CANDIDATES)]
    best = max(near, key=lambda index: _content(tiles[index]))
    if _content(tiles[best])[0] == 0:
        there = (index for index in places if _content(tiles[index])[0] > 0)
        best = next(there, best)
    return best


def _content(sample: Sample) -> tuple[float, float]:
    """Return the share of known pixels that are not background, and the share of known pixels."""
    return float(((sample.target > 0) & sample.valid).mean()), float(sample.valid.mean())


def _predict(task: TrainingTask, samples: Sequence[Sample]) -> NDArray[Any]:
    """Return (n, class, y, x) probabilities, or (n, 1, y, x) of the only class to find.

    The task stays as it was: statistics that its layers gather in training must not include these
    tiles.
    """
    modes = [(module, module.training) for module in task.modules()]
    task.eval()
    try:
        with torch.inference_mode(), task.trainer.precision_plugin.val_step_context():
            logits = task.predict_logits(collate(samples).images.to(task.device))
    finally:
        for module, mode in modes:
            module.training = mode
    values = logits[:, : task.config.data.labels.channels].float()
    found = values.sigmoid() if values.shape[1] == 1 else values.softmax(dim=1)
    answer: NDArray[Any] = found.cpu().numpy()
    return answer
