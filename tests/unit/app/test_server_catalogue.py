"""The results that the map of a server shows: given folders, and jobs that are done."""

from __future__ import annotations

from pathlib import Path

from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.jobs.store import JobStore


def add(store: JobStore, name: str) -> str:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").touch()
    job = store.add(job_id, name, "scene.tif", 64, SceneOptions())
    store.claim()
    store.results(job_id).mkdir()
    store.finish(job_id, {"buildings": 1, "pixels": 64}, [])
    return job.id


def test_a_given_folder_may_be_called_as_jobs_are(store: JobStore, tmp_path: Path) -> None:
    folder = tmp_path / "job-results"
    folder.mkdir()
    job = f"job-{add(store, 'town.tif')}"
    catalogue = ResultsCatalogue([folder], store)
    assert [one.id for one in catalogue.entries()] == ["job-results", job]
    assert [catalogue.find(id).path for id in ("job-results", job)] == [  # noqa: A001
        folder, store.results(job.removeprefix("job-"))
    ]  # fmt: skip
