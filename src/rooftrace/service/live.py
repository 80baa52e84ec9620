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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BusyError, ConfigError, DataError, RooftraceError
from rooftrace.flows.video import FrameTracer
from rooftrace.io.remote import is_url
from rooftrace.io.video import VideoFrame, VideoReader, is_camera, is_stream, source_name
from rooftrace.predict.options import VideoOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.service.service import stopping_error

_MAX_VIEWERS = 8
"""Default maximum number of viewers of all cameras together."""

_RETRY_S = 3.0
"""Seconds until a source that broke off or cannot be opened is opened again."""

_NAP_S = 0.2
"""Maximum seconds that a thread sleeps before it checks for viewers again."""

_MAX_SIDE_PX = 1920
"""Longer side in pixels above which a picture is reduced before it is sent."""

_JPEG_QUALITY = 80
_FIGURES_S = 5.0
"""Period in seconds over which frames per second are measured."""

_NAMED = re.compile(r"([\w][\w .-]{0,39})=(.+)")

_LOG = logging.getLogger(__name__)

State = Literal["idle", "opening", "playing", "broken"]


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
        """Return the source of `SOURCE` or `NAME=SOURCE`.

        Raises:
            DataError: There is no such file, or the URL is not one of a stream.
        """
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
        name: Name of the camera.
        state: `idle` without viewers, `opening`, `playing`, or `broken` until the next attempt.
        message: Reason and remedy while the camera is broken, otherwise "".
        fps: Frames shown per second during the last seconds.
        buildings: Number of buildings in the newest frame.
        built_up_share: Built-up share of the newest frame, 0 to 1.
        viewers: Number of viewers.
    """

    name: str
    state: State
    message: str
    fps: float
    buildings: int
    built_up_share: float
    viewers: int


class _NewestFrame:
    """Place for one frame between the thread that reads and the one that asks the network."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: VideoFrame | None = None
        self._error: BaseException | None = None
        self.closed = False

    def put(self, frame: VideoFrame) -> None:
        """Replace the frame; one that was not taken is dropped."""
        with self._changed:
            self._frame = frame
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        with self._changed:
            self.closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def taken(self) -> Iterator[VideoFrame]:
        """Yield the newest frame again and again, until the reading ends.

        Raises:
            The error of the reading thread.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frame is not None or self.closed)
                if self._error is not None:
                    raise self._error
                if self._frame is None:
                    return
                frame, self._frame = self._frame, None
            yield frame


class LiveCamera:
    """A camera that plays while it has viewers.

    Args:
        source: Name and source.
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
        self.closed = False
        """Whether the server stops, so that viewers must leave."""

        self._state: State = "idle"
        self._message = ""
        self._left = False
        """Whether the attempt ended because all viewers had left, also if others came since."""

        self._seen = (0, 0.0)
        self._shown_s: deque[float] = deque(maxlen=1000)
        self.frame: bytes | None = None
        """The newest frame with its buildings, as a JPEG file."""

    @property
    def viewers(self) -> int:
        """Return the number of viewers."""
        return len(self._viewers)

    @contextmanager
    def watch(self, notify: Callable[[], None]) -> Iterator[None]:
        """Play the camera, at least for this viewer.

        Args:
            notify: Function called from another thread when `frame` is new or the server stops.
        """
        with self._changed:
            self._viewers.append(notify)
            if self._thread is None and not self.closed:
                self._state = "opening"
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
            now = time.monotonic()
            times_s = [one for one in self._shown_s if now - one < _FIGURES_S]
            fps = (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else 0.0
            return CameraFigures(
                self.source.name, self._state, self._message, fps, *self._seen, len(self._viewers)
            )

    def close(self) -> None:
        """Let all viewers leave and the threads end."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._notify()

    def join(self, timeout_s: float) -> None:
        """Wait until the threads have ended."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _is_over(self) -> bool:
        return self.closed or not self._viewers

    def _run(self) -> None:
        """Play until the last viewer leaves; a source that breaks off is opened again."""
        while True:
            self._left = False
            message = self._attempt()
            with self._changed:
                if message and not self._left:
                    self._state, self._message = "broken", message
                    self._changed.wait_for(self._is_over, _RETRY_S)
                if self._is_over():
                    self._thread, self._state, self._message = None, "idle", ""
                    self.frame = None
                    self._shown_s.clear()
                    return
                self._state = "opening" if message else self._state

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
        newest, safe_name = _NewestFrame(), source_name(self.source.source)

        def stop() -> bool:
            self._left = self._left or self._is_over()
            return self._left or newest.closed

        with VideoReader(self.source.source, stop=stop, streams=True) as reader:
            tracer = FrameTracer(safe_name, reader.info.shape_yx, self._predictor, self._options)
            reading = threading.Thread(
                target=self._read,
                args=(reader, newest, stop),
                name=f"read {safe_name}",
                daemon=True,
            )
            reading.start()
            try:
                # One frame at a time, so that each is the newest.
                with closing(tracer.traced(newest.taken(), at_once=True)) as frames:
                    for frame in frames:
                        jpeg = _jpeg(frame.picture.rgb)
                        with self._changed:
                            self.frame = jpeg
                            self._seen = frame.buildings, frame.built_up_share
                            self._state, self._message = "playing", ""
                            self._shown_s.append(time.monotonic())
                        self._notify()
            finally:
                newest.close()
                reading.join()

    def _read(self, reader: VideoReader, newest: _NewestFrame, stop: Callable[[], bool]) -> None:
        """Read frames as they come, or those of a file at its own rate."""
        start_s = time.monotonic()

        def wait_until(second: float) -> None:
            while self.source.is_file and not stop():
                early_s = start_s + second - time.monotonic()
                if early_s <= 0:
                    break
                time.sleep(min(early_s, _NAP_S))

        error = None
        try:
            for frame in reader.frames():
                wait_until(frame.seconds)
                newest.put(frame)
            wait_until(reader.info.duration_s or 0.0)
        except BaseException as raised:
            error = raised
        newest.close(error)

    def _notify(self) -> None:
        for notify in list(self._viewers):
            # The viewer may have left, and its event loop may be closed.
            with suppress(RuntimeError):
                notify()


class LiveCameras:
    """The cameras of a server.

    Args:
        sources: Names and sources.
        predictor: Model; its engine is shared with the requests of the server.
        options: Options of the videos.
        max_viewers: Maximum number of viewers of all cameras together.

    Raises:
        ConfigError: Two cameras have the same name.
    """

    def __init__(
        self,
        sources: Sequence[CameraSource],
        predictor: Predictor,
        options: VideoOptions | None = None,
        *,
        max_viewers: int = _MAX_VIEWERS,
    ) -> None:
        self.max_viewers = max_viewers
        self.cameras = tuple(LiveCamera(one, predictor, options) for one in sources)
        self._lock = threading.Lock()
        names = [one.name for one in sources]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"Two cameras have the name {name!r}.",
                    remedy="Name them: NAME=SOURCE.",
                )

    @contextmanager
    def watch(self, camera: LiveCamera, notify: Callable[[], None]) -> Iterator[None]:
        """Play a camera for a viewer, see `LiveCamera.watch`.

        Raises:
            BusyError: There are too many viewers.
            StoppingError: The server is stopping.
        """
        with ExitStack() as stack:
            with self._lock:
                if camera.closed:
                    raise stopping_error()
                if sum(one.viewers for one in self.cameras) >= self.max_viewers:
                    raise BusyError(
                        f"{self.max_viewers} viewers watch the cameras of this server already.",
                        remedy="Retry when another viewer has left.",
                        retry_after_s=5.0,
                    )
                stack.enter_context(camera.watch(notify))
            yield

    def close(self, timeout_s: float = 0.0) -> None:
        """Let all viewers leave, and wait for the threads for at most this time."""
        for camera in self.cameras:
            camera.close()
        for camera in self.cameras:
            camera.join(timeout_s)


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    longest = max(rgb.shape[:2])
    if longest > _MAX_SIDE_PX:
        scale = _MAX_SIDE_PX / longest
        size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()
