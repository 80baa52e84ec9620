"""The open values of a configuration, and the values that replace them."""

import copy
import tomllib
from typing import Any

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")


from rooftrace.core.errors import ConfigError
from rooftrace.train.config import find_open_values
from rooftrace.train.tune_space import find_space

OPEN = """
epochs = { low = 10, high = 40, step = 10 }
loss = { choices = ["ce", "dice"] }

[model.options]
decoder_channels = { choices = [[32, 16], [64, 32]] }
dropout = { low = 0, high = 0.5 }

[optimizer]
lr = { low = 1e-5, high = 1e-2, log = true }
encoder_lr = { choices = [{}, 1e-4] }

[[data.train]]
path = "a"
share = { low = 0.1, high = 0.9, step = 0.2 }

[[data.train]]
path = "b"
labels.values = { low = 1, high = 2 }

[data.labels]
classes = ["background", "low", "high"]
values = { low = 1, high = 2, background = 0 }

[augment]
flips = { choices = [true, false, 8, "8-fold"] }
"""


def drawn(seed: int, raw: dict[str, Any]) -> dict[str, object]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return find_space(raw).sample(study.ask())


def test_open_values_are_found_wherever_they_stand_but_for_what_masks_mean() -> None:
    space = find_space(tomllib.loads(OPEN))
    found = {p.name: p for p in space.parameters}
    assert list(found) == [
        "epochs", "loss", "model.options.decoder_channels", "model.options.dropout",
        "optimizer.lr", "optimizer.encoder_lr", "data.train.0.share", "augment.flips",
    ]  # fmt: skip
    assert str(found["optimizer.lr"]) == "1e-05 to 0.01, logarithmic"
    assert found["data.train.0.share"].key == ("data", "train", 0, "share")
    assert found["epochs"].samples == (10, 40)
    assert found["model.options.dropout"].samples == (0.0, 0.5)
    assert str(found["augment.flips"]) == "true | false | 8 | 8-fold"
    assert next(find_open_values(tomllib.loads(OPEN)))[0] == ("epochs",)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_takes_its_place_and_nothing_else_changes(seed: int) -> None:
    raw = tomllib.loads(OPEN)
    before = copy.deepcopy(raw)
    space = find_space(raw)
    made = space.resolve(drawn(seed, raw))
    assert raw == before
    assert made["epochs"] in (10, 20, 30, 40)
    assert isinstance(made["epochs"], int)
    assert made["loss"] in ("ce", "dice")
    assert made["model"]["options"]["decoder_channels"] in ([32, 16], [64, 32])
    assert 0 <= made["model"]["options"]["dropout"] <= 0.5
    assert 1e-5 <= made["optimizer"]["lr"] <= 1e-2
    assert made["optimizer"].get("encoder_lr", 1e-4) == 1e-4
    assert made["augment"]["flips"] in (True, False, 8, "8-fold")
    assert min(abs(made["data"]["train"][0]["share"] - s) for s in (0.1, 0.3, 0.5, 0.7, 0.9)) < 1e-9
    assert made["data"]["train"][1] == before["data"]["train"][1]
    assert made["data"]["labels"] == before["data"]["labels"]
    assert not list(find_open_values(made))


@pytest.mark.parametrize(
    ("table", "expected_text"),
    [
        ("{ low = 2, high = 1 }", "`low <= high` must hold"),
        ("{ low = 0.0, high = 1.0, log = true }", "`low > 0` must hold"),
        ("{ low = 1 }", "'high' is missing"),
        ("{ low = 1, high = 2, lgo = true }", " or 'log'?"),
        ("{ low = 1, high = 9, step = 2, log = true }", "step"),
        ("{ choices = [] }", "choices: "),
        ('{ choices = [8, "8"] }', "a choice twice: 8"),
        ("{ choices = [1, 2], low = 1 }", "unknown key 'low'"),
    ],
)
def test_a_wrong_search_names_its_key(table: str, expected_text: str) -> None:
    raw = tomllib.loads(f"optimizer.lr = {table}")
    with pytest.raises(ConfigError, match=r"The search of optimizer\.lr") as raised:
        find_space(raw)
    assert expected_text in str(raised.value)
    assert "choices" in raised.value.remedy
    assert next(find_open_values(raw))[0] == ("optimizer", "lr")
