"""Compiled networks in the user's cache, which load in a quarter of the time of compiling."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rooftrace.core.errors import RooftraceError
from rooftrace.core.machine import user_cache
from rooftrace.io.files import write_atomically

__all__ = ["NetworkCache"]

_MAX_BYTES = 256 * 2**20
"""Maximum size of the folder. A network of the default model has 6 MB."""

_DIGEST_BYTES = 32


class NetworkCache:
    """Folder of compiled networks; a folder that cannot be used is one without networks.

    A file begins with the SHA-256 of the rest, so that a damaged one counts as missing. Files that
    were not used for longest are removed.

    Args:
        folder: The folder, created at the first network; default: in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        if folder is None:
            with suppress(RuntimeError):  # no home
                self._folder = user_cache() / "networks"

    def load(self, *key: object) -> bytes | None:
        """Return a network by everything on which it depends, as plain data; None if missing."""
        path = self._path(key)
        if path is None:
            return None
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        network = data[_DIGEST_BYTES:]
        is_whole = hashlib.sha256(network).digest() == data[:_DIGEST_BYTES]
        return network if is_whole else None

    def save(self, network: bytes, *key: object) -> None:
        """Keep a network, see `load`."""
        path = self._path(key)
        if path is None:
            return
        with suppress(OSError, RooftraceError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(_DIGEST_BYTES + len(network))
            write_atomically(path, hashlib.sha256(network).digest() + network)

    def _path(self, key: tuple[object, ...]) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.network"

    def _make_room(self, nbytes: int) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total + nbytes <= _MAX_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        assert self._folder is not None
        for path in self._folder.glob("*.network"):
            with suppress(OSError):
                state = path.stat()
                yield state.st_mtime, state.st_size, path
