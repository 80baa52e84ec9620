"""Videos, written frame by frame by PyAV (FFmpeg), each frame at its own time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.io.atomic import export_error, replacing
from rooftrace.io.video import Picture, Sound, VideoInfo
from rooftrace.io.video_open import require_av

__all__ = ["CODECS", "CONTAINERS", "VideoWriter", "check_video_name", "video_sink"]

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""By ending; those that keep the time of each frame."""

CODECS = {"h264": ("libx264", "libopenh264"), "h265": ("libx265",)}
"""By name, the encoders that make them, best first."""

_LAST_RESORT = "mpeg4"
_FINEST_TICK = 65535
"""Of that one, per second."""

_LAST_RESORT_QUALITY = 118 * 4
"""FFmpeg's lambda of the quantiser 4 of 31."""

_UNTAGGED = 2
_LIMITED_RANGE = 1


def check_video_name(path: Path) -> None:
    """Raise ConfigError where the ending is of no container that is written."""
    if path.suffix.lower() not in CONTAINERS:
        raise ConfigError(
            f"{path} was to be written, expected a name that ends in {', '.join(CONTAINERS)}.",
            remedy="For example: -o buildings.mp4",
        )
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; a video is one file.", remedy="Name a file.")


class VideoWriter:
    """An open video; `video_sink` makes one.

    Args:
        path: of the file, whose ending says its container.
        info: of the video that it is made from: time base, rate, colours.
        sound: templates of the tracks that are copied.
        codec: one of CODECS.
        crf: how much is lost: 0 nothing, 51 most.
    """

    def __init__(
        self, path: Path, info: VideoInfo, sound: Sequence[Any], *, codec: str, crf: int
    ) -> None:
        import av

        kind = CONTAINERS[path.suffix.lower()]
        options = {"movflags": "+faststart"} if kind in ("mp4", "mov") else {}
        self.notes: list[str] = []
        self._info = info
        self._heard: dict[int, Fraction] = {}
        self._sound_lost = 0
        self._container = av.open(f"file:{path}", "w", format=kind, container_options=options)
        self._video = self._pictures(codec, crf)
        self._sounds = self._tracks(sound, kind)

    @property
    def encoder(self) -> str:
        return str(self._video.codec_context.codec.name)

    @property
    def sound_tracks(self) -> int:
        """That are copied."""
        return sum(one is not None for one in self._sounds)

    def add(self, picture: Picture) -> None:
        """Encode a frame. An odd side gets one pixel more, as its codecs want."""
        import av

        rgb = picture.rgb
        height, width = rgb.shape[:2]
        if height % 2 or width % 2:
            rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        matrix = self._info.colours.matrix
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=None if matrix == _UNTAGGED else matrix,
            dst_color_range=_LIMITED_RANGE,
        )
        frame.time_base, tick = self._tick, self._info.time_base
        frame.pts = round(picture.pts * tick / self._tick)
        frame.duration = round(picture.duration * tick / self._tick)
        self._mux(self._video.encode(frame))

    def add_sound(self, sound: Sound) -> None:
        """Copy some sound; that of a track which is not taken is left out."""
        import av

        track = self._sounds[sound.stream]
        packet: Any = sound.packet
        if track is None:
            return
        # No container takes time that stands still or runs back.
        at = packet.dts * packet.time_base
        if at <= self._heard.get(sound.stream, at - 1):
            self._sound_lost += 1
            return
        packet.stream = track
        try:
            self._container.mux_one(packet)
        except OSError:
            raise
        except av.FFmpegError:
            # What is no matter of the disk is damage of the input.
            self._sound_lost += 1
        else:
            self._heard[sound.stream] = at

    def finish(self) -> None:
        """Write what the encoder still holds, and the index."""
        self._mux(self._video.encode(None))
        self._container.close()
        if self._sound_lost:
            self.notes.append(
                f"The sound is damaged: {self._sound_lost:,} pieces of it are left out."
            )

    def abandon(self) -> None:
        """Let go of the file, whatever state it is in."""
        with suppress(Exception):
            self._container.close()

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._container.mux_one(packet)

    def _pictures(self, codec: str, crf: int) -> Any:
        import av

        info = self._info
        known = (name for name in CODECS[codec] if name in av.codecs_available)
        name = next((one for one in known if _encodes(one)), None)
        if name is None:
            self.notes.append(
                f"This PyAV has no encoder of {codec}: written as MPEG-4 part 2, larger and not "
                "shown by browsers."
            )
            name = _LAST_RESORT
        rate = info.rate or Fraction(25)
        stream: Any = self._container.add_stream(name, rate=rate.limit_denominator(_FINEST_TICK))
        context = stream.codec_context
        height, width = info.shape_yx
        context.width, context.height = width + width % 2, height + height % 2
        context.pix_fmt = "yuv420p"
        self._tick = info.time_base
        if name == _LAST_RESORT:
            context.flags |= av.codec.context.Flags.qscale.value
            context.global_quality = _LAST_RESORT_QUALITY
            if self._tick.denominator > _FINEST_TICK:
                self._tick = Fraction(1, 60000)
        else:
            stream.options = {"crf": str(crf), "preset": "veryfast"}
        context.time_base = stream.time_base = self._tick
        context.color_range = _LIMITED_RANGE
        context.colorspace, context.color_primaries, context.color_trc = info.colours
        if info.pixel_aspect != 1:
            context.sample_aspect_ratio = info.pixel_aspect
        if codec == "h265":
            # By the other tag Apple's players do not know it.
            context.codec_tag = "hvc1"
        return stream

    def _tracks(self, templates: Sequence[Any], kind: str) -> list[Any]:
        tracks: list[Any] = []
        for template in templates:
            name = template.codec_context.codec.canonical_name
            if name not in self._container.supported_codecs:
                reason = f"{kind} does not take {name}. Write .mkv to keep it."
            elif not template.codec_context.sample_rate:
                reason = "it does not tell its sampling rate."
            else:
                tracks.append(self._container.add_stream_from_template(template))
                continue
            self.notes.append(f"A track of sound is left out: {reason}")
            tracks.append(None)
        return tracks


@contextmanager
def video_sink(
    path: Path, info: VideoInfo, sound: Sequence[Any] = (), *, codec: str = "h264", crf: int = 20
) -> Iterator[VideoWriter]:
    """A video that appears under its name when the block ends well, or not at all.

    Args:
        path, info, sound, codec, crf: see `VideoWriter`.

    Raises:
        ConfigError: the ending is of no container that is written, or there is no such codec.
        ExportError: it cannot be written.
    """
    _check(path, codec, crf)
    with replacing(path) as partial, _explained(path):
        writer = VideoWriter(partial, info, sound, codec=codec, crf=crf)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


def _check(path: Path, codec: str, crf: int) -> None:
    require_av("Writing a video")
    check_video_name(path)
    if codec not in CODECS:
        raise ConfigError(
            f"The codec {codec!r} was asked for, expected {' or '.join(CODECS)}.",
            remedy="Leave it out for h264, which everything shows.",
        )
    if not 0 <= crf <= 51:
        raise ConfigError(f"A CRF of {crf} was asked for, expected 0 to 51.", remedy="Try 20.")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except OSError as error:
        raise export_error(path, error) from error
    except av.FFmpegError as error:
        raise ExportError(
            f"{path} could not be written: {error.strerror}.",
            remedy="The input may be damaged in a way that this container does not take: try "
            f"{'.mp4' if path.suffix.lower() == '.mkv' else '.mkv'}.",
        ) from error


def _encodes(name: str) -> bool:
    import av

    try:
        av.codec.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
