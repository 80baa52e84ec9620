"""A video from beginning to end, with a model that calls bright pixels buildings."""

import csv
import errno
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

from rooftrace.core.errors import BandMismatch, ConfigError, DataError, ExportError, PredictError
from rooftrace.engines.base import ConstantEngine, PointwiseEngine
from rooftrace.flows import video as flow
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.video import run_video
from rooftrace.io.video import VideoWriter
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.options import SceneOptions, VideoOptions
from rooftrace.predict.predictor import Predictor
from video_files import read_frames, town, write_video


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(tiny_bundle(), PointwiseEngine())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A second of a camera that moves over three houses by two pixels a frame."""
    return write_video(tmp_path / "in.mp4", map(town, range(25)), sound="aac")


def run(
    source: Path | str, predictor: Predictor, folder: Path, **options: Any
) -> tuple[flow.VideoReport, list[dict[str, str]]]:
    """The report, and the rows of the table."""
    table = folder / "frames.csv"
    fields = {name: options.pop(name) for name in SceneOptions.model_fields if name in options}
    given = VideoOptions(
        **{"table": table, "smoothing": "none", "images": SceneOptions(**fields), **options}
    )
    report = run_video(source, folder / "out.mp4", predictor=predictor, options=given)
    with table.open(newline="") as file:
        return report, list(csv.DictReader(file))


def test_every_frame_is_counted_and_drawn_on(
    source: Path, predictor: Predictor, tmp_path: Path
) -> None:
    report, rows = run(source, predictor, tmp_path, opacity=1)
    assert (report.frames, report.asked, len(rows)) == (25, 25, 25)
    assert report.video_s == pytest.approx(1)
    for number, row in enumerate(rows):
        seen = (town(number)[..., 0] > 127).sum()
        assert float(row["seconds"]) == pytest.approx(number / 25)
        assert float(row["built_up_share"]) == pytest.approx(seen / (96 * 128), rel=0.02)
        # The first has left the frame after 22 frames.
        assert int(row["buildings"]) == (3 if number < 21 else int(row["buildings"]))
        assert (row["smoothed"], row["skipped"]) == ("0", "0")
    assert int(rows[-1]["buildings"]) == 2
    assert report.buildings_most == 3
    for number, (_, frame) in enumerate(read_frames(tmp_path / "out.mp4")):
        drawn = (frame[..., 0] > 180) & (frame[..., 2] < 90)
        truth = town(number)[..., 0] > 127
        assert (drawn & truth).sum() / (drawn | truth).sum() > 0.9


def test_what_is_counted_has_the_name_of_its_class(
    source: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(flow, "draw_caption", lambda _, text: said.append(text))
    run(source, predictor, tmp_path)
    assert re.fullmatch(r"3 buildings · \d+\.\d% built up", said[0])
    bundle = tiny_bundle()
    spec = bundle.spec.model_copy(update={"classes": ("ground", "panel")})
    run(source, Predictor(replace(bundle, spec=spec), PointwiseEngine()), tmp_path)
    assert re.fullmatch(r"3 panel polygons · \d+\.\d% panel", said[25])


def test_a_frame_is_what_predict_makes_of_it(
    source: Path, predictor: Predictor, tmp_path: Path
) -> None:
    _, rows = run(source, predictor, tmp_path, scale=0.5)
    from rooftrace.predict.plan import SceneOptions

    for row, (_, frame) in zip(rows, read_frames(source)):
        alone = predictor.predict(
            np.moveaxis(frame, -1, 0), options=SceneOptions(scale=0.5, outputs=("mask",))
        )
        assert float(row["built_up_share"]) == pytest.approx(alone.mask.data.mean(), abs=1e-6)


def test_a_stride_carries_the_mask(source: Path, predictor: Predictor, tmp_path: Path) -> None:
    report, rows = run(source, predictor, tmp_path, stride=5)
    assert (report.frames, report.asked) == (25, 5)
    assert [row["skipped"] for row in rows] == ["0", "1", "1", "1", "1"] * 5
    for number, row in enumerate(rows):
        assert row["built_up_share"] == rows[number // 5 * 5]["built_up_share"]
    _, flowing = run(source, predictor, tmp_path, stride=5, smoothing="flow")
    # The house that leaves to the left takes its part of the mask with it.
    shares = [float(row["built_up_share"]) for row in flowing]
    assert shares[24] < shares[20]
    assert flowing[1]["smoothed"] == "1"


def test_a_new_scene_is_looked_at_with_any_stride(predictor: Predictor, tmp_path: Path) -> None:
    other = np.random.default_rng(0).integers(0, 120, (6, 8, 3), dtype=np.uint8)
    other = np.kron(other, np.ones((16, 16, 1), dtype=np.uint8))
    frames = [town(n) for n in range(7)] + [other] * 6
    report, rows = run(
        write_video(tmp_path / "in.mp4", frames), predictor, tmp_path, stride=5, smoothing="flow"
    )
    assert report.cuts == 1
    assert [number for number, row in enumerate(rows) if row["skipped"] == "0"] == [0, 5, 7, 12]
    assert [number for number, row in enumerate(rows) if row["smoothed"] == "0"] == [0, 7]
    assert float(rows[7]["built_up_share"]) == 0


@pytest.mark.parametrize("room", [0, 3 * 96 * 128 * 7])
def test_little_memory_is_enough(
    source: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Frames that wait for others to make up a batch are never waited for."""
    _, expected = run(source, predictor, tmp_path, stride=3)
    monkeypatch.setattr(flow, "_WAITING_BYTES", room)
    monkeypatch.setattr(flow, "_WAITING_FRAMES", 0)
    report, rows = run(source, predictor, tmp_path, stride=3)
    assert rows == expected
    assert (report.frames, report.asked) == (25, 9)


def test_smoothing_bridges_what_flickers(predictor: Predictor, tmp_path: Path) -> None:
    """Smooth over every fourth frame, where the network narrowly misses the houses."""
    house = town(0) > 127
    frames = [
        np.where(house, np.uint8(118 if n % 4 == 3 else 138), np.uint8(30)) for n in range(24)
    ]
    source = write_video(tmp_path / "in.mp4", frames)
    counts = {}
    for kind in ("none", "flow"):
        _, rows = run(source, predictor, tmp_path, smoothing=kind, time_constant_s=0.3)
        counts[kind] = {int(row["buildings"]) for row in rows[4:]}
    assert counts == {"none": {0, 3}, "flow": {3}}


class Failing(PointwiseEngine):
    """A network that gives up at its third batch."""

    calls = 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.calls += len(batch)
        if self.calls > 3:
            raise RuntimeError("out of luck")
        return super().run(batch)


def full_disk(self: VideoWriter, picture: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failure_leaves_neither_files_nor_threads(
    source: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    threads = set(threading.enumerate())
    with pytest.raises(PredictError, match=r"in.mp4, frame \d+: the network failed.*out of luck"):
        run(source, Predictor(tiny_bundle(), Failing()), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "add", full_disk)
        with pytest.raises(ExportError, match=r"out.mp4 could not be written: No space left"):
            run(source, predictor, tmp_path)

    def interrupt(done: int, total: int) -> None:
        assert total == 25
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_video(
            source, tmp_path / "out.mp4", predictor=predictor, progress=interrupt,
            options=VideoOptions(table=tmp_path / "frames.csv"),
        )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == before
    names = {thread.name for thread in set(threading.enumerate()) - threads}
    assert not any(name.startswith(("read", "network")) for name in names)


def test_what_cannot_be_is_refused_before_anything_is_done(
    source: Path, predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="would replace the input"):
        run_video(source, source, predictor=predictor)
    with pytest.raises(DataError, match="does not exist"):
        run(tmp_path / "none.mp4", predictor, tmp_path)
    for wrong, reported in (
        ({"stride": 0}, "stride: it should be .* 1 "),
        ({"smoothing": "median"}, "smoothing: .*median"),
        ({"time_constant_s": -1.0}, "time_constant_s: .* 0 "),
        ({"opacity": 1.5}, "opacity: .* 1 "),
        ({"start_s": 2.0, "end_s": 1.0}, "from 2 to 1 s; expected an end after"),
    ):
        with pytest.raises(ConfigError, match=reported):
            VideoOptions(**wrong)
    tiny = tiny_bundle()
    four = ModelBundle(
        tiny.spec.model_copy(update={"bands": ("red", "green", "blue", "nir")}), tiny.parts, "four"
    )
    with pytest.raises(BandMismatch, match="has 3 bands"):
        run(source, Predictor(four, ConstantEngine()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
