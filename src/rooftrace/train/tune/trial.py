"""Trials: training runs whose figures a study watches, and the processes that run them."""

from __future__ import annotations

import gc
import math
import multiprocessing
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

import cv2
import optuna
import torch
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from rooftrace.core.errors import ConfigError, RooftraceError, TrainError
from rooftrace.core.parallel import core_count
from rooftrace.io.files import write_atomically
from rooftrace.train.callbacks import BestEpoch
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit
from rooftrace.train.task import check_monitor
from rooftrace.train.tune.space import TuneConfig, Tuning
from rooftrace.train.tune.study import (
    TrialAllocator,
    TrialOutcome,
    best_of,
    failure_reason,
    heartbeat,
    mark_failed,
    mark_lost,
    open_study,
    outcome,
    trials_running_in,
)

_FOLDER, _HOST = "folder", "host"
"""Names of user attributes of trials in the storage."""

_MAX_FIRST_FAILURES = 3
"""Number of failed trials, with no other result before, after which a process gives up."""

_MAX_DEATHS = 3
"""Number of worker processes that may end by themselves before the command gives up."""

_POLL_S = 1.0


@dataclass(frozen=True)
class TuningJob:
    """The work of the processes of one command.

    Args:
        tuning: Configuration with a search space.
        out: Folder of the trials' runs.
        storage, study: Storage that records the trials, and the name of the study there.
        trials: Number of trials that the study has in the end.
        until: Time after which no trial begins, in seconds of `time.time`.
        keep: Keep the checkpoints of all trials, not only of the best.
    """

    tuning: Tuning
    out: Path
    storage: str
    study: str
    trials: int
    until: float
    keep: bool


TRIAL_FOLDERS = "trial_*"
"""Pattern of the names that `folder_name` returns."""


def folder_name(number: int) -> str:
    """Return the name of a trial's run in the folder of the study."""
    return f"trial_{number:04d}"


def folder_of(trial: FrozenTrial) -> str:
    """Return the place of a trial's run as `HOST:PATH`, for a message."""
    return f"{trial.user_attrs.get(_HOST, '?')}:{trial.user_attrs.get(_FOLDER, '?')}"


def monitored_epoch(settings: TuneConfig) -> BestEpoch | None:
    """Return the best epoch that a trial saves for the figure of a study; None for `val_iou` and
    `val_loss`, by which every run saves its best epochs.
    """
    if (settings.monitor, settings.maximises) in (("val_iou", True), ("val_loss", False)):
        return None
    return BestEpoch(settings.monitor, 1 if settings.maximises else -1)


def sample_config(trial: Trial, tuning: Tuning) -> TrainConfig:
    """Return a configuration for a trial; ConfigError if its values contradict each other."""
    return tuning.config(tuning.space.sample(trial), source=folder_name(trial.number))


def run_trial(
    study: Study, trial: Trial, config: TrainConfig, tuning: Tuning, out: Path
) -> TrialOutcome:
    """Train, and record the result.

    Args:
        out: Folder of the study; the run gets a folder of its own there.

    Returns:
        How the trial ended; `lost` if another process has declared it lost in the meantime.

    Raises:
        ConfigError: A run does not have the figure that the study monitors. The trial does not
            count, because it is not its fault.
        KeyboardInterrupt, SystemExit: The process was stopped; the trial does not count.
    """
    run = out / folder_name(trial.number)
    trial.set_user_attr(_HOST, platform.node())
    trial.set_user_attr(_FOLDER, str(run.resolve()))
    reporter = _EpochReporter(trial, tuning, config.epochs)
    try:
        with heartbeat(trial):
            monitored = monitored_epoch(tuning.settings)
            fit(config, run, base=tuning.base, on_epoch=reporter, monitored=monitored)
            value = reporter.best_value()
        study.tell(trial, value)
        return TrialOutcome.complete
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return TrialOutcome.pruned
    except optuna.exceptions.UpdateFinishedTrialError:
        return TrialOutcome.lost
    except optuna.exceptions.OptunaError:
        raise
    except _UnknownFigureError as error:
        mark_lost(study, [trial])
        raise ConfigError(error.message, remedy=error.remedy) from error
    except Exception as error:  # a network of unusual proportions may raise anything
        reason = str(error)
        if not isinstance(error, RooftraceError):
            write_atomically(run / "error.txt", traceback.format_exc().encode())
            reason = f"{type(error).__name__}: {error}"[:500]
        mark_failed(study, trial, reason)
    except BaseException:
        mark_lost(study, [trial])
        raise
    return TrialOutcome.failed


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


def run_trials(job: TuningJob, study: Study, jobs: int, progress: Callable[[], None]) -> None:
    """Run trials until the study has enough, or the time is over.

    Args:
        jobs: Number of processes; 1 runs all trials in this one. Several share its threads. A
            script that asks for them must be guarded by `if __name__ == "__main__":`, as
            `multiprocessing` demands.
        progress: Function called whenever a trial may have ended.

    Raises:
        ConfigError: The first trials failed, all of them; see also `run_trial`.
        DataError: The storage fails while it is used.
        TrainError: Processes ended by themselves repeatedly.
    """
    if jobs == 1:
        _run_in_this_process(job, study, progress)
        return
    threads = max(1, min(torch.get_num_threads(), core_count()) // jobs)
    context = multiprocessing.get_context("spawn")
    workers = [_TrialProcess(context, job, threads) for _ in range(jobs)]
    deaths = 0
    try:
        while workers:
            wait([worker.process.sentinel for worker in workers], timeout=_POLL_S)
            progress()
            for worker in [w for w in workers if not w.process.is_alive()]:
                workers.remove(worker)
                worker.raise_error()
                if worker.process.exitcode:
                    mark_lost(study, trials_running_in(study, worker.name))
                    deaths += 1
                    if deaths == _MAX_DEATHS:
                        raise TrainError(
                            f"{deaths} processes that ran trials ended by themselves, the last "
                            f"with code {worker.process.exitcode}.",
                            remedy="Check whether memory was exhausted, and use fewer --jobs. "
                            'A script that is not guarded by if __name__ == "__main__": also ends '
                            "like this.",
                        )
                    workers.append(_TrialProcess(context, job, threads))
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            mark_lost(study, trials_running_in(study, worker.name))


def delete_checkpoints(study: Study, out: Path) -> None:
    """Delete the checkpoints of the trials that ended in a folder, except those of the best."""
    # A trial that is not the best of this list can never become the best.
    trials = study.get_trials(deepcopy=False)
    best = best_of(study, trials)
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        if not is_best and outcome(trial) != TrialOutcome.running:
            shutil.rmtree(out / folder_name(trial.number) / "checkpoints", ignore_errors=True)


class _TrialProcess:
    """A worker process, and the error that it reports when it cannot continue."""

    def __init__(self, context: SpawnContext, job: TuningJob, threads: int) -> None:
        self._errors, end = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(target=_run_worker, args=(job, threads, end))
        self.process.start()
        end.close()

    @property
    def name(self) -> str:
        """The name of the process, as `this_process` returns it there."""
        return f"{platform.node()}:{self.process.pid}"

    def raise_error(self) -> None:
        with suppress(EOFError):
            if self._errors.poll():
                raise self._errors.recv()


def _run_worker(job: TuningJob, threads: int, errors: Connection) -> None:
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        with open_study(job.tuning, job.storage, job.study) as study:
            _run_in_this_process(job, study, progress=lambda: None)
    except RooftraceError as error:
        errors.send(error)
    except KeyboardInterrupt:
        # The terminal has interrupted the parent process, too.
        pass


def _run_in_this_process(job: TuningJob, study: Study, progress: Callable[[], None]) -> None:
    parent = multiprocessing.parent_process()

    def may_begin() -> bool:
        return time.time() < job.until and (parent is None or parent.is_alive())

    allocator = TrialAllocator(study, job.tuning.settings, job.trials, may_begin=may_begin)
    failures, all_failed = 0, True
    while (trial := allocator.next()) is not None:
        try:
            config = sample_config(trial, job.tuning)
        except ConfigError as error:
            mark_failed(study, trial, str(error))
            progress()
            continue
        result = run_trial(study, trial, config, job.tuning, job.out)
        # A trainer and its callbacks refer to each other: without this, the images that the trial
        # kept in memory would stay beside those of the next.
        gc.collect()
        if not job.keep:
            delete_checkpoints(study, job.out)
        progress()
        failures += result == TrialOutcome.failed
        all_failed = all_failed and result == TrialOutcome.failed
        if all_failed and failures == _MAX_FIRST_FAILURES:
            reason = failure_reason(study.get_trials(deepcopy=False)[trial.number])
            raise ConfigError(
                f"The first {failures} trials failed; the last of them, {trial.number}: {reason}",
                remedy="Correct the cause, and give the study another name with --study.",
            )
