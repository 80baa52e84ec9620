"""A run leaves what it says, goes on after a kill where it stopped, and says why it ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file

from rooftrace.core.config import load_config
from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.flows.train import run_train, worse_than_start
from rooftrace.models.bundle import read_bundle
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import TrainerResult, fit
from training_runs import figures, rows, weights

if TYPE_CHECKING:
    from tests.conftest import TinyRun


def train(folder: Path, run: Path, *overrides: str, resume: bool = False) -> TrainerResult:
    config = load_config(folder / "tiny.toml", TrainConfig, overrides)
    return fit(config, run, base=folder, resume=resume).trained


def test_what_a_run_leaves(tiny_run: TinyRun) -> None:
    run = tiny_run.run
    assert sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()) == [
        "best_iou.rooftrace", "best_loss.rooftrace", "checkpoints/best_iou.safetensors",
        "checkpoints/best_loss.safetensors", "checkpoints/last.ckpt", "config.json", "curves.svg",
        "metrics.csv",
    ]  # fmt: skip
    found = rows(run)
    assert [row["epoch"] for row in found] == ["1", "2"]
    assert {
        "train_loss", "train_iou", "train_accuracy", "val_loss", "val_iou", "val_accuracy",
        "val_iou/data", "lr", "seconds", "images_per_s",
    } <= set(found[0])  # fmt: skip
    for row in found:
        assert all(np.isfinite(float(value)) for value in row.values())
        assert float(row["val_iou"]) == float(row["val_iou/data"])
    curves = ElementTree.parse(run / "curves.svg")
    assert len(list(curves.iter("{http://www.w3.org/2000/svg}polyline"))) == 4
    recorded = json.loads((run / "config.json").read_text())
    assert recorded["base"] == str(tiny_run.folder)
    assert recorded["model"]["options"] == {"decoder_channels": [32, 16, 16, 8, 8]}
    assert recorded["batch_size"] == 4


def test_the_bundle_holds_the_weights_to_train_on_from(tiny_run: TinyRun) -> None:
    kept = load_file(tiny_run.run / "checkpoints/best_iou.safetensors")
    bundle = read_bundle(tiny_run.bundle)
    from safetensors.torch import load

    packed = load(bundle.part("weights.safetensors"))
    assert packed.keys() == kept.keys()
    assert all(torch.equal(packed[key], kept[key]) for key in kept)
    (chosen_on,) = bundle.spec.fitted_fingerprint.sets
    parts = json.loads((tiny_run.folder / "split.json").read_text())
    assert chosen_on.scenes == len(parts["parts"]["val"])


def test_no_path_of_this_machine_is_in_a_bundle(tiny_run: TinyRun) -> None:
    bundle = read_bundle(tiny_run.bundle)
    output = bundle.spec.model_dump_json().encode() + bundle.part("model.onnx")
    for path in (tiny_run.folder, Path.home(), Path(__file__).parents[3], Path(sys.prefix)):
        assert str(path).encode() not in output


@pytest.mark.campaign
def test_the_same_run_gives_the_same_weights_and_says_nothing(
    tiny_run: TinyRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tiny_run.folder, tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    assert figures(tmp_path / "run") == figures(tiny_run.run)
    before, after = weights(tiny_run.run), weights(tmp_path / "run")
    assert all(torch.equal(before[key], after[key]) for key in before)


# FPN has dropout, so the generator of random numbers must go on where it was, too.
LONGER = (
    "epochs=3", "samples_per_epoch=16", "model.architecture=FPN",
    "model.options={decoder_pyramid_channels = 32, decoder_segmentation_channels = 32}",
    "optimizer.ema_decay=0.9", "optimizer.accumulate=2", "schedule.patience=0", "workers=1",
)  # fmt: skip


@pytest.mark.campaign
def test_killed_and_resumed_equals_uninterrupted(tiny_folder: Path, tmp_path: Path) -> None:
    train(tiny_folder, tmp_path / "whole", *LONGER)
    run = tmp_path / "killed"
    sets = [part for override in LONGER for part in ("--set", override)]
    command = [sys.executable, "-m", "rooftrace", "train", str(tiny_folder / "tiny.toml"), *sets]
    process = subprocess.Popen([*command, "-o", str(run)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while not (run / "checkpoints/last.ckpt").exists():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = rows(run)
    assert 1 <= len(before) < 3
    result = train(tiny_folder, run, *LONGER, resume=True)
    assert result.epochs == 3
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    # The clock of the epochs before the kill is kept: they were not trained again.
    assert rows(run)[: len(before)] == before
    assert figures(run) == figures(tmp_path / "whole")
    one, other = weights(tmp_path / "whole"), weights(run)
    assert all(torch.equal(one[key], other[key]) for key in one)
    for name in ("best_iou", "best_loss"):
        file = f"checkpoints/{name}.safetensors"
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def refused(
    folder: Path,
    run: Path,
    *overrides: str,
    resume: bool = True,
    error: type[RooftraceError] = ConfigError,
) -> str:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(error) as caught:
        train(folder, run, *overrides, resume=resume)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.campaign
def test_a_run_worse_than_its_start_says_so_also_resumed(tiny_folder: Path, tmp_path: Path) -> None:
    sets = ("model={start='default'}", "epochs=1", "samples_per_epoch=4", "optimizer.lr=0.1")
    config, run = tiny_folder / "tiny.toml", tmp_path / "run"
    first, again = (run_train(config, run, overrides=sets, resume=one) for one in (False, True))
    assert (again.notes, "made it worse" in first.notes[-1]) == (first.notes, True)


def test_a_best_epoch_as_good_as_the_start_is_not_worse() -> None:
    assert "0.842, the best epoch 0.841:" in worse_than_start(0.842, 0.8414)
    assert not worse_than_start(0.8422, 0.8418) + worse_than_start(None, 0.1)


def test_another_configuration_is_not_resumed(tiny_run: TinyRun) -> None:
    output = refused(tiny_run.folder, tiny_run.run, "optimizer.lr=0.5")
    assert "optimizer.lr was 0.001, is 0.5" in output
    output = refused(tiny_run.folder, tiny_run.run, "crop_px=96", "augment.flip_horizontal=0.25")
    assert "crop_px was 64, is 96" in output
    assert "augment.flip_horizontal was 0.5, is 0.25" in output


def test_there_must_be_something_to_resume(tiny_run: TinyRun, tmp_path: Path) -> None:
    assert "nothing to resume" in refused(tiny_run.folder, tmp_path / "absent")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint = (tiny_run.run / "checkpoints/last.ckpt").read_bytes()
    (run / "checkpoints/last.ckpt").write_bytes(checkpoint)
    assert "config.json" in refused(tiny_run.folder, run)
    (run / "config.json").write_text("{")
    assert "config.json" in refused(tiny_run.folder, run)
    (run / "config.json").write_bytes((tiny_run.run / "config.json").read_bytes())
    for broken in (b"", checkpoint[: len(checkpoint) // 2]):
        (run / "checkpoints/last.ckpt").write_bytes(broken)
        assert "last.ckpt cannot be used" in refused(tiny_run.folder, run, error=DataError)


@pytest.mark.campaign
def test_a_loss_that_is_not_a_number_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="val_loss was not a finite number in any epoch") as error:
        train(tiny_folder, tmp_path / "run", "optimizer.lr=1e30", "optimizer.clip_norm=0")
    assert "optimizer.lr" in error.value.remedy


def test_an_average_is_what_is_kept(tiny_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(tiny_folder, run, "optimizer.ema_decay=0.8", "epochs=1")
    state = weights(run)
    kept = load_file(result.best["best_iou"][2])
    assert kept.keys() == {k.removeprefix("net.") for k in state if k.startswith("net.")}
    assert all(torch.equal(value, state[f"average.module.{key}"]) for key, value in kept.items())
    assert any(not torch.equal(value, state[f"net.{key}"]) for key, value in kept.items())
    assert int(state["average.n_averaged"]) == 2
