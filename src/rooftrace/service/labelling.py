"""Predictions for Label Studio tasks, as regions of one control of the labelling interface.

https://labelstud.io/tags describes the XML. Label Studio sends the interface with each request, so
settings are kept there: attributes of the control that begin with `rooftrace_`, and
`predicted_values` of a `<Label>`, which other ML backends also read.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

import cv2
import numpy as np
import shapely
from pydantic import Field

from rooftrace.core.config import Config, did_you_mean, parse_config
from rooftrace.core.errors import BusyError, ConfigError, DataError, LabelError, RooftraceError
from rooftrace.core.scales import is_gsd_m
from rooftrace.core.types import BoolArray, Footprints, Mask
from rooftrace.io.gdal import rasterize
from rooftrace.io.make_valid import valid_geometry
from rooftrace.labels.label_files import GSD_KEY
from rooftrace.labels.labelstudio import Control, brush_results, polygon_results, rectangle_results
from rooftrace.labels.labelstudio_export import UNKNOWN_LABEL
from rooftrace.labels.labelstudio_regions import BrushError, BrushShape, decode_brush, find_regions
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.service import Service
from rooftrace.service.task_images import TaskImage, TaskImages

ControlKind = Literal["polygon", "brush", "rectangle"]

_TAGS: dict[str, ControlKind] = {
    "PolygonLabels": "polygon",
    "BrushLabels": "brush",
    "RectangleLabels": "rectangle",
}
"""Kind by tag, in order of preference: annotators correct outlines most easily."""

_PREFIX = "rooftrace_"


class ControlSettings(Config):
    """Attributes of a control, without their prefix `rooftrace_`.

    Args:
        gsd_m: Metres per pixel of images without a georeference.
        threshold: Threshold of the building probability; by default the model's own.
        min_area_m2: Minimum area of a building.
    """

    gsd_m: Annotated[float, Field(gt=0)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    min_area_m2: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True)
class LabelControl:
    """The control of an interface that receives the predicted regions.

    Args:
        kind: Kind of region.
        control: Names of the control and its image in results.
        key: Key of the image in a task's data.
        labels: Label by class index of the model, without classes that have no label.
        shows_unknown: Whether the control has the label for pixels of unknown class.
        settings: Settings of the control's attributes.
    """

    kind: ControlKind
    control: Control
    key: str
    labels: dict[int, str]
    shows_unknown: bool
    settings: ControlSettings


def read_interface(xml: str, spec: BundleSpec) -> LabelControl:
    """Return the control of an interface that receives the regions of a model.

    Args:
        xml: Labelling interface.
        spec: Description of the model. Its classes are matched with the labels and their
            `predicted_values`, ignoring case.
    """
    candidates = list(_candidates(_parsed(xml), spec))
    if not candidates:
        raise ConfigError(
            "The labelling interface has none of "
            f'{", ".join(f"<{tag}>" for tag in _TAGS)} on an <Image value="$…">.',
            remedy="Add one of them, with a <Label> for each class of the model: "
            f"{', '.join(spec.classes[1:])}.",
        )
    order = list(_TAGS.values())
    usable = [control for control, _ in candidates if control.labels]
    if usable:
        return min(usable, key=lambda control: order.index(control.kind))
    labels_of_all = dict.fromkeys(label for _, labels in candidates for label in labels)
    building = spec.classes[spec.building_class]
    raise ConfigError(
        f"The labelling interface has no label {building!r}, a class of the model. "
        f"{did_you_mean(building, labels_of_all)}".strip(),
        remedy=f'Add it, or assign it to a label: <Label value="…" predicted_values="{building}"/>.'
        f" Labels of the interface: {', '.join(labels_of_all) or 'none'}.",
    )


def _parsed(xml: str) -> ElementTree.Element:
    try:
        # Expat limits what entities expand to, and opens no others.
        return ElementTree.fromstring(xml)  # noqa: S314  # nosec B314
    except (ElementTree.ParseError, ValueError) as error:
        raise ConfigError(
            f"The labelling interface cannot be read as XML: {error}.",
            remedy="Save it again in the project's settings.",
        ) from error


def _candidates(
    root: ElementTree.Element, spec: BundleSpec
) -> Iterator[tuple[LabelControl, tuple[str, ...]]]:
    """Yield the controls for regions of an image, each with all its labels."""
    images = {
        str(image.get("name")): image.get("value", "")[1:]
        for image in root.iter("Image")
        if image.get("value", "").startswith("$")
    }
    for element in root.iter():
        kind = _TAGS.get(str(element.tag))
        if kind is None:
            continue
        name = element.get("name", "")
        on = [one for one in element.get("toName", "").split(",") if images.get(one)]
        if not name or not on:
            continue
        attributes = {
            key.removeprefix(_PREFIX): value
            for key, value in element.attrib.items()
            if key.startswith(_PREFIX)
        }
        settings = _settings(attributes, name)
        labels = _labels(element)
        mapped = _mapped(labels, spec)
        control = LabelControl(
            kind, Control(name, on[0]), images[on[0]], mapped, UNKNOWN_LABEL in labels, settings
        )
        yield control, tuple(labels)


def _settings(attributes: dict[str, str], name: str) -> ControlSettings:
    source = f"The attributes {_PREFIX}… of {name!r} in the labelling interface"
    try:
        return parse_config(dict(attributes), ControlSettings, source=source)
    except ConfigError as error:
        names = ", ".join(_PREFIX + key for key in ControlSettings.model_fields)
        raise ConfigError(
            error.message, remedy=f"Correct it; the attributes are {names}."
        ) from error


def _labels(control: ElementTree.Element) -> dict[str, tuple[str, ...]]:
    """Return the labels of a control, each with the class names that match it."""
    labels = {}
    for label in control.iter("Label"):
        value, alias = label.get("value", ""), label.get("alias", "")
        classes = [part.strip() for part in label.get("predicted_values", "").split(",")]
        if value or alias:
            labels[alias or value] = tuple(name for name in (*classes, value, alias) if name)
    return labels


def _mapped(labels: dict[str, tuple[str, ...]], spec: BundleSpec) -> dict[int, str]:
    mapped: dict[int, str] = {}
    for index, wanted in enumerate(spec.classes):
        for label, names in labels.items():
            if index and wanted.casefold() in (name.casefold() for name in names):
                mapped.setdefault(index, label)
    return mapped


MAX_TASKS = 16
"""Maximum number of tasks that are predicted in one request."""

MAX_WAIT_S = 60.0
"""Maximum time of a request. Label Studio waits 100 s and ignores later answers. It sends up to
1,000 tasks at once. If it receives one prediction for several tasks, it requests each alone."""

_MAX_PAUSE_S = 5.0
_REMEDY = "Draw the shape again."
_CONTEXT = "the regions of a smart tool"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What an annotator has drawn with a smart tool, in pixels (x right, y down).

    Args:
        area: Buildings that touch it are returned.
        left_out: Points set with the Alt key. Buildings that touch them are not returned.
    """

    area: shapely.Geometry
    left_out: shapely.Geometry


def regions_of(
    made: Prediction, control: LabelControl, drawn: Drawn | None = None
) -> list[dict[str, Any]]:
    """Return the results of one prediction in Label Studio's format.

    Each building gives one polygon or rectangle with its score. Each class gives one brush with
    the mask of the class and the mean score of its buildings.

    Args:
        made: Prediction of the image.
        control: Control that receives the regions.
        drawn: What was drawn with a smart tool; default: all buildings are returned.

    Raises:
        LabelError: The image is too large for a brush mask.
    """
    grid = made.mask.grid
    footprints = _in_pixels(made)
    if drawn is not None:
        touches = shapely.intersects(drawn.area, footprints.geometry)
        touches &= ~shapely.intersects(drawn.left_out, footprints.geometry)
        footprints = footprints.take(np.asarray(touches, dtype=np.bool_))
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


def drawn_area(context: object, shape_yx: tuple[int, int]) -> Drawn | None:
    """Return what an annotator has drawn with a smart tool, or None.

    Args:
        context: Context of the request: `{"result": [regions]}`, including key points.
        shape_yx: Shape of the image.
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
    left_out: list[shapely.Geometry] = []
    for result in results:
        if str(result.get("type")).startswith("keypoint"):
            point = _key_point(result.get("value"), shape_yx)
            (left_out if result.get("is_positive") is False else shapes).append(point)
    if not shapes and not left_out:
        return None
    return Drawn(shapely.union_all(shapes), shapely.union_all(left_out))


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


def _brushes(mask: Mask, control: LabelControl, drawn: Drawn | None) -> list[dict[str, Any]]:
    labelled = np.isin(mask.data, list(control.labels)) & mask.valid
    if drawn is not None:
        labelled &= _touched(labelled, drawn.area) & ~_touched(labelled, drawn.left_out)
    # Classes without a label count as background, and so do unknown pixels without a label.
    valid = mask.valid if control.shows_unknown and drawn is None else np.ones_like(mask.valid)
    names = [control.labels.get(index, "") for index in range(max(control.labels) + 1)]
    selected = Mask(np.where(labelled, mask.data, 0).astype(np.uint8), valid, mask.grid)
    results = list(brush_results(selected, names, control.control))
    assert all(result["value"]["brushlabels"][0] in (*names, UNKNOWN_LABEL) for result in results)
    return results


def _touched(shown: BoolArray, drawn: shapely.Geometry) -> BoolArray:
    """Return the whole connected components of a mask that a shape touches."""
    if shapely.is_empty(drawn):
        return np.zeros_like(shown)
    burnt = rasterize([drawn], out_shape=shown.shape, all_touched=True, dtype=np.uint8) != 0
    _, parts = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
    touched = np.unique(parts[burnt & shown])
    kept: BoolArray = np.isin(parts, touched) & shown
    return kept


class Labeller:
    """ML backend that predicts regions for tasks."""

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
            interface: Labelling interface as XML.
            hostname: URL of the server, or "" if it did not send one.
            token: Token of the server, or "" if it did not send one.
            is_local: Whether the request comes from this machine.
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
            context: Regions that were drawn with a smart tool, see `drawn_area`.
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
            predicted = _retrying(
                lambda: self._service.predict(image.data, image.name, options), deadline_s
            )
            drawn = drawn_area(context, predicted.mask.grid.shape)
            results = regions_of(predicted, control, drawn)
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
