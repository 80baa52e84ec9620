"""Runs of masks as they are computed, kept beside the table that they will make."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rooftrace.io.atomic import export_error

__all__ = ["Journal"]

_LINE = re.compile(rb"(\d{1,12}) ([-0-9][ 0-9]*)\n")


class Journal:
    """A file of one line for each image; what stands in it survives the process.

    The first line says what the runs were computed with. A journal of the same is gone on with;
    one of anything else is begun anew.

    Args:
        path: of the journal.
        made_with: what the result depends on; plain data.

    Raises:
        ExportError: the file cannot be written.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        self.path = path
        self._offsets: dict[int, int] = {}
        head = json.dumps(made_with, sort_keys=True).encode() + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.replaced = path.exists() and not self._is_of(head)
            self._file = path.open("r+b" if path.exists() and not self.replaced else "w+b")
            if self._file.readline() != head:
                self._file.write(head)
            self._take_up()
        except OSError as error:
            raise export_error(path, error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, index: object) -> bool:
        return index in self._offsets

    def __getitem__(self, index: int) -> str:
        """The runs of an image."""
        self._file.seek(self._offsets[index])
        return self._file.readline().rstrip(b"\n").decode("ascii")

    def add(self, index: int, runs: str) -> None:
        """Keep the runs of an image, whatever happens next."""
        try:
            self._file.seek(0, 2)
            line = f"{index} ".encode()
            self._offsets[index] = self._file.tell() + len(line)
            self._file.write(line + runs.encode("ascii") + b"\n")
            self._file.flush()
        except OSError as error:
            raise export_error(self.path, error) from error

    def discard(self) -> None:
        """Remove the file, when what it was kept for is written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _is_of(self, head: bytes) -> bool:
        with self.path.open("rb") as file:
            return file.readline() == head

    def _take_up(self) -> None:
        """Find what is there already; a line that was cut off is written over."""
        end = self._file.tell()
        for line in iter(self._file.readline, b""):
            match = _LINE.fullmatch(line)
            if match is None:
                break
            self._offsets[int(match[1])] = end + match.start(2)
            end += len(line)
        self._file.seek(end)
        self._file.truncate()
