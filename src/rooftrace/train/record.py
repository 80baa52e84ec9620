"""What a folder of a run holds, before anything is trained: its configuration, or that of the run
that is to be resumed.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from rooftrace.core.config import differences
from rooftrace.core.errors import ConfigError
from rooftrace.io.atomic import write_atomically
from rooftrace.train.config import TrainConfig
from rooftrace.train.distributed import is_first

__all__ = ["check_whole", "prepare"]


def prepare(config: TrainConfig, run: Path, base: Path, last: Path, *, resume: bool) -> None:
    """Check what is in the folder of a run, and record the configuration there.

    Args:
        base: folder that relative paths of the configuration start from.
        last: the checkpoint that a resumed run goes on from.

    Raises:
        ConfigError: the folder holds a run already, or none where one is to be resumed, or one of
            another configuration.
    """
    record = run / "config.json"
    resolved = config.relative_to(base.resolve())
    if resume:
        if not last.is_file():
            raise ConfigError(
                f"There is nothing to resume in {run}: it has no checkpoints/last.ckpt.",
                remedy="Start without --resume; a checkpoint is written after each epoch.",
            )
        check_whole(last)
        try:
            before = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The record of the run, {record}, cannot be read: {error}.",
                remedy="Start a new run in another folder.",
            ) from error
        _check_same(before, resolved, run)
    elif last.exists():
        raise ConfigError(
            f"{run} holds a run already.",
            remedy="Add --resume to go on with it, or choose another folder.",
        )
    if is_first(config):
        write_atomically(record, (json.dumps(resolved, indent=1) + "\n").encode())


def check_whole(checkpoint: Path) -> None:
    """Raises ConfigError where the file is no checkpoint, or part of one."""
    if not zipfile.is_zipfile(checkpoint):
        raise ConfigError(
            f"The checkpoint {checkpoint} is not whole; there is nothing to resume from.",
            remedy="Start a new run in another folder.",
        )


def _check_same(before: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    # How long a run goes on, and what is made of it in the end, may change; what it is may not.
    free = {"epochs", "stop", "export", "workers", "device", "devices", "nodes", "watch", "base"}
    free |= {"refine.epochs", "refine.patience"}
    if not (run / "refine" / "checkpoints" / "last.ckpt").exists():
        # A trained segmenter may be refined on second thoughts.
        free.add("refine")
    if told := differences(before, now, free=free):
        raise ConfigError(
            f"The configuration is not that of the run in {run}: {told}.",
            remedy="Resume with the same configuration, or start a new run.",
        )
