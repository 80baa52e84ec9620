"""Batches for a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

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

__all__ = ["Batch", "Samples", "choose_workers", "collate", "make_loader"]

_MOST_WORKERS = 8
"""More would prepare some thousands of samples a second, which no network here asks for."""

_FORK = "fork" if sys.platform == "linux" else None
"""Forked processes have the decoded images in common, which others would each decode anew."""


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
    bands, height, width = samples[0].image.shape
    # Interleaved by OpenCV, straight to where they belong: torch takes thirty times as long.
    images = np.empty((len(samples), height, width, bands), dtype=np.float32)
    for sample, pixels in zip(samples, images):
        cv2.merge(list(sample.image), pixels)
    targets = torch.from_numpy(np.stack([s.target for s in samples]))
    valid = torch.from_numpy(np.stack([s.valid for s in samples]))
    batch = Batch(torch.from_numpy(images).permute(0, 3, 1, 2), targets, valid)
    if separation is None:
        return batch
    instances = [s.instances for s in samples if s.instances is not None]
    made = torch.from_numpy(np.stack([separation(one) for one in instances]))
    return batch._replace(separation=made)


def choose_workers(config: TrainConfig, accelerator: Literal["cpu", "cuda"]) -> int:
    """How many processes prepare samples for one process that trains."""
    if config.workers != "auto":
        return config.workers
    if accelerator == "cpu":
        # The network computes on all cores: what others took of them would be taken from it.
        return 0
    cores = os.cpu_count() or 1
    return min(_MOST_WORKERS, max(1, cores // config.devices - 1))


def make_loader(
    samples: Samples, config: TrainConfig, batch_size: int, *, workers: int, lasting: bool = False
) -> DataLoader[Any]:
    """Batches in the order of the samples, which are random already where they are to be.

    Args:
        workers: processes that prepare them; 0 prepares them in this one, on the cores that the
            network then computes on.
        lasting: the processes are started once, not once an epoch.
    """
    told = config.separation
    separation = None if told is None else separation_target(told.kind, told.reach)
    threads = 1 if workers else min(batch_size, torch.get_num_threads())
    return DataLoader(
        _AsDataset(samples, threads),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=partial(collate, separation=separation),
        worker_init_fn=_begin_worker,
        multiprocessing_context=_FORK if workers else None,
        persistent_workers=lasting and workers > 0,
        pin_memory=torch.cuda.is_available() and config.device != "cpu",
    )


class _AsDataset(Dataset[Sample]):
    """Samples in torch's form, those of a batch on several threads."""

    def __init__(self, samples: Samples, threads: int = 1) -> None:
        self._samples = samples
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        each = map if self._pool is None else self._pool.map
        return list(each(self._samples.__getitem__, indices))


def _begin_worker(number: int) -> None:
    """The worker is one of several already; and OpenCV's threads do not survive the fork."""
    del number
    cv2.setNumThreads(0)
