"""Encode and decode run lengths: the pixels of a mask as `start length start length …`.

Pixels are counted from 1, along rows (`row`) or down columns (`column`), as in the tables of
contests. A run may continue from the end of one line into the next.

`RleTable` reads and writes the CSV tables of contests, without opening an image.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import LabelError
from rooftrace.core.text import reason_of
from rooftrace.core.types import BoolArray, Ints, Window
from rooftrace.io.files import read_head, replacing

Order = Literal["row", "column"]

Bounds = NDArray[np.int64]
"""(n, 2) first pixel of each run and the pixel after its last, from 0, in ascending order."""

NO_RUNS = "-1"
"""Text of a mask without pixels."""

_EMPTY = frozenset(("", NO_RUNS, "nan", "none", "null", "na", "n/a", "<na>"))
_SPACES = " \t\n\v\f\r"
_ALLOWED = f"0123456789{_SPACES}".encode()
_MOST_DIGITS = 18
"""Maximum number of digits: enough for any pixel count; a sum of two fits into int64."""

_REMEDY = "Write runs as START LENGTH START LENGTH …, counted from 1, separated by spaces."


def is_empty(text: str) -> bool:
    """Return whether a text means a mask without pixels."""
    return text.strip(_SPACES).casefold() in _EMPTY


def decode_runs(text: str, shape_yx: tuple[int, int], order: Order, *, where: str) -> BoolArray:
    """Decode a string to a mask (y, x); see `parse_runs` for the arguments and errors."""
    return draw_runs(parse_runs(text, shape_yx, where=where), shape_yx, order)


def encode_runs(mask: NDArray[np.bool_ | np.uint8], order: Order) -> str:
    """Encode the nonzero pixels of a mask (y, x) as text.

    The text is canonical: runs ascend and never touch. An empty mask is `-1`.
    """
    # Comparing bool with a number makes NumPy use eight bytes for each pixel.
    inside = mask if mask.dtype == np.bool_ else mask != 0
    flat: NDArray[np.uint8] = np.ascontiguousarray(inside).view(np.uint8)
    if order == "column":
        # OpenCV transposes by blocks, many times faster than NumPy copies a transposed view.
        flat = np.asarray(cv2.transpose(flat)) if flat.size else flat.T
    flat = flat.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [[0]] if flat.size and flat[0] else []
    ends = [[flat.size]] if flat.size and flat[-1] else []
    values = np.concatenate([*edges, changes, *ends]).astype(np.int64)
    if not len(values):
        return NO_RUNS
    values[1::2] -= values[::2]
    values[::2] += 1
    return " ".join(map(str, values.tolist()))


def parse_runs(text: str, shape_yx: tuple[int, int], *, where: str) -> Bounds:
    """Parse text to runs, checked against the size of the image.

    Runs may be in any order, since the order does not change the mask.

    Args:
        text: `start length …`. A mask without pixels is `-1`, the empty text, or a missing value
            of a table (`nan`, `null`, …).
        shape_yx: Shape of the image.
        where: Location of the text for error messages: table, row and column.

    Raises:
        LabelError: A number is not a whole number from 1, a start has no length, a run ends beyond
            the image, or two runs overlap. The message names `where` and the position of the run.
    """
    if is_empty(text):
        return np.empty((0, 2), dtype=np.int64)
    text = text.strip(_SPACES)
    values = _numbers(text)
    if values is None or values.min() < 1:
        tokens = re.split(f"[{_SPACES}]+", text)
        valid = re.compile(f"0*[1-9][0-9]{{0,{_MOST_DIGITS - 1}}}").fullmatch
        at = next(index for index, token in enumerate(tokens) if not valid(token))
        raise LabelError(
            f"{where}: the {'length' if at % 2 else 'start'} of run {at // 2 + 1} is "
            f"{tokens[at]!r:.26}; expected a whole number from 1 to the number of pixels.",
            remedy=_REMEDY,
        )
    if len(values) % 2:
        raise LabelError(
            f"{where} holds {len(values)} numbers, expected pairs of start and length: the last "
            f"start, {values[-1]}, has no length.",
            remedy=_REMEDY,
        )
    bounds: Bounds = values.reshape(-1, 2) - np.array([1, 0])
    bounds[:, 1] += bounds[:, 0]
    size_px = shape_yx[0] * shape_yx[1]
    if bounds[:, 1].max() > size_px:
        first = int(np.argmax(bounds[:, 1] > size_px))
        raise LabelError(
            f"{where}: {_run(bounds, first)} ends at pixel {bounds[first, 1]:,}, but the image has "
            f"{size_px:,} ({shape_yx[0]} rows × {shape_yx[1]} columns).",
            remedy="Give the image on which the mask was drawn, at its original size.",
        )
    if (bounds[1:, 0] < bounds[:-1, 0]).any():
        bounds = bounds[np.argsort(bounds[:, 0], kind="stable")]
    overlaps = bounds[1:, 0] < bounds[:-1, 1]
    if overlaps.any():
        at = int(np.argmax(overlaps))
        raise LabelError(
            f"{where}: {_run(bounds, at)} and {_run(bounds, at + 1)} overlap.",
            remedy="Write each pixel once. Masks that may overlap need a row of the table each.",
        )
    return bounds


def bounds_of(counts: Ints) -> Bounds:
    """Return the runs of alternating lengths, the first of which is outside the mask."""
    edges = np.cumsum(counts)
    return edges[: len(edges) // 2 * 2].reshape(-1, 2)


def draw_runs(
    bounds: Bounds, shape_yx: tuple[int, int], order: Order, window: Window | None = None
) -> BoolArray:
    """Draw runs as a mask (y, x) or a window of it; only the lines of the window are drawn."""
    height, width = shape_yx
    window = window or Window.whole(shape_yx)
    if order == "row":
        lines, line_px = (window.row, window.row_stop), width
    else:
        lines, line_px = (window.col, window.col_stop), height
    first_px = lines[0] * line_px
    size_px = (lines[1] - lines[0]) * line_px
    inside = bounds
    if size_px < height * width:
        inside = bounds[(bounds[:, 1] > first_px) & (bounds[:, 0] < first_px + size_px)] - first_px
        inside = inside.clip(0, size_px)
    # Lengths of background and mask alternate.
    steps = np.zeros(2 * len(inside) + 2, dtype=np.int64)
    steps[1:-1] = inside.ravel()
    steps[-1] = size_px
    turns = np.arange(len(steps) - 1, dtype=np.uint8) & 1
    drawn = np.repeat(turns, np.diff(steps)).reshape(-1, line_px)
    if order == "row":
        part = drawn[:, window.col : window.col_stop]
    else:
        part = cv2.transpose(drawn[:, window.row : window.row_stop])
    return np.ascontiguousarray(part).view(np.bool_)


def _numbers(text: str) -> Ints | None:
    """Parse whole numbers between spaces; return None for any other text."""
    if text.encode("ascii", "replace").translate(None, _ALLOWED):
        return None
    values: Ints = np.fromstring(text, dtype=np.int64, sep=" ")
    return None if values.max() >= 10**_MOST_DIGITS else values


def _run(bounds: Bounds, index: int) -> str:
    """Describe a run as the user wrote it."""
    start, stop = bounds[index].tolist()
    return f"the run {start + 1} {stop - start}"


ROW_TABLE = ("img_id", "img_path", "mask_rle")
"""Column names of tables whose runs go along rows by convention."""

COLUMN_TABLE = ("ImageId", "EncodedPixels")
"""Column names of tables whose runs go down columns by convention."""

_IDS = ("imgid", "imageid", "id", "img", "image", "name", "imgname", "imagename")
_PATHS = ("imgpath", "imagepath", "path", "filepath", "file", "filename", "imgfile", "imagefile")
_RUNS = ("maskrle", "encodedpixels", "rle", "rlemask", "encodedmask", "runs", "runlengths")
_CLASSES = ("class", "classid", "classname", "label", "labelid", "category", "categoryid",
            "imageidclassid")  # fmt: skip

_HEAD_BYTES = 4096
_WRONG = ";\t|"
"""Characters that separate cells in files that should use commas."""

_MOST_CELL = 2**31 - 1
"""Maximum number of characters in a cell, which holds the mask of a whole scene.

This is the highest limit that `csv` accepts on every platform.
"""

_REMEDY_COLUMNS = (
    "Name the columns img_id,img_path,mask_rle or ImageId,EncodedPixels, separated by commas."
)


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Meaning of the columns of a table.

    Args:
        header: All column names as the file has them.
        id, path: Column index of the image's name and of its file; one of them may be None.
        runs: Column index of the runs.
    """

    header: tuple[str, ...]
    id: int | None
    path: int | None
    runs: int

    @classmethod
    def of(cls, header: Sequence[str], where: str) -> TableColumns:
        """Identify the columns by their names, ignoring case and punctuation.

        Raises:
            LabelError: A required column is missing or ambiguous, or there is a column of classes.
        """
        plain = [_plain(name) for name in header]
        found = {}
        for role, known in (("id", _IDS), ("path", _PATHS), ("runs", _RUNS), ("class", _CLASSES)):
            at = [index for index, name in enumerate(plain) if name in known]
            if len(at) > 1:
                raise LabelError(
                    f"{where} has {len(at)} columns that could be the {role}: "
                    f"{', '.join(repr(header[index]) for index in at)}.",
                    remedy=_REMEDY_COLUMNS,
                )
            found[role] = at[0] if at else None
        if found["class"] is not None:
            raise LabelError(
                f"{where} has a column of classes, {header[found['class']]!r}; a table holds the "
                "masks of one class.",
                remedy="Keep the rows of the building class, and the columns of the image and of "
                "the runs alone.",
            )
        runs = found["runs"]
        if runs is None or (found["id"] is None and found["path"] is None):
            raise LabelError(
                f"{where} has the columns {', '.join(map(repr, header))}; expected one for the "
                "image's name or file, and one for the runs.",
                remedy=_REMEDY_COLUMNS,
            )
        return cls(tuple(header), found["id"], found["path"], runs)

    @property
    def custom(self) -> Order | None:
        """Order that runs have by convention under these column names; None under other names."""
        runs = _plain(self.header[self.runs])
        if runs == _plain(ROW_TABLE[-1]):
            return "row"
        return "column" if runs == _plain(COLUMN_TABLE[-1]) else None

    @property
    def extra(self) -> tuple[str, ...]:
        """Names of the columns that are not used."""
        used = (self.id, self.path, self.runs)
        return tuple(name for index, name in enumerate(self.header) if index not in used)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Args:
        line: Line number in the file, as an editor counts; the header is line 1.
        cells: Cells, one for each column of the header.
    """

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class RleTable:
    """A table of run lengths, in memory as text.

    Args:
        columns: Meaning of the columns.
        rows: Rows in the order of the file.
        newline: Line end after each row.
        name: Name of the file, for messages.
    """

    columns: TableColumns
    rows: tuple[TableRow, ...]
    newline: str = "\n"
    name: str = "the table"

    @classmethod
    def read(cls, path: Path) -> RleTable:
        """Read a table. Runs are checked when they are decoded, not here.

        Raises:
            LabelError: The file is not UTF-8 or not a table with commas, a row has too few or too
                many cells, or the columns cannot be identified. The message names the row.
        """
        try:
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise LabelError(
                f"The table {path} cannot be read: {reason_of(error)}.", remedy="Check the path."
            ) from error
        except UnicodeDecodeError as error:
            raise LabelError(
                f"{path} is not UTF-8: {reason_of(error)}.", remedy="Save it as CSV in UTF-8."
            ) from error
        header, *rows = _rows(text.removeprefix("\ufeff"), path)
        found = re.search("\r\n|\n|\r", text)
        newline = found[0] if found else "\n"
        table = cls(TableColumns.of(header.cells, str(path)), tuple(rows), newline, str(path))
        for row in rows:
            if len(row.cells) != len(header.cells):
                raise LabelError(
                    f"{path}, row {row.line} has {len(row.cells)} cells; expected "
                    f"{len(header.cells)}, as in the header.",
                    remedy="Put cells that contain commas in quotes, and do not omit cells.",
                )
        return table

    def write(self, path: Path, runs: Iterable[str] | None = None) -> None:
        """Write the table in UTF-8, with its own line ends.

        Args:
            path: File to write; it appears only when it is complete.
            runs: Run-length text for each row that replaces its own; consumed one at a time.

        Raises:
            ExportError: The file cannot be written.
        """
        rows = self.rows if runs is None else map(self._with_runs, self.rows, runs)
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator=self.newline)
            writer.writerow(self.columns.header)
            writer.writerows(row.cells for row in rows)

    def image_id(self, row: TableRow) -> str:
        """Return the name of a row's image, or its file if the table has no names."""
        index = self.columns.path if self.columns.id is None else self.columns.id
        assert index is not None
        return row.cells[index].strip()

    def runs(self, row: TableRow) -> str:
        """Return the text of a row's runs."""
        return row.cells[self.columns.runs]

    @property
    def no_runs(self) -> str:
        """Text of a mask without pixels: that of the first such row, or else `NO_RUNS`."""
        return next(filter(is_empty, map(self.runs, self.rows)), NO_RUNS)

    def where(self, row: TableRow) -> str:
        """Return the location of a row's runs, for error messages."""
        return f"{self.name}, row {row.line}, column {self.columns.header[self.columns.runs]!r}"

    def cells(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return for each image the location and the runs of all its rows, by `image_id`."""
        cells: dict[str, list[tuple[str, str]]] = {}
        for row in self.rows:
            cells.setdefault(self.image_id(row), []).append((self.where(row), self.runs(row)))
        return {name: tuple(rows) for name, rows in cells.items()}

    def _with_runs(self, row: TableRow, runs: str) -> TableRow:
        at = self.columns.runs
        return TableRow(row.line, (*row.cells[:at], runs, *row.cells[at + 1 :]))


def is_table(path: Path) -> bool:
    """Return whether a file is a table of run lengths, judging by its column names.

    A table with another separator than commas, or with a column of classes, counts too: reading it
    raises an error that explains the problem.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        head = read_head(path, _HEAD_BYTES).decode(errors="replace")
        first = re.split(r"[\r\n]", head)[0]
    except OSError:
        return False
    names = set(map(_plain, re.split(f"[,{_WRONG}]", first)))
    return not names.isdisjoint(_RUNS) and not names.isdisjoint((*_IDS, *_PATHS, *_CLASSES))


def _plain(name: str) -> str:
    """Return a column name in lower case, without punctuation."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _rows(text: str, path: Path) -> list[TableRow]:
    """Return the rows of a file, the header first; empty lines are skipped."""
    rows = []
    # The limit applies to the whole process and is restored, since other code may rely on it.
    limit = csv.field_size_limit(_MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                rows.append(TableRow(line, tuple(cells)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(
            f"{path}, row {line} is not CSV: {error}.",
            remedy="Save the table as CSV with commas, and double quotes inside quoted cells.",
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise LabelError(f"The table {path} is empty.", remedy=_REMEDY_COLUMNS)
    header = rows[0].cells
    wrong = next((sign for sign in _WRONG if sign in header[0]), None)
    if len(header) == 1 and wrong is not None:
        raise LabelError(
            f"The cells of {path} are separated by {wrong!r}; expected commas.",
            remedy="Save the table as CSV with commas.",
        )
    return rows
