"""Cameras that play while they are watched."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("av")

from local_server import PATIENCE_S, wait_until
from rooftrace.core.errors import DataError, PredictError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service import live
from rooftrace.service.live import CameraSource, LiveCamera
from video_files import town, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "flight.mp4"
    return write_video(path, map(town, range(12)), rate=100)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_RETRY_S", 0.02)


def predictor(engine: PointwiseEngine | None = None) -> Predictor:
    return Predictor(tiny_bundle(), engine or PointwiseEngine())


@contextmanager
def camera_of(source: str | Path, engine: PointwiseEngine | None = None) -> Iterator[LiveCamera]:
    made = LiveCamera(CameraSource("here", str(source)), predictor(engine))
    try:
        yield made
    finally:
        made.close(PATIENCE_S)


def nothing() -> None:
    """Ignore a new frame."""


def next_frame(camera: LiveCamera, before: bytes | None = None) -> bytes:
    wait_until(lambda: camera.frame is not None and camera.frame is not before)
    assert camera.frame is not None
    return camera.frame


@pytest.mark.parametrize(
    ("text", "name", "source", "is_file"),
    [
        ("camera:1", "camera:1", "camera:1", False),
        ("Roof = east=/dev/video3", "Roof", "east=/dev/video3", None),
        ("yard=/dev/video3", "yard", "/dev/video3", False),
        ("gate 2=rtsp://u:p@host/a?k=s", "gate 2", "rtsp://u:p@host/a?k=s", False),
        ("rtsp://u:p@host:554/a?k=s", "host:554/a", "rtsp://u:p@host:554/a?k=s", False),
    ],
)
def test_a_source_has_a_name_without_credentials(
    text: str, name: str, source: str, is_file: bool | None
) -> None:
    if is_file is None:
        with pytest.raises(DataError, match="does not exist"):
            CameraSource.parse(text)
        return
    parsed = CameraSource.parse(text)
    assert (parsed.name, parsed.source, parsed.is_file) == (name, source, is_file)


def test_wrong_sources_are_refused_without_their_passwords() -> None:
    with pytest.raises(DataError, match="is not a stream") as error:
        CameraSource.parse("ftp://me:hidden@host/x?token=hidden")
    assert "hidden" not in str(error.value)


def test_a_file_repeats_for_two_viewers_and_stops_when_both_have_left(clip: Path) -> None:
    with camera_of(clip) as camera:
        assert camera.figures().state == "idle"
        heard = threading.Event()
        before = {*threading.enumerate()}
        with camera.watch(heard.set):
            first = next_frame(camera)
            assert first.startswith(b"\xff\xd8")
            assert heard.wait(PATIENCE_S)
            with camera.watch(nothing):
                reading = [t for t in threading.enumerate() if t.name == "camera here"]
                assert len(reading) == 1
            figures = camera.figures()
            assert figures.state == "playing"
            assert figures.buildings > 0
        wait_until(lambda: camera.figures().state == "idle")
        assert camera.frame is None
        started = {*threading.enumerate()} - before
        assert not [t for t in started if t.name.startswith(("camera", "read"))]
        # It starts again for the next viewer.
        with camera.watch(nothing):
            assert next_frame(camera) is not first


def test_a_source_that_breaks_is_opened_again(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    with camera_of(path) as camera, camera.watch(nothing):
        wait_until(lambda: camera.figures().state == "broken")
        assert "does not exist" in camera.figures().message
        assert camera.figures().message.endswith("Check the path.")
        path.write_bytes(clip.read_bytes())
        next_frame(camera)
        assert camera.figures().message == ""


def test_a_camera_that_was_closed_has_no_viewers(clip: Path) -> None:
    with camera_of(clip) as camera:
        with camera.watch(nothing):
            next_frame(camera)
            camera.close(PATIENCE_S)
        with pytest.raises(PredictError, match="stopping"), camera.watch(nothing):
            raise AssertionError
