"""A folder belongs to one training at a time, and a resumed run keeps the epochs that it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from command_line import call
from rooftrace.io.files import locked

FAST = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def arguments(folder: Path, run: Path, *sets: str, resume: bool = False) -> list[str]:
    options = [text for one in (FAST, *sets) for text in ("--set", one)]
    return ["train", str(folder / "tiny.toml"), "-o", str(run), *options, *["--resume"] * resume]


@pytest.mark.campaign
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_another_process_trains_in_is_refused(
    tiny_folder: Path, tmp_path: Path, *, resume: bool
) -> None:
    run = tmp_path / "run"
    with locked(run / ".rooftrace.lock", str(run)):
        before = {path.name for path in run.iterdir()}
        code, answer = call(*arguments(tiny_folder, run, resume=resume))
        assert code == 5
        assert f"{run} is being written to by process {os.getpid()}" in answer["error"]["message"]
        assert {path.name for path in run.iterdir()} == before
