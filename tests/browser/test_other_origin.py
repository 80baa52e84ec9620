"""A page of another site shows results and calls the API: the page of docs/map.md as it is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from fastapi import FastAPI, Response

from rooftrace.app.server import create_server
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import JobStore
from rooftrace.service.service import Service
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.campaign

DOCS = Path(__file__).parents[2] / "docs" / "map.md"
SHOWN = """() => map.loaded?.() && map.areTilesLoaded()
    && map.queryRenderedFeatures({ layers: ["buildings"] }).length > 20"""
ASK = """async ([address, options]) => {
    const answer = await fetch(address, options);
    return [answer.status, answer.headers.get("content-range"), (await answer.text()).length];
}"""


def test_the_page_of_the_docs_works_from_another_origin(
    page: Any, serve_app: Callable[[Any], str], town: Path, store: JobStore, tmp_path: Path
) -> None:
    [html] = re.findall(r"```html\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    site = FastAPI()
    origin = serve_app(site)
    model = write_tiny_bundle(tmp_path / "tiny.rooftrace", gsd_m=0.5)
    server = create_server(
        Service.load(model), JobRunner(store, model), results=[town], allow_origins=[origin]
    )
    url = serve_app(server)

    @site.get("/favicon.ico")
    def icon() -> None:
        return None

    @site.get("/")
    def root() -> Response:
        return Response(html.replace("http://127.0.0.1:8000", url), media_type="text/html")

    page.goto(origin)
    page.wait_for_function(SHOWN)
    # A request that the browser asks about before.
    asked = {"headers": {"X-API-Key": "none"}}
    scene = f"{url}/map/folders/town/images/scene"
    status, _, size = page.evaluate(ASK, [f"{scene}/download?format=geojson", asked])
    assert (status, size > 1000) == (200, True)
