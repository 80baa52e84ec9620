"""Weights on disk: the checkpoint that a resumed run starts from, and the checks before that.

A checkpoint is a safetensors file, which is safe to read: nothing in it is executed. It holds the
tensors of the run under names, and under the name `$state` the bytes of a JSON text with everything
else. There a tensor is `{"$tensor": NAME}`. The header holds a SHA-256 of the whole content.

It also records the files of the run's data, by which a resumed run notices changes. A run is
resumed with the same data and the same configuration, except for the keys in `_CHANGEABLE`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor, nn

from rooftrace.core.config import differences
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import list_first, plural, reason_of
from rooftrace.io.files import export_error, replacing

_STATE = "$state"
"""Name of the tensor with the bytes of the JSON text."""

_FORMAT = "rooftrace checkpoint 1"

UNUSABLE = (
    "Restore it from a copy, or start a new run in another folder. The weights of the best epochs "
    "are in separate files beside it."
)
"""Remedy for a checkpoint from which no run can be resumed."""

_LISTED_WEIGHTS = 5
"""Maximum number of weights of each kind that an error names."""


def last_checkpoint(run: Path) -> Path:
    """Return the path of the checkpoint that a resumed run starts from."""
    return run / "checkpoints" / "last.ckpt"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors to a .safetensors file, which appears when it is complete.

    Raises:
        ExportError: The file cannot be written. A file that was there before stays as it was.
    """
    with replacing(path) as partial:
        try:
            save_file(dict(tensors), partial, metadata=dict(metadata))
        except SafetensorError as error:
            raise export_error(path, error) from error


def load_weights(net: nn.Module, path: Path) -> None:
    """Load the weights of a network from a .safetensors file.

    Raises:
        ConfigError: The file cannot be read, or weights are missing, surplus or of another shape.
            The message names the first few of each kind and gives their number.
    """
    try:
        found = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"The weights {path} cannot be read: {reason_of(error)}.",
            remedy="Train again, or resume the run from its last epoch with --resume.",
        ) from error
    check_state_dict(found, net.state_dict(), str(path))
    net.load_state_dict(found)


def check_state_dict(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str
) -> None:
    """Compare weights by name and shape, before anything is loaded.

    Args:
        found: Weights in a file.
        expected: Weights of the network.
        source: Name of the file, for the message.

    Raises:
        ConfigError: See `load_weights`.
    """
    wrong = {
        "missing": [name for name in expected if name not in found],
        "surplus": sorted(name for name in found if name not in expected),
        "of another shape": [
            f"{name} {tuple(found[name].shape)} for {tuple(weight.shape)}"
            for name, weight in expected.items()
            if name in found and found[name].shape != weight.shape
        ],
    }
    problems = [
        f"{kind} {list_first(names, _LISTED_WEIGHTS)} ({len(names)})"
        for kind, names in wrong.items()
        if names
    ]
    if problems:
        raise ConfigError(
            f"{source} does not hold the weights of this network: {'; '.join(problems)}.",
            remedy="Use the configuration and the package versions that it was written with: "
            "config.json and the bundle name them.",
        )


class SafeCheckpointIO(CheckpointIO):
    """Lightning's plugin for checkpoints in the format of this module."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ExportError: See `save_tensors`.
            TypeError: The checkpoint holds an object that is neither a tensor nor plain data.
        """
        encoder = _Encoder()
        text = json.dumps(encoder.encode(checkpoint), allow_nan=False).encode()
        state = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        tensors = {**encoder.tensors, _STATE: state}
        save_tensors(Path(path), tensors, {"format": _FORMAT, "sha256": _sha256(tensors)})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`. Its tensors are on the CPU."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, and check that it is complete and unchanged.

    Raises:
        DataError: The file cannot be read, is truncated or damaged, or is no checkpoint.
    """
    try:
        return _read(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The checkpoint {path} cannot be used: {reason_of(error, most=300)}.",
            remedy=UNUSABLE,
        ) from error


def check_epochs(checkpoint: Mapping[str, Any], run: Path, epochs: int, key: str) -> None:
    """Raise ConfigError if a run already has more epochs than its configuration now asks for.

    Args:
        checkpoint: Content of the checkpoint to resume from.
        run: Folder of the run.
        epochs: Number of epochs that is asked for.
        key: Name of that setting.
    """
    last = checkpoint.get("epoch")
    if isinstance(last, int) and last + 1 > epochs:
        raise ConfigError(
            f"The run in {run} has {plural(last + 1, 'finished epoch')}, and {key} = {epochs}.",
            remedy=f"Set {key} to {last + 1} or more. With {last + 1}, nothing is trained, and the "
            "bundles are written again.",
        )


def _read(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        # Copies: slices of the file would change if another program wrote to it.
        names: list[str] = file.keys()
        tensors = {name: file.get_tensor(name).clone() for name in names}
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"its format is {metadata.get('format')!r}, not {_FORMAT!r}")
    if metadata.get("sha256") != _sha256(tensors):
        raise ValueError("it is damaged: its content does not have the recorded SHA-256")
    state = json.loads(tensors[_STATE].numpy().tobytes())
    checkpoint: dict[str, Any] = _decode(state, tensors)
    return checkpoint


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Encoder:
    """Turns a checkpoint into plain data for JSON, and collects the tensors in it.

    Attributes:
        tensors: Tensors by name, contiguous and on the CPU.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._storages: set[int] = set()

    def encode(self, value: Any, name: str = "") -> Any:
        """Return plain data for a value.

        Args:
            value: Tensors, numbers, texts, None, and lists, tuples and dicts of them.
            name: Path of keys to the value, which becomes the name of a tensor.
        """

        def inner(key: object, part: Any) -> Any:
            return self.encode(part, f"{name}/{key}".lstrip("/"))

        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, Tensor):
            return self._encode_tensor(value, name)
        if isinstance(value, list):
            return [inner(i, part) for i, part in enumerate(value)]
        if isinstance(value, tuple):
            return {"$tuple": [inner(i, part) for i, part in enumerate(value)]}
        if isinstance(value, dict):
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: inner(key, part) for key, part in value.items()}
            return {"$dict": [[inner("key", key), inner(key, part)] for key, part in value.items()]}
        raise TypeError(f"a checkpoint cannot hold {name}, a {type(value).__name__}")

    def _encode_tensor(self, value: Tensor, name: str) -> dict[str, str]:
        # Fused optimisers compute in the order of the memory, which must be the same again.
        last = not value.is_contiguous() and value.is_contiguous(memory_format=_CHANNELS_LAST)
        tensor = value.detach().cpu().contiguous()
        # A network may hold one tensor under two names; safetensors refuses that.
        storage = tensor.untyped_storage().data_ptr()
        self.tensors[name] = tensor.clone() if storage in self._storages else tensor
        self._storages.add(storage)
        return {"$channels_last" if last else "$tensor": name}


_CHANNELS_LAST = torch.channels_last


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, part),) = value.items()
        if tag in _DECODERS:
            return _DECODERS[tag](part, tensors)
    return {key: _decode(part, tensors) for key, part in value.items()}


_DECODERS: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "$float": lambda part, _: float(part),
    "$tensor": lambda part, tensors: tensors[part],
    "$channels_last": lambda part, tensors: tensors[part].to(memory_format=_CHANNELS_LAST),
    "$tuple": lambda part, tensors: tuple(_decode(part, tensors)),
    "$dict": lambda part, tensors: dict(_decode(part, tensors)),
}


FileRecords = Mapping[str, str]
"""`SIZE HASH` of each file by its name. The hash is that of a sample of its bytes."""

STATE_KEY = "Data"
"""Key of the record among the callbacks of a checkpoint."""

_BLOCK_BYTES = 4096

_BLOCKS = 4
"""Number of blocks of a larger file that are hashed: at its start, its end, and evenly between."""

_MAX_LISTED = 3
"""Maximum number of files of each kind of change that an error lists."""


def record_files(files: Mapping[str, Path]) -> FileRecords:
    """Return the record of each file that exists.

    Args:
        files: Files by name.
    """
    return {name: _record(file) for name, file in files.items() if file.is_file()}


def _record(file: Path) -> str:
    size = file.stat().st_size
    starts: Iterable[int] = range(0, size, _BLOCK_BYTES)
    if size > _BLOCK_BYTES * _BLOCKS:
        starts = [number * (size - _BLOCK_BYTES) // (_BLOCKS - 1) for number in range(_BLOCKS)]
    digest = hashlib.blake2b(digest_size=8)
    with file.open("rb", buffering=0) as stream:
        for start in starts:
            stream.seek(start)
            digest.update(stream.read(_BLOCK_BYTES))
    return f"{size} {digest.hexdigest()}"


def check_same_files(before: FileRecords, now: FileRecords, run: Path) -> None:
    """Raise DataError if files are new, missing or changed.

    Args:
        before: Records in the checkpoint.
        now: Records of the present files.
        run: Folder of the run, for the message.
    """
    kinds = {
        "changed": [n for n in now if n in before and before[n] != now[n]],
        "missing": [n for n in before if n not in now],
        "new": [n for n in now if n not in before],
    }
    found = "; ".join(
        f"{plural(len(names), 'file')} {'is' if len(names) == 1 else 'are'} {kind} "
        f"({list_first(names, _MAX_LISTED)})"
        for kind, names in kinds.items()
        if names
    )
    if found:
        raise DataError(
            f"The data is not that of the run in {run}: {found}.",
            remedy="Restore these files, or start a new run in another folder.",
        )


def names_of(path: str, root: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Return files by a name that stays the same when the folder of the data is moved.

    Args:
        path: Path of the data as the configuration gives it.
        root: The same path, resolved.
        files: Files that the data is read from.
    """
    if root.is_file():
        path, root = str(Path(path).parent), root.parent
    folder = f"{root}{os.sep}"
    return {
        f"{path}/{text.removeprefix(folder)}".lstrip("/") if text.startswith(folder) else text: file
        for file in files
        for text in [str(file)]
    }


_CHANGEABLE = (
    "epochs", "stop", "export", "workers", "device", "devices", "watch", "base", "refine.epochs",
    "refine.patience",
)  # fmt: skip
"""Keys that a resumed run may change: they decide how long it runs and what is made of it, not
what the network learns from."""


def check_run_folder(run: Path, resolved: dict[str, Any], *, resume: bool) -> FileRecords | None:
    """Check what the folder of a run holds, and return the records of the data in its checkpoint.

    Args:
        resolved: Resolved configuration of the run.
        resume: Continue the run that is in the folder.

    Returns:
        The records; None if the run is new.

    Raises:
        ConfigError: The folder already holds a run. Or a run is to be resumed, and the folder
            holds none, or one of another configuration, or one with more epochs already.
        DataError: The checkpoint to resume from is damaged.
    """
    path, last = run / "config.json", last_checkpoint(run)
    if not resume:
        if last.exists():
            raise ConfigError(
                f"{run} already holds a run.",
                remedy="Add --resume to continue it, or choose another folder.",
            )
        return None
    if not last.is_file():
        raise ConfigError(
            f"There is nothing to resume in {run}: it has no checkpoints/last.ckpt.",
            remedy="Start without --resume; a checkpoint is written after each epoch.",
        )
    checkpoint = read_checkpoint(last)
    try:
        recorded = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The record of the run, {path}, cannot be read: {reason_of(error)}.",
            remedy="Start a new run in another folder.",
        ) from error
    _check_same_configuration(recorded, resolved, run)
    check_epochs(checkpoint, run, resolved["epochs"], "epochs")
    records: FileRecords = checkpoint["callbacks"][STATE_KEY]["files"]
    return records


def _check_same_configuration(recorded: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    free = set(_CHANGEABLE)
    if not last_checkpoint(run / "refine").exists():
        # A refinement may be added after the segmenter was trained.
        free.add("refine")
    if changes := differences(recorded, now, free=free):
        raise ConfigError(
            f"The configuration differs from that of the run in {run}: {changes}.",
            remedy="Resume with the same configuration, or start a new run.",
        )
