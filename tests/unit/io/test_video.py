"""Videos in and out: times, sides, colours, and what is damaged."""

import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from rooftrace.core.errors import DataError
from rooftrace.io import video
from rooftrace.io.video import VideoFrame, VideoReader, is_camera, video_sink
from video_files import read_frames, town, write_sound, write_video


def pictures(path: Path | str, **options: Any) -> list[VideoFrame]:
    with VideoReader(path, **options) as reader:
        return [*reader.frames()]


def copied(source: Path, out: Path, **options: Any) -> VideoReader:
    """Read a video and write it again."""
    with VideoReader(source, **options) as reader, video_sink(out, reader.info, crf=5) as sink:
        for frame in reader.frames():
            sink.add(frame)
    return reader


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_each_frame_keeps_its_time(tmp_path: Path, ending: str) -> None:
    times = [0, 100, 5000, 5001, 9000, 12345, 60000, 61000]
    source = write_video(
        tmp_path / "in.mp4", map(town, range(8)), times=times, tick=Fraction(1, 90000)
    )
    found = pictures(source)
    assert [one.pts for one in found] == times
    assert [one.seconds for one in found] == [pytest.approx(t / 90000) for t in times]
    assert [one.number for one in found] == list(range(8))
    copied(source, tmp_path / f"out{ending}")
    assert [at for at, _ in read_frames(tmp_path / f"out{ending}")] == [
        Fraction(t, 90000) for t in times
    ]


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", map(town, range(5)))
    copied(source, tmp_path / "out.mp4")
    for number, (_, frame) in enumerate(read_frames(tmp_path / "out.mp4")):
        assert np.abs(frame.astype(int) - town(number)).mean() < 2


@pytest.mark.parametrize("turned", [0, 1, 2, 3])
def test_a_turned_video_is_read_upright(tmp_path: Path, turned: int) -> None:
    """The matrix of ISO/IEC 14496-12 (x' = ax + cy, y' = bx + dy), written by hand."""
    picture = town(0)
    picture[:20, :20] = (240, 20, 20)
    source = write_video(tmp_path / "in.mp4", [picture] * 3)
    data = bytearray(source.read_bytes())
    one = 1 << 16
    matrix = [(one, 0, 0, one), (0, one, -one, 0), (-one, 0, 0, -one), (0, -one, one, 0)][turned]
    a, b, c, d = matrix
    # Version and flags, four times of 32 bits, two words, layer to volume, and a reserved half.
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    with VideoReader(source) as reader:
        (first, *_) = reader.frames()
        assert reader.info.shape_yx == first.rgb.shape[:2]
    # Once clockwise for each: what was above is then on the right.
    expected = np.rot90(picture, -turned)
    assert first.rgb.shape == expected.shape
    assert np.abs(first.rgb.astype(int) - expected).mean() < 3


def test_an_odd_side_gets_one_pixel_more(tmp_path: Path) -> None:
    frames = [town(n, (47, 63)) for n in range(3)]
    source = write_video(tmp_path / "in.mkv", frames, codec="ffv1", pixels="bgr0", options={})
    (first, *_) = pictures(source)
    np.testing.assert_array_equal(first.rgb, frames[0])
    copied(source, tmp_path / "out.mp4")
    written = read_frames(tmp_path / "out.mp4")[0][1].astype(int)
    assert written.shape == (48, 64, 3)
    assert np.abs(written[:47, :63] - frames[0]).mean() < 3
    assert np.abs(written[47] - written[46]).mean() < 3


@pytest.mark.parametrize("matrix", [None, 1, 5])
def test_colours_stay_what_they_are(tmp_path: Path, matrix: int | None) -> None:
    """Coded by BT.709, by BT.601, and where the video does not say."""
    frame = np.zeros((64, 96, 3), dtype=np.uint8)
    frame[:, :32], frame[:, 32:64], frame[:, 64:] = (220, 40, 30), (30, 200, 60), (40, 60, 210)
    source = write_video(tmp_path / "in.mp4", [frame] * 3, colours=matrix)
    reader = copied(source, tmp_path / "out.mp4")
    assert reader.info.matrix == (2 if matrix is None else matrix)
    for path in (source, tmp_path / "out.mp4"):
        shown = read_frames(path)[0][1]
        for col in (16, 48, 80):
            assert np.abs(shown[32, col].astype(int) - frame[32, col]).max() <= 6


def test_a_range_is_cut_out(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", map(town, range(75)), sound="aac")
    copied(source, tmp_path / "out.mp4", start_s=1.0, end_s=2.0)
    frames = read_frames(tmp_path / "out.mp4")
    assert (len(frames), frames[0][0]) == (25, 0)
    assert np.abs(frames[0][1].astype(int) - town(25)).mean() < 3


def test_nothing_lies_behind_the_end(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", map(town, range(10)))
    with pytest.raises(DataError, match=r"from 3 s, but lasts 0\.4 s"):
        VideoReader(source, start_s=3)


def test_frames_are_of_one_size(tmp_path: Path) -> None:
    """A stream may go over to another size in its midst."""
    parts = [
        write_video(
            tmp_path / f"{n}.h264", [town(0, shape)] * 3,
        ).read_bytes()
        for n, shape in enumerate([(96, 128), (48, 64)])
    ]  # fmt: skip
    (tmp_path / "in.h264").write_bytes(b"".join(parts))
    found = pictures(tmp_path / "in.h264")
    assert {one.rgb.shape for one in found} == {(96, 128, 3)}
    assert len(found) == 6
    assert all(later.pts > one.pts for one, later in pairwise(found))


@pytest.mark.campaign
@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_a_file_that_breaks_off(tmp_path: Path, ending: str) -> None:
    source = write_video(
        tmp_path / f"in{ending}", (noisy(n) for n in range(100)),
        container={"movflags": "+faststart"} if ending == ".mp4" else {},
    )  # fmt: skip
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    with VideoReader(source) as reader:
        found = [*reader.frames()]
        assert reader.broke_at_s is not None
        assert 20 < len(found) < 80
        assert reader.broke_at_s == pytest.approx(found[-1].seconds, abs=0.2)
        assert any("breaks off at" in note and "of 4.00 s" in note for note in reader.notes)


def noisy(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).integers(0, 60, (96, 128, 1), dtype=np.uint8)
    return town(number) // 2 + noise


def test_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "in.mp4", (noisy(n) for n in range(40)), options={"crf": "10", "g": "5"}
    )
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    source.write_bytes(data)
    with VideoReader(source) as reader:
        found = [*reader.frames()]
        assert 30 < len(found) <= 40
        assert found[-1].seconds == pytest.approx(39 / 25)
        assert reader.damaged > 0
        assert reader.broke_at_s is None
        assert [note for note in reader.notes if "is damaged" in note]


@pytest.mark.campaign
def test_a_whole_file_is_not_said_to_break_off(tmp_path: Path) -> None:
    for ending in (".mp4", ".mkv", ".mov", ".avi", ".ts"):
        source = write_video(
            tmp_path / f"in{ending}", map(town, range(30)),
            **({} if ending in (".mp4", ".mov") else {"tick": Fraction(1, 25)}),
        )  # fmt: skip
        with VideoReader(source) as reader:
            found = list(reader.frames())
            assert (len(found), reader.broke_at_s, reader.notes) == (30, None, []), ending
            # AVI has no other time than the order of the packets, of which one comes first.
            assert found[0].seconds == (0.04 if ending == ".avi" else 0), ending


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video " * 100)
    Image.fromarray(town(0)).save(tmp_path / "still.png")
    write_video(tmp_path / "both.mkv", [town(0)] * 5, sound="aac")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nboth.mkv\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile both.mkv\n")
    sound_alone(tmp_path / "sound.m4a")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    for name, pattern in {
        "text.mp4": "cannot be read as a video",
        "empty.mp4": "cannot be read as a video",
        "still.png": "cannot be read as a video",
        "list.m3u8": "cannot be read as a video",
        "list.ffconcat": "cannot be read as a video",
        "sound.m4a": "has no readable frames: it holds audio",
        "missing.mp4": "does not exist",
    }.items():
        with pytest.raises(DataError, match=pattern) as caught:
            VideoReader(tmp_path / name)
        assert caught.value.remedy
        assert name in caught.value.message
    with pytest.raises(DataError, match="is a URL; expected a file or a camera"):
        VideoReader("http://127.0.0.1:9/video.mp4")
    with pytest.raises(DataError, match="is a URL; expected an rtsp") as caught:
        VideoReader("ftp://me:s3cret@127.0.0.1/x", streams=True)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(DataError, match=r"rtsp:.* cannot be opened") as caught:
        VideoReader("rtsp://me:s3cret@127.0.0.1:9/x?token=s3cret", streams=True)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        VideoReader(tmp_path)


def sound_alone(path: Path) -> None:
    import av

    with av.open(str(path), "w") as out:
        write_sound(out, out.add_stream("aac", rate=48000, layout="mono"), 0.5)


def test_names_of_cameras() -> None:
    for name in ("camera", "camera:1", "/dev/video0", Path("/dev/video12")):
        assert is_camera(name)
    for name in ("camera.mp4", "camera:", "dev/video0", "my camera"):
        assert not is_camera(name)


def test_a_camera_is_read_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_device", lambda _: ("testsrc=size=64x48:rate=10", "lavfi"))
    seen: list[VideoFrame] = []
    with VideoReader("camera:1", stop=lambda: len(seen) >= 7) as reader:
        assert reader.live
        assert reader.info.duration_s is None
        seen.extend(iter(reader.frames()))
    assert len(seen) == 7
    assert [one.seconds for one in seen] == [pytest.approx(n / 10) for n in range(7)]
    assert reader.notes == []
    assert len(pictures("camera", end_s=0.5)) == 5
