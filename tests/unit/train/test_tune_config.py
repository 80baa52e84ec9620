"""A configuration for a study is checked before the first trial."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("optuna")

from rooftrace.core.errors import ConfigError
from rooftrace.train.tune_space import Tuning, read_tuning

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
