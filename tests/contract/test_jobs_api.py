"""/v1/jobs over HTTP, with real uploads and processes."""

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from jobs_server import GATED_CHILD, JobGate, jobs_app, write_model, write_town
from local_server import PATIENCE_S, serving_app, wait_until
from rooftrace.core.types import ResultProvenance
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.decode import Limits

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_town(tmp_path_factory.mktemp("town") / "Häuser.tif", 700)


@pytest.fixture(scope="module")
def app(model: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Return an app that accepts uploads of 2 MB and a million pixels."""
    limits = Limits(job_upload_bytes=2_000_000, job_pixels=10**6)
    return jobs_app(tmp_path_factory.mktemp("jobs"), model, limits)


@pytest.fixture(scope="module")
def server(app: FastAPI) -> Iterator[httpx.Client]:
    with serving_app(app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def gated(model: Path, tmp_path: Path) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """Serve jobs that stop at a `JobGate`, of which two may wait."""
    command = (sys.executable, "-c", GATED_CHILD)
    app = jobs_app(tmp_path / "jobs", model, Limits(jobs_waiting=2), command=command)
    with serving_app(app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield client, app


def begin(client: httpx.Client, town: Path, **asked: Any) -> dict[str, Any]:
    with town.open("rb") as file:
        answer = client.post("/v1/jobs", files={"file": ("Häuser.tif", file)}, params=asked)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    return job


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job after its end."""
    now: dict[str, Any] = job

    def is_over() -> bool:
        nonlocal now
        now = client.get(job["links"]["self"]).json()
        return now["state"] not in ("queued", "running")

    wait_until(is_over, "the job ends")
    return now


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    return problem


def test_a_job_from_upload_to_files(
    server: httpx.Client, town: Path, model: Path, tmp_path: Path
) -> None:
    job = begin(server, town, min_area=5, cell=50)
    assert (job["state"], job["name"]) == ("queued", "Häuser.tif")
    assert job["options"]["min_area_m2"] == 5
    done = ended(server, job)
    assert (done["state"], done["progress"]["share"]) == ("done", 1)
    assert done["figures"]["buildings"] == done["progress"]["buildings"] > 100
    # The results of a job name its image as the client does.
    inputs = find_inputs([town], provenance=ResultProvenance(image="Häuser.tif"))
    run_predict(inputs, read_models(model), tmp_path, SceneOptions(min_area_m2=5, cell_m=50))
    expected = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name != "run.json"}
    listed = server.get(job["links"]["results"]).json()
    found = {file["name"]: server.get(file["url"]).content for file in listed["files"]}
    record = json.loads(found.pop("run.json"))
    assert found == expected
    assert {f["name"]: f["bytes"] for f in listed["files"] if f["name"] in found} == {
        name: len(data) for name, data in expected.items()
    }
    assert record["inputs"] == ["Häuser.tif"]
    figures, known = done["figures"], record["figures"][0]
    for name in ("buildings", "built_up_share", "gsd_m", "threshold", "valid_pixels", "classes"):
        assert figures[name] == known[name]
    assert figures["density"] == ("dense" if figures["built_up_share"] >= 0.2 else "sparse")
    answer = server.get(listed["archive"])
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in expected} == expected
    assert f'"{job["id"]}.zip"' in answer.headers["content-disposition"]
    assert answer.headers["content-disposition"].endswith("H%C3%A4user_results.zip")
    changed = {"bands": "3,2,1", "min_area_m2": None}
    again = server.post(f"{job['links']['self']}/again", json={**changed, "cell": 50.0})
    assert again.status_code == 202, again.text
    other = ended(server, again.json())
    assert (other["state"], other["name"]) == ("done", "Häuser.tif")
    assert other["options"] == {**done["options"], **changed, "cell_m": 50.0}
    assert other["figures"]["buildings"] >= done["figures"]["buildings"]
    server.delete(other["links"]["self"])
    assert server.get(listed["files"][0]["url"]).status_code == 200
    everything = json.dumps([done, listed, record])
    assert "/tmp" not in everything
    assert str(tmp_path.parent) not in everything


def test_parts_of_a_file(server: httpx.Client, town: Path) -> None:
    job = begin(server, town, outputs=["mask"])
    ended(server, job)
    url = f"{job['links']['results']}/Häuser_mask.tif"
    whole = server.get(url).content
    part = server.get(url, headers={"Range": "bytes=10-99"})
    assert (part.status_code, part.content) == (206, whole[10:100])
    assert part.headers["content-range"] == f"bytes 10-99/{len(whole)}"
    beyond = server.get(url, headers={"Range": "bytes=99999999-"})
    assert problem_of(beyond, 416)["detail"].endswith(f"bytes */{len(whole)}.")
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"
    problem_of(server.get(url, headers={"Range": "bytes=x"}), 400)
    for name in ("scene.tif", "../scene.tif", "..%2fscene.tif", ".lock", "answer.json", "log.txt"):
        problem_of(server.get(f"{job['links']['results']}/{name}"), 404)
    names = [file["name"] for file in server.get(job["links"]["results"]).json()["files"]]
    assert names == ["Häuser_mask.qml", "Häuser_mask.tif", "run.json"]


def test_what_is_refused_leaves_nothing(server: httpx.Client, app: FastAPI, town: Path) -> None:
    folder = app.state.store.folder
    before = {path.name for path in folder.iterdir()}
    data = town.read_bytes()
    raw = {"Content-Type": "application/octet-stream"}
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n'
    vrt = f"<VRTDataset><SourceFilename>{town}</SourceFilename></VRTDataset>".encode()
    noise = np.random.default_rng(0).bytes(2_000_001)
    cases: list[tuple[int, bytes | Iterator[bytes], dict[str, str], str]] = [
        (422, b"", raw, "is empty"),
        (422, b"no image", raw, "none of the supported image formats"),
        (422, vrt, raw, "none of the supported image formats"),
        (422, data[:150], raw, "image"),
        (413, noise, raw, "more than the 2,000,000 bytes"),
        # A chunked body has no announced length.
        (413, iter([noise[:1_000_000], noise[1_000_000:]]), raw, "more than the 2,000,000 bytes"),
        (413, head + noise + b"\r\n--x--\r\n", form, "more than the 2,000,000 bytes"),
        (415, data, {"Content-Type": "text/plain"}, "'text/plain'"),
        (415, data, {}, "no Content-Type"),
        (400, head + data, form, "breaks off"),
        (400, b"nonsense", form, "cannot be read"),
        (400, data, {"Content-Type": "multipart/form-data"}, "no boundary"),
        (422, b"--x--\r\n", form, "no field file"),
        (422, head.replace(b'"file"', b'"scene"') + b"\r\n--x--\r\n", form, "'scene'"),
        (422, head.replace(b'; filename="a.tif"', b"") + b"\r\n--x--\r\n", form, "is a string"),
        (422, head + data + b"\r\n" + head + b"\r\n--x--\r\n", form, "several files"),
        (400, head.replace(b"\r\n\r\n", b"\r\nX-Long: " + b"a" * 9999), form, "header size"),
    ]  # fmt: skip
    for status, body, headers, expected in cases:
        answer = server.post("/v1/jobs", content=body, headers=headers)
        assert expected in problem_of(answer, status)["detail"], (status, expected)
    for asked in ({"threshold": "2"}, {"thresold": "0.5"}, {"outputs": "all"}, {"gsd": "nan"}):
        problem_of(server.post("/v1/jobs", content=data, headers=raw, params=asked), 422)
    far = server.post("/v1/jobs", content=data, headers=raw, params={"gsd": 50})
    assert problem_of(far, 422)["type"] == "/problems/gsd-mismatch"
    wait_until(lambda: {path.name for path in folder.iterdir()} == before, "uploads are removed")


def test_progress_and_cancelling_of_a_running_job(
    gated: tuple[httpx.Client, FastAPI], town: Path
) -> None:
    client, app = gated
    store = app.state.store

    def pixels_done(job: dict[str, Any]) -> int:
        return int(client.get(job["links"]["self"]).json()["progress"]["pixels_done"])

    first = begin(client, town)
    wait_until(lambda: store.counts()["running"] == 1, "the first job runs")
    waiting, cancelled = begin(client, town), begin(client, town)
    full = client.post("/v1/jobs", content=b"x", headers={"Content-Type": "image/png"})
    assert "2 jobs are waiting" in problem_of(full, 429)["detail"]
    assert int(full.headers["Retry-After"]) >= 1
    conflict = client.get(first["links"]["results"])
    assert "finished" in problem_of(conflict, 409)["detail"]
    answer = client.post(f"{cancelled['links']['self']}/cancel")
    assert answer.json()["state"] == "cancelled"
    problem_of(client.post(f"{cancelled['links']['self']}/cancel"), 409)
    gate = JobGate(store.folder_of(first["id"]))
    for _ in range(3):
        before = pixels_done(first)
        gate.step_until(lambda: pixels_done(first) > before, "progress")  # noqa: B023
    gate.open()
    assert ended(client, first)["state"] == "done"
    JobGate(store.folder_of(waiting["id"])).step_until(
        lambda: pixels_done(waiting) > 0, "progress of the second job"
    )
    client.post(f"{waiting['links']['self']}/cancel")
    assert ended(client, waiting)["state"] == "cancelled"
    folder = store.folder_of(waiting["id"])
    wait_until(lambda: [one.name for one in folder.iterdir()] == ["job.json"], "files are removed")


PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def test_the_client_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    write_town(tmp_path / "scene.tif", 300)
    monkeypatch.chdir(tmp_path)
    app = jobs_app(tmp_path / "jobs", write_model(tmp_path))
    with serving_app(app) as url:
        assert 'SERVER = "http://127.0.0.1:8000"' in code
        exec(compile(code.replace("http://127.0.0.1:8000", url), PAGE.name, "exec"), {})
        printed = capsys.readouterr().out.splitlines()
        assert "done 100%" in printed
        found = gpd.read_file(tmp_path / "from-server" / "scene" / "scene_buildings.gpkg")
        assert int(printed[-1]) == len(found) > 0
        assert found["area_m2"].min() >= 10
        assert app.state.store.newest(9) == []
        # What goes wrong is said in the server's words.
        (tmp_path / "scene.tif").write_text("no image")
        with pytest.raises(
            RuntimeError, match=r"scene\.tif has none of the supported image formats.* Send a"
        ):
            exec(compile(code.replace("http://127.0.0.1:8000", url), PAGE.name, "exec"), {})
