"""A study: its storage, its trials, and their distribution to any number of processes.

Optuna has parts of this for some storages only. Its heartbeat needs a database and fails trials by
the database's clock; a journal file has none. Its limit on the number of trials
(`MaxTrialsCallback`) counts finished ones, so that several processes exceed it. Here both work
alike on every storage: running trials count, and a trial without a heartbeat is run again.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import optuna
import sqlalchemy.exc
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from rooftrace.core.config import differences
from rooftrace.core.errors import ConfigError, DataError, ExportError
from rooftrace.core.text import first_line
from rooftrace.train.tune.space import TuneConfig, Tuning

HEARTBEAT_S = 10.0
"""Seconds between two heartbeats of a running trial."""

SILENCE_S = 60.0
"""Seconds without a heartbeat after which a trial counts as lost with its process."""

_LOCK_TIMEOUT_S = 60
"""Seconds that a process waits for others that write to the same SQLite file."""

_ATTEMPTS = 5
_POLL_S = 1.0

_CONFIGURATION, _PROCESS, _BEAT, _REASON = "configuration", "process", "beat", "reason"
"""Names of user attributes of studies and trials in the storage."""

_CHANGEABLE = ("device", "export", "workers", "tune.timeout_minutes")
"""Keys that may change when a study is resumed: the value of a trial does not depend on them."""


class TrialOutcome(StrEnum):
    """State of a trial, or how it ended."""

    complete = "complete"
    pruned = "pruned"
    failed = "failed"
    running = "running"
    lost = "lost"


def outcome(trial: FrozenTrial) -> TrialOutcome:
    """Return the outcome of a recorded trial.

    A failed trial has a reason. A trial that was lost with its process has none and does not
    count: another trial takes its place.
    """
    if trial.state == TrialState.COMPLETE:
        return TrialOutcome.complete
    if trial.state == TrialState.PRUNED:
        return TrialOutcome.pruned
    if trial.state == TrialState.FAIL:
        return TrialOutcome.failed if failure_reason(trial) else TrialOutcome.lost
    return TrialOutcome.running


def failure_reason(trial: FrozenTrial) -> str:
    """Return why a trial failed; empty if it did not."""
    return str(trial.user_attrs.get(_REASON, ""))


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that are complete, pruned or failed, by number."""
    ends = (TrialOutcome.complete, TrialOutcome.pruned, TrialOutcome.failed)
    return [t for t in study.get_trials(deepcopy=False) if outcome(t) in ends]


def active_and_finished(study: Study) -> list[FrozenTrial]:
    """Return the finished trials and those that run, by number."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state != TrialState.WAITING and outcome(t) != TrialOutcome.lost]


def best_of(study: Study, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """Return the complete trial with the best value; the first of several."""
    complete = [t for t in trials if outcome(t) == TrialOutcome.complete]
    pick = max if study.direction == StudyDirection.MAXIMIZE else min
    return pick(complete, key=lambda t: float(t.value or 0), default=None)


def this_process() -> str:
    """Return the name under which this process records its trials."""
    return f"{platform.node()}:{os.getpid()}"


def trials_running_in(study: Study, process: str) -> list[FrozenTrial]:
    """Return the running trials of a process."""
    return [
        t
        for t in active_and_finished(study)
        if outcome(t) == TrialOutcome.running and t.user_attrs.get(_PROCESS) == process
    ]


def mark_lost(study: Study, trials: Iterable[FrozenTrial | Trial]) -> None:
    """Record that trials have no result, so that others take their place."""
    for trial in trials:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def mark_failed(study: Study, trial: Trial, reason: str) -> None:
    """Record that a trial failed by its own fault, and why."""
    trial.set_user_attr(_REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


@contextmanager
def heartbeat(trial: Trial, every_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Record heartbeats of a trial while the block runs."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            # A heartbeat that could not be recorded is no reason to end: the next one may be.
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


class TrialAllocator:
    """Hands out trials until a study has the wanted number, to any processes on any machines.

    Every storage numbers its trials in one order. A process that asked for a trial keeps it only
    if fewer than `total` trials that count have lower numbers. No trial is therefore run twice,
    and the number is never exceeded.

    Args:
        total: Number of trials of the study in all, including those of earlier commands and of
            other machines.
        may_begin: Function called before each trial; False ends the work.
        silence_s: Seconds without a heartbeat after which a trial is lost; default `SILENCE_S`.
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
        """Return a trial to run; None when all are finished or none may begin.

        While the last trials run elsewhere, it waits: a trial that is lost there is run here.
        """
        while self._may_begin():
            mark_lost(self._study, self._silent())
            if len(finished(self._study)) >= self._total:
                return None
            if len(active_and_finished(self._study)) < self._total:
                trial = self._ask()
                if trial is not None:
                    return trial
            time.sleep(_POLL_S)
        return None

    def _ask(self) -> Trial | None:
        trial = self._study.ask()
        trial.set_user_attr(_PROCESS, this_process())
        before = [t for t in active_and_finished(self._study) if t.number < trial.number]
        if len(before) >= self._total:
            mark_lost(self._study, [trial])
            return None
        # One sampler per trial: with one per process, two processes that run at the same time
        # would draw the same values, and a resumed study would draw its first values again.
        self._study.sampler = _make_sampler(self._settings, trial.number)
        return trial

    def _silent(self) -> list[FrozenTrial]:
        """Return running trials without a new heartbeat since this process began to watch.

        The clock of another machine is never used.
        """
        now, silent = time.monotonic(), []
        for trial in active_and_finished(self._study):
            if outcome(trial) != TrialOutcome.running:
                continue
            beat = trial.user_attrs.get(_BEAT, -1)
            last, since = self._beats.get(trial.number, (None, now))
            if last != beat:
                since = now
            self._beats[trial.number] = beat, since
            if now - since > self._silence_s:
                silent.append(trial)
        return silent


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
        return HyperbandPruner(settings.warmup_epochs, tuning.max_epochs)
    return NopPruner()


@contextmanager
def open_study(tuning: Tuning, storage: str, name: str) -> Iterator[Study]:
    """Open the study with this name, or create it.

    Raises:
        ConfigError: The study has another configuration; see also `open_storage`.
        DataError: The storage fails while it is used.
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
        _check_same_configuration(study, tuning, name, storage)
        yield study


def _check_same_configuration(study: Study, tuning: Tuning, name: str, storage: str) -> None:
    """Raise ConfigError unless all trials of the study have this configuration."""
    now = {**tuning.space.raw, "tune": tuning.settings.model_dump(mode="json")}
    now = json.loads(json.dumps(now, default=str))
    before = study.user_attrs.get(_CONFIGURATION)
    if before is None:
        study.set_user_attr(_CONFIGURATION, now)
    elif changes := differences(before, now, free=_CHANGEABLE):
        raise ConfigError(
            f"The study {name!r} in {hide_password(storage)} has another configuration: {changes}.",
            remedy="Give the new study another name with --study, and another folder.",
        )


def default_storage(out: Path) -> str:
    """Return the address of a SQLite file in the folder of the study."""
    return f"sqlite:///{(out / 'study.db').resolve()}"


def hide_password(storage: str) -> str:
    """Return the address of a storage without its password."""
    password = urlsplit(storage).password if "://" in storage else None
    return storage.replace(f":{password}@", ":***@") if password else storage


@contextmanager
def open_storage(storage: str) -> Iterator[BaseStorage]:
    """Open a storage, and create it if it does not exist.

    Args:
        storage: An address for SQLAlchemy (`sqlite:///study.db`, `postgresql://…`), or the path of
            a journal file, which may lie on a network drive.

    Raises:
        ConfigError: The kind of storage is unknown, its driver is not installed, or it does not
            answer.
        ExportError: The file of a storage cannot be written.
    """
    if "://" not in storage:
        with translate_storage_errors(storage):
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            yield JournalStorage(JournalFileBackend(storage))
        return
    opened = _open_database(storage)
    try:
        with translate_storage_errors(storage):
            yield opened
    finally:
        opened.engine.dispose()


@contextmanager
def translate_storage_errors(storage: str) -> Iterator[None]:
    """Raise DataError for a storage that fails inside the block."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise DataError(
            f"The storage {hide_password(storage)} failed: {first_line(error.__cause__ or error)}.",
            remedy="Recorded trials are kept. Start the same command again when it answers.",
        ) from error


def _open_database(storage: str) -> RDBStorage:
    address = hide_password(storage)
    if storage.startswith("sqlite:///"):
        Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    is_sqlite = storage.startswith("sqlite:")
    options = {"connect_args": {"timeout": _LOCK_TIMEOUT_S}} if is_sqlite else {}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return RDBStorage(storage, engine_kwargs=options)
        except ImportError as error:
            raise ConfigError(
                f"The storage {address} needs a driver that is not installed: {error}.",
                remedy="Install it: psycopg2-binary for postgresql://, PyMySQL for mysql+pymysql://.",
            ) from error
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigError(
                f"The storage {address} is not an address that SQLAlchemy knows: {error}.",
                remedy="Give sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME, or the path "
                "of a journal file.",
            ) from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            # Two processes may create the tables at once; the second finds that they exist.
            if attempt == _ATTEMPTS:
                reason = first_line(error.__cause__ or error)
                if is_sqlite and isinstance(error, sqlalchemy.exc.OperationalError):
                    raise ExportError(
                        f"The storage {address} cannot be opened: {reason}.",
                        remedy="Choose a folder with write permission and free space with -o or "
                        "--storage, or make space and start the same command again.",
                    ) from error
                if is_sqlite:
                    raise ConfigError(
                        f"The storage {address} cannot be opened: {reason}.",
                        remedy="Check that the file is the storage of a study, or name another.",
                    ) from error
                raise ConfigError(
                    f"The storage {address} cannot be opened: {reason}.",
                    remedy="Check the address, the name and the password, and that it answers.",
                ) from error
            time.sleep(0.2 * attempt)
    raise AssertionError("the last attempt returns or raises")
