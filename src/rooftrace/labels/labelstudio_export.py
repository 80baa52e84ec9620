"""Read Label Studio's JSON and JSON-MIN exports: tasks, annotations, and labels drawn from them.

The format: https://labelstud.io/guide/export#Label-Studio-JSON-format
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.core.scales import is_gsd_m
from rooftrace.core.text import json_kind, list_first, plural, reason_of
from rooftrace.core.types import GeoGrid, LabelReader, Mask, RasterSource, Window
from rooftrace.io.files import read_head
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.image_files import SceneOpener, unique_names
from rooftrace.labels.label_files import (
    FILE_KEY,
    GROUP_KEY,
    GSD_KEY,
    ID_KEY,
    REMEDY,
    ImageFinder,
    image_key,
    label_files,
    original_name,
    read_each,
    uploaded_name,
)
from rooftrace.labels.labelstudio_regions import (
    BrushError,
    OutlineShape,
    Region,
    decode_brush,
    find_regions,
)
from rooftrace.labels.mask_values import IGNORED, NameRule, check_size, mask_of
from rooftrace.labels.shapes import ShapesLabel, traced
from rooftrace.labels.source import SceneEntry, SceneSet

Vote = tuple[tuple[Region, int], ...]
"""Regions of one annotation, in the order in which they were drawn, with the class index of each
name, or IGNORED.
"""


def label_of(votes: Sequence[Vote], grid: GeoGrid, image_name: str) -> LabelReader:
    """Return the label of an image: each pixel has the class of more than half of the votes.

    Without such a majority, a pixel is background. With one vote, everything drawn counts.

    Raises:
        LabelError: A region was drawn on an image of another size.
    """
    for region, _ in (one for vote in votes for one in vote):
        check_size(region.where, region.size_yx, grid, image_name)
    if len(votes) == 1 and all(isinstance(one.shape, OutlineShape) for one, _ in votes[0]):
        return _shapes(votes[0], grid)
    return _PaintedLabel(tuple(votes), grid)


class _PaintedLabel:
    """The `LabelReader` of brushes and of several votes; painted whole at the first read."""

    def __init__(self, votes: tuple[Vote, ...], grid: GeoGrid) -> None:
        self._votes = votes
        self._grid = grid

    def read(self, window: Window | None = None) -> Mask:
        window = window or Window.whole(self._grid.shape)
        return mask_of(self._painted[window.slices()], self._grid.crop(window))

    @cached_property
    def _painted(self) -> NDArray[np.int16]:
        drawn = [_shapes(vote, self._grid).read() for vote in self._votes]
        canvases = [np.where(one.valid, one.data.astype(np.int16), IGNORED) for one in drawn]
        result = np.zeros(self._grid.shape, dtype=np.int16)
        for index in {index for vote in self._votes for _, index in vote}:
            count = sum((canvas == index).astype(np.int16) for canvas in canvases)
            result[2 * count > len(canvases)] = index
        return result


def _shapes(vote: Vote, grid: GeoGrid) -> ShapesLabel:
    outlines = [_outline(region, grid.shape) for region, _ in vote]
    geometry = np.array([*outlines, None], np.object_)[:-1]
    return ShapesLabel(geometry, [index for _, index in vote], grid)


def _outline(region: Region, shape_yx: tuple[int, int]) -> shapely.Geometry:
    if isinstance(region.shape, OutlineShape):
        return region.shape.outline(shape_yx)
    try:
        return traced(decode_brush(region.shape.rle, shape_yx))
    except BrushError as error:
        raise LabelError(
            f"The brush mask of {region.where} cannot be read: {error}.",
            remedy="Export it from Label Studio again, or remove that result.",
        ) from error


_PEEK_BYTES = 1 << 16
"""Number of bytes read to recognise an export."""

_KEYS = re.compile(
    rb'"data"\s*:\s*\{|"(annotation_id|lead_time|original_width|'
    rb'(brush|polygon|rectangle|ellipse)labels)"\s*:|"format"\s*:\s*"rle"'
)
_BEGINNING = re.compile(rb"\s*\[\s*\{")

_JSON_MIN_KEYS = (
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement",
)  # fmt: skip
"""Keys of JSON-MIN that are neither data nor labels."""


@dataclass(frozen=True, slots=True)
class LabelAnnotation:
    """Annotation of one image by one annotator.

    Args:
        where: Location for error messages.
        annotator: Name of the person in error messages: e-mail address, or else the number.
        names: Names by which the user may choose the person, in lower case.
        regions: Regions in the order in which they were drawn; empty if there is nothing to label.
    """

    where: str
    annotator: str
    names: frozenset[str]
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class LabelTask:
    """One image to label."""

    where: str
    data: Mapping[str, Any]
    annotations: tuple[LabelAnnotation, ...]


def is_export(path: Path) -> bool:
    """Return whether the beginning of a file looks like an export of Label Studio."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    beginning = read_head(path, _PEEK_BYTES)
    # Exports of Kili are lists with annotations, too.
    is_other = b'"jsonResponse"' in beginning
    return bool(not is_other and _BEGINNING.match(beginning) and _KEYS.search(beginning))


def read_tasks(path: Path, name: str = "") -> tuple[list[LabelTask], dict[str, int]]:
    """Read the tasks of an export, in its order.

    Args:
        name: Name of the export in messages; default the path.

    Returns:
        The tasks, and the number of results that were left out by type, since they are not areas.
    """
    name = name or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        loaded = json.loads(text, object_hook=_compact)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} is not JSON: {reason_of(error)}.", remedy="Export it from Label Studio again."
        ) from error
    if not isinstance(loaded, list):
        raise DataError(
            f"{name} contains {json_kind(loaded)}; expected a list of tasks.",
            remedy="Export it from Label Studio as JSON or JSON-MIN.",
        )
    left_out: Counter[str] = Counter()
    tasks: dict[object, LabelTask] = {}
    for number, item in enumerate(loaded, start=1):
        task_id = item.get("id") if isinstance(item, dict) else None
        where = f"{name}, task {number if task_id is None else task_id}"
        try:
            if "annotations" in item or isinstance(item.get("data"), dict):
                tasks[number, "task"] = _task(item, where, left_out)
                continue
            task, key = _row(item, where, left_out), (task_id or number, "row")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LabelError(
                f"{where} cannot be read: {reason_of(error)}.", remedy=REMEDY
            ) from error
        # JSON-MIN has a row for each annotation of a task.
        if key in tasks:
            merged = tasks[key].annotations + task.annotations
            task = LabelTask(where, tasks[key].data, merged)
        tasks[key] = task
    return list(tasks.values()), dict(left_out)


def _compact(item: dict[str, Any]) -> dict[str, Any]:
    """Convert brush masks to bytes: a list of numbers takes eight times the memory."""
    if isinstance(item.get("rle"), list):
        # `find_regions` raises the error, with task and result.
        with suppress(TypeError, ValueError):
            item["rle"] = bytes(item["rle"])
    return item


def _task(item: Mapping[str, Any], where: str, left_out: Counter[str]) -> LabelTask:
    found = [
        _annotation(
            one.get("result") or [],
            one.get("completed_by"),
            f"{where}, annotation {one.get('id', number)}",
            left_out,
        )
        for number, one in enumerate(item.get("annotations") or (), start=1)
        if not one.get("was_cancelled")
    ]
    return LabelTask(where, dict(item["data"]), tuple(found))


def _row(item: Mapping[str, Any], where: str, left_out: Counter[str]) -> LabelTask:
    """Return the task of a JSON-MIN row: data, and the results of each control by its name."""
    results: list[Any] = []
    for value in item.values():
        if isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
            results += value
    data = {key: value for key, value in item.items() if key not in _JSON_MIN_KEYS}
    number = item.get("annotation_id")
    if not results and number is None:
        return LabelTask(where, data, ())
    where_one = f"{where}, annotation {number}"
    return LabelTask(
        where, data, (_annotation(results, item.get("annotator"), where_one, left_out),)
    )


def _annotation(results: object, by: object, where: str, left_out: Counter[str]) -> LabelAnnotation:
    regions, others = find_regions(results, where)
    left_out.update(others)
    given = [by.get("email"), by.get("id")] if isinstance(by, Mapping) else [by]
    names = [str(name) for name in given if isinstance(name, int | str) and name != ""]
    return LabelAnnotation(
        where,
        names[0] if names else "unknown",
        frozenset(name.casefold() for name in names),
        tuple(regions),
    )


UNKNOWN_LABEL = "rooftrace:unknown"
"""Label of unknown pixels, which is understood with any classes."""

UNION, MAJORITY = "union", "majority"


def _label_of(entry: SceneEntry, image: RasterSource) -> LabelReader | None:
    """Return the label of an entry whose key is its votes, or None."""
    return None if entry.key is None else label_of(entry.key, image.grid, image.name)


def holds_export(path: Path) -> bool:
    """Return whether a path is an export of Label Studio, or a folder with one."""
    return bool(label_files(path, is_export))


def read_exports(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read the JSON or JSON-MIN exports at a path, whose names mean the same in all.

    Images are looked for, but not opened.
    """
    exports = {file: read_tasks(file) for file in label_files(path, is_export) or [path]}
    drawn = (one for tasks, _ in exports.values() for task in tasks for one in task.annotations)
    every = (region for one in drawn for region in one.regions)
    names = [name for one in every for name in one.labels or ("",) if name != UNKNOWN_LABEL]
    rule, notes = labels.name_rule().fitted(names, str(path))
    left_out: Counter[str] = Counter()
    for _, results in exports.values():
        left_out.update(results)
    notes += tuple(
        f"{path} has {plural(count, 'result')} of the type {kind}: left out, as they are no areas."
        for kind, count in left_out.items()
    )

    def read(file: Path, _: Path | None) -> SceneSet:
        return _read_export(file, exports[file][0], config, labels, rule)

    return replace(read_each(path, [*exports], read), notes=notes)


def _read_export(
    path: Path,
    tasks: Sequence[LabelTask],
    config: SourceConfig,
    labels: LabelConfig,
    rule: NameRule,
) -> SceneSet:
    """Return the tasks of an export as scenes."""
    images = None if config.images is None else Path(config.images)
    finder = ImageFinder.beside(path, images)
    asked = config.annotator
    if asked is None:
        _check_single(tasks, path)
    elif asked not in (UNION, MAJORITY):
        _check_known(tasks, asked, path)
    entries: list[SceneEntry] = []
    unlabelled: list[SceneEntry] = []
    for task, image, entry_id in zip(tasks, *_images_of(tasks, finder, config.field)):
        votes = _votes(task, asked, rule)
        group, gsd_m = _text_of(task.data, GROUP_KEY), _gsd_of(task.data)
        entry = SceneEntry(entry_id, image, group, votes, gsd_m)
        (unlabelled if votes is None else entries).append(entry)
    return SceneSet.of(
        "labelstudio", path, config, labels, entries, SceneOpener(config, _label_of),
        reading="Label Studio's export" + ("" if asked is None else f", annotator {asked}"),
        unlabelled=unlabelled, label_file=path,
    )  # fmt: skip


def _votes(task: LabelTask, asked: str | None, rule: NameRule) -> tuple[Vote, ...] | None:
    """Return the votes of the chosen annotations; None if there are none."""
    chosen: Sequence[LabelAnnotation] = task.annotations
    if asked not in (None, UNION, MAJORITY):
        chosen = [one for one in chosen if asked.casefold() in one.names]
        if len(chosen) > 1:
            raise LabelError(
                f"{task.where} has {len(chosen)} annotations by {asked}: "
                f"{', '.join(one.where.rpartition(', ')[2] for one in chosen)}; expected one.",
                remedy=f"Delete all but one in Label Studio, or choose {UNION} or {MAJORITY}.",
            )
    if not chosen:
        return None
    votes = tuple(
        tuple((one, index) for one in each.regions if (index := _index_of(one, rule)) is not None)
        for each in chosen
    )
    return votes if asked == MAJORITY else (tuple(drawn for vote in votes for drawn in vote),)


def _index_of(region: Region, rule: NameRule) -> int | None:
    """Return the class index of a region, IGNORED, or None if it is not drawn."""
    if UNKNOWN_LABEL in region.labels:
        return IGNORED
    # A shape without a label is addressed by the empty name.
    found = {name: rule.index_of(name, region.where) for name in region.labels or ("",)}
    indices = set(found.values()) - {None}
    if len(indices) > 1:
        raise LabelError(
            f"{region.where} has the labels {', '.join(map(repr, found))}, which are different "
            "classes; expected one class.",
            remedy="Exclude all but one with drop in [labels].",
        )
    return indices.pop() if indices else None


def _check_single(tasks: Sequence[LabelTask], path: Path) -> None:
    several = [task for task in tasks if len(task.annotations) > 1]
    if not several:
        return
    first = several[0]
    who = list(dict.fromkeys(one.annotator for task in several for one in task.annotations))
    raise LabelError(
        f"{len(several)} tasks of {path} have several annotations, first "
        f"{first.where.rpartition(', ')[2]} ({len(first.annotations)}); the annotators are "
        f"{list_first(who)}.",
        remedy=f"Choose whose labels to use: --annotator NAME, --annotator {UNION} or --annotator "
        f"{MAJORITY}.",
    )


def _check_known(tasks: Sequence[LabelTask], asked: str, path: Path) -> None:
    annotations = [one for task in tasks for one in task.annotations]
    if any(asked.casefold() in one.names for one in annotations):
        return
    who = list(dict.fromkeys(one.annotator for one in annotations))
    raise ConfigError(
        f"{path} has no annotation by {asked!r}. {did_you_mean(asked, who)}".strip(),
        remedy=f"Annotators: {', '.join(who) or 'none'}; or choose {UNION} or {MAJORITY}.",
    )


def _images_of(
    tasks: Sequence[LabelTask], finder: ImageFinder, asked: str | None
) -> tuple[list[Path], list[str]]:
    """Return the image of each task, and its scene id: rooftrace's own, or the image's name."""
    by_image: dict[Path, LabelTask] = {}
    images: list[Path] = []
    ids: list[str] = []
    for task in tasks:
        reference = task.data[image_key(task.data, task.where, asked)]
        pushed_from = _text_of(task.data, FILE_KEY)
        image = finder.find(reference, task.where, pushed_from=pushed_from)
        other = by_image.setdefault(image.resolve(), task)
        if other is not task:
            raise LayoutError(
                f"{other.where} and {task.where} both have the image {image}.",
                remedy="Delete one of the two tasks in Label Studio.",
            )
        images.append(image)
        upload = uploaded_name(reference)
        name = original_name(upload) if upload else image.name
        ids.append(_text_of(task.data, ID_KEY) or PurePosixPath(name).stem)
    if len(set(ids)) < len(ids):
        ids = unique_names(images)
    return images, ids


def _text_of(data: Mapping[str, Any], key: str) -> str:
    """Return a text that rooftrace wrote; a key is rooftrace's only beside a scene id."""
    value = data.get(key) if isinstance(data.get(ID_KEY), str) else None
    return value if isinstance(value, str) else ""


def _gsd_of(data: Mapping[str, Any]) -> float | None:
    value = data.get(GSD_KEY) if isinstance(data.get(ID_KEY), str) else None
    return float(value) if is_gsd_m(value) else None
