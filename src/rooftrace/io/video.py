"""Videos and cameras, read frame by frame by PyAV (FFmpeg): pictures upright, sound as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.io.video_open import is_camera, open_video

if TYPE_CHECKING:
    import av

__all__ = ["Colours", "Picture", "Sound", "VideoInfo", "VideoReader"]

_UNTAGGED = 2
"""How FFmpeg says that a frame does not tell its colours."""

_MOST_PX = 2**26
"""Of a frame; twice those of 8K. A few bytes of header may claim more than there is memory."""

_SHORT_S = 0.1
"""A file may end so much earlier than it says, or two frames."""


class Colours(NamedTuple):
    """How a video's colours are coded, by FFmpeg's numbers (ISO/IEC 23091-2).

    Args:
        matrix: between RGB and the coded planes; 2 where the video does not say.
        primaries, transfer: likewise.
    """

    matrix: int = _UNTAGGED
    primaries: int = _UNTAGGED
    transfer: int = _UNTAGGED


@dataclass(frozen=True)
class Picture:
    """One frame, upright.

    Args:
        rgb: (y, x, 3) uint8.
        number: of the frame, from 0.
        pts: when it is shown, in the video's time base from the start that was asked for.
        duration: how long, likewise; 0 where not known.
        seconds: `pts` in seconds.
    """

    rgb: NDArray[np.uint8]
    number: int
    pts: int
    duration: int
    seconds: float


@dataclass(frozen=True)
class Sound:
    """Some coded sound, as it lies in the file but for its time."""

    packet: av.Packet[Any]
    stream: int


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself.

    Args:
        shape_yx: of its frames, upright.
        rate: frames per second, nominal; None where it does not say.
        time_base: seconds of one tick.
        duration_s: None where it does not say, as a camera.
        codec: of the pictures.
        sound: codecs of the sound, one for each track.
        colours: of the first frame.
        pixel_aspect: width of a pixel over its height.
    """

    shape_yx: tuple[int, int]
    rate: Fraction | None
    time_base: Fraction
    duration_s: float | None
    codec: str
    sound: tuple[str, ...]
    colours: Colours
    pixel_aspect: Fraction


class VideoReader:
    """A video as pictures and sound, in the order in which they lie in the file.

    What is damaged is passed over, and told by `broke_at_s`, `damaged` (frames that could not be
    decoded, or only in part; what a container loses before is known to nobody) and `notes` when all
    was read. Time is kept as it is: whatever the rate does, each frame has its own.

    Args:
        source: a file, or a camera as `is_camera` knows it.
        start_s: where to begin, in seconds; frames before are left out.
        end_s: where to end; the first frame at or behind it is left out.
        stop: asked before every frame; what it ends is complete.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: there is no such file or camera, it is no video, or it has no pictures.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.name = str(source)
        self.live = is_camera(source)
        self.broke_at_s: float | None = None
        self.damaged = 0
        self.frames = 0
        self.notes: list[str] = []
        self._start_s, self._end_s = start_s, end_s
        self._stop = stop or (lambda: False)
        self._container = open_video(source)
        try:
            self._video = self._pictures()
            self._sounds = [] if self.live else [
                one for one in self._container.streams.audio if one.codec_context is not None
            ]  # fmt: skip
            self._prepare()
            self._origin_s = self._begin()
            self._waiting = self._events()
            self._first: list[Picture | Sound] = []
            self.info = self._look()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    @property
    def sound_streams(self) -> list[Any]:
        """The tracks of sound, as PyAV's templates for those of an output."""
        return list(self._sounds)

    def items(self) -> Iterator[Picture | Sound]:
        """Pictures and sound in their order; once."""
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
            f"{self.name} has no pictures that can be read; it holds {', '.join(held) or 'nothing'}"
            ", expected a video stream.",
            remedy="Name another file.",
        )

    def _prepare(self) -> None:
        """Let the decoder use all cores, and no frame be larger than any camera's."""
        context = self._video.codec_context
        if context.width * context.height > _MOST_PX:
            raise DataError(
                f"{self.name} has frames of {context.width:,} × {context.height:,} pixels, "
                f"expected no more than {_MOST_PX:,} pixels.",
                remedy="Take its frames as images, with rooftrace predict.",
            )
        context.options = {"max_pixels": str(_MOST_PX)}
        self._video.thread_type = "AUTO"

    def _begin(self) -> float:
        """Seek, and say at which of the file's own seconds the result begins."""
        import av

        began = 0.0 if self._container.start_time is None else self._container.start_time / 1e6
        # A negative start is what a decoder of sound needs before the first that is heard.
        origin_s = max(began, 0.0) + self._start_s
        if self._start_s > 0 and not self.live:
            # Where a damaged file cannot, it is read from its beginning, which takes longer.
            with suppress(av.FFmpegError, OSError):
                self._container.seek(int(origin_s * 1e6))
        return origin_s

    def _look(self) -> VideoInfo:
        """Decode up to the first picture: what the header says of it need not be so."""
        for item in self._waiting:
            self._first.append(item)
            if isinstance(item, Picture):
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
            colours=Colours(
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
                remedy="It is damaged or breaks off at its beginning: get it again.",
            )
        return DataError(
            f"{self.name} was to be read from {self._start_s:g} s, but lasts {length_s:.3g} s.",
            remedy="Begin earlier.",
        )

    def _length_s(self) -> float | None:
        """Of the longest stream, as the file says."""
        duration = self._container.duration
        return duration / 1e6 if duration and not self.live else None

    def _events(self) -> Iterator[Picture | Sound]:
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
            # Of a file that breaks off within a packet it is the last.
            self._torn = packet.is_corrupt
            if at not in pending:
                continue
            if at != self._video.index:
                if packet.pts is not None and not self._hear(packet):
                    pending.discard(at)
                elif packet.pts is not None and self._is_heard(packet):
                    yield Sound(self._moved(packet), self._sound_number(at))
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
            # Players pass over it, too; what comes after may be whole.
            self.damaged += 1
            return []

    def _shown(self, frame: Any) -> Picture | None:
        """A frame as a picture; None where it lies before the start."""
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
            # Time that stands still or runs back, in damaged files, no container takes.
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
        return Picture(
            np.ascontiguousarray(rgb), self.frames, int(pts), int(duration), float(pts * tick)
        )

    def _hear(self, packet: Any) -> bool:
        """Note how far the sound has come; whether it still lies before the end."""
        until_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        until_s += self._start_s - self._origin_s
        if self._end_s is not None and until_s > self._end_s:
            return False
        self._seen_s = max(self._seen_s, until_s)
        return True

    def _is_heard(self, packet: Any) -> bool:
        return self._start_s == 0 or float(packet.pts * packet.time_base) >= self._origin_s

    def _moved(self, packet: Any) -> Any:
        by = round(Fraction(self._origin_s) / packet.time_base)
        packet.pts -= by
        packet.dts = packet.pts if packet.dts is None else packet.dts - by
        return packet

    def _sound_number(self, index: int) -> int:
        return next(n for n, one in enumerate(self._sounds) if one.index == index)

    def _judge(self) -> None:
        """Whether the file ended where it says that it does."""
        length_s = self._length_s()
        rate = self._video.average_rate
        room_s = max(_SHORT_S, 2 / float(rate) if rate else 0.0)
        if self._torn or (length_s is not None and self._seen_s < length_s - room_s):
            self.broke_at_s = self._seen_s
            whole = "" if length_s is None else f" of {length_s:.2f}"
            self.notes.append(f"{self.name} breaks off at {self._seen_s:.2f}{whole} s.")
        if self.damaged:
            self.notes.append(
                f"{self.name} is damaged: {self.damaged:,} of its frames could not be decoded, "
                "or only in part."
            )
