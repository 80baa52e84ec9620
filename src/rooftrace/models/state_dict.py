"""State dicts that other programs wrote, and their names in a network that rooftrace can build.

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
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from rooftrace.core.errors import BundleError
from rooftrace.core.text import first_line

_ENTRIES = ("state_dict", "model_state_dict", "model", "teacher")
"""Keys under which training programs store the weights, the preferred one first."""

_FLATTENED = re.compile(r"^([A-Za-z]\w*?)_(\d+)\.")
_TIMM = "model."
"""Prefix of the weights of a timm encoder in segmentation-models-pytorch."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")

_SAVE = "Save the weights alone: torch.save(model.state_dict(), 'weights.pth')"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the weights of a .safetensors file or of a file of PyTorch, without running code in it.

    Raises:
        BundleError: It holds other objects than tensors, is damaged, or holds no weights.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # PyTorch raises many types for damaged files
        if "TorchScript" in str(error):
            raise BundleError(
                f"{path} is a TorchScript archive, which holds code, so it was not opened.",
                remedy="Where you trust the file: torch.save(torch.jit.load('FILE').state_dict(), "
                "'weights.pth')",
            ) from error
        code = _GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise BundleError(
                f"{path} is not a plain state dict: it asks Python to load {code[1]}, which may "
                "run code, so it was not opened.",
                remedy=f"Where you trust the file: {_SAVE}",
            ) from error
        raise BundleError(
            f"{path} cannot be read as weights: {first_line(error) or type(error).__name__}.",
            remedy=f"Get the file again; it may be truncated. {_SAVE}",
        ) from error
    entries = content if isinstance(content, dict) else {}
    named = [_tensors_of(value) for value in (content, *map(entries.get, _ENTRIES))]
    others = [one for one in map(_tensors_of, entries.values()) if one]
    if found := [one for one in named if one] or (others if len(others) == 1 else []):
        return found[0]
    raise BundleError(
        f"{path} holds no weights; expected a state dict, by itself or as {', '.join(_ENTRIES)}.",
        remedy=_SAVE,
    )


def _tensors_of(value: object) -> dict[str, Tensor]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, Tensor)}


def match_weight_names(found: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Rename the weights of a file to the names of a network.

    The common prefix is removed by which most names agree: `model.` of Lightning, `module.` of
    DataParallel, or both. Names of a timm network also match those of the same encoder in
    segmentation-models-pytorch. Names that do not match lose the prefix alone.

    Args:
        found: Weights by the names in the file.
        expected: Names of the network's weights.
    """
    known = {alias: name for name in expected for alias in _aliases(name)}
    known |= {name: name for name in expected}
    votes = Counter(
        ".".join([*parts[:first], ""])
        for parts in (name.split(".") for name in found)
        for first in range(len(parts))
        if ".".join(parts[first:]) in known
    )
    if not votes:
        return dict(found)
    most = max(votes.values())
    prefix = min((one for one, count in votes.items() if count == most), key=len)
    renamed: dict[str, Tensor] = {}
    for name, tensor in found.items():
        rest = name.removeprefix(prefix)
        matched = name.startswith(prefix) and rest in known and known[rest] not in renamed
        renamed[known[rest] if matched else name if rest in known else rest] = tensor
    return renamed


def _aliases(name: str) -> list[str]:
    """Return the names that timm gives to a weight of an encoder inside of the network."""
    if not name.startswith(_TIMM):
        return []
    plain = name.removeprefix(_TIMM)
    # A timm network that returns features has its stages as `stages_0`, others as `stages.0`.
    return [plain, _FLATTENED.sub(r"\1.\2.", plain)]


def top_modules(names: Collection[str]) -> tuple[str, ...]:
    """Return the beginnings of the names that the weights of a network's modules have in files."""
    pairs = [name.removeprefix(_TIMM).partition(".")[::2] for name in names]
    tops = {f"{_TIMM if name.startswith(_TIMM) else ''}{top}."
            for name, (top, rest) in zip(names, pairs) if rest}  # fmt: skip
    return tuple(alias for top in tops for alias in (top, *_aliases(top)))
