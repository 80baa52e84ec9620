"""Weights of a run put back into its networks: all of them, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rooftrace.core.errors import ConfigError

__all__ = ["check_weights", "load_weights"]

_LISTED = 5


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a network's weights from a .safetensors file.

    Raises:
        ConfigError: the file cannot be read; weights are missing, surplus or of another shape: the
            first of each are named, and how many there are.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"The weights {path} cannot be read: {error}.",
            remedy="Train again, or resume the run from its last epoch with --resume.",
        ) from error
    check_weights(found, net.state_dict(), str(path))
    net.load_state_dict(found)


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Compare weights by name and shape, before anything is loaded.

    Args:
        found: what a file holds.
        expected: what the network has.
        source: the file, for the message.

    Raises:
        ConfigError: see `load_weights`.
    """
    wrong = {
        "missing": [name for name in expected if name not in found],
        "surplus": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} for {tuple(weight.shape)}"
            for name, weight in expected.items()
            if name in found and found[name].shape != weight.shape
        ],
    }
    told = [
        f"{what} {', '.join(names[:_LISTED])}{', …' if len(names) > _LISTED else ''} ({len(names)})"
        for what, names in wrong.items()
        if names
    ]
    if told:
        raise ConfigError(
            f"{source} does not hold the weights of this network: {'; '.join(told)}.",
            remedy="Use the configuration and the versions of the packages that it was written "
            "with: config.json and the bundle name them.",
        )
