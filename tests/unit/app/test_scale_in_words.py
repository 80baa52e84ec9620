"""An image that is too coarse is refused in the words of each face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from starlette.testclient import TestClient

from command_line import command
from raster_files import write_geotiff
from rooftrace.app.page.results import chosen_options, predict_file
from rooftrace.app.page.strings import sentence
from rooftrace.core.errors import GsdMismatch
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.predictor import Predictor
from rooftrace.rest import create_api
from rooftrace.service.service import Service
from tiny_models import write_tiny_bundle

GSD_M = 4.1 * 0.4 * 1.05
"""Metres per pixel 4.1 times as coarse as the model, beyond what nominal zoom levels need."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    tiny = tiny_bundle()
    spec = tiny.spec.model_copy(update={"gsd_m": 0.4})
    made = Service(Predictor(ModelBundle(spec, tiny.parts, "tiny"), PointwiseEngine()))
    yield made
    made.close()


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transform = Affine(GSD_M, 0, 5e5, 0, -GSD_M, 9e6)
    path = tmp_path_factory.mktemp("coarse") / "coarse.tif"
    return write_geotiff(path, np.full((3, 64, 64), 90, np.uint8), transform=transform)


def test_the_command_line_names_its_option(coarse: Path, tmp_path: Path) -> None:
    model = write_tiny_bundle(tmp_path / "m.rooftrace", gsd_m=0.4)
    done = command("predict", coarse, "-m", model, "-o", tmp_path / "out", "--json")
    assert done.code == 4
    error = done.json["failed"][0] if "failed" in done.json else done.json["error"]
    assert "has 1.72 m per pixel, the model was trained at 0.4 m" in error["message"]
    assert "at most 1.6 m, 4 times as coarse" in error["message"]
    assert "give the right one with --gsd." in error["remedy"]


def test_the_api_names_its_parameter(service: Service, coarse: Path) -> None:
    client = TestClient(create_api(service), raise_server_exceptions=False)
    files = {"file": ("coarse.tif", coarse.read_bytes(), "image/tiff")}
    problem = client.post("/v1/predict", files=files).json()
    assert problem["type"] == "/problems/gsd-mismatch"
    assert "coarse.tif has 1.72 m per pixel" in problem["detail"]
    assert "give the right one with the parameter gsd." in problem["remedy"]
    assert "--" not in str(problem)
    answer = client.post("/v1/predict?gsd=0.4", files=files)
    assert answer.status_code == 200


@pytest.mark.campaign
def test_the_page_names_its_field(service: Service, coarse: Path) -> None:
    with pytest.raises(GsdMismatch) as refused:
        predict_file(service, coarse, chosen_options(service, "", None))
    text = sentence(refused.value)
    assert "coarse.tif has 1.72 m per pixel" in text
    assert "give the right one in the field “Metres per pixel”." in text
    assert "--" not in text
