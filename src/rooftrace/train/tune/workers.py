"""Processes that run trials, one after the other each, until the study has enough of them."""

from __future__ import annotations

import gc
import multiprocessing
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
import cv2
import torch
from optuna.study import Study

from rooftrace.core.errors import ConfigError, RooftraceError, TrainError
from rooftrace.train.tune.config import Tuning
from rooftrace.train.tune.study import (
    Claims,
    Outcome,
    best_of,
    fail,
    give_up,
    open_study,
    outcome,
    reason,
    running_in,
)
from rooftrace.train.tune.trial import draw_config, folder_name, run_trial

__all__ = ["Plan", "run_trials"]

_HOPELESS = 3
"""So many trials that fail, with none that comes to a value before: the rest would fail, too."""

_DEATHS = 3
"""So many processes that end by themselves: the next ones would, too."""

_POLL_S = 1.0


@dataclass(frozen=True)
class Plan:
    """What the processes of a command work at.

    Args:
        out: folder of the trials' runs.
        storage, study: where the trials are recorded, and under which name.
        trials: that the study is to have in all.
        until: no trial begins after this time, in seconds as `time.time` counts them.
        keep: whether the checkpoints of trials that are not the best are kept.
    """

    tuning: Tuning
    out: Path
    storage: str
    study: str
    trials: int
    until: float
    keep: bool


def run_trials(plan: Plan, study: Study, jobs: int, progress: Callable[[], None]) -> None:
    """Run trials until the study has enough, or the time is over.

    Args:
        jobs: processes; 1 runs all in this one. Several share its threads. A script that asks for
            them must be guarded by `if __name__ == "__main__":`, as `multiprocessing` demands.
        progress: called whenever a trial may have ended.

    Raises:
        ConfigError: the first trials failed, all of them; see also `run_trial`.
        DataError: the storage fails under way.
        TrainError: processes ended by themselves, again and again.
    """
    if jobs == 1:
        _work(plan, study, progress)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    workers = [_Worker(context, plan, threads) for _ in range(jobs)]
    deaths = 0
    try:
        while workers:
            wait([worker.process.sentinel for worker in workers], timeout=_POLL_S)
            progress()
            for worker in [w for w in workers if not w.process.is_alive()]:
                workers.remove(worker)
                worker.raise_error()
                if worker.process.exitcode:
                    give_up(study, running_in(study, worker.name))
                    deaths += 1
                    if deaths == _DEATHS:
                        raise TrainError(
                            f"{deaths} processes that ran trials ended by themselves, the last "
                            f"with code {worker.process.exitcode}.",
                            remedy="Look whether the memory was used up, and give fewer --jobs. "
                            'A script that is not guarded by if __name__ == "__main__": ends so '
                            "as well.",
                        )
                    workers.append(_Worker(context, plan, threads))
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
            give_up(study, running_in(study, worker.name))


def tidy(study: Study, out: Path) -> None:
    """Delete the checkpoints of the trials in a folder that ended, but for those of the best."""
    # What is the best of this list cannot be beaten by another of it later.
    trials = study.get_trials(deepcopy=False)
    best = best_of(study, trials)
    for trial in trials:
        is_best = best is not None and trial.number == best.number
        if not is_best and outcome(trial) != Outcome.running:
            shutil.rmtree(out / folder_name(trial.number) / "checkpoints", ignore_errors=True)


class _Worker:
    """A process at work, and what it says when it cannot go on."""

    def __init__(self, context: SpawnContext, plan: Plan, threads: int) -> None:
        self._told, end = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(target=_enter, args=(plan, threads, end))
        self.process.start()
        end.close()

    @property
    def name(self) -> str:
        """As `this_process` says it there."""
        return f"{platform.node()}:{self.process.pid}"

    def raise_error(self) -> None:
        with suppress(EOFError):
            if self._told.poll():
                raise self._told.recv()


def _enter(plan: Plan, threads: int, told: Connection) -> None:
    """The life of a worker."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        with open_study(plan.tuning, plan.storage, plan.study) as study:
            _work(plan, study, progress=lambda: None)
    except RooftraceError as error:
        told.send(error)
    except KeyboardInterrupt:
        # The terminal has told the process that waits for this one, too.
        pass


def _work(plan: Plan, study: Study, progress: Callable[[], None]) -> None:
    parent = multiprocessing.parent_process()

    def may_begin() -> bool:
        return time.time() < plan.until and (parent is None or parent.is_alive())

    claims = Claims(study, plan.tuning.settings, plan.trials, may_begin=may_begin)
    failures, hopeless = 0, True
    while (trial := claims.next()) is not None:
        try:
            config = draw_config(trial, plan.tuning)
        except ConfigError as error:
            fail(study, trial, str(error))
            progress()
            continue
        end = run_trial(study, trial, config, plan.tuning, plan.out)
        # A trainer and its callbacks know one another: without this, the images that the trial
        # kept in memory would stay beside those of the next.
        gc.collect()
        if not plan.keep:
            tidy(study, plan.out)
        progress()
        failures += end == Outcome.failed
        hopeless = hopeless and end == Outcome.failed
        if hopeless and failures == _HOPELESS:
            told = reason(study.get_trials(deepcopy=False)[trial.number])
            raise ConfigError(
                f"The first {_HOPELESS} trials failed; the last of them, {trial.number}: {told}",
                remedy="Mend what it names, and give the study another name with --study.",
            )
