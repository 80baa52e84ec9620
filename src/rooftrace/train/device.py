"""The device that a run computes on: accelerator, precision and memory."""

from __future__ import annotations

from typing import Literal

import torch

from rooftrace.core.errors import ConfigError
from rooftrace.engines.base import this_processor


def choose_accelerator(device: str) -> Literal["cpu", "cuda"]:
    """Return the accelerator for a configured device.

    Raises:
        ConfigError: A GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'device = "cuda", but PyTorch sees no CUDA device.',
            remedy='Use device = "auto", or install a CUDA build of PyTorch.',
        )
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
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
