"""Requests get the same results as alone, from a bounded queue, within their time."""

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rest_service import Gate, fake_service, png, roofs
from rooftrace.core.errors import BusyError, DeadlineError, PredictError, StoppingError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.service.decode import Decoder
from rooftrace.service.service import RequestDefaults


@pytest.mark.campaign
def test_many_at_once_get_what_each_would_alone() -> None:
    one = fake_service(Gate(), running=4)
    try:
        assert not one.ready
        one.warm()
        assert one.ready
        images = [roofs(seed, 96 + 32 * (seed % 3)) for seed in range(12)]
        requests = [one.submit(png(image), f"{i}.png") for i, image in enumerate(images)]
        for image, request in zip(images, requests):
            found = request.answer.result(60)
            alone = Predictor(tiny_bundle(), PointwiseEngine()).predict(
                np.ascontiguousarray(np.moveaxis(image[..., ::-1], -1, 0))
            )
            assert np.array_equal(found.mask.data, alone.mask.data)
            assert list(found.outlines.geometry) == list(alone.outlines.geometry)
            assert len(found.outlines) > 0
        figures = one.figures()
        assert (figures.running, figures.waiting, figures.answered, figures.failed) == (0, 0, 12, 0)
        # The warm-up is one more batch.
        assert figures.batches.tiles == 13
    finally:
        one.close()


@pytest.mark.campaign
def test_a_full_queue_says_when_to_come_again() -> None:
    gate = Gate(is_open=False)
    one = fake_service(gate, running=1, waiting=3)
    try:
        taken = [one.submit(png(roofs(i)), "a.png") for i in range(3)]
        with pytest.raises(BusyError, match="3 requests are waiting") as raised:
            one.submit(png(roofs(4)), "a.png")
        assert raised.value.retry_after_s >= 1
        assert gate.begun.wait(60)
        assert one.figures().running == 1
        assert one.figures().waiting == 2
        gate.go.set()
        for request in taken:
            request.answer.result(60)
        assert one.submit(png(roofs(4)), "a.png").answer.result().summary.buildings > 0
        assert one.figures().refused == 1
    finally:
        gate.go.set()
        one.close()


@pytest.mark.campaign
def test_what_takes_too_long_is_given_up() -> None:
    gate = Gate(is_open=False)
    # One request runs at a time, so that the second one surely waits when its time ends.
    one = fake_service(gate, running=1)
    try:
        running = one.submit(png(roofs(1, 96)), "long.png")
        assert gate.begun.wait(60)
        running.deadline_s = 0.0
        waiting = one.submit(png(roofs(2)), "short.png")
        waiting.deadline_s = 0.0
        gate.go.set()
        for request in (running, waiting):
            with pytest.raises(DeadlineError, match="longer than the server allows"):
                request.answer.result(60)
        late = one.submit(png(roofs(3)), "a.png")
        late.answer.result(60)
    finally:
        gate.go.set()
        one.close()


class Broken(Gate):
    """An engine that fails on an image of 99s."""

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        if (batch == 99).any():
            raise ValueError("no")
        return super().run(batch)


@pytest.mark.campaign
@pytest.mark.parametrize("fails", [False, True])
def test_an_image_leaves_memory_with_its_request(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    images: list[weakref.ref[Any]] = []
    decode = Decoder.decode

    def decode_noted(self: Decoder, *args: Any, **options: Any) -> Any:
        image = decode(self, *args, **options)
        images.append(weakref.ref(image))
        return image

    monkeypatch.setattr(Decoder, "decode", decode_noted)
    one = fake_service(Broken())
    gc.collect()
    # A cycle would keep the image until the next collection.
    gc.disable()
    try:
        pixels = np.full((64, 64, 3), 99, np.uint8) if fails else roofs(1)
        with pytest.raises(PredictError) if fails else nullcontext():
            one.submit(
                png(pixels), "a.png", SceneOptions(outputs=("mask", "preview"))
            ).answer.result()
        deadline = time.monotonic() + 60
        while any(image() is not None for image in images):
            assert time.monotonic() < deadline
            # The thread of the request ends shortly after its answer.
            time.sleep(0.01)
        assert len(images) == 1
    finally:
        gc.enable()
        one.close()


def test_requests_that_wait_when_a_service_is_closed_get_an_error() -> None:
    gate = Gate(is_open=False)
    one = fake_service(gate, running=1)
    closing = threading.Thread(target=one.close)
    try:
        running = one.submit(png(roofs(1)), "a.png")
        assert gate.begun.wait(60)
        waiting, cancelled = (one.submit(png(roofs(2)), "a.png") for _ in range(2))
        cancelled.cancel()
        closing.start()
        while one.ready or not one._closed:
            time.sleep(0.001)
        gate.go.set()
        with pytest.raises(PredictError, match="The server is stopping"):
            waiting.answer.result(60)
        with pytest.raises(CancelledError):
            cancelled.answer.result(60)
        with pytest.raises(PredictError, match="The server is stopping"):
            one.submit(png(roofs(2)), "a.png")
    finally:
        gate.go.set()
        closing.join(60)
    with pytest.raises(StoppingError):
        running.answer.result(60)
    assert (one.figures().running, one.figures().waiting) == (0, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ("3,2,1", "0,200", 0.3, None)),
        (SceneOptions(scale=0.5), ("3,2,1", "0,200", None, 0.5)),
        (SceneOptions(bands="1,2,3", stretch="none"), ("1,2,3", "none", 0.3, None)),
    ],
)
def test_a_request_goes_before_the_server(
    given: SceneOptions | None, expected: tuple[object, ...]
) -> None:
    defaults = RequestDefaults(SceneOptions(bands="3,2,1", stretch="0,200", gsd_m=0.3))
    found = defaults.filled(given)
    assert (found.bands, found.stretch, found.gsd_m, found.scale) == expected
