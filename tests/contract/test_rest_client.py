"""The client in docs/service.md against a real server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")

from local_server import serving_app
from rooftrace.core.errors import BusyError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.api import create_api
from rooftrace.rest.security import Security
from rooftrace.service.service import Service

pytestmark = pytest.mark.campaign

PAGE = Path(__file__).parents[2] / "docs" / "service.md"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, Service]]:
    """Start a server with a key, and yield its address and service."""
    service = Service(Predictor(tiny_bundle(), PointwiseEngine()))
    app = create_api(service, security=Security(api_key="a key"))
    service.warm()
    with serving_app(app) as url:
        yield url, service


def test_the_client_of_the_page(
    served: tuple[str, Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    url, service = served
    assert 'server = "http://127.0.0.1:8000"' in block
    functions, _, use = block.partition("\n\n\nserver = ")
    monkeypatch.chdir(tmp_path)
    image = np.full((64, 64, 3), 20, np.uint8)
    image[10:40, 10:50] = 230
    cv2.imwrite("scene.tif", image)
    names: dict = {}
    exec(functions, names)
    client = names["predict"]
    with pytest.raises(ValueError, match="no key or a wrong one"):
        client(url, "scene.tif")
    Path("no.tif").write_bytes(b"no image")
    with pytest.raises(ValueError, match="Send a GeoTIFF, PNG"):
        client(url, "no.tif", key="a key")

    # The queue is full once.
    submit, refused = service.submit, []

    def busy_once(*arguments: object, **options: object) -> object:
        if not refused:
            refused.append(arguments)
            raise BusyError("Full.", retry_after_s=1)
        return submit(*arguments, **options)

    monkeypatch.setattr(service, "submit", busy_once)
    names["predict"] = lambda *given, **options: client(*given, key="a key", **options)
    exec(use.replace('"http://127.0.0.1:8000"', f"server = {url!r}"), names)
    assert refused
    assert names["found"]["figures"]["buildings"] == 1
    assert names["found"]["name"] == "scene"
    mask = cv2.imread("mask.png", cv2.IMREAD_GRAYSCALE)
    assert len(np.unique(mask)) == 2


def test_the_problem_of_the_page_is_one(served: tuple[str, Service]) -> None:
    from rooftrace.rest.problems import PROBLEMS

    (block,) = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = json.loads(block)
    kind = PROBLEMS[shown["type"].removeprefix("/problems/")]
    assert (shown["title"], shown["status"]) == (kind.title, kind.status)
