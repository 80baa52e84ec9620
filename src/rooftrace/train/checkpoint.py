"""Weights on disk: the checkpoint that a resumed run starts from, and the checks before that.

A checkpoint is Lightning's, written by `torch.save` and read by PyTorch's reader of tensors and
plain data alone (`weights_only=True`), which runs no code. It also records the scenes of the run's
data. A run is resumed with the same scenes and the same configuration, except for the keys in
`_CHANGEABLE`.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from rooftrace.core.config import differences
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import list_first, plural, reason_of
from rooftrace.io.files import export_error, replacing, write_atomically


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
    """Load the weights of a network from a .safetensors file."""
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
    """Compare weights by name and shape, before anything is loaded."""
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
        f"{kind} {list_first(names)} ({len(names)})" for kind, names in wrong.items() if names
    ]
    if problems:
        raise ConfigError(
            f"{source} does not hold the weights of this network: {'; '.join(problems)}.",
            remedy="Use the configuration and the package versions that it was written with: "
            "config.json and the bundle name them.",
        )


class SafeCheckpointIO(CheckpointIO):
    """Lightning's plugin for checkpoints that appear when they are complete."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ExportError: The file cannot be written. A file that was there before stays as it was.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`. Its tensors are on the CPU."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, and check that it is complete and unchanged."""
    try:
        # PyTorch itself does not compare the checksums.
        with zipfile.ZipFile(path) as records:
            damaged = records.testzip()
        if damaged is not None:
            raise ValueError(f"its part {damaged} is damaged")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and PyTorch raise many types for damaged files
        raise DataError(
            f"The checkpoint {path} cannot be used: {reason_of(error, most=300)}.",
            remedy="Restore it from a copy, or start a new run in another folder. The weights of "
            "the best epochs are in separate files beside it.",
        ) from error
    return checkpoint


def check_epochs(checkpoint: Mapping[str, Any], run: Path, epochs: int, key: str) -> None:
    """Raise ConfigError if a run already has more epochs than its configuration now asks for."""
    last = checkpoint.get("epoch")
    if isinstance(last, int) and last + 1 > epochs:
        raise ConfigError(
            f"The run in {run} has {plural(last + 1, 'finished epoch')}, and {key} = {epochs}.",
            remedy=f"Set {key} to {last + 1} or more. With {last + 1}, nothing is trained, and the "
            "bundles are written again.",
        )


DataRecord = Mapping[str, str]
"""Number and hash of the scene ids of each part of the data."""

STATE_KEY = "Data"
"""Key of the record among the callbacks of a checkpoint."""


def record_scenes(parts: Mapping[str, Sequence[str]]) -> DataRecord:
    """Return the record of the scene ids of each part."""
    return {
        part: f"{plural(len(ids), 'scene')} {hashlib.sha256(chr(0).join(ids).encode()).hexdigest()}"
        for part, ids in parts.items()
    }


def check_same_scenes(before: DataRecord, now: DataRecord, run: Path) -> None:
    """Raise DataError if a run had other scenes."""
    for part, record in now.items():
        if before.get(part) != record:
            count = before.get(part, "0 scenes").rpartition(" ")[0]
            raise DataError(
                f"The data is not that of the run in {run}: the part {part} had {count}, and has "
                f"{record.rpartition(' ')[0]} or others.",
                remedy="Restore the data, or start a new run in another folder.",
            )


_CHANGEABLE = (
    "epochs", "stop", "export", "track", "workers", "device", "base", "refine.epochs",
    "refine.patience",
)  # fmt: skip
"""Keys that a resumed run may change: they decide how long it runs and what is made of it, not
what the network learns from."""


def check_run_folder(run: Path, resolved: dict[str, Any], *, resume: bool) -> DataRecord | None:
    """Check what the folder of a run holds, and return the record of the data in its checkpoint.

    Returns:
        The record; None if the run is new.
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
    record: DataRecord = checkpoint["callbacks"][STATE_KEY]["scenes"]
    return record


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
