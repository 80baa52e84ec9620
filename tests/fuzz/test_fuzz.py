"""Readers of files end in a result or in an error of ours.

`make test` tries a few mutated files for each reader; `make fuzz MINUTES=60 ONLY=coco` tries new
ones for some minutes. Each is written to `build/fuzz/READER/` before it is read, and stays there if
it breaks the reader or ends the process.
"""

import faulthandler
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import fuzz_files
import fuzz_images
import fuzz_labels
import fuzz_models
import numpy as np
import pytest
from fuzz_target import Target

from rooftrace.core.errors import RooftraceError

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests/fuzz_corpus"
"""Inputs that once broke a reader, as READER/KIND/input/NAME; each is the smallest found."""

MINUTES = float(os.environ.get("FUZZ_MINUTES", 0))
SEED = int(os.environ.get("FUZZ_SEED", 0))
TRIES = 12
"""Number of mutated files that are tried where no minutes are given."""

_GROUPS = (fuzz_images, fuzz_models, fuzz_labels, fuzz_files)
TARGETS = {target.name: target for group in _GROUPS for target in group.TARGETS}

SLOW = ("bundle",)


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.campaign] if n in SLOW else []) for n in TARGETS]
)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def read(target: Target, name: str, data: bytes, folder: Path) -> bool:
    """Read an input in an empty folder; return whether it was accepted, not refused."""
    place = Path(tempfile.mkdtemp(dir=folder))
    for path, content in {**target.fixed, name: data}.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    faulthandler.dump_traceback_later(target.seconds, exit=True)
    try:
        target.read(place / name)
    except RooftraceError:
        return False
    finally:
        faulthandler.cancel_dump_traceback_later()
        shutil.rmtree(place, ignore_errors=True)
    return True


def mutants(target: Target) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(SEED)
    seeds = list(target.seeds.items())
    started, number = time.monotonic(), 0
    while time.monotonic() < started + 60 * MINUTES if MINUTES else number < TRIES:
        name, data = seeds[int(rng.integers(0, len(seeds)))]
        yield name, target.mutate(rng, name, data, [other for _, other in seeds])
        number += 1


@pytest.mark.filterwarnings("ignore")
def test_valid_files_are_accepted(target: Target, tmp_path: Path) -> None:
    for name, data in target.seeds.items():
        assert read(target, name, data, tmp_path), name


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_end_in_a_result_or_an_error(target: Target, tmp_path: Path) -> None:
    for name, data in mutants(target):
        kept = ROOT / "build/fuzz" / target.name / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)
        read(target, name, data, tmp_path)
        kept.unlink()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=f"{path.relative_to(CORPUS).parts[0]}/{path.parents[1].name}")
        for path in sorted(CORPUS.glob("*/*/input/*"))
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_past_finding_ends_in_a_result_or_an_error(path: Path, tmp_path: Path) -> None:
    read(TARGETS[path.relative_to(CORPUS).parts[0]], path.name, path.read_bytes(), tmp_path)
