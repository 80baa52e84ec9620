"""A study: its storage, its trials, and the best of them as configuration and as model.

A trial that was lost with its process has no reason, does not count, and another takes its place.
"""

import json
import math
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy.exc
import tomlkit
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from rooftrace.core.config import differences, find_paths
from rooftrace.core.errors import ConfigError, DataError, ExportError, RooftraceError
from rooftrace.core.text import first_line
from rooftrace.io.files import relative_name, write_atomically
from rooftrace.train.callbacks import BEST_MONITORED, BestEpoch
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import FitResult, fit
from rooftrace.train.task import check_monitor
from rooftrace.train.tracking import Tracking
from rooftrace.train.tune_space import Parameter, TuneConfig, Tuning, set_value

_MAX_FIRST_FAILURES = 3
"""Number of failed trials, with no other result before, after which a command gives up."""

_CONFIGURATION, _REASON = "configuration", "reason"
"""Names of user attributes of studies and trials in the storage."""

_CHANGEABLE = ("device", "export", "track", "workers", "tune.timeout_minutes")
"""Keys that may change when a study is resumed: the value of a trial does not depend on them."""

TRIAL_FOLDERS = "trial_*"
"""Pattern of the names that `folder_name` returns."""


class TrialOutcome(StrEnum):
    """State of a trial, or how it ended."""

    complete = "complete"
    pruned = "pruned"
    failed = "failed"
    running = "running"
    lost = "lost"


def outcome(trial: FrozenTrial) -> TrialOutcome:
    """Return the outcome of a recorded trial; a failed one has a reason, a lost one has none."""
    if trial.state == TrialState.FAIL:
        return TrialOutcome.failed if failure_reason(trial) else TrialOutcome.lost
    ends = {TrialState.COMPLETE: TrialOutcome.complete, TrialState.PRUNED: TrialOutcome.pruned}
    return ends.get(trial.state, TrialOutcome.running)


def failure_reason(trial: FrozenTrial) -> str:
    """Return why a trial failed; empty if it did not."""
    return str(trial.user_attrs.get(_REASON, ""))


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that are complete, pruned or failed, by number."""
    ends = (TrialOutcome.complete, TrialOutcome.pruned, TrialOutcome.failed)
    return [t for t in study.get_trials(deepcopy=False) if outcome(t) in ends]


def best_of(study: Study, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """Return the complete trial with the best value; the first of several."""
    complete = [t for t in trials if outcome(t) == TrialOutcome.complete]
    pick = max if study.direction == StudyDirection.MAXIMIZE else min
    return pick(complete, key=lambda t: float(t.value or 0), default=None)


def folder_name(number: int) -> str:
    """Return the name of a trial's run in the folder of the study."""
    return f"trial_{number:04d}"


def monitored_epoch(settings: TuneConfig) -> BestEpoch | None:
    """Return the best epoch that a trial saves for the figure of a study; None for `val_iou` and
    `val_loss`, by which every run saves its best epochs.
    """
    if (settings.monitor, settings.maximises) in (("val_iou", True), ("val_loss", False)):
        return None
    return BestEpoch(settings.monitor, 1 if settings.maximises else -1)


@contextmanager
def open_study(tuning: Tuning, out: Path) -> Iterator[Study]:
    """Open the study of a configuration in a folder, or create it.

    Raises:
        ConfigError: The study has another configuration.
        ExportError: The storage cannot be opened or created.
        DataError: The storage fails while it is used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened, settings = _open_storage(out), tuning.settings
    pruner: BasePruner = NopPruner()
    if settings.pruner == "median":
        pruner = MedianPruner(settings.pruner_startup_trials, settings.warmup_epochs)
    try:
        study = optuna.create_study(
            storage=opened,
            study_name=tuning.name,
            direction="maximize" if settings.maximises else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )
        now = {**tuning.space.raw, "tune": settings.model_dump(mode="json")}
        now = json.loads(json.dumps(now, default=str))
        before = study.user_attrs.get(_CONFIGURATION)
        if before is None:
            study.set_user_attr(_CONFIGURATION, now)
        elif changes := differences(before, now, free=_CHANGEABLE):
            raise ConfigError(
                f"The study {tuning.name!r} in {out} has another configuration: {changes}.",
                remedy="Choose another folder for the new study.",
            )
        yield study
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise DataError(
            f"The storage {storage_of(out)} failed: {first_line(error.__cause__ or error)}.",
            remedy="Recorded trials are kept. Start the same command again.",
        ) from error
    finally:
        opened.engine.dispose()


def storage_of(out: Path) -> str:
    """Return the URL of a SQLite file in the folder of the study."""
    return f"sqlite:///{(out / 'study.db').resolve()}"


def _open_storage(out: Path) -> RDBStorage:
    """Open the storage of a folder, and create it if it does not exist."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        return RDBStorage(storage_of(out))
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise ExportError(
            f"The storage {storage_of(out)} cannot be opened: "
            f"{first_line(error.__cause__ or error)}.",
            remedy="Choose a folder with write permission and free space with -o.",
        ) from error


@dataclass(frozen=True)
class TuningJob:
    """The work of one command.

    Args:
        tuning: Configuration with a search space.
        out: Folder of the study and of the trials' runs.
        trials: Number of trials that the study has in the end.
        until: Time after which no trial begins, in seconds of `time.time`.
        keep: Keep the checkpoints of all trials, not only of the best.
        notify: Function called with each warning.
    """

    tuning: Tuning
    out: Path
    trials: int
    until: float
    keep: bool
    notify: Callable[[str], None]


class _TrialFailedError(Exception):
    """A trial failed by its own fault, which it has recorded."""


class _UnknownFigureError(ConfigError):
    """The study monitors a figure that runs do not have."""


class _EpochReporter:
    """Passes the figures of a run on to the study, which may end it."""

    def __init__(self, trial: Trial, tuning: Tuning, epochs: int) -> None:
        self._trial = trial
        self._monitor = tuning.settings.monitor
        self._better = max if tuning.settings.maximises else min
        self._epochs = epochs
        self._best: float | None = None

    def __call__(self, epoch: int, figures: Mapping[str, float]) -> None:
        try:
            check_monitor("tune.monitor", self._monitor, figures)
        except ConfigError as error:
            raise _UnknownFigureError(error.message, remedy=error.remedy) from error
        value = figures[self._monitor]
        if math.isfinite(value):
            self._best = value if self._best is None else self._better(self._best, value)
        self._trial.report(value, epoch)
        # After the last epoch pruning would save nothing.
        if epoch < self._epochs and self._trial.should_prune():
            raise optuna.TrialPruned

    def best_value(self) -> float:
        """Return the value of the best epoch; ConfigError if no epoch has a finite one."""
        if self._best is None:
            raise ConfigError(f"{self._monitor} was not a finite number in any epoch.")
        return self._best


def run_trial(trial: Trial, job: TuningJob) -> float:
    """Draw values for a trial, train, and return the value of the best epoch.

    Raises:
        ConfigError: A run does not have the figure that the study monitors. The trial does not
            count, because it is not its fault.
        optuna.TrialPruned: The trial is behind others.
        _TrialFailedError: The training failed; the trial has the reason.
    """
    run = job.out / folder_name(trial.number)
    tuning = job.tuning
    try:
        config = tuning.config(tuning.space.sample(trial), source=run.name)
        reporter = _EpochReporter(trial, tuning, config.epochs)
        monitored = monitored_epoch(tuning.settings)
        with Tracking(config, run, job.notify, store=job.out) as tracking:
            fit(
                config, run, base=tuning.base, on_epoch=reporter, monitored=monitored,
                callbacks=[tracking.callback()],
            )  # fmt: skip
            value = reporter.best_value()
            tracking.finish({f"best/{tuning.settings.monitor}": value}, config.epochs)
        return value
    except (optuna.exceptions.OptunaError, _UnknownFigureError):
        raise
    except Exception as error:  # a network of unusual proportions may raise anything
        reason = error.in_full if isinstance(error, RooftraceError) else ""
        if not reason:
            write_atomically(run / "error.txt", traceback.format_exc().encode())
            reason = f"{type(error).__name__}: {error}"[:500]
        trial.set_user_attr(_REASON, reason)
        raise _TrialFailedError(reason) from error


def run_trials(job: TuningJob, study: Study, progress: Callable[[], None]) -> None:
    """Run trials until the study has enough, or the time is over.

    Args:
        progress: Function called whenever a trial has ended.

    Raises:
        ConfigError: The first trials failed, all of them; see also `run_trial`.
        DataError: The storage fails while it is used.
    """
    for lost in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # The folder is locked: the command that ran it is gone.
        study.tell(lost.number, state=TrialState.FAIL)

    def after(study: Study, trial: FrozenTrial) -> None:
        if not job.keep:
            delete_checkpoints(study, job.out)
        progress()
        done = finished(study)
        if len(done) >= _MAX_FIRST_FAILURES and all(failure_reason(one) for one in done):
            raise ConfigError(
                f"The first {len(done)} trials failed; the last of them, {done[-1].number}: "
                f"{failure_reason(done[-1])}",
                remedy="Correct the cause, and start in another folder.",
            )
        if len(done) >= job.trials:
            study.stop()

    if len(finished(study)) >= job.trials:
        return
    settings = job.tuning.settings
    # Not the draws of an earlier command with fewer trials.
    seed = int(np.random.SeedSequence((settings.seed, len(study.trials))).generate_state(1)[0])
    study.sampler = TPESampler(
        n_startup_trials=settings.startup_trials, multivariate=True, seed=seed
    )
    study.optimize(
        lambda trial: run_trial(trial, job),
        timeout=None if math.isinf(job.until) else max(0.0, job.until - time.time()),
        callbacks=[after],
        catch=(_TrialFailedError,),
        # A trainer and its callbacks refer to each other: without this, the images that a trial
        # kept in memory would stay beside those of the next.
        gc_after_trial=True,
    )


def delete_checkpoints(study: Study, out: Path) -> None:
    """Delete the checkpoints of the trials that ended in a folder, except those of the best."""
    # A trial that is not the best of this list can never become the best.
    trials = study.get_trials(deepcopy=False)
    best = best_of(study, trials)
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        if not is_best and outcome(trial) != TrialOutcome.running:
            shutil.rmtree(out / folder_name(trial.number) / "checkpoints", ignore_errors=True)


_MIN_TRIALS_FOR_IMPORTANCE = 4
"""Minimum number of complete trials from which importance is estimated."""


@dataclass(frozen=True)
class StudySummary:
    """The results of a study.

    Args:
        monitor: The monitored figure.
        parameters: The open values of the configuration.
        counts: Number of trials by outcome.
        best: The best trial; None if no trial has a value.
        importance: Share of each parameter; empty if there are too few trials.
    """

    study: str
    monitor: str
    parameters: tuple[Parameter, ...]
    counts: Mapping[str, int]
    best: FrozenTrial | None
    importance: Mapping[str, float]


def summarise(study: Study, tuning: Tuning) -> StudySummary:
    """Read a study.

    The importance of a parameter is the share that it alone has in the variance of the values of
    complete trials, estimated by a forest of regression trees (functional ANOVA: Hutter, Hoos and
    Leyton-Brown 2014).
    """
    done = finished(study)
    counts = Counter(outcome(trial) for trial in study.get_trials(deepcopy=False))
    return StudySummary(
        study=study.study_name,
        monitor=tuning.settings.monitor,
        parameters=tuning.space.parameters,
        counts={str(kind): counts[kind] for kind in TrialOutcome},
        best=best_of(study, done),
        importance=_importance(study, done),
    )


def _importance(study: Study, done: list[FrozenTrial]) -> dict[str, float]:
    complete = [t for t in done if outcome(t) == TrialOutcome.complete]
    if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE or len({t.value for t in complete}) == 1:
        return {}
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


class TrialReporter:
    """Prints a line for each trial that has ended since the last call.

    Args:
        notify: Function called with each line.
    """

    def __init__(self, study: Study, tuning: Tuning, notify: Callable[[str], None]) -> None:
        self._study = study
        self._monitor = tuning.settings.monitor
        self._notify = notify
        self._reported = {trial.number for trial in self._ended()}

    def __call__(self) -> None:
        for trial in self._ended():
            if trial.number not in self._reported:
                self._reported.add(trial.number)
                self._notify(self._line(trial))

    def _ended(self) -> list[FrozenTrial]:
        return [t for t in self._study.get_trials(deepcopy=False) if t.state.is_finished()]

    def _line(self, trial: FrozenTrial) -> str:
        end = outcome(trial)
        if end == TrialOutcome.lost:
            return f"trial {trial.number}  lost with its process; another takes its place"
        text = {
            TrialOutcome.complete: f"{self._monitor} {trial.value or 0:.4f}",
            TrialOutcome.pruned: f"pruned after epoch {trial.last_step}",
        }.get(end, f"failed {failure_reason(trial)}")
        best = best_of(self._study, finished(self._study))
        so_far = f"  (best {best.value:.4f}, trial {best.number})" if best is not None else ""
        values = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in trial.params.items()
        )
        return f"trial {trial.number}  {text}{so_far}  {values}"


def write_config(
    path: Path, tuning: Tuning, best: FrozenTrial, trials: Sequence[FrozenTrial]
) -> None:
    """Write the configuration of the best trial, ready for `rooftrace train`.

    Args:
        path: File to write; relative paths in it are changed to start from its folder.
        best: The best trial.
        trials: All finished trials.
    """
    raw = _with_moved_paths(tuning.space.resolve(best.params), tuning.base, path.parent)
    value = f"{tuning.settings.monitor} {best.value:.6g}"
    lines = [
        f"The best of {len(trials)} trials of {tuning.name!r}: trial {best.number}, {value}.",
        *(f"{p.name} = {best.params[p.name]}, of {p}" for p in tuning.space.parameters),
    ]
    head = "".join(f"# {line}\n" for line in lines)
    write_atomically(path, f"{head}\n{tomlkit.dumps(raw)}".encode())


def best_result(
    tuning: Tuning, best: FrozenTrial, out: Path
) -> tuple[TrainConfig, FitResult, str, str]:
    """Return the best trial: configuration, result, and its best epoch by the figure of the study,
    as `train.export_bundle` takes them: name and, if it is neither of the two, the figure.
    """
    run = out / folder_name(best.number)
    config, settings = tuning.config(best.params, source=run.name), tuning.settings
    name, monitor = "best_iou" if settings.maximises else "best_loss", ""
    if (monitored := monitored_epoch(settings)) is not None:
        name, monitor = BEST_MONITORED, settings.monitor
    record = run / "config.json"
    before = record.read_bytes()
    try:
        # Resuming a run that already has its number of epochs opens it, and trains nothing.
        update = {"epochs": len(best.intermediate_values)}
        result = fit(
            config.model_copy(update=update),
            run,
            base=tuning.base,
            resume=True,
            monitored=monitored,
        )
    finally:
        write_atomically(record, before)
    return config, result, name, monitor


def _with_moved_paths(raw: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """Change relative paths that start from `base` so that they start from `folder`."""
    for key, text in list(find_paths(raw, TrainConfig)):
        # A path that starts with a variable, a home or a root is the same from everywhere.
        if not (text.startswith(("$", "~")) or Path(text).is_absolute()):
            set_value(raw, key, relative_name(base / text, folder))
    return raw
