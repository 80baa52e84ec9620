"""The endpoints that Label Studio calls on an ML backend.

https://labelstud.io/guide/ml_create describes them. The module follows the requests of Label
Studio 1.23 (`ml/api_connector.py` there).
"""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rooftrace.core.errors import ConfigError
from rooftrace.rest.description import DescribedRoute
from rooftrace.rest.problems import ProblemError
from rooftrace.service.labelling import Labeller
from rooftrace.service.service import Service

_MAX_TASKS = 10_000
"""Maximum number of tasks in one request."""

Name = Annotated[str, Field(max_length=200)]
Xml = Annotated[str, Field(max_length=1_000_000)]


class _LabelStudioRequest(BaseModel):
    """Base of all requests; fields that newer versions of Label Studio add are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Setup(_LabelStudioRequest):
    """Request when a project is connected or its page is opened."""

    project: Name = ""
    interface: Annotated[Xml, Field(alias="schema")]
    hostname: Name = ""
    access_token: Annotated[str, Field(max_length=4000, repr=False)] = ""


class Parameters(_LabelStudioRequest):
    """Parameters of a request for predictions: regions drawn with a smart tool."""

    context: dict[str, Any] | None = None


class PredictionRequest(_LabelStudioRequest):
    """Request for predictions of tasks."""

    tasks: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=_MAX_TASKS)]
    label_config: Xml
    project: Name = ""
    params: Parameters = Parameters()


class ProjectEvent(_LabelStudioRequest):
    """Event of a project."""

    action: Name


def labelstudio_router(
    service: Service, *, url: str | None = None, token: str | None = None
) -> APIRouter:
    """Return the router of an ML backend for Label Studio, whose URL there is that of this server.

    Args:
        service: Service that predicts.
        url: URL of the Label Studio server. None allows a server on this machine, which
            sends its URL when a project is connected.
        token: Access token of that server. None uses the token that it sends when a project is
            connected.

    Raises:
        ConfigError: The URL or the token is malformed.
    """
    labeller = Labeller(service, url, token)
    route_class = _limited_route(2 * service.limits.running)
    router = APIRouter(tags=["label studio"], route_class=route_class)

    # Label Studio waits one second for this response, so it does not queue behind predictions.
    @router.get("/health")
    async def labelstudio_health() -> dict[str, str]:
        """Check the backend."""
        return {"status": "UP", "model_class": "Rooftrace"}

    @router.post("/setup")
    def labelstudio_setup(body: Setup, request: Request) -> dict[str, str]:
        """Check the labelling interface of a project, and note where its images are."""
        labeller.connect(
            body.project,
            body.interface,
            body.hostname,
            body.access_token,
            is_local=_is_local(request),
        )
        return {"model_version": labeller.model_version}

    @router.post("/predict")
    def labelstudio_predict(body: PredictionRequest) -> dict[str, Any]:
        """Return one prediction for each task, or only the first for more than 16 tasks."""
        results = labeller.predictions(
            body.tasks, body.label_config, body.project, body.params.context
        )
        return {"results": results, "model_version": labeller.model_version}

    @router.get("/versions")
    async def labelstudio_versions() -> dict[str, list[str]]:
        """List model versions."""
        return {"versions": [labeller.model_version]}

    @router.post("/webhook")
    def labelstudio_webhook(event: ProjectEvent) -> dict[str, str]:
        """Ignore all events of a project but START_TRAINING, which is refused."""
        if event.action == "START_TRAINING":
            raise ConfigError(
                "This server does not train on projects of Label Studio.",
                remedy="Use rooftrace label pull, then rooftrace finetune.",
            )
        return {"status": "ignored"}

    return router


def _limited_route(max_bodies: int) -> type[DescribedRoute]:
    """Return a route class that keeps at most `max_bodies` request bodies in memory.

    Label Studio sends each task with all its annotations. Waiting requests are not read yet.
    """
    places = asyncio.Semaphore(max_bodies)

    class LimitedRoute(DescribedRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                if request.method == "GET":
                    return await handle(request)
                if request.headers.get("content-type", "").startswith(_UPLOADS):
                    raise ProblemError(
                        "invalid-request",
                        f"POST {request.url.path} takes the JSON of Label Studio, not an image.",
                        remedy="Send the image to the API: curl -F file=@image.tif "
                        f"{request.base_url}v1/predict",
                    )
                async with places:
                    return await handle(request)

            return handled

    return LimitedRoute


_UPLOADS = ("multipart/", "image/")
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def _is_local(request: Request) -> bool:
    """Return whether the client is a program on this machine.

    A proxy on this machine also sends the requests of other machines, and says so in a header.
    """
    if any(name in request.headers for name in _PROXY_HEADERS):
        return False
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
