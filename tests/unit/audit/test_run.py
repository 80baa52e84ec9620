"""A set is measured completely, in order, and equally with any number of processes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rooftrace.audit.measure import measure_set
from rooftrace.labels import source as parallel
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 small pairs, of which the second image and the third mask cannot be read."""
    root = tmp_path_factory.mktemp("set")
    for part in ("images", "masks"):
        (root / part).mkdir()
    generator = np.random.default_rng(0)
    for number in range(70):
        name = f"{number:03d}.png"
        cv2.imwrite(str(root / "images" / name), generator.integers(0, 255, (24, 30, 3), np.uint8))
        mask = (generator.random((24, 30)) < number / 70).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / name), mask)
    (root / "images" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n not an image")
    cv2.imwrite(str(root / "masks" / "002.png"), np.full((24, 30), 9, np.uint8))
    return root


@pytest.mark.campaign
def test_processes_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(SourceConfig(path=str(folder)))
    alone = measure_set(source, workers=1)
    monkeypatch.setattr(parallel, "_TRIAL_S", 0.0)
    monkeypatch.setattr(parallel, "_WORTH_S", 0.0)
    monkeypatch.setattr(parallel, "_CHUNK", 8)
    monkeypatch.setattr(parallel, "_CHUNKS_AHEAD", 2)
    seen = []
    several = measure_set(source, workers=2, progress=lambda done, of: seen.append(done))
    assert repr(several) == repr(alone)
    assert seen == sorted(set(seen))
    assert seen[-1] == 70
    # Other processes measured some scenes.
    assert len(seen) < 70
