"""Read and write CSV tables of run lengths, without opening an image."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rooftrace.core.errors import LabelError
from rooftrace.core.text import reason_of
from rooftrace.io.files import read_head, replacing
from rooftrace.labels.rle.codec import Order

ROW_TABLE = ("img_id", "img_path", "mask_rle")
"""Column names of tables whose runs go along rows by convention."""

COLUMN_TABLE = ("ImageId", "EncodedPixels")
"""Column names of tables whose runs go down columns by convention."""

_IDS = ("imgid", "imageid", "id", "img", "image", "name", "imgname", "imagename")
_PATHS = ("imgpath", "imagepath", "path", "filepath", "file", "filename", "imgfile", "imagefile")
_RUNS = ("maskrle", "encodedpixels", "rle", "rlemask", "encodedmask", "runs", "runlengths")
_CLASSES = ("class", "classid", "classname", "label", "labelid", "category", "categoryid")

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
        runs = found["runs"]
        if runs is None or (found["id"] is None and found["path"] is None):
            raise LabelError(
                f"{where} has the columns {', '.join(map(repr, header))}; expected one for the "
                "image's name or file, and one for the runs.",
                remedy=_REMEDY_COLUMNS,
            )
        if found["class"] is not None:
            raise LabelError(
                f"{where} has a column of classes, {header[found['class']]!r}; a table holds the "
                "masks of one class.",
                remedy="Keep the rows of the building class, and take the column out.",
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
            data = path.read_bytes()
            text = data.decode("utf-8")
        except OSError as error:
            raise LabelError(
                f"The table {path} cannot be read: {reason_of(error)}.",
                remedy="Check the path.",
            ) from error
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise LabelError(
                f"{path}, row {line}: the byte {data[error.start]:#04x} is not UTF-8.",
                remedy="Save the table as CSV in UTF-8.",
            ) from error
        header, *rows = _rows(text.removeprefix("\ufeff"), path)
        table = cls(
            TableColumns.of(header.cells, str(path)), tuple(rows), _newline(text), str(path)
        )
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

    def image_path(self, row: TableRow) -> str:
        """Return the file of a row's image; the table must have a column of files."""
        assert self.columns.path is not None
        return row.cells[self.columns.path].strip()

    def runs(self, row: TableRow) -> str:
        """Return the text of a row's runs."""
        return row.cells[self.columns.runs]

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

    A table with another separator than commas counts too: reading it raises an error that explains
    the problem.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        head = read_head(path, _HEAD_BYTES).decode(errors="replace")
        first = re.split(r"[\r\n]", head)[0]
        TableColumns.of([name.strip('"') for name in re.split(f"[,{_WRONG}]", first)], str(path))
    except (OSError, LabelError):
        return False
    return True


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


def _newline(text: str) -> str:
    found = re.search("\r\n|\n|\r", text)
    return found[0] if found else "\n"
