"""Verbs that write files keep their promises when a fault hits them; see docs/security.md.

Each verb runs as the real command in a process of its own. A fault is caused at several of the
moments at which the command opens, renames or removes a file of its results.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raster_files import write_geotiff
from rooftrace.io.files import locked
from tiny_models import write_tiny_bundle

pytest.importorskip("resource")

pytestmark = pytest.mark.campaign

PROGRAM = Path(__file__).parents[1] / "fault_program.py"
Undisturbed = Callable[[str], tuple[dict[str, bytes], int]]

VERBS = ("predict", "catalogue", "vectorize", "density")
RESUMABLE = ("predict", "catalogue")


@dataclass(frozen=True)
class Work:
    """Inputs of all verbs in a folder, which tests copy."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def input(self, verb: str) -> Path:
        return self.folder / {"predict": "in/a.tif", "catalogue": "in/b.tif"}.get(verb, "mask.tif")

    def arguments(self, verb: str, out: Path | None = None) -> list[str]:
        out = out or self.out
        model, given = str(self.folder / "tiny.rooftrace"), str(self.input(verb))
        return {
            "predict": ["predict", given, "-m", model, "-o", str(out), "--cell", "50"],
            "catalogue": ["catalogue", str(self.folder / "in"), "-m", model, "-o", str(out)],
            "vectorize": ["vectorize", given, "-o", str(out / "houses.gpkg")],
            "density": ["density", given, "-o", str(out / "area"), "--cell", "50"],
        }[verb]

    def case(self, verb: str, fault: str = "", at: int = 0, **more: Any) -> dict[str, Any]:
        given = {"input": str(self.input(verb)), "other": str(self.folder / "other.tif")}
        return {
            "arguments": self.arguments(verb), "watch": str(self.out), "fault": fault, "at": at,
            **given, **more,
        }  # fmt: skip

    def run(self, verb: str, fault: str = "", at: int = 0, **more: Any) -> dict[str, Any]:
        return run([self.case(verb, fault, at, **more)])[0]

    def results(self) -> dict[str, bytes]:
        """Return the results without the records of a run, which hold times."""
        return {
            str(file.relative_to(self.out)): file.read_bytes()
            for file in sorted(self.out.rglob("*"))
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(self.out).parts)
            and file.name not in ("run.json", "manifest.json")
        }

    def leftovers(self) -> list[str]:
        return [file.name for file in self.out.glob(".*") if not file.name.startswith(".rooftrace")]


def run(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], input=json.dumps(cases), capture_output=True, text=True,
        check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def write_scene(path: Path, seed: int) -> Path:
    """Write squares of 18 px, half of them across the edges of blocks."""
    path.parent.mkdir(exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 34, 34), dtype=np.uint8)
    data = np.kron(coarse, np.ones((1, 18, 18), np.uint8))
    return write_geotiff(path, data, nodata=0, tiled=True, compress="deflate")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    write_tiny_bundle(folder / "tiny.rooftrace", input_multiple_px=32, context_px=8)
    for seed, name in enumerate(("in/a.tif", "in/b.tif", "other.tif")):
        write_scene(folder / name, seed)
    work = Work(folder)
    done = work.run("predict")
    assert done["code"] == 0, done
    (work.out / "a_mask.tif").rename(folder / "mask.tif")
    shutil.rmtree(work.out)
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path) -> Undisturbed:
    """Return results and number of writes of a verb, which runs once for all tests."""

    @cache
    def of(verb: str) -> tuple[dict[str, bytes], int]:
        work = Work(inputs)
        done = work.run(verb)
        assert done["code"] == 0, done
        found = work.results(), done["writes"]
        assert found[0]
        shutil.rmtree(work.out)
        return found

    return of


@pytest.fixture
def work(inputs: Path, tmp_path: Path) -> Work:
    """A copy of the inputs, with their times of change."""
    shutil.copytree(inputs, tmp_path / "work")
    return Work(tmp_path / "work")


def moments(writes: int, count: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(1, writes, count).tolist()})


def check_error(done: dict[str, Any], *codes: int) -> dict[str, str]:
    """Check that a command ended with an error of the tree; return the error."""
    assert done["code"] in codes, done
    assert "Traceback" not in done["err"]
    error: dict[str, str] = json.loads(done["out"])["error"]
    assert error["message"]
    assert error["remedy"]
    return error


def stopped_at(work: Work, verb: str, fault: str, at: int, expected: dict[str, bytes]) -> None:
    """Stop a verb at a write, check what stands there, and run it again."""
    done = work.run(verb, fault, at)
    assert done["code"] == {"kill": -9, "interrupt": 130}[fault], done
    assert "Traceback" not in done["err"]
    for name, data in work.results().items():
        assert data == expected[name], f"{name} is not complete"
    if fault == "interrupt":
        assert "stopped" in done["err"]
        assert not work.leftovers()
    again = work.run(verb)
    assert again["code"] == 0, again
    assert work.results() == expected
    if verb in RESUMABLE:
        assert not work.leftovers()
    shutil.rmtree(work.out)


@pytest.mark.parametrize("fault", ["kill", "interrupt"])
@pytest.mark.parametrize("verb", VERBS)
def test_stopped_at_any_write_results_are_complete_or_absent_and_the_same_command_ends_the_work(
    verb: str, fault: str, work: Work, undisturbed: Undisturbed
) -> None:
    expected, writes = undisturbed(verb)
    for at in moments(writes, 6):
        stopped_at(work, verb, fault, at, expected)


@pytest.mark.parametrize("most_bytes", [1, 3000, 60_000])
@pytest.mark.parametrize("verb", VERBS)
def test_files_that_may_not_grow_are_an_error_without_a_traceback(
    verb: str, most_bytes: int, work: Work, undisturbed: Undisturbed
) -> None:
    done = work.run(verb, most_bytes=most_bytes)
    error = check_error(done, 5)
    assert "space" in error["remedy"], error
    expected = undisturbed(verb)[0]
    for name, data in work.results().items():
        assert data == expected[name], f"{name} is not complete"
    assert work.run(verb)["code"] == 0
    assert work.results() == expected


@pytest.mark.parametrize("verb", VERBS)
def test_an_input_that_vanishes_is_an_error_or_its_results_are_complete(
    verb: str, work: Work, undisturbed: Undisturbed
) -> None:
    expected, writes = undisturbed(verb)
    path = work.input(verb)
    for at in moments(writes, 3):
        done = work.run(verb, "vanish", at)
        if done["code"]:
            check_error(done, 3)
        for name, data in work.results().items():
            if verb != "catalogue":
                assert data == expected[name], f"{name} is not complete"
        Path(f"{path}.gone").rename(path)
        assert work.run(verb)["code"] == 0
        assert work.results() == expected
        shutil.rmtree(work.out)


@pytest.mark.parametrize("verb", RESUMABLE)
def test_an_input_that_changes_is_never_mixed_with_its_earlier_content(
    verb: str, work: Work, undisturbed: Undisturbed
) -> None:
    _, writes = undisturbed(verb)
    shutil.copy(work.folder / "other.tif", work.input(verb))
    done = work.run(verb)
    changed = work.results()
    shutil.rmtree(work.out)
    refused = 0
    for at in moments(writes, 4):
        write_scene(work.input(verb), 0 if verb == "predict" else 1)
        done = work.run(verb, "change", at)
        if done["code"] == 3 or json.loads(done["out"]).get("failed"):
            assert "was changed while it was predicted" in done["out"], done
            refused += 1
        # Without another change, the same command gives the results of the new content.
        done = work.run(verb)
        assert done["code"] == 0, done
        assert work.results() == changed
        shutil.rmtree(work.out)
    assert refused


@pytest.mark.parametrize("verb", RESUMABLE)
def test_a_second_run_into_the_same_folder_is_refused(verb: str, work: Work) -> None:
    folder = work.out / "scenes" if verb == "catalogue" else work.out
    with locked(folder / ".rooftrace.lock", str(folder)):
        error = check_error(work.run(verb), 5)
    assert "is being written to by process" in error["message"]
    assert work.run(verb)["code"] == 0


@pytest.mark.parametrize("verb", ["vectorize", "density"])
def test_two_runs_at_the_same_time_both_leave_complete_files(
    verb: str, work: Work, undisturbed: Undisturbed
) -> None:
    case = json.dumps([work.case(verb)])
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(case)
        process.stdin.close()
    for process in started:
        assert process.stdout is not None
        (done,) = json.loads(process.stdout.read())
        process.wait()
        process.stdout.close()
        assert done["code"] == 0, done
    assert work.results() == undisturbed(verb)[0]
    assert not work.leftovers()
