"""Requests: the same answers as alone, in a queue with an end, and in time."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.errors import BusyError, DataError, DeadlineError, PredictError, TooLargeError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.service.limits import Limits
from rooftrace.service.service import Service


class Gate(PointwiseEngine):
    """Waits at each run until it may go on."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        if is_open:
            self.go.set()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.begun.set()
        assert self.go.wait(20)
        return super().run(batch)


def blobs(seed: int, side: int = 96) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 30, np.uint8)
    for _ in range(6):
        y, x = rng.integers(4, side - 24, 2)
        image[y : y + 16, x : x + 20] = 220
    return image


def png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def service(engine: Gate, **limits: Any) -> Service:
    return Service(Predictor(tiny_bundle(), engine), Limits(**limits))


def test_many_at_once_get_what_each_would_alone() -> None:
    one = service(Gate(), running=4)
    try:
        assert not one.ready
        one.warm()
        assert one.ready
        images = [blobs(seed, 96 + 32 * (seed % 3)) for seed in range(12)]
        requests = [one.submit(png(image), f"{i}.png") for i, image in enumerate(images)]
        for image, request in zip(images, requests):
            found = request.answer.result(30)
            alone = Predictor(tiny_bundle(), PointwiseEngine()).predict(
                np.ascontiguousarray(np.moveaxis(image[..., ::-1], -1, 0))
            )
            assert np.array_equal(found.mask.data, alone.mask.data)
            assert list(found.outlines.geometry) == list(alone.outlines.geometry)
            assert len(found.outlines) > 0
        figures = one.figures()
        assert (figures.running, figures.waiting, figures.answered, figures.failed) == (0, 0, 12, 0)
        # What warms it is one more.
        assert figures.batches.tiles == 13
    finally:
        one.close()


def test_options_and_blocks_reach_the_prediction() -> None:
    one = service(Gate())
    try:
        blocks: list[Any] = []
        data = png(blobs(1))
        low = one.predict(data, "a.png", SceneOptions(threshold=0.05), on_block=blocks.append)
        assert low.summary.built_up_share == 1
        assert len(blocks) == 1
        assert one.predict(data, "a.png", SceneOptions(threshold=0.99)).summary.buildings == 0
    finally:
        one.close()


def test_a_full_queue_says_when_to_come_again() -> None:
    gate = Gate(is_open=False)
    one = service(gate, running=1, waiting=3)
    try:
        taken = [one.submit(png(blobs(i)), "a.png") for i in range(3)]
        with pytest.raises(BusyError, match="3 requests are waiting") as raised:
            one.submit(png(blobs(4)), "a.png")
        assert raised.value.retry_after_s >= 1
        assert gate.begun.wait(10)
        assert one.figures().running == 1
        assert one.figures().waiting == 2
        gate.go.set()
        for request in taken:
            request.answer.result(20)
        assert one.predict(png(blobs(4)), "a.png").summary.buildings > 0
        assert one.figures().refused == 1
    finally:
        gate.go.set()
        one.close()


def test_what_takes_too_long_is_given_up() -> None:
    gate = Gate(is_open=False)
    one = service(gate, running=2)
    try:
        running = one.submit(png(blobs(1, 96)), "long.png")
        assert gate.begun.wait(10)
        running.until = 0.0
        waiting = one.submit(png(blobs(2)), "short.png")
        waiting.until = 0.0
        with pytest.raises(DeadlineError, match="longer than the server allows"):
            waiting.answer.result(10)
        gate.go.set()
        # The network was at its only tile already: what is finished is given.
        assert running.answer.result(10).summary.buildings > 0
        late = one.submit(png(blobs(3)), "a.png")
        late.answer.result(10)
    finally:
        gate.go.set()
        one.close()


def test_nobody_waits_any_more() -> None:
    gate = Gate(is_open=False)
    one = service(gate, running=1)
    try:
        first = one.submit(png(blobs(1)), "a.png")
        assert gate.begun.wait(10)
        second = one.submit(png(blobs(2)), "a.png")
        second.cancel()
        gate.go.set()
        first.answer.result(10)
        with pytest.raises(CancelledError):
            second.answer.result(10)
        assert one.predict(png(blobs(3)), "a.png").summary.buildings > 0
        assert one.figures().batches.tiles == 2
    finally:
        gate.go.set()
        one.close()


def test_errors_are_those_of_the_image() -> None:
    one = service(Gate(), upload_bytes=10_000, pixels=20_000)
    try:
        with pytest.raises(TooLargeError, match="10,001 bytes"):
            one.predict(bytes(10_001), "a.png")
        with pytest.raises(TooLargeError, match="pixels"):
            one.predict(png(np.zeros((200, 200, 3), np.uint8)), "a.png")
        with pytest.raises(DataError, match="none of the image formats"):
            one.predict(b"abc", "a.png")
        assert one.figures().failed == 3
    finally:
        one.close()


def test_a_network_that_fails_fails_the_request_only() -> None:
    class Broken(Gate):
        def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
            if (batch == 99).any():
                raise ValueError("no")
            return super().run(batch)

    one = service(Broken())
    try:
        with pytest.raises(PredictError, match="the network failed on the tile"):
            one.predict(png(np.full((64, 64, 3), 99, np.uint8)), "a.png")
        assert one.predict(png(blobs(1)), "a.png").summary.buildings > 0
    finally:
        one.close()


def test_a_closed_service_takes_nothing() -> None:
    one = service(Gate())
    one.warm()
    one.close()
    assert not one.ready
    with pytest.raises(RuntimeError):
        one.submit(b"", "a.png")


def test_what_is_kept_is_decided_anew_without_the_network() -> None:
    one = service(Gate())
    try:
        image = blobs(5)
        image[0:20, 60:90] = 120
        kept = one.submit_keeping(png(image), "a.png").answer.result(20)
        ran = one.figures().batches.tiles
        for threshold in (0.3, 0.7):
            anew = kept.scores.redecide(threshold)
            direct = one.predict(png(image), "a.png", SceneOptions(threshold=threshold))
            assert np.array_equal(anew.mask.data, direct.mask.data)
            assert list(anew.outlines.geometry) == list(direct.outlines.geometry)
        assert kept.scores.redecide(0.3).summary.built_up_share > kept.prediction.mask.data.mean()
        # Those of the two that were asked for directly alone.
        assert one.figures().batches.tiles == ran + 2
    finally:
        one.close()
