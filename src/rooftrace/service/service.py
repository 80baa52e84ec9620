"""A model that answers many who ask at once: what every face of the server stands on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BusyError, DeadlineError, TooLargeError
from rooftrace.io.memory import ArraySource
from rooftrace.io.nodata import NodataRule
from rooftrace.io.placed import PlacedSource
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor, load
from rooftrace.predict.result import Prediction
from rooftrace.predict.scores import KeptPrediction, predict_keeping
from rooftrace.service.batching import BatchFigures, BatchingEngine
from rooftrace.service.decode import Decoder
from rooftrace.service.limits import Limits

__all__ = ["Request", "Service", "ServiceFigures"]

T = TypeVar("T")

OnBlock = Callable[[Block], None]

Decoded = ArraySource | PlacedSource
Decode = Callable[[], Decoded]


@dataclass(frozen=True)
class ServiceFigures:
    """What the service does now, and did since it began.

    Args:
        running: requests that are worked on.
        waiting: that wait for that.
        answered, failed: that are done, and that ended in an error.
        refused: that were not begun, since the queue was full.
        batches: what went through the network.
    """

    running: int
    waiting: int
    answered: int
    failed: int
    refused: int
    batches: BatchFigures


@dataclass(eq=False)
class Request(Generic[T]):
    """One that was taken on.

    Args:
        answer: the prediction, or the error of it.
        until: when it has to be done, by the monotonic clock.
    """

    until: float
    answer: Future[T] = field(default_factory=Future)
    _cancelled: bool = False

    def cancel(self) -> None:
        """Nobody waits any more: it ends before its next tile."""
        self._cancelled = True
        self.answer.cancel()

    def check(self) -> None:
        """Raises DeadlineError where it took too long, or nobody waits any more."""
        if self._cancelled:
            raise DeadlineError("The request was given up by who asked.")
        if time.monotonic() > self.until:
            raise DeadlineError(
                "The request took longer than the server allows.",
                remedy="Send a smaller image, or start a job.",
            )


class Service:
    """A loaded model behind a queue.

    Images are decoded in processes of their own, requests are worked on in some threads, and
    their tiles go through one network together. A prediction is the same as that of
    `Predictor.predict` alone, whoever else asks.

    Args:
        predictor: the model; its engine is taken over.
        limits: what is refused.
        model_path: the file that the model is of; None for the one that comes with rooftrace.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits | None = None, *, model_path: Path | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.model_path = model_path
        self._engine = BatchingEngine(predictor.engine)
        self.predictor = Predictor(predictor.bundle, self._engine)
        self._decoder = Decoder(self.limits)
        self._pool = ThreadPoolExecutor(self.limits.running, "request")
        self._lock = threading.Lock()
        self._taken = self._running = self._answered = self._failed = self._refused = 0
        self._seconds = 1.0
        self._ready = False

    @classmethod
    def load(
        cls,
        bundle: Path | None = None,
        *,
        engine: str | None = None,
        precision: str | None = None,
        limits: Limits | None = None,
    ) -> Service:
        """A service of a bundle; without one, of the model that comes with rooftrace.

        Raises:
            BundleError, ConfigError, MissingExtraError: as `predict.predictor.load`.
        """
        return cls(load(bundle, engine=engine, precision=precision), limits, model_path=bundle)

    @property
    def bundle(self) -> ModelBundle:
        return self.predictor.bundle

    @property
    def ready(self) -> bool:
        """Whether decoders and network are warm, and it is not being stopped."""
        return self._ready

    def warm(self) -> None:
        """Start the decoders and compile the network, so that the first request need not wait.

        Raises:
            PredictError: the network does not run.
        """
        self._decoder.warm()
        spec = self.bundle.spec
        side = spec.input_px or -(-512 // spec.input_multiple_px) * spec.input_multiple_px
        self._engine.run_quantised(np.zeros((1, len(spec.bands), side, side), spec.numpy_dtype))
        self._ready = True

    def source(self, data: bytes, name: str, *, nodata: NodataRule | None = None) -> Decoded:
        """The image of an upload, see `Decoder.decode`.

        Raises:
            DataError, TooLargeError, BusyError: as there; more bytes than the limit.
        """
        if len(data) > self.limits.upload_bytes:
            raise TooLargeError(
                f"The upload has {len(data):,} bytes; at most {self.limits.upload_bytes:,} are "
                "taken.",
                remedy="Send a part of it, or start a job for large scenes.",
            )
        return self._decoder.decode(data, name, nodata=nodata)

    def submit(
        self,
        data: bytes,
        name: str,
        options: SceneOptions | None = None,
        *,
        nodata: NodataRule | None = None,
        on_block: OnBlock | None = None,
    ) -> Request[Prediction]:
        """Take on an image; its answer comes later.

        Args:
            data, name, nodata: as for `source`.
            options: what was chosen.
            on_block: see `Predictor.predict`; called in another thread.

        Raises:
            BusyError: as many requests as the limits allow are waiting already.
        """
        return self._take(
            lambda: self.source(data, name, nodata=nodata),
            lambda predictor, image: predictor.predict(image, options=options, on_block=on_block),
        )

    def submit_keeping(
        self, data: bytes, name: str, options: SceneOptions | None = None
    ) -> Request[KeptPrediction]:
        """As `submit`, and the answer can be decided anew with another threshold.

        Raises:
            BusyError: as `submit`.
        """
        return self._take(
            lambda: self.source(data, name),
            lambda predictor, image: predict_keeping(predictor, image, options=options),
        )

    def predict(
        self,
        data: bytes,
        name: str,
        options: SceneOptions | None = None,
        *,
        nodata: NodataRule | None = None,
        on_block: OnBlock | None = None,
    ) -> Prediction:
        """`submit`, and wait.

        Raises:
            BusyError: as `submit`.
            DataError, BandMismatch, GsdMismatch, PredictError: as `Predictor.predict`.
            TooLargeError, DeadlineError: by the limits.
        """
        return self.submit(data, name, options, nodata=nodata, on_block=on_block).answer.result()

    def figures(self) -> ServiceFigures:
        """What it does, and did."""
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
        """Take nothing on any more, end what is under way, and give everything back."""
        self._ready = False
        self._engine.close()
        self._pool.shutdown(cancel_futures=True)
        self._decoder.close()

    def _take(self, decode: Decode, predict: Callable[[Predictor, Decoded], T]) -> Request[T]:
        limits = self.limits
        with self._lock:
            if self._taken >= limits.waiting:
                self._refused += 1
                rounds = self._taken / limits.running
                raise BusyError(
                    f"{self._taken} requests are waiting already.",
                    remedy="Ask again in a while.",
                    retry_after_s=max(1.0, rounds * self._seconds),
                )
            self._taken += 1
        request: Request[T] = Request(time.monotonic() + limits.seconds)
        self._pool.submit(self._run, decode, predict, request)
        return request

    def _run(
        self, decode: Decode, predict: Callable[[Predictor, Decoded], T], request: Request[T]
    ) -> None:
        with self._lock:
            self._running += 1
        started = time.monotonic()
        failed = True
        try:
            if not request.answer.set_running_or_notify_cancel():
                return
            request.check()
            image = decode()
            with self._watched(request) as predictor:
                prediction = predict(predictor, image)
            failed = False
        except BaseException as error:
            request.answer.set_exception(error)
        finally:
            with self._lock:
                self._running -= 1
                self._taken -= 1
                self._failed += failed
                self._answered += not failed
                # A mean that forgets, of what a request takes, for those who are refused.
                self._seconds += (time.monotonic() - started - self._seconds) / 16
        if not failed:
            request.answer.set_result(prediction)

    @contextmanager
    def _watched(self, request: Request[Any]) -> Iterator[Predictor]:
        """The model, for as long as a request may take."""
        try:
            yield Predictor(self.bundle, _Watched(self._engine, request))
        except Exception:
            # It is raised among the tiles, which tell it as a failure of the network.
            request.check()
            raise


class _Watched:
    """The network for one request, which ends when that does."""

    def __init__(self, engine: BatchingEngine, request: Request[Any]) -> None:
        self._engine = engine
        self._request = request
        self.name, self.precision = engine.name, engine.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._request.check()
        return self._engine.run(batch)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        self._request.check()
        return self._engine.run_quantised(batch)
