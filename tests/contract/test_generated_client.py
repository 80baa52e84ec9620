"""A client that openapi-python-client generates uploads images and parses the answers.

The generator is in the environment that `make labelstudio` makes: its dependencies do not go
together with ours.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from labelstudio_server import ENVIRONMENT

from town import generate_scene

for _package in ("fastapi", "uvicorn", "attrs", "dateutil"):
    pytest.importorskip(_package)

GENERATOR = ENVIRONMENT / "bin" / "openapi-python-client"

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        not GENERATOR.exists(), reason="there is no openapi-python-client; make labelstudio"
    ),
]

USE = """
import io, json, sys, time
from client import Client
from client.api.jobs import (
    cancel_job, create_job, job, job_archive, job_results, list_jobs,
)
from client.api.label_studio import labelstudio_health
from client.api.prediction import model, predict
from client.models import CreateJobFilesBody, FeatureCollection, PredictFilesBody, ProblemDetails
from client.types import File

url, image = sys.argv[1:]
data = open(image, "rb").read()
client = Client(base_url=url, timeout=300)

def file():
    return File(payload=io.BytesIO(data), file_name="town.png")

form = predict.sync(client=client, body=PredictFilesBody(file=file()), gsd=0.3)
raw = predict.sync(client=client, body=file(), gsd=0.3)
assert isinstance(form, FeatureCollection), form
assert [one.geometry for one in form.features] == [one.geometry for one in raw.features]
bad = predict.sync(client=client, body=File(payload=io.BytesIO(b"no image")))
assert isinstance(bad, ProblemDetails), bad
queued = create_job.sync(client=client, body=CreateJobFilesBody(file=file()), gsd=0.3)
while (done := job.sync(client=client, job_id=queued.id)).state in ("queued", "running"):
    time.sleep(0.2)
print(json.dumps({
    "buildings": form.figures.buildings,
    "features": len(form.features),
    "geometry": form.features[0].geometry.type_,
    "bands": model.sync(client=client).bands,
    "problem": [bad.status, bad.detail],
    "job": [done.state, done.figures.buildings],
    "listed": [one.id for one in list_jobs.sync(client=client).jobs] == [queued.id],
    "files": [one.name for one in job_results.sync(client=client, job_id=queued.id).files],
    "zip": job_archive.sync_detailed(client=client, job_id=queued.id).content[:2].decode(),
    "cancelled": cancel_job.sync(client=client, job_id=queued.id).status,
    "backend": labelstudio_health.sync(client=client).to_dict(),
}))
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rooftrace", "serve", "--port", "0", "--jobs", tmp_path / "jobs",
         "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


@pytest.fixture
def town(tmp_path: Path) -> Path:
    path = tmp_path / "town.png"
    image = generate_scene(0, shape_yx=(384, 384), gsd_m=0.3).image
    cv2.imwrite(str(path), np.moveaxis(image[::-1], 0, -1))
    return path


def test_a_generated_client_predicts_and_follows_a_job(
    served: str, town: Path, tmp_path: Path
) -> None:
    made = subprocess.run(
        [GENERATOR, "generate", "--url", f"{served}/openapi.json", "--output-path",
         tmp_path / "client", "--meta", "none"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stderr
    used = subprocess.run(
        [sys.executable, "-c", USE, served, town], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert used.returncode == 0, used.stderr
    answer = json.loads(used.stdout)
    assert answer["buildings"] == answer["features"] > 0
    assert answer["geometry"] == "Polygon"
    assert answer["bands"] == ["red", "green", "blue"]
    assert answer["problem"][0] == 422
    assert "none of the supported image formats" in answer["problem"][1]
    assert answer["job"] == ["done", answer["buildings"]]
    assert answer["listed"]
    assert "run.json" in answer["files"]
    assert answer["zip"] == "PK"
    assert answer["cancelled"] == 409
    assert answer["backend"]["status"] == "UP"
