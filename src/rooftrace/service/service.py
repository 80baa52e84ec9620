"""A loaded model behind a queue, which all parts of the server share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BusyError, DeadlineError, TooLargeError
from rooftrace.core.failures import clear_frames
from rooftrace.core.types import RasterSource
from rooftrace.engines.base import Engine, run_quantised
from rooftrace.io.georeferenced import GeoreferencedSource
from rooftrace.io.nodata import NodataRule
from rooftrace.io.sources import ArraySource
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor, PredictProgress, load
from rooftrace.predict.result import Prediction
from rooftrace.predict.scores import KeptPrediction, predict_keeping
from rooftrace.service.batching import BatchFigures, BatchingEngine, stopping_error
from rooftrace.service.decode import Decoder, Limits

T = TypeVar("T")


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
    batches: BatchFigures


@dataclass(eq=False)
class QueuedRequest(Generic[T]):
    """A request in the queue.

    Args:
        deadline_s: Latest end of the request on the monotonic clock.
        answer: Future of the prediction.
    """

    deadline_s: float
    answer: Future[T] = field(default_factory=Future)
    _cancelled: bool = False

    @property
    def cancelled(self) -> bool:
        """Return whether its client gave it up; it may have had a result before."""
        return self._cancelled or self.answer.cancelled()

    def cancel(self) -> None:
        """Cancel the request; it ends before its next tile."""
        self._cancelled = True
        self.answer.cancel()

    def check(self) -> None:
        """Check that the request may continue.

        Raises:
            DeadlineError: The request was cancelled, or its time is over.
        """
        if self.cancelled:
            raise DeadlineError("The client cancelled the request.")
        if time.monotonic() > self.deadline_s:
            raise DeadlineError(
                "The request took longer than the server allows.",
                remedy="Send a smaller image, or start a job.",
            )


class Service:
    """A loaded model behind a queue.

    Separate processes decode the images, a few threads run the requests, and tiles of several
    requests go through the network together. A prediction equals that of `Predictor.predict`,
    independent of other requests.

    Args:
        predictor: Predictor; the service takes over its engine.
        limits: Limits of the requests.
        model_path: Path of the model's bundle; None for the model that comes with rooftrace.
        defaults: Input options for requests that do not have their own.
        engine: Engine of further models, see `open_model`.
        precision: Precision of further models.
    """

    def __init__(
        self,
        predictor: Predictor,
        limits: Limits | None = None,
        *,
        model_path: Path | None = None,
        defaults: RequestDefaults | None = None,
        engine: str | None = None,
        precision: str | None = None,
    ) -> None:
        self.defaults = defaults or RequestDefaults()
        self.limits = limits or Limits()
        self.model_path = model_path
        self._engine = BatchingEngine(predictor.engine)
        self.predictor = Predictor(predictor.bundle, self._engine)
        self._load = partial(load, engine=engine, precision=precision)
        self._others: set[BatchingEngine] = set()
        self._decoder = Decoder(self.limits)
        self._pool = ThreadPoolExecutor(self.limits.running, "request")
        self._lock = threading.Lock()
        self._taken = self._running = self._answered = self._failed = self._refused = 0
        self._seconds = 1.0
        self._ready = self._closed = False
        # Requests that no thread has begun. The one that removes a request has to answer it.
        self._queued: set[QueuedRequest[Any]] = set()

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
            BundleError, ConfigError, MissingExtraError: See `predict.predictor.load`.
        """
        predictor = load(bundle, engine=engine, precision=precision)
        return cls(
            predictor, limits, model_path=bundle, defaults=defaults,
            engine=engine, precision=precision,
        )  # fmt: skip

    @property
    def bundle(self) -> ModelBundle:
        return self.predictor.bundle

    @property
    def ready(self) -> bool:
        """Return whether the decoders and the network are loaded and the service is not closed."""
        return self._ready

    def warm(self) -> None:
        """Start the decoders and compile the network, so that the first request does not wait.

        Raises:
            PredictError: The network does not run.
        """
        self._decoder.warm()
        spec = self.bundle.spec
        side = spec.side_near(512)
        self._engine.run_quantised(np.zeros((1, len(spec.bands), side, side), spec.numpy_dtype))
        self._ready = True

    def open_model(self, bundle: Path) -> Predictor:
        """Load another model for requests that name it. It shares the queue and the limits.

        Raises:
            BundleError, ConfigError, MissingExtraError: See `predict.predictor.load`.
        """
        loaded = self._load(bundle)
        engine = BatchingEngine(loaded.engine)
        with self._lock:
            self._others.add(engine)
        return Predictor(loaded.bundle, engine)

    def close_model(self, predictor: Predictor) -> None:
        """Release a model of `open_model` when all requests that name it have ended."""
        engine = predictor.engine
        with self._lock:
            is_other = engine in self._others
        if is_other:
            # A request waits and runs for at most this time; its tasks may wait as long before.
            timer = threading.Timer(2 * self.limits.seconds, self._release, [engine])
            timer.daemon = True
            timer.start()

    def _release(self, engine: BatchingEngine) -> None:
        """Stop the network of another model, and drop the reference that keeps it in memory."""
        engine.close()
        with self._lock:
            self._others.discard(engine)

    def submit(
        self,
        data: bytes,
        name: str,
        options: SceneOptions | None = None,
        predictor: Predictor | None = None,
    ) -> QueuedRequest[Prediction]:
        """Queue an image for prediction.

        Args:
            data: Bytes of the image file.
            name: File name from the client.
            options: Options of the prediction.
            predictor: Model of `open_model`; by default the service's own.

        Raises:
            BusyError: The queue is full.
            StoppingError: The service is closed.
        """
        return self._enqueue(Predictor.predict, data, name, options, predictor)

    def submit_keeping(
        self, data: bytes, name: str, options: SceneOptions | None = None
    ) -> QueuedRequest[KeptPrediction]:
        """Queue an image as `submit` does; its prediction can be repeated with other thresholds.

        Raises:
            BusyError: The queue is full.
            StoppingError: The service is closed.
        """
        return self._enqueue(predict_keeping, data, name, options)

    def predict(
        self,
        data: bytes,
        name: str,
        options: SceneOptions | None = None,
        predictor: Predictor | None = None,
    ) -> Prediction:
        """Queue an image as `submit` does, and wait for its prediction.

        Raises:
            BusyError: The queue is full.
            TooLargeError, DeadlineError: The request exceeds the limits.
            DataError, BandMismatch, GsdMismatch, PredictError: See `Predictor.predict`.
        """
        return self.submit(data, name, options, predictor).answer.result()

    def run(
        self,
        work: Callable[[RasterSource, SceneOptions], T],
        data: bytes,
        name: str,
        options: SceneOptions | None = None,
    ) -> T:
        """Queue other work on an image, such as a click, and wait for its result.

        Args:
            work: Function of the decoded image and the options with the service's defaults.
            data, name, options: See `submit`.

        Raises:
            BusyError: The queue is full.
            TooLargeError, DeadlineError: The request exceeds the limits.
            DataError: The image cannot be decoded.
            StoppingError: The service is closed.
        """

        def on_image(
            _: Predictor, image: RasterSource, *, options: SceneOptions, progress: PredictProgress
        ) -> T:
            return work(image, options)

        return self._enqueue(on_image, data, name, options).answer.result()

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
        self._ready = False
        with self._lock:
            self._closed = True
            engines = [self._engine, *self._others]
            dropped, self._queued = self._queued, set()
            self._taken -= len(dropped)
        self._pool.shutdown(wait=False, cancel_futures=True)
        for request in dropped:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(stopping_error())
        for engine in engines:
            engine.close()
        self._pool.shutdown()
        self._decoder.close()

    def _enqueue(
        self,
        predict: Callable[..., T],
        data: bytes,
        name: str,
        options: SceneOptions | None,
        named: Predictor | None = None,
    ) -> QueuedRequest[T]:
        limits = self.limits
        request: QueuedRequest[T] = QueuedRequest(time.monotonic() + limits.seconds)
        filled = self.defaults.filled(options)

        def check(*_: int) -> None:
            # After the network, the outlines of a block may take seconds.
            if self._closed:
                raise stopping_error()
            request.check()

        def make() -> T:
            check()
            image = self._decoded(data, name)
            with self._cancellable(named or self.predictor, request) as predictor:
                return predict(predictor, image, options=filled, progress=check)

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
            self._queued.add(request)
            # Within the lock, `close` cannot end the pool before.
            self._pool.submit(self._run, make, request)
        return request

    def _decoded(self, data: bytes, name: str) -> ArraySource | GeoreferencedSource:
        if len(data) > self.limits.upload_bytes:
            raise TooLargeError(
                f"The upload has {len(data):,} bytes; at most {self.limits.upload_bytes:,} are "
                "accepted.",
                remedy="Send a part of it, or start a job for a large scene.",
            )
        return self._decoder.decode(data, name, nodata=self.defaults.nodata)

    def _run(self, make: Callable[[], T], request: QueuedRequest[T]) -> None:
        with self._lock:
            if request not in self._queued:
                return
            self._queued.remove(request)
            self._running += 1
        started = time.monotonic()
        failed = True
        try:
            if not request.answer.set_running_or_notify_cancel():
                return
            prediction = make()
            failed = False
        except BaseException as error:
            # The error also refers to this function, which has the bytes of the image.
            del make
            clear_frames(error)
            request.answer.set_exception(error)
        finally:
            with self._lock:
                self._running -= 1
                self._taken -= 1
                self._answered += not failed
                if not (failed and request.cancelled):
                    self._failed += failed
                    # Moving average of the time of a request, for the remedy of refused requests.
                    self._seconds += (time.monotonic() - started - self._seconds) / 16
        if not failed:
            request.answer.set_result(prediction)

    @contextmanager
    def _cancellable(
        self, predictor: Predictor, request: QueuedRequest[Any]
    ) -> Iterator[Predictor]:
        """Yield a predictor that stops when the request is cancelled or late."""
        try:
            yield Predictor(predictor.bundle, _CancellableEngine(predictor.engine, request))
        except Exception:
            # The pipeline reports the engine's DeadlineError as a failure of the network.
            request.check()
            raise


class _CancellableEngine:
    """The engine for one request; it raises DeadlineError when the request must end."""

    def __init__(self, engine: Engine, request: QueuedRequest[Any]) -> None:
        self._engine = engine
        self._request = request
        self.name, self.precision = engine.name, engine.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._request.check()
        return self._engine.run(batch)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        self._request.check()
        return run_quantised(self._engine, batch)


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
        given, own = options or AS_FOUND, self.images
        if given.gsd_m is None and given.scale is None:
            given = replace(given, gsd_m=own.gsd_m, scale=own.scale)
        return replace(
            given,
            bands=own.bands if given.bands is None else given.bands,
            stretch=own.stretch if given.stretch is None else given.stretch,
        )
