"""Weights of encoders, from a file or downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from huggingface_hub import constants, get_session
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from rooftrace.core.errors import ConfigError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "load_encoder", "no_long_tries", "weight_names"]

# What nearly every published encoder was trained with, in shares of the full scale.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_PROBE_S = 5.0
_FIT = "Choose the encoder that the file was made for."


@contextmanager
def no_long_tries() -> Iterator[None]:
    """Within it, what the hub's client does not have in its cache fails at once where the hub
    cannot be reached; by itself it tries for up to a minute, and writes of each try.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _is_hub_in_reach()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_hub_in_reach() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_S)
    except Exception:  # of whichever HTTP library the hub's client uses
        return False
    return True


def weight_names(path: Path) -> list[str]:
    """Of a .safetensors file.

    Raises:
        ConfigError: no such file, or not of that kind.
    """
    if not path.is_file():
        raise ConfigError(
            f"There are no encoder weights at {path}.",
            remedy='Give a .safetensors file, or encoder_weights = "none".',
        )
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"{path} does not hold weights of an encoder: {error}.",
            remedy="Give a .safetensors file.",
        ) from error


def load_encoder(model: nn.Module, path: Path) -> None:
    """Load the weights of an encoder; everything must be there, and nothing else.

    A first layer for three bands is adapted to the bands of the model.

    Raises:
        ConfigError: not safetensors, weights that are missing, surplus or of another shape; all
            are named.
    """
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    try:
        found = _for_bands(load_file(path), encoder.state_dict())
        # Not the encoder's own method: smp's drops keys and says nothing of what is missing.
        result = nn.Module.load_state_dict(encoder, found, strict=False)
    except Exception as error:  # safetensors and torch raise several kinds
        raise ConfigError(
            f"{path} does not hold weights of this encoder: {str(error)[:300]}.", remedy=_FIT
        ) from error
    # Counters of batches are no weights; files leave them out.
    missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ConfigError(
            f"{path} does not fit this encoder: missing {missing[:5]} ({len(missing)}), "
            f"surplus {result.unexpected_keys[:5]} ({len(result.unexpected_keys)}).",
            remedy=_FIT,
        )


def _for_bands(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose first layer takes the three colours in turn, where there are more bands, or
    their sum, where there is one; scaled so that its answer stays as large.
    """
    adapted = {}
    for name, weight in found.items():
        wanted = own[name].shape if name in own else weight.shape
        if weight.ndim == 4 and weight.shape[1] == 3 != wanted[1]:
            bands = wanted[1]
            taken = torch.stack([weight[:, i % 3] for i in range(bands)], dim=1) * (3 / bands)
            weight = weight.sum(dim=1, keepdim=True) if bands == 1 else taken
        adapted[name] = weight
    return adapted
