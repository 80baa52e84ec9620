"""`rooftrace train --trials`: from a configuration with a search space to the best one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.core.system import sleep_while_waiting
from rooftrace.flows.train import locked_run
from rooftrace.io.files import write_json

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from rooftrace.train.tune.results import StudySummary
    from rooftrace.train.tune.space import Tuning

_TUNE_PACKAGES = ("optuna", "sklearn", "sqlalchemy", "tomlkit")
"""Packages of the extra `tune`."""


@dataclass(frozen=True)
class TuneReport:
    """The result of a study.

    Args:
        summary: Trials, the best of them, and the importance of each parameter.
        storage: URL of the storage.
        config, bundle: Files that were written.
        notes: Assumptions and omissions, as sentences.
    """

    summary: StudySummary
    storage: str
    config: Path
    bundle: Path
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        best = self.summary.best
        assert best is not None
        return {
            "study": self.summary.study,
            "storage": self.storage,
            "monitor": self.summary.monitor,
            "trials": dict(self.summary.counts),
            "best": {
                "trial": best.number,
                "value": best.value,
                "params": dict(best.params),
                "config": str(self.config),
                "bundle": str(self.bundle),
            },
            "importance": dict(self.summary.importance),
            "notes": list(self.notes),
        }


def run_tune(
    config_path: Path,
    out: Path,
    trials: int,
    overrides: Sequence[str] = (),
    *,
    keep: bool = False,
    notify: Callable[[str], None],
) -> TuneReport:
    """Search for the best values of a configuration, or continue a search.

    The folder `out` gets a folder for each trial, `best.toml`, `best.rooftrace`,
    `study.json` with the returned report, and `study.db`.

    Args:
        config_path: The TOML file, see `train.config` and `train.tune.space`. Relative paths in it
            start from its folder.
        trials: Number of trials that the study has in the end, including those of earlier commands.
            Pruned and failed trials count; trials that were lost with their process do not.
        overrides: `key.path=value` settings that replace values of the file.
        keep: Keep the checkpoints of all trials, not only of the best.
        notify: Function called with each line of progress.

    Raises:
        MissingExtraError: Optuna, PyTorch or a package that comes with them is not installed.
        ConfigError: The file or the space is wrong; the folder belongs to another search; or no
            trial has a value.
        DataError: The training data cannot be opened; or the storage fails.
        TrainError, ExportError: See `train.tune.study` and `train.export_bundle`.
    """
    sleep_while_waiting()
    try:
        from rooftrace.train.tune.results import (
            TrialReporter,
            export_best,
            summarise,
            write_config,
        )
        from rooftrace.train.tune.space import read_tuning
        from rooftrace.train.tune.study import (
            TRIAL_FOLDERS,
            TuningJob,
            finished,
            open_study,
            run_trials,
            storage_of,
        )
    except ImportError as error:
        package = (error.name or "torch").partition(".")[0]
        extra = "tune" if package in _TUNE_PACKAGES else "train"
        raise MissingExtraError.of(extra, "rooftrace train --trials", package) from error

    tuning = read_tuning(config_path, overrides)
    record = out / "study.json"
    before = json.loads(record.read_bytes()) if record.is_file() else {}
    minutes = tuning.settings.timeout_minutes
    until = math.inf if minutes is None else time.time() + 60 * minutes
    job = TuningJob(tuning, out, trials, until, keep)
    with locked_run(out), open_study(tuning, out) as study:
        if not study.trials and any(out.glob(TRIAL_FOLDERS)):
            raise ConfigError(
                f"{out} holds runs of trials, but the study {tuning.name!r} in its study.db has "
                "none.",
                remedy="Restore study.db and the name of the configuration, or choose another "
                "folder.",
            )
        notes = _data_notes(tuning, study, notify)
        reporter = TrialReporter(study, tuning, notify)
        run_trials(job, study, reporter)
        reporter()
        done = finished(study)
        summary = summarise(study, tuning)
    if len(done) < trials:
        notes.append(
            f"The time limit was reached after {len(done)} of {trials} trials; the same "
            "command continues the study."
        )
    best = summary.best
    if best is None:
        raise _no_value(done)
    report = TuneReport(
        summary, storage_of(out), out / "best.toml", out / "best.rooftrace", tuple(notes)
    )
    write_config(report.config, tuning, best, done)
    # An earlier command may have written the model of the trial.
    if before.get("best", {}).get("trial") != best.number or not report.bundle.is_file():
        export_best(tuning, best, out, report.bundle, notify=notify)
    write_json(record, report.to_json())
    return report


def _data_notes(tuning: Tuning, study: Study, notify: Callable[[str], None]) -> list[str]:
    """Open the data of a search, and return the notes about it.

    A mistake in the data would fail every trial; it is reported before the first.
    """
    from rooftrace.train.datamodule import open_data
    from rooftrace.train.tune.study import finished

    notes: list[str] = []
    if not finished(study):
        notes += open_data(tuning.first_config(), tuning.base).notes
        for note in notes:
            notify(note)
    if tuning.first_config().refine is not None:
        notes.append(
            "A search trains no refiner, and its model has none: rooftrace train best.toml "
            "trains both."
        )
    return notes


def _no_value(done: list[FrozenTrial]) -> ConfigError:
    from rooftrace.train.tune.study import failure_reason

    failed = [f"; trial {trial.number}: {failure_reason(trial)}" for trial in done[-1:]]
    return ConfigError(
        f"None of {len(done)} trials has a value{''.join(failed) or '.'}",
        remedy="Correct the cause, and start in another folder.",
    )
