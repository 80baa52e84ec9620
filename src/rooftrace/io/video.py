"""Videos, cameras and streams, read and written frame by frame by PyAV (FFmpeg).

Frames are turned upright and keep their times; sound is neither decoded nor copied. Opening a
source opens no other file or URL that it may name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, DataError, ExportError, MissingExtraError
from rooftrace.core.text import reason_of
from rooftrace.io.files import check_exists, export_error, is_url, replacing
from rooftrace.io.remote import without_query

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Container formats of written videos by file suffix; all keep the time of each frame."""

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,m4v,h264,hevc,"
    "av1,ivf,obu,mjpeg,mpjpeg,dv,mxf,nut,wtv,rm,swf,yuv4mpegpipe,y4m,vc1,apng"
)
"""Containers that hold their frames themselves. Formats that name other files or URLs (HLS, lists
of files) are left out: an uploaded file could choose what this machine opens."""

_STREAM_OPTIONS = {
    "format_whitelist": f"{_FORMATS},rtsp",
    # A redirection cannot make this machine open a file of its own.
    "protocol_whitelist": "http,https,httpproxy,tcp,tls,udp,rtp",
}
_STREAM = re.compile(r"(?:rtsps?|https?|udp)://.", re.IGNORECASE)
_CAMERA = re.compile(r"camera(?::(\d+))?|(/dev/video\d+)")

_CAMERA_TIMEOUT_S = 10.0
"""Seconds without data after which a camera or stream counts as disconnected."""

_UNSPECIFIED = 2
"""FFmpeg's number for an unspecified colour property."""

_TOLERANCE_S = 0.1
"""Seconds by which a complete file may be shorter than stated, unless two frames are longer."""

_ENCODERS = ("libx264", "libopenh264")
_LIMITED_RANGE = 1


def require_av(needed_for: str) -> None:
    """Raise MissingExtraError if PyAV is not installed."""
    with MissingExtraError.on_import("video", needed_for, "av"):
        import av  # noqa: F401


def is_camera(source: str | Path) -> bool:
    """Return True for `camera`, `camera:1` or `/dev/video0`, and False for a file."""
    return _CAMERA.fullmatch(str(source)) is not None


def is_stream(source: str | Path) -> bool:
    """Return True for the URL of a stream: rtsp, rtsps, http, https or udp."""
    return _STREAM.match(str(source)) is not None


def source_name(source: str | Path) -> str:
    """Return a source for messages, without the user name and keys of a URL."""
    return without_query(str(source))


def _open(source: str, *, streams: bool) -> Any:
    """Open a file, a camera or a stream as a PyAV container."""
    require_av("Reading a video")
    import av

    name = source_name(source)
    camera = _CAMERA.fullmatch(source)
    options: dict[str, str] = {}
    kind = timeout_s = None
    remedy = (
        "If the recording broke off, the index may be missing: repair the file, or record into "
        ".mkv, which needs no index. For images use rooftrace predict."
    )
    if camera is not None:
        opened, kind = _device(camera)
        timeout_s = _CAMERA_TIMEOUT_S
        remedy = "List cameras with `ls /dev/video*`, and close other programs that use it."
    elif streams and is_stream(source):
        opened, options, timeout_s = source, dict(_STREAM_OPTIONS), _CAMERA_TIMEOUT_S
        if source.lower().startswith("rtsp"):
            # Over UDP, lost packets damage frames.
            options["rtsp_transport"] = "tcp"
        remedy = (
            "Check the URL, its user name and password, and whether the camera sends. Playlists "
            "such as .m3u8 are not opened."
        )
    elif is_url(source):
        expected = "an rtsp, rtsps, http, https or udp stream" if streams else "a file or a camera"
        raise DataError(f"{name} is a URL; expected {expected}.", remedy="Download it first.")
    else:
        check_exists(Path(source))
        # With a scheme, since FFmpeg would read a name with a colon as a URL.
        opened, options = f"file:{source}", {"format_whitelist": _FORMATS}
    try:
        return av.open(
            opened, format=kind, container_options=options, metadata_errors="replace",
            timeout=timeout_s,
        )  # fmt: skip
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = reason_of(error).replace(source, name)
        # The original error may show the password of a URL.
        fault = "cannot be read as a video" if timeout_s is None else "cannot be opened"
        raise DataError(f"{name} {fault}: {reason}.", remedy=remedy) from None


def _device(camera: re.Match[str]) -> tuple[str, str]:
    """Return the name of a camera and the kind of device, as FFmpeg expects them."""
    number = camera[1] or "0"
    if sys.platform == "darwin":
        return number, "avfoundation"
    return camera[2] or f"/dev/video{number}", "v4l2"


@dataclass(frozen=True)
class VideoFrame:
    """One upright frame.

    Args:
        rgb: Pixels (y, x, 3) uint8.
        number: Number of the frame, from 0.
        pts: Presentation time in ticks of the video's time base, from the requested start.
        duration: Duration in the same ticks; 0 if not known.
    """

    rgb: NDArray[np.uint8]
    number: int
    pts: int
    duration: int
    seconds: float


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Args:
        shape_yx: Rows and columns of its upright frames.
        rate: Nominal frames per second; None if not stated.
        time_base: Seconds of one tick.
        duration_s: Duration in seconds; None if not stated, as for a camera.
        matrix: FFmpeg's number of the matrix between RGB and the coded planes.
        pixel_aspect: Width of a pixel divided by its height.
    """

    shape_yx: tuple[int, int]
    rate: Fraction | None
    time_base: Fraction
    duration_s: float | None = None
    matrix: int = _UNSPECIFIED
    pixel_aspect: Fraction = Fraction(1)


class VideoReader:
    """Reader of the frames of a video.

    Damaged parts are skipped. After the last frame `broke_at_s` holds the time at which the file
    breaks off, `damaged` the number of frames that could not be decoded, or only in part, and
    `notes` sentences about both. Frames that the container has lost cannot be counted. Each frame
    keeps its own time, also with a variable frame rate.

    Args:
        source: A file, a camera as `is_camera` recognises it, or a stream.
        start_s: Start in seconds; frames before it are left out.
        end_s: End in seconds; frames at or after it are left out.
        stop: Function called before every frame; True ends the video there.
        streams: Whether a URL as `is_stream` recognises it may be opened.

    Raises:
        DataError: the file, camera or stream does not exist, is not a video, or has no frames.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        stop: Callable[[], bool] | None = None,
        streams: bool = False,
    ) -> None:
        self.name = source_name(source)
        self._streamed = streams and is_stream(source)
        self.live = self._streamed or is_camera(source)
        self.broke_at_s: float | None = None
        self.damaged = 0
        self.frame_count = 0
        self.notes: list[str] = []
        self._start_s, self._end_s = start_s, end_s
        self._seen_s = start_s
        self._last_pts: int | None = None
        self._stop = stop or (lambda: False)
        self._container = _open(str(source), streams=streams)
        try:
            self._video = self._picture_stream()
            self._origin_s = self._seek()
            self._rest = self._decoded_frames()
            # The header may describe the frames wrongly, so the first one is decoded here.
            self._first = next(self._rest, None)
            if self._first is None:
                raise self._no_frame()
            self.info = self._info()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in their order; call it once."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._rest

    def _picture_stream(self) -> Any:
        import av

        cover = av.stream.Disposition.attached_pic
        streams = self._container.streams
        video = next(
            (s for s in streams.video if s.codec_context is not None and not s.disposition & cover),
            None,
        )
        if video is None:
            kinds = ", ".join(sorted({stream.type for stream in streams})) or "nothing"
            raise DataError(
                f"{self.name} has no readable frames: it holds {kinds}; expected a video stream.",
                remedy="Use another file.",
            )
        # Decoding several frames at once would delay the frames of a stream.
        video.thread_type = "SLICE" if self._streamed else "AUTO"
        return video

    def _seek(self) -> float:
        """Seek, and return the second of the file at which the result begins."""
        import av

        start_us = self._container.start_time
        # A negative start is the priming that an audio decoder needs before the first sample.
        origin_s = max(0.0 if start_us is None else start_us / 1e6, 0.0) + self._start_s
        if self._start_s > 0 and not self.live:
            # A damaged file that cannot seek is read from its beginning, which takes longer.
            with suppress(av.FFmpegError, OSError):
                self._container.seek(int(origin_s * 1e6))
        return origin_s

    def _info(self) -> VideoInfo:
        video, frame = self._video, self._frame
        rate = video.average_rate or video.guessed_rate
        aspect = Fraction(video.sample_aspect_ratio or 1)
        is_turned = frame.rotation % 180 == 90
        return VideoInfo(
            shape_yx=(frame.width, frame.height) if is_turned else (frame.height, frame.width),
            rate=Fraction(rate) if rate else None,
            time_base=Fraction(video.time_base),
            duration_s=self._stated_s(),
            matrix=int(frame.colorspace),
            pixel_aspect=1 / aspect if is_turned else aspect,
        )

    def _no_frame(self) -> DataError:
        stated_s = self._stated_s()
        if self.damaged or stated_s is None or self._start_s < stated_s:
            return DataError(
                f"{self.name} holds no frame that can be decoded.",
                remedy="It is damaged or breaks off at its beginning: get the file again.",
            )
        return DataError(
            f"{self.name} was to be read from {self._start_s:g} s, but lasts {stated_s:.3g} s.",
            remedy="Use an earlier start.",
        )

    def _stated_s(self) -> float | None:
        """Return the duration of the longest stream in seconds, as the file states it."""
        duration = self._container.duration
        return duration / 1e6 if duration and not self.live else None

    def _decoded_frames(self) -> Iterator[VideoFrame]:
        import av

        is_torn = False
        end_pts = None
        if self._end_s is not None:
            end_pts = round((self._end_s - self._start_s) / float(self._video.time_base))
        packets = self._container.demux(self._video)
        while not self._stop():
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError):
                is_torn = True
                break
            # If a file breaks off within a packet, that packet is the last.
            is_torn = packet.is_corrupt
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                # What follows may be complete.
                self.damaged += 1
                continue
            for frame in decoded:
                picture = self._upright(frame)
                if picture is None:
                    continue
                if end_pts is not None and picture.pts >= end_pts:
                    return
                self.frame_count += 1
                yield picture
                if self._stop():
                    return
        if not self._stop():
            self._note_damage(is_torn)

    def _upright(self, frame: Any) -> VideoFrame | None:
        """Return an upright frame; None if it lies before the start."""
        tick = self._video.time_base
        if frame.pts is None:
            step = 1 / (self._video.average_rate or 25) / tick
            pts = 0 if self._last_pts is None else self._last_pts + max(round(step), 1)
        else:
            if self.live and self._last_pts is None:
                self._origin_s = float(frame.pts * tick) + self._start_s
            pts = frame.pts - round(Fraction(self._origin_s) / tick)
        if pts < 0 and (self._start_s > 0 or self.live):
            return None
        if self._last_pts is not None and pts <= self._last_pts:
            # Damaged files may have times that do not increase, which no container accepts.
            pts = self._last_pts + 1
        self._last_pts = pts
        if self.frame_count == 0:
            self._frame = frame
        self.damaged += bool(frame.is_corrupt)
        rgb = frame.to_ndarray(format="rgb24", width=self._frame.width, height=self._frame.height)
        turns = round(frame.rotation / 90)
        if turns % 4:
            rgb = np.rot90(rgb, turns)
        duration = frame.duration or 0
        self._seen_s = max(self._seen_s, float((pts + duration) * tick) + self._start_s)
        return VideoFrame(
            np.ascontiguousarray(rgb), self.frame_count, int(pts), int(duration), float(pts * tick)
        )

    def _note_damage(self, is_torn: bool) -> None:
        """Note if the file ended before its stated duration, or was damaged."""
        stated_s, rate = self._stated_s(), self._video.average_rate
        tolerance_s = max(_TOLERANCE_S, 2 / float(rate) if rate else 0.0)
        if is_torn or (stated_s is not None and self._seen_s < stated_s - tolerance_s):
            self.broke_at_s = self._seen_s
            total = "" if stated_s is None else f" of {stated_s:.2f}"
            self.notes.append(f"{self.name} breaks off at {self._seen_s:.2f}{total} s.")
        if self.damaged:
            self.notes.append(
                f"{self.name} is damaged: {self.damaged:,} of its frames could not be decoded, "
                "or only in part."
            )


def check_video_name(path: Path) -> None:
    """Raise ConfigError if the suffix is not one of a supported container."""
    if path.suffix.lower() not in CONTAINERS or path.is_dir():
        raise ConfigError(
            f"The output is named {path}; expected a name that ends in {', '.join(CONTAINERS)}.",
            remedy="For example: -o buildings.mp4",
        )


class VideoWriter:
    """A video that is being written as H.264; `video_sink` opens one."""

    def __init__(self, info: VideoInfo, container: Any, crf: int) -> None:
        import av

        # Some builds of PyAV leave x264 out because of its licence.
        encoder = next((one for one in _ENCODERS if one in av.codecs_available), _ENCODERS[0])
        self._container, self._matrix = container, info.matrix
        self._tick = info.time_base
        self._stream: Any = container.add_stream(
            encoder, rate=(info.rate or Fraction(25)).limit_denominator(65535),
            options={"crf": str(crf), "preset": "veryfast"},
        )  # fmt: skip
        context = self._stream.codec_context
        height, width = info.shape_yx
        context.width, context.height = width + width % 2, height + height % 2
        context.pix_fmt = "yuv420p"
        context.time_base = self._stream.time_base = self._tick
        context.color_range, context.colorspace = _LIMITED_RANGE, info.matrix
        if info.pixel_aspect != 1:
            context.sample_aspect_ratio = info.pixel_aspect

    def add(self, picture: VideoFrame) -> None:
        """Encode a frame. An odd side is padded by one pixel, as the codec requires."""
        import av

        rgb = picture.rgb
        height, width = rgb.shape[:2]
        if height % 2 or width % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=None if self._matrix == _UNSPECIFIED else self._matrix,
            dst_color_range=_LIMITED_RANGE,
        )
        frame.time_base, frame.pts, frame.duration = self._tick, picture.pts, picture.duration
        self._mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write the remaining frames of the encoder, and the index."""
        self._mux(self._stream.encode(None))
        self._container.close()

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._container.mux_one(packet)


@contextmanager
def video_sink(path: Path, info: VideoInfo, *, crf: int = 20) -> Iterator[VideoWriter]:
    """Open a video for writing, which appears under its name if the block succeeds.

    Args:
        path: File to write; the suffix selects the container.
        info: Properties of the input video: time base, rate, colours.
        crf: Constant rate factor: 0 is lossless, 51 the lowest quality.

    Raises:
        ConfigError: the suffix is not supported.
    """
    require_av("Writing a video")
    import av

    check_video_name(path)
    kind = CONTAINERS[path.suffix.lower()]
    options = {} if kind == "matroska" else {"movflags": "+faststart"}
    try:
        with replacing(path) as partial:
            container = av.open(f"file:{partial}", "w", format=kind, container_options=options)
            try:
                writer = VideoWriter(info, container, crf)
                yield writer
                writer.finish()
            except BaseException:
                with suppress(Exception):
                    container.close()
                raise
    except OSError as error:
        raise export_error(path, error) from error
    except av.FFmpegError as error:
        raise ExportError(
            f"{path} could not be written: {reason_of(error)}.", remedy="Try another container."
        ) from error
