"""A pull that a server or a disk disturbs is a clear error, loses nothing, and can be repeated."""

import json
from pathlib import Path

import pytest

from fake_labelstudio import PNG, TOKEN, Answer, FakeServer, export_of
from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.flows.label import PullReport, run_pull
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.labelstudio_client import LabelStudio

EXPORT = "/api/projects/1/export"
NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def project(fake: FakeServer) -> FakeServer:
    """A project with three uploaded images."""
    fake.says("/api/projects/1", {"id": 1})
    fake.says(EXPORT, export_of(*(f"/data/upload/1/{name}" for name in NAMES)))
    for name in NAMES:
        fake.answers[f"/data/upload/1/{name}"] = (200, PNG, {})
    return fake


def pull(server: FakeServer, out: Path) -> PullReport:
    return run_pull(LabelStudio(server.url, TOKEN), "1", out)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check_repeated(server: FakeServer, out: Path, *, downloaded: int) -> None:
    """Check that the same pull ends the work, and downloads only what is not there."""
    report = pull(server, out)
    assert (report.tasks, report.downloaded, report.notes) == (3, downloaded, ())
    assert {*files(out)} == {
        "tasks.json", "rooftrace.toml", *(f"tasks_images/{name}" for name in NAMES)
    }  # fmt: skip
    assert len(open_source(SourceConfig(path=str(out))).unlabelled) == 3


BROKEN: dict[str, tuple[Answer, str]] = {
    "cut": ((200, b'[{"id": 1', {"Content-Length": "9999"}), "received 9 bytes"),
    "cut json": ((200, b'[{"id": 1', {}), "the export of project 1 .* is not JSON"),
    "page": ((200, b"<html>Sign in</html>", {}), "the export of project 1 .* is not JSON"),
    "no list": ((200, b'{"detail": "busy"}', {}), "contains an object; expected a list of tasks"),
    "no task": ((200, b"[1]", {}), "the export of project 1 .*, task 1"),
    "500": ((500, b"", {}), "with the status 500"),
    "502": ((502, b"<html>Bad gateway</html>", {}), "with the status 502"),
}


@pytest.mark.parametrize(("answer", "said"), BROKEN.values(), ids=BROKEN)
def test_an_export_that_fails_leaves_the_earlier_one(
    project: FakeServer, tmp_path: Path, answer: Answer, said: str
) -> None:
    out = tmp_path / "out"
    pull(project, out)
    before, good = files(out), project.answers[EXPORT]
    project.answers[EXPORT] = answer
    with pytest.raises(DataError, match=said) as raised:
        pull(project, out)
    assert raised.value.remedy
    assert ".part" not in raised.value.message
    assert files(out) == before
    project.answers[EXPORT] = good
    check_repeated(project, out, downloaded=0)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((200, PNG[:20], {"Content-Length": str(len(PNG))}), DataError, "received 20 bytes"),
        ((500, b"", {}), DataError, "with the status 500"),
        ((404, b"", {}), ConfigError, "has no /data/upload/1/b.png"),
    ],
)
def test_an_image_that_fails_keeps_the_others(
    project: FakeServer, tmp_path: Path, answer: Answer, kind: type[RooftraceError], said: str
) -> None:
    out = tmp_path / "out"
    project.answers["/data/upload/1/b.png"] = answer
    with pytest.raises(kind, match=said) as raised:
        pull(project, out)
    assert raised.value.remedy
    assert {*files(out)} == {"tasks.json", "tasks_images/a.png"}
    assert len(json.loads((out / "tasks.json").read_text())) == 3
    project.answers["/data/upload/1/b.png"] = (200, PNG, {})
    check_repeated(project, out, downloaded=2)
