"""Versions of the model: proposed, taken, kept over a restart, and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.labels.split import Split, read_split, write_split
from rooftrace.models.bundle import ModelBundle, read_bundle, write_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service.jobs.job import HELD_OUT, START, Job, JobStateError
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.service import Service
from rooftrace.service.versions import ModelVersions

OWN = tiny_bundle()
MINUTES = 1.0


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service(Predictor(OWN, PointwiseEngine()))
    yield made
    made.close()


def begin(versions: ModelVersions) -> Job:
    return versions.start("out", "the review", lambda *_: None)


def trained(
    store: JobStore, versions: ModelVersions, verdict: str = "better", scenes: int = 8,
    job: Job | None = None,
) -> Job:  # fmt: skip
    """Return a training that is done, as its process leaves it."""
    job = job or begin(versions)
    assert store.claim(training=True) is not None
    folder = store.folder_of(job.id)
    start = read_bundle(folder / START)
    results = folder / "results"
    results.mkdir()
    assert job.training is not None
    spec = start.spec.model_copy(
        update={"name": job.training.name, "threshold": 0.3 + job.number / 50}
    )
    made = write_bundle(results / "model.rooftrace", spec, start.parts)
    write_split(results / "split.json", Split(parts={"train": ("a",), "val": (f"{job.number}",)}))
    store.finish(job.id, {"version": made.version, "verdict": verdict, "scenes": scenes}, [])
    done = store.get(job.id)
    assert done is not None
    return done


def version_of(job: Job) -> str:
    assert job.figures is not None
    return str(job.figures["version"])


def in_use(versions: ModelVersions) -> str:
    return versions.predictor.bundle.version


def test_versions_are_taken_and_taken_back(store: JobStore, service: Service) -> None:
    versions = ModelVersions(service, store, MINUTES)
    first = trained(store, versions)
    assert in_use(versions) == OWN.version
    versions.take(first)
    assert in_use(versions) == version_of(first) != OWN.version
    assert in_use(versions).startswith("brightness-review-")
    # The next training starts from it, and holds out the same images.
    second = trained(store, versions, "worse")
    assert second.training is not None
    assert second.training.start == version_of(first)
    held_out = read_split(store.folder_of(second.id) / HELD_OUT)
    assert held_out.parts["val"] == (f"{first.number}",)
    versions.take(second)
    versions.take(second)
    # A restart keeps both steps.
    again = ModelVersions(service, store, MINUTES)
    assert in_use(again) == version_of(second)
    again.go_back()
    assert in_use(again) == version_of(first)
    again.go_back()
    assert in_use(again) == OWN.version
    with pytest.raises(JobStateError, match="there is no earlier version"):
        again.go_back()
    assert in_use(ModelVersions(service, store)) == OWN.version
    assert [job.id for job in again.trainings()] == [second.id, first.id]


def test_a_training_knows_the_one_before(store: JobStore, service: Service) -> None:
    versions = ModelVersions(service, store, MINUTES)
    prepared: list[Path | None] = []
    first = versions.start("out", "review", lambda _, earlier: prepared.append(earlier))
    assert begin(versions) == versions.training_on("out") == first
    assert versions.training_on("other") is None
    first = trained(store, versions, job=first)
    # New jobs use a version only once it is taken; the server's own model stays as it is.
    assert versions.served_id == ""
    versions.take(first)
    assert versions.served_id == first.id
    assert service.predictor.bundle.version == OWN.version
    versions.start("out", "review", lambda _, earlier: prepared.append(earlier))
    assert prepared == [None, store.folder_of(first.id)]


def test_what_has_no_version_is_not_taken(store: JobStore, service: Service) -> None:
    versions = ModelVersions(service, store, MINUTES)
    with pytest.raises(JobStateError, match="is queued; only a training that is done"):
        versions.take(begin(versions))
    assert in_use(versions) == OWN.version


def test_a_version_that_is_damaged_or_of_another_model_is_not_used(
    store: JobStore, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    versions = ModelVersions(service, store, MINUTES)
    job = trained(store, versions)
    versions.take(job)
    other = Service(Predictor(renamed(OWN), PointwiseEngine()))
    of_other = ModelVersions(other, store, MINUTES)
    assert in_use(of_other) == renamed(OWN).version
    assert of_other.trainings() == []
    with pytest.raises(JobStateError, match="was made from another model"):
        of_other.take(job)
    other.close()
    (store.results(job.id) / "model.rooftrace").write_bytes(b"torn")
    assert in_use(ModelVersions(service, store)) == OWN.version
    assert "so the own model is" in caplog.text


def renamed(bundle: ModelBundle) -> ModelBundle:
    spec = bundle.spec.model_copy(update={"name": "other"})
    return ModelBundle(spec, bundle.parts, bundle.source)


def test_a_server_that_does_not_train(store: JobStore, service: Service, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="This server does not train models"):
        begin(ModelVersions(service, store))
    with pytest.raises(ConfigError, match="This server does not train models"):
        begin(ModelVersions(service))
    assert store.newest(9) == []
