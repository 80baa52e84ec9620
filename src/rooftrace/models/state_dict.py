"""State dicts that other programs wrote: read without running code, and matched by name.

Files of PyTorch are pickles, which may hold code. They are opened by PyTorch's reader of plain
tensors alone (`weights_only=True`), which refuses everything else.
"""

from __future__ import annotations

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rooftrace.core.errors import BundleError
from rooftrace.core.text import list_first
from rooftrace.models.bundle import MAX_PART_BYTES

__all__ = ["StateDict", "match_weight_names", "read_state_dict"]

_SAFETENSORS = ".safetensors"

_ENTRIES = ("state_dict", "model_state_dict", "state_dict_ema", "model_state", "model_ema",
            "model", "net", "network", "weights")  # fmt: skip
"""Keys under which training programs store the weights, the preferred one first."""

_MAX_TENSORS = 20_000
_MAX_DEPTH = 8
"""Maximum number of dots in a prefix that is removed from names."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_FLATTENED = re.compile(r"^([A-Za-z]\w*?)_(\d+)\.")
_TIMM = "model."
"""Prefix that segmentation-models-pytorch puts before the names of a timm encoder."""

_SAVE = "torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class StateDict:
    """Weights by name.

    Args:
        tensors: Weights in the order of the file; nothing but tensors of finite size.
        entry: Key of the file that holds them; empty if the file is the state dict itself.
        others: Further keys of the file that hold weights, too.
    """

    tensors: Mapping[str, Tensor]
    entry: str = ""
    others: tuple[str, ...] = ()


def read_state_dict(path: Path) -> StateDict:
    """Read the weights of a .safetensors file or of a file of PyTorch, without running code in it.

    Weights that a training program wrapped are found: Lightning's `state_dict`, and similar keys.

    Raises:
        BundleError: There is no such file, it holds other objects than tensors, is damaged, or
            holds no weights.
    """
    if not path.is_file():
        raise BundleError(
            f"There is no file {path}.",
            remedy="Give a .pth, .pt, .ckpt or .safetensors file with weights.",
        )
    size = path.stat().st_size
    if size > MAX_PART_BYTES:
        raise BundleError(
            f"{path} has {size} bytes; at most {MAX_PART_BYTES} are read.",
            remedy=f"Save the weights alone: {_SAVE}",
        )
    if path.suffix.lower() == _SAFETENSORS:
        found = StateDict(_load_safetensors(path))
    else:
        found = _unwrapped(_load_pickle(path), path)
    if len(found.tensors) > _MAX_TENSORS:
        raise BundleError(
            f"{path} holds {len(found.tensors)} tensors; at most {_MAX_TENSORS} are read.",
            remedy=f"Save the weights of one network alone: {_SAVE}",
        )
    return found


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be read as safetensors: {_first_line(error)}.",
            remedy="Get the file again; it may be truncated.",
        ) from error


def _load_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        if named:
            raise BundleError(
                f"{path} is not a plain state dict: it asks Python to load {named[1]}, which may "
                "run code, so it was not opened.",
                remedy=f"Where you trust the file, save its tensors alone: {_SAVE}",
            ) from error
        raise BundleError(
            f"{path} is not a file of PyTorch weights, or is damaged.",
            remedy="Give a .pth, .pt, .ckpt or .safetensors file with weights.",
        ) from error
    except Exception as error:  # the reader of PyTorch raises many kinds for damaged files
        if "TorchScript" in str(error):
            raise BundleError(
                f"{path} is a TorchScript program; expected a state dict.",
                remedy=f"Save the weights of the network: {_SAVE}",
            ) from error
        reason = _first_line(error) or "it ends too early"
        raise BundleError(
            f"{path} cannot be read: {reason}.", remedy="Get the file again; it may be truncated."
        ) from error


def _unwrapped(loaded: Any, path: Path) -> StateDict:
    own = _tensors(loaded)
    if own and len(own) == len(loaded):
        return StateDict(own)
    if isinstance(loaded, Mapping):
        entries = {key: found for key in _ENTRIES if (found := _tensors(loaded.get(key)))}
        if entries:
            entry, *others = entries
            return StateDict(entries[entry], entry, tuple(others))
        if own:
            return StateDict(own)
    received = (
        f"the keys {list_first(list(loaded), 5)}"
        if isinstance(loaded, Mapping)
        else f"an object of type {type(loaded).__name__}"
    )
    raise BundleError(
        f"{path} holds {received}; expected a state dict, by itself or as {', '.join(_ENTRIES)}.",
        remedy=f"Save the state dict: {_SAVE}",
    )


def _tensors(value: Any) -> dict[str, Tensor]:
    """Return the tensors of a mapping by name; empty if it is no mapping."""
    if not isinstance(value, Mapping):
        return {}
    return {
        name: tensor
        for name, tensor in value.items()
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
    }


def match_weight_names(found: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Rename the weights of a file to the names of a network.

    The common prefix is removed by which most names agree: `model.` of Lightning, `module.` of
    DataParallel, or both. Names of a timm network also match those of the same encoder in
    segmentation-models-pytorch. Names that do not match stay as they are.

    Args:
        found: Weights by the names in the file.
        expected: Names of the network's weights.
    """
    known = {alias: name for name in expected for alias in _aliases(name)}
    known |= {name: name for name in expected}
    votes = Counter(
        name[: len(name) - len(rest)] for name in found for rest in _suffixes(name) if rest in known
    )
    if not votes:
        return dict(found)
    most = max(votes.values())
    prefix = min((one for one, count in votes.items() if count == most), key=len)
    renamed: dict[str, Tensor] = {}
    for name, tensor in found.items():
        rest = name.removeprefix(prefix)
        matched = name.startswith(prefix) and rest in known and known[rest] not in renamed
        renamed[known[rest] if matched else name] = tensor
    return renamed


def _aliases(name: str) -> list[str]:
    """Return the names that timm gives to a weight of an encoder inside of the network."""
    if not name.startswith(_TIMM):
        return []
    plain = name.removeprefix(_TIMM)
    # A timm network that returns features has its stages as `stages_0`, others as `stages.0`.
    return [plain, _FLATTENED.sub(r"\1.\2.", plain)]


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[first:]) for first in range(min(len(parts), _MAX_DEPTH))]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200].rstrip(".")
