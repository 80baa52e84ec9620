"""Videos written frame by frame by PyAV (FFmpeg), each frame with its own time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.core.text import reason_of
from rooftrace.io.files import export_error, replacing
from rooftrace.io.video_read import AudioPacket, VideoFrame, VideoInfo, require_av

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Container formats by file suffix; all keep the time of each frame."""

CODECS = {"h264": ("libx264", "libopenh264"), "h265": ("libx265",)}
"""Encoders of each codec, best first."""

_FALLBACK = "mpeg4"
_FINEST_TICK = 65535
"""Maximum number of ticks per second of the fallback encoder."""

_FALLBACK_QUALITY = 118 * 4
"""Quality of the fallback encoder: FFmpeg's lambda of quantiser 4 of 31."""

_UNTAGGED = 2
_LIMITED_RANGE = 1


def check_video_name(path: Path) -> None:
    """Raise ConfigError if the suffix is not one of a supported container."""
    if path.suffix.lower() not in CONTAINERS:
        raise ConfigError(
            f"The output is named {path}; expected a name that ends in {', '.join(CONTAINERS)}.",
            remedy="For example: -o buildings.mp4",
        )
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected a file.", remedy="Name a file.")


class VideoWriter:
    """A video that is being written; `video_sink` opens one.

    Args:
        path: File to write; the suffix selects the container.
        info: Properties of the input video: time base, rate, colours.
        sound: Templates of the audio tracks that are copied.
        codec: One of CODECS.
        crf: Constant rate factor: 0 is lossless, 51 the lowest quality.
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
        """Number of audio tracks that are copied."""
        return sum(one is not None for one in self._sounds)

    def add(self, picture: VideoFrame) -> None:
        """Encode a frame. An odd side is padded by one pixel, as the codecs require."""
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

    def add_sound(self, sound: AudioPacket) -> None:
        """Copy an audio packet; packets of tracks that are not copied are dropped."""
        import av

        track = self._sounds[sound.stream]
        packet: Any = sound.packet
        if track is None:
            return
        # No container accepts times that do not increase.
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
            # An error that does not come from the disk is damage of the input.
            self._sound_lost += 1
        else:
            self._heard[sound.stream] = at

    def finish(self) -> None:
        """Write the remaining frames of the encoder, and the index."""
        self._mux(self._video.encode(None))
        self._container.close()
        if self._sound_lost:
            self.notes.append(
                f"The audio is damaged: {self._sound_lost:,} of its packets are left out."
            )

    def abandon(self) -> None:
        """Close the file in any state."""
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
                f"This PyAV has no encoder for {codec}: written as MPEG-4 part 2, which is larger "
                "and not shown by browsers."
            )
            name = _FALLBACK
        rate = info.rate or Fraction(25)
        stream: Any = self._container.add_stream(name, rate=rate.limit_denominator(_FINEST_TICK))
        context = stream.codec_context
        height, width = info.shape_yx
        context.width, context.height = width + width % 2, height + height % 2
        context.pix_fmt = "yuv420p"
        self._tick = info.time_base
        if name == _FALLBACK:
            context.flags |= av.codec.context.Flags.qscale.value
            context.global_quality = _FALLBACK_QUALITY
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
            # Apple's players do not recognise the other tag.
            context.codec_tag = "hvc1"
        return stream

    def _tracks(self, templates: Sequence[Any], kind: str) -> list[Any]:
        tracks: list[Any] = []
        for template in templates:
            name = template.codec_context.codec.canonical_name
            if name not in self._container.supported_codecs:
                reason = f"{kind} does not support {name}. Write .mkv to keep it."
            elif not template.codec_context.sample_rate:
                reason = "its sampling rate is not known."
            else:
                tracks.append(self._container.add_stream_from_template(template))
                continue
            self.notes.append(f"An audio track is left out: {reason}")
            tracks.append(None)
        return tracks


@contextmanager
def video_sink(
    path: Path, info: VideoInfo, sound: Sequence[Any] = (), *, codec: str = "h264", crf: int = 20
) -> Iterator[VideoWriter]:
    """Open a video for writing, which appears under its name if the block succeeds.

    Args:
        path: See `VideoWriter`.
        info: See `VideoWriter`.
        sound: See `VideoWriter`.
        codec: See `VideoWriter`.
        crf: See `VideoWriter`.

    Raises:
        ConfigError: the suffix or the codec is not supported.
        ExportError: the file cannot be written.
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
            f"The codec {codec!r} was requested; expected {' or '.join(CODECS)}.",
            remedy="Leave it out for h264, which all players support.",
        )
    if not 0 <= crf <= 51:
        raise ConfigError(f"A CRF of {crf} was requested; expected 0 to 51.", remedy="Try 20.")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except OSError as error:
        raise export_error(path, error) from error
    except av.FFmpegError as error:
        raise ExportError(
            f"{path} could not be written: {reason_of(error)}.",
            remedy="The input may be damaged in a way that this container does not accept: try "
            f"{'.mp4' if path.suffix.lower() == '.mkv' else '.mkv'}.",
        ) from error


def _encodes(name: str) -> bool:
    import av

    try:
        av.codec.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
