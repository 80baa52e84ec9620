"""Batches for a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import rooftrace.models._torch  # noqa: F401

# isort: split
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rooftrace.core.types import Sample
from rooftrace.data.separation import SeparationTarget, separation_target
from rooftrace.train.config import TrainConfig

__all__ = ["Batch", "Samples", "collate", "make_loader"]


class Samples(Protocol):
    """A set of samples by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


class Batch(NamedTuple):
    """Samples together.

    Args:
        images: (n, band, y, x) float32, pixel values.
        targets: (n, y, x) uint8, class indices.
        valid: (n, y, x) bool.
        separation: (n, y, x) float32 in 0..1, what the second head is to answer; None without one.
    """

    images: Tensor
    targets: Tensor
    valid: Tensor
    separation: Tensor | None = None


def collate(samples: Sequence[Sample], separation: SeparationTarget | None = None) -> Batch:
    """Samples of one size as a batch, its images channels-last.

    Args:
        samples: with instances, where `separation` is given.
        separation: makes the target of the second head.
    """
    images = torch.from_numpy(np.stack([s.image for s in samples]))
    targets = torch.from_numpy(np.stack([s.target for s in samples]))
    valid = torch.from_numpy(np.stack([s.valid for s in samples]))
    batch = Batch(images.contiguous(memory_format=torch.channels_last), targets, valid)
    if separation is None:
        return batch
    instances = [s.instances for s in samples if s.instances is not None]
    made = torch.from_numpy(np.stack([separation(one) for one in instances]))
    return batch._replace(separation=made)


def make_loader(samples: Samples, config: TrainConfig, batch_size: int) -> DataLoader[Any]:
    """Batches in the order of the samples, which are random already where they are to be."""
    told = config.separation
    separation = None if told is None else separation_target(told.kind, told.reach)
    return DataLoader(
        _AsDataset(samples),
        batch_size=batch_size,
        num_workers=config.workers,
        collate_fn=partial(collate, separation=separation),
        worker_init_fn=_begin_worker,
    )


class _AsDataset(Dataset[Sample]):
    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


def _begin_worker(number: int) -> None:
    """The worker is one of several already; and OpenCV's threads do not survive the fork."""
    del number
    cv2.setNumThreads(0)
