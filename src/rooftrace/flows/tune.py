"""`rooftrace tune`: from a configuration with a search space to the best one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.io.files import write_atomically

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from rooftrace.train.tune.results import StudySummary
    from rooftrace.train.tune.space import Tuning
    from rooftrace.train.tune.study import TuningJob

_TUNE_PACKAGES = ("optuna", "sklearn", "sqlalchemy", "tomlkit")
"""Packages of the extra `tune`."""


@dataclass(frozen=True)
class TuneOptions:
    """Options of a study.

    Args:
        trials: Number of trials that the study has in the end, including those of earlier commands
            and of other machines. Pruned and failed trials count; trials that were lost with their
            process do not.
        storage: A SQLAlchemy URL (`postgresql://…`); default `study.db` in the folder of the study.
        study: Name of the study in the storage; default the name of the configuration file.
        jobs: Number of processes that run trials at the same time.
        overrides: `key.path=value` settings that replace values of the file.
        keep: Keep the checkpoints of all trials, not only of the best.
    """

    trials: int
    storage: str | None = None
    study: str | None = None
    jobs: int = 1
    overrides: Sequence[str] = ()
    keep: bool = False


@dataclass(frozen=True)
class TuneReport:
    """The result of a study.

    Args:
        summary: Trials, the best of them, and the importance of each parameter.
        storage: Address of the storage, without its password.
        config, bundle: Files that were written; `bundle` is None if the best trial ran on
            another machine.
        notes: Assumptions and omissions, as sentences.
    """

    summary: StudySummary
    storage: str
    config: Path
    bundle: Path | None
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
                "bundle": None if self.bundle is None else str(self.bundle),
            },
            "importance": dict(self.summary.importance),
            "notes": list(self.notes),
        }


def run_tune(
    config_path: Path,
    out: Path,
    options: TuneOptions,
    *,
    notify: Callable[[str], None],
) -> TuneReport:
    """Search for the best values of a configuration, or continue a search.

    The folder `out` gets a folder for each trial, `best.toml`, `best.rooftrace`,
    `study.json` with the returned report, and `study.db` unless there is another storage.

    Args:
        config_path: The TOML file, see `train.config` and `train.tune.space`. Relative paths in it
            start from its folder.
        notify: Function called with each line of progress.

    Raises:
        MissingExtraError: Optuna, PyTorch or a package that comes with them is not installed.
        ConfigError: The file, the space or the storage is wrong; the folder or the study belongs
            to another search; the storage has lost the trials of the folder; or no trial has a
            value.
        DataError: The training data cannot be opened; or the storage fails.
        TrainError, ExportError: See `train.tune.study` and `train.export_bundle`.
    """
    try:
        from rooftrace.train.tune.results import TrialReporter, summarise
        from rooftrace.train.tune.space import read_tuning
        from rooftrace.train.tune.study import (
            TRIAL_FOLDERS,
            TuningJob,
            default_storage,
            finished,
            hide_password,
            open_study,
            run_trials,
        )
    except ImportError as error:
        package = (error.name or "torch").partition(".")[0]
        extra = "tune" if package in _TUNE_PACKAGES else "train"
        raise MissingExtraError.of(extra, "rooftrace tune", package) from error

    tuning = read_tuning(config_path, options.overrides)
    storage = options.storage or default_storage(out)
    name = options.study or config_path.stem
    record = out / "study.json"
    before = _read_record(record, name)
    minutes = tuning.settings.timeout_minutes
    job = TuningJob(
        tuning=tuning,
        out=out,
        storage=storage,
        study=name,
        trials=options.trials,
        until=math.inf if minutes is None else time.time() + 60 * minutes,
        keep=options.keep,
    )
    shown = hide_password(storage)
    with open_study(tuning, storage, name) as study:
        if not study.trials and any(out.glob(TRIAL_FOLDERS)):
            raise ConfigError(
                f"{out} holds runs of trials, but the study {name!r} in {shown} has none.",
                remedy="Restore the storage from a copy, or choose another folder.",
            )
        notes = _data_notes(tuning, study, notify)
        write_atomically(record, _json({"study": name, "storage": shown, **before}))
        reporter = TrialReporter(study, tuning, notify)
        run_trials(job, study, options.jobs, reporter)
        reporter()
        done = finished(study)
        summary = summarise(study, tuning)
    if len(done) < options.trials:
        notes.append(
            f"The time limit was reached after {len(done)} of {options.trials} trials; the same "
            "command continues the study."
        )
    if summary.best is None:
        raise _no_value(done)
    exported = before.get("best", {}).get("trial") == summary.best.number
    report = _write_results(job, summary, summary.best, done, exported, notes, notify)
    write_atomically(record, _json(report.to_json()))
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
        remedy="Correct the cause, and give the study another name with --study.",
    )


def _write_results(
    job: TuningJob, summary: StudySummary, best: FrozenTrial, done: list[FrozenTrial],
    exported: bool, notes: list[str], notify: Callable[[str], None],
) -> TuneReport:  # fmt: skip
    """Write the configuration and the model of the best trial.

    Args:
        exported: Whether an earlier command has written the model of the trial.
    """
    from rooftrace.train.tune.results import export_best, write_config
    from rooftrace.train.tune.study import folder_of, hide_password

    config, bundle = job.out / "best.toml", job.out / "best.rooftrace"
    write_config(config, job.tuning, best, done, job.study)
    is_exported = exported and bundle.is_file()
    if not is_exported and not export_best(job.tuning, best, job.out, bundle, notify=notify):
        bundle.unlink(missing_ok=True)
        notes.append(
            f"The best trial, {best.number}, ran elsewhere, in {folder_of(best)}; the same command "
            "there writes its model."
        )
    return TuneReport(
        summary=summary,
        storage=hide_password(job.storage),
        config=config,
        bundle=bundle if bundle.is_file() else None,
        notes=tuple(notes),
    )


def _read_record(path: Path, study: str) -> dict[str, Any]:
    """Return the record of an earlier command in the folder; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_bytes())
        recorded_study = record["study"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"The record of the study, {path}, cannot be read: {error!r}.",
            remedy="Choose another folder.",
        ) from error
    if recorded_study != study:
        raise ConfigError(
            f"{path.parent} holds the trials of the study {recorded_study!r}, and not of "
            f"{study!r}.",
            remedy=f"Choose another folder, or give --study {recorded_study}.",
        )
    return dict(record)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
