"""Chips cover the scene without loss or overlap, and share its group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rooftrace.core.types import Scene
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.derived import cut_into_chips
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet
from town import write_pairs


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneSet:
    folder = tmp_path_factory.mktemp("chips")
    write_pairs(folder, range(2), shape_yx=(70, 100), gsd_m=0.5)
    write_pairs(folder, [2], shape_yx=(64, 64), gsd_m=0.5, prefix="small")
    return open_source(SourceConfig(path=str(folder)))


def test_chips_that_follow_one_another_share_their_scene(scenes: SceneSet) -> None:
    opened: list[str] = []

    def open_scene(entry: SceneEntry) -> Scene:
        opened.append(entry.id)
        return scenes.open_scene(entry)

    chips = cut_into_chips(replace(scenes, open_scene=open_scene), 32)
    opened.clear()
    assert len(list(chips)) == 2 * 12 + 4
    assert opened == ["small_00002", "synthetic_00000", "synthetic_00001"]
