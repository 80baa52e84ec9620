"""The real command line, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rooftrace.cli import main
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.models.bundle import write_bundle

Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with `--json`: its exit code and what it prints."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments), "--json"])
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that calls bright pixels buildings."""
    tiny = tiny_bundle()
    path = tmp_path_factory.mktemp("model") / "tiny.rooftrace"
    write_bundle(path, tiny.spec, tiny.parts)
    return path
