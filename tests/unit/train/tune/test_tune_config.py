"""A configuration for a study is checked before the first trial."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.train.config import TrainConfig
from rooftrace.train.tune.space import Tuning, read_tuning

BASE = """
epochs = 6
[optimizer]
lr = { low = 1e-4, high = 1e-1, log = true }
[data]
split = "split.json"
[[data.train]]
path = "data"
"""


def read(folder: Path, text: str = BASE, *overrides: str) -> Tuning:
    (folder / "space.toml").write_text(text, encoding="utf-8")
    return read_tuning(folder / "space.toml", overrides)


def test_a_folder_of_labelled_images_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; the path of a configuration"):
        read_tuning(tmp_path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimzer.lr={ low = 1e-4, high = 1e-3 }", "Did you mean 'optimizer'?"),
        ("optimizer.lrr={ low = 1e-4, high = 1e-3 }", "unknown key 'optimizer.lrr'"),
        ("optimizer.lr={ low = 0.0, high = 1e-3 }", "with optimizer.lr = 0.0: optimizer.lr:"),
        ('batch_size={ choices = [8, "many"] }', "with batch_size = 'many': batch_size:"),
        ('loss={ choices = ["ce", "dise"] }', "dise"),
        ("optimizer.lr={ low = 2, high = 1 }", "The search of optimizer.lr"),
        ("tune.pruner=medain", "tune.pruner"),
        ("tune.trials=3", "unknown key 'tune.trials'"),
        ("optimizer.lr=1e-3", "has no search space"),
        ("export.int8={ choices = [true, false] }", "does not depend on it"),
        ("workers={ low = 0, high = 2 }", "does not depend on it"),
        ("crop_px=8", "crop_px"),
    ],
)
def test_what_can_never_be_trained_is_said_at_once(
    tmp_path: Path, override: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, BASE, override)
    assert expected in str(raised.value)


def test_what_is_wrong_only_together_is_left_to_the_trial(tmp_path: Path) -> None:
    """A range of metres per pixel needs a model that has metres."""
    pair = ("gsd_m={ choices = [{}, 0.5] }", "augment.gsd_range_m={ choices = [{}, [0.3, 0.6]] }")
    tuning = read(tmp_path, BASE, *pair)
    fine = {"gsd_m": "0.5", "augment.gsd_range_m": "[0.3, 0.6]", "optimizer.lr": 1e-3}
    assert tuning.config(fine, source="trial").augment.gsd_range_m == (0.3, 0.6)
    with pytest.raises(ConfigError, match=r"trial_0001.*gsd_range_m needs gsd_m"):
        tuning.config({**fine, "gsd_m": "default"}, source="trial_0001")


def test_a_training_run_refuses_a_file_of_a_study() -> None:
    data = {"split": "split.json", "train": [{"path": "a"}]}
    with pytest.raises(ConfigError, match=r"optimizer.lr is a search space") as raised:
        parse_config({"optimizer": {"lr": {"low": 1, "high": 2}}}, TrainConfig, source="a.toml")
    assert "--trials" in raised.value.remedy
    with pytest.raises(ConfigError, match=r"\[tune\] holds settings of a study"):
        parse_config({"data": data, "tune": {"seed": 1}}, TrainConfig, source="a.toml")
    labels = {"classes": ["none", "low"], "building": "low", "values": {"none": 0, "low": 1}}
    named_low = {**data, "labels": labels}
    parse_config({"optimizer": {"lr": 1e-3}, "data": named_low}, TrainConfig, source="a.toml")
