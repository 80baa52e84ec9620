"""The record of a run's data in its checkpoint, by which a resumed run notices changed files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rooftrace.core.errors import DataError
from rooftrace.core.text import list_first, plural

__all__ = [
    "STATE_KEY",
    "FileRecords",
    "check_same_files",
    "names_of",
    "record_files",
    "recorded_files",
]

FileRecords = Mapping[str, str]
"""`SIZE MTIME_NS HASH` of each file by its name. The hash is that of a sample of its bytes."""

STATE_KEY = "Data"
"""Key of the record among the callbacks of a checkpoint."""

_BLOCK_BYTES = 4096

_BLOCKS = 4
"""Number of blocks of a larger file that are hashed: at its start, its end, and evenly between."""

_THREADS = 8

_MAX_LISTED = 3
"""Maximum number of files of each kind of change that an error lists."""


def record_files(files: Mapping[str, Path], known: FileRecords | None = None) -> FileRecords:
    """Return the record of each file that exists.

    Args:
        files: Files by name.
        known: Earlier records; a file with the same size and time as there is not read again.
    """
    known = known or {}
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _record(files[name], known.get(name, "")), files)
        return {name: one for name, one in zip(files, found) if one is not None}


def recorded_files(checkpoint: Mapping[str, Any]) -> FileRecords | None:
    """Return the records in a checkpoint; None if an earlier version wrote it without them."""
    try:
        files: FileRecords = checkpoint["callbacks"][STATE_KEY]["files"]
        return {str(name): str(record) for name, record in files.items()}
    except (KeyError, TypeError, AttributeError):
        return None


def check_same_files(before: FileRecords, now: FileRecords, run: Path) -> None:
    """Raise DataError if files are new, missing or changed; a new time alone is no change.

    Args:
        before: Records in the checkpoint.
        now: Records of the present files.
        run: Folder of the run, for the message.
    """
    kinds = {
        "changed": [n for n in now if n in before and _content(before[n]) != _content(now[n])],
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


def _content(record: str) -> list[str]:
    """Return the size and the hash of a record."""
    return record.split(" ")[::2]


def _record(file: Path, known: str) -> str | None:
    try:
        stat = file.stat()
        state = f"{stat.st_size} {stat.st_mtime_ns} "
        return known if known.startswith(state) else state + _sample_hash(file, stat.st_size)
    except OSError:
        # Reading the data reports it.
        return None


def _sample_hash(file: Path, size: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    with file.open("rb", buffering=0) as stream:
        for start in _starts(size):
            stream.seek(start)
            digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()


def _starts(size: int) -> Iterable[int]:
    if size <= _BLOCK_BYTES * _BLOCKS:
        return range(0, size, _BLOCK_BYTES)
    return [i * (size - _BLOCK_BYTES) // (_BLOCKS - 1) for i in range(_BLOCKS)]


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
