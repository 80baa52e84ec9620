"""POST /v1/predict: an image in, its buildings out; GET /v1/model: by what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from rooftrace.core.errors import BusyError, DeadlineError
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.result import Prediction
from rooftrace.rest.answers import MEDIA_TYPES, Answer, Format, encoded, figures_of, outputs_for
from rooftrace.rest.negotiation import negotiated
from rooftrace.rest.predict_description import REQUEST_BODY, RESPONSES
from rooftrace.rest.predict_upload import received
from rooftrace.rest.scene_query import SceneQuery
from rooftrace.rest.schemas import Measured, ModelCard, ModelClass
from rooftrace.service.service import Request as Taken
from rooftrace.service.service import Service

__all__ = ["PredictQuery", "predict_router"]

_GONE = 499
"""What logs know a client as that went away; nobody receives it."""


class PredictQuery(SceneQuery):
    """The options of a prediction."""

    format: Annotated[
        Format | None,
        Field(description="Of the answer; default by the header Accept, else geojson."),
    ] = None
    count: Annotated[
        bool,
        Field(
            description="Whether buildings are counted for a mask, too. To outline them takes "
            "longer than the network does; GeoJSON and zip have them anyway."
        ),
    ] = False

    def options(self, form: Format) -> SceneOptions:
        """What the predictor is told."""
        return self.scene_options(outputs_for(form, count=self.count))


def predict_router(service: Service) -> APIRouter:
    """The router of a service."""
    router = APIRouter(prefix="/v1", tags=["prediction"])
    intake = _Intake(service.limits.waiting)
    seconds = service.limits.seconds
    bundle = service.bundle

    @router.post(
        "/predict",
        summary="Buildings of an image",
        operation_id="predict",
        openapi_extra={"requestBody": REQUEST_BODY},
        response_class=Response,
        responses=RESPONSES,
    )
    async def predict(request: Request, asked: Annotated[PredictQuery, Query()]) -> Response:
        """Answered at once: GeoJSON of the footprints, the mask as PNG, or a zip of all files.

        The image is sent as the field `file` of a form, or is the body itself. With a georeference
        GeoJSON has longitude and latitude; without one pixels, which its member `coordinates` says.
        """
        started = time.perf_counter()
        form = asked.format or negotiated(request.headers.getlist("accept"))
        with intake.one():
            try:
                async with asyncio.timeout(seconds):
                    upload = await received(request, asked.filename, service.limits.upload_bytes)
                    taken = service.submit(upload.data, upload.name, asked.options(form))
                    prediction = await _awaited(request, taken)
                    if prediction is None:
                        return Response(status_code=_GONE)
                    answer = await run_in_threadpool(_answer, prediction, form, asked.count)
            except TimeoutError:
                raise DeadlineError(
                    f"The request was not done within {seconds:g} seconds.",
                    remedy="Send a smaller image, or start a job.",
                ) from None
        took = f"total;dur={1000 * (time.perf_counter() - started):.1f}"
        return Response(
            answer.body,
            media_type=MEDIA_TYPES[form],
            headers=answer.headers | {"Server-Timing": took, "Vary": "Accept"},
        )

    def _answer(prediction: Prediction, form: Format, count: bool) -> Answer:
        counted = "polygons" in outputs_for(form, count=count)
        return encoded(prediction, form, figures_of(prediction, bundle, counted=counted))

    @router.get("/model", summary="The model's contract", operation_id="model")
    async def model() -> ModelCard:
        """What images it expects, what it answers, and what is known of it."""
        return _card(service)

    return router


class _Intake:
    """How many requests are being received and answered: bodies in memory are bounded, too."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises BusyError where there are as many as may be. Of the event loop alone."""
        if self._taken >= self._most:
            raise BusyError(
                f"{self._taken} requests are waiting already.", remedy="Ask again in a while."
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


async def _awaited(request: Request, taken: Taken[Prediction]) -> Prediction | None:
    """What becomes of a request; None where the client went away, which ends it."""
    answer = asyncio.wrap_future(taken.answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        gone.cancel()
        if not answer.done():
            answer.cancel()
            taken.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _card(service: Service) -> ModelCard:
    spec, engine = service.bundle.spec, service.predictor.engine
    legend = spec.legend
    return ModelCard(
        name=spec.name,
        sha256=service.bundle.sha256,
        bands=list(spec.bands),
        dtype=spec.dtype,
        gsd_m=spec.gsd_m,
        classes=[
            ModelClass(class_id=index, name=name, colour="#{:02X}{:02X}{:02X}".format(*rgb))
            for index, (name, rgb) in enumerate(
                (name, legend.rgb(index)) for index, name in enumerate(spec.classes)
            )
        ],
        building_class=spec.building_class,
        threshold=spec.threshold,
        calibrated=spec.calibration is not None,
        metrics=[Measured.model_validate(one.model_dump()) for one in spec.metrics],
        licence=spec.licence,
        attribution=spec.attribution,
        created=spec.created,
        versions=spec.versions,
        engine=engine.name,
        precision=engine.precision,
    )
