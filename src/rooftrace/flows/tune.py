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
    from rooftrace.train.tune.results import StudySummary

_TUNE_PACKAGES = ("optuna", "sklearn", "sqlalchemy", "tomlkit")
"""Packages of the extra `tune`."""


@dataclass(frozen=True)
class TuneOptions:
    """Options of a study.

    Args:
        trials: Number of trials that the study has in the end, including those of earlier commands
            and of other machines. Pruned and failed trials count; trials that were lost with their
            process do not.
        storage: A SQLAlchemy address (`postgresql://…`), or the path of a journal file; default
            `study.db` in the folder of the study.
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
        config, bundle, page: Files that were written; `bundle` is None if the best trial ran on
            another machine.
        notes: Assumptions and omissions, as sentences.
    """

    summary: StudySummary
    storage: str
    config: Path
    bundle: Path | None
    page: Path
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        best = self.summary.best
        assert best is not None
        return {
            "study": self.summary.study,
            "storage": self.storage,
            "monitor": self.summary.monitor,
            "trials": self.summary.counts,
            "best": {
                "trial": best.number,
                "value": best.value,
                "params": dict(best.params),
                "config": str(self.config),
                "bundle": None if self.bundle is None else str(self.bundle),
            },
            "importance": dict(self.summary.importance),
            "report": str(self.page),
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

    The folder `out` gets a folder for each trial, `best.toml`, `best.rooftrace`, `report.html`,
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
        TrainError, ExportError: See `train.tune.trial` and `train.export_bundle`.
    """
    try:
        from rooftrace.train.datamodule import open_data
        from rooftrace.train.tune.results import (
            TrialReporter,
            export_best,
            study_page,
            summarise,
            write_config,
        )
        from rooftrace.train.tune.space import read_tuning
        from rooftrace.train.tune.study import (
            best_of,
            default_storage,
            finished,
            hide_password,
            open_study,
        )
        from rooftrace.train.tune.trial import TRIAL_FOLDERS, TuningJob, folder_of, run_trials
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
    with open_study(tuning, storage, name) as study:
        if not study.trials and any(out.glob(TRIAL_FOLDERS)):
            raise ConfigError(
                f"{out} holds runs of trials, but the study {name!r} in {hide_password(storage)} "
                "has none.",
                remedy="Restore the storage from a copy, or choose another folder.",
            )
        notes: list[str] = []
        if not finished(study):
            # A mistake in the data would fail every trial; it is reported before the first.
            notes += open_data(tuning.first_config(), tuning.base).notes
            for note in notes:
                notify(note)
        if tuning.first_config().refine is not None:
            notes.append(
                "A search trains no refiner, and its model has none: rooftrace train best.toml "
                "trains both."
            )
        write_atomically(
            record, _json({"study": name, "storage": hide_password(storage), **before})
        )
        reporter = TrialReporter(study, tuning, notify)
        run_trials(job, study, min(options.jobs, options.trials), reporter)
        done = finished(study)
        best = best_of(study, done)
        summary = summarise(study, tuning)
    if len(done) < options.trials:
        notes.append(
            f"The time limit was reached after {len(done)} of {options.trials} trials; the same "
            "command continues the study."
        )
    config, page, bundle = out / "best.toml", out / "report.html", out / "best.rooftrace"
    if best is None:
        write_atomically(page, study_page(summary, best_config="", notes=tuple(notes)).encode())
        failed = [trial for trial in summary.trials if trial.note]
        raise ConfigError(
            f"None of {len(done)} trials has a value"
            + (f"; trial {failed[-1].number}: {failed[-1].note}" if failed else "."),
            remedy=f"See {page}.",
        )
    write_config(config, tuning, best, done, name)
    is_exported = before.get("best", {}).get("trial") == best.number and bundle.is_file()
    if not is_exported and not export_best(tuning, best, out, bundle, notify=notify):
        bundle.unlink(missing_ok=True)
        notes.append(
            f"The best trial, {best.number}, ran elsewhere, in {folder_of(best)}; the same command "
            "there writes its model."
        )
    text = config.read_text(encoding="utf-8")
    write_atomically(page, study_page(summary, best_config=text, notes=tuple(notes)).encode())
    report = TuneReport(
        summary=summary,
        storage=hide_password(storage),
        config=config,
        bundle=bundle if bundle.is_file() else None,
        page=page,
        notes=tuple(notes),
    )
    write_atomically(record, _json(report.to_json()))
    return report


def _read_record(path: Path, study: str) -> dict[str, Any]:
    """Return the record of an earlier command in the folder; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
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
