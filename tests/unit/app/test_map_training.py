"""Trainings on the review of a results folder, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

pytest.importorskip("fastapi")

from affine import Affine
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pyproj import CRS

from clicked_town import ObedientEngine
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import review_router
from rooftrace.app.map.training import training_router
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_write import write_footprints
from rooftrace.models.bundle import read_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.job import CORRECTIONS, START
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.service import Service
from rooftrace.service.versions import ModelVersions
from town import generate_scene

GRID = GeoGrid((256, 256), Affine(0.5, 0, 524_000, 0, -0.5, 9_318_000), CRS(32736))
PLACES = [(20, 20), (150, 20), (20, 150), (150, 150), (100, 100)]
"""Left and top of the predicted houses in pixels."""

TRAINING = "/v1/results/out/training"


def house(col: int, row: int) -> shapely.Polygon:
    (left, right), (top, bottom) = GRID.to_world(
        np.array([col, col + 20.0]), np.array([row, row + 12.0])
    )
    return shapely.box(left, bottom, right, top)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    outputs = []
    for name in ("east", "west"):
        image, _ = generate_scene(1, (256, 256), 0.5).write(tmp_path, name)
        with mask_sink(folder / f"{name}_mask.tif", GRID) as sink:
            sink.write(Window.whole(GRID.shape), np.zeros(GRID.shape, np.uint8))
        found = Footprints(
            np.array([house(*place) for place in PLACES]), np.full(5, 0.6, np.float32),
            np.full(5, 60.0), GRID.crs,
        )  # fmt: skip
        write_footprints(folder / f"{name}_buildings.gpkg", found)
        outputs.append({"input": str(image), "mask": f"{name}_mask.tif"})
    figures = [{"input": one["input"], "values": {"bands": [1, 2, 3]}} for one in outputs]
    run = {"outputs": outputs, "figures": figures, "options": {"gsd_m": 0.6}}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def versions(store: JobStore) -> Iterator[ModelVersions]:
    bundle = tiny_bundle()
    service = Service(Predictor(bundle, PointwiseEngine()))
    yield ModelVersions(service, store, 2.0)
    service.close()


def client_of(folder: Path, versions: ModelVersions) -> TestClient:
    app = FastAPI()
    install_problems(app)
    catalogue = ResultsCatalogue([folder])
    app.include_router(review_router(catalogue))
    app.include_router(training_router(catalogue, versions))
    return TestClient(app)


def decide(client: TestClient, image: str, action: str, *numbers: int) -> None:
    body = {
        "action": action, "reviewer": "Ada",
        "buildings": [{"id": number, "revision": 0} for number in numbers],
    }  # fmt: skip
    answer = client.post(f"/v1/results/out/images/{image}/review/changes", json=body)
    assert answer.status_code == 200, answer.text


def test_the_corrections_of_all_images_become_a_training(
    folder: Path, versions: ModelVersions, store: JobStore
) -> None:
    client = client_of(folder, versions)
    assert client.get(TRAINING).json() == {"minutes": 2.0, "images": 0, "job": None}
    decide(client, "west", "accept", 1, 2, 3)
    decide(client, "east", "reject", 4)
    answer = client.post(TRAINING)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["kind"], job["name"], job["state"]) == ("finetune", "the review of out", "queued")
    assert job["training"] == {
        "results": "out", "minutes": 2.0,
        "start": versions.predictor.bundle.version,
    }  # fmt: skip
    work = store.folder_of(job["id"])
    assert read_bundle(work / START).version == versions.predictor.bundle.version
    east, west = json.loads((work / CORRECTIONS).read_text())["images"]
    assert (east["name"], west["name"]) == ("east", "west")
    assert (east["reading"]["bands"], east["reading"]["gsd_m"]) == ("1,2,3", 0.6)
    assert [chip["window"] for chip in east["chips"]] == [[128, 128, 128, 128]]
    # The rejected house is ground; the open one in the middle is unknown.
    assert [index for index, _ in east["chips"][0]["shapes"]] == []
    assert len(west["chips"]) == 3
    drawn = [index for chip in west["chips"] for index, _ in chip["shapes"]]
    assert sorted(drawn) == [-1, 1, 1, 1]
    shape = next(wkb for index, wkb in west["chips"][0]["shapes"] if index == 1)
    assert shapely.from_wkb(shape).equals_exact(shapely.box(20, 20, 40, 32), 1e-3, normalize=True)
    # A second click starts no second training.
    assert client.post(TRAINING).json()["id"] == job["id"]
    assert client.get(TRAINING).json()["images"] == 2
    assert client.get(TRAINING).json()["job"]["id"] == job["id"]


def refused(client: TestClient, problem: str) -> Any:
    answer = client.post(TRAINING)
    assert answer.json()["type"] == f"/problems/{problem}"
    return answer.json()


def test_trainings_that_are_refused(folder: Path, versions: ModelVersions, store: JobStore) -> None:
    client = client_of(folder, versions)
    assert "Nothing of out is reviewed yet" in refused(client, "data-error")["detail"]
    decide(client, "west", "accept", 1)
    assert "lie on 1 chip of ground" in refused(client, "data-error")["detail"]
    decide(client, "west", "accept", 2, 3, 4)
    image = folder.parent / "west.tif"
    image.rename(image.with_suffix(".away"))
    gone = refused(client, "data-error")
    assert "The image west.tif is not where it was" in gone["detail"]
    assert str(folder.parent) not in json.dumps(gone)
    assert client.post("/v1/results/job-0123/training").status_code == 404
    assert store.newest(9) == []
    image.with_suffix(".away").rename(image)
    assert client.post(TRAINING).status_code == 202


def test_a_server_that_does_not_train(folder: Path) -> None:
    service = Service(Predictor(tiny_bundle(), ObedientEngine()))
    client = client_of(folder, ModelVersions(service))
    assert client.get(TRAINING).json()["minutes"] is None
    decide(client, "west", "accept", 1, 2, 3, 4)
    assert "--train-minutes" in refused(client, "config-error")["remedy"]
    service.close()
