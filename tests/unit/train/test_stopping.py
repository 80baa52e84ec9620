"""A run stops by any figure, and reports how near that is."""

import io
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import os

from rich.console import Console

from command_line import call
from rooftrace.core.config import load_config
from rooftrace.core.errors import ConfigError, TrainError
from rooftrace.io.files import locked
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit

PLAIN = (
    'model={architecture="PlainUnet", options={filters=2, depth=1}}', "epochs=9",
    "stop.min_delta=1.0",
)  # fmt: skip


@pytest.mark.parametrize("key", ["stop.monitor", "schedule.monitor"])
def test_an_unknown_figure_is_an_error_before_the_first_epoch(
    tiny_folder: Path, tmp_path: Path, key: str
) -> None:
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*PLAIN, f"{key}=val_iuo/data"])
    with pytest.raises(ConfigError) as caught:
        fit(config, tmp_path / "run", base=tiny_folder)
    assert f"{key} = 'val_iuo/data'" in caught.value.message
    assert "'val_iou/data'" in caught.value.message
    assert "train_loss, train_iou" in caught.value.remedy
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_equal_probabilities_everywhere_are_a_collapse_and_few_buildings_are_none() -> None:
    from rooftrace.train.task import _Spread

    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[0, 0, 0] = False
    logits = torch.full((2, 1, 4, 4), 20.0)
    logits[0, 0, 0, 0] = -20.0  # not valid
    spread = _Spread()
    assert not spread.is_none
    spread.add(logits, valid)
    assert spread.is_none
    # All below 0.5, but another threshold tells them apart.
    spread.add(torch.linspace(-5, -1, 32).reshape(2, 1, 4, 4), valid)
    assert not spread.is_none


@pytest.mark.campaign
def test_a_collapse_is_named_after_the_second_validation_and_not_exported(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rooftrace.train import task

    monkeypatch.setattr(task._Spread, "is_none", True)
    output = io.StringIO()
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*PLAIN, "epochs=3"])
    with pytest.raises(TrainError, match="The training has collapsed"):
        fit(config, tmp_path / "run", base=tiny_folder, console=Console(file=output, width=200))
    lines = output.getvalue().splitlines()
    (place,) = [n for n, line in enumerate(lines) if "warning: the training has collapsed" in line]
    assert [line.split()[0] for line in lines[:place]] == ["epoch", "1", "2"]
    assert not list((tmp_path / "run/checkpoints").glob("best_*"))


FAST = 'model={architecture="PlainUnet", options={filters=4, depth=2}}'


def arguments(folder: Path, run: Path, *sets: str, resume: bool = False) -> list[str]:
    options = [text for one in (FAST, *sets) for text in ("--set", one)]
    return ["train", str(folder / "tiny.toml"), "-o", str(run), *options, *["--resume"] * resume]


@pytest.mark.campaign
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_another_process_trains_in_is_refused(
    tiny_folder: Path, tmp_path: Path, *, resume: bool
) -> None:
    run = tmp_path / "run"
    with locked(run / ".rooftrace.lock", str(run)):
        before = {path.name for path in run.iterdir()}
        code, answer = call(*arguments(tiny_folder, run, resume=resume))
        assert code == 5
        assert f"{run} is being written to by process {os.getpid()}" in answer["error"]["message"]
        assert {path.name for path in run.iterdir()} == before
