"""Prediction on a Ray cluster: small scenes whole by one task each, large ones block by block.

Of a large scene, one task reads and runs the tiles of each block, and another one finishes the
block when the halo outputs of earlier blocks are there. Ray starts a task where there is room,
moves its arguments there, and runs it again if its machine is lost.

https://docs.ray.io/en/latest/ray-core/tasks.html
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import socket
import sys
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, MissingExtraError, PredictError, RooftraceError
from rooftrace.core.parallel import prefetched
from rooftrace.core.text import first_line, plural, reason_of
from rooftrace.engines.base import Engine
from rooftrace.flows.predict.cluster_worker import (
    ClusterJob,
    Facts,
    SharedScene,
    can_be_read,
    finish_block,
    make_call,
    packed,
    predict_scene,
    run_tiles,
    worker_facts,
)
from rooftrace.flows.predict.image_run import PredictRun, SceneTask, SceneTaskResult
from rooftrace.flows.predict.inputs import SceneInput, sizes_px
from rooftrace.flows.predict.run_folder import FinishedImage
from rooftrace.io.files import write_atomically
from rooftrace.io.georeferenced import innermost
from rooftrace.io.service_raster import ServiceRaster
from rooftrace.predict.block import Block, BlockParts
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import SceneBlocks, by_scene
from rooftrace.predict.plan import BLOCK_PX
from rooftrace.predict.predictor import Predictor, TtaChoice

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_THREADS_PER_WORKER = 4
"""Cores for each worker by default; more cores speed up one network only a little."""

_RETRIES = 2
"""Number of times that a task whose worker was lost runs again."""

_JOIN_S = 30.0
"""Seconds in which machines report their engine before the first task. Others report it later."""

_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 5.0

_AHEAD_PER_WORKER = 6
_MIN_AHEAD = 16
"""Number of blocks that are started and not taken, by worker and at least. It bounds the memory."""

_MAX_DELIVERED = 4
"""Number of finished blocks that wait for the caller."""

_WHOLE_PX = 600 * 10**6
"""Maximum number of pixels of a scene that one worker predicts by itself in a run of several
scenes. If the worker is lost, at most a few minutes of work are lost."""

_BLOCK_WORKERS = 4
"""Maximum number of workers whose blocks one driver can receive and finish, see
docs/scale.md."""


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


class _Cluster:
    """Tasks on the machines of a cluster, and the calls of `Workers`.

    `size` is the number of workers: of tasks with an engine that run at the same time.
    """

    def __init__(self, ray: Any, job: ClusterJob, size: int, cpus: float, gpus: float) -> None:
        self._ray = ray
        self.job = job
        self.size = size
        self._cpus, self._gpus = cpus, gpus
        # Without `max_calls`, a task with a GPU ends its process, which would load the model again.
        with_engine = ray.remote(
            num_cpus=cpus, num_gpus=gpus, max_calls=0, max_retries=_RETRIES,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        # A task that needs no engine runs where its arguments are.
        beside = ray.remote(num_cpus=1, max_retries=_RETRIES)
        self._facts = with_engine(worker_facts)
        self._predict_scene = with_engine(predict_scene)
        self._run_tiles = with_engine(run_tiles).options(num_returns=2)
        self._finish_block = beside(finish_block)
        self._call = beside(make_call)
        self._begun_with = {node["NodeID"]: node["NodeManagerHostname"] for node in _alive(ray)}
        self.machines = len({socket.gethostname(), *self._begun_with.values()})
        """Number of machines, this one included."""

    def meet(self) -> list[Facts]:
        """Return the facts of the machines, which load the model, and use those of the first."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as Affinity

        at = {
            self._facts.options(scheduling_strategy=Affinity(node["NodeID"], soft=False)).remote(
                self.job
            ): node["NodeID"]
            for node in _alive(self._ray)
            if node["Resources"].get("CPU", 0) >= self._cpus
            and node["Resources"].get("GPU", 0) >= self._gpus
        }
        done, late = self._ray.wait([*at], num_returns=len(at), timeout=_JOIN_S)
        # A cluster notices late that a machine was lost before: the run goes on without it.
        alive = {node["NodeID"] for node in _alive(self._ray)}
        here = [ref for ref in done if at[ref] in alive]
        refs = here or (self.wait(late)[:1] if late else done)
        facts = [self.get(ref, "A machine") for ref in refs]
        for other in facts[1:]:
            other.check_equals(facts[0])
        self.job = replace(self.job, facts=facts[0])
        return facts

    def share(self, value: Any) -> Any:
        """Return the reference of a value that each machine receives once."""
        return self._ray.put(value)

    def predict(self, task: SceneTask) -> Any:
        """Begin to predict a whole scene; return the reference of its result."""
        return self._predict_scene.remote(self.job, task)

    def run_tiles(self, scene: Any, number: int) -> tuple[Any, Any]:
        """Begin to run the tiles of a block; return the references of both results."""
        tiles, halo = self._run_tiles.remote(self.job, scene, number)
        return tiles, halo

    def finish_block(self, scene: Any, tiles: Any, halos: Sequence[Any]) -> Any:
        """Finish a block when its tiles and halo outputs are there; return the reference."""
        return self._finish_block.remote(scene, tiles, *halos)

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Make a call on any machine; see `Workers`."""
        result: Future[T] = Future()

        def hand_over(done: Future[bytes]) -> None:
            error = done.exception()
            if error is None:
                content = done.result()
                result.set_result(pickle.loads(content))  # noqa: S301  # nosec B301  # of our own
            else:
                result.set_exception(self._explained(error, "The outlines"))

        self._call.remote(packed((work, given))).future().add_done_callback(hand_over)
        return result

    def wait(self, refs: Sequence[Any]) -> list[Any]:
        """Wait until at least one result is there; return the references of those that are."""
        done: list[Any] = []
        while not done:
            done, _ = self._ray.wait(list(refs), timeout=_POLL_S, fetch_local=False)
        return done

    def get(self, ref: Any, name: str) -> Any:
        """Return a result."""
        self.wait([ref])
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            raise self._explained(error, name) from error

    def _explained(self, error: BaseException, name: str) -> RooftraceError:
        """Return what went wrong with a task."""
        task_error = self._ray.exceptions.RayTaskError
        if not isinstance(error, task_error):
            return PredictError(
                f"{name}: {plural(_RETRIES + 1, 'worker')} were lost with it: {first_line(error)}.",
                remedy="Check in Ray's logs why they ended; they may need more memory.",
            )
        cause: Any = error
        while isinstance(cause, task_error):
            # If an argument could not be made, the cause is the error of that task.
            cause = cause.cause
        if isinstance(cause, RooftraceError):
            return cause
        return PredictError(
            f"{name}: a worker failed: {type(cause).__name__}: {first_line(cause)}.",
            remedy="Install the same version of rooftrace[ray] on every machine. If they have it, "
            "please report this error with Ray's log of the worker.",
        )

    def cancel(self, refs: Iterable[Any]) -> None:
        """Give up tasks, of which some may be done."""
        for ref in refs:
            self._ray.cancel(ref)

    def lost(self) -> list[str]:
        """Return the names of machines that were lost since the run has begun."""
        alive = {node["NodeID"] for node in _alive(self._ray)}
        return [name for node, name in self._begun_with.items() if node not in alive]


def _alive(ray: Any) -> list[dict[str, Any]]:
    """Return the nodes that the cluster takes for running."""
    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def cluster_executor(models: ModelSet, options: ClusterOptions) -> Iterator[ClusterExecutor]:
    """Connect to a cluster, and keep it while the context is open; see `executing`.

    Raises:
        ConfigError: No cluster answers, it lacks the requested cores or GPUs, or its machines
            could give different results.
        PredictError: Ray does not start on this machine, or no machine can load the model.
    """
    with MissingExtraError.on_import("ray", "--cluster ray", "ray"):
        import ray
    # Ray reports lost nodes on standard output, which is reserved for results.
    with redirect_stdout(sys.stderr), _connected(ray, options.address):
        size, cpus = _fitting(ray, options)
        gpus = options.gpus_per_worker
        threads = None if gpus else int(cpus)
        job = ClusterJob(uuid.uuid4().hex, ray.put(models), threads, Path.cwd())
        cluster = _Cluster(ray, job, size, cpus, gpus)
        facts = cluster.meet()
        engine = _RemoteEngine(facts[0])
        predictor = Predictor(models.ready(lambda _: engine).bundle, engine)
        yield ClusterExecutor(predictor, models.tta, cluster, facts)


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected already."""
    if ray.is_initialized():
        yield
        return
    if address not in ("local", "auto"):
        _check_listens(address)
    # Ray sends no usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # By default, a task that takes too much memory runs again for ever.
    os.environ.setdefault("RAY_task_oom_retries", str(_RETRIES))
    settings = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            configure_logging=False, **settings,
        )  # fmt: skip
    except Exception as error:  # Ray raises `Exception` itself if a node takes 30 s to start
        if address != "local":
            raise _no_cluster(address, first_line(error)) from error
        raise PredictError(
            f"Ray did not start on this machine: {first_line(error)}.",
            remedy="Run the same command again when the machine is less busy, or without "
            "--cluster ray.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


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


def _fitting(ray: Any, options: ClusterOptions) -> tuple[int, float]:
    """Return the number of workers, and the cores of each."""
    nodes = [node["Resources"] for node in _alive(ray)]
    cpus = [float(node.get("CPU", 0)) for node in nodes]
    gpus = [float(node.get("GPU", 0)) for node in nodes]
    share = options.gpus_per_worker
    if share:
        room = sum(int(count / share + 1e-9) for count in gpus)
        if not room:
            raise ConfigError(
                f"--gpus-per-worker is {share:g}, but the cluster has only "
                f"{sum(gpus):g} GPUs on {plural(len(nodes), 'machine')}.",
                remedy="Leave out --gpus-per-worker to run on CPUs.",
            )
        wanted = options.workers or room
        return wanted, min(1.0, sum(cpus) / max(wanted, 1))
    wanted = options.workers or sum(
        max(1, int(count) // _THREADS_PER_WORKER) for count in cpus if count >= 1
    )
    # The largest number of cores with which all workers fit on the machines.
    sizes = range(int(max(cpus, default=0)), 0, -1)
    fitting = (each for each in sizes if sum(int(count) // each for count in cpus) >= wanted)
    most = next(fitting, None)
    if not wanted or most is None:
        raise ConfigError(
            f"The run needs {plural(wanted, 'worker')}, but the cluster has only {sum(cpus):g} "
            f"cores on {plural(len(nodes), 'machine')}; each worker needs at least one core.",
            remedy="Give a smaller number with --workers, or add machines to the cluster.",
        )
    return wanted, float(most)


class _RemoteEngine(Engine):
    """Description of the engines that run on other machines; it runs nothing itself."""

    def __init__(self, facts: Facts) -> None:
        self.name = facts.engine
        self.precision = facts.precision
        self.settings = facts.settings
        self.notes = facts.notes

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise AssertionError("the engines of this run are on other machines")


_Begun = tuple[SceneBlocks, int | None, Any]
"""Scene, number and result of a block that was begun: a block that an earlier run has finished, or
the reference of what a worker returns. The number is None at the end of the scene."""


@dataclass(frozen=True)
class ClusterExecutor:
    """Runs the network on a cluster; see `LocalExecutor`."""

    predictor: Predictor
    tta: TtaChoice | None
    cluster: _Cluster
    facts: Sequence[Facts]

    def predict_whole(self, run: PredictRun, scenes: Sequence[SceneInput]) -> Sequence[SceneInput]:
        cluster = self.cluster
        run.notes += share_limits(scenes, cluster.size)
        if len(scenes) == 1:
            return scenes
        sizes = sizes_px(scenes)
        # All workers share a scene that is a large part of the run, so that none waits for it.
        fair_px = sum(sizes.values()) / min(cluster.size, _BLOCK_WORKERS)
        limit_px = min(_WHOLE_PX, max(fair_px, BLOCK_PX**2))
        # The largest images come first, so that the run does not wait for one of them at its end.
        # Images that cannot be opened come before them.
        whole = sorted(
            (scene for scene in scenes if sizes[scene.name] <= limit_px),
            key=lambda scene: -(sizes[scene.name] or math.inf),
        )
        waiting: dict[Any, SceneTask] = {}
        for scene in chain(whole, [None]):
            if run.wants_no_more:
                break
            if scene is not None:
                if run.resume(scene):
                    continue
                task = run.task([scene])
                waiting[cluster.predict(task)] = task
            most = 0 if scene is None else 2 * cluster.size
            while len(waiting) > most and not run.wants_no_more:
                for ref in cluster.wait(list(waiting)):
                    self._receive(run, ref, waiting.pop(ref))
        cluster.cancel(waiting)
        return [scene for scene in scenes if sizes[scene.name] > limit_px]

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        return by_scene(self._delivered(scenes))

    def record(self) -> dict[str, Any]:
        processors = list({str(one.processor): one.processor for one in self.facts}.values())
        sets = sorted({one["instruction_set"] for one in processors})
        notes = list(self.facts[0].notes)
        if len(sets) > 1:
            notes.append(
                f"The machines have different instruction sets ({', '.join(sets)}); a few pixels "
                "may depend on which of them ran them."
            )
        lost = self.cluster.lost()
        notes += [f"{name} was lost; other machines did its work again." for name in lost]
        return {
            "processors": processors,
            "notes": notes,
            "cluster": {
                "machines": self.cluster.machines,
                "nodes": [one.node for one in self.facts],
                "lost": len(lost),
            },
        }

    def _receive(self, run: PredictRun, ref: Any, task: SceneTask) -> None:
        """Add a scene that a worker has predicted to a run."""
        scene = task.scenes[0]
        try:
            result: SceneTaskResult = self.cluster.get(ref, scene.shown)
            run.receive(replace(result, images=_written(result, run.out)), task)
        except RooftraceError as error:
            run.failed[scene.name] = error

    def _delivered(
        self, scenes: Iterable[SceneBlocks]
    ) -> Generator[tuple[SceneBlocks, Block | BlockParts | None], None, None]:
        """Yield finished blocks while a thread begins others."""
        with (
            closing(self._finished(scenes)) as finished,
            closing(prefetched(finished, _MAX_DELIVERED, "driver")) as blocks,
        ):
            yield from blocks

    def _finished(
        self, scenes: Iterable[SceneBlocks]
    ) -> Generator[tuple[SceneBlocks, Block | BlockParts | None], None, None]:
        """Yield scenes with their finished blocks in order; None marks the end of a scene."""
        ahead = max(_MIN_AHEAD, _AHEAD_PER_WORKER * self.cluster.size)
        waiting: deque[_Begun] = deque()
        try:
            for begun in self._begun(scenes):
                waiting.append(begun)
                if len(waiting) > ahead:
                    yield from self._taken(*waiting.popleft())
            while waiting:
                yield from self._taken(*waiting.popleft())
        finally:
            self.cluster.cancel(ref for _, _, ref in waiting if not isinstance(ref, Block | None))

    def _begun(self, scenes: Iterable[SceneBlocks]) -> Iterator[_Begun]:
        """Begin the blocks of scenes as they are requested."""
        cluster = self.cluster
        for scene in scenes:
            plan = scene.plan
            scene.workers = cluster
            key = uuid.uuid4().hex
            readable = can_be_read(plan.source)
            shared = cluster.share(SharedScene(key, Path.cwd(), plan, scene.checkpoints, readable))
            halos: dict[int, Any] = {}
            across = len(plan.cols.spans)
            for number in range(len(plan.blocks)):
                if scene.is_stopped:
                    break
                kept = None if scene.checkpoints is None else scene.checkpoints.load(number)
                if kept is not None:
                    halos[number] = cluster.share(kept.halo)
                    yield scene, number, replace(kept.block, resumed=True)
                    continue
                tiles, halos[number] = cluster.run_tiles(shared, number)
                needed = [number, *sorted(plan.contributing(number))]
                received = [halos[other] for other in needed]
                yield scene, number, cluster.finish_block(shared, tiles, received)
                # Ray keeps what tasks still need.
                oldest = plan.rows.contributing(number // across)[0] * across
                for other in [other for other in halos if other < oldest]:
                    del halos[other]
            yield scene, None, None

    def _taken(
        self, scene: SceneBlocks, number: int | None, begun: Any
    ) -> Iterator[tuple[SceneBlocks, Block | BlockParts | None]]:
        """Wait for a block and yield it, unless its scene needs no more blocks."""
        if number is None:
            yield scene, None
        elif isinstance(begun, Block):
            yield scene, begun
        elif scene.is_stopped:
            self.cluster.cancel([begun])
        else:
            plan = scene.plan
            try:
                block, checkpoint = self.cluster.get(
                    begun, f"{plan.source.name}, block at {plan.blocks[number]}"
                )
                if checkpoint is not None and scene.checkpoints is not None:
                    scene.checkpoints.save_packed(number, checkpoint)
            except RooftraceError as error:
                scene.fail(error)
            else:
                yield scene, block


def share_limits(scenes: Sequence[SceneInput], workers: int) -> list[str]:
    """Divide the limits of requests to map services by the number of workers; return notes."""
    notes = []
    for service in dict.fromkeys(innermost(scene.source) for scene in scenes):
        if isinstance(service, ServiceRaster) and workers > 1:
            limits = service.share_limits(workers)
            count = plural(limits.connections, "request")
            notes.append(
                f"{service.name}: the limits of requests are divided by the {workers} workers of "
                f"the cluster. Each makes at most {count} at the same time and "
                f"{limits.per_second:.3g} per second."
            )
    return notes


def _written(result: SceneTaskResult, out: Path) -> dict[str, FinishedImage | RooftraceError]:
    """Write the files of a scene to the results folder, and return the image with their paths."""
    ((name, made),) = result.images.items()
    if isinstance(made, RooftraceError):
        return {name: made}
    for file, content in result.contents.items():
        write_atomically(out / file, content)
    moved: dict[object, str] = {file: str(out / Path(file).name) for file in made.files}
    output = {
        key: moved.get(value, value) if isinstance(value, str) else value
        for key, value in made.record["output"].items()
    }
    return {name: FinishedImage([*moved.values()], {**made.record, "output": output})}
