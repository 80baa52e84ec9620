"""Run the network on the frames of a video, in batches and ahead of drawing.

A `Stage` is a thread that processes items in their order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import RooftraceError
from rooftrace.io.sources import ArraySource
from rooftrace.io.video_read import AudioPacket, VideoFrame
from rooftrace.predict.block import Block
from rooftrace.predict.pipeline import SceneBlocks, run_scenes
from rooftrace.predict.plan import ScenePlan, prepared
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.smoothing import CutFinder

__all__ = ["FrameAsker", "Shot", "Stage"]

Answer = NDArray[np.uint8]


@dataclass(frozen=True)
class Shot:
    """A frame on its way through the pipeline.

    Args:
        picture: Frame as it was decoded.
        answer: Future of the network's answer, (y, x) in 255ths; None if the frame is skipped.
        cut: Whether the frame begins a scene.
    """

    picture: VideoFrame
    answer: Future[Answer] | None
    cut: bool


class FrameAsker:
    """Run the network on every n-th frame of a scene, and pass on all frames in their order.

    A frame is passed on before its answer exists. The network takes several frames together, so
    some answers come late. If too many frames wait for one, the batch runs with those it has.

    Args:
        predictor: Model.
        plan: Plan of each frame.
        stride: Interval in frames at which the network runs.
        probable: Whether an answer is the probability of buildings, if the model has it; otherwise
            it is 255 on buildings and 0 elsewhere.
        name: Name of the video.
        hand_on: Function that takes frames and sound.
        is_crowded: Function that returns whether too much waits there to read on.
    """

    def __init__(
        self,
        predictor: Predictor,
        plan: ScenePlan,
        *,
        stride: int,
        probable: bool,
        name: str,
        hand_on: Callable[[Shot | AudioPacket], None],
        is_crowded: Callable[[], bool],
    ) -> None:
        self._predictor = predictor
        self._spec = predictor.bundle.spec
        self._plan = plan
        self._stride = stride
        self._probable = probable and plan.threshold is not None
        self._name = name
        self._hand_on = hand_on
        self._is_crowded = is_crowded
        self._cuts = CutFinder()
        self._since_asked = stride
        self._open: dict[SceneBlocks, Future[Answer]] = {}
        self._all_read = False
        self.asked = 0
        self.cuts = 0

    def run(self, items: Iterator[VideoFrame | AudioPacket], wait: Callable[[], None]) -> None:
        """Read the whole video.

        Args:
            items: Frames and sound of the video.
            wait: Function that returns when there is room for more.
        """
        while not self._all_read:
            wait()
            for blocks in run_scenes(self._scenes(items), self._predictor.engine):
                self._answer(blocks)

    def cancel(self) -> None:
        """Cancel the answers that are still missing, so that no thread waits for them."""
        for one in list(self._open.values()):
            one.cancel()

    def _scenes(self, items: Iterator[VideoFrame | AudioPacket]) -> Iterator[SceneBlocks]:
        for item in items:
            if isinstance(item, AudioPacket):
                self._hand_on(item)
                continue
            cut = self._cuts.is_cut(item.rgb)
            self.cuts += cut
            if cut or self._since_asked >= self._stride:
                self._since_asked = 1
                yield self._ask(item, cut=cut)
            else:
                self._since_asked += 1
                self._hand_on(Shot(item, None, cut))
            if self._is_crowded():
                return
        self._all_read = True

    def _ask(self, picture: VideoFrame, *, cut: bool) -> SceneBlocks:
        source = ArraySource(
            np.stack(cv2.split(picture.rgb)), name=f"{self._name}, frame {picture.number}"
        )
        plan = self._plan
        blocks = SceneBlocks(plan.for_source(prepared(source, plan.spec, plan.options)))
        promise: Future[Answer] = Future()
        self._open[blocks] = promise
        self.asked += 1
        # The copy is made before the frame is passed on, because it may be drawn on at once.
        self._hand_on(Shot(picture, promise, cut))
        return blocks

    def _answer(self, blocks: SceneBlocks) -> None:
        """Fulfil the promise of a frame."""
        answer = np.empty(blocks.plan.shape_yx, dtype=np.uint8)
        promise = self._open[blocks]
        try:
            for block in blocks:
                answer[block.window.slices()] = self._said_of(block)
        except RooftraceError as error:
            promise.set_exception(error)
        else:
            promise.set_result(answer)
        finally:
            del self._open[blocks]

    def _said_of(self, block: Block) -> Answer:
        if self._probable:
            return block.score
        is_building = block.mask == self._spec.building_class
        return np.asarray(is_building.view(np.uint8) * np.uint8(255), dtype=np.uint8)


T = TypeVar("T")


class Stage(Generic[T]):
    """A thread that takes items in their order and bounds the bytes that wait.

    An error of the thread is raised by the next call of `put`, `wait` or `finish`.

    Args:
        name: Name of the thread.
        work: Function called with each item.
        weigh: Function that returns the size of an item in bytes.
    """

    def __init__(self, name: str, work: Callable[[T], None], weigh: Callable[[T], int]) -> None:
        self._work = work
        self._weigh = weigh
        self._waiting: deque[T] = deque()
        self._bytes = 0
        self._ends = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """Size in bytes of the items that were put and are not processed yet."""
        return self._bytes

    def put(self, item: T, *, room: int | None = None) -> None:
        """Add an item.

        Args:
            room: Wait until at most this number of bytes are waiting; None does not wait.
        """
        with self._changed:
            if room is not None:
                self._changed.wait_for(lambda: self._bytes <= room or self._error is not None)
            self._check()
            self._waiting.append(item)
            self._bytes += self._weigh(item)
            self._changed.notify_all()

    def wait(self, room: int) -> None:
        """Wait until at most `room` bytes are waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes <= room or self._error is not None)
            self._check()

    def finish(self) -> None:
        """Wait until all items are processed, and end the thread."""
        self._end()
        self._check()

    def abandon(self) -> None:
        """Drop the waiting items, and end the thread after its current one."""
        with self._changed:
            self._waiting.clear()
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._ends)
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            try:
                self._work(item)
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= self._weigh(item)
                self._changed.notify_all()
