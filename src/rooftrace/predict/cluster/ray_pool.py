"""A pool of workers on Ray: actors that hold one engine each, wherever the cluster has room.

https://docs.ray.io/en/latest/ray-core/actors.html
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Protocol

from rooftrace.core.errors import ConfigError, MissingExtraError, PredictError, RooftraceError
from rooftrace.predict.cluster.pool import Answered, Event, Failed, Joined, Lost, Token
from rooftrace.predict.cluster.worker import BlockWorker, Facts
from rooftrace.predict.model_set import ModelSet

__all__ = ["ClusterOptions", "RayPool"]

_THREADS_PER_WORKER = 4
"""Where nobody says how many workers: more of a machine's cores help one network little."""

_CALLS_AT_ONCE = 4
"""Of a worker: two blocks that are run, one that is finished, one that is dropped."""

_PATIENCE_S = 120.0
"""Without a single worker, before the run is given up; what is done is kept."""

_RESTARTS_WITHIN_S = 5.0
"""After a loss, before another worker is asked for: the cluster has to notice first."""

_KNOCK_S = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """Where a run is spread over.

    Args:
        address: `local` starts Ray on this machine for the run; `auto` finds the cluster that this
            machine is part of; `HOST:PORT` is a cluster's own.
        workers: engines; default one for each GPU's share, or for each four cores.
        gpus_per_worker: of a worker, 0.5 being half of one; 0 runs on processors.
    """

    address: str = "local"
    workers: int | None = None
    gpus_per_worker: float = 0.0


class _Ready(Protocol):
    def facts(self) -> Facts: ...


@dataclass
class _Worker:
    actor: Any
    ready: bool = False


@dataclass(frozen=True)
class _Call:
    worker: int
    token: Token | None
    """None of the first call, which tells the facts."""


class RayPool:
    """Workers that each are an actor; see `Pool`. To be entered.

    Args:
        options: where.
        models: sent to every machine once.
        make: what a worker is, of models, threads and the folder where the run was begun.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster answers, or it has not what was asked for.
    """

    def __init__(
        self,
        options: ClusterOptions,
        models: ModelSet,
        make: Callable[[ModelSet, int | None, Path], _Ready] = BlockWorker,
    ) -> None:
        self._ray = _imported()
        self._options = options
        self._models = models
        self._make = make
        self._workers: dict[int, _Worker] = {}
        self._calls: dict[Any, _Call] = {}
        self._numbers = itertools.count()
        self._begun = False
        self._open = ExitStack()
        self._alone_since = monotonic()
        self._asked_again: list[float] = []
        self._last_reason = ""

    def __enter__(self) -> RayPool:
        # Ray tells of lost nodes on the standard output, which is for answers.
        self._open.enter_context(redirect_stdout(sys.stderr))
        try:
            self._connect()
            self.size, self._cpus = self._fitting()
            self._shared = self._ray.put(self._models)
            for _ in range(self.size):
                self._start()
        except BaseException:
            self._disconnect()
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            self._ray.kill(worker.actor)
        self._workers.clear()
        self._calls.clear()
        self._disconnect()
        self._open.close()

    def share(self, value: Any) -> Any:
        return self._ray.put(value)

    def call(self, worker: Hashable, token: Token, method: str, given: Sequence[Any]) -> None:
        assert isinstance(worker, int)
        ref = self._workers[worker].actor.do.remote(method, *given)
        self._calls[ref] = _Call(worker, token)

    def dismiss(self, worker: Hashable, why: str) -> None:
        assert isinstance(worker, int)
        self._last_reason = why
        self._forget(worker)

    def wait(self, timeout_s: float) -> list[Event]:
        for due in [due for due in self._asked_again if due <= monotonic()]:
            self._asked_again.remove(due)
            self._start()
        if any(worker.ready for worker in self._workers.values()):
            self._alone_since = monotonic()
        elif not self._is_promising:
            reason = self._last_reason or "the cluster gives none"
            raise PredictError(
                f"No worker is left: {reason}.",
                remedy="Give the same command again when the cluster is well; what is done is "
                "kept.",
            )
        if not self._calls:
            # The other thread has blocks to take, and needs the processor.
            sleep(timeout_s)
            return []
        known = list(self._calls)
        done, _ = self._ray.wait(known, num_returns=1, timeout=timeout_s, fetch_local=False)
        if done:
            # All that came meanwhile, too.
            done, _ = self._ray.wait(known, num_returns=len(known), timeout=0, fetch_local=False)
        return [event for ref in done if (event := self._event(ref)) is not None]

    @property
    def _is_promising(self) -> bool:
        """Whether a worker may come yet."""
        waiting = bool(self._workers or self._asked_again)
        return waiting and monotonic() - self._alone_since < _PATIENCE_S

    def _event(self, ref: Any) -> Event | None:
        call = self._calls.pop(ref, None)
        if call is None or call.worker not in self._workers:
            # Of a worker that was lost.
            return None
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            return self._raised(call, error)
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                # Before any of our own code: the package is not there, or of another version.
                return self._unfit(call.worker, _not_begun(error))
            return self._lose(call.worker, _first_line(error))
        if call.token is None:
            self._workers[call.worker].ready = True
            return Joined(call.worker, value)
        return Answered(call.worker, call.token, value)

    def _raised(self, call: _Call, error: Any) -> Event | None:
        cause = error.cause
        told = (
            cause
            if isinstance(cause, RooftraceError)
            else PredictError(
                f"A worker failed: {type(cause).__name__}: {_first_line(cause)}.",
                remedy="Please report it, with Ray's log of the worker.",
            )
        )
        if call.token is not None:
            return Failed(call.worker, call.token, told)
        return self._unfit(call.worker, told)

    def _unfit(self, number: int, error: RooftraceError) -> Lost:
        """A worker could not be made: on its machine another one could not, either."""
        self._forget(number)
        if not (self._workers or self._asked_again):
            raise error
        self._last_reason = error.message.rstrip(".")
        return Lost(number, self._last_reason)

    def _lose(self, number: int, reason: str) -> Lost:
        self._last_reason = reason
        self._forget(number)
        self._asked_again.append(monotonic() + _RESTARTS_WITHIN_S)
        return Lost(number, reason)

    def _forget(self, number: int) -> None:
        worker = self._workers.pop(number, None)
        if worker is not None:
            self._ray.kill(worker.actor)
        for ref in [ref for ref, call in self._calls.items() if call.worker == number]:
            del self._calls[ref]

    def _start(self) -> None:
        number = next(self._numbers)
        actor = self._remote().remote(
            self._make, self._shared, None if self._options.gpus_per_worker else int(self._cpus),
            Path.cwd(),
        )  # fmt: skip
        self._workers[number] = _Worker(actor)
        self._calls[actor.do.remote("facts")] = _Call(number, None)

    def _remote(self) -> Any:
        return self._ray.remote(_Actor).options(
            num_cpus=self._cpus,
            num_gpus=self._options.gpus_per_worker,
            max_concurrency=_CALLS_AT_ONCE,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )

    # The cluster.

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        address = self._options.address
        if address not in ("local", "auto"):
            _knock(address)
        # Nothing is told to anybody outside of the cluster.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        own = {"include_dashboard": False} if address == "local" else {}
        try:
            self._ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=False, **own,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(address, _first_line(error)) from error
        self._begun = True

    def _disconnect(self) -> None:
        if self._begun:
            self._ray.shutdown()
            self._begun = False

    def _fitting(self) -> tuple[int, float]:
        """How many workers, and how many cores each."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [float(node.get("CPU", 0)) for node in nodes]
        gpus = [float(node.get("GPU", 0)) for node in nodes]
        share = self._options.gpus_per_worker
        if share:
            room = sum(int(count / share + 1e-9) for count in gpus)
            if not room:
                raise ConfigError(
                    f"--gpus-per-worker {share:g} was given, and the cluster has "
                    f"{sum(gpus):g} GPUs on {len(nodes)} machines.",
                    remedy="Leave it out to run on processors.",
                )
            wanted = self._options.workers or room
            return wanted, min(1.0, sum(cpus) / max(wanted, 1))
        wanted = self._options.workers or sum(
            max(1, int(count) // _THREADS_PER_WORKER) for count in cpus if count >= 1
        )
        # As many cores for each as all of them find.
        most = next(
            (
                float(each)
                for each in range(int(max(cpus, default=0)), 0, -1)
                if sum(int(count) // each for count in cpus) >= wanted
            ),
            None,
        )
        if not wanted or most is None:
            raise ConfigError(
                f"{wanted} workers were asked for, and the cluster has {sum(cpus):g} cores on "
                f"{len(nodes)} machines; a worker needs one.",
                remedy="Ask for fewer with --workers, or give the cluster more machines.",
            )
        return wanted, most


class _Actor:
    """What Ray runs in a process of its own."""

    def __init__(
        self,
        make: Callable[[ModelSet, int | None, Path], _Ready],
        models: ModelSet,
        threads: int | None,
        folder: Path,
    ) -> None:
        self._arguments = make, models, threads, folder
        self._worker: Any = None

    def do(self, method: str, *given: Any) -> Any:
        """One of the worker's methods; the first call, `facts`, makes it."""
        if self._worker is None:
            make, models, threads, folder = self._arguments
            # Here, so that what goes wrong is told as of a call.
            self._worker = make(models, threads, folder)
        return getattr(self._worker, method)(*given)


def _knock(address: str) -> None:
    """Raises ConfigError where nobody listens: Ray itself would ask on for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(
            f"--address {address} is no address of a cluster; expected local, auto or HOST:PORT.",
            remedy="See what ray start --head has printed.",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"No Ray cluster answers at {address}: {why}.",
        remedy="Start one with ray start --head, or leave out --address for this machine alone.",
    )


def _not_begun(error: BaseException) -> PredictError:
    cause = str(error).strip().splitlines()[-1].strip()
    return PredictError(
        f"A worker cannot begin: {cause[:300].rstrip('.')}.",
        remedy="Install rooftrace[ray] on every machine of the cluster, in the same version.",
    )


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError.of("ray", "--cluster ray", error.name or "ray") from error
    return ray


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300].rstrip(".")
