"""Experiment trackers beside the files of a run: TensorBoard, MLflow and Weights & Biases.

A tracker that fails is left out with a warning. tracking.json in the folder of the run has the id
of the run in each tracker and what it has received, so that a resumed run continues there.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from rooftrace.core.config import flatten
from rooftrace.core.errors import MissingExtraError, RooftraceError
from rooftrace.core.text import reason_of
from rooftrace.io.files import write_json
from rooftrace.models.spec import BundleSpec
from rooftrace.train.callbacks import MetricsRecorder
from rooftrace.train.config import TrainConfig

_PROJECT = "rooftrace"
"""Default name of the experiment in MLflow, and of the project in Weights & Biases."""


def _tensorboard(run: Path, store: Path, key: str | None) -> Logger:
    return TensorBoardLogger(run, name="", version="tensorboard", default_hp_metric=False)


def _mlflow(run: Path, store: Path, key: str | None) -> Logger:
    # Its own default repeats a request for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    importlib.import_module("mlflow")  # which sets the level of its log
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    local = f"sqlite:///{(store / 'mlflow.db').resolve()}"
    return MLFlowLogger(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT),
        run_name=_name(run, store),
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", local),
        run_id=key,
    )


def _wandb(run: Path, store: Path, key: str | None) -> Logger:
    import wandb

    mode = os.environ.get("WANDB_MODE")
    if mode is None:
        # It would ask for a key, or end the run.
        mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
    return WandbLogger(
        _name(run, store),
        save_dir=store,
        id=key,
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        group=None if run == store else store.resolve().name,
        mode=mode,
    )


def _name(run: Path, store: Path) -> str:
    run, store = run.resolve(), store.resolve()
    return run.name if run == store else f"{store.name}/{run.name}"


TRACKERS: dict[str, Callable[[Path, Path, str | None], Logger]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
"""Makers of loggers by the name of their package: of the folder of a run, the folder of the local
store, and the id of a run that is continued."""


def check_trackers(config: TrainConfig) -> None:
    """Raise MissingExtraError if the package of a tracker is not installed."""
    for name in config.track:
        if find_spec(name) is None:
            raise MissingExtraError(
                f'track = "{name}" needs the package {name!r}, which is not installed.',
                remedy=f"Install it with: pip install {name}",
            )


class Tracking:
    """Sends configuration and figures of a run to the trackers of `config.track`.

    A context manager: at its end, the run ends in the trackers.

    Args:
        config: Configuration of the run.
        run: Folder of the run.
        notify: Function called with each warning.
        store: Folder of the local store; default the folder of the run.
    """

    def __init__(
        self, config: TrainConfig, run: Path, notify: Callable[[str], None],
        store: Path | None = None,
    ) -> None:  # fmt: skip
        check_trackers(config)
        self._config, self._run, self._notify, self._store = config, run, notify, store or run
        self._loggers: dict[str, Logger | None] = {}
        self._record: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = "failed" if isinstance(error, RooftraceError) else "KILLED"

        def end(name: str, logger: Logger) -> None:
            logger.finalize("success" if error is None else status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(int(error is not None))

        self._each(end)

    def callback(self, prefix: str = "") -> Callback:
        """Return the callback of one of the trainings of the run."""
        return _Rows(self, prefix)

    def begin(self) -> None:
        """Open the trackers; the first time, each receives the configuration."""
        path = self._run / "tracking.json"
        if self._loggers or not self._config.track:
            return
        if path.is_file():
            self._record = json.loads(path.read_bytes())
        self._loggers = dict.fromkeys(map(str, self._config.track))

        def begin(name: str, _: object) -> None:
            key = self._record.get(name, {}).get("id")
            logger = TRACKERS[name](self._run, self._store, key)
            self._loggers[name] = logger
            if key is None:
                logger.log_hyperparams(flatten(self._config.model_dump(mode="json")))
                self._record[name] = {"id": logger.version, "epochs": {}}

        self._each(begin)

    def add(self, rows: list[dict[str, float]], prefix: str) -> None:
        """Send the rows of metrics.csv that a tracker has not received yet."""

        def send(name: str, logger: Logger) -> None:
            sent = self._record[name]["epochs"]
            for row in rows[sent.get(prefix, 0) :]:
                figures = {f"{prefix}{k}": float(v) for k, v in row.items() if k != "epoch"}
                logger.log_metrics(figures, int(row["epoch"]))
                # A run that was killed before its checkpoint repeats an epoch.
                sent[prefix] = int(row["epoch"])
            logger.save()

        self._each(send)

    def finish_bundles(self, specs: Mapping[str, BundleSpec], epoch: int) -> None:
        """Send the threshold and the mean figures of each bundle of the run, by its name."""
        figures = {}
        for name, spec in specs.items():
            # Those of a segmenter alone follow those of its refiner, of the same folders.
            folders = {one.data: one.values for one in reversed(spec.metrics)}.values()
            for key in dict.fromkeys(key for values in folders for key in values):
                known = [values[key] for values in folders if key in values]
                figures[f"{name}/{key}"] = sum(known) / len(known)
            figures[f"{name}/threshold"] = spec.threshold
        self.finish(figures, epoch)

    def finish(self, figures: dict[str, float], epoch: int) -> None:
        """Send the final figures of the run."""

        def send(name: str, logger: Logger) -> None:
            if isinstance(logger, TensorBoardLogger):
                # Its table of runs has those with final figures.
                params = flatten(self._config.model_dump(mode="json"))
                logger.log_hyperparams(params, dict(figures), epoch)
            else:
                logger.log_metrics(figures, epoch)

        self.begin()
        self._each(send)

    def _each(self, act: Callable[[str, Any], None]) -> None:
        """Do something with each tracker; one that fails is left out from now on."""
        for name, logger in list(self._loggers.items()):
            try:
                act(name, logger)
            except Exception as error:  # whatever a server, or a package, may raise
                del self._loggers[name]
                self._notify(
                    f"warning: {name} failed and gets no more figures of this run: "
                    f"{reason_of(error, most=300)}. The training continues."
                )
        if self._record:
            write_json(self._run / "tracking.json", self._record)


class _Rows(Callback):
    """Passes the rows of one training on to the trackers, after each epoch."""

    def __init__(self, tracking: Tracking, prefix: str) -> None:
        self._tracking, self._prefix = tracking, prefix

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tracking.begin()
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tracking.add(MetricsRecorder.of(trainer).rows, self._prefix)
