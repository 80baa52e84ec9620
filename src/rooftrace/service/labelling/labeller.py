"""Predictions for Label Studio tasks, as regions of one control."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import shapely

from rooftrace.core.errors import BusyError, DataError, LabelError, RooftraceError
from rooftrace.core.types import BoolArray, Footprints, Mask, is_gsd_m
from rooftrace.io.gdal import rasterize
from rooftrace.io.make_valid import valid_geometry
from rooftrace.labels.label_files import GSD_KEY
from rooftrace.labels.labelstudio import brush_results, polygon_results, rectangle_results
from rooftrace.labels.labelstudio_export import UNKNOWN_LABEL
from rooftrace.labels.labelstudio_regions import (
    BrushError,
    BrushShape,
    decode_brush,
    find_regions,
)
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.labelling.images import TaskImage, TaskImages
from rooftrace.service.labelling.interface import LabelControl, read_interface
from rooftrace.service.service import Service

MAX_TASKS = 16
"""Maximum number of tasks that are predicted in one request."""

MAX_WAIT_S = 60.0
"""Maximum time of a request. Label Studio waits 100 s and ignores later answers. It sends up to
1,000 tasks at once. If it receives one prediction for several tasks, it requests each alone."""

_MAX_PAUSE_S = 5.0
_REMEDY = "Draw the shape again."
_CONTEXT = "the regions of a smart tool"
_LOG = logging.getLogger(__name__)


def regions_of(
    made: Prediction, control: LabelControl, drawn: shapely.Geometry | None = None
) -> list[dict[str, Any]]:
    """Return the results of one prediction in Label Studio's format.

    Each building gives one polygon or rectangle with its score. Each class gives one brush with
    the mask of the class and the mean score of its buildings.

    Args:
        made: Prediction of the image.
        control: Control that receives the regions.
        drawn: Area in pixels (x right, y down) that was drawn with a smart tool; only buildings
            that touch it are returned.

    Raises:
        LabelError: The image is too large for a brush mask.
    """
    grid = made.mask.grid
    footprints = _in_pixels(made)
    if drawn is not None:
        is_drawn = shapely.intersects(drawn, footprints.geometry)
        footprints = footprints.take(np.asarray(is_drawn, dtype=np.bool_))
    by_label = {
        label: footprints.of_class(index) if made.outlines.class_id is not None else footprints
        for index, label in control.labels.items()
    }
    if control.kind == "brush":
        results = _brushes(made.mask, control, drawn)
        for result in results:
            [label] = result["value"]["brushlabels"]
            if label in by_label and len(by_label[label]):
                result["score"] = float(by_label[label].score.mean())
    else:
        write = polygon_results if control.kind == "polygon" else rectangle_results
        results = []
        for number, (label, part) in enumerate(by_label.items()):
            for result in write(part, grid, label, control.control):
                results.append(result | {"id": f"{number}{result['id']}"})
    if drawn is not None:
        # The ids differ from those of regions suggested earlier for the same task.
        batch = secrets.token_hex(4)
        results = [result | {"id": f"{batch}-{result['id']}"} for result in results]
    return results


def drawn_area(context: object, shape_yx: tuple[int, int]) -> shapely.Geometry | None:
    """Return the area in pixels that an annotator has drawn with a smart tool, or None.

    Args:
        context: Context of the request: `{"result": [regions]}`, including key points.
        shape_yx: Shape of the image.

    Raises:
        LabelError: A region does not have Label Studio's format.
    """
    results = context.get("result") if isinstance(context, Mapping) else None
    if not results:
        return None
    regions, _ = find_regions(results, _CONTEXT)
    shapes: list[shapely.Geometry] = []
    for region in regions:
        if isinstance(region.shape, BrushShape):
            try:
                mask = decode_brush(region.shape.rle, shape_yx)
            except BrushError as error:
                raise LabelError(
                    f"The brush mask of {region.where} cannot be read: {error}.", remedy=_REMEDY
                ) from error
            shapes.append(_boxes(mask))
        else:
            outline = np.array([region.shape.outline(shape_yx)], np.object_)
            shapes += valid_geometry(outline).tolist()
    shapes += [
        _key_point(result.get("value"), shape_yx)
        for result in results
        if str(result.get("type")).startswith("keypoint")
    ]
    return shapely.union_all(shapes) if shapes else None


def _key_point(value: object, shape_yx: tuple[int, int]) -> shapely.Point:
    match value:
        case {"x": int() | float() as x, "y": int() | float() as y}:
            if 0 <= x <= 100 and 0 <= y <= 100:
                return shapely.Point(x / 100 * shape_yx[1], y / 100 * shape_yx[0])
    raise LabelError(
        f"{_CONTEXT}: a key point is {value!r:.40}; expected x and y in percent.", remedy=_REMEDY
    )


def _boxes(mask: BoolArray) -> shapely.Geometry:
    """Return the area of a mask as the union of its row runs."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, stops) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return shapely.union_all(shapely.box(starts, rows, stops, rows + 1))


def _in_pixels(made: Prediction) -> Footprints:
    """Return the outlines in pixel coordinates of the image."""
    if made.outlines.crs is None:
        return made.outlines
    geometry = shapely.transform(made.outlines.geometry, made.mask.grid.to_pixels)
    return replace(made.outlines, geometry=geometry, crs=None)


def _brushes(
    mask: Mask, control: LabelControl, drawn: shapely.Geometry | None
) -> list[dict[str, Any]]:
    labelled = np.isin(mask.data, list(control.labels)) & mask.valid
    if drawn is not None:
        labelled &= _touched(labelled, drawn)
    # Classes without a label count as background, and so do unknown pixels without a label.
    valid = mask.valid if control.shows_unknown and drawn is None else np.ones_like(mask.valid)
    names = [control.labels.get(index, "") for index in range(max(control.labels) + 1)]
    selected = Mask(np.where(labelled, mask.data, 0).astype(np.uint8), valid, mask.grid)
    results = list(brush_results(selected, names, control.control))
    assert all(result["value"]["brushlabels"][0] in (*names, UNKNOWN_LABEL) for result in results)
    return results


def _touched(shown: BoolArray, drawn: shapely.Geometry) -> BoolArray:
    """Return the whole connected components of a mask that a shape touches."""
    burnt = rasterize([drawn], out_shape=shown.shape, all_touched=True, dtype=np.uint8) != 0
    _, parts = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
    touched = np.unique(parts[burnt & shown])
    kept: BoolArray = np.isin(parts, touched) & shown
    return kept


class Labeller:
    """ML backend that predicts regions for tasks.

    Args:
        service: Service that predicts.
        url: URL of the Label Studio server, see `TaskImages`.
        token: Token of that server, see `TaskImages`.

    Raises:
        ConfigError: See `TaskImages`.
    """

    def __init__(self, service: Service, url: str | None = None, token: str | None = None) -> None:
        self._service = service
        self._images = TaskImages(url, token, service.limits.upload_bytes)
        self._pool = ThreadPoolExecutor(service.limits.running, "labelling")

    @property
    def model_version(self) -> str:
        """Version of the model in use, as Label Studio shows it."""
        return self._service.bundle.version

    def connect(
        self, project: str, interface: str, hostname: str, token: str, *, is_local: bool
    ) -> LabelControl:
        """Check the interface of a project, and remember where its images are.

        Args:
            project: Name of the project.
            interface: Labelling interface as XML.
            hostname: URL of the server, or "" if it did not send one.
            token: Token of the server, or "" if it did not send one.
            is_local: Whether the request comes from this machine.

        Raises:
            ConfigError: See `read_interface` and `TaskImages.connect`.
        """
        control = read_interface(interface, self._service.bundle.spec)
        if hostname and token:
            self._images.connect(project, hostname, token, is_local=is_local)
        return control

    def predictions(
        self,
        tasks: Sequence[Mapping[str, Any]],
        interface: str,
        project: str,
        context: object = None,
    ) -> list[dict[str, Any]]:
        """Return one entry for each task: a prediction, or `{"error": sentence}`.

        An error has no `result`, so Label Studio stores nothing for that task. An empty prediction
        would mean that the image has no buildings. If there are too many tasks, or they take too
        long, only the first task is answered. Label Studio then requests each task alone.

        Args:
            tasks: Tasks with `id` and `data`.
            interface: Labelling interface as XML.
            project: Name of the project.
            context: Regions that were drawn with a smart tool, see `drawn_area`.

        Raises:
            ConfigError: See `read_interface`.
            BusyError: Not even the first task was finished in time.
        """
        control = read_interface(interface, self._service.bundle.spec)
        if len(tasks) > MAX_TASKS:
            tasks = tasks[:1]
        deadline_s = time.monotonic() + MAX_WAIT_S
        answers = [
            self._pool.submit(self._answer, task, control, project, context, deadline_s)
            for task in tasks
        ]
        _, late = wait(answers, timeout=MAX_WAIT_S)
        for answer in late:
            answer.cancel()
        if answers and answers[0] in late:
            raise BusyError(
                f"The server is busy: it did not predict the image in {MAX_WAIT_S:g} s.",
                remedy="Retry in a few seconds.",
            )
        if late:
            answers = answers[:1]
        return [answer.result() for answer in answers]

    def _answer(
        self, task: Mapping[str, Any], control: LabelControl, project: str, context: object,
        deadline_s: float,
    ) -> dict[str, Any]:  # fmt: skip
        number = task.get("id")
        number = number if isinstance(number, int) else None
        try:
            image, options = self._fetch(task, number, control, project)
            made = _retrying(
                lambda: self._service.predict(image.data, image.name, options), deadline_s
            )
            drawn = drawn_area(context, made.mask.grid.shape)
            results = regions_of(made, control, drawn)
        except RooftraceError as error:
            message = _one_line(error.in_full)
            _LOG.warning("task %s of project %s: %s", number, _one_line(project), message)
            return {"error": message, "model_version": self.model_version}
        scores = [result["score"] for result in results if "score" in result]
        prediction: dict[str, Any] = {"result": results, "model_version": self.model_version}
        return prediction | ({"score": float(np.mean(scores))} if scores else {})

    def _fetch(
        self, task: Mapping[str, Any], number: int | None, control: LabelControl, project: str
    ) -> tuple[TaskImage, SceneOptions]:
        """Return the image of a task, and the options of its prediction."""
        data = task.get("data")
        if not isinstance(data, Mapping) or control.key not in data:
            raise DataError(
                f"The data of task {number} has no key {control.key!r}, which the labelling "
                "interface uses for the image.",
                remedy="Import the task again with that key, or change the interface.",
            )
        own_gsd_m = data.get(GSD_KEY)
        gsd_m = control.settings.gsd_m if own_gsd_m is None else own_gsd_m
        if gsd_m is not None and not is_gsd_m(gsd_m):
            raise LabelError(
                f"The data of task {number} has {GSD_KEY} = {str(gsd_m)[:40]!r}; expected "
                "metres per pixel.",
                remedy="Import the task again with a number.",
            )
        options = SceneOptions(
            gsd_m=gsd_m,
            threshold=control.settings.threshold,
            min_area_m2=control.settings.min_area_m2,
            outputs=("mask", "polygons"),
        )
        return self._images.fetch(data[control.key], number, project), options


def _retrying(attempt: Callable[[], Prediction], deadline_s: float) -> Prediction:
    """Repeat an attempt while the service is busy and a request has time left."""
    while True:
        try:
            return attempt()
        except BusyError as error:
            pause = min(error.retry_after_s, _MAX_PAUSE_S)
            if time.monotonic() + pause > deadline_s:
                raise
            time.sleep(pause)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
