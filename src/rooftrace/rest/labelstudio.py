"""The endpoints that Label Studio calls on an ML backend.

https://labelstud.io/guide/ml_create, and what its server 1.23 sends (`ml/api_connector.py` there).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from rooftrace.service.labelling.labeller import Labeller
from rooftrace.service.service import Service

__all__ = ["labelstudio_router"]

_MOST_TASKS = 10_000

Name = Annotated[str, Field(max_length=200)]
Xml = Annotated[str, Field(max_length=1_000_000)]


class _Sent(BaseModel):
    """What a version of Label Studio sends more is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Setup(_Sent):
    """A project is connected, or its page is opened."""

    project: Name = ""
    interface: Annotated[Xml, Field(alias="schema")]
    hostname: Name = ""
    access_token: Annotated[str, Field(max_length=4000, repr=False)] = ""


class Parameters(_Sent):
    """Of a request for predictions: what was drawn with a smart tool."""

    context: dict[str, Any] | None = None


class Wanted(_Sent):
    """Tasks that want predictions."""

    tasks: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=_MOST_TASKS)]
    label_config: Xml
    project: Name = ""
    params: Parameters = Parameters()


def labelstudio_router(
    service: Service, *, url: str | None = None, token: str | None = None, prefix: str = ""
) -> APIRouter:
    """An ML backend for Label Studio: its address there is that of this server with the prefix.

    Args:
        service: the model.
        url: of the Label Studio server; None: one on this machine may introduce itself.
        token: for it; None: it gives its own when a project is connected.
        prefix: such as `/labelstudio`, without a slash at its end.

    Raises:
        ConfigError: the address or the token cannot be one.
    """
    labeller = Labeller(service, url, token)
    router = APIRouter(
        prefix=prefix,
        tags=["label studio"],
        route_class=_some_at_a_time(2 * service.limits.running),
    )

    # Label Studio waits a second for this one, so it does not queue behind predictions.
    @router.get("/health")
    async def health() -> dict[str, str]:
        """That the backend is there, and the class of its model."""
        return {"status": "UP", "model_class": "Rooftrace"}

    @router.post("/setup")
    def setup(body: Setup, request: Request) -> dict[str, str]:
        """Check a project's labelling interface; learn where its images are."""
        labeller.introduce(
            body.project, body.interface, body.hostname, body.access_token, near=_is_near(request)
        )
        return {"model_version": labeller.model_version}

    @router.post("/predict")
    def predict(body: Wanted) -> dict[str, Any]:
        """Predictions, one for each task; of very many tasks, for the first alone."""
        results = labeller.predictions(
            body.tasks, body.label_config, body.project, body.params.context
        )
        return {"results": results, "model_version": labeller.model_version}

    @router.get("/versions")
    async def versions() -> dict[str, list[str]]:
        """The one version of the model that there is."""
        return {"versions": [labeller.model_version]}

    @router.post("/webhook")
    async def webhook(event: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
        """What happens in a project changes nothing here: the model is not trained."""
        return {"status": "ignored"}

    return router


def _some_at_a_time(most: int) -> type[APIRoute]:
    """Routes of which together no more than `most` bodies are in memory.

    Label Studio sends with each task all that was ever drawn on it. What waits was not read yet.
    """
    turn = asyncio.Semaphore(most)

    class Some(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                if request.method == "GET":
                    return await handle(request)
                async with turn:
                    return await handle(request)

            return handled

    return Some


def _is_near(request: Request) -> bool:
    """Whether the caller is a program on this machine."""
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
