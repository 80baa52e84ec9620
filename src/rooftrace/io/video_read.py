"""Video files, cameras and streams, read frame by frame by PyAV (FFmpeg).

Frames are turned upright; audio is not decoded. `open_video` opens a file, a camera or a stream and
no other file or address that it may name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, MissingExtraError
from rooftrace.core.text import reason_of
from rooftrace.io.remote import is_url, without_query

if TYPE_CHECKING:
    import av

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,m4v,h264,hevc,"
    "av1,ivf,obu,mjpeg,mpjpeg,dv,mxf,nut,wtv,rm,swf,yuv4mpegpipe,y4m,vc1,apng"
)
"""Containers that hold their frames themselves. Formats that name other files or addresses (HLS,
lists of files) are left out: a received file could choose what this machine opens."""

_STREAM_FORMATS = f"{_FORMATS},rtsp"
_STREAM_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp"
"""Protocols of a stream: a redirection cannot make this machine open a file of its own."""

_STREAM = re.compile(r"(?:rtsps?|https?|udp)://.", re.IGNORECASE)

_CAMERA = re.compile(r"camera(?::(\d+))?|(/dev/video\d+)")

_CAMERA_TIMEOUT_S = 10.0
"""Seconds without data after which a camera or stream counts as disconnected."""


def require_av(needed_for: str) -> None:
    """Raise MissingExtraError if PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("video", needed_for, "av") from error


def is_camera(source: str | Path) -> bool:
    """Return True for `camera`, `camera:1` or `/dev/video0`, and False for a file."""
    return _CAMERA.fullmatch(str(source)) is not None


def is_stream(source: str | Path) -> bool:
    """Return True for an address of a stream: rtsp, rtsps, http, https or udp."""
    return _STREAM.match(str(source)) is not None


def source_name(source: str | Path) -> str:
    """Return a source for messages, without the user name and keys of an address."""
    return without_query(str(source))


def open_video(source: str | Path, *, streams: bool = False) -> Any:
    """Open a file, a camera or a stream as a PyAV container, which opens no other file.

    Args:
        source: A file, a camera as `is_camera` recognises it, or a stream.
        streams: Whether an address as `is_stream` recognises it may be opened.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: the file, camera or stream does not exist, or cannot be read.
    """
    require_av("Reading a video")
    import av

    given, name = str(source), source_name(source)
    camera = _CAMERA.fullmatch(given)
    streamed = streams and is_stream(given)
    if camera is None and is_url(given) and not streamed:
        if streams:
            raise DataError(
                f"{name} is not an address of a stream; expected rtsp, rtsps, http, https or udp.",
                remedy="Check the address.",
            )
        raise DataError(
            f"{name} is an address; expected a file or a camera.", remedy="Download it first."
        )
    options: dict[str, str] = {}
    kind = None
    if camera is not None:
        opened, kind = _device(camera)
    elif streamed:
        opened = given
        options = {"format_whitelist": _STREAM_FORMATS, "protocol_whitelist": _STREAM_PROTOCOLS}
        if given.lower().startswith("rtsp"):
            # Over UDP, lost packets damage frames.
            options["rtsp_transport"] = "tcp"
    elif not Path(given).exists():
        raise DataError(f"There is no video at {given}.", remedy="Check the path.")
    else:
        # With a scheme, since FFmpeg would read a name with a colon as an address.
        opened, options = f"file:{given}", {"format_whitelist": _FORMATS}
    try:
        return av.open(
            opened, format=kind, container_options=options, metadata_errors="replace",
            timeout=_CAMERA_TIMEOUT_S if camera or streamed else None,
        )  # fmt: skip
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = reason_of(error)
        reason = reason.replace(given, name)
        if camera is not None:
            raise DataError(
                f"The camera {given} cannot be opened: {reason}.",
                remedy="List cameras with `ls /dev/video*`, and close other programs that use it.",
            ) from error
        if streamed:
            raise DataError(
                f"The stream {name} cannot be opened: {reason}.",
                remedy="Check the address, its user name and password, and whether the camera "
                "sends. Playlists such as .m3u8 are not opened.",
            ) from None
        raise DataError(
            f"{given} cannot be read as a video: {reason}.",
            remedy="If the recording broke off, the index may be missing: repair the file, or "
            "record into .mkv, which needs no index. For images use rooftrace predict.",
        ) from error


def _device(camera: re.Match[str]) -> tuple[str, str]:
    """Return the name of a camera and the kind of device, as FFmpeg expects them."""
    number = camera[1] or "0"
    if sys.platform == "darwin":
        return number, "avfoundation"
    return camera[2] or f"/dev/video{number}", "v4l2"


_UNTAGGED = 2
"""FFmpeg's number for an unspecified colour property."""

_MAX_FRAME_PX = 2**26
"""Maximum size of a frame, twice 8K. A damaged header may claim more than fits into memory."""

_TOLERANCE_S = 0.1
"""Seconds by which a complete file may be shorter than stated, unless two frames are longer."""


class ColourCoding(NamedTuple):
    """Colour coding of a video, by FFmpeg's numbers (ISO/IEC 23091-2); 2 is unspecified.

    Args:
        matrix: Matrix between RGB and the coded planes.
        primaries: Colour primaries.
        transfer: Transfer characteristics.
    """

    matrix: int = _UNTAGGED
    primaries: int = _UNTAGGED
    transfer: int = _UNTAGGED


@dataclass(frozen=True)
class VideoFrame:
    """One upright frame.

    Args:
        rgb: Pixels (y, x, 3) uint8.
        number: Number of the frame, from 0.
        pts: Presentation time in ticks of the video's time base, from the requested start.
        duration: Duration in the same ticks; 0 if not known.
        seconds: Presentation time in seconds.
    """

    rgb: NDArray[np.uint8]
    number: int
    pts: int
    duration: int
    seconds: float


@dataclass(frozen=True)
class AudioPacket:
    """A packet of coded audio with its time shifted to the requested start.

    Args:
        packet: Packet of PyAV.
        stream: Number of the audio track.
    """

    packet: av.Packet[Any]
    stream: int


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Args:
        shape_yx: Rows and columns of its upright frames.
        rate: Nominal frames per second; None if not stated.
        time_base: Seconds of one tick.
        duration_s: Duration in seconds; None if not stated, as for a camera.
        codec: Codec of the frames.
        sound: Codec of each audio track.
        colours: Colour coding of the first frame.
        pixel_aspect: Width of a pixel divided by its height.
    """

    shape_yx: tuple[int, int]
    rate: Fraction | None
    time_base: Fraction
    duration_s: float | None
    codec: str
    sound: tuple[str, ...]
    colours: ColourCoding
    pixel_aspect: Fraction


class VideoReader:
    """Reader of the frames and audio packets of a video, in the order of the file.

    Damaged parts are skipped. After the last frame `broke_at_s` holds the time at which the file
    breaks off, `damaged` the number of frames that could not be decoded, or only in part, and
    `notes` texts about both. Frames that the container has lost cannot be counted. Each frame keeps
    its own time, also with a variable frame rate.

    Args:
        source: A file, a camera as `is_camera` recognises it, or a stream.
        start_s: Start in seconds; frames before it are left out.
        end_s: End in seconds; frames at or after it are left out.
        stop: Function called before every frame; True ends the video there.
        streams: Whether an address as `is_stream` recognises it may be opened.

    Raises:
        MissingExtraError: PyAV is not installed.
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
        self.frames = 0
        self.notes: list[str] = []
        self._start_s, self._end_s = start_s, end_s
        self._stop = stop or (lambda: False)
        self._container = open_video(source, streams=streams)
        try:
            self._video = self._pictures()
            self._sounds = [] if self.live else [
                one for one in self._container.streams.audio if one.codec_context is not None
            ]  # fmt: skip
            self._prepare()
            self._origin_s = self._begin()
            self._waiting = self._events()
            self._first: list[VideoFrame | AudioPacket] = []
            self.info = self._look()
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

    @property
    def sound_streams(self) -> list[Any]:
        """Audio tracks, as PyAV's templates for those of an output."""
        return list(self._sounds)

    def items(self) -> Iterator[VideoFrame | AudioPacket]:
        """Yield frames and audio packets in their order; call it once."""
        yield from self._first
        self._first = []
        yield from self._waiting

    def _pictures(self) -> Any:
        import av

        cover = av.stream.Disposition.attached_pic
        for one in self._container.streams.video:
            if one.codec_context is not None and not one.disposition & cover:
                return one
        held = sorted({one.type for one in self._container.streams})
        raise DataError(
            f"{self.name} has no readable frames: it holds {', '.join(held) or 'nothing'}; "
            "expected a video stream.",
            remedy="Use another file.",
        )

    def _prepare(self) -> None:
        """Let the decoder use all cores, and limit the size of a frame."""
        context = self._video.codec_context
        if context.width * context.height > _MAX_FRAME_PX:
            raise DataError(
                f"{self.name} has frames of {context.width:,} × {context.height:,} pixels; "
                f"expected at most {_MAX_FRAME_PX:,} pixels.",
                remedy="Extract its frames as images and use rooftrace predict.",
            )
        context.options = {"max_pixels": str(_MAX_FRAME_PX)}
        # Decoding several frames at once would delay the frames of a stream.
        self._video.thread_type = "SLICE" if self._streamed else "AUTO"

    def _begin(self) -> float:
        """Seek, and return the second of the file at which the result begins."""
        import av

        began = 0.0 if self._container.start_time is None else self._container.start_time / 1e6
        # A negative start is the priming that an audio decoder needs before the first sample.
        origin_s = max(began, 0.0) + self._start_s
        if self._start_s > 0 and not self.live:
            # A damaged file that cannot seek is read from its beginning, which takes longer.
            with suppress(av.FFmpegError, OSError):
                self._container.seek(int(origin_s * 1e6))
        return origin_s

    def _look(self) -> VideoInfo:
        """Decode up to the first frame: the header may describe it wrongly."""
        for item in self._waiting:
            self._first.append(item)
            if isinstance(item, VideoFrame):
                break
        else:
            raise self._nothing()
        video, context = self._video, self._video.codec_context
        rate = video.average_rate or video.guessed_rate
        aspect = video.sample_aspect_ratio or Fraction(1)
        frame = self._frame
        turned = frame.rotation % 180 == 90
        height, width = (frame.width, frame.height) if turned else (frame.height, frame.width)
        return VideoInfo(
            shape_yx=(height, width),
            rate=Fraction(rate) if rate else None,
            time_base=Fraction(video.time_base),
            duration_s=self._length_s(),
            codec=context.name,
            sound=tuple(one.codec_context.name for one in self._sounds),
            colours=ColourCoding(
                int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
            ),
            pixel_aspect=1 / Fraction(aspect) if turned else Fraction(aspect),
        )

    def _nothing(self) -> DataError:
        if self._stop():
            return DataError(f"{self.name} was stopped before its first frame.")
        length_s = self._length_s()
        if self.damaged or length_s is None or self._start_s < length_s:
            return DataError(
                f"{self.name} holds no frame that can be decoded.",
                remedy="It is damaged or breaks off at its beginning: get the file again.",
            )
        return DataError(
            f"{self.name} was to be read from {self._start_s:g} s, but lasts {length_s:.3g} s.",
            remedy="Use an earlier start.",
        )

    def _length_s(self) -> float | None:
        """Return the duration of the longest stream in seconds, as the file states it."""
        duration = self._container.duration
        return duration / 1e6 if duration and not self.live else None

    def _events(self) -> Iterator[VideoFrame | AudioPacket]:
        import av

        self._seen_s = self._start_s
        self._last_pts: int | None = None
        self._torn = False
        pending = {self._video.index, *(one.index for one in self._sounds)}
        until = None
        if self._end_s is not None:
            until = round((self._end_s - self._start_s) / float(self._video.time_base))
        packets = self._container.demux([self._video, *self._sounds])
        while pending and not self._stop():
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError):
                self._torn = True
                break
            at = packet.stream.index
            # If a file breaks off within a packet, that packet is the last.
            self._torn = packet.is_corrupt
            if at not in pending:
                continue
            if at != self._video.index:
                if packet.pts is not None and not self._hear(packet):
                    pending.discard(at)
                elif packet.pts is not None and self._is_heard(packet):
                    yield AudioPacket(self._shifted_packet(packet), self._sound_number(at))
                continue
            for frame in self._decoded(packet):
                picture = self._shown(frame)
                if picture is None:
                    continue
                if until is not None and picture.pts >= until:
                    pending.discard(at)
                    break
                self.frames += 1
                yield picture
                if self._stop():
                    return
        if pending and not self._stop():
            self._judge()

    def _decoded(self, packet: Any) -> list[Any]:
        import av

        try:
            return list(packet.decode())
        except av.FFmpegError:
            # Players skip it, too; what follows may be complete.
            self.damaged += 1
            return []

    def _shown(self, frame: Any) -> VideoFrame | None:
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
        if self.frames == 0:
            self._frame = frame
        self.damaged += bool(frame.is_corrupt)
        size = self._frame.width, self._frame.height
        rgb = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
        turns = round(frame.rotation / 90)
        if turns % 4:
            rgb = np.rot90(rgb, turns)
        duration = frame.duration or 0
        self._seen_s = max(self._seen_s, float((pts + duration) * tick) + self._start_s)
        return VideoFrame(
            np.ascontiguousarray(rgb), self.frames, int(pts), int(duration), float(pts * tick)
        )

    def _hear(self, packet: Any) -> bool:
        """Record the time of the audio; return False if it lies after the end."""
        until_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        until_s += self._start_s - self._origin_s
        if self._end_s is not None and until_s > self._end_s:
            return False
        self._seen_s = max(self._seen_s, until_s)
        return True

    def _is_heard(self, packet: Any) -> bool:
        return self._start_s == 0 or float(packet.pts * packet.time_base) >= self._origin_s

    def _shifted_packet(self, packet: Any) -> Any:
        by = round(Fraction(self._origin_s) / packet.time_base)
        packet.pts -= by
        packet.dts = packet.pts if packet.dts is None else packet.dts - by
        return packet

    def _sound_number(self, index: int) -> int:
        return next(n for n, one in enumerate(self._sounds) if one.index == index)

    def _judge(self) -> None:
        """Check whether the file ended at its stated duration."""
        length_s = self._length_s()
        rate = self._video.average_rate
        room_s = max(_TOLERANCE_S, 2 / float(rate) if rate else 0.0)
        if self._torn or (length_s is not None and self._seen_s < length_s - room_s):
            self.broke_at_s = self._seen_s
            total = "" if length_s is None else f" of {length_s:.2f}"
            self.notes.append(f"{self.name} breaks off at {self._seen_s:.2f}{total} s.")
        if self.damaged:
            self.notes.append(
                f"{self.name} is damaged: {self.damaged:,} of its frames could not be decoded, "
                "or only in part."
            )
