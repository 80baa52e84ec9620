"""`rooftrace video` through the real command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("av")

from command_line import call
from rooftrace.io import video as video_io
from video_files import read_frames, town, write_video

TEST_CAMERA = ("testsrc=size=64x48:rate=10", "lavfi")

RECORD = """
import sys
import rooftrace.io.video as video_io
video_io._device = lambda camera: ("testsrc=size=64x48:rate=20,realtime", "lavfi")
from rooftrace.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mp4", map(town, range(20)), sound="aac")


def test_a_video_becomes_a_video_and_a_table(bundle: Path, source: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out" / "town.mp4", tmp_path / "frames.csv"
    code, done = call("video", source, "-o", out, "-m", bundle, "--table", table,
                      "--smoothing", "none", "--stride", 2)  # fmt: skip
    assert code == 0
    assert (done["frames"], done["asked"]) == (20, 10)
    assert (done["path"], done["table"]) == (str(out), str(table))
    assert done["shape_yx"] == [96, 128]
    assert done["buildings_most"] == 3
    assert done["frames_per_s"] > 0
    assert len(read_frames(out)) == 20
    assert table.read_text().splitlines()[0] == (
        "frame,seconds,built_up_share,buildings,smoothed,skipped"
    )


@pytest.mark.campaign
def test_what_goes_wrong_has_its_code(bundle: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    whole = source.read_bytes()
    torn = write_video(tmp_path / "torn.mkv", [town(n) for n in range(40)])
    torn.write_bytes(torn.read_bytes()[:-600])
    for arguments, expected, reported in (
        ((tmp_path / "text.mp4",), 3, "cannot be read as a video"),
        ((tmp_path / "none.mp4",), 3, "does not exist"),
        (("camera:77",), 3, "camera:77 cannot be opened"),
        ((source, "-o", source), 2, "would replace the input"),
        ((source, "-o", tmp_path / "out.gif"), 2, "ends in .mp4"),
        ((source, "--min-area", 3), 3, "does not say how large"),
        ((source, "--gsd", 30), 0, ""),
        ((torn,), 0, ""),
    ):
        code, done = call("video", "-o", tmp_path / "out.mp4", "-m", bundle, *arguments)
        assert code == expected, (arguments, done)
        assert reported in done.get("error", {}).get("message", "")
    assert source.read_bytes() == whole


def test_a_camera_for_some_seconds(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_io, "_device", lambda _: TEST_CAMERA)
    code, done = call("video", "camera", "-o", tmp_path / "out.mp4", "-m", bundle, "--seconds", 1)
    assert (code, done["frames"]) == (0, 10)
    assert done["video_s"] == pytest.approx(1)
    assert len(read_frames(tmp_path / "out.mp4")) == 10


def started(tmp_path: Path, source: object, bundle: Path) -> subprocess.Popen[str]:
    """A recording that has begun to write."""
    (tmp_path / "out").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", RECORD, "video", str(source), "-o", tmp_path / "out" / "out.mp4",
         "-m", bundle],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    for _ in range(2400):
        if any((tmp_path / "out").iterdir()):
            return process
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.kill()
    raise AssertionError("nothing was begun in 120 s")


@pytest.mark.campaign
def test_ctrl_c_ends_a_recording_whole(bundle: Path, tmp_path: Path) -> None:
    process = started(tmp_path, "camera", bundle)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    reported = process.communicate(timeout=60)[1]
    assert process.returncode == 0, reported
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out.mp4"]
    assert len(read_frames(tmp_path / "out" / "out.mp4")) >= 5
    assert "frames" in reported
