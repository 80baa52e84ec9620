"""Versions of a server's model: its own, and those that trainings on reviews made from it.

New jobs and Label Studio's predictions are made by one of them. The page and `POST /v1/predict`
keep the server's own model, so that a reviewer does not change the results of other people.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.models.bundle import write_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service.jobs.job import BUNDLE, HELD_OUT, START, Job, JobStateError, TrainingOptions
from rooftrace.service.jobs.runner import path_of
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.service import Service

_MAX_JOBS = 200
"""Maximum number of jobs among which the last training on a review is looked for."""

_LOG = logging.getLogger(__name__)


class ModelVersions:
    """The model of new jobs and of Label Studio's predictions, and the trainings that improve it.

    A version is taken by a person. The jobs record which versions are taken, so a restart keeps
    them; versions of another own model are not used.

    Args:
        service: Service with the server's own model.
        store: Store of the trainings; None for a server without jobs.
        minutes: Limit of a training in minutes, with its validation; None if the server does not
            train.
    """

    def __init__(
        self, service: Service, store: JobStore | None = None,
        minutes: float | None = None,
    ) -> None:  # fmt: skip
        self._service = service
        self._store = store
        self.minutes = None if store is None else minutes
        self._lock = threading.RLock()
        self._served: Job | None = None
        self._predictor = service.predictor
        if store is None:
            return
        self._base = service.bundle.sha256
        try:
            self._serve(self._latest())
        except RooftraceError as error:
            _LOG.error("the version that was taken cannot be used, so the own model is: %s", error)

    @property
    def predictor(self) -> Predictor:
        """The predictor of the version in use."""
        return self._predictor

    @property
    def served(self) -> Job | None:
        """The training whose version is in use; None for the server's own model."""
        return self._served

    @property
    def served_id(self) -> str:
        """The id of this training; "" for the server's own model."""
        return "" if self._served is None else self._served.id

    def trainings(self) -> list[Job]:
        """Return the trainings of all versions of the server's own model, newest first."""
        jobs = [] if self._store is None else self._store.trainings()
        return [one for one in jobs if one.training and one.training.base == self._base]

    def training_on(self, results: str) -> Job | None:
        """Return the last training on the review of a results folder, in any state."""
        jobs = [] if self._store is None else self._store.newest(_MAX_JOBS)
        return next((one for one in jobs if one.training and one.training.results == results), None)

    def start(self, results: str, title: str, prepare: Callable[[Path, Path | None], None]) -> Job:
        """Queue a training of the version in use on the review of a results folder.

        If such a training waits or runs already, it is returned.

        Args:
            results: Id of the results folder.
            title: Its name, only for display.
            prepare: Function that writes the corrections into the folder of the job. It also gets
                the folder of the last finished training on this review, or None.

        Raises:
            ConfigError: The server does not train, or its model is an ensemble.
            BusyError: Too many jobs are waiting.
            ExportError: The start model cannot be written to the folder of the job.
            DataError: See `prepare`.
        """
        if self._store is None or self.minutes is None:
            raise ConfigError(
                "This server does not train models.",
                remedy="Its owner can start it with rooftrace serve --train-minutes 10.",
            )
        server, start = self._service.bundle, self.predictor.bundle
        if start.members:
            raise ConfigError(
                f"The model {start.spec.name} is an ensemble; only a single model can be trained.",
                remedy="Serve one of its models.",
            )
        training = TrainingOptions(
            results, self.minutes, start.version, self._base, f"{server.spec.name}-review"
        )
        earlier = next(
            (job for job in self.trainings() if job.training and job.training.results == results),
            None,
        )

        def write(folder: Path) -> None:
            prepare(folder, None if earlier is None else self._folder(earlier))
            write_bundle(folder / START, start.spec, start.parts)
            if earlier is not None:
                split = path_of(self._folder(earlier), "split.json")
                (folder / HELD_OUT).write_bytes(split.read_bytes())

        return self._store.add_training(title, training, write)

    def take(self, job: Job) -> None:
        """Use the version of a training from now on.

        Raises:
            JobStateError: The training is not done, or belongs to another model of the server.
            BundleError, PredictError: The version cannot be loaded.
        """
        with self._lock:
            if job.training is None or job.state != "done":
                kind = "a prediction" if job.training is None else job.state
                raise JobStateError(
                    f"The job {job.id} is {kind}; only a training that is done has a version.",
                    remedy="See /v1/versions.",
                )
            if job.training.base != self._base:
                raise JobStateError(
                    f"The version of {job.id} was made from another model than this server has.",
                    remedy=f"Start the server with the model of {job.training.start}.",
                )
            assert self._store is not None
            if self._served is None or self._served.id != job.id:
                self._serve(job)
                self._store.set_taken(job.id, taken=True)

    def go_back(self) -> None:
        """Use the version that was in use before the current one.

        Raises:
            JobStateError: The server's own model is in use.
            BundleError, PredictError: The earlier version cannot be loaded.
        """
        with self._lock:
            served = self._served
            if served is None or self._store is None:
                raise JobStateError(
                    f"The server's own model, {self._service.bundle.version}, is in use; there is "
                    "no earlier version.",
                    remedy="See /v1/versions.",
                )
            self._serve(self._latest(but=served.id))
            self._store.set_taken(served.id, taken=False)

    def _folder(self, job: Job) -> Path:
        assert self._store is not None
        return self._store.folder_of(job.id)

    def _latest(self, but: str = "") -> Job | None:
        """Return the training whose version was taken last."""
        taken = [one for one in self.trainings() if one.taken_s is not None and one.id != but]
        return max(taken, key=lambda one: one.taken_s or 0.0, default=None)

    def _serve(self, job: Job | None) -> None:
        """Load the version of a training; None for the server's own model."""
        if job is None:
            self._predictor = self._service.predictor
        else:
            self._predictor = self._service.open_model(path_of(self._folder(job), BUNDLE))
        self._served = job
