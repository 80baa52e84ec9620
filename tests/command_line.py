"""The real command line, run in the process of the tests."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import pytest


class Finished(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def command(*arguments: object) -> Finished:
    """Run a command and return its exit code and what it printed."""
    from rooftrace.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    assert isinstance(stopped.value.code, int)
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return Finished(stopped.value.code, *texts)


def call(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Run a command with `--json` and return its exit code and the object that it printed."""
    done = command(*arguments, "--json")
    return done.code, done.json
