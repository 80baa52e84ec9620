"""Reviewers' corrections train the model of `rooftrace serve`, and new jobs use it once taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi")
pytest.importorskip("gradio")

from jobs_server import PATIENCE_S, wait_until
from rooftrace.io.vector_write import write_footprints
from town import generate_scene

if TYPE_CHECKING:
    from tests.conftest import TinyRun

pytestmark = pytest.mark.campaign

CHILD = """
from rooftrace.train import finetune
finetune._EPOCH_S = 1.0
from rooftrace.service.jobs import child
child.main()
"""
"""A child with short epochs."""

SERVER = f"""
import sys
from rooftrace.service.jobs.runner import JobRunner
JobRunner.__init__.__kwdefaults__["command"] = (sys.executable, "-c", {CHILD!r})
from rooftrace.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def town(tmp_path: Path, tiny_run: TinyRun) -> Path:
    """Results of a scene whose layer has every building, with the run that wrote them."""
    import numpy as np
    import shapely

    from rooftrace.core.types import Footprints

    scene = generate_scene(5, (512, 512), 0.3)
    image, _ = scene.write(tmp_path, "town")
    folder = tmp_path / "results"
    command = [sys.executable, "-m", "rooftrace", "predict", str(image), "-o", str(folder)]
    subprocess.run([*command, "-m", str(tiny_run.bundle)], check=True, capture_output=True)
    geometry = np.array(scene.buildings, np.object_)
    layer = folder / "town_buildings.gpkg"
    layer.unlink()
    found = Footprints(
        geometry, np.full(len(geometry), 0.5, np.float32), shapely.area(geometry), scene.grid.crs
    )
    write_footprints(layer, found)
    return folder


@pytest.fixture
def url(tmp_path: Path, tiny_run: TinyRun, town: Path) -> Iterator[str]:
    command = [
        sys.executable, "-c", SERVER, "serve", "-m", str(tiny_run.bundle), "--port", "0", "--json",
        "--jobs", str(tmp_path / "jobs"), "--results", str(town), "--train-minutes", "0.2",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def test_from_the_corrections_to_new_jobs_and_back(url: str, town: Path) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        take_and_go_back(client, town)


def take_and_go_back(client: httpx.Client, town: Path) -> None:
    """Train on decisions about all buildings, take the version, and go back."""
    review, training = "/v1/results/results/images/town/review", "/v1/results/results/training"

    def get(path: str) -> Any:
        return client.get(path).raise_for_status().json()

    def post(path: str, body: Any = None) -> Any:
        return client.post(path, json=body).raise_for_status().json()

    assert get("/map/settings")["trains"]
    total = get(review)["counts"]["total"]
    for number in range(1, total + 1):
        seen = [{"id": number, "revision": 0}]
        post(f"{review}/changes", {"action": "accept", "reviewer": "Ada", "buildings": seen})
    job = post(training)["links"]["self"]
    wait_until(lambda: get(job)["state"] not in ("queued", "running"), "the training ends")
    done = get(training)["job"]
    assert done["state"] == "done", done["error"]
    figures = done["figures"]
    assert figures["verdict"] in ("better", "no different", "worse")
    assert figures["scenes"] >= 1
    versions = get("/v1/versions")
    own = versions["versions"][-1]["version"]

    def model_of_a_new_job() -> str:
        upload = (town.parent / "town.tif").read_bytes()
        answers: list[httpx.Response] = []

        def is_accepted() -> bool:
            headers = {"Content-Type": "application/octet-stream"}
            answers.append(client.post("/v1/jobs", content=upload, headers=headers))
            # A machine under load may take longer to read the header than the server allows.
            assert answers[-1].is_success or "took longer" in answers[-1].text, answers[-1].text
            return answers[-1].is_success

        wait_until(is_accepted, "the upload is accepted")
        address = answers[-1].json()["links"]["self"]
        wait_until(lambda: get(address)["state"] not in ("queued", "running"), "the job ends")
        record = get(f"{address}/results/run.json")
        return f"{record['bundle']['name']}-{record['bundle']['sha256'][:8]}"

    # It is proposed only; a person takes it, and takes it back.
    assert model_of_a_new_job() == own
    post(f"{job}/take")
    assert model_of_a_new_job() == figures["version"]
    assert post("/v1/versions/back")["versions"][-1]["in_use"]
    assert model_of_a_new_job() == own
