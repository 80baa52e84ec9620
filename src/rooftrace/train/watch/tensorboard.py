"""The figures of a run as TensorBoard reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import cv2
import lightning as L
from lightning.pytorch.callbacks import Callback

from rooftrace.core.errors import MissingExtraError
from rooftrace.train.callbacks import Recorder

__all__ = ["TensorBoard", "tag"]


class TensorBoard(Callback):
    """RUN/tensorboard: all figures of each epoch, and the panel of each best one.

    A resumed run goes on in the same folder. What was written of epochs that are trained again is
    purged, as TensorBoard calls it, and what was trained before TensorBoard was asked for is
    written, too.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, run: Path) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise MissingExtraError.of(
                "tensorboard", "watch.tensorboard = true", "tensorboard"
            ) from error
        self._folder = run / "tensorboard"
        self._panel = run / "panel_best.png"
        self._writer: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        from torch.utils.tensorboard import SummaryWriter

        before = Recorder.of(trainer).rows
        known = any(self._folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(
            str(self._folder), purge_step=len(before) + 1 if known else None
        )
        if not known:
            for row in before:
                self._add(row)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._writer is None:
            return
        recorder = Recorder.of(trainer)
        self._add(recorder.rows[-1])
        if recorder.is_best and (picture := cv2.imread(str(self._panel))) is not None:
            self._writer.add_image(
                "panel", picture[..., ::-1], int(recorder.rows[-1]["epoch"]), dataformats="HWC"
            )
        self._writer.flush()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _add(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(tag(name), value, int(row["epoch"]))

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tag(name: str) -> str:
    """The name of a figure, what it is before what it is of.

    So TensorBoard shows training, validation and its folders side by side.

    >>> tag("train_loss"), tag("val_iou/town"), tag("lr")
    ('loss/train', 'iou/val/town', 'lr')
    """
    for part in ("train", "val"):
        if name.startswith(f"{part}_"):
            figure, _, folder = name.removeprefix(f"{part}_").partition("/")
            return "/".join(filter(None, (figure, part, folder)))
    return name
