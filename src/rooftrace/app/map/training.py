"""/v1/results/…/training: fine-tune the model on what reviewers have decided about a folder."""

# No `from __future__ import annotations`: FastAPI evaluates annotations of the routes.

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import shapely
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import Field
from pyproj import CRS

from rooftrace.app.map.results import (
    ImageFiles,
    ResultsCatalogue,
    ResultsFolder,
    hidden_folders,
    recorded_bands,
)
from rooftrace.app.map.review import Folder, results_of
from rooftrace.app.map.review_scene import ReviewScene
from rooftrace.app.map.scene import image_of
from rooftrace.core.errors import DataError, ExportError
from rooftrace.core.text import plural
from rooftrace.core.types import GeoGrid
from rooftrace.flows.finetune import LEAST_SCENES
from rooftrace.io.reproject import crs_units, reprojected
from rooftrace.labels.shapes import IGNORE_NAME
from rooftrace.models.spec import BundleSpec
from rooftrace.rest.description import problem_responses
from rooftrace.rest.job_schemas import JobOut
from rooftrace.rest.jobs import server_root
from rooftrace.rest.schemas import ApiModel
from rooftrace.rest.upload import cannot_store
from rooftrace.service.jobs.job import CORRECTIONS
from rooftrace.service.review.corrections import CorrectedImage, chip_side, write_corrections
from rooftrace.service.review.store import REVIEW_SUFFIX
from rooftrace.service.versions import ModelVersions

_ENOUGH = 12
"""Number of chips with a decision from which the chips are large."""

_BEND_M = 0.05
"""Maximum distance in metres between a reprojected edge and its straight line."""


class ReviewTraining(ApiModel):
    """Training on the review of a results folder."""

    minutes: Annotated[
        float | None,
        Field(description="Limit of a training in minutes; null if the server does not train"),
    ]
    images: Annotated[int, Field(ge=0, description="Number of images with a review")]
    job: Annotated[JobOut | None, Field(description="Last training on this review")]


def training_router(catalogue: ResultsCatalogue, versions: ModelVersions) -> APIRouter:
    """Return the routes of trainings on reviews, under `/v1/results`.

    Args:
        catalogue: Results folders; names in requests are looked up in it.
        versions: Versions of the server's model.
    """
    router = APIRouter(tags=["review"])
    address = "/v1/results/{folder}/training"

    @router.get(
        address, summary="Show the training on a review", operation_id="get_review_training",
        responses=problem_responses("not-found"),
    )  # fmt: skip
    def show(request: Request, folder: Folder) -> ReviewTraining:
        """Return whether this server trains, and the last training on this review."""
        reviewed = _reviewed(results_of(catalogue, folder))
        job = versions.training_on(folder)
        return ReviewTraining(
            minutes=versions.minutes, images=len(reviewed),
            job=None if job is None else JobOut.of(job, server_root(request)),
        )  # fmt: skip

    @router.post(
        address, status_code=202, summary="Train on a review",
        operation_id="create_review_training",
        responses={202: {"description": "The training is queued"}}
        | problem_responses(
            "not-found", "config-error", "data-error", "review-error", "file-locked", "busy"
        )
        | {507: {"description": "The server has no room for the training"}},
    )  # fmt: skip
    def train(request: Request, response: Response, folder: Folder) -> JobOut:
        """Fine-tune the version in use on the decisions about all images of a folder, as a job.

        The ground around buildings without a decision is left out. A training on the same review
        that waits or runs is returned instead of a second one.
        """
        results = results_of(catalogue, folder)
        spec = versions.predictor.bundle.spec
        entry = catalogue.find(folder)
        title = results.path.name if entry is None else entry.title

        def prepare(job: Path, earlier: Path | None) -> None:
            images = _corrections(results, spec)
            side_px, count = chip_side(images, spec.gsd_m, _ENOUGH)
            if earlier is not None:
                # The chips that were held out stay the same.
                side_px = int(json.loads((earlier / CORRECTIONS).read_bytes())["side_px"])
            if count < LEAST_SCENES:
                raise DataError(
                    f"The decisions of the review lie on {plural(count, 'chip')} of ground; "
                    f"expected at least {LEAST_SCENES}, since some are held out to compare the "
                    "models.",
                    remedy="Review buildings in more parts of the images, and add missing ones.",
                )
            write_corrections(job / CORRECTIONS, images, side_px, spec.gsd_m)

        try:
            job = versions.start(folder, f"the review of {title}", prepare)
        except ExportError as error:
            raise cannot_store(error) from error
        out = JobOut.of(job, server_root(request))
        response.headers["Location"] = out.links.self
        return out

    return router


def _reviewed(results: ResultsFolder) -> list[ImageFiles]:
    """Return the images with a review."""
    return [
        files
        for files in results.images.values()
        if files.polygons is not None
        and not files.is_comparison
        and files.polygons.with_name(f"{files.name}{REVIEW_SUFFIX}").exists()
    ]


def _corrections(results: ResultsFolder, spec: BundleSpec) -> list[CorrectedImage]:
    """Return the corrections of all images with a review.

    Raises:
        DataError: Nothing is reviewed, or an image is not where it was.
    """
    reviewed = _reviewed(results)
    if not reviewed:
        raise DataError(
            f"Nothing of {results.path.name} is reviewed yet.",
            remedy="Accept, reject or correct buildings first.",
        )
    with hidden_folders(results.path):
        return [_corrected(files, results, spec) for files in reviewed]


def _corrected(files: ImageFiles, results: ResultsFolder, spec: BundleSpec) -> CorrectedImage:
    """Return the corrections of one image in its pixels.

    Raises:
        DataError: The image is not where it was, or the review cannot be read.
    """
    scene = ReviewScene(files, results.run)
    source = image_of(files, results.run, results.path, "A training")
    grid = source.grid
    # Buildings without a decision have a class of their own.
    geometry, columns = scene.kept("ignore")
    touched, _ = scene.store.touched()
    decided = np.array([one.outline for one in touched if one.status != "open"], np.object_)
    indices = {name: number for number, name in enumerate(spec.classes)} | {IGNORE_NAME: -1}
    names = columns["class"].tolist()
    options = results.run.get("options") or {}
    bands = recorded_bands(files.record, results.run)
    if bands is not None and len(bands.split(",")) != len(spec.bands):
        bands = options.get("bands")
    gsd_m = files.record.get("gsd_m")
    frame = scene.rules.frame
    return CorrectedImage(
        files.name, Path(source.name), grid.shape,
        float(gsd_m) if isinstance(gsd_m, (int, float)) else grid.gsd_m,
        {name: options.get(name) for name in ("nodata", "zoom", "stretch", "gsd_m")}
        | {"bands": bands},
        _in_pixels(decided, scene.layer.crs, grid),
        _in_pixels(geometry, scene.layer.crs, grid),
        np.array([indices.get(name, spec.building_class) for name in names], np.int64),
        _in_pixels(np.array([frame], np.object_), scene.layer.crs, grid)[0],
    )  # fmt: skip


def _in_pixels(
    geometry: NDArray[np.object_], crs: CRS | None, grid: GeoGrid
) -> NDArray[np.object_]:
    """Return polygons of a layer in pixels of the image."""
    if crs is None or grid.crs is None or not len(geometry):
        return geometry
    moved = reprojected(geometry, crs, grid.crs, crs_units(_BEND_M, grid.crs))
    return np.asarray(shapely.transform(moved, grid.to_pixels), np.object_)
