"""Write the figures of a video as CSV or Parquet, one row a frame."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.io.files import replacing

__all__ = ["FrameRow", "FrameTable", "check_table", "frame_table"]

_AT_ONCE = 4096
"""Number of Parquet rows that are written together."""


@dataclass(frozen=True)
class FrameRow:
    """Figures of one frame.

    Args:
        frame: Number of the frame in the result, from 0.
        seconds: Time of the frame in seconds from the start of the result.
        built_up_share: Built-up share of its pixels.
        buildings: Number of connected parts of the mask.
        smoothed: Whether earlier frames count, too.
        skipped: Whether `--stride` skipped the network for this frame.
    """

    frame: int
    seconds: float
    built_up_share: float
    buildings: int
    smoothed: bool
    skipped: bool


class FrameTable(Protocol):
    """Takes rows in their order."""

    def add(self, row: FrameRow) -> None: ...


class _NoTable:
    def add(self, row: FrameRow) -> None:
        pass


def check_table(path: Path) -> None:
    """Raise ConfigError if the file name ends in neither .csv nor .parquet."""
    if path.suffix.lower() not in (".csv", ".parquet") or path.is_dir():
        raise ConfigError(
            f"The table was to be {path}, expected a file that ends in .csv or .parquet.",
            remedy="For example: --table frames.csv",
        )


@contextmanager
def frame_table(path: Path | None) -> Iterator[FrameTable]:
    """Open a table that appears under its name when the block ends without an error.

    Without a path nothing is kept.

    Raises:
        ConfigError: See `check_table`.
        MissingExtraError: The table is Parquet, and pyarrow is not installed.
        ExportError: The table cannot be written.
    """
    if path is None:
        with nullcontext(_NoTable()) as nothing:
            yield nothing
        return
    check_table(path)
    opened = _csv if path.suffix.lower() == ".csv" else _parquet
    with replacing(path) as partial, opened(partial) as table:
        yield table


class _Csv:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def add(self, row: FrameRow) -> None:
        self._writer.writerow(
            [row.frame, f"{row.seconds:.6f}", f"{row.built_up_share:.6f}", row.buildings,
             int(row.smoothed), int(row.skipped)]
        )  # fmt: skip


@contextmanager
def _csv(path: Path) -> Iterator[FrameTable]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([one.name for one in fields(FrameRow)])
        yield _Csv(writer)


class _Parquet:
    def __init__(self, arrow: Any, schema: Any, writer: Any) -> None:
        self._arrow, self._schema, self._writer = arrow, schema, writer
        self._rows: list[dict[str, Any]] = []

    def add(self, row: FrameRow) -> None:
        self._rows.append(asdict(row))
        if len(self._rows) >= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()


@contextmanager
def _parquet(path: Path) -> Iterator[FrameTable]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError.of("parquet", "A table in Parquet", "pyarrow") from error
    kinds = [pa.int64(), pa.float64(), pa.float64(), pa.int64(), pa.bool_(), pa.bool_()]
    schema = pa.schema([(one.name, kind) for one, kind in zip(fields(FrameRow), kinds)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        table = _Parquet(pa, schema, writer)
        yield table
        table.flush()
