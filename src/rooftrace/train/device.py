"""The devices that a run computes on: accelerator, precision, memory, and several processes.

Several processes train one network, each on a device of its own (Lightning's DDP). A step has the
same samples on any number of processes: each takes its share, and gradients are averaged.
Validation is shared out in whole batches, and the counts are summed, so that the figures equal
those of one process.
"""

from __future__ import annotations

import copy
import ctypes
import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn

from rooftrace.core.errors import ConfigError, TrainError
from rooftrace.engines.processor import this_processor
from rooftrace.train.config import TrainConfig

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune_allocator() -> None:
    """Let glibc keep freed memory, for the rest of the process.

    Eager PyTorch on a CPU takes and frees the same large buffers in each step. By default glibc
    maps them again each time, and most of the time goes into page faults.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        return ctypes.CDLL("libc.so.6")
    return None


def choose_accelerator(device: str, devices: int = 1) -> Literal["cpu", "cuda"]:
    """Return the accelerator for a configured device.

    Raises:
        ConfigError: A GPU is asked for and there is none, or there are too few.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'device = "cuda", but PyTorch sees no CUDA device.',
            remedy='Use device = "auto", or install a CUDA build of PyTorch.',
        )
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if devices > torch.cuda.device_count():
        raise ConfigError(
            f"devices = {devices}, but PyTorch sees {torch.cuda.device_count()} CUDA devices.",
            remedy='Lower devices to that number, or use device = "cpu".',
        )
    return "cuda"


def choose_precision(
    precision: str, accelerator: str
) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return the precision by Lightning's name; `auto` takes one that the device computes fast.

    Raises:
        ConfigError: fp16 is asked for on a CPU, which does not compute in it.
    """
    if precision == "fp16" and accelerator == "cpu":
        raise ConfigError(
            'precision = "fp16" needs a GPU.', remedy='Use "auto", "bf16" or "fp32" on a CPU.'
        )
    if precision == "auto":
        if accelerator == "cuda":
            precision = (
                "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
            )
        else:
            # Without the instructions bf16 is emulated, and slower than fp32.
            precision = "bf16" if this_processor().has_bf16 else "fp32"
    if precision == "bf16":
        return "bf16-mixed"
    return "16-mixed" if precision == "fp16" else "32-true"


def is_main_process(config: TrainConfig) -> bool:
    """Return whether this process is the one that records, exports and prints.

    It is asked before Lightning has begun, so it looks at the variable that Lightning's launcher
    sets. Lightning itself starts all processes but the first.
    """
    return config.devices == 1 or int(os.environ.get("LOCAL_RANK", "0")) == 0


def make_strategy(
    config: TrainConfig, accelerator: str, net: nn.Module, bands: int
) -> Strategy | str:
    """Return Lightning's strategy for a configuration, for a network that is still on the CPU."""
    if config.devices == 1:
        return "auto"
    return DDPStrategy(
        process_group_backend="nccl" if accelerator == "cuda" else "gloo",
        # Looking for such weights takes time in each step.
        find_unused_parameters=_has_unused_weights(net, bands, config.crop_px),
        # Otherwise each validation batch would wait for one of every other process.
        broadcast_buffers=False,
    )


def _has_unused_weights(net: nn.Module, bands: int, crop_px: int) -> bool:
    """Return whether the answer is independent of some weights: a decoder may ignore outputs of
    its encoder.
    """
    probe = copy.deepcopy(net).eval().requires_grad_(True)
    probe(torch.zeros(1, bands, crop_px, crop_px)).sum().backward()
    return any(weight.grad is None for weight in probe.parameters())


def sum_over_processes(counts: Tensor) -> Tensor:
    """Return the sum over all processes; every one of them must call this."""
    if torch.distributed.is_initialized():
        counts = counts.clone()
        torch.distributed.all_reduce(counts)
    return counts


def extreme_over_processes(values: Tensor, *, highest: bool) -> Tensor:
    """Return the lowest or highest values over all processes; every one must call this."""
    if torch.distributed.is_initialized():
        values = values.clone()
        kind = torch.distributed.ReduceOp.MAX if highest else torch.distributed.ReduceOp.MIN
        torch.distributed.all_reduce(values, kind)
    return values


def average_buffers(net: nn.Module) -> None:
    """Replace the statistics of BatchNorm by their mean over all processes.

    Called before they are used, as each process has seen other samples.
    """
    if not torch.distributed.is_initialized():
        return
    processes = torch.distributed.get_world_size()
    for buffer in net.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= processes


@contextmanager
def stop_all_processes_on_error(trainer: L.Trainer) -> Iterator[None]:
    """Stop the other processes of this machine when one fails, so that none waits for it.

    Raises:
        TrainError: Another process failed, and has printed the reason itself.
    """
    try:
        yield
    except Exception as error:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)
            # Its connection breaks when a process ends, which is after its message.
            if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
                raise TrainError(
                    "Another process of this run failed; its message is above.",
                    remedy="Correct the cause; then --resume continues from the last finished "
                    "epoch.",
                ) from error
        raise
