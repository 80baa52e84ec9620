"""A run that ended within an epoch goes on to the very weights of one that did not; steps of the
optimiser are what they are said to be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.train.checkpoint import read_checkpoint  # noqa: E402
from rooftrace.train.config import TrainConfig  # noqa: E402
from rooftrace.train.loop import fit  # noqa: E402
from rooftrace.train.task import SegmentationTask  # noqa: E402
from training_runs import figures  # noqa: E402

PLAIN = 'model={architecture="PlainUnet", options={filters=4, depth=2, normalisation="%s"%s}}'
DROPOUT = PLAIN % ("batch", ", dropout=0.3")


def train(folder: Path, run: Path, *sets: str, resume: bool = False) -> dict[str, Any]:
    """The weights that a run ends with, and the average."""
    config = load_config(folder / "tiny.toml", TrainConfig, [*sets, "watch.panel=0"])
    fit(config, run, base=folder, resume=resume)
    kept: dict[str, Any] = read_checkpoint(run / "checkpoints/last.ckpt")
    state: dict[str, Any] = kept["state_dict"]
    return state


class Struck(Exception):
    """Ends a run in the middle."""


@pytest.mark.campaign
@pytest.mark.usefixtures("clean_workers")
@pytest.mark.parametrize(
    "sets",
    [
        (
            "optimizer={kind='sgd', lr=0.05, nesterov=true, accumulate=2, ema_decay=0.8}",
            "schedule.kind=cosine", "workers=1",
        ),
        ("optimizer.kind=adam", "precision=bf16", "schedule={patience=0, monitor='val_iou'}"),
        ("schedule={kind='step', step_epochs=1, warmup_steps=5}", "optimizer.accumulate=4"),
    ],
)  # fmt: skip
def test_ended_in_an_epoch_and_resumed_equals_uninterrupted(
    monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    sets = (*sets, DROPOUT, "epochs=3", "samples_per_epoch=16")
    whole = train(tiny_folder, tmp_path / "whole", *sets)
    step, taken = SegmentationTask.training_step, []

    def until_the_seventh(self: Any, *args: Any) -> Any:
        taken.append(None)
        if len(taken) == 7:  # the third batch of the second epoch
            raise Struck
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", until_the_seventh)
        with pytest.raises(Struck):
            train(tiny_folder, tmp_path / "struck", *sets)
    assert len(figures(tmp_path / "struck")) == 1
    resumed = train(tiny_folder, tmp_path / "struck", *sets, resume=True)
    assert figures(tmp_path / "struck") == figures(tmp_path / "whole")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.campaign
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
