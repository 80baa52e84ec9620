"""/v1/results: review of the buildings of a results folder, for the page of the map and clients.

A click on a building returns its outline and saves nothing. A client sends the outline as a change
of the review, so undo and the rules for several reviewers hold as for an outline that was drawn.
"""

# No `from __future__ import annotations`: FastAPI evaluates annotations of the routes.

import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import shapely
from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from rooftrace.app.map.place import Place
from rooftrace.app.map.results import (
    ImageFiles,
    ResultsCatalogue,
    ResultsFolder,
    hidden_folders,
    recorded_bands,
)
from rooftrace.app.map.review_scene import (
    REVIEWED,
    BulkChange,
    BulkChanged,
    OpenBuildings,
    Position,
    ReviewChange,
    ReviewChanged,
    ReviewedBuilding,
    ReviewNext,
    ReviewOutline,
    ReviewScene,
    ReviewState,
    ReviewUndo,
    Shown,
    review_problems,
)
from rooftrace.app.map.scene import image_of
from rooftrace.core.cache import LazyValue, LruCache
from rooftrace.core.errors import BusyError
from rooftrace.core.types import Floats, Window
from rooftrace.models.clicks import Click
from rooftrace.predict.clicks import ClickAnswer, ClickModel, ClickSegmenter, load_clicks
from rooftrace.rest.description import DescribedRoute, binary_response, problem_responses
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.schemas import ApiModel
from rooftrace.rest.transfer import VECTOR_TYPES, VectorFormat, content_disposition, media_type_of

REVIEW_BYTES = 2**18
"""Maximum size of the body of a request; an outline of 2,000 corners has 90 kB."""

_SCENES = 4

REVIEW_PREFIX = "/v1/results/{folder}/images/{image}/review"

Folder = Annotated[str, PathParameter(description="Id of the results folder, see the map")]
Image = Annotated[str, PathParameter(description="Name of the image in that folder")]

Scene = TypeVar("Scene", "ReviewScene", "_ClickedScene")


def reviewed_image(
    catalogue: ResultsCatalogue, folder: str, image: str
) -> tuple[ResultsFolder, ImageFiles]:
    """Return a results folder, and the files of an image in it.

    Raises:
        ProblemError: There is no such folder, or no image whose buildings can be reviewed.
    """
    results, files = catalogue.image(folder, image)
    if files.polygons is None or files.is_comparison:
        raise ProblemError("not-found", "This folder has no buildings of such an image.")
    return results, files


def _scenes(
    catalogue: ResultsCatalogue, load: Callable[[ImageFiles, Path], Scene]
) -> Callable[[str, str], Scene]:
    """Return a function that returns the scene of an image, which is kept while its files last."""
    kept: LruCache[tuple[Path, str], Scene] = LruCache(_SCENES)

    def opened(folder: str, image: str) -> Scene:
        results, files = reviewed_image(catalogue, folder, image)
        scene = kept.get((results.path, image))
        if scene is None or scene.stamp != files.stamp:
            with hidden_folders(results.path):
                scene = load(files, results.path)
            kept.put((results.path, image), scene)
        return scene

    return opened


def review_router(catalogue: ResultsCatalogue) -> APIRouter:
    """Return the routes of reviews, under `/v1/results`.

    Args:
        catalogue: Results folders. Names in requests are looked up in it and in the listing of a
            folder; no part of a request becomes part of a path.
    """
    opened = _scenes(catalogue, lambda files, _: ReviewScene(files))
    router = APIRouter(route_class=DescribedRoute, tags=["review"])
    names = ("not-found", "review-error", "data-error", "file-locked")
    problems = problem_responses(*names)
    written = problem_responses(
        "not-found", "review-conflict", "review-error", "outline-error", "invalid-request",
        "data-error", "file-locked", "not-stored",
    )  # fmt: skip

    @router.get(REVIEW_PREFIX, responses=problems)
    def get_review(
        folder: Folder,
        image: Image,
        after: Annotated[int, Query(ge=0, le=2**53, description="Revision already known")] = 0,
    ) -> ReviewState:
        """Return the counts of a review, and the buildings that were changed after a revision."""
        scene = opened(folder, image)
        revision, statuses = scene.store.statuses()
        touched, removed = scene.store.touched(after)
        return ReviewState(
            revision=revision, polygons=scene.layer.fingerprint, counts=scene.counts(statuses),
            buildings=[scene.described(one, short=True) for one in touched],
            removed=removed,
        )  # fmt: skip

    @router.get(f"{REVIEW_PREFIX}/next", responses=problems)
    def find_building_to_review(
        folder: Folder,
        image: Image,
        status: Annotated[Shown, Query(description="accepted includes changed and added")] = "open",
        start: Annotated[
            int | None,
            Query(ge=-(2**53), le=2**53, description="Building to start from; default the first"),
        ] = None,
        backwards: Annotated[bool, Query(description="Search towards less doubt first")] = False,
    ) -> ReviewNext:
        """Return the building after `start` in the order of doubt; begin again at the end."""
        scene = opened(folder, image)
        building = scene.following(status, start, backwards=backwards)
        return ReviewNext(building=None if building is None else scene.described(building))

    @router.get(f"{REVIEW_PREFIX}/buildings", responses=problems)
    def find_reviewed_building(
        folder: Folder,
        image: Image,
        row: Annotated[int, Query(ge=0, le=2**53, description="Id in the vector tiles")],
    ) -> ReviewedBuilding:
        """Find a building of the vector tiles."""
        scene = opened(folder, image)
        at = int(np.searchsorted(scene.rows, row))
        if at == len(scene.rows) or scene.rows[at] != row:
            raise ProblemError("not-found", f"There is no building in row {row}.")
        building = scene.store.get(int(scene.layer.ids[at]))
        assert building is not None
        return scene.described(building)

    @router.get(f"{REVIEW_PREFIX}/buildings/{{building}}", responses=problems)
    def get_reviewed_building(
        folder: Folder, image: Image, building: Annotated[int, PathParameter(ge=-(2**53), le=2**53)]
    ) -> ReviewedBuilding:
        """Show a building of a review."""
        scene = opened(folder, image)
        state = scene.store.get(building)
        if state is None:
            raise ProblemError("not-found", f"There is no building {building}.")
        return scene.described(state)

    @router.post(f"{REVIEW_PREFIX}/changes", responses=written)
    def change_reviewed_buildings(
        folder: Folder, image: Image, change: ReviewChange
    ) -> ReviewChanged:
        """Accept, reject or correct buildings, and return them after the change."""
        scene = opened(folder, image)
        with review_problems(scene):
            states = scene.change(change)
        return scene.changed(states)

    @router.post(f"{REVIEW_PREFIX}/bulk", responses=written)
    def change_open_buildings(folder: Folder, image: Image, change: BulkChange) -> BulkChanged:
        """Accept or reject all open buildings, or those above a score or inside a rectangle."""
        scene = opened(folder, image)
        with review_problems(scene):
            return BulkChanged(changed=scene.change_open(change))

    @router.post(f"{REVIEW_PREFIX}/undo", responses=written)
    def undo_review_change(folder: Folder, image: Image, undo: ReviewUndo) -> ReviewChanged:
        """Undo the last change of a reviewer; each call goes one change further back."""
        scene = opened(folder, image)
        with review_problems(scene):
            states = scene.store.undo(undo.reviewer)
        return scene.changed(states)

    @router.get(
        f"{REVIEW_PREFIX}/export",
        response_class=Response,
        responses={
            **binary_response(
                "Buildings with the attributes of the prediction, and review, reviewer and "
                "review_time",
                *VECTOR_TYPES,
            ),
            **problem_responses(*names, "unfit-format", "missing-extra", "not-stored"),
        },
    )
    def export_review(
        folder: Folder,
        image: Image,
        format: Annotated[  # noqa: A002
            VectorFormat, Query(description="pmtiles are vector tiles for a map on any web server")
        ] = "gpkg",
        open: Annotated[  # noqa: A002
            OpenBuildings,
            Query(
                description="Buildings that were not reviewed yet. leave-out makes labels of a "
                "complete review; ignore gives them the class ignore, so that a training on the "
                "file does not count their ground"
            ),
        ] = "include",
    ) -> Response:
        """Export all buildings that were not rejected as a file."""
        scene = opened(folder, image)
        name = f"{scene.files.name}{REVIEWED}{format}"
        return Response(
            scene.exported(name, open), media_type=media_type_of(name),
            headers={"Content-Disposition": content_disposition(name)},
        )  # fmt: skip

    return router


_WAITING = 16
"""Maximum number of requests that run or wait; each takes a fraction of a second."""


class ClickSessions:
    """Predictions for the clicks of many buildings; safe for several threads.

    The segmenter of a building is kept, and continues if the clicks of a request begin with its
    own. So a further click costs only its own views, and a client needs no session.
    """

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_WAITING)
        self._kept: LruCache[Hashable, ClickSegmenter] = LruCache(limit)

    def answer(
        self, key: Hashable, begin: Callable[[], ClickSegmenter], clicks: Sequence[Click]
    ) -> ClickAnswer:
        """Return the prediction for all clicks of a request.

        Args:
            key: Name of the building or of its image; a request with other clicks of the same
                name starts over.
            begin: Function that returns a segmenter of the image without clicks.
            clicks: Clicks in pixels of the image, the first of them positive.
        """
        if not self._room.acquire(blocking=False):
            raise BusyError("Too many clicks wait for their outlines.", retry_after_s=1.0)
        try:
            # The network runs on all cores: two at once would not be faster.
            with self._lock:
                segmenter = self._kept.get(key)
                done = () if segmenter is None else segmenter.clicks
                if segmenter is None or not done or done != tuple(clicks[: len(done)]):
                    segmenter, done = begin(), ()
                for click in clicks[len(done) :]:
                    segmenter.click(click.row, click.col, positive=click.positive)
                self._kept.put(key, segmenter)
                return segmenter.answer()
        finally:
            self._room.release()


MAX_CLICKS = 50
"""Maximum number of clicks on one building."""


_BUILDINGS = 16
"""Number of buildings whose segmenters are kept: about one for each reviewer."""


class ReviewClick(BaseModel):
    """A click on a building, or beside it."""

    model_config = ConfigDict(extra="forbid")

    position: Annotated[Position, Field(description="Longitude and latitude of the map")]
    inside: Annotated[bool, Field(description="false for a place outside the building")] = True


class ReviewClicks(BaseModel):
    """All clicks on one building so far, in their order; the first one is inside."""

    model_config = ConfigDict(extra="forbid")

    clicks: Annotated[list[ReviewClick], Field(min_length=1, max_length=MAX_CLICKS)]


class ClickedOutline(ApiModel):
    """The outline of the building that was clicked."""

    outline: Annotated[
        ReviewOutline | None, Field(description="null if nothing was found; the largest of parts")
    ]
    parts: Annotated[int, Field(ge=0, description="Number of separate parts with clicks inside")]
    score: Annotated[
        float, Field(ge=0, le=1, description="Mean probability of its pixels; 0 if none")
    ]


def clicks_router(
    catalogue: ResultsCatalogue, load: Callable[[], ClickModel] = load_clicks
) -> APIRouter:
    """Return the route of clicks, under `/v1/results`."""
    model = LazyValue(load)
    sessions = ClickSessions(_BUILDINGS)
    opened = _scenes(catalogue, _ClickedScene)
    router = APIRouter(route_class=DescribedRoute, tags=["review"])

    @router.post(
        f"{REVIEW_PREFIX}/clicks",
        responses=problem_responses(
            "not-found", "outline-error", "invalid-request", "data-error", "band-mismatch", "busy"
        ),
    )
    def outline_clicked_building(
        folder: Folder, image: Image, clicks: ReviewClicks
    ) -> ClickedOutline:
        """Outline a building from clicks.

        Return the outline of the building that was clicked; nothing is saved.

        Send it as a change with the action add or redraw. Each request has all clicks on the
        building so far. The first click after a start of the server takes longer, since it loads
        the network.
        """
        return opened(folder, image).outlined(clicks, sessions, model.get())

    return router


class _ClickedScene:
    """The image of a review, which is read where it is clicked."""

    def __init__(self, files: ImageFiles, folder: Path) -> None:
        self._stamp = files.stamp
        self._folder = folder
        self._source = image_of(files, folder)
        self._path = Path(self._source.name)
        grid = self._source.grid
        self._place = Place(grid)
        self._to_lonlat, self._from_lonlat = self._place.lonlat_functions(
            None if self._place.flat else grid.crs
        )
        bands = recorded_bands(files)
        # The click network has three colours.
        self._bands = bands if bands is not None and bands.count(",") == 2 else None
        self._stretch = str((files.run.get("options") or {}).get("stretch") or "auto")
        gsd_m = files.record.get("gsd_m")
        self._gsd_m = float(gsd_m) if isinstance(gsd_m, (int, float)) and gsd_m > 0 else None

    @property
    def stamp(self) -> str | None:
        """Stamp of the results; None once the image is gone, which is then looked for again."""
        is_there = not self._path.is_absolute() or self._path.exists()
        return self._stamp if is_there else None

    def outlined(
        self, clicks: ReviewClicks, sessions: ClickSessions, model: ClickModel
    ) -> ClickedOutline:
        """Return the outline at some clicks."""
        lonlat = np.array([one.position for one in clicks.clicks], np.float64)
        positions = [
            Click(row, col, one.inside)
            for (col, row), one in zip(self._pixels(lonlat).tolist(), clicks.clicks)
        ]
        key = (self._path, self.stamp, positions[0])
        with hidden_folders(self._folder, self._source.name):
            for number, click in enumerate(positions, start=1):
                height, width = self._source.grid.shape
                inside = 0 <= click.row < height and 0 <= click.col < width
                if inside:
                    pixel = self._source.read(Window(int(click.row), int(click.col), 1, 1))
                    inside = bool(pixel.valid.all())
                if not inside:
                    raise ProblemError(
                        "outline-error", f"Click {number} lies outside of the image.",
                        remedy="Click on the image.",
                    )  # fmt: skip
            selection = sessions.answer(
                key,
                lambda: ClickSegmenter(
                    self._source, model, gsd_m=self._gsd_m, bands=self._bands, stretch=self._stretch
                ),
                positions,
            )
        outlines = sorted(selection.outlines.tolist(), key=shapely.area, reverse=True)
        return ClickedOutline(
            outline=self._on_map(outlines[0]) if outlines else None,
            parts=len(outlines), score=selection.score,
        )  # fmt: skip

    def _pixels(self, lonlat: Floats) -> Floats:
        """Return (n, 2) columns and rows of points of the map; far outside for others."""
        with np.errstate(all="ignore"):
            xy = self._from_lonlat(lonlat)
        if not self._place.flat:
            xy = self._source.grid.to_pixels(xy)
        return np.where(np.isfinite(xy), xy, -1.0)

    def _on_map(self, outline: shapely.Polygon) -> ReviewOutline:
        """Return a polygon in pixels as one in longitude and latitude of the map."""
        grid = self._source.grid

        def moved(xy: Floats) -> Floats:
            if not self._place.flat:
                xy = np.stack(grid.to_world(xy[:, 0], xy[:, 1]), axis=1)
            return self._to_lonlat(xy)

        shape = shapely.geometry.mapping(shapely.transform(outline, moved))
        return ReviewOutline(type="Polygon", coordinates=shape["coordinates"])
