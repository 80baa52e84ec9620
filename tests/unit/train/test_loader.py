"""Batches: how they lie in memory, and the processes that prepare them."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.core.types import Sample
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, collate, make_loader, open_data
from town import write_pairs

# isort: split
import torch


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    write_pairs(folder / "pairs", range(3), shape_yx=(96, 96), gsd_m=0.3)
    return folder


def configured(**changes: object) -> TrainConfig:
    raw = {
        "crop_px": 32, "batch_size": 4, "samples_per_epoch": 8, "augment": {"policy": "aerial"},
        "data": {"train": [{"path": "pairs"}], "val": [{"path": "pairs"}]}, **changes,
    }  # fmt: skip
    return parse_config(raw, TrainConfig, source="test")


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_a_batch_is_its_samples_channels_last(bands: int) -> None:
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            rng.random((bands, 6, 8), dtype=np.float32),
            rng.integers(2, size=(6, 8), dtype=np.uint8),
            rng.random((6, 8)) < 0.5,
        )
        for _ in range(3)
    ]
    batch = collate(samples)
    np.testing.assert_array_equal(batch.images, np.stack([s.image for s in samples]))
    np.testing.assert_array_equal(batch.targets, np.stack([s.target for s in samples]))
    np.testing.assert_array_equal(batch.valid, np.stack([s.valid for s in samples]))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def epochs_of(data: TrainingData, config: TrainConfig, workers: int) -> list[torch.Tensor]:
    loader = make_loader(data.samples, config, workers=workers, persistent=True)
    drawn = []
    for epoch in range(3):
        data.samples.epoch = epoch
        drawn.append(torch.cat([batch.images for batch in loader]))
    return drawn


@pytest.mark.campaign
@pytest.mark.usefixtures("clean_workers")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_that_last_draw_what_this_process_would(pairs: Path) -> None:
    config = configured()
    here = epochs_of(open_data(config, pairs), config, 0)
    assert not torch.equal(here[0], here[1])
    loaded = open_data(config, pairs)
    loaded.load()
    for there, alone in zip(epochs_of(loaded, config, 3), here, strict=True):
        assert torch.equal(there, alone)
