"""The minutes of a run: what they leave for its training, and the callback that ends it in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from rooftrace.train.task import SegmentationTask

_PACE_S = 4.0
"""Seconds over which the load of the machine is measured."""

_SEARCHES, _END_S, _LEAST_SHARE = 2, 14.0, 0.1
"""What follows a fine-tuning: searches of a threshold; processor seconds of export and comparison;
and the share of the minutes that is trained at least."""


class Minutes:
    """The minutes of a run, and the pace of this machine, by one clock.

    The pace is the seconds that pass in a second of this process's processor time. It rises while
    other programs take the processor.

    Args:
        minutes: Minutes to the end of the run.
        began_s: Time of the clock at which they begin; default now.
        clock, processor: Functions that return seconds, and processor seconds of this process.
    """

    def __init__(
        self, minutes: float, began_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        self.clock, self._processor, self._all_s = clock, processor, 60 * minutes
        self._began = clock() if began_s is None else began_s
        self._search_used, self._search_pace = 0.0, 1.0
        self.restart()

    def restart(self) -> None:
        """Begin to measure the pace anew."""
        self._since, self._used, self._pace = self.clock(), self._processor(), 0.0

    def watch(self) -> None:
        """Measure the pace of the last seconds, as soon as there are enough of them."""
        if self.clock() - self._since >= _PACE_S:
            self._lap()

    @contextmanager
    def search(self) -> Iterator[None]:
        """Measure the processor seconds of a search of a threshold, and the pace in it."""
        self.restart()
        yield
        self._search_used = self._lap()
        self._search_pace = max(1.0, self._pace)

    def _lap(self) -> float:
        """Set the pace since the last measurement; return the processor seconds since then."""
        now, used = self.clock(), self._processor()
        lap = used - self._used
        self._pace = (now - self._since) / max(lap, 1e-9)
        self._since, self._used = now, used
        return lap

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._all_s - (self.clock() - self._began)

    def end_s(self, searches: int = _SEARCHES) -> float:
        """Return the seconds of so many searches, export and comparison, at the slower pace of the
        last search and of now.
        """
        return (searches * self._search_used + _END_S) * max(self._search_pace, self._pace)

    def training_s(self, trainings: int) -> Callable[[], float]:
        """Return the function for the seconds of the next of so many trainings, as of now."""
        left_s, least_s = self.left_s, _LEAST_SHARE * self._all_s
        return lambda: max(left_s - self.end_s(), least_s) / trainings


class Deadline(Callback):
    """Ends a run when its seconds are over, in the middle of an epoch if need be.

    The learning rate of `cosine` falls with the clock where the steps are behind it, so that it has
    fallen when the run ends.

    Args:
        minutes: The minutes of the run, of which this training is a part.
        seconds: Function that returns the seconds of training and validation from now, which may
            change with the pace; 0 for a run that is complete.
    """

    def __init__(self, minutes: Minutes, seconds: Callable[[], float]) -> None:
        self._minutes, self._clock, self._seconds = minutes, minutes.clock, seconds
        self._began = self._step_began = self._clock()
        self._validation_s: float | None = None
        minutes.restart()

    @property
    def is_over(self) -> bool:
        """Return whether a validation would end after the seconds."""
        spent_s = self._clock() - self._began
        return spent_s + (self._validation_s or 0.0) >= self._seconds()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step_began = self._clock()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation_s = self._clock() - self._step_began

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._seconds() == 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        self._step_began = self._clock()
        spent_s = self._step_began - self._began
        pl_module.schedule.elapsed = spent_s / max(self._seconds(), 1e-9)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._minutes.watch()
        if self._validation_s is None:
            # Batches of a first validation are forward only, of tiles that may be larger.
            step_s = self._clock() - self._step_began
            self._validation_s = step_s * sum(trainer.num_val_batches)
        trainer.should_stop = trainer.should_stop or self.is_over
