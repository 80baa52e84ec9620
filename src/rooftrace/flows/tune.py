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
from rooftrace.io.atomic import write_atomically

if TYPE_CHECKING:
    from rooftrace.train.tune.summary import Summary

__all__ = ["TuneOptions", "TuneReport", "run_tune"]

_TUNE = ("optuna", "sklearn", "sqlalchemy", "tomlkit")
"""What the extra `tune` brings."""


@dataclass(frozen=True)
class TuneOptions:
    """How a study is run.

    Args:
        trials: that the study has in the end, those of earlier commands and of other machines
            among them; pruned and failed ones count, those that were lost with their process do
            not.
        storage: a SQLAlchemy address (`postgresql://…`), or the path of a journal file; default
            `study.db` in the folder of the study.
        study: its name in the storage; default that of the configuration.
        jobs: processes that run trials at the same time.
        overrides: `key.path=value`, over the file.
        keep: whether checkpoints of trials that are not the best are kept.
    """

    trials: int
    storage: str | None = None
    study: str | None = None
    jobs: int = 1
    overrides: Sequence[str] = ()
    keep: bool = False


@dataclass(frozen=True)
class TuneReport:
    """What a study came to.

    Args:
        storage: without its password.
        config, bundle, page: what was written; `bundle` is None where the best trial ran on
            another machine.
        notes: what was assumed or left out, for people to see.
    """

    summary: Summary
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
    tell: Callable[[str], None],
) -> TuneReport:
    """Search for the best values of a configuration, or go on with a search.

    In `out`: a folder for each trial, `best.toml`, `best.rooftrace`, `report.html`, `study.json`
    with what this returns, and `study.db` unless there is another storage.

    Args:
        config_path: see `train.tune.space` and `train.tune.config`; relative paths in it start from
            its folder.
        tell: a line of progress.

    Raises:
        MissingExtraError: Optuna, or PyTorch, and what belongs to them is not installed.
        ConfigError: the file, the space or the storage is wrong; the folder or the study is that
            of another search; no trial came to a value.
        DataError: the training data cannot be opened; the storage fails.
        TrainError, ExportError: see `train.tune.workers` and `train.package`.
    """
    try:
        from rooftrace.train.feed import open_data
        from rooftrace.train.tune.config import read_tuning
        from rooftrace.train.tune.outcome import package_best, write_config
        from rooftrace.train.tune.page import render
        from rooftrace.train.tune.progress import Teller
        from rooftrace.train.tune.storage import default_storage, shown_storage
        from rooftrace.train.tune.study import best_of, finished, open_study
        from rooftrace.train.tune.summary import summarise
        from rooftrace.train.tune.trial import folder_of
        from rooftrace.train.tune.workers import Plan, run_trials
    except ImportError as error:
        package = (error.name or "torch").partition(".")[0]
        extra = "tune" if package in _TUNE else "train"
        raise MissingExtraError.of(extra, "rooftrace tune", package) from error

    tuning = read_tuning(config_path, options.overrides)
    storage = options.storage or default_storage(out)
    name = options.study or config_path.stem
    record = out / "study.json"
    before = _read_record(record, name)
    minutes = tuning.settings.timeout_minutes
    plan = Plan(
        tuning=tuning,
        out=out,
        storage=storage,
        study=name,
        trials=options.trials,
        until=math.inf if minutes is None else time.time() + 60 * minutes,
        keep=options.keep,
    )
    with open_study(tuning, storage, name) as study:
        notes: list[str] = []
        if not finished(study):
            # What is wrong with the data is wrong in every trial, and is said before the first.
            notes += open_data(tuning.first_config(), tuning.base).notes
            for note in notes:
                tell(note)
        write_atomically(
            record, _json({"study": name, "storage": shown_storage(storage), **before})
        )
        run_trials(plan, study, min(options.jobs, options.trials), Teller(study, tuning, tell))
        done = finished(study)
        best = best_of(study, done)
        summary = summarise(study, tuning)
    if len(done) < options.trials:
        notes.append(
            f"The time was over after {len(done)} of {options.trials} trials; the same command "
            "goes on."
        )
    config, page, bundle = out / "best.toml", out / "report.html", out / "best.rooftrace"
    if best is None:
        write_atomically(page, render(summary, best_config="", notes=tuple(notes)).encode())
        failed = [trial for trial in summary.trials if trial.told]
        raise ConfigError(
            f"None of {len(done)} trials came to a value"
            + (f"; trial {failed[-1].number}: {failed[-1].told}" if failed else "."),
            remedy=f"See {page}.",
        )
    write_config(config, tuning, best, done, name)
    packed = before.get("best", {}).get("trial") == best.number and bundle.is_file()
    if not packed and not package_best(tuning, best, out, bundle, tell=tell):
        bundle.unlink(missing_ok=True)
        notes.append(
            f"The best trial, {best.number}, ran elsewhere, in {folder_of(best)}; its model is "
            "made by the same command there."
        )
    text = config.read_text(encoding="utf-8")
    write_atomically(page, render(summary, best_config=text, notes=tuple(notes)).encode())
    report = TuneReport(
        summary=summary,
        storage=shown_storage(storage),
        config=config,
        bundle=bundle if bundle.is_file() else None,
        page=page,
        notes=tuple(notes),
    )
    write_atomically(record, _json(report.to_json()))
    return report


def _read_record(path: Path, study: str) -> dict[str, Any]:
    """What an earlier command has left in the folder; empty where there was none."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        named = record["study"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"The record of the study, {path}, cannot be read: {error!r}.",
            remedy="Choose another folder.",
        ) from error
    if named != study:
        raise ConfigError(
            f"{path.parent} holds the trials of the study {named!r}, and not of {study!r}.",
            remedy=f"Choose another folder, or give --study {named}.",
        )
    return dict(record)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
