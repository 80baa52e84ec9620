"""A study: its trials, who may run one, and which of them were lost with their process."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from rooftrace.core.config import differences
from rooftrace.core.errors import ConfigError
from rooftrace.train.tune.config import TuneConfig, Tuning
from rooftrace.train.tune.storage import open_storage, shown_storage

__all__ = [
    "Claims",
    "Outcome",
    "beating",
    "best_of",
    "counted",
    "fail",
    "finished",
    "give_up",
    "open_study",
    "outcome",
    "reason",
    "running_in",
    "this_process",
]

BEAT_S = 10.0
"""How often a trial that runs gives a sign of life."""

SILENCE_S = 60.0
"""A trial that gave none for so long was lost with its process."""

_POLL_S = 1.0

_CONFIGURATION, _PROCESS, _BEAT, _REASON = "configuration", "process", "beat", "reason"

# What a trial's value does not depend on may change when a study is taken up again.
_FREE = ("device", "export", "workers", "tune.timeout_minutes")


class Outcome(StrEnum):
    """How a trial stands or ended."""

    complete = "complete"
    pruned = "pruned"
    failed = "failed"
    running = "running"
    lost = "lost"


def outcome(trial: FrozenTrial) -> Outcome:
    """Of a trial as it is recorded.

    A failed one says why. What was lost with its process cannot, and does not count: another trial
    takes its place.
    """
    if trial.state == TrialState.COMPLETE:
        return Outcome.complete
    if trial.state == TrialState.PRUNED:
        return Outcome.pruned
    if trial.state == TrialState.FAIL:
        return Outcome.failed if reason(trial) else Outcome.lost
    return Outcome.running


def reason(trial: FrozenTrial) -> str:
    """Why a trial failed; empty where it did not."""
    return str(trial.user_attrs.get(_REASON, ""))


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that came to an end of their own, by number."""
    ends = (Outcome.complete, Outcome.pruned, Outcome.failed)
    return [t for t in study.get_trials(deepcopy=False) if outcome(t) in ends]


def best_of(study: Study, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the best value; the first of several."""
    complete = [t for t in trials if outcome(t) == Outcome.complete]
    pick = max if study.direction == StudyDirection.MAXIMIZE else min
    return pick(complete, key=lambda t: float(t.value or 0), default=None)


def counted(study: Study) -> list[FrozenTrial]:
    """The finished trials and those that run, by number."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state != TrialState.WAITING and outcome(t) != Outcome.lost]


def this_process() -> str:
    """The name that trials are told by whose they are."""
    return f"{platform.node()}:{os.getpid()}"


@contextmanager
def open_study(tuning: Tuning, storage: str, name: str) -> Iterator[Study]:
    """Open the study of this name, or make it.

    Raises:
        ConfigError: the study there is one of another configuration; see also `open_storage`.
        DataError: the storage fails under way.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with open_storage(storage) as opened:
        study = optuna.create_study(
            storage=opened,
            study_name=name,
            direction="maximize" if tuning.settings.maximises else "minimize",
            pruner=_make_pruner(tuning),
            load_if_exists=True,
        )
        _check_same(study, tuning, name, storage)
        yield study


def give_up(study: Study, trials: Iterable[FrozenTrial | Trial]) -> None:
    """Take note that trials will come to nothing, so that others take their place."""
    for trial in trials:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def fail(study: Study, trial: Trial, told: str) -> None:
    """Record a trial that failed by its own fault, and why."""
    trial.set_user_attr(_REASON, told)
    study.tell(trial, state=TrialState.FAIL)


class Claims:
    """Hands out trials until a study has so many, to any number of processes on any machines.

    Every storage numbers its trials in one order. Who asked for a trial goes on with it only if
    fewer than `total` that count have lower numbers; so none is done twice, and none too many.

    Args:
        total: trials of the study in all, those of earlier commands and other machines among them.
        may_begin: asked before each trial.
        silence_s: after so long without a sign of life a trial is given up; default `SILENCE_S`.
    """

    def __init__(
        self,
        study: Study,
        settings: TuneConfig,
        total: int,
        *,
        may_begin: Callable[[], bool] = lambda: True,
        silence_s: float | None = None,
    ) -> None:
        self._study = study
        self._settings = settings
        self._total = total
        self._may_begin = may_begin
        self._silence_s = SILENCE_S if silence_s is None else silence_s
        self._beats: dict[int, tuple[int, float]] = {}

    def next(self) -> Trial | None:
        """A trial to run; None when all are finished, or none may begin.

        While the last ones run elsewhere, it waits: one that is lost is done here.
        """
        while self._may_begin():
            give_up(self._study, self._silent())
            if len(finished(self._study)) >= self._total:
                return None
            if len(counted(self._study)) < self._total and (trial := self._ask()) is not None:
                return trial
            time.sleep(_POLL_S)
        return None

    def _ask(self) -> Trial | None:
        trial = self._study.ask()
        trial.set_user_attr(_PROCESS, this_process())
        before = [t for t in counted(self._study) if t.number < trial.number]
        if len(before) >= self._total:
            give_up(self._study, [trial])
            return None
        # Not one for the whole process: two that run at the same time would draw the same, and a
        # study that is taken up again would draw once more what it drew first.
        self._study.sampler = _make_sampler(self._settings, trial.number)
        return trial

    def _silent(self) -> list[FrozenTrial]:
        """Running trials whose sign of life did not change while they were watched from here.

        No clock of another machine is trusted.
        """
        now, silent = time.monotonic(), []
        for trial in counted(self._study):
            if outcome(trial) != Outcome.running:
                continue
            beat = trial.user_attrs.get(_BEAT, -1)
            last, since = self._beats.get(trial.number, (None, now))
            if last != beat:
                since = now
            self._beats[trial.number] = beat, since
            if now - since > self._silence_s:
                silent.append(trial)
        return silent


@contextmanager
def beating(trial: Trial, every_s: float = BEAT_S) -> Iterator[None]:
    """Give signs of life for a trial while the block runs."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            # A sign that could not be given is no reason to end: the next one may be.
            with suppress(Exception):
                trial.set_user_attr(_BEAT, count)
            count += 1
            if over.wait(every_s):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def running_in(study: Study, process: str) -> list[FrozenTrial]:
    """The trials that a process was at."""
    return [
        t
        for t in counted(study)
        if outcome(t) == Outcome.running and t.user_attrs.get(_PROCESS) == process
    ]


def _make_sampler(settings: TuneConfig, number: int) -> BaseSampler:
    seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(n_startup_trials=settings.startup_trials, multivariate=True, seed=seed)


def _make_pruner(tuning: Tuning) -> BasePruner:
    settings = tuning.settings
    if settings.pruner == "median":
        return MedianPruner(settings.pruner_startup_trials, settings.warmup_epochs)
    if settings.pruner == "hyperband":
        return HyperbandPruner(settings.warmup_epochs, tuning.most_epochs)
    return NopPruner()


def _check_same(study: Study, tuning: Tuning, name: str, storage: str) -> None:
    """All trials of a study have one configuration."""
    now = {**tuning.space.raw, "tune": tuning.settings.model_dump(mode="json")}
    now = json.loads(json.dumps(now, default=str))
    before = study.user_attrs.get(_CONFIGURATION)
    if before is None:
        study.set_user_attr(_CONFIGURATION, now)
    elif told := differences(before, now, free=_FREE):
        raise ConfigError(
            f"The study {name!r} in {shown_storage(storage)} is one of another configuration: "
            f"{told}.",
            remedy="Give the new study another name with --study, and another folder.",
        )
