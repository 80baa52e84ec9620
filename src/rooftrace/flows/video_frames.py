"""The frames of a video through the network, batched and ahead of who draws on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.io.memory import ArraySource
from rooftrace.io.video import Picture, Sound
from rooftrace.predict.block import Block
from rooftrace.predict.passage import SceneStream
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import ScenePlan
from rooftrace.predict.smoothing import CutFinder
from rooftrace.predict.stream import run_streams

__all__ = ["FrameAsker", "Shot"]

Answer = NDArray[np.uint8]


@dataclass(frozen=True)
class Shot:
    """A frame on its way.

    Args:
        picture: the frame.
        answer: what the network says of it, when it has: (y, x) in 255ths; None where it is not
            asked.
        cut: whether the frame begins a scene.
    """

    picture: Picture
    answer: Future[Answer] | None
    cut: bool


class FrameAsker:
    """Shows the network every n-th frame of a scene, and hands all frames on in their order.

    A frame is handed on before its answer is there. The network is given some frames together, and
    so answers some frames late: where too many wait for that, those it has are run as they are.

    Args:
        predictor: the model.
        plan: of each frame.
        threshold: on the building's probability; None where the most probable class is taken.
        stride: every so many frames one is shown to the network.
        probable: whether an answer is the probability of buildings, where the model has it; else
            it is 255 where there is a building, and 0.
        name: of the video.
        hand_on: takes frames and sound.
        is_crowded: whether so much waits where it was handed to that no more is to be read now.
    """

    def __init__(
        self,
        predictor: Predictor,
        plan: ScenePlan,
        threshold: float | None,
        *,
        stride: int,
        probable: bool,
        name: str,
        hand_on: Callable[[Shot | Sound], None],
        is_crowded: Callable[[], bool],
    ) -> None:
        self._predictor = predictor
        self._spec = predictor.bundle.spec
        self._plan = plan
        self._threshold = threshold
        self._stride = stride
        self._probable = probable and threshold is not None
        self._name = name
        self._hand_on = hand_on
        self._is_crowded = is_crowded
        self._cuts = CutFinder()
        self._since_asked = stride
        self._open: set[Future[Answer]] = set()
        self._all_read = False
        self.asked = 0
        self.cuts = 0

    def run(self, items: Iterator[Picture | Sound], wait: Callable[[], None]) -> None:
        """Read all there is.

        Args:
            items: the video.
            wait: returns when there is room for more.
        """
        while not self._all_read:
            wait()
            run_streams(self._scenes(items), self._predictor.engine)

    def cancel(self) -> None:
        """Give up what has no answer yet, so that nobody waits for it."""
        for one in list(self._open):
            one.cancel()

    def _scenes(self, items: Iterator[Picture | Sound]) -> Iterator[SceneStream]:
        for item in items:
            if isinstance(item, Sound):
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

    def _ask(self, picture: Picture, *, cut: bool) -> SceneStream:
        source = ArraySource(
            np.stack(cv2.split(picture.rgb)), name=f"{self._name}, frame {picture.number}"
        )
        answer = np.empty(picture.rgb.shape[:2], dtype=np.uint8)
        promise: Future[Answer] = Future()
        self._open.add(promise)
        self.asked += 1

        def take(block: Block) -> None:
            answer[block.window.slices()] = self._said_of(block)

        def close(scene: SceneStream) -> None:
            self._open.discard(promise)
            if scene.error is None:
                promise.set_result(answer)
            else:
                promise.set_exception(scene.error)

        # Before it is drawn on, which may be as soon as it is handed on: the source is a copy.
        self._hand_on(Shot(picture, promise, cut))
        return SceneStream(
            source, self._spec, self._plan, take, threshold=self._threshold, close=close
        )

    def _said_of(self, block: Block) -> Answer:
        if self._probable:
            return block.score
        is_building = block.mask == self._spec.building_class
        return np.asarray(is_building.view(np.uint8) * np.uint8(255), dtype=np.uint8)
