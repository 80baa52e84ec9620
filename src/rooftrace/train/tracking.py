"""Reports of a run that `config.watch` asks for: the panel, TensorBoard and MLflow."""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from rich.console import Console

from rooftrace.core.config import flatten
from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.core.text import parse_json, print_plain, reason_of
from rooftrace.core.types import Sample
from rooftrace.io.files import read_file, write_atomically, write_json
from rooftrace.io.legend import Legend
from rooftrace.samples.dataset import EvalTiles
from rooftrace.train.callbacks import CheckpointSaver, MetricsRecorder
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, collate
from rooftrace.train.panel import PanelTile, draw_panel
from rooftrace.train.task import TrainingTask


def tracking_callbacks(
    config: TrainConfig, run: Path, data: TrainingData, *, console: Console | None = None
) -> list[Callback]:
    """Return the callbacks that `config.watch` asks for; they follow the run's recorder.

    Raises:
        MissingExtraError: TensorBoard or MLflow is asked for and not installed.
        ConfigError: The MLflow server does not answer.
    """
    callbacks: list[Callback] = []
    if config.watch.panel:
        callbacks.append(PanelCallback(run, data.tiles, config))
    if config.watch.tensorboard:
        callbacks.append(TensorBoardCallback(run))
    if config.watch.mlflow:
        callbacks.append(MlflowCallback(config, run, console))
    return callbacks


_CANDIDATES = 3
"""Number of tiles from which one place of the panel is chosen."""


class PanelCallback(Callback):
    """Writes panel.png after each epoch, and panel_best.png for the best `val_iou`.

    The panels of other epochs are not kept, because they would be many; TensorBoard holds the best
    ones.

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


class TensorBoardCallback(Callback):
    """Writes RUN/tensorboard: all figures of each epoch, and the panel of each best epoch.

    A resumed run continues in the same folder. Entries of epochs that are trained again are purged,
    as TensorBoard calls it. Epochs from before TensorBoard was asked for are written, too.

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

        before = MetricsRecorder.of(trainer).rows
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
        recorder = MetricsRecorder.of(trainer)
        self._add(recorder.rows[-1])
        # OpenCV warns of a missing file: with watch.panel = 0 there is none.
        if recorder.is_best and self._panel.is_file():
            picture = cv2.imread(str(self._panel))
            if picture is not None:
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
    """Return the tag of a figure: its kind first, then training or validation, then the folder.

    TensorBoard then shows training, validation and the folders side by side.

    >>> tag("train_loss"), tag("val_iou/town"), tag("lr")
    ('loss/train', 'iou/val/town', 'lr')
    """
    for part in ("train", "val"):
        if name.startswith(f"{part}_"):
            figure, _, folder = name.removeprefix(f"{part}_").partition("/")
            return "/".join(filter(None, (figure, part, folder)))
    return name


_LONGEST_VALUE = 6000
_LONGEST_KEY = 250
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
"""Limits of the REST API: https://mlflow.org/docs/latest/rest-api.html."""

_QUIET_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment variables of MLflow during one contact with the server.

By default MLflow waits minutes for a server that does not answer, and training with it. It also
writes to stdout, which belongs to the answer of `--json`.
"""

_FILES = ("metrics.csv", "curves.svg", "panel.png", "panel_best.png")


class MlflowCallback(Callback):
    """Sends the configuration as parameters, the figures of each epoch, and the pictures at the
    end.

    RUN/mlflow.json holds the id, so that a resumed run continues the same MLflow run. The server is
    asked which epochs it has, so that no epoch is there twice and none is missing. A server that
    stops answering does not stop the run: the missing epochs are sent when it is back.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: The server does not answer, or it does not have the run of mlflow.json.
    """

    def __init__(self, config: TrainConfig, run: Path, console: Console | None) -> None:
        # MLflow would report each use to its makers without asking.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            import mlflow  # noqa: F401
        except ImportError as error:
            raise MissingExtraError.of("mlflow", "watch.mlflow", "mlflow-skinny") from error
        self._config, self._run, self._console = config, run, console
        self._record = run / "mlflow.json"
        self._client: Any = None
        self._id = ""
        self._sent = 0
        self._times: dict[int, int] = {}
        self._is_warned = False
        self._check_server()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        # Without an epoch to continue from, the record belongs to a run without results.
        known = self._known_id() if MetricsRecorder.of(trainer).rows else ""
        try:
            with _quiet_mlflow():
                if known:
                    self._resume(known)
                else:
                    self._begin()
        except Exception as error:
            raise self._refused(error) from error
        record = {"tracking_uri": self._config.watch.mlflow, "run_id": self._id}
        write_json(self._record, record)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._id:
            with self._without_stopping():
                self._send(MetricsRecorder.of(trainer).rows)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kept = all(best.epoch for best in CheckpointSaver.of(trainer).best.values())
        # Otherwise no epoch had a finite value.
        self._finish(trainer, "FINISHED" if kept else "FAILED")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        # Stopped by Ctrl-C, by SIGTERM, or by a study that prunes the trial.
        stopped = not isinstance(exception, Exception) or type(exception).__name__ == "TrialPruned"
        self._finish(trainer, "KILLED" if stopped else "FAILED")

    @rank_zero_only
    def _check_server(self) -> None:
        try:
            with _quiet_mlflow():
                self._experiment()
        except Exception as error:
            raise self._refused(error) from error

    def _experiment(self) -> str:
        from mlflow import MlflowClient

        name = self._config.watch.experiment
        client = MlflowClient(tracking_uri=self._config.watch.mlflow)
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found is not None else client.create_experiment(name))

    def _known_id(self) -> str:
        """Return the id of the MLflow run to continue; empty if there is none."""
        try:
            record = parse_json(read_file(self._record))
            return str(record["run_id"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._record}, which holds the id of the run in MLflow, cannot be read: "
                f"{error!r}.",
                remedy="Remove it to begin a new MLflow run.",
            ) from error

    def _begin(self) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self._config.watch.mlflow)
        made = self._client.create_run(
            self._experiment(),
            run_name=self._config.watch.run_name or self._run.resolve().name,
            tags={"rooftrace.version": metadata.version("rooftrace")},
        )
        self._id = made.info.run_id
        params = [Param(*pair) for pair in params_of(self._config).items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + _PARAMS_AT_ONCE])

    def _resume(self, run_id: str) -> None:
        """Continue the run on the server; settings that differ now become tags."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._config.watch.mlflow)
        found = client.get_run(run_id)
        history = client.get_metric_history(run_id, "lr")
        client.update_run(run_id, status="RUNNING")
        for key, value in params_of(self._config).items():
            if found.data.params.get(key) != value:
                client.set_tag(run_id, f"resumed.{key}"[:_LONGEST_KEY], value)
        self._client, self._id = client, run_id
        self._sent = max((point.step for point in history), default=0)

    def _send(self, rows: Sequence[Mapping[str, float]]) -> None:
        from mlflow.entities import Metric

        for row in rows:
            epoch = int(row["epoch"])
            if epoch <= self._sent:
                continue
            # One time stamp per epoch: the server then stores a repeated figure once.
            at_ms = self._times.setdefault(epoch, int(time.time() * 1000))
            figures = [Metric(_key(k), v, at_ms, epoch) for k, v in row.items() if k != "epoch"]
            for first in range(0, len(figures), _METRICS_AT_ONCE):
                chunk = figures[first : first + _METRICS_AT_ONCE]
                self._client.log_batch(self._id, metrics=chunk)
            self._sent = epoch
        self._is_warned = False

    def _finish(self, trainer: L.Trainer, status: str) -> None:
        if not self._id:
            return
        with self._without_stopping():
            self._send(MetricsRecorder.of(trainer).rows)
            for best in CheckpointSaver.of(trainer).best.values():
                if best.epoch:
                    self._client.log_metric(
                        self._id, f"best_{best.monitor}", best.value, step=best.epoch
                    )
            for name in _FILES:
                if (self._run / name).is_file():
                    self._client.log_artifact(self._id, str(self._run / name))
            self._client.set_terminated(self._id, status)
        self._id = ""

    @contextlib.contextmanager
    def _without_stopping(self) -> Iterator[None]:
        """Warn once, and continue the run, if the server does not answer inside the block."""
        try:
            with _quiet_mlflow():
                yield
        except Exception as error:
            if not self._is_warned:
                print_plain(
                    self._console,
                    f"warning: MLflow at {self._config.watch.mlflow} does not accept figures "
                    f"({reason_of(error, most=300)}). The run continues; its figures are in "
                    "metrics.csv, and are sent when the server is back.",
                )
            self._is_warned = True

    def _refused(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"watch.mlflow = {self._config.watch.mlflow!r} cannot be used: "
            f"{reason_of(error, most=300)}.",
            remedy="Start the server, correct the address, or set watch.mlflow = ''. If the run is "
            f"no longer on the server, remove {self._record} to begin a new one.",
        )


def params_of(config: TrainConfig) -> dict[str, str]:
    """Return each key of a configuration with its value, shortened to MLflow's limits."""
    values = flatten(config.model_dump(mode="json", exclude={"watch"}))
    return {_key(key): str(value)[:_LONGEST_VALUE] for key, value in values.items()}


def _key(name: str) -> str:
    """Return a name with only characters that MLflow allows; a file store takes a slash for a
    folder.
    """
    return re.sub(r"[^\w.\- :]", "_", name.replace("/", "."))[:_LONGEST_KEY]


@contextlib.contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Apply `_QUIET_SETTINGS` for one contact with the server; variables of the user are kept."""
    given = {key: value for key, value in _QUIET_SETTINGS.items() if key not in os.environ}
    os.environ.update(given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for key in given:
            del os.environ[key]
