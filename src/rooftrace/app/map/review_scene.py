"""One image of a results folder in review: its buildings in the order of doubt, and their edits."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pyproj import CRS, Geod
from shapely.geometry.base import BaseGeometry

from rooftrace.app.map.outlines import LayerTable, numbers_of, plain, polygon_rows
from rooftrace.app.map.results import ImageFiles, hidden_folders, read_results
from rooftrace.app.map.scene import MapScene, vector_file
from rooftrace.flows.heights import COLUMNS as HEIGHT_COLUMNS
from rooftrace.labels.shapes import IGNORE_NAME
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.schemas import ApiModel
from rooftrace.service.outline_edits import OutlineRules, join_outlines, split_outline
from rooftrace.service.review_store import (
    REVIEW_SUFFIX,
    Edit,
    OtherPolygonsError,
    PredictedLayer,
    ReviewBuilding,
    ReviewConflictError,
    ReviewStatus,
    ReviewStore,
)

MAX_CORNERS = 2000
"""Maximum number of corners of an outline that a person draws."""

REVIEWED = "_reviewed."
"""End of the name of a file of the reviewed buildings, before its format."""

_DRAWN = "outline drawn in the review"
"""Reason for which a building has no height: that of an earlier outline would be wrong."""

Number = Annotated[int, Field(ge=-(2**53), le=2**53)]
Reviewer = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=80),
    Field(description="Name of the person"),
]
OpenBuildings = Literal["leave-out", "include", "ignore"]
Shown = Literal["open", "accepted", "rejected", "all"]
Position = Annotated[
    list[Annotated[float, Field(ge=-720, le=720, allow_inf_nan=False)]],
    Field(min_length=2, max_length=2),
]
Ring = Annotated[list[Position], Field(min_length=4, max_length=MAX_CORNERS)]
Rings = Annotated[list[Ring], Field(min_length=1, max_length=100)]


PolygonsHash = Annotated[
    str | None,
    Field(
        max_length=64,
        description="Member of the state that the reviewer saw. A change is refused if the "
        "image has been predicted again since: its numbers would be those of other buildings",
    ),
]


class ReviewOutline(ApiModel):
    """A polygon in longitude and latitude of the map; the first ring is the outline."""

    type: Literal["Polygon"]
    coordinates: Rings


class ReviewGeometry(ApiModel):
    """A polygon or multipolygon in longitude and latitude of the map."""

    type: Literal["Polygon", "MultiPolygon"]
    coordinates: list[Any]


class ReviewedBuilding(ApiModel):
    """A building and what a reviewer has decided."""

    id: Annotated[int, Field(description="Number of the building: its attribute id")]
    row: Annotated[int | None, Field(description="Its id in the vector tiles; null if added")]
    status: Annotated[
        ReviewStatus, Field(description="changed: accepted with another outline; added: drawn")
    ]
    revision: Annotated[int, Field(ge=0, description="Number of its last change; 0 for none")]
    reviewer: Annotated[str, Field(description="Name of the last reviewer, or empty")]
    time: Annotated[str, Field(description="Time of the last change in UTC, or empty")]
    origin: Annotated[
        int | None, Field(description="Building that it was split from, or merged into")
    ]
    score: Annotated[float | None, Field(description="Confidence of the model")]
    outline: Annotated[
        ReviewGeometry | None, Field(description="null in lists, if it is the predicted one")
    ]


class ReviewCounts(ApiModel):
    """Numbers of buildings by status; `reviewed` counts all but the open ones."""

    total: int
    reviewed: int
    open: int
    accepted: int
    rejected: int
    changed: int
    added: int


class ReviewState(ApiModel):
    """State of a review, and the buildings that were changed after a revision."""

    revision: Annotated[int, Field(ge=0, description="Number of the last change")]
    polygons: Annotated[str, Field(description="Hash of the predicted polygons")]
    counts: ReviewCounts
    buildings: list[ReviewedBuilding]
    removed: Annotated[
        list[int], Field(description="Added buildings that were removed by an undo since")
    ]


class ReviewNext(ApiModel):
    """The next building in the order of doubt."""

    building: Annotated[ReviewedBuilding | None, Field(description="null if there is none")]


class ReviewChanged(ApiModel):
    """Buildings after a change."""

    buildings: list[ReviewedBuilding]


class SeenBuilding(BaseModel):
    """A building and the revision that the reviewer saw."""

    model_config = ConfigDict(extra="forbid")

    id: Number
    revision: Annotated[int, Field(ge=0, le=2**53)]


class ReviewChange(BaseModel):
    """A change by a reviewer.

    It is saved as a whole or not at all. It is refused if a building has another revision.
    """

    model_config = ConfigDict(extra="forbid")

    action: Annotated[
        Literal["accept", "reject", "reopen", "redraw", "add", "split", "merge"],
        Field(
            description="redraw and add need an outline, split a line; add has no building, merge "
            "has two, of which the first keeps its number"
        ),
    ]
    reviewer: Reviewer
    buildings: Annotated[list[SeenBuilding], Field(max_length=1000)] = []
    outline: ReviewOutline | None = None
    line: Annotated[
        list[Position] | None,
        Field(min_length=2, max_length=100, description="Longitude and latitude of its corners"),
    ] = None
    polygons: PolygonsHash = None


class BulkChange(BaseModel):
    """A decision about all open buildings that pass the filters; one undo takes it back."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["accept", "reject"] = "accept"
    reviewer: Reviewer
    min_score: Annotated[float, Field(ge=0, le=1, description="Minimum confidence")] = 0.0
    bounds: Annotated[
        list[Annotated[float, Field(ge=-720, le=720, allow_inf_nan=False)]] | None,
        Field(
            min_length=4, max_length=4,
            description="West, south, east and north of a rectangle, for buildings with their "
            "centre inside",
        ),
    ] = None  # fmt: skip
    polygons: PolygonsHash = None


class BulkChanged(ApiModel):
    """Result of a bulk change."""

    changed: Annotated[int, Field(ge=0, description="Number of buildings")]


class ReviewUndo(BaseModel):
    """The person whose last change is undone."""

    model_config = ConfigDict(extra="forbid")

    reviewer: Reviewer


@contextmanager
def review_problems(scene: "ReviewScene") -> Iterator[None]:
    """Raise the errors of a review as problems of the API.

    Raises:
        ProblemError: The buildings have changed since they were read.
    """
    try:
        yield
    except ReviewConflictError as error:
        present = [scene.described(one).model_dump(mode="json") for one in error.buildings]
        raise ProblemError(
            "review-conflict", error.message, members={"buildings": present}
        ) from error


class ReviewScene:
    """The buildings of an image in the order of doubt, and their review."""

    def __init__(self, files: ImageFiles) -> None:
        assert files.polygons is not None
        self.files, self.stamp = files, files.stamp
        place = MapScene(files, None).place
        geometry, crs, columns = LayerTable(files.polygons).table()
        self.rows = polygon_rows(geometry)
        self.columns = {name: values[self.rows] for name, values in columns.items()}
        self.layer = _layer(files.polygons.name, geometry[self.rows], crs, self.rows, self.columns)
        frame = place.frame(crs)
        path = files.polygons.with_name(f"{files.name}{REVIEW_SUFFIX}")
        self.store = ReviewStore(path, self.layer)
        self._to_lonlat, self._to_layer = place.lonlat_functions(crs)
        self.rules = OutlineRules(frame, float(np.sqrt(frame.area / np.prod(place.grid.shape))))
        self._flat = place.flat
        self.score = numbers_of(self.columns, "score")
        threshold = (files.run.get("options") or {}).get("threshold")
        threshold = 0.5 if threshold is None else threshold
        ids = self.layer.ids
        sure = np.zeros(len(ids)) if self.score is None else np.abs(self.score - threshold)
        self.order = ids[np.lexsort((ids, np.nan_to_num(sure, nan=-1)))].tolist()
        self.rank = {number: at for at, number in enumerate(self.order)}

    def described(self, one: ReviewBuilding, *, short: bool = False) -> ReviewedBuilding:
        """Return a building as the API shows it; `short` leaves predicted outlines out."""
        at = self.layer.index.get(one.id)
        score = None if at is None or self.score is None else plain(self.score[at])
        is_predicted = at is not None and shapely.equals_exact(one.outline, self.layer.geometry[at])
        outline = None
        if not (short and is_predicted):
            shape = shapely.geometry.mapping(shapely.transform(one.outline, self._to_lonlat))
            outline = ReviewGeometry(type=shape["type"], coordinates=list(shape["coordinates"]))
        return ReviewedBuilding(
            id=one.id, row=None if at is None else int(self.rows[at]), status=one.status,
            revision=one.revision, reviewer=one.reviewer, time=one.time, origin=one.origin,
            score=score, outline=outline,
        )  # fmt: skip

    def counts(self, statuses: Mapping[int, ReviewStatus]) -> ReviewCounts:
        """Return the numbers of buildings by status."""
        by_status = dict.fromkeys(("open", "accepted", "rejected", "changed", "added"), 0)
        for status in statuses.values():
            by_status[status] += 1
        added = sum(number not in self.rank for number in statuses)
        total = len(self.order) + added
        by_status["open"] += total - len(statuses)
        return ReviewCounts(total=total, reviewed=total - by_status["open"], **by_status)

    def changed(self, made: Sequence[ReviewBuilding]) -> ReviewChanged:
        """Return the answer to a change."""
        return ReviewChanged(buildings=[self.described(one, short=True) for one in made])

    def following(
        self, shown: Shown, start: int | None, *, backwards: bool
    ) -> ReviewBuilding | None:
        """Return the next building with a status, after `start` or from the beginning."""
        _, statuses = self.store.statuses()
        order = [*self.order, *(number for number in statuses if number not in self.rank)]
        at = -1
        if start is not None:
            at = self.rank.get(start, -1)
            at = order.index(start) if at < 0 and start in statuses else at
        step = -1 if backwards else 1
        if at < 0 and backwards:
            at = 0
        for distance in range(1, len(order) + 1):
            number = order[(at + step * distance) % len(order)]
            status = statuses.get(number, "open")
            is_kept = status in ("accepted", "changed", "added")
            if shown in ("all", status) or (shown == "accepted" and is_kept):
                return self.store.get(number)
        return None

    def change(self, change: ReviewChange) -> tuple[ReviewBuilding, ...]:
        """Make the change that a reviewer asked for.

        Raises:
            ProblemError: The change does not fit the action.
            OutlineError, ReviewConflictError, ReviewLockedError, ReviewFileError, ExportError.
        """
        self._check_polygons(change.polygons)
        seen = {one.id: one.revision for one in change.buildings}
        self._check(change, len(seen))
        return self.store.change(change.reviewer, change.action, seen, self._edits(change, seen))

    def change_open(self, change: BulkChange) -> int:
        """Accept or reject the open buildings that pass the filters, and return their number.

        Raises:
            ProblemError: A score is asked for, and the buildings have none.
            ReviewConflictError, ReviewLockedError, ReviewFileError, ExportError.
        """
        self._check_polygons(change.polygons)
        passing = np.ones(len(self.layer.ids), np.bool_)
        if change.min_score and self.score is None:
            raise ProblemError("invalid-request", "The buildings of this image have no score.")
        if self.score is not None:
            # As on the map, 0.7 in float32 is at least 0.7.
            passing = np.nan_to_num(self.score).round(6) >= change.min_score
        if change.bounds is not None:
            west, south, east, north = change.bounds
            box = shapely.bounds(self.layer.geometry)
            x, y = self._to_lonlat((box[:, :2] + box[:, 2:]) / 2).T
            passing &= (x >= west) & (x <= east) & (y >= south) & (y <= north)
        touched = {one.id: one for one in self.store.touched()[0]}
        seen = {
            number: touched[number].revision if number in touched else 0
            for number in self.layer.ids[passing].tolist()
            if number not in touched or touched[number].status == "open"
        }
        decision: Literal["keep", "reject"] = "keep" if change.action == "accept" else "reject"
        if seen:
            edits = [Edit(number, decision) for number in seen]
            self.store.change(change.reviewer, change.action, seen, edits)
        return len(seen)

    def _check_polygons(self, fingerprint: str | None) -> None:
        if fingerprint not in (None, self.layer.fingerprint):
            raise ProblemError(
                "review-error",
                f"Nothing was saved: {self.layer.name} has been predicted again since it was read, "
                "and its buildings have other numbers now.",
                remedy="Reload the page, or read the review again.",
            )

    def _check(self, change: ReviewChange, number: int) -> None:
        counts = {"add": (0, 0), "redraw": (1, 1), "split": (1, 1), "merge": (2, 2)}
        least, most = counts.get(change.action, (1, 1000))
        if not least <= number <= most:
            raise ProblemError(
                "invalid-request",
                f"The action {change.action} was sent with {number} buildings; expected "
                f"{least if least == most else f'{least} to {most}'}.",
            )
        for name, actions in (("outline", ("redraw", "add")), ("line", ("split",))):
            if (getattr(change, name) is None) == (change.action in actions):
                word = "needs" if change.action in actions else "takes no"
                raise ProblemError("invalid-request", f"The action {change.action} {word} {name}.")
        if change.action == "add" and "class_id" in self.columns:
            raise ProblemError(
                "outline-error", "This scene has several classes, and an added outline has none.",
                remedy="Redraw a polygon of the class instead.",
            )  # fmt: skip

    def _edits(self, change: ReviewChange, seen: Mapping[int, int]) -> list[Edit]:
        numbers = list(seen)
        if change.action == "add":
            return [Edit(None, "keep", self.rules.checked(self._drawn(change)))]
        if change.action == "accept":
            return [Edit(number, "keep") for number in numbers]
        if change.action == "reject" or change.action == "reopen":
            decision: Literal["reject", "open"] = "reject" if change.action == "reject" else "open"
            return [Edit(number, decision) for number in numbers]
        buildings = [self.store.get(number) for number in numbers]
        outlines = [one.outline for one in buildings if one is not None]
        if len(outlines) < len(buildings):
            # The store answers that a building is not there any more.
            return []
        first = numbers[0]
        if change.action == "redraw":
            return [Edit(first, "keep", self.rules.checked(self._drawn(change), outlines[0]))]
        if change.action == "merge":
            union = join_outlines(outlines, self.rules)
            return [Edit(first, "keep", union), Edit(numbers[1], "reject", origin=first)]
        assert change.line is not None
        line = shapely.LineString(self._points(change.line))
        pieces = split_outline(outlines[0], line, self.rules)
        further = [Edit(None, "keep", piece, origin=first) for piece in pieces[1:]]
        return [Edit(first, "keep", pieces[0]), *further]

    def _drawn(self, change: ReviewChange) -> BaseGeometry:
        assert change.outline is not None
        rings = change.outline.coordinates
        if sum(map(len, rings)) > MAX_CORNERS:
            raise ProblemError("outline-error", f"The outline has more than {MAX_CORNERS} corners.")
        moved = [self._points(ring) for ring in rings]
        return shapely.Polygon(moved[0], moved[1:])

    def _points(self, lonlat: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        moved = self._to_layer(np.array(lonlat, np.float64))
        if not np.isfinite(moved).all():
            raise ProblemError("outline-error", "The outline lies outside of the scene.")
        return moved

    def kept(self, of_open: OpenBuildings) -> tuple[NDArray[np.object_], dict[str, NDArray[Any]]]:
        """Return (n,) outlines of the kept buildings, and (n,) values of each attribute."""
        touched = {one.id: one for one in self.store.touched()[0]}
        buildings = [
            touched.get(number) or ReviewBuilding(number, "open", self.layer.geometry[at])
            for number, at in self.layer.index.items()
        ] + [one for number, one in touched.items() if number not in self.layer.index]
        left_out = ("rejected", "open") if of_open == "leave-out" else ("rejected",)
        buildings = [one for one in buildings if one.status not in left_out]
        geometry = np.empty(len(buildings), np.object_)
        geometry[:] = [one.outline for one in buildings]
        columns = self._attributes(buildings)
        if of_open == "ignore":
            # A layer with these attributes is read by them, see `labels.shapes.OWN_FIELDS`.
            names = columns.get("class", _texts("building" for _ in buildings))
            is_open = np.array([one.status == "open" for one in buildings], np.bool_)
            columns["class"] = np.where(is_open, IGNORE_NAME, names)
            columns["scene"] = _texts(None for _ in buildings)
        return geometry, columns

    def exported(self, name: str, of_open: OpenBuildings) -> bytes:
        """Return the kept buildings as a vector file, see `vector_file`."""
        return vector_file(name, *self.kept(of_open), self.layer.crs)

    def _attributes(self, kept: Sequence[ReviewBuilding]) -> dict[str, NDArray[Any]]:
        """Return the attributes of the prediction, null where an outline has made them wrong."""
        index = self.layer.index
        own_rows = np.array([index.get(one.id, -1) for one in kept], np.int64)
        # Of no buildings, NumPy would make an array of decimal numbers.
        source = np.array(
            [index.get(one.id, index.get(one.origin or 0, -1)) for one in kept], np.int64
        )
        is_drawn = np.array([
            at < 0 or not shapely.equals_exact(one.outline, self.layer.geometry[at])
            for one, at in zip(kept, own_rows)
        ], np.bool_)  # fmt: skip
        columns: dict[str, NDArray[Any]] = {}
        of_outline = {"perimeter_m", "orientation_deg", "rectangularity"}
        if "height_reason" in self.columns:
            of_outline |= {*HEIGHT_COLUMNS}
        for name, values in self.columns.items():
            missing = source < 0
            if name in of_outline:
                missing = missing | is_drawn
            columns[name] = _take_rows(values, source, missing)
        columns["id"] = np.array([one.id for one in kept], np.int64)
        if "height_reason" in columns:
            reasons = columns["height_reason"].astype(np.object_)
            columns["height_reason"] = np.where(is_drawn, _DRAWN, reasons)
        if "area_m2" in columns:
            areas = cast(NDArray[np.float64], np.array(columns["area_m2"], np.float64))
            for at in np.flatnonzero(is_drawn).tolist():
                areas[at] = self._area_m2(kept[at].outline)
            columns["area_m2"] = areas
        columns["review"] = _texts(one.status for one in kept)
        columns["reviewer"] = _texts(one.reviewer or None for one in kept)
        columns["review_time"] = _texts(one.time or None for one in kept)
        return columns

    def _area_m2(self, outline: BaseGeometry) -> float:
        if self._flat:
            return float("nan")
        # It adds the areas of the rings with their signs, and drawn rings have any direction.
        lonlat = shapely.orient_polygons(shapely.transform(outline, self._to_lonlat))
        return abs(float(Geod(ellps="WGS84").geometry_area_perimeter(lonlat)[0]))


def reviewed_layers(folder: Path) -> dict[str, bytes]:
    """Return the reviewed buildings of each image of a results folder, by the names of the files.

    A review of earlier polygons says nothing about those that are there now.
    """
    layers = {}
    for files in read_results(folder).images.values():
        if files.reviewed and files.polygons is not None and not files.is_comparison:
            name = f"{files.name}{REVIEWED}gpkg"
            with suppress(OtherPolygonsError), hidden_folders(folder):
                layers[name] = ReviewScene(files).exported(name, "include")
    return layers


def _layer(
    name: str,
    geometry: NDArray[np.object_],
    crs: CRS | None,
    rows: NDArray[np.int64],
    columns: Mapping[str, NDArray[Any]],
) -> PredictedLayer:
    ids = columns.get("id")
    if ids is None or ids.dtype.kind not in "iu" or len(np.unique(ids)) < len(ids):
        ids = rows + 1
    ids = np.asarray(ids)
    geometry = geometry.copy()
    for at in np.flatnonzero(shapely.get_type_id(geometry) == shapely.GeometryType.MULTIPOLYGON):
        if len(geometry[at].geoms) == 1:
            geometry[at] = geometry[at].geoms[0]
    digest = hashlib.sha256(ids.astype("<i8").tobytes())
    for wkb in shapely.to_wkb(geometry, byte_order=1).tolist():
        digest.update(wkb)
    return PredictedLayer(name, ids.astype(np.int64), geometry, crs, digest.hexdigest())


def _take_rows(
    values: NDArray[Any], source: NDArray[np.int64], missing: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return the values of some rows; those that are missing are null."""
    if not len(values):
        values = np.zeros(1, values.dtype)
    rows = values[np.where(missing, 0, source)]
    if rows.dtype.kind == "M":
        rows = rows.astype(str).astype(np.object_)
    if rows.dtype.kind == "f":
        rows[missing] = np.nan
    elif rows.dtype.kind == "O":
        rows[missing] = None
    elif missing.any():
        return np.ma.masked_array(rows, missing)
    return rows


def _texts(values: Any) -> NDArray[np.object_]:
    return np.array([*values, None], np.object_)[:-1]
