"""The figures of a run on an MLflow tracking server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from rooftrace.core.config import flat
from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.io.atomic import write_atomically
from rooftrace.io.console import print_plain
from rooftrace.train.callbacks import Keeper, Recorder
from rooftrace.train.config import TrainConfig

__all__ = ["Mlflow", "params_of"]

_LONGEST_VALUE = 6000
_LONGEST_KEY = 250
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
"""What the REST API takes: https://mlflow.org/docs/latest/rest-api.html."""

_MANNERS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow would wait minutes for a server that is gone, and training with it; and it would write to
stdout, where `--json` has its answer.
"""

_FILES = ("metrics.csv", "curves.png", "panel.png", "panel_best.png")


class Mlflow(Callback):
    """The configuration as parameters, the figures of each epoch, the pictures at the end.

    RUN/mlflow.json holds the id, so that a resumed run goes on with the same MLflow run; what the
    server has of it is asked, so that no step is there twice and none is missing. A server that is
    gone while the run goes on does not stop it: what it missed is sent when it is back.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: the server does not answer, or the run of mlflow.json is not there.
    """

    def __init__(self, config: TrainConfig, run: Path, console: Console | None) -> None:
        # It would tell its makers of each use, which nobody was asked about.
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
        self._silent = False
        self._ask_for_experiment()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        # Without an epoch to go on from, the record is that of a run that came to nothing.
        known = self._known_id() if Recorder.of(trainer).rows else ""
        try:
            with _well_mannered():
                if known:
                    self._go_on(known)
                else:
                    self._begin()
        except Exception as error:
            raise self._refused(error) from error
        record = {"tracking_uri": self._config.watch.mlflow, "run_id": self._id}
        write_atomically(self._record, (json.dumps(record, indent=1) + "\n").encode())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._id:
            with self._whatever_happens():
                self._send(Recorder.of(trainer).rows)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kept = all(best.epoch for best in Keeper.of(trainer).best.values())
        # Else nothing but numbers that are not finite came out.
        self._finish(trainer, "FINISHED" if kept else "FAILED")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        # By Ctrl-C, by SIGTERM, or by a study that has better trials.
        stopped = not isinstance(exception, Exception) or type(exception).__name__ == "TrialPruned"
        self._finish(trainer, "KILLED" if stopped else "FAILED")

    @rank_zero_only
    def _ask_for_experiment(self) -> None:
        try:
            with _well_mannered():
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
        """Of the run that goes on; empty where there is none."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            return str(record["run_id"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._record}, which says what the run is called in MLflow, cannot be read: "
                f"{error!r}.",
                remedy="Remove it: then a new MLflow run begins.",
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

    def _go_on(self, run_id: str) -> None:
        """With the run that the server has; what is configured otherwise now becomes a tag."""
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
            # One time for each epoch: the server takes what it is sent twice for one point.
            at_ms = self._times.setdefault(epoch, int(time.time() * 1000))
            figures = [Metric(_key(k), v, at_ms, epoch) for k, v in row.items() if k != "epoch"]
            for first in range(0, len(figures), _METRICS_AT_ONCE):
                chunk = figures[first : first + _METRICS_AT_ONCE]
                self._client.log_batch(self._id, metrics=chunk)
            self._sent = epoch
        self._silent = False

    def _finish(self, trainer: L.Trainer, status: str) -> None:
        if not self._id:
            return
        with self._whatever_happens():
            self._send(Recorder.of(trainer).rows)
            for best in Keeper.of(trainer).best.values():
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
    def _whatever_happens(self) -> Iterator[None]:
        """A run of hours does not end because a server does; what is not sent is said once."""
        try:
            with _well_mannered():
                yield
        except Exception as error:
            if not self._silent:
                print_plain(
                    self._console,
                    f"warning: MLflow at {self._config.watch.mlflow} does not take what it is "
                    f"sent ({_reason(error)}). The run goes on; its figures are in metrics.csv, "
                    "and are sent when the server is back.",
                )
            self._silent = True

    def _refused(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"watch.mlflow = {self._config.watch.mlflow!r} cannot be used: {_reason(error)}.",
            remedy="Start the server, correct the address, or set watch.mlflow = ''. Where the run "
            f"is no longer on the server, remove {self._record} to begin a new one.",
        )


def params_of(config: TrainConfig) -> dict[str, str]:
    """Each key of a configuration with its value, as short as MLflow demands."""
    values = flat(config.model_dump(mode="json", exclude={"watch"}))
    return {_key(key): str(value)[:_LONGEST_VALUE] for key, value in values.items()}


def _key(name: str) -> str:
    """A name with only what MLflow allows in one; a file store takes a slash for a folder."""
    return re.sub(r"[^\w.\- :]", "_", name.replace("/", "."))[:_LONGEST_KEY]


def _reason(error: Exception) -> str:
    """The first and the last that is told of an error: MLflow's chains go on for a screen."""
    told = " ".join(str(error).split()) or repr(error)
    return (told if len(told) <= 300 else f"{told[:150]} … {told[-120:]}").rstrip(".")


@contextlib.contextmanager
def _well_mannered() -> Iterator[None]:
    """For one contact with the server; what the user has set himself is left as it is."""
    given = {key: value for key, value in _MANNERS.items() if key not in os.environ}
    os.environ.update(given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for key in given:
            del os.environ[key]
