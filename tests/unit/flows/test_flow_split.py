"""A split is written once, by image or by group, and read by training and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.config import SourceConfig
from rooftrace.data.split import read_split
from rooftrace.flows.split import run_split


@pytest.fixture
def grouped(tmp_path: Path) -> SourceConfig:
    for group, count in (("oslo", 6), ("bergen", 3), ("tromso", 3)):
        for number in range(count):
            for part in ("images", "masks"):
                path = tmp_path / "data" / group / part / f"{group}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return SourceConfig(path=str(tmp_path / "data"))


def places(ids: tuple[str, ...]) -> set[str]:
    return {i.split("/")[0] for i in ids}


def test_by_group(grouped: SourceConfig, tmp_path: Path) -> None:
    for seed in range(4):
        made = run_split(grouped, tmp_path / "s.json", val=0.25, test=0.25, by="group", seed=seed)
        assert read_split(tmp_path / "s.json") == made
        assert [len(places(made.parts[p])) for p in ("train", "val", "test")] == [1, 1, 1]
        assert sum(len(ids) for ids in made.parts.values()) == 12


def test_by_pattern(grouped: SourceConfig, tmp_path: Path) -> None:
    made = run_split(
        grouped, tmp_path / "s.json", val=0.25, test=0.25, by="group", group_pattern="_([0-9])$"
    )
    numbers = [{i[-1] for i in ids} for ids in made.parts.values()]
    assert sum(len(found) for found in numbers) == 6
    with pytest.raises(ConfigError, match="--group-pattern was given, but the split is by image"):
        run_split(grouped, tmp_path / "s.json", val=0.1, test=0.1, group_pattern="(a)")


def test_one_folder_is_no_groups(grouped: SourceConfig, tmp_path: Path) -> None:
    one = SourceConfig(path=f"{grouped.path}/oslo")
    with pytest.raises(DataError, match="are in one group") as caught:
        run_split(one, tmp_path / "s.json", val=0.2, test=0.2, by="group")
    assert "--group-pattern" in caught.value.remedy
    assert not (tmp_path / "s.json").exists()
    assert len(run_split(one, tmp_path / "s.json", val=0.2, test=0.2).parts["train"]) == 4
