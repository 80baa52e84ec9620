"""Any number of processes train as one does: the same samples a step, the same figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rooftrace.core.config import load_config, parse_config  # noqa: E402
from rooftrace.core.errors import ConfigError  # noqa: E402
from rooftrace.core.types import Sample  # noqa: E402
from rooftrace.train.checkpoint import read_checkpoint  # noqa: E402
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.datamodule import training_share, validation_share  # noqa: E402
from rooftrace.train.device import choose_accelerator, is_main_process, make_strategy  # noqa: E402
from rooftrace.train.loop import fit  # noqa: E402
from training_runs import figures  # noqa: E402

DATA = {"train": [{"path": "a"}], "val": [{"path": "b"}]}


def config_of(**given: Any) -> TrainConfig:
    return parse_config({"data": DATA, **given}, TrainConfig, source="c.toml")


class Numbers:
    """Samples that say their number."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        image = np.full((1, 1, 1), index, np.float32)
        return Sample(image, np.zeros((1, 1), np.uint8), np.ones((1, 1), np.bool_))


def numbers(share: Any) -> list[int]:
    return [int(share[i].image[0, 0, 0]) for i in range(len(share))]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 60))
def test_each_batch_is_that_of_one_process(
    processes: int, each: int, accumulate: int, count: int
) -> None:
    batch = processes * each
    shares = [
        numbers(
            training_share(
                Numbers(count), batch=batch, accumulate=accumulate, rank=r, processes=processes
            )
        )
        for r in range(processes)
    ]
    batches = count // batch // accumulate * accumulate
    assert {len(share) for share in shares} == {batches * each}
    for step in range(batches):
        together = [n for share in shares for n in share[step * each : (step + 1) * each]]
        assert together == list(range(step * batch, (step + 1) * batch))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 40))
def test_each_tile_is_validated_once_in_the_batch_of_one_process(
    processes: int, batch: int, count: int
) -> None:
    seen = []
    for rank in range(processes):
        share = validation_share(Numbers(count), batch=batch, rank=rank, processes=processes)
        assert len(share)
        if share[0].valid.any():
            found = numbers(share)
            seen += [found[i : i + batch] for i in range(0, len(found), batch)]
        else:
            assert len(share) == 1  # more processes than batches
    everything = list(range(count))
    assert sorted(seen) == [everything[i : i + batch] for i in range(0, count, batch)]


def test_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, first in (("0", True), ("1", False)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert is_main_process(config_of(devices=2)) is first
        assert is_main_process(config_of())


def test_a_batch_must_be_shared_out_alike() -> None:
    with pytest.raises(ConfigError, match=r"10 cannot be .* 4 devices; the nearest .*: 8 and 12"):
        config_of(batch_size=10, devices=4)
    with pytest.raises(ConfigError, match="the nearest possible: 4"):
        config_of(batch_size=3, devices=4)


def test_a_refiner_is_trained_on_one_device() -> None:
    with pytest.raises(ConfigError, match="refine runs on one device: train on several without it"):
        config_of(refine={}, devices=2)


def test_there_must_be_as_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_accelerator("auto", 2) == "cuda"
    assert choose_accelerator("cpu", 3) == "cpu"
    with pytest.raises(ConfigError, match="devices = 3, but PyTorch sees 2"):
        choose_accelerator("cuda", 3)


def test_weights_without_use_are_looked_for_only_where_there_are_some() -> None:
    class Net(torch.nn.Module):
        def __init__(self, idle: bool) -> None:
            super().__init__()
            self.used = torch.nn.Conv2d(3, 1, 1)
            self.idle = torch.nn.Conv2d(3, 1, 1) if idle else None

        def forward(self, image: Any) -> Any:
            return self.used(image)

    config = config_of(devices=2)
    for idle in (False, True):
        net = Net(idle)
        strategy: Any = make_strategy(config, "cpu", net, 3)
        assert strategy._ddp_kwargs["find_unused_parameters"] is idle
        assert all(weight.grad is None for weight in net.parameters())
    assert make_strategy(config_of(), "cpu", Net(True), 3) == "auto"


PLAIN = (
    'model={architecture="PlainUnet", options={filters=4, depth=2, normalisation="group"}}',
    "loss=ce", "optimizer.accumulate=2", "optimizer.ema_decay=0.5", "schedule.patience=0",
    "samples_per_epoch=16", "optimizer.kind=sgd", "optimizer.lr=0.1", "watch.panel=0",
)  # fmt: skip


def state(run: Path) -> dict[str, Any]:
    kept: dict[str, Any] = read_checkpoint(run / "checkpoints/last.ckpt")
    return kept["state_dict"]


def assert_close_figures(one: Path, other: Path) -> None:
    """Assert that two runs measured the same, but for the order in which gradients were added.

    The order is free in float32, and a pixel at the threshold then falls on either side: of the
    4 x 64 x 64 pixels here, a few change sides. Samples that were dealt out wrongly, or gradients
    that were not averaged, move the weights and the figures by a hundred times as much.
    """
    expected = [{k: float(v) for k, v in row.items()} for row in figures(one)]
    got = [{k: float(v) for k, v in row.items()} for row in figures(other)]
    assert got == [pytest.approx(row, abs=2e-3) for row in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)


@pytest.mark.campaign
def test_two_processes_train_as_one(tiny_folder: Path, tmp_path: Path) -> None:
    """Through the real command, which starts itself again; four tiles are one batch, so the second
    process has none to validate.
    """
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, PLAIN)
    fit(config, tmp_path / "one", base=tiny_folder)
    two = tmp_path / "two"
    sets = [part for override in (*PLAIN, "devices=2") for part in ("--set", override)]
    command = [sys.executable, "-m", "rooftrace", "train", "tiny.toml", "-o", str(two), *sets]
    done = subprocess.run(
        [*command, "--json"], cwd=tiny_folder, env={**os.environ, "COLUMNS": "200"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 2  # one object, and by one process
    assert done.stderr.count("epoch   1") == 1
    assert "Warning" not in done.stderr
    assert_close_figures(tmp_path / "one", two)
    one, other = state(tmp_path / "one"), state(two)
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-2, atol=1e-3)
    assert (two / "best_iou.rooftrace").is_file()
    # One process resumes the run of two.
    longer = load_config(tiny_folder / "tiny.toml", TrainConfig, [*PLAIN, "epochs=3"])
    assert fit(longer, two, base=tiny_folder, resume=True).trained.epochs == 3
