"""A run that ended within an epoch goes on to the very weights of one that did not; steps of the
optimiser are what they are said to be.
"""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rooftrace.core.config import load_config
from rooftrace.train.checkpoint import read_checkpoint
from rooftrace.train.config import TrainConfig
from rooftrace.train.loop import fit
from training_runs import figures

pytestmark = pytest.mark.campaign

PLAIN = 'model={architecture="PlainUnet", options={filters=4, depth=2, normalisation="%s"%s}}'


def train(folder: Path, run: Path, *sets: str, resume: bool = False) -> dict[str, Any]:
    """The weights that a run ends with, and the average."""
    config = load_config(folder / "tiny.toml", TrainConfig, sets)
    fit(config, run, base=folder, resume=resume)
    kept: dict[str, Any] = read_checkpoint(run / "checkpoints/last.ckpt")
    state: dict[str, Any] = kept["state_dict"]
    return state


def test_batches_that_are_accumulated_are_one_batch(tiny_folder: Path, tmp_path: Path) -> None:
    """The networks and losses here see each sample separately."""
    common = (
        PLAIN % ("group", ""), "loss=ce", "samples_per_epoch=16", "epochs=2",
        "optimizer={kind='sgd', lr=0.1, ema_decay=0.5, accumulate=%d}",
    )  # fmt: skip
    *sets, optimizer = common
    whole = train(tiny_folder, tmp_path / "one", *sets, optimizer % 1, "batch_size=8")
    parts = train(tiny_folder, tmp_path / "two", *sets, optimizer % 2, "batch_size=4")
    assert int(whole["average.n_averaged"]) == int(parts["average.n_averaged"]) == 4
    for key, value in whole.items():
        torch.testing.assert_close(value, parts[key], rtol=1e-4, atol=1e-6)
    one, two = figures(tmp_path / "one"), figures(tmp_path / "two")
    assert [row["lr"] for row in one] == [row["lr"] for row in two]
    assert [row["val_iou"] for row in one] == [row["val_iou"] for row in two]
