"""The processes that prepare batches."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, make_loader, open_data
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
