"""Blocks of scenes on workers: they are handed out, what they say of one another is handed on, and
finished ones are taken in the order of the plan.

No more blocks than `ahead` are held, and of the strips between blocks those that later ones still
need.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import Any

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.block import Piece
from rooftrace.predict.cluster.pool import Answered, Failed, Pool
from rooftrace.predict.cluster.schedule import MOST_LOSSES, Schedule
from rooftrace.predict.cluster.work import Order
from rooftrace.predict.cluster.work import Piece as Work
from rooftrace.predict.cluster.worker import Made, Ran, SceneTask, can_be_read
from rooftrace.predict.parts import Part, PartStore, unpack
from rooftrace.predict.passage import SceneStream
from rooftrace.vector.traced import BlockOutlines

__all__ = ["BlockRun"]

_AHEAD_PER_WORKER = 6
_FEWEST_AHEAD = 16
_HELD_BYTES = 256 * 2**20
"""Of blocks that were made and not taken; beyond it they are read from where they are kept."""

_TAKING = 4
"""Blocks that wait to be taken in the other thread."""

_SEEN_WITHIN_S = 60.0
_LOOK_S = 0.05


@dataclass
class _Scene:
    """A scene under way.

    Args:
        stream: of it.
        task: as workers get it, shared.
        first: the key of its first block.
        count: of its blocks, or of those that were handed out where it failed.
    """

    stream: SceneStream
    task: Any
    first: int
    count: int
    handed_out: int = 0
    taken: int = 0
    stopped: bool = False


@dataclass
class _Block:
    """A block that was handed out and not taken."""

    scene: _Scene
    number: int
    part: Part | bytes | None = None
    """None where it is not made, or lies where parts are kept."""

    outlines: BlockOutlines | None = None
    ran: Ran | None = None
    resumed: bool = False
    received: dict[int, tuple[Piece, ...]] = field(default_factory=dict)
    """By the key of who hands it on: who runs twice says the same twice, and counts once."""


class BlockRun:
    """Blocks under way; see `Run`.

    Args:
        pool: of `BlockWorker`s.
        scenes: taken one after the other as there is room for their blocks.
        finisher: the thread that takes blocks, and ends scenes.
        ahead: blocks that are begun and not taken; default by the number of workers.
        patient: see `Schedule`.
    """

    def __init__(
        self, pool: Pool, scenes: Iterable[SceneStream], finisher: ThreadPoolExecutor, *,
        ahead: int | None, patient: bool,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._finisher = finisher
        self._scenes = iter(scenes)
        self._blocks: dict[int, _Block] = {}
        self._next = 0
        """The block that is taken next."""

        self._held_bytes = 0
        self._taking: deque[tuple[int, Future[None]]] = deque()
        self._closing: deque[Future[None]] = deque()
        self._handed_on: defaultdict[int, dict[int, tuple[Piece, ...]]] = defaultdict(dict)
        """For blocks that were not handed out yet, by their keys."""

        ahead = ahead or max(_FEWEST_AHEAD, _AHEAD_PER_WORKER * pool.size)
        self.schedule = Schedule(self._work(), ahead=ahead, patient=patient)

    def step(self) -> bool:
        """Do what can be done now; whether there is more to come."""
        for piece in self.schedule.pull():
            self._look_up(piece.key)
        for order in self.schedule.orders(monotonic()):
            self._send(order)
        self._take()
        if not self.schedule.is_over:
            return True
        while self._closing:
            self._closing.popleft().result()
        return False

    def cancel(self) -> None:
        """Take nothing more."""
        for _, future in self._taking:
            future.cancel()

    def tell(self, event: Answered | Failed) -> None:
        """What became of a call."""
        match event:
            case Answered(worker, (key, _), Ran() as ran):
                self._ran(worker, key, ran)
            case Answered(worker, (key, _), Made() as made):
                if self.schedule.finished(worker, key):
                    self._made(key, made)
            case Failed(worker, (key, "run" | "finish"), error):
                if self.schedule.failed(worker, key):
                    self._fail(self._blocks[key].scene, error)
            case _:
                # Of no use: a drop, or what a slow worker was given by a run before this one.
                pass

    def lost(self, worker: Hashable) -> None:
        """A worker is gone."""
        for key in self.schedule.leave(worker):
            block = self._blocks[key]
            window = block.scene.stream.plan.blocks[block.number]
            error = PredictError(
                f"{block.scene.stream.source.name}: {MOST_LOSSES} workers were lost with the "
                f"block at {window}.",
                remedy="See why they ended, in Ray's logs; they may need more memory.",
            )
            self._fail(block.scene, error)

    # Blocks come, and go out.

    def _work(self) -> Iterator[Work]:
        """The blocks of all scenes, as the schedule has room for them."""
        key = 0
        for number, stream in enumerate(self._scenes):
            plan = stream.plan
            scene = _Scene(stream, None, key, plan.block_count)
            parts = stream.parts if plan.block_count > 1 else None
            task = SceneTask(
                number, stream.source, plan, stream.threshold, stream.forgiving, stream.glance,
                parts, stream.tracing, can_be_read(stream.source),
            )  # fmt: skip
            scene.task = self._pool.share(task)
            for block in range(plan.block_count):
                if scene.stopped:
                    break
                scene.handed_out += 1
                self._blocks[key] = _Block(scene, block, received=self._handed_on.pop(key, {}))
                needs = frozenset(scene.first + giver for giver in plan.givers(block))
                yield Work(key, needs, plan.blocks[block].area_px)
                key += 1

    def _look_up(self, key: int) -> None:
        """A block that an earlier run has finished need not be made."""
        block = self._blocks[key]
        stream = block.scene.stream
        part = None if stream.parts is None else stream.parts.load(block.number)
        if part is not None:
            block.part, block.resumed = part, True
            self._hand_on(key, part.handed_on)
            self.schedule.known(key)

    def _send(self, order: Order) -> None:
        key = order.key
        block = self._blocks.get(key)
        if block is None:
            # What it was dropped for has been taken.
            return
        given: list[Any] = [block.scene.task, block.number]
        if order.what == "finish" or (order.what == "run" and self.schedule.is_ready(key)):
            given.append(tuple(piece for own in block.received.values() for piece in own))
        elif order.what == "run":
            given.append(None)
        self._pool.call(order.worker, (key, order.what), order.what, given)

    def _ran(self, worker: Hashable, key: int, ran: Ran) -> None:
        if not self.schedule.ran(worker, key, monotonic(), finished=ran.made is not None):
            return
        # A block that is run again, since its worker was lost, counts once.
        self._blocks[key].ran = ran
        self._hand_on(key, ran.handed_on)
        if ran.made is not None:
            self._made(key, ran.made)

    def _hand_on(self, key: int, pieces: Iterable[tuple[int, Piece]]) -> None:
        first = self._blocks[key].scene.first
        told: defaultdict[int, list[Piece]] = defaultdict(list)
        for number, piece in pieces:
            told[first + number].append(piece)
        for target, own in told.items():
            block = self._blocks.get(target)
            received = self._handed_on[target] if block is None else block.received
            received[key] = tuple(own)

    def _made(self, key: int, made: Made) -> None:
        block = self._blocks[key]
        block.part, block.outlines = made.part, made.outlines
        parts = block.scene.stream.parts
        if parts is None or block.scene.stream.plan.block_count == 1:
            return
        if not made.kept:
            try:
                parts.keep(block.number, made.part)
            except RooftraceError as error:
                self._fail(block.scene, error)
        self._held_bytes += len(made.part)
        if self._held_bytes > _HELD_BYTES:
            self._held_bytes -= len(made.part)
            block.part = None

    # Blocks are taken.

    def _take(self) -> None:
        while self._taking and self._taking[0][1].done():
            key, future = self._taking.popleft()
            future.result()
            self.schedule.taken(key)
            scene = self._blocks.pop(key).scene
            scene.taken += 1
            if scene.stream.error is not None:
                self._stop(scene)
            self._close(scene)
        while len(self._taking) < _TAKING and self.schedule.is_done(self._next):
            block = self._blocks[self._next]
            if isinstance(block.part, bytes) and block.scene.stream.plan.block_count > 1:
                self._held_bytes -= len(block.part)
            future = self._finisher.submit(_take, block)
            self._taking.append((self._next, future))
            self._next += 1
        while self._closing and self._closing[0].done():
            self._closing.popleft().result()

    def _fail(self, scene: _Scene, error: RooftraceError) -> None:
        scene.stream.fail(error)
        self._stop(scene)

    def _stop(self, scene: _Scene) -> None:
        """Nothing more is done of a scene that has failed."""
        if scene.stopped:
            return
        scene.stopped = True
        scene.count = scene.handed_out
        self.schedule.given_up(range(scene.first, scene.first + scene.count))

    def _close(self, scene: _Scene) -> None:
        if scene.taken == scene.count:
            self._closing.append(self._finisher.submit(scene.stream.finish))


def _take(block: _Block) -> None:
    """In the thread that finishes."""
    stream, part, ran = block.scene.stream, block.part, block.ran
    if stream.error is not None:
        return
    if part is None:
        assert stream.parts is not None
        part = _when_seen(stream.parts, block.number)
    if part is None:
        window = stream.plan.blocks[block.number]
        stream.fail(
            PredictError(
                f"{stream.source.name}: a worker has written the block at {window} to "
                f"{stream.parts and stream.parts.folder}, where it cannot be seen.",
                remedy="Give the same command again; what is done is kept.",
            )
        )
        return
    if ran is not None:
        stream.stats.engine_seconds += ran.engine_seconds
        stream.stats.engine_px += ran.engine_px
        stream.failed += ran.failed
    if isinstance(part, bytes):
        # Scores are for polygons alone, which are traced where the block was made.
        part = unpack(part, with_scores=block.outlines is None)
    whole = replace(part.block, outlines=block.outlines)
    stream.take(replace(part, block=whole), resumed=block.resumed)


def _when_seen(parts: PartStore, number: int) -> Part | None:
    """A part that another machine wrote, which takes a while to be seen over a network's folder."""
    until = monotonic() + _SEEN_WITHIN_S
    while (part := parts.load(number)) is None and monotonic() < until:
        sleep(_LOOK_S)
    return part
