"""A set is measured whole, in order, and alike on any number of processes."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from rooftrace.core.errors import DataError
from rooftrace.core.types import Scene
from rooftrace.data import parallel
from rooftrace.data.audit.run import measure_set
from rooftrace.data.config import SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.data.source import Entry, SceneSet


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 small pairs: the second image cannot be read, nor the third mask."""
    root = tmp_path_factory.mktemp("set")
    for part in ("images", "masks"):
        (root / part).mkdir()
    generator = np.random.default_rng(0)
    for number in range(70):
        name = f"{number:03d}.png"
        cv2.imwrite(str(root / "images" / name), generator.integers(0, 255, (24, 30, 3), np.uint8))
        mask = (generator.random((24, 30)) < number / 70).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / name), mask)
    (root / "images" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    cv2.imwrite(str(root / "masks" / "002.png"), np.full((24, 30), 9, np.uint8))
    return root


def test_what_cannot_be_read_stops_nothing(folder: Path) -> None:
    source = open_source(SourceConfig(path=str(folder)))
    seen = []
    facts = measure_set(source, workers=1, progress=lambda done, of: seen.append((done, of)))
    assert tuple(f.id for f in facts) == source.ids
    assert seen == [(n, 70) for n in range(1, 71)]
    assert [f.id for f in facts if f.image_error] == ["001"]
    assert [f.id for f in facts if f.label_error] == ["002"]
    assert all(f.label is not None for f in facts[3:])
    assert facts[1].image.endswith("001.png")


def test_processes_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(SourceConfig(path=str(folder)))
    alone = measure_set(source, workers=1)
    monkeypatch.setattr(parallel, "_ALONE_S", 0.0)
    monkeypatch.setattr(parallel, "_WORTH_S", 0.0)
    monkeypatch.setattr(parallel, "_CHUNK", 8)
    monkeypatch.setattr(parallel, "_AHEAD", 2)
    seen = []
    several = measure_set(source, workers=2, progress=lambda done, of: seen.append(done))
    assert repr(several) == repr(alone)
    assert seen == sorted(set(seen))
    assert seen[-1] == 70
    # Some were measured by others.
    assert len(seen) < 70


def _ends(entry: Entry) -> Scene:
    if entry.id == "a":
        raise DataError("a is not there.")
    os._exit(3)


def test_a_process_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_ALONE_S", 0.0)
    monkeypatch.setattr(parallel, "_WORTH_S", -1.0)
    source = SceneSet("s", "k", ("a", "b"), 1, (Entry("a", None), Entry("b", None)), _ends)
    with pytest.raises(DataError, match="ended by itself") as caught:
        measure_set(source, workers=2)
    assert "__main__" in caught.value.remedy


def test_nothing_is_nothing() -> None:
    assert measure_set(SceneSet("s", "k", ("a", "b"), 1, (), _ends)) == ()
