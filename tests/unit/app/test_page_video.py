"""A stranger's video, in a process of its own."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from page_images import predictor_of

from rooftrace.app.page.results import chosen_options
from rooftrace.app.page.video import VideoRun, _summary
from rooftrace.core.errors import DeadlineError, RooftraceError
from rooftrace.flows.video import VideoOptions
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.service import RequestDefaults
from tiny_models import write_tiny_bundle

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the part of a service that a run reads: the model and its engine."""
    path = tmp_path_factory.mktemp("model") / "tiny.rooftrace"
    write_tiny_bundle(path)
    engine = SimpleNamespace(name="openvino", precision="fp32")
    return SimpleNamespace(model_path=path, predictor=SimpleNamespace(engine=engine))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A bright house that moves to the right, ten frames in a second."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    path = folder / "flight.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(10):
            picture = np.full((96, 128, 3), 40, np.uint8)
            picture[30:60, 20 + number : 60 + number] = 230
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode())
    return path


@pytest.mark.campaign
def test_a_video_comes_back_with_a_row_for_each_frame(
    service: Any, video: Path, tmp_path: Path
) -> None:
    run = VideoRun(service, video, tmp_path, VideoOptions(stride=2))
    reported = [*run.events()]
    report = reported[-1]["report"]
    assert (report["frames"], report["buildings_most"]) == (10, 1)
    assert report["built_up_share"] == pytest.approx(30 * 40 / (96 * 128), rel=0.1)
    with av.open(str(run.out)) as made:
        assert sum(1 for _ in made.decode(video=0)) == 10
    with run.table.open() as file:
        assert len([*csv.DictReader(file)]) == 10
    assert "10 frames" in _summary(report)
    assert str(video.parent) not in str(reported[:-1])


@pytest.mark.campaign
def test_what_is_no_video_is_reported_without_where_it_lies(
    service: Any, video: Path, tmp_path: Path
) -> None:
    video.write_bytes(b"no video at all")
    with pytest.raises(RooftraceError) as reported:
        [*VideoRun(service, video, tmp_path, VideoOptions()).events()]
    assert "flight.mp4" in str(reported.value)
    assert str(video.parent) not in str(reported.value)
    assert reported.value.remedy


def test_one_that_takes_too_long_is_ended(service: Any, video: Path, tmp_path: Path) -> None:
    run = VideoRun(service, video, tmp_path, VideoOptions(), most_s=0.2)
    with pytest.raises(DeadlineError, match="took longer than"):
        [*run.events()]
    assert not run.out.exists()


def test_the_tab_says_what_cannot_be() -> None:
    from rooftrace.app.page.video import _VideoTab

    whole: Any = SimpleNamespace(bundle=predictor_of().bundle, defaults=RequestDefaults())
    tab = _VideoTab(whole)
    for given, length, gsd, stretch, words in (
        (None, 10, "", "", "drop one first"),
        ("a.mp4", 0, "", "", "0 s of the video"),
        ("a.mp4", 9999, "", "", "at most 120 s"),
        ("a.mp4", 10, "ten", "", "Metres per pixel"),
        ("a.mp4", 10, "", "per-band", "per-band in the field “Values” was given for a video"),
    ):
        *_, (status, _, _) = tab.trace(given, 0, length, 1, "flow", gsd, "", stretch)
        assert words in status


def test_the_fields_of_the_tab_reach_the_video() -> None:
    from rooftrace.app.page.video import _VideoTab

    service: Any = SimpleNamespace(bundle=predictor_of().bundle, defaults=RequestDefaults())
    chosen = chosen_options(service, "0,5", None, "3,2,1", "0,120")
    options = _VideoTab(service)._options(5, 10, 2, "flow", chosen)
    assert (options.gsd_m, options.bands, options.stretch) == (0.5, "3,2,1", "0,120")
    assert (options.start_s, options.end_s, options.stride) == (5, 15, 2)


@pytest.mark.parametrize(("own", "used"), [("0,120", "0,120"), ("per-band", "auto")])
def test_empty_fields_of_the_tab_take_what_the_server_was_given(own: str, used: str) -> None:
    from rooftrace.app.page.video import _VideoTab

    images = SceneOptions(scale=0.5, bands="3,2,1", stretch=own)
    service: Any = SimpleNamespace(bundle=predictor_of().bundle, defaults=RequestDefaults(images))
    chosen = chosen_options(service, "", None, "", "")
    options = _VideoTab(service)._options(5, 10, 2, "flow", chosen)
    assert (options.gsd_m, options.scale, options.bands) == (None, 0.5, "3,2,1")
    assert options.stretch == used
