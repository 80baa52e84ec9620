"""Videos for tests, made by PyAV alone: what rooftrace writes is read back by others, too."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


def town(number: int, shape_yx: tuple[int, int] = (96, 128), *, step_px: int = 2) -> Frame:
    """A frame of a camera that moves to the right over dark ground with three bright houses."""
    frame = np.full((*shape_yx, 3), 30, dtype=np.uint8)
    for left in (20, 60, 100):
        start = max(left - number * step_px, 0)
        stop = max(left + 24 - number * step_px, 0)
        frame[30:50, start:stop] = 225
    return frame


def write_video(
    path: Path,
    frames: Iterable[Frame],
    *,
    times: Sequence[int] | None = None,
    tick: Fraction = Fraction(1, 12800),
    rate: int = 25,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    sound: str | None = None,
    colours: int | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write frames at `times`, in ticks; default one after the other at `rate`.

    Args:
        sound: a codec: a rising tone, as long as the pictures, no two packets of it alike.
        colours: FFmpeg's number of the matrix that the pictures are coded by.
        options: Options of the encoder.
        container: options of the container.
    """
    frames = list(frames)
    ticks = times or [round(n / rate / tick) for n in range(len(frames))]
    with av.open(str(path), "w", container_options=container or {}) as out:
        video: Any = out.add_stream(codec, rate=rate)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixels
        video.codec_context.time_base = video.time_base = tick
        video.options = {"crf": "10", "g": "10"} if options is None else options
        if colours is not None:
            video.codec_context.colorspace, video.codec_context.color_range = colours, 1
        audio: Any = None if sound is None else out.add_stream(sound, rate=48000, layout="mono")
        for number, pixels_rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_rgb, format="rgb24").reformat(
                format=pixels, dst_colorspace=colours, dst_color_range=1 if colours else None
            )
            frame.pts, frame.time_base = ticks[number], tick
            for packet in video.encode(frame):
                out.mux(packet)
        for packet in video.encode():
            out.mux(packet)
        if audio is not None:
            write_sound(out, audio, float((ticks[-1]) * tick) + 1 / rate)
    return path


def write_sound(out: Any, audio: Any, seconds: float) -> None:
    size = audio.codec_context.frame_size or 1024
    kind = audio.codec_context.format.name
    for start in range(0, int(seconds * 48000), size):
        time = (start + np.arange(size)) / 48000
        wave = np.sin(2 * np.pi * (200 + 40 * time) * time).astype(np.float32)
        if kind == "u8":
            wave = (wave * 100 + 128).astype(np.uint8)
        frame = av.AudioFrame.from_ndarray(wave[None], format=kind, layout="mono")
        frame.sample_rate, frame.pts = 48000, start
        for packet in audio.encode(frame):
            out.mux(packet)
    for packet in audio.encode():
        out.mux(packet)


def read_frames(path: Path) -> list[tuple[Fraction, Frame]]:
    """The frames of a file with their times in seconds, as PyAV gives them."""
    with av.open(str(path)) as file:
        return [
            (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24"))
            for frame in file.decode(video=0)
        ]
