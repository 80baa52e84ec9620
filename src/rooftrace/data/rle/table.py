"""CSV tables of run lengths, read and written without an image; read and written again they are
the same to the byte.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rooftrace.core.errors import LabelError
from rooftrace.core.types import BoolArray
from rooftrace.data.runs import Order, decode_runs
from rooftrace.io.atomic import replacing

__all__ = ["COLUMN_TABLE", "ROW_TABLE", "Columns", "RleTable", "Row", "Style", "is_table"]

ROW_TABLE = ("img_id", "img_path", "mask_rle")
"""Columns of tables whose runs go along rows, by custom."""

COLUMN_TABLE = ("ImageId", "EncodedPixels")
"""Columns of tables whose runs go down columns, by custom."""

_IDS = ("imgid", "imageid", "id", "img", "image", "name", "imgname", "imagename")
_PATHS = ("imgpath", "imagepath", "path", "filepath", "file", "filename", "imgfile", "imagefile")
_RUNS = ("maskrle", "encodedpixels", "rle", "rlemask", "encodedmask", "runs", "runlengths")
_CLASSES = ("class", "classid", "classname", "label", "labelid", "category", "categoryid")

_HEAD_BYTES = 4096
_WRONG = ";\t|"
"""What stands between cells where it should be commas."""

_MOST_CELL = 2**31 - 1
"""Characters: a mask of a large scene is one cell. `csv` takes no higher limit everywhere."""

_REMEDY_COLUMNS = (
    "Name the columns img_id,img_path,mask_rle, or ImageId,EncodedPixels, apart by commas."
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a table is what.

    Args:
        header: all names, as they stand in the file.
        id, path: index of the image's name and of its file; one of them may be None.
        runs: index of the runs.
    """

    header: tuple[str, ...]
    id: int | None
    path: int | None
    runs: int

    @classmethod
    def of(cls, header: Sequence[str], where: str) -> Columns:
        """Tell the columns apart by their names, whatever case and signs these have.

        Raises:
            LabelError: none or several for one thing; a column of classes.
        """
        plain = [_plain(name) for name in header]
        found = {}
        for role, known in (("id", _IDS), ("path", _PATHS), ("runs", _RUNS), ("class", _CLASSES)):
            at = [index for index, name in enumerate(plain) if name in known]
            if len(at) > 1:
                raise LabelError(
                    f"{where} has {len(at)} columns that may be the {role}: "
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
        """The order that runs have by custom under such names; None under others."""
        runs = _plain(self.header[self.runs])
        if runs == _plain(ROW_TABLE[-1]):
            return "row"
        return "column" if runs == _plain(COLUMN_TABLE[-1]) else None

    @property
    def extra(self) -> tuple[str, ...]:
        """Names of the columns that nothing is made of."""
        used = (self.id, self.path, self.runs)
        return tuple(name for index, name in enumerate(self.header) if index not in used)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Args:
        line: in the file, as an editor counts; the header is line 1.
        cells: as many as the header has.
    """

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is written, besides what it says.

    Args:
        newline: after each row.
        last_newline: whether after the last, too.
        bom: whether it begins with a byte order mark.
        quoted: whether every cell is in quotes; else only those that need them.
    """

    newline: str = "\n"
    last_newline: bool = True
    bom: bool = False
    quoted: bool = False

    def format(self, rows: Iterable[Sequence[str]]) -> str:
        """Rows as text, each with its line end."""
        lines = _Lines(self.newline)
        writer = csv.writer(lines, quoting=csv.QUOTE_ALL) if self.quoted else csv.writer(lines)
        writer.writerows(rows)
        return "".join(lines)


class _Lines(list[str]):
    """What a `csv.writer` writes to, a row at a time.

    The writer's own line end is CR LF: of the characters that end a line it quotes only those.
    """

    def __init__(self, newline: str) -> None:
        super().__init__()
        self._newline = newline

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + self._newline)


@dataclass(frozen=True)
class RleTable:
    """A table of run lengths, in memory as text.

    Args:
        columns: which is what.
        rows: in the order of the file.
        style: how it is written.
        name: of the file, for messages.
    """

    columns: Columns
    rows: tuple[Row, ...]
    style: Style = Style()
    name: str = "the table"

    @classmethod
    def read(cls, path: Path) -> RleTable:
        """Read a table. Runs are checked when they are decoded, not here.

        Raises:
            LabelError: not UTF-8, no table with commas, a row with too few or too many cells, or
                columns that cannot be told apart; names the row.
        """
        try:
            data = path.read_bytes()
            text = data.decode("utf-8")
        except OSError as error:
            raise LabelError(
                f"The table {path} cannot be read: {error.strerror or error}.",
                remedy="Check the path.",
            ) from error
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise LabelError(
                f"{path}, row {line}: the byte {data[error.start]:#04x} is not UTF-8.",
                remedy="Save the table as CSV in UTF-8.",
            ) from error
        header, *rows = _rows(text.removeprefix("\ufeff"), path)
        table = cls(Columns.of(header.cells, str(path)), tuple(rows), _style(text), str(path))
        for row in rows:
            if len(row.cells) != len(header.cells):
                raise LabelError(
                    f"{path}, row {row.line} has {len(row.cells)} cells; expected "
                    f"{len(header.cells)}, as the header.",
                    remedy="Put cells that hold commas in quotes, and leave none out.",
                )
        return table

    def write(self, path: Path, runs: Iterable[str] | None = None) -> None:
        """Write the table, with its own line ends, quotes and byte order mark.

        Args:
            path: appears when all of it is there.
            runs: a text for each row, in place of its own; taken one at a time.

        Raises:
            ExportError: the file cannot be written.
        """
        rows = self.rows if runs is None else map(self._with_runs, self.rows, runs)
        cells = itertools.chain([self.columns.header], (row.cells for row in rows))
        lines = (self.style.format([row]) for row in cells)
        encoding = "utf-8-sig" if self.style.bom else "utf-8"
        with (
            replacing(path) as partial,
            partial.open("w", encoding=encoding, newline="") as file,
        ):
            before = next(lines)
            for line in lines:
                file.write(before)
                before = line
            last = before if self.style.last_newline else before.removesuffix(self.style.newline)
            file.write(last)

    def image_id(self, row: Row) -> str:
        """What a row calls its image: the name, or else the file."""
        index = self.columns.path if self.columns.id is None else self.columns.id
        assert index is not None
        return row.cells[index].strip()

    def image_path(self, row: Row) -> str:
        """What a row gives as its image's file; only of a table that has such a column."""
        assert self.columns.path is not None
        return row.cells[self.columns.path].strip()

    def runs(self, row: Row) -> str:
        """The text of a row's runs."""
        return row.cells[self.columns.runs]

    def where(self, row: Row) -> str:
        """A row's runs, as errors call them."""
        return f"{self.name}, row {row.line}, column {self.columns.header[self.columns.runs]!r}"

    def mask(self, row: Row, shape_yx: tuple[int, int], order: Order) -> BoolArray:
        """The mask (y, x) of one row.

        Raises:
            LabelError: see `data.runs.parse_runs`.
        """
        return decode_runs(self.runs(row), shape_yx, order, where=self.where(row))

    def _with_runs(self, row: Row, runs: str) -> Row:
        at = self.columns.runs
        return Row(row.line, (*row.cells[:at], runs, *row.cells[at + 1 :]))


def is_table(path: Path) -> bool:
    """Whether a file is a table of run lengths, by the names of its columns.

    One with other signs than commas between them is, too: reading it says what is amiss.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
        first = re.split(r"[\r\n]", head)[0]
        Columns.of([name.strip('"') for name in re.split(f"[,{_WRONG}]", first)], str(path))
    except (OSError, LabelError):
        return False
    return True


def _plain(name: str) -> str:
    """A column's name without its case and signs."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _rows(text: str, path: Path) -> list[Row]:
    """The rows of a file, the header first; lines without anything are no rows."""
    rows = []
    # The limit is of the whole process; others may count on it.
    limit = csv.field_size_limit(_MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                rows.append(Row(line, tuple(cells)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(
            f"{path}, row {line} is not CSV: {error}.",
            remedy="Save the table as CSV with commas, quotes doubled inside of quotes.",
        ) from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise LabelError(f"The table {path} is empty.", remedy=_REMEDY_COLUMNS)
    header = rows[0].cells
    wrong = next((sign for sign in _WRONG if sign in header[0]), None)
    if len(header) == 1 and wrong is not None:
        raise LabelError(
            f"The cells of {path} are apart by {wrong!r}, expected commas.",
            remedy="Save the table as CSV with commas.",
        )
    return rows


def _style(text: str) -> Style:
    newline = re.search("\r\n|\n|\r", text)
    sign = newline[0] if newline else "\n"
    body = text.removeprefix("\ufeff")
    return Style(sign, text.endswith(sign), text != body, body.startswith('"'))
