"""Store of a review: one GeoPackage beside the predicted polygons, which stay as they are.

The layer of the file has one row for each building that a person has touched; its `fid` is the
number of the building. The table `review_changes` keeps every change, so that undo brings back any
earlier state. Each write is one SQLite transaction, synchronised with the disk. A write names the
revisions that it saw, and is refused if another reviewer has changed one of the buildings since.
No state is kept in memory: several servers may work on one file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.text import reason_of, utc_now
from rooftrace.io.files import export_error, exporting
from rooftrace.io.vector_read import VectorLockedError
from rooftrace.io.vector_write import write_layer
from rooftrace.io.vector_writers import LayerChunk, LayerSettings

ReviewStatus = Literal["open", "accepted", "rejected", "changed", "added"]
"""`open`: not decided. `changed`: accepted with another outline. `added`: drawn by a person."""

STATUSES: tuple[ReviewStatus, ...] = get_args(ReviewStatus)

REVIEW_COLOURS: Mapping[str, str] = {
    "open": "#f0e442", "accepted": "#009e73", "rejected": "#d55e00", "changed": "#56b4e9",
    "added": "#cc79a7",
}  # fmt: skip
"""Colours of Okabe and Ito (2008), also on the map page and in the QGIS plugin."""

_WAIT_S = 3.0
"""Seconds that a request waits for a file that another program is writing to."""

REVIEW_SUFFIX = "_review.gpkg"
"""End of the name of a review; the beginning is the name of the image."""

_UNDO = "undo"
_ENVELOPE_BYTES = (0, 32, 48, 48, 64)
"""Size of the envelope by its indicator in the header of a GeoPackage geometry."""

_SCHEMA = """
CREATE TABLE review_changes (
    fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    revision INTEGER NOT NULL,
    building INTEGER NOT NULL,
    action TEXT NOT NULL,
    status TEXT,
    origin INTEGER,
    reviewer TEXT NOT NULL,
    time TEXT NOT NULL,
    before INTEGER NOT NULL,
    state INTEGER NOT NULL,
    undoes INTEGER,
    outline BLOB
);
CREATE INDEX review_changes_by_building ON review_changes (building, revision);
CREATE TABLE review_source (
    fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, fingerprint TEXT NOT NULL
);
INSERT INTO gpkg_contents (table_name, data_type, identifier)
    VALUES ('review_changes', 'attributes', 'review_changes'),
           ('review_source', 'attributes', 'review_source')"""


class ReviewFileError(DataError):
    """The file of a review is damaged, or belongs to other polygons."""


class OtherPolygonsError(ReviewFileError):
    """The review belongs to other polygons: these have been predicted again since."""


class ReviewLockedError(VectorLockedError):
    """Another program holds the file of the review."""


class ReviewConflictError(RooftraceError):
    """Another reviewer has changed a building since it was read.

    Args:
        message: See `RooftraceError`.
        buildings: Current states of the buildings that differ; a removed building is left out.
    """

    def __init__(self, message: str, buildings: Sequence[ReviewBuilding] = ()) -> None:
        super().__init__(message, remedy="Look at its present state and decide again.")
        self.buildings = tuple(buildings)


@dataclass(frozen=True, eq=False)
class PredictedLayer:
    """The predicted polygons that are reviewed.

    Args:
        name: Name of their file.
        ids: (n,) int64 unique numbers of the buildings.
        geometry: (n,) shapely polygons and multipolygons.
        crs: CRS of the geometry; None for pixels.
        fingerprint: Hash of the numbers and outlines.
    """

    name: str
    ids: NDArray[np.int64]
    geometry: NDArray[np.object_]
    crs: CRS | None
    fingerprint: str

    @cached_property
    def index(self) -> dict[int, int]:
        """Index in the arrays by number of the building."""
        return dict(zip(self.ids.tolist(), range(len(self.ids))))

    def outline(self, building: int) -> BaseGeometry | None:
        """Return the predicted outline of a building; None if it is not a predicted one."""
        at = self.index.get(building)
        return None if at is None else self.geometry[at]


@dataclass(frozen=True)
class ReviewBuilding:
    """A building in its current state.

    Args:
        status: Decision of the last reviewer.
        outline: Polygon in the CRS of the layer.
        origin: Building of which it was a part, or into which it was merged; None otherwise.
        reviewer: Name of the last reviewer; "" if it was not touched.
        time: Time of the last change (ISO 8601, UTC), or "".
        revision: Number of the last change to it; 0 if there is none.
    """

    id: int
    status: ReviewStatus
    outline: BaseGeometry
    origin: int | None = None
    reviewer: str = ""
    time: str = ""
    revision: int = 0


@dataclass(frozen=True)
class Edit:
    """A decision about one building.

    Args:
        building: Number of the building; None for a new one.
        decision: Whether it is kept, rejected, or open again.
        outline: New outline; None to keep the current one.
        origin: See `ReviewBuilding.origin`.
    """

    building: int | None
    decision: Literal["keep", "reject", "open"]
    outline: BaseGeometry | None = None
    origin: int | None = None


class ReviewStore:
    """The review of one predicted layer. The file appears with the first change."""

    def __init__(self, path: Path, layer: PredictedLayer) -> None:
        self.path = path
        self.layer = layer

    def get(self, building: int) -> ReviewBuilding | None:
        """Return the current state of a building; None if there is no such building.

        Raises:
            ReviewLockedError: Another program holds the file.
            ReviewFileError: The file is damaged, or belongs to other polygons.
        """
        with self._reading() as file:
            return self._state(file, building)

    def touched(self, after: int = 0) -> tuple[list[ReviewBuilding], list[int]]:
        """Return the buildings that were changed after a revision, and those that were removed.

        Both are in the order of the changes. An added building is removed by an undo.
        """
        with self._reading() as file:
            if file is None:
                return [], []
            names = _names(file)
            rows = file.execute(
                "SELECT building, r, t.* FROM (SELECT building, max(revision) AS r "  # noqa: S608  # nosec B608
                f"FROM review_changes GROUP BY building) LEFT JOIN {names.layer} t "
                "ON t.fid = building WHERE r > ? ORDER BY r, building",
                (after,),
            ).fetchall()
            removed = [row["building"] for row in rows if row["fid"] is None]
            return [self._building(names, row) for row in rows if row["fid"] is not None], removed

    def statuses(self) -> tuple[int, dict[int, ReviewStatus]]:
        """Return the last revision, and the status of each touched building by its number."""
        with self._reading() as file:
            if file is None:
                return 0, {}
            names = _names(file)
            (last,) = file.execute("SELECT max(revision) FROM review_changes").fetchone()
            rows = file.execute(f"SELECT fid, status FROM {names.layer} ORDER BY fid")  # noqa: S608  # nosec B608
            return last or 0, {row["fid"]: self._status(row) for row in rows}

    def change(
        self, reviewer: str, action: str, seen: Mapping[int, int], edits: Sequence[Edit]
    ) -> tuple[ReviewBuilding, ...]:
        """Make a change of one or more buildings, all of it or nothing, and return their states.

        Args:
            reviewer: Name of the person.
            action: Name of the change in the history.
            seen: Revision of each building that the person saw.
            edits: Decisions about single buildings.

        Raises:
            ReviewConflictError: Another reviewer has changed one of the buildings since.
        """
        with self._writing() as file:
            before = {number: self._state(file, number) for number in seen}
            for building, seen_revision in seen.items():
                present = before[building]
                if present is None or present.revision != seen_revision:
                    raise self._conflict(building, present)
            revision = _next_revision(file)
            new = self._next_number(file)
            states = []
            for edit in edits:
                number = edit.building
                if number is None:
                    number, new = new, new + 1
                current = before.get(number)
                outline = edit.outline or (None if current is None else current.outline)
                assert outline is not None
                status = self._decided(number, outline, edit)
                state = ReviewBuilding(
                    number, status, outline, edit.origin, reviewer, utc_now(), revision
                )
                self._write(file, action, state, current.revision if current else 0)
                states.append(state)
            return tuple(states)

    def undo(self, reviewer: str) -> tuple[ReviewBuilding, ...]:
        """Undo the last change of a reviewer that was not undone yet.

        Returns:
            The buildings in their earlier states, without added ones, which are removed; empty if
            there is nothing to undo.

        Raises:
            ReviewConflictError: Another reviewer has changed one of the buildings since.
        """
        if not self.path.exists():
            return ()
        with self._writing() as file:
            (last,) = file.execute(
                "SELECT max(revision) FROM review_changes WHERE reviewer = ? AND action <> ? "
                "AND revision NOT IN (SELECT undoes FROM review_changes WHERE undoes NOT NULL)",
                (reviewer, _UNDO),
            ).fetchone()
            if last is None:
                return ()
            rows = file.execute(
                "SELECT building, before FROM review_changes WHERE revision = ? ORDER BY fid",
                (last,),
            ).fetchall()
            for number, _ in rows:
                if _latest(file, number)["state"] != last:
                    raise self._conflict(number, self._state(file, number))
            revision = _next_revision(file)
            restored = [
                self._restore(file, number, before, reviewer, revision, last)
                for number, before in rows
            ]
            return tuple(one for one in restored if one is not None)

    def _restore(
        self, file: sqlite3.Connection, number: int, before: int, reviewer: str, revision: int,
        undone: int,
    ) -> ReviewBuilding | None:  # fmt: skip
        """Write the state that a building had at a revision, and return it; None if it had none."""
        row = file.execute(
            "SELECT * FROM review_changes WHERE building = ? AND revision = ?", (number, before)
        ).fetchone()
        outline = self.layer.outline(number)
        state: ReviewBuilding | None = None
        if row is not None and row["status"] is not None:
            outline, status, origin = _geometry(row["outline"]), self._status(row), row["origin"]
            state = ReviewBuilding(number, status, outline, origin, reviewer, utc_now(), revision)
        elif outline is not None:
            state = ReviewBuilding(number, "open", outline, None, reviewer, utc_now(), revision)
        state_of = row["state"] if row is not None else 0
        current = _latest(file, number)["revision"]
        if state is not None:
            self._write(file, _UNDO, state, current, undone, state_of)
            return state
        names = _names(file)
        file.execute(f"DELETE FROM {names.layer} WHERE fid = ?", (number,))  # noqa: S608  # nosec B608
        file.execute(
            "INSERT INTO review_changes (revision, building, action, reviewer, time, before, "
            "state, undoes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (revision, number, _UNDO, reviewer, utc_now(), current, state_of, undone),
        )
        return None

    def _write(
        self, file: sqlite3.Connection, action: str, state: ReviewBuilding, before: int,
        undoes: int | None = None, state_of: int | None = None,
    ) -> None:  # fmt: skip
        names = _names(file)
        blob = _blob(state.outline, names.srs_id)
        values = (blob, state.status, state.origin, state.reviewer, state.time, state.revision)
        # The triggers of the spatial index do not work with an upsert.
        updated = file.execute(
            f"UPDATE {names.layer} SET {names.column} = ?, status = ?, origin = ?, reviewer = ?, "  # noqa: S608  # nosec B608
            "time = ?, revision = ? WHERE fid = ?",
            (*values, state.id),
        )
        if not updated.rowcount:
            file.execute(
                f"INSERT INTO {names.layer} ({names.column}, status, origin, reviewer, time, "  # noqa: S608  # nosec B608
                "revision, fid) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*values, state.id),
            )
        file.execute(
            "INSERT INTO review_changes (revision, building, action, status, origin, reviewer, "
            "time, before, state, undoes, outline) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (state.revision, state.id, action, state.status, state.origin, state.reviewer,
             state.time, before, state.revision if state_of is None else state_of,
             undoes, blob),
        )  # fmt: skip

    def _decided(self, number: int, outline: BaseGeometry, edit: Edit) -> ReviewStatus:
        if edit.decision != "keep":
            return "rejected" if edit.decision == "reject" else "open"
        predicted = self.layer.outline(number)
        if predicted is None:
            return "added"
        return "accepted" if shapely.equals_exact(outline, predicted) else "changed"

    def _state(self, file: sqlite3.Connection | None, number: int) -> ReviewBuilding | None:
        if file is not None:
            names = _names(file)
            row = file.execute(
                "SELECT t.*, (SELECT max(revision) FROM review_changes WHERE building = t.fid) "  # noqa: S608  # nosec B608
                f"AS r FROM {names.layer} t WHERE t.fid = ?",
                (number,),
            ).fetchone()
            if row is not None:
                return self._building(names, row)
        outline = self.layer.outline(number)
        return None if outline is None else ReviewBuilding(number, "open", outline)

    def _building(self, names: _Names, row: sqlite3.Row) -> ReviewBuilding:
        outline = _geometry(row[names.plain_column])
        if outline is None or outline.is_empty:
            raise ReviewFileError(f"{self.path.name}: the row {row['fid']} has no outline.")
        return ReviewBuilding(
            row["fid"], self._status(row), outline, row["origin"], row["reviewer"] or "",
            row["time"] or "", row["r"] or 0,
        )  # fmt: skip

    def _status(self, row: sqlite3.Row) -> ReviewStatus:
        for status in STATUSES:
            if row["status"] == status:
                return status
        raise ReviewFileError(
            f"{self.path.name} has a building with the status {row['status']!r}; expected one of "
            f"{', '.join(STATUSES)}.",
            remedy="Correct it with a GIS.",
        )

    def _conflict(self, number: int, current: ReviewBuilding | None) -> ReviewConflictError:
        if current is None:
            return ReviewConflictError(
                f"Building {number} no longer exists: the change that added it was undone."
            )
        who = current.reviewer or "somebody"
        return ReviewConflictError(
            f"Nothing was saved: {who} has changed building {number} in the meantime; it is "
            f"{current.status} now.",
            [current],
        )

    def _next_number(self, file: sqlite3.Connection) -> int:
        (last,) = file.execute("SELECT max(building) FROM review_changes").fetchone()
        predicted = int(self.layer.ids.max()) if len(self.layer.ids) else 0
        return max(predicted, last or 0) + 1

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        if not self.path.exists():
            yield None
            return
        with _opened(self.path) as file:
            # One transaction, so that all that is read is of one moment.
            file.execute("BEGIN")
            self._check_source(file)
            yield file
            file.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            self._create()
        with _opened(self.path) as file:
            file.execute("PRAGMA synchronous = FULL")
            file.execute("BEGIN IMMEDIATE")
            self._check_source(file)
            yield file
            file.execute(
                "UPDATE gpkg_contents SET last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
            )
            file.execute("COMMIT")

    def _check_source(self, file: sqlite3.Connection) -> None:
        row = file.execute("SELECT name, fingerprint FROM review_source").fetchone()
        if row is None or row["fingerprint"] != self.layer.fingerprint:
            raise OtherPolygonsError(
                f"{self.path.name} is the review of other polygons: those of {self.layer.name} "
                "have been predicted again since.",
                remedy="Restore the earlier polygons, or rename the review to begin a new one.",
            )

    def _create(self) -> None:
        """Create the file unless another process has created it in the meantime."""
        columns: dict[str, NDArray[Any]] = {
            "status": np.zeros(0, np.object_),
            "origin": np.zeros(0, np.int64),
            "reviewer": np.zeros(0, np.object_),
            "time": np.zeros(0, np.object_),
            "revision": np.zeros(0, np.int64),
        }
        with exporting(Path(self.path.name)):
            folder = Path(tempfile.mkdtemp(prefix=f".{self.path.stem}.", dir=self.path.parent))
        new_file = folder / self.path.name
        try:
            chunk = LayerChunk(np.zeros(0, np.object_), columns)
            settings = LayerSettings(self.layer.crs, multi=True, colours=REVIEW_COLOURS)
            write_layer(new_file, settings, [chunk])
            with closing(sqlite3.connect(new_file, isolation_level=None)) as file:
                file.execute("BEGIN")
                for statement in _SCHEMA.split(";\n"):
                    file.execute(statement)
                file.execute(
                    "INSERT INTO review_source (name, fingerprint) VALUES (?, ?)",
                    (self.layer.name, self.layer.fingerprint),
                )
                file.execute("COMMIT")
            with new_file.open("rb") as written:
                os.fsync(written.fileno())
            try:
                os.link(new_file, self.path)
            except FileExistsError:
                pass
            except OSError:
                # A file system without hard links.
                if not self.path.exists():
                    new_file.replace(self.path)
        except (OSError, sqlite3.Error) as error:
            raise export_error(Path(self.path.name), error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def read_review(path: Path) -> bytes:
    """Return the content of a review file as it is between two changes.

    SQLite reads it. Reading the file like any other could return half of a change, and closing it
    would release the locks that other threads of this process hold on it (POSIX advisory locks).

    Raises:
        ReviewLockedError: Another program holds the file.
        ReviewFileError: The file is damaged.
    """
    with _opened(path) as file:
        file.execute("BEGIN")
        # The first read takes the lock, or says that another program has it.
        file.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return file.serialize()


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a review; what is not committed is rolled back, and errors become sentences."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)) as file:
            file.row_factory = sqlite3.Row
            _add_functions(file)
            yield file
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # Errors without a code are our own, and those of Python about strings that are not UTF-8.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ReviewLockedError(
                f"{path.name} is held by another program, such as QGIS, so nothing was saved.",
                remedy="Close the file there, or end its editing, and try again.",
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise ReviewFileError(
                f"{path.name} is damaged or is not a review: {reason_of(error).rstrip('.')}.",
                remedy="Restore a copy of it, or rename it to begin a new review.",
            ) from error
        raise export_error(Path(path.name), error) from error


class _Names(NamedTuple):
    """Names in a GeoPackage, quoted, and the number of its CRS."""

    layer: str
    column: str
    plain_column: str
    srs_id: int


def _names(file: sqlite3.Connection) -> _Names:
    row = file.execute(
        "SELECT table_name, column_name, srs_id FROM gpkg_geometry_columns"
    ).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("it has no layer")
    table, column = ('"{}"'.format(row[at].replace('"', '""')) for at in (0, 1))
    return _Names(table, column, row[1], row[2])


def _latest(file: sqlite3.Connection, building: int) -> sqlite3.Row:
    row = file.execute(
        "SELECT revision, state FROM review_changes WHERE building = ? "
        "ORDER BY revision DESC LIMIT 1",
        (building,),
    ).fetchone()
    assert isinstance(row, sqlite3.Row)
    return row


def _next_revision(file: sqlite3.Connection) -> int:
    (last,) = file.execute("SELECT max(revision) FROM review_changes").fetchone()
    return int(last or 0) + 1


def _blob(outline: BaseGeometry, srs_id: int) -> bytes:
    """Return a multipolygon as a GeoPackage geometry (OGC 12-128r18, 2.1.3)."""
    outline = shapely.MultiPolygon(list(shapely.get_parts(outline)))
    left, bottom, right, top = outline.bounds
    head = struct.pack("<2sBBi4d", b"GP", 0, 3, srs_id, left, right, bottom, top)
    return head + bytes(shapely.to_wkb(outline, byte_order=1))


def _geometry(blob: bytes | None) -> Any:
    """Return the polygon or multipolygon of a GeoPackage geometry; None for null."""
    if blob is None:
        return None
    try:
        if blob[:2] != b"GP":
            raise ValueError("it does not begin with GP")
        geometry = shapely.from_wkb(blob[8 + _ENVELOPE_BYTES[blob[3] >> 1 & 7] :])
    except (ValueError, IndexError, shapely.errors.ShapelyError) as error:
        raise sqlite3.DatabaseError(f"an outline cannot be read ({error})") from error
    if geometry.geom_type == "MultiPolygon" and shapely.get_num_geometries(geometry) == 1:
        return shapely.get_geometry(geometry, 0)
    return geometry


def _add_functions(file: sqlite3.Connection) -> None:
    """Add the functions that the triggers of the file's spatial index call."""

    def bound(at: int) -> Any:
        return lambda blob: None if (found := _geometry(blob)) is None else found.bounds[at]

    for at, name in enumerate(("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY")):
        file.create_function(name, 1, bound(at), deterministic=True)
    file.create_function(
        "ST_IsEmpty", 1, lambda blob: int(blob is None or _geometry(blob).is_empty),
        deterministic=True,
    )  # fmt: skip
