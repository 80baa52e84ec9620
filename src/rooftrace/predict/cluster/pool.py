"""Pools of workers: the driver calls their methods, and receives the outcomes as events.

`RayPool` is a pool on a Ray cluster. Each worker is an actor with one engine.

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
from rooftrace.core.text import first_line, plural, reason_of
from rooftrace.predict.cluster.worker import BlockWorker, Facts
from rooftrace.predict.model_set import ModelSet

__all__ = [
    "Answered",
    "ClusterOptions",
    "Event",
    "Failed",
    "Joined",
    "Lost",
    "Pool",
    "RayPool",
    "Token",
]

Token = tuple[int, str]
"""Identity of a call: the key of a work item, and the operation on it."""


@dataclass(frozen=True)
class Joined:
    """Event: a worker is ready."""

    worker: Hashable
    facts: Facts


@dataclass(frozen=True)
class Lost:
    """Event: a worker is lost, with all of its calls."""

    worker: Hashable
    reason: str


@dataclass(frozen=True)
class Answered:
    """Event: a call has returned a value."""

    worker: Hashable
    token: Token
    value: Any


@dataclass(frozen=True)
class Failed:
    """Event: a call has raised an error; the worker still runs."""

    worker: Hashable
    token: Token
    error: RooftraceError


Event = Joined | Lost | Answered | Failed


class Pool(Protocol):
    """Workers of a cluster, which may join and leave during a run."""

    @property
    def size(self) -> int:
        """Number of workers that the pool is to have."""
        ...

    @property
    def machines(self) -> int:
        """Number of machines that the pool may use, this one included."""
        ...

    def share(self, value: Any) -> Any:
        """Send a value to each machine once, for use in many calls; return its reference."""
        ...

    def call(self, worker: Hashable, token: Token, method: str, given: Sequence[Any]) -> None:
        """Call a method of a worker; an event with the token reports the outcome."""
        ...

    def dismiss(self, worker: Hashable, why: str) -> None:
        """Stop a worker without a replacement."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call, or nothing after a timeout.

        Raises:
            PredictError: No worker is left, and none comes.
        """
        ...


_THREADS_PER_WORKER = 4
"""Cores for each worker by default; more cores speed up one network only a little."""

_CALLS_AT_ONCE = 6
"""Concurrent calls of a worker: two blocks run, one is finished, one is dropped, and two calls of
`WorkerCalls`."""

_PATIENCE_S = 120.0
"""Maximum number of seconds without any worker. The run then stops; finished blocks are kept."""

_RESTARTS_WITHIN_S = 5.0
"""Seconds between a loss and the start of a new worker; the cluster must notice the loss first."""

_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """Options of the cluster of a run.

    Args:
        address: `local` starts Ray on this machine for the run. `auto` finds the cluster that this
            machine is part of. `HOST:PORT` is the address of a cluster.
        workers: Number of workers, each with one engine. Default: one for each `gpus_per_worker` of
            the cluster's GPUs, or one for each four cores.
        gpus_per_worker: Number of GPUs for each worker. Two workers share a GPU at 0.5. 0 runs on
            CPUs.
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
    """Token of the driver; None for the first call of a worker, `begin`."""


class RayPool:
    """A pool of Ray actors; see `Pool`. It is a context manager, and entering it connects.

    Args:
        options: Options of the cluster.
        models: Models of the run; each machine receives them once.
        make: Function or class that creates a worker from the models, its number of threads, and
            the working directory of the driver.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: No cluster answers, or it lacks the requested cores or GPUs.
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
        self._connected = False
        self._open = ExitStack()
        self._alone_since = monotonic()
        self._asked_again: list[float] = []
        self._last_reason = ""

    def __enter__(self) -> RayPool:
        # Ray reports lost nodes on standard output, which is reserved for results.
        self._open.enter_context(redirect_stdout(sys.stderr))
        try:
            self._connect()
            self.size, self._cpus = self._fitting()
            alive = (node for node in self._ray.nodes() if node["Alive"])
            names = (node["NodeManagerHostname"] for node in alive)
            self.machines = len({socket.gethostname(), *names})
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
        elif not (
            (self._workers or self._asked_again) and monotonic() - self._alone_since < _PATIENCE_S
        ):
            reason = self._last_reason or "the cluster starts none"
            raise PredictError(
                f"No worker is left: {reason}.",
                remedy="Run the same command again when the cluster works; finished blocks are "
                "kept.",
            )
        if not self._calls:
            # The thread of the caller takes blocks, and needs the CPU.
            sleep(timeout_s)
            return []
        known = list(self._calls)
        done, _ = self._ray.wait(known, num_returns=1, timeout=timeout_s, fetch_local=False)
        if done:
            # Include all calls that have returned in the meantime.
            done, _ = self._ray.wait(known, num_returns=len(known), timeout=0, fetch_local=False)
        return [event for ref in done if (event := self._event(ref)) is not None]

    def _event(self, ref: Any) -> Event | None:
        call = self._calls.pop(ref, None)
        if call is None or call.worker not in self._workers:
            # A call of a worker that was lost.
            return None
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            return self._raised(call, error)
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):
                # None of our code has run: the package is missing, or of another version.
                return self._unfit(call.worker, _not_started(error))
            self._last_reason = first_line(error)
            self._forget(call.worker)
            self._asked_again.append(monotonic() + _RESTARTS_WITHIN_S)
            return Lost(call.worker, self._last_reason)
        if call.token is None:
            self._workers[call.worker].ready = True
            return Joined(call.worker, value)
        return Answered(call.worker, call.token, value)

    def _raised(self, call: _Call, error: Any) -> Event | None:
        cause = error.cause
        reported = (
            cause
            if isinstance(cause, RooftraceError)
            else PredictError(
                f"A worker failed: {type(cause).__name__}: {first_line(cause)}.",
                remedy="Please report this error with Ray's log of the worker.",
            )
        )
        if call.token is not None:
            return Failed(call.worker, call.token, reported)
        return self._unfit(call.worker, reported)

    def _unfit(self, number: int, error: RooftraceError) -> Lost:
        """Give up a worker that could not be created; a replacement would fail, too."""
        self._forget(number)
        if not (self._workers or self._asked_again):
            raise error
        self._last_reason = error.message.rstrip(".")
        return Lost(number, self._last_reason)

    def _forget(self, number: int) -> None:
        worker = self._workers.pop(number, None)
        if worker is not None:
            self._ray.kill(worker.actor)
        for ref in [ref for ref, call in self._calls.items() if call.worker == number]:
            del self._calls[ref]

    def _start(self) -> None:
        number = next(self._numbers)
        gpus = self._options.gpus_per_worker
        remote = self._ray.remote(_Actor).options(
            num_cpus=self._cpus, num_gpus=gpus, max_concurrency=_CALLS_AT_ONCE, max_restarts=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        threads = None if gpus else int(self._cpus)
        actor = remote.remote(self._make, self._shared, threads, Path.cwd())
        self._workers[number] = _Worker(actor)
        self._calls[actor.begin.remote()] = _Call(number, None)

    # Connection to the cluster.

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        address = self._options.address
        if address not in ("local", "auto"):
            _check_listens(address)
        # Ray sends no usage statistics.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        own = {"include_dashboard": False} if address == "local" else {}
        try:
            self._ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=False, **own,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(address, first_line(error)) from error
        self._connected = True

    def _disconnect(self) -> None:
        if self._connected:
            self._ray.shutdown()
            self._connected = False

    def _fitting(self) -> tuple[int, float]:
        """Return the number of workers, and the cores of each."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [float(node.get("CPU", 0)) for node in nodes]
        gpus = [float(node.get("GPU", 0)) for node in nodes]
        share = self._options.gpus_per_worker
        if share:
            room = sum(int(count / share + 1e-9) for count in gpus)
            if not room:
                raise ConfigError(
                    f"--gpus-per-worker is {share:g}, but the cluster has only "
                    f"{sum(gpus):g} GPUs on {plural(len(nodes), 'machine')}.",
                    remedy="Leave out --gpus-per-worker to run on CPUs.",
                )
            wanted = self._options.workers or room
            return wanted, min(1.0, sum(cpus) / max(wanted, 1))
        wanted = self._options.workers or sum(
            max(1, int(count) // _THREADS_PER_WORKER) for count in cpus if count >= 1
        )
        # The largest number of cores with which all workers fit on the machines.
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
                f"The run needs {plural(wanted, 'worker')}, but the cluster has only {sum(cpus):g} "
                f"cores on {plural(len(nodes), 'machine')}; each worker needs at least one core.",
                remedy="Give a smaller number with --workers, or add machines to the cluster.",
            )
        return wanted, most


class _Actor:
    """Ray actor: a process that holds one worker."""

    def __init__(
        self,
        make: Callable[[ModelSet, int | None, Path], _Ready],
        models: ModelSet,
        threads: int | None,
        folder: Path,
    ) -> None:
        self._arguments = make, models, threads, folder
        self._worker: Any = None

    def begin(self) -> Any:
        """Create the worker, and return its facts."""
        make, models, threads, folder = self._arguments
        # Created here, so that an error is reported as the error of a call.
        self._worker = make(models, threads, folder)
        return self._worker.facts()

    def do(self, method: str, *given: Any) -> Any:
        """Call a method of the worker."""
        return getattr(self._worker, method)(*given)


def _check_listens(address: str) -> None:
    """Raise ConfigError if no process listens at an address; Ray would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(
            f"--address {address} is not a cluster address; expected local, auto or HOST:PORT.",
            remedy="Use the address that ray start --head has printed.",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _no_cluster(address, reason_of(error)) from error


def _no_cluster(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"No Ray cluster answers at {address}: {why}.",
        remedy="Start one with ray start --head, or leave out --address to use this machine only.",
    )


def _not_started(error: BaseException) -> PredictError:
    cause = str(error).strip().splitlines()[-1].strip()
    return PredictError(
        f"A worker cannot start: {cause[:300].rstrip('.')}.",
        remedy="Install the same version of rooftrace[ray] on every machine of the cluster.",
    )


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError.of("ray", "--cluster ray", error.name or "ray") from error
    return ray
