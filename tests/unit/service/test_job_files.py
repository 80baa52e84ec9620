"""Result files of a job for clients."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rooftrace.predict.plan import SceneOptions
from rooftrace.service.job_runner import (
    list_results,
    path_of,
    publish_record,
    without_paths,
    zipped,
)
from rooftrace.service.job_store import Job

JOB = Job(1, "0" * 32, "Häuser (1).tif", "running", SceneOptions(), "scene.tif", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    (results / "folder").mkdir(parents=True)
    (results / "scene_mask.tif").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    (results / "scene_buildings.gpkg").write_bytes(b"rows " * 500_000)
    (results / "scene_density.png").write_bytes(b"")
    (results / ".scene_mask.17.part.tif").write_bytes(b"half")
    (results / "passwd").symlink_to("/etc/passwd")
    record = {
        "inputs": [str(tmp_path / "scene.tif")],
        "bundle": {"file": str(tmp_path.parent / "model.rooftrace"), "name": "m"},
        "outputs": [{"mask": str(results / "scene_mask.tif")}],
    }
    (results / "run.json").write_text(json.dumps(record))
    publish_record(tmp_path, JOB)
    return tmp_path


def test_the_record_names_no_folder_of_this_machine(folder: Path) -> None:
    text = (folder / "run.json").read_text()
    assert str(folder.parent) not in text
    assert json.loads(text) == {
        "inputs": ["Häuser (1).tif"],
        "bundle": {"file": "model.rooftrace", "name": "m"},
        "outputs": [{"mask": "scene_mask.tif"}],
    }
    assert path_of(folder, "run.json") == folder / "run.json"


def test_sentences_name_no_folder_of_this_machine(folder: Path) -> None:
    text = without_paths(
        f"{folder}/scene.tif is torn; see {folder} and {folder}/results/a.", folder, JOB
    )
    assert text == "Häuser (1).tif is torn; see the job's folder and a."


def test_what_is_handed_out(folder: Path) -> None:
    names = [file.name for file in list_results(folder)]
    assert names == ["run.json", "scene_buildings.gpkg", "scene_density.png", "scene_mask.tif"]


def test_a_zip_is_made_as_it_is_read(folder: Path) -> None:
    files = list_results(folder)
    chunks = list(zipped([path_of(folder, file.name) for file in files]))
    # The zip is never in memory as a whole.
    assert max(map(len, chunks)) < 2**20 + 2**16
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.testzip() is None
        for file in files:
            assert archive.read(file.name) == path_of(folder, file.name).read_bytes()
            assert archive.getinfo(file.name).file_size == file.size
        kinds = {one.filename: one.compress_type for one in archive.infolist()}
    assert kinds["scene_mask.tif"] == zipfile.ZIP_STORED
    assert kinds["scene_buildings.gpkg"] == zipfile.ZIP_DEFLATED
