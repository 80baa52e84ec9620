"""`rooftrace train`: from a configuration, or one with a search space, to bundles."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.core.system import sleep_while_waiting
from rooftrace.core.text import print_plain
from rooftrace.io.files import locked, write_atomically, write_json
from rooftrace.models.bundle import read_bundle

if TYPE_CHECKING:
    from optuna.study import Study

    from rooftrace.models.bundle import ModelBundle
    from rooftrace.models.spec import BundleSpec
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.loop import FitResult
    from rooftrace.train.tracking import Tracking
    from rooftrace.train.tune import StudySummary
    from rooftrace.train.tune_space import Tuning


@dataclass(frozen=True)
class TrainReport:
    """The result of a training run.

    Args:
        best: Bundles by name (`best_iou`, `best_loss`, and `refined` after a refinement): epoch
            (from 1), value, path. The value of `refined` is an IoU.
        stopped_because: Reason for the end, as a clause.
        notes: Sentences on models that learnt next to nothing, or less than the start model.
    """

    run: Path
    best: dict[str, tuple[int, float, Path]]
    epochs: int
    stopped_because: str
    images_per_s: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        best = {
            name: {"epoch": epoch, "value": value, "bundle": str(bundle)}
            for name, (epoch, value, bundle) in self.best.items()
        }
        return {
            "run": str(self.run),
            **best,
            "epochs": self.epochs,
            "stopped_because": self.stopped_because,
            "images_per_s": round(self.images_per_s, 3),
            "notes": list(self.notes),
        }


def run_train(
    config_path: Path,
    run: Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    console: Console | None = None,
) -> TrainReport:
    """Train from a TOML file, and write `best_iou.rooftrace` and `best_loss.rooftrace`; with
    `[refine]` also `refined.rooftrace`.

    Args:
        config_path: The TOML file, see `train.config.TrainConfig`. Relative paths in it start from
            its folder.
        run: Folder for all output of the run.
        overrides: `key.path=value` settings that replace values of the file.
        resume: Continue the run that is in the folder, in the segmenter or in the refiner.

    Raises:
        MissingExtraError: PyTorch or a package that comes with it is not installed.
        ConfigError: The file holds a search space, which needs `--trials`.
        ExportError: Another command trains in the folder.
        ConfigError, DataError, ExportError: See `train.loop` and `flows.measure`.
    """
    sleep_while_waiting()
    with MissingExtraError.on_import("train", "rooftrace train", "torch"):
        from rooftrace.train.config import TrainConfig, read_train_config

        # Before the loop is imported, which takes seconds.
        raw = read_train_config(config_path, overrides)
        config = parse_config(raw, TrainConfig, source=str(config_path))

        from rooftrace.train.loop import fit
        from rooftrace.train.tracking import Tracking

    with (
        locked(run / ".rooftrace.lock", str(run)),
        Tracking(config, run, partial(print_plain, console)) as tracking,
    ):
        result = fit(
            config, run, base=config_path.parent, resume=resume, console=console,
            callbacks=[tracking.callback()],
        )  # fmt: skip
        return export_run(config, result, run, resume=resume, console=console, tracking=tracking)


def export_run(
    config: TrainConfig,
    result: FitResult,
    run: Path,
    *,
    resume: bool,
    console: Console | None,
    names: Sequence[str] = ("best_iou", "best_loss"),
    contract: BundleSpec | None = None,
    start: ModelBundle | None = None,
    tracking: Tracking | None = None,
) -> TrainReport:
    """Refine if it is configured, and write the bundles of a run.

    Args:
        config: Configuration, as the bundles record it.
        resume: Continue a refinement that is in the folder.
        names: The best epochs to write.
        tracking: Trackers that receive the figures of the bundles.
    """
    from rooftrace.flows.measure import write_measured

    notify = partial(print_plain, console)
    best: dict[str, tuple[int, float, Path]] = {}
    specs: dict[str, BundleSpec] = {}
    for name in names:
        epoch, value, _ = result.trained.best[name]
        bundle = run / f"{name}.rooftrace"
        same = next((path for other, _, path in best.values() if other == epoch), None)
        if same is None:
            specs[name] = write_measured(
                config, result, name, bundle, contract=contract, start=start, notify=notify
            ).spec
        else:
            # One epoch is the best by both figures: a second export would give the same bytes.
            write_atomically(bundle, same.read_bytes())
        best[name] = (epoch, value, bundle)
    if config.refine is not None:
        from rooftrace.train.refine import REFINED_EPOCH, refine

        more = [] if tracking is None else [tracking.callback("refine/")]
        refined = refine(config, result, run, resume=resume, console=console, callbacks=more)
        bundle = run / "refined.rooftrace"
        specs["refined"] = write_measured(
            config, result, REFINED_EPOCH, bundle, refined=refined, notify=notify
        ).spec
        epoch, value, _ = refined.trained.best["best_iou"]
        best["refined"] = (epoch, value, bundle)
    trained = result.trained
    if tracking is not None:
        tracking.finish_bundles(specs, trained.epochs)
    notes = dict.fromkeys(spec.doubt for key, spec in specs.items() if key != "best_loss")
    notes[worse_than_start(trained.start_iou, trained.best["best_iou"][1])] = None
    return TrainReport(
        run, best, trained.epochs, trained.stopped_because, trained.images_per_s,
        tuple(filter(None, notes)),
    )  # fmt: skip


def worse_than_start(before: float | None, iou: float) -> str:
    """Return the note on a best epoch that is worse than the start model in the third digit."""
    if before is None or round(before, 3) <= round(iou, 3):
        return ""
    return (
        f"The start model has a validation IoU of {before:.3f}, the best epoch {iou:.3f}: the "
        "training made it worse. Lower optimizer.lr, train longer, or use rooftrace finetune."
    )


_TUNE_PACKAGES = ("optuna", "sklearn", "sqlalchemy", "tomlkit")
"""Packages of the extra `tune`."""


@dataclass(frozen=True)
class TuneReport:
    """The result of a study."""

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
        config_path: The TOML file, see `train.config` and `train.tune_space`. Relative paths in it
            start from its folder.
        trials: Number of trials that the study has in the end, including those of earlier commands.
            Pruned and failed trials count; trials that were lost with their process do not.
        overrides: `key.path=value` settings that replace values of the file.
        keep: Keep the checkpoints of all trials, not only of the best.

    Raises:
        MissingExtraError: Optuna, PyTorch or a package that comes with them is not installed.
        ConfigError: The file or the space is wrong; the folder belongs to another search; or no
            trial has a value.
        DataError: The training data cannot be opened; or the storage fails.
        TrainError, ExportError: See `train.tune` and `flows.measure`.
    """
    sleep_while_waiting()
    try:
        from rooftrace.train.tune_space import read_tuning

        # Before the trials are imported, which takes seconds.
        tuning = read_tuning(config_path, overrides)

        from rooftrace.train.tracking import check_trackers
        from rooftrace.train.tune import (
            TRIAL_FOLDERS,
            TrialReporter,
            TuningJob,
            best_result,
            failure_reason,
            finished,
            open_study,
            run_trials,
            storage_of,
            summarise,
            write_config,
        )
    except ImportError as error:
        package = (error.name or "torch").partition(".")[0]
        extra = "tune" if package in _TUNE_PACKAGES else "train"
        raise MissingExtraError.of(extra, "rooftrace train --trials", package) from error

    check_trackers(tuning.first_config())
    record = out / "study.json"
    before = json.loads(record.read_bytes()) if record.is_file() else {}
    minutes = tuning.settings.timeout_minutes
    until = math.inf if minutes is None else time.time() + 60 * minutes
    job = TuningJob(tuning, out, trials, until, keep, notify)
    with locked(out / ".rooftrace.lock", str(out)), open_study(tuning, out) as study:
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
        failed = f"; trial {done[-1].number}: {failure_reason(done[-1])}" if done else "."
        raise ConfigError(
            f"None of {len(done)} trials has a value{failed}",
            remedy="Correct the cause, and start in another folder.",
        )
    config, bundle = out / "best.toml", out / "best.rooftrace"
    write_config(config, tuning, best, done)
    # An earlier command may have written the model of the trial.
    if before.get("best", {}).get("trial") != best.number or not bundle.is_file():
        from rooftrace.flows.measure import write_measured

        best_config, result, name, monitor = best_result(tuning, best, out)
        write_measured(best_config, result, name, bundle, monitor=monitor, notify=notify)
    notes += filter(None, [read_bundle(bundle).spec.doubt])
    report = TuneReport(summary, storage_of(out), config, bundle, tuple(notes))
    write_json(record, report.to_json())
    return report


def _data_notes(tuning: Tuning, study: Study, notify: Callable[[str], None]) -> list[str]:
    """Open the data of a search, and return the notes about it.

    A mistake in the data would fail every trial; it is reported before the first.
    """
    from rooftrace.train.datamodule import open_data
    from rooftrace.train.tune import finished

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
