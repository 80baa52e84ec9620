"""A loaded model behind one queue, which all parts of the server share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import (
    BusyError,
    DeadlineError,
    StoppingError,
    TooLargeError,
    clear_frames,
)
from rooftrace.engines.base import Engine
from rooftrace.io.nodata import NodataRule
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor, load
from rooftrace.service.decode import Decoder, Limits

T = TypeVar("T")


@dataclass(frozen=True)
class NetworkFigures:
    """Work of the network since the server started.

    Args:
        batches: Number of calls of the network.
        tiles: Number of tiles in all calls.
        pixels: Number of pixels of these tiles, including overlaps and padding.
        seconds: Time spent in the network.
    """

    batches: int = 0
    tiles: int = 0
    pixels: int = 0
    seconds: float = 0.0


class SharedEngine(Engine):
    """An engine that many threads may call; its own thread runs them in the order of the calls.

    The network uses all cores, so two calls at once would not be faster.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "network")
        self.name, self.precision = engine.name, engine.precision
        self.settings: dict[str, Any] = dict(engine.settings)
        self.figures = NetworkFigures()
        self._closed = False

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities (n, class, y, x), rounded to 255ths, of pixels (n, band, y, x)."""
        return self.run_quantised(batch).astype(np.float32) / np.float32(255)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Return probabilities (n, class, y, x) in 255ths of pixels (n, band, y, x).

        Raises:
            PredictError: The network failed on these tiles.
            StoppingError: The server is stopping.
        """
        if self._closed:
            raise stopping_error()
        return self._thread.submit(self._run, batch).result()

    def close(self) -> None:
        """Refuse further calls."""
        self._closed = True
        self._thread.shutdown()

    def _run(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        started = time.perf_counter()
        probabilities = self._engine.run_quantised(batch)
        done = self.figures
        self.figures = NetworkFigures(
            batches=done.batches + 1,
            tiles=done.tiles + len(batch),
            pixels=done.pixels + len(batch) * batch.shape[2] * batch.shape[3],
            seconds=done.seconds + time.perf_counter() - started,
        )
        return probabilities


def stopping_error() -> StoppingError:
    """Return the error of a request that a server which is stopping no longer answers."""
    return StoppingError("The server is stopping.", remedy="Retry when the server runs again.")


@dataclass(frozen=True)
class ServiceFigures:
    """Load of a service now, and its work since it started.

    Args:
        running: Number of requests that run.
        waiting: Number of requests that wait.
        answered: Number of finished requests.
        failed: Number of requests that ended with an error; cancelled ones are not counted.
        refused: Number of requests that were refused because the queue was full.
        batches: Work of the network.
    """

    running: int
    waiting: int
    answered: int
    failed: int
    refused: int
    batches: NetworkFigures


@dataclass(eq=False)
class QueuedRequest(Generic[T]):
    """A request in the queue.

    Args:
        deadline_s: Latest end of the request on the monotonic clock.
        answer: Future of the prediction.
        cancelled: Whether its client gave it up; it may have had a result before.
    """

    deadline_s: float
    answer: Future[T]
    cancelled: bool = False

    def cancel(self) -> None:
        """Cancel the request; it ends before its next tile."""
        self.cancelled = True
        self.answer.cancel()


class Service:
    """A loaded model behind one queue.

    A few threads take the requests from the queue. Separate processes decode the images, and one
    network runs the tiles of all requests. A prediction equals that of `Predictor.predict`.

    Args:
        predictor: Predictor; the service takes over its engine.
        limits: Limits of the requests.
        defaults: Input options for requests that do not have their own.
    """

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits | None = None,
        *,
        defaults: RequestDefaults | None = None,
    ) -> None:
        self.defaults = defaults or RequestDefaults()
        self.limits = limits or Limits()
        self._engine = SharedEngine(predictor.engine)
        self.predictor = Predictor(predictor.bundle, self._engine)
        self._decoder = Decoder(self.limits)
        self._pool = ThreadPoolExecutor(self.limits.running, "request")
        self._lock = threading.Lock()
        self._taken = self._running = self._answered = self._failed = self._refused = 0
        self._seconds = 1.0
        self._closed = False
        self.bundle = predictor.bundle
        self.ready = False
        """Whether the decoders and the network are loaded and the service is not closed."""

    @classmethod
    def load(
        cls,
        bundle: Path | None = None,
        *,
        engine: str | None = None,
        precision: str | None = None,
        limits: Limits | None = None,
        defaults: RequestDefaults | None = None,
    ) -> Service:
        """Return a service of a bundle, by default of the model that comes with rooftrace.

        Raises:
            BundleError, ConfigError, MissingExtraError: As `rooftrace.load`.
        """
        predictor = load(bundle, engine=engine, precision=precision)
        return cls(predictor, limits, defaults=defaults)

    def warm(self) -> None:
        """Start the decoders and compile the network, so that the first request does not wait.

        Raises:
            PredictError: The network does not run.
        """
        self._decoder.warm()
        spec = self.bundle.spec
        side = spec.side_near(512)
        self._engine.run_quantised(np.zeros((1, len(spec.bands), side, side), spec.numpy_dtype))
        self.ready = True

    def submit(
        self,
        data: bytes,
        name: str,
        options: SceneOptions | None = None,
        work: Callable[..., Any] = Predictor.predict,
    ) -> QueuedRequest[Any]:
        """Queue an image for prediction, or for other work, such as a click.

        Args:
            data: Bytes of the image file.
            name: File name from the client.
            options: Options of the prediction.
            work: Function of a predictor and the decoded image, and of the keywords `options`, with
                the service's defaults, and `progress`.

        Raises:
            BusyError: The queue is full.
            StoppingError: The service is closed.
        """
        limits = self.limits
        request: QueuedRequest[Any] = QueuedRequest(time.monotonic() + limits.seconds, Future())
        filled = self.defaults.filled(options)
        with self._lock:
            if self._closed:
                raise stopping_error()
            if self._taken >= limits.waiting:
                self._refused += 1
                rounds = self._taken / limits.running
                raise BusyError(
                    f"{self._taken} requests are waiting already.",
                    remedy="Retry in a few seconds.",
                    retry_after_s=max(1.0, rounds * self._seconds),
                )
            self._taken += 1
            request.answer = self._pool.submit(self._answer, request, work, data, name, filled)
        request.answer.add_done_callback(lambda answer: self._count(request, answer))
        return request

    def predict(self, data: bytes, name: str, options: SceneOptions | None = None) -> Prediction:
        """Queue an image as `submit` does, and wait for its prediction.

        Raises:
            BusyError: The queue is full.
            TooLargeError, DeadlineError: The request exceeds the limits.
            DataError, BandMismatch, GsdMismatch, PredictError: See `Predictor.predict`.
        """
        prediction: Prediction = self.submit(data, name, options).answer.result()
        return prediction

    def figures(self) -> ServiceFigures:
        """Return the current load and the work so far."""
        with self._lock:
            return ServiceFigures(
                running=self._running,
                waiting=self._taken - self._running,
                answered=self._answered,
                failed=self._failed,
                refused=self._refused,
                batches=self._engine.figures,
            )

    def close(self) -> None:
        """Refuse further requests, end all others with an error, and release all resources."""
        self.ready = False
        with self._lock:
            self._closed = True
        self._pool.shutdown()
        self._engine.close()
        self._decoder.close()

    def _answer(
        self, request: QueuedRequest[T], work: Callable[..., T], data: bytes, name: str,
        options: SceneOptions,
    ) -> T:  # fmt: skip
        """Decode an image and work on it, in a thread of the pool."""

        def check(*_: int) -> None:
            # After the network, the outlines of a block may take seconds.
            if self._closed:
                raise stopping_error()
            if request.cancelled:
                raise DeadlineError("The client cancelled the request.")
            if time.monotonic() > request.deadline_s:
                raise DeadlineError(
                    "The request took longer than the server allows.",
                    remedy="Send a smaller image, or start a job.",
                )

        with self._lock:
            self._running += 1
        started = time.monotonic()
        try:
            check()
            if len(data) > self.limits.upload_bytes:
                raise TooLargeError(
                    f"The upload has {len(data):,} bytes; at most {self.limits.upload_bytes:,} are "
                    "accepted.",
                    remedy="Send a part of it, or start a job for a large scene.",
                )
            image = self._decoder.decode(data, name, nodata=self.defaults.nodata)
            shared = self._engine
            checked = _CheckedEngine(shared, check, shared.name, shared.precision)
            predictor = Predictor(self.bundle, checked)
            return work(predictor, image, options=options, progress=check)
        except BaseException as error:
            # The error refers to this function, which has the image.
            del data
            image = None
            clear_frames(error)
            if isinstance(error, Exception):
                # The pipeline reports an error of `check` as a failure of the network.
                check()
            raise
        finally:
            with self._lock:
                self._running -= 1
                if not request.cancelled:
                    # Moving average of the time of a request, for the remedy of refused requests.
                    self._seconds += (time.monotonic() - started - self._seconds) / 16

    def _count(self, request: QueuedRequest[T], answer: Future[T]) -> None:
        with self._lock:
            self._taken -= 1
            if not answer.cancelled():
                failed = answer.exception() is not None
                self._answered += not failed
                self._failed += failed and not request.cancelled


@dataclass(eq=False)
class _CheckedEngine(Engine):
    """The engine for one request, which is checked before each tile."""

    engine: Engine
    check: Callable[[], None]
    name: str
    precision: str

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.check()
        return self.engine.run(batch)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        self.check()
        return self.engine.run_quantised(batch)


@dataclass(frozen=True)
class RequestDefaults:
    """Input options that apply to a request unless it gives its own.

    Args:
        images: Bands, stretch, metres per pixel and scale.
        nodata: Pixel values that mean nodata, in addition to those that the file declares.
    """

    images: SceneOptions = AS_FOUND
    nodata: NodataRule | None = None

    def filled(self, options: SceneOptions | None) -> SceneOptions:
        """Return the options of a request, completed by those of the server.

        Metres per pixel and scale belong together: a request that gives one of them uses neither
        of the server's.
        """
        options, server = options or AS_FOUND, self.images
        if options.gsd_m is None and options.scale is None:
            options = options.model_copy(update={"gsd_m": server.gsd_m, "scale": server.scale})
        requested = {name: getattr(options, name) for name in ("bands", "stretch")}
        defaults = {name: getattr(server, name) for name, one in requested.items() if one is None}
        return options.model_copy(update=defaults)
