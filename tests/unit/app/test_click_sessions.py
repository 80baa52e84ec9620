"""Sessions of clicks: many requests at once, and a limit of those that wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clicked_town import ObedientEngine, click_model
from rooftrace.app.map import clicks as module
from rooftrace.app.map.clicks import ClickSessions
from rooftrace.core.errors import BusyError
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickSegmenter
from town import generate_scene

CLICKS = [Click(30, 30), Click(34, 30), Click(60, 60, positive=False)]


class WaitingEngine(ObedientEngine):
    """An engine that waits until the test opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def run(self, batch):  # type: ignore[no-untyped-def]
        self.begun.set()
        assert self.go.wait(60)
        return super().run(batch)


def test_too_many_requests_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITING", 2)
    engine, sessions = WaitingEngine(), ClickSessions(4)
    model, image = click_model(engine), generate_scene(1, (96, 96), 0.3).image

    def answer(name: str) -> float:
        return sessions.answer(name, lambda: ClickSegmenter(image, model), CLICKS).score

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(answer, "first")
        assert engine.begun.wait(60)
        second = pool.submit(answer, "second")
        # The second request waits for the first, and then a third one has no room.
        while sessions._room._value:
            assert not second.done()
        with pytest.raises(BusyError, match="Too many clicks wait"):
            answer("third")
        engine.go.set()
        assert first.result(60) == second.result(60)
    assert answer("third") == first.result()
