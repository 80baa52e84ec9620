"""/v1/results: review of the buildings of a results folder, for the page of the map and clients."""

# No `from __future__ import annotations`: FastAPI evaluates annotations of the routes.

from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter

from rooftrace.app.map.results import (
    ImageFiles,
    ResultsCatalogue,
    ResultsFolder,
    hidden_folders,
)
from rooftrace.app.map.review_scene import (
    BulkChange,
    BulkChanged,
    OpenBuildings,
    ReviewChange,
    ReviewChanged,
    ReviewedBuilding,
    ReviewNext,
    ReviewScene,
    ReviewState,
    ReviewUndo,
    Shown,
    review_problems,
)
from rooftrace.app.map.scene import vector_file
from rooftrace.core.cache import LruCache
from rooftrace.rest.description import DescribedRoute, binary_response, problem_responses
from rooftrace.rest.face import content_disposition
from rooftrace.rest.jobs import VECTOR_TYPES, VectorFormat, media_type_of
from rooftrace.rest.problems import ProblemError

REVIEW_BYTES = 2**18
"""Maximum size of the body of a request; an outline of 2,000 corners has 90 kB."""

_SCENES = 4

REVIEW_PREFIX = "/v1/results/{folder}/images/{image}/review"

Folder = Annotated[str, PathParameter(description="Id of the results folder, see the map")]
Image = Annotated[str, PathParameter(description="Name of the image in that folder")]


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


def review_router(catalogue: ResultsCatalogue) -> APIRouter:
    """Return the routes of reviews, under `/v1/results`.

    Args:
        catalogue: Results folders. Names in requests are looked up in it and in the listing of a
            folder; no part of a request becomes part of a path.
    """
    scenes: LruCache[tuple[Path, str], ReviewScene] = LruCache(_SCENES)

    def opened(folder: str, image: str) -> ReviewScene:
        results, files = reviewed_image(catalogue, folder, image)
        scene = scenes.get((results.path, image))
        if scene is None or scene.stamp != files.stamp:
            with hidden_folders(results.path):
                scene = ReviewScene(files, results.run)
            scenes.put((results.path, image), scene)
        return scene

    router = APIRouter(route_class=DescribedRoute, tags=["review"])
    problems = problem_responses("not-found", "review-error", "data-error", "file-locked")
    written = problem_responses(
        "not-found", "review-conflict", "review-error", "outline-error", "invalid-request",
        "data-error", "file-locked",
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
        folder: Folder,
        image: Image,
        building: Annotated[int, PathParameter(ge=-(2**53), le=2**53)],
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
            **problems,
            **problem_responses("unfit-format"),
        },
    )
    def export_review(
        folder: Folder,
        image: Image,
        format: Annotated[  # noqa: A002
            VectorFormat,
            Query(description="pmtiles are vector tiles for a map on any web server"),
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
        name = f"{scene.files.name}_reviewed.{format}"
        return Response(
            vector_file(name, *scene.kept(open), scene.layer.crs), media_type=media_type_of(name),
            headers={"Content-Disposition": content_disposition(name)},
        )  # fmt: skip

    return router
