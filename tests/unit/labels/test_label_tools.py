"""Exports of label tools and downloaded data sets are read right without an option."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from label_samples import DOWNLOADS, NAMES, TOOLS, truth
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet

LEAST_IOU = 0.995
COCO_IOU = 0.975
"""pycocotools colours the pixels that an outline touches at its left and upper side."""


def scores(source: SceneSet) -> dict[str, float]:
    """Return the IoU of each labelled scene with the truth, by the name of its chip."""
    found = {}
    for scene in pickle.loads(pickle.dumps(source)):
        name = next(name for name in NAMES if name in scene.id)
        mask = scene.label.read()
        assert mask.valid.all()
        both, either = mask.data & truth(name), mask.data | truth(name)
        found[name] = both.sum() / either.sum() if either.any() else 1.0
    return found


@pytest.mark.parametrize("name", [*TOOLS, *DOWNLOADS])
def test_what_lies_on_the_disk_is_read(name: str, tmp_path: Path) -> None:
    path = {**TOOLS, **DOWNLOADS}[name](tmp_path / "data")
    source = open_source(SourceConfig(path=str(path)))
    found = scores(source)
    least = COCO_IOU if source.kind == "coco" else LEAST_IOU
    assert sorted(found) == sorted(NAMES), source.unlabelled
    assert min(found.values()) >= least, found
    assert len(source) == len(NAMES)
