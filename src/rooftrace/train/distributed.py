"""Several processes that train one network, each on a device of its own (Lightning's DDP).

A step is of the same samples on any number of processes: each takes its share, and gradients are
averaged. Validation is shared out in whole batches, and what was counted is added up, so that the
figures are those of one process.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import rooftrace.models._torch  # noqa: F401

# isort: split
import lightning as L
import numpy as np
import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError, TrainError
from rooftrace.core.types import Sample
from rooftrace.train.config import TrainConfig
from rooftrace.train.loader import Samples

__all__ = [
    "Share",
    "add_up",
    "as_launched",
    "average_buffers",
    "ending_together",
    "is_first",
    "make_strategy",
    "share_of_steps",
    "share_of_tiles",
]


def is_first(config: TrainConfig) -> bool:
    """Whether this process is the one that records, exports and speaks.

    It is asked before Lightning has begun, so it looks at what torchrun, SLURM and Lightning's own
    launcher tell their processes; Lightning starts all but the first of a node itself.
    """
    if config.processes == 1:
        return True
    ranks = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(name, "0")) == 0 for name in ranks)


def as_launched(config: TrainConfig) -> TrainConfig:
    """A configuration with as many devices and nodes as torchrun has started processes for.

    Without torchrun, and where it started one alone, as it is.
    https://docs.pytorch.org/docs/stable/elastic/run.html

    Raises:
        ConfigError: the configuration says another number itself, or its batches cannot be shared
            out among so many.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return config
    world = int(os.environ["WORLD_SIZE"])
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    told = {"devices": devices, "nodes": world // devices}
    if world == config.processes or config.processes != 1:
        if (config.devices, config.nodes) != (told["devices"], told["nodes"]):
            raise ConfigError(
                f"torchrun started {world} processes, {devices} on this machine; the configuration "
                f"says devices = {config.devices} and nodes = {config.nodes}.",
                remedy="Leave both out of the configuration: torchrun says them.",
            )
        return config
    raw = config.model_dump(exclude_unset=True) | told
    return parse_config(raw, TrainConfig, source="torchrun")


def make_strategy(
    config: TrainConfig, accelerator: str, net: nn.Module, bands: int
) -> Strategy | str:
    """How Lightning is to run a configuration's processes, for a network that is on the CPU yet."""
    if config.processes == 1:
        return "auto"
    return DDPStrategy(
        process_group_backend="nccl" if accelerator == "cuda" else "gloo",
        # To look for such weights takes time in each step.
        find_unused_parameters=_has_idle_weights(net, bands, config.crop_px),
        # Else each validation batch would wait for one of every other process.
        broadcast_buffers=False,
    )


def _has_idle_weights(net: nn.Module, bands: int, crop_px: int) -> bool:
    """Whether the answer does not depend on some weights: a decoder may not look at all that its
    encoder has.
    """
    probe = copy.deepcopy(net).eval().requires_grad_(True)
    probe(torch.zeros(1, bands, crop_px, crop_px)).sum().backward()
    return any(weight.grad is None for weight in probe.parameters())


class Share:
    """Some samples of a set, in an order of their own.

    Args:
        numbers: which.
        blank: nothing of them is valid.
    """

    def __init__(self, samples: Samples, numbers: Sequence[int], *, blank: bool = False) -> None:
        self._samples, self._numbers, self._blank = samples, numbers, blank

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples[self._numbers[index]]
        if self._blank:
            return dataclasses.replace(sample, valid=np.zeros_like(sample.valid))
        return sample


def share_of_steps(
    samples: Samples, *, batch: int, accumulate: int, rank: int, processes: int
) -> Share:
    """What one process trains on: of each batch its part, and only whole steps of the optimiser.

    Args:
        batch: samples of a batch over all processes; a multiple of `processes`.
        accumulate: batches of a step.
    """
    batches = len(samples) // (batch * accumulate) * accumulate
    numbers = np.arange(batches * batch).reshape(batches, processes, batch // processes)
    return Share(samples, numbers[:, rank].ravel().tolist())


def share_of_tiles(tiles: Samples, *, batch: int, rank: int, processes: int) -> Share:
    """What one process validates: whole batches, so that a batch's loss is that of one process.

    Where there are fewer batches than processes, those without one get a tile that counts nothing:
    a process without a batch would not wait for the others at the epoch's end.
    """
    firsts = range(rank * batch, len(tiles), processes * batch)
    numbers = [n for first in firsts for n in range(first, min(first + batch, len(tiles)))]
    return Share(tiles, numbers) if numbers else Share(tiles, [0], blank=True)


def add_up(counts: Tensor) -> Tensor:
    """The sum over all processes; every one of them must ask."""
    if torch.distributed.is_initialized():
        counts = counts.clone()
        torch.distributed.all_reduce(counts)
    return counts


def average_buffers(net: nn.Module) -> None:
    """Give all processes the mean of what BatchNorm has seen in each, before it is made use of."""
    if not torch.distributed.is_initialized():
        return
    processes = torch.distributed.get_world_size()
    for buffer in net.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= processes


@contextmanager
def ending_together(trainer: L.Trainer) -> Iterator[None]:
    """Where one process of a machine fails, none is left waiting for it.

    Raises:
        TrainError: another process failed, which says why itself.
    """
    try:
        yield
    except Exception as error:
        launcher = trainer.strategy.launcher
        if not isinstance(launcher, _SubprocessScriptLauncher):
            raise
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        code = _failed(launcher) if lost else None
        launcher.kill(signal.SIGKILL)
        if code is None:
            raise
        raise TrainError(
            f"Another process of this run ended with exit code {code}; what it said stands above.",
            remedy="Mend that; the run goes on from its last finished epoch with --resume.",
        ) from error


def _failed(launcher: _SubprocessScriptLauncher, patience_s: float = 60.0) -> int | None:
    """The exit code of a process that failed: its broken connection is seen before it has ended,
    since it looks for a batch that would fit where it had not the memory.
    """
    deadline = time.monotonic() + patience_s
    while launcher.procs and time.monotonic() < deadline:
        for process in launcher.procs:
            if process.poll():
                return process.returncode
        time.sleep(0.05)
    return None
