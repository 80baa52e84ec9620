"""Cameras that are shown with their buildings while they play.

A camera is read only while it has viewers, once for all of them. Only the newest frame is kept at
each step (read, drawn), so a slow network or a slow viewer drops frames and never falls behind.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.flows.video import FrameTracer
from rooftrace.io.files import is_url
from rooftrace.io.video import VideoFrame, VideoReader, is_camera, is_stream, source_name
from rooftrace.predict.options import VideoOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.service.service import stopping_error

_RETRY_S = 3.0
"""Seconds until a source that broke off or cannot be opened is opened again."""

_NAP_S = 0.2
"""Maximum seconds that a thread sleeps before it checks for viewers again."""

_MAX_SIDE_PX = 1920
"""Longer side in pixels above which a picture is reduced before it is sent."""

_JPEG_QUALITY = 80
_NAMED = re.compile(r"([\w][\w .-]{0,39})=(.+)")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CameraSource:
    """A source of `--camera`.

    Args:
        name: Name on the page.
        source: A file, a camera such as `camera:1` or `/dev/video0`, or a URL of a stream.
    """

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> CameraSource:
        """Return the source of `SOURCE` or `NAME=SOURCE`."""
        match = None if Path(text).exists() else _NAMED.fullmatch(text)
        name, source = ("", text) if match is None else (match[1].strip(), match[2])
        safe_name = source_name(source)
        if is_url(source):
            if not is_stream(source):
                raise DataError(
                    f"The camera {safe_name} is not a stream; expected rtsp, rtsps, http, https or "
                    "udp.",
                    remedy="Check the URL.",
                )
        elif not is_camera(source) and not Path(source).is_file():
            raise DataError(
                f"The file of the camera {safe_name} does not exist.",
                remedy="Give a video file, camera:0, /dev/video0, or a URL such as "
                "rtsp://HOST/PATH.",
            )
        default = safe_name.partition("://")[2] if is_url(source) else Path(source).name
        return cls(name or default, source)

    @property
    def is_file(self) -> bool:
        """Return whether the source is a file, which is played at its own rate and repeated."""
        return not is_camera(self.source) and not is_url(self.source)


@dataclass(frozen=True)
class CameraFigures:
    """State of a camera.

    Args:
        state: `idle` without viewers, `opening`, `playing`, or `broken` until it plays again.
        message: Reason and remedy while the camera is broken, otherwise "".
        buildings: Number of buildings in the newest frame.
        built_up_share: Built-up share of the newest frame, 0 to 1.
    """

    name: str
    state: Literal["idle", "opening", "playing", "broken"]
    message: str
    buildings: int
    built_up_share: float


class LiveCamera:
    """A camera that plays while it has viewers.

    Args:
        predictor: Model; its engine is shared with the requests of the server.
        options: Options of the video.
    """

    def __init__(
        self, source: CameraSource, predictor: Predictor, options: VideoOptions | None = None
    ) -> None:
        self.source = source
        self._predictor = predictor
        self._options = options or VideoOptions()
        self._changed = threading.Condition()
        self._viewers: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._message = ""
        self._seen = (0, 0.0)
        self.closed = False
        """Whether the server stops, so that viewers must leave."""

        self.frame: bytes | None = None
        """The newest frame with its buildings, as a JPEG file."""

    @contextmanager
    def watch(self, notify: Callable[[], None]) -> Iterator[None]:
        """Play the camera, at least for this viewer.

        Args:
            notify: Function called from another thread when `frame` is new or the server stops.

        Raises:
            StoppingError: The server is stopping.
        """
        with self._changed:
            if self.closed:
                raise stopping_error()
            self._viewers.append(notify)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"camera {self.source.name}", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._viewers.remove(notify)
                self._changed.notify_all()

    def figures(self) -> CameraFigures:
        """Return the state of the camera."""
        with self._changed:
            if self._thread is None:
                return CameraFigures(self.source.name, "idle", "", *self._seen)
            playing: Literal["opening", "playing"] = "opening" if self.frame is None else "playing"
            state = "broken" if self._message else playing
            return CameraFigures(self.source.name, state, self._message, *self._seen)

    def close(self, timeout_s: float = 0.0) -> None:
        """Let all viewers leave, and wait for the threads for at most this time."""
        with self._changed:
            self.closed, thread = True, self._thread
            self._changed.notify_all()
        self._notify()
        if thread is not None:
            thread.join(timeout_s)

    def _is_over(self) -> bool:
        return self.closed or not self._viewers

    def _run(self) -> None:
        """Play until the last viewer leaves; a source that breaks off is opened again."""
        while True:
            message = self._attempt()
            with self._changed:
                self._message = message
                if message:
                    self._changed.wait_for(self._is_over, _RETRY_S)
                if self._is_over():
                    self._thread, self.frame, self._message = None, None, ""
                    return

    def _attempt(self) -> str:
        """Play the source once; return why it broke off, "" for the end of a file."""
        try:
            self._play()
        except RooftraceError as error:
            return f"{error.message} {error.remedy}".strip()
        except Exception:
            _LOG.exception("the camera %s failed", self.source.name)
            return "The server cannot process this video. The log of the server has the reason."
        if self.source.is_file:
            return ""
        return f"{source_name(self.source.source)} has stopped sending."

    def _play(self) -> None:
        safe_name = source_name(self.source.source)
        newest: deque[VideoFrame] = deque(maxlen=1)
        news, ended = threading.Event(), threading.Event()
        errors: list[BaseException] = []

        def stop() -> bool:
            return ended.is_set() or self._is_over()

        def read() -> None:
            """Read frames as they come, or those of a file at its own rate."""
            start_s = time.monotonic()
            try:
                for frame in reader.frames():
                    while self.source.is_file and not stop():
                        early_s = start_s + frame.seconds - time.monotonic()
                        if early_s <= 0:
                            break
                        time.sleep(min(early_s, _NAP_S))
                    newest.append(frame)
                    news.set()
            except BaseException as error:
                errors.append(error)
            ended.set()
            news.set()

        def taken() -> Iterator[VideoFrame]:
            """Yield the newest frame again and again; one that was not taken is dropped."""
            while True:
                news.wait()
                news.clear()
                while newest:
                    yield newest.pop()
                if ended.is_set() and not newest:
                    break
            if errors:
                raise errors[0]

        with VideoReader(self.source.source, stop=stop, streams=True) as reader:
            tracer = FrameTracer(safe_name, reader.info.shape_yx, self._predictor, self._options)
            reading = threading.Thread(target=read, name=f"read {safe_name}", daemon=True)
            reading.start()
            try:
                # One frame at a time, so that each is the newest.
                with closing(tracer.traced(taken(), at_once=True)) as frames:
                    for frame in frames:
                        jpeg = _jpeg(frame.picture.rgb)
                        with self._changed:
                            self.frame, self._message = jpeg, ""
                            self._seen = frame.buildings, frame.built_up_share
                        self._notify()
            finally:
                ended.set()
                reading.join()

    def _notify(self) -> None:
        for notify in list(self._viewers):
            # The viewer may have left, and its event loop may be closed.
            with suppress(RuntimeError):
                notify()


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    longest = max(rgb.shape[:2])
    if longest > _MAX_SIDE_PX:
        scale = _MAX_SIDE_PX / longest
        size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()
