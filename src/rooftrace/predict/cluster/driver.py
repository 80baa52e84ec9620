"""The driver of a cluster hands out blocks and whole scenes, and receives the results.

Workers read, run and blend blocks and write their checkpoints, or predict a whole scene. The
driver knows the workers, asks the schedule what each one does next, and reports the outcome to it.
It passes the halo outputs of blocks on to later blocks, and yields finished blocks in the order of
the plan.

The driver holds at most `ahead` blocks that are started and not yielded, and the halo outputs that
later blocks still need.
"""

from __future__ import annotations

import pickle
import queue
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Protocol, TypeVar, TypeVarTuple

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.block import Block, BlockParts, Halo, TileOutput, TileStats
from rooftrace.predict.cluster.pool import Answered, Event, Failed, Joined, Lost, Pool
from rooftrace.predict.cluster.schedule import (
    MOST_LOSSES,
    ClusterTally,
    WorkItem,
    WorkOrder,
    WorkSchedule,
)
from rooftrace.predict.cluster.worker import (
    BlockRunResult,
    Facts,
    PackedBlock,
    SharedScene,
    can_be_read,
    packed,
)
from rooftrace.predict.pipeline import SceneBlocks, by_scene

__all__ = ["Driver", "TaskSink", "WorkerTask"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_AHEAD_PER_WORKER = 6
_MIN_AHEAD = 16
_MAX_DELIVERED = 4
"""Maximum number of blocks that wait in the caller's queue."""

_WAIT_S = 0.05


@dataclass
class _RunningScene:
    """A scene whose blocks are handed out.

    Args:
        blocks: The scene, as the caller knows it.
        first: Key of its first block.
        count: Number of its blocks; after a failure, number of blocks handed out before it.
        shared: Reference of the scene that workers receive, see `Pool.share`.
        scheduled: Number of blocks that were handed to the schedule.
        delivered: Number of blocks that were handed to the caller.
        stopped: Whether the scene needs no more blocks.
        ended: Whether the caller was notified that the scene has no more blocks.
    """

    blocks: SceneBlocks
    first: int
    count: int
    shared: Any = None
    scheduled: int = 0
    delivered: int = 0
    stopped: bool = False
    ended: bool = False


@dataclass
class _RunningBlock:
    """A block that was handed out and that the caller has not taken.

    Args:
        scene: Its scene.
        number: Number of the block in the plan.
        finished: The finished block, or what a worker has made of it; None if it is not finished.
        tiles: Counts over its tiles; None if an earlier run finished it.
        received: Halo outputs of earlier blocks, by the key of the block that they come from. A
            block that two workers run gives the same outputs twice; they count once.
    """

    scene: _RunningScene
    number: int
    finished: Block | BlockParts | None = None
    tiles: TileStats | None = None
    received: dict[int, tuple[TileOutput, ...]] = field(default_factory=dict)


class BlockRun:
    """Runs blocks of scenes on workers; see `Driver`.

    Args:
        pool: Pool of `BlockWorker`s.
        scenes: The scenes; they are pulled one after the other as there is room for their blocks.
        ahead: Maximum number of blocks that are started and not taken; default: by the number of
            workers.
    """

    def __init__(self, pool: Pool, scenes: Iterable[SceneBlocks], *, ahead: int | None) -> None:
        self.is_cancelled = False
        self._pool = pool
        self._scenes = iter(scenes)
        self._blocks: dict[int, _RunningBlock] = {}
        self._next = 0
        """Key of the block that is handed over next."""

        self.calls = WorkerCalls(pool)
        self._ready: queue.SimpleQueue[tuple[_RunningScene, int | None]] = queue.SimpleQueue()
        """Blocks for the caller by key, in order; None ends a scene."""

        self._taken: queue.SimpleQueue[int] = queue.SimpleQueue()
        """Keys of the blocks that the caller has finished with."""

        self._delivered = 0
        self._halo: defaultdict[int, dict[int, tuple[TileOutput, ...]]] = defaultdict(dict)
        """Halo outputs for blocks that were not handed out yet, by their keys."""

        ahead = ahead or max(_MIN_AHEAD, _AHEAD_PER_WORKER * pool.size)
        self.schedule = WorkSchedule(self._items(), ahead=ahead)

    # In the caller's thread.

    def finished(
        self, driving: Future[None]
    ) -> Generator[tuple[SceneBlocks, Block | BlockParts | None], None, None]:
        """Yield finished blocks in order, for `by_scene`.

        Args:
            driving: Future that is done when the driver has ended.
        """
        while True:
            try:
                scene, key = self._ready.get(timeout=_WAIT_S)
            except queue.Empty:
                has_ended = driving.done()
                if self._ready.empty() and (has_ended or self.schedule.is_over):
                    if has_ended:
                        driving.result()
                    return
                continue
            if key is None:
                yield scene.blocks, None
                continue
            if not scene.blocks.is_stopped:
                running = self._blocks[key]
                block = running.finished
                assert block is not None
                if running.tiles is not None:
                    block = replace(block, tiles=running.tiles)
                yield scene.blocks, block
            self._taken.put(key)

    # In the driver's thread.

    def step(self) -> bool:
        """Do what can be done now; return True if more work is to come."""
        if self.is_cancelled:
            return False
        for item in self.schedule.pull():
            self._look_up(item.key)
        for order in self.schedule.orders():
            self._send(order)
        self._hand_over()
        self.calls.step(self.schedule.workers)
        # The caller finishes the last scene by calls, and then cancels.
        return True

    def cancel(self) -> None:
        """Stop: the caller wants no more blocks."""
        self.is_cancelled = True

    def notify(self, event: Answered | Failed) -> None:
        """Handle the outcome of a call."""
        match event:
            case Answered(_, (_, "call")) | Failed(_, (_, "call")):
                self.calls.notify(event)
            case Answered(worker, (key, _), BlockRunResult() as result):
                self._ran(worker, key, result)
            case Answered(worker, (key, _), PackedBlock() as packed):
                if self.schedule.finished(worker, key):
                    self._finish(key, packed)
            case Failed(worker, (key, "run" | "finish"), error):
                if self.schedule.failed(worker, key):
                    self._fail(self._blocks[key].scene, error)
            case _:
                # The answer to a drop, or to a call of an earlier run.
                pass

    def lost(self, worker: Hashable) -> None:
        """Handle the loss of a worker."""
        self.calls.leave(worker)
        for key in self.schedule.leave(worker):
            running = self._blocks[key]
            plan = running.scene.blocks.plan
            error = PredictError(
                f"{plan.source.name}: {MOST_LOSSES} workers were lost with the block at "
                f"{plan.blocks[running.number]}.",
                remedy="Check in Ray's logs why they ended; they may need more memory.",
            )
            self._fail(running.scene, error)

    def _items(self) -> Iterator[WorkItem]:
        """Yield the blocks of all scenes, as the schedule has room for them."""
        key = 0
        for number, blocks in enumerate(self._scenes):
            plan = blocks.plan
            scene = _RunningScene(blocks, key, plan.block_count)
            blocks.workers = self.calls
            readable = can_be_read(plan.source)
            scene.shared = self._pool.share(SharedScene(number, plan, blocks.checkpoints, readable))
            for block in range(plan.block_count):
                if scene.stopped:
                    break
                scene.scheduled += 1
                received = self._halo.pop(key, {})
                self._blocks[key] = _RunningBlock(scene, block, received=received)
                needs = frozenset(scene.first + other for other in plan.contributing(block))
                yield WorkItem(key, needs)
                key += 1

    def _look_up(self, key: int) -> None:
        """Skip a block that an earlier run has finished."""
        running = self._blocks[key]
        kept = running.scene.blocks.checkpoints
        checkpoint = None if kept is None else kept.load(running.number)
        if checkpoint is not None:
            running.finished = replace(checkpoint.block, resumed=True)
            self._pass_on(key, checkpoint.halo)
            self.schedule.known(key)

    def _send(self, order: WorkOrder) -> None:
        key = order.key
        running = self._blocks.get(key)
        if running is None:
            # A worker should drop a block that was taken in the meantime.
            return
        given: list[Any] = [running.scene.shared, running.number]
        if order.what == "finish" or (order.what == "run" and self.schedule.is_ready(key)):
            given.append(tuple(one for own in running.received.values() for one in own))
        elif order.what == "run":
            given.append(None)
        self._pool.call(order.worker, (key, order.what), order.what, given)

    def _ran(self, worker: Hashable, key: int, result: BlockRunResult) -> None:
        finished = result.finished
        if not self.schedule.ran(worker, key, finished=finished is not None):
            return
        # A block that runs again after its worker was lost counts once.
        self._blocks[key].tiles = result.tiles
        self._pass_on(key, result.halo)
        if finished is not None:
            self._finish(key, finished)

    def _pass_on(self, key: int, halo: Halo) -> None:
        first = self._blocks[key].scene.first
        by_target: defaultdict[int, list[TileOutput]] = defaultdict(list)
        for number, output in halo:
            by_target[first + number].append(output)
        for target, own in by_target.items():
            running = self._blocks.get(target)
            received = self._halo[target] if running is None else running.received
            received[key] = tuple(own)

    def _finish(self, key: int, packed: PackedBlock) -> None:
        running = self._blocks[key]
        running.finished = packed.parts
        kept = running.scene.blocks.checkpoints
        if kept is not None and packed.checkpoint is not None:
            try:
                kept.save_packed(running.number, packed.checkpoint)
            except RooftraceError as error:
                self._fail(running.scene, error)

    def _hand_over(self) -> None:
        """Give finished blocks to the caller, and forget those that it has taken."""
        while not self._taken.empty():
            key = self._taken.get()
            self._delivered -= 1
            self.schedule.taken(key)
            scene = self._blocks.pop(key).scene
            if scene.blocks.is_stopped:
                self._stop(scene)
        while self._delivered < _MAX_DELIVERED and self.schedule.is_done(self._next):
            running = self._blocks[self._next]
            self._ready.put((running.scene, self._next))
            self._delivered += 1
            self._next += 1
            running.scene.delivered += 1
            self._end(running.scene)

    def _end(self, scene: _RunningScene) -> None:
        """End a scene once the caller has received all of its blocks, before the next scene."""
        if scene.delivered == scene.count and not scene.ended:
            scene.ended = True
            self._ready.put((scene, None))

    def _fail(self, scene: _RunningScene, error: RooftraceError) -> None:
        scene.blocks.fail(error)
        self._stop(scene)

    def _stop(self, scene: _RunningScene) -> None:
        """Give up the other blocks of a scene that needs no more."""
        if scene.stopped:
            return
        scene.stopped = True
        scene.count = scene.scheduled
        self.schedule.given_up(range(scene.first, scene.first + scene.count))
        self._end(scene)


_TASKS_PER_WORKER = 30
"""Number of tasks for each worker that may be pulled and not taken."""

_MIN_TASKS = 1000
"""Number of tasks that may be pulled and not taken, however few workers there are.

It is far larger than the number of running tasks: tasks are taken in order, and one slow task must
not hold up the others. A task is small: a path or an address."""


@dataclass(frozen=True)
class WorkerTask:
    """A task for one worker, such as a whole scene.

    Args:
        name: Name of the task in error messages.
        method: Name of the worker's method that does the task.
        given: Argument of the method.
    """

    name: str
    method: str
    given: Any


class TaskSink(Protocol):
    """Receives the outcomes of tasks, by their numbers."""

    @property
    def wants_no_more(self) -> bool:
        """True if the tasks that are not done are to be given up."""
        ...

    def done(self, number: int, value: Any) -> None:
        """Take the result of a task."""
        ...

    def failed(self, number: int, error: RooftraceError) -> None:
        """Take the final error of a task."""
        ...


class TaskRun:
    """Runs tasks on workers; see `Driver`.

    Args:
        pool: Pool of workers that have the methods of the tasks.
        tasks: The tasks; they are pulled as there is room for them.
        sink: Receives the outcome of each task once.
    """

    def __init__(self, pool: Pool, tasks: Iterable[WorkerTask], sink: TaskSink) -> None:
        self._pool = pool
        self._tasks: dict[int, WorkerTask] = {}
        self._sink = sink
        self._next = 0
        ahead = max(_MIN_TASKS, _TASKS_PER_WORKER * pool.size)
        self.schedule = WorkSchedule(self._work(tasks), ahead=ahead)

    def step(self) -> bool:
        self.schedule.pull()
        if self._sink.wants_no_more:
            self.schedule.given_up(list(self._tasks))
        for order in self.schedule.orders():
            task = self._tasks.get(order.key)
            if task is not None and order.what == "run":
                self._pool.call(order.worker, (order.key, task.method), task.method, [task.given])
        while self.schedule.is_done(self._next):
            self.schedule.taken(self._next)
            del self._tasks[self._next]
            self._next += 1
        return not self.schedule.is_over

    def notify(self, event: Answered | Failed) -> None:
        match event:
            case Answered(worker, (key, _), value):
                if self.schedule.ran(worker, key, finished=True):
                    self._sink.done(key, value)
            case Failed(worker, (key, _), error):
                if self.schedule.failed(worker, key):
                    self._give_up(key, error)

    def lost(self, worker: Hashable) -> None:
        for key in self.schedule.leave(worker):
            error = PredictError(
                f"{self._tasks[key].name}: {MOST_LOSSES} workers were lost with it.",
                remedy="Check in Ray's logs why they ended; they may need more memory.",
            )
            self._give_up(key, error)

    def _give_up(self, key: int, error: RooftraceError) -> None:
        self.schedule.given_up([key])
        self._sink.failed(key, error)

    def _work(self, tasks: Iterable[WorkerTask]) -> Iterator[WorkItem]:
        for key, task in enumerate(tasks):
            self._tasks[key] = task
            yield WorkItem(key)


_CALLS_AT_ONCE = 2
"""Maximum number of calls of a worker at the same time."""

_PendingCall = tuple[bytes, Future[Any], int]
"""Function and arguments, the result, and how many workers were lost with it or failed on it."""


class WorkerCalls:
    """Calls of functions on workers, beside the blocks that they run; see `Workers`.

    Outlines at the seams of blocks, footprints and overviews are made in this way. A call depends
    on its arguments alone, so that it is made again if its worker is lost.

    Args:
        pool: Pool of workers that have the method `call`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[_PendingCall] = deque()
        self._running: defaultdict[Hashable, dict[int, _PendingCall]] = defaultdict(dict)
        """Calls by worker and number."""

        self._next = 0
        self._lock = Lock()
        self._error: BaseException | None = None

    @property
    def size(self) -> int:
        return _CALLS_AT_ONCE * self._pool.size

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Make a call, from any thread; see `Workers`."""
        result: Future[T] = Future()
        with self._lock:
            if self._error is None:
                self._waiting.append((packed((work, given)), result, 0))
            else:
                result.set_exception(self._error)
        return result

    # In the driver's thread.

    def step(self, workers: Iterable[Hashable]) -> None:
        """Hand out calls to the workers that have the fewest."""
        room = sorted(workers, key=lambda worker: len(self._running[worker]))
        for worker in room * _CALLS_AT_ONCE if self._waiting else ():
            if self._waiting and len(self._running[worker]) < _CALLS_AT_ONCE:
                made = self._running[worker][self._next] = self._waiting.popleft()
                self._pool.call(worker, (self._next, "call"), "call", [made[0]])
                self._next += 1

    def leave(self, worker: Hashable) -> None:
        """Hand out the calls of a lost worker again."""
        error = PredictError(
            f"{MOST_LOSSES} workers were lost while they made the same outlines.",
            remedy="Check in Ray's logs why they ended; they may need more memory.",
        )
        for made in self._running.pop(worker, {}).values():
            self._again(made, error)

    def notify(self, event: Answered | Failed) -> None:
        """Handle the outcome of a call."""
        made = self._running[event.worker].pop(event.token[0], None)
        if made is None:
            return
        if isinstance(event, Answered):
            # Packed by a worker of this run.
            made[1].set_result(pickle.loads(event.value))  # noqa: S301  # nosec B301
        else:
            self._again(made, event.error)

    def close(self, error: BaseException | None) -> None:
        """Give up all calls, those that follow included, because of an error or without one."""
        error = error or PredictError("The run was stopped.")
        with self._lock:
            self._error = error
        for calls in (self._waiting, *(own.values() for own in self._running.values())):
            for _, result, _ in calls:
                result.set_exception(error)

    def _again(self, made: _PendingCall, error: RooftraceError) -> None:
        content, result, attempts = made
        if attempts + 1 < MOST_LOSSES:
            self._waiting.appendleft((content, result, attempts + 1))
        else:
            result.set_exception(error)


class Driver:
    """Runs scenes by blocks, and tasks of whole scenes, on a pool of workers.

    Args:
        pool: Pool of workers.
        ahead: Maximum number of blocks that are started and not taken; default: by the number of
            workers.
    """

    def __init__(self, pool: Pool, *, ahead: int | None = None) -> None:
        self.tally = ClusterTally()
        self.notes: list[str] = []
        self._pool = pool
        self._ahead = ahead
        self._facts: Facts | None = None
        self._workers: dict[Hashable, Facts] = {}
        self._nodes: Counter[str] = Counter()
        self._processors: list[Mapping[str, str]] = []

    @property
    def size(self) -> int:
        """Number of workers that the pool is to have."""
        return self._pool.size

    @property
    def machines(self) -> int:
        """Number of machines that the pool may use, this one included."""
        return self._pool.machines

    @property
    def processors(self) -> list[Mapping[str, str]]:
        """Records of the processors of the workers that took part, each once."""
        return self._processors

    @property
    def nodes(self) -> dict[str, int]:
        """Number of workers that took part, by machine."""
        return dict(self._nodes)

    def begin(self) -> Facts:
        """Wait for the first worker, and return its facts.

        Raises:
            PredictError: No worker starts.
        """
        while self._facts is None:
            for event in self._pool.wait(1.0):
                self._meet(event)
        return self._facts

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        """Predict scenes on the workers; see `pipeline.run_scenes`.

        Args:
            scenes: The scenes; they are pulled one after the other in the driver's thread.

        Raises:
            PredictError: No worker is left.
        """
        run = BlockRun(self._pool, scenes, ahead=self._ahead)
        with ThreadPoolExecutor(1, "driver") as thread:
            driving = thread.submit(self._drive, run)
            driving.add_done_callback(lambda done: run.calls.close(done.exception()))
            try:
                yield from by_scene(run.finished(driving))
            finally:
                run.cancel()
            driving.result()

    def run_tasks(self, tasks: Iterable[WorkerTask], sink: TaskSink) -> None:
        """Run tasks, each on one worker.

        Args:
            tasks: The tasks; they are pulled as workers have time for them.
            sink: Receives the outcomes, in this thread.

        Raises:
            PredictError: No worker is left.
        """
        self._drive(TaskRun(self._pool, tasks, sink))

    def _drive(self, run: BlockRun | TaskRun) -> None:
        for worker in self._workers:
            run.schedule.join(worker)
        try:
            while run.step():
                for event in self._pool.wait(_WAIT_S):
                    if not self._meet(event):
                        continue
                    if isinstance(event, Joined):
                        run.schedule.join(event.worker)
                    elif isinstance(event, Lost):
                        run.lost(event.worker)
                    else:
                        run.notify(event)
                unfit = run.schedule.unfit()
                if unfit is not None:
                    self._dismiss(unfit, "it failed where others did not")
                    run.lost(unfit)
        finally:
            self.tally = self.tally.plus(run.schedule.tally)

    def _meet(self, event: Event) -> bool:
        """Record joined and lost workers; return True if the event is from a worker in use."""
        if isinstance(event, Joined):
            self._facts = self._facts or event.facts
            difference = event.facts.differs(self._facts)
            if difference:
                self._dismiss(event.worker, difference, event.facts.node)
                return False
            self._workers[event.worker] = event.facts
            self._nodes[event.facts.node] += 1
            if event.facts.processor not in self._processors:
                self._processors.append(event.facts.processor)
                sets = {one["instruction_set"] for one in self._processors}
                if len(sets) == 2:
                    self.notes.append(
                        f"The workers have different instruction sets ({', '.join(sorted(sets))}); "
                        "a few pixels may depend on which worker ran them."
                    )
            return True
        known = event.worker in self._workers
        if isinstance(event, Lost):
            facts = self._workers.pop(event.worker, None)
            self.notes.append(
                f"A worker was not used: {event.reason}."
                if facts is None
                else f"A worker on {facts.node} was lost: {event.reason}."
            )
        return known

    def _dismiss(self, worker: Hashable, why: str, node: str = "") -> None:
        facts = self._workers.pop(worker, None)
        self._pool.dismiss(worker, why)
        where = node or ("" if facts is None else facts.node)
        self.notes.append(f"A worker on {where} was not used: {why}.")
