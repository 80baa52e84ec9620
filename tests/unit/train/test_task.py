"""Batches, averages and tallies, each by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.core.errors import DataError
from rooftrace.core.types import Sample
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.train.callbacks import BestEpoch
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import collate
from rooftrace.train.task import MetricAccumulator, SegmentationTask, with_pixels


def task_of(
    start: str | None = None, from_start: tuple[str, ...] = (), **optimizer: float
) -> SegmentationTask:
    raw = {
        "data": {"train": [{"path": "a"}], "val": [{"path": "b"}]}, "optimizer": optimizer,
        "model": {} if start is None else {"start": start},
    }  # fmt: skip
    config = parse_config(raw, TrainConfig, source="c")
    net = torch.nn.Conv2d(3, 1, 1)
    return SegmentationTask(
        net, config, mean=(1, 2, 3), std=(2, 4, 8), val_names=("b",), total_steps=10,
        from_start=from_start,
    )  # fmt: skip


def test_collate() -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            rng.random((3, 4, 5), np.float32),
            rng.integers(0, 2, (4, 5), np.uint8),
            rng.random((4, 5)) < 0.5,
        )
        for _ in range(2)
    ]
    images, target, valid, instances = collate(samples)
    assert instances is None
    assert images.shape == (2, 3, 4, 5)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(images[number].numpy(), sample.image)
        np.testing.assert_array_equal(target[number].numpy(), sample.target)
        np.testing.assert_array_equal(valid[number].numpy(), sample.valid)


def test_the_average_of_weights_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(ema_decay=0.75)
    step = {"n": 0}
    monkeypatch.setattr(SegmentationTask, "global_step", property(lambda self: step["n"]))
    task.on_train_start()
    expected = None
    seen: list[float] = []
    for value in (8.0, 4.0, 2.0):
        step["n"] += 1
        with torch.no_grad():
            task.net.weight.fill_(value)
        for _ in range(2):  # batches that only add to a gradient are no steps
            task.on_train_batch_end(None, None, 0)  # type: ignore[arg-type]
        # After 1 and 2 updates 2/11 and 3/12, which is below 0.75.
        kept = (1 + len(seen)) / (10 + len(seen))
        expected = value if expected is None else kept * expected + (1 - kept) * value
        seen.append(value)
        assert task.best_net.weight.mean().item() == pytest.approx(expected)
    assert task.best_net is not task.net
    assert task_of().best_net.weight.requires_grad


def test_a_tally_counts_valid_pixels_of_all_batches() -> None:
    rng = torch.Generator().manual_seed(0)
    tally, counts = MetricAccumulator(3), PixelCounts.zero(3)
    for number in range(3):
        logits = torch.randn(2, 3, 4, 4, generator=rng)
        target = torch.randint(0, 3, (2, 4, 4), generator=rng, dtype=torch.uint8)
        valid = torch.rand(2, 4, 4, generator=rng) < 0.7
        tally.add(logits, target, valid, torch.tensor(float(number)))
        counts += PixelCounts.of(
            target.numpy(), logits.argmax(dim=1).numpy(), valid.numpy(), classes=3
        )
    np.testing.assert_array_equal(tally.counts.matrix, counts.matrix)
    assert tally.loss == 1
    assert tally.iou == counts.mean_iou


def test_a_batch_counts_by_its_samples_with_valid_pixels() -> None:
    tally = MetricAccumulator(2)
    valid = torch.ones(4, 2, 2, dtype=torch.bool)
    valid[3] = False
    logits, target = torch.zeros(4, 1, 2, 2), torch.zeros(4, 2, 2, dtype=torch.uint8)
    tally.add(logits, target, valid, torch.tensor(1.0))
    tally.add(logits[:1], target[:1], valid[:1], torch.tensor(5.0))
    # Of nothing the loss may be no number, and is none.
    tally.add(logits[3:], target[3:], valid[3:], torch.tensor(float("nan")))
    assert tally.loss == pytest.approx((3 * 1 + 1 * 5) / 4)
    assert tally.counts.pixels == 16
    tally.add(logits, target, valid, torch.tensor(float("nan")))
    assert np.isnan(tally.loss)


def test_a_folder_without_a_known_pixel_has_no_part_in_the_means() -> None:
    known, blank = MetricAccumulator(2), MetricAccumulator(2)
    logits, target = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8)
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    known.add(logits, target, valid, torch.tensor(float("nan")))
    blank.add(logits, target, ~valid, torch.tensor(float("nan")))
    # A loss that is no number where there are pixels stays one.
    assert with_pixels([blank, known]) == [known]
    with pytest.raises(DataError, match="both a value and a label"):
        with_pixels([blank])


def test_the_best_epoch_is_the_first_of_equals_and_never_nan() -> None:
    for sign, better, worse in ((1, 0.6, 0.4), (-1, 0.4, 0.6)):
        best = BestEpoch("x", sign)
        assert not best.is_better(float("nan"))
        assert best.is_better(0.5)
        best.epoch, best.value = 1, 0.5
        assert best.is_better(better)
        for value in (0.5, worse, float("nan")):
            assert not best.is_better(value)
