"""Label Studio's exports as labelled data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rooftrace.core.config import expand_path, nearest
from rooftrace.core.errors import ConfigError, LabelError, LayoutError
from rooftrace.core.types import Scene
from rooftrace.data.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.data.images import open_image
from rooftrace.data.labels import IGNORED, NameRule
from rooftrace.data.labelstudio.paint import Drawn, Vote, label_of
from rooftrace.data.labelstudio.references import (
    FILE_KEY,
    GROUP_KEY,
    GSD_KEY,
    ID_KEY,
    ImageFinder,
    image_key,
    original_name,
    upload_name,
)
from rooftrace.data.labelstudio.regions import Region
from rooftrace.data.labelstudio.tasks import Annotation, Task, read_tasks
from rooftrace.data.source import Entry, SceneSet
from rooftrace.io.raster import NodataRule

__all__ = ["UNKNOWN_LABEL", "read_export"]

UNKNOWN_LABEL = "rooftrace:unknown"
"""The label of pixels about which nothing is known; understood whatever the classes are."""

UNION, MAJORITY = "union", "majority"
_LISTED = 5


@dataclass(frozen=True)
class _Key:
    """What an entry needs besides its image."""

    votes: tuple[Vote, ...] | None
    gsd_m: float | None


@dataclass(frozen=True)
class _OpenTask:
    """From an entry to its scene."""

    nodata: NodataRule
    gsd_m: float | None

    def __call__(self, entry: Entry) -> Scene:
        assert entry.image is not None
        key: _Key = entry.key
        image = open_image(entry.image, nodata=self.nodata)
        label = None if key.votes is None else label_of(key.votes, image.grid, image.name)
        gsd_m = self.gsd_m or image.grid.gsd_m or key.gsd_m
        return Scene(entry.id, image, label, entry.group, gsd_m)


def read_export(path: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """The tasks of a JSON or JSON-MIN export. Images are looked for, but not opened.

    Raises:
        DataError, LabelError: the file is not what Label Studio writes; see `tasks.read_tasks`.
        LabelError: a label that is no class; several annotations of a task, and nothing says whose
            count.
        LayoutError: an image is not found, is ambiguous, or is that of two tasks.
        ConfigError: nobody is called as `config.annotator` says.
    """
    tasks, left_out = read_tasks(path)
    rule = labels.named()
    images = None if config.images is None else expand_path(config.images, base, key="images")
    if images is not None and not images.exists():
        raise LayoutError(f"There is nothing at {images}.", remedy="Check --images.")
    finder = ImageFinder.beside(path, images)
    asked = config.annotator
    if asked is None:
        _check_single(tasks, path)
    elif asked not in (UNION, MAJORITY):
        _check_known(tasks, asked, path)
    entries: list[Entry] = []
    unlabelled: list[Entry] = []
    for task, image, entry_id in zip(tasks, *_images_of(tasks, finder, config.field)):
        votes = _votes(task, asked, rule)
        key = _Key(votes, _gsd_of(task.data))
        entry = Entry(entry_id, image, _text_of(task.data, GROUP_KEY), key)
        (unlabelled if votes is None else entries).append(entry)
    return SceneSet(
        name=config.name or path.stem,
        kind="labelstudio",
        classes=labels.classes,
        building_class=labels.building_class,
        entries=tuple(sorted(entries, key=_by_id)),
        open_scene=_OpenTask(nodata_rule(config.nodata), config.gsd_m),
        share=config.share,
        reading="Label Studio's export" + ("" if asked is None else f", annotator {asked}"),
        unlabelled=tuple(sorted(unlabelled, key=_by_id)),
        notes=tuple(
            f"{path} has {count} results of the type {kind}, which are no areas and are left out."
            for kind, count in left_out.items()
        ),
    )


def _by_id(entry: Entry) -> str:
    return entry.id


def _votes(task: Task, asked: str | None, rule: NameRule) -> tuple[Vote, ...] | None:
    """What the annotations that count say; None where there are none."""
    chosen: Sequence[Annotation] = task.annotations
    if asked not in (None, UNION, MAJORITY):
        chosen = [one for one in chosen if asked.casefold() in one.names]
        if len(chosen) > 1:
            raise LabelError(
                f"{task.where} has {len(chosen)} annotations by {asked}: "
                f"{', '.join(one.where.rpartition(', ')[2] for one in chosen)}; expected one.",
                remedy=f"Delete all but one in Label Studio, or say {UNION} or {MAJORITY}.",
            )
    if not chosen:
        return None
    votes = tuple(_vote(one.regions, rule) for one in chosen)
    return votes if asked == MAJORITY else (tuple(drawn for vote in votes for drawn in vote),)


def _vote(regions: Sequence[Region], rule: NameRule) -> Vote:
    drawn = ((region, _index_of(region, rule)) for region in regions)
    return tuple(Drawn(region, index) for region, index in drawn if index is not None)


def _index_of(region: Region, rule: NameRule) -> int | None:
    """The class index of a region, IGNORED, or None where it is not to be drawn."""
    if UNKNOWN_LABEL in region.labels:
        return IGNORED
    # A shape that was given no name is asked for by the empty name.
    found = {name: rule.index_of(name, region.where) for name in region.labels or ("",)}
    indices = set(found.values()) - {None}
    if len(indices) > 1:
        raise LabelError(
            f"{region.where} has the labels {', '.join(map(repr, found))}, which are several "
            "classes; expected one.",
            remedy="Leave all but one out with drop in [labels].",
        )
    return indices.pop() if indices else None


def _check_single(tasks: Sequence[Task], path: Path) -> None:
    several = [task for task in tasks if len(task.annotations) > 1]
    if not several:
        return
    first = several[0]
    who = list(dict.fromkeys(one.annotator for task in several for one in task.annotations))
    raise LabelError(
        f"{len(several)} tasks of {path} have several annotations, the first of them "
        f"{first.where.rpartition(', ')[2]} ({len(first.annotations)}); the annotators are "
        f"{', '.join(who[:_LISTED])}{'…' if len(who) > _LISTED else ''}.",
        remedy=f"Say whose labels count with --annotator NAME, --annotator {UNION} or --annotator "
        f"{MAJORITY}.",
    )


def _check_known(tasks: Sequence[Task], asked: str, path: Path) -> None:
    annotations = [one for task in tasks for one in task.annotations]
    if any(asked.casefold() in one.names for one in annotations):
        return
    who = list(dict.fromkeys(one.annotator for one in annotations))
    raise ConfigError(
        f"{path} has no annotation by {asked!r}. {nearest(asked, who)}".strip(),
        remedy=f"Annotators: {', '.join(who) or 'none'}; or say {UNION} or {MAJORITY}.",
    )


def _images_of(
    tasks: Sequence[Task], finder: ImageFinder, asked: str | None
) -> tuple[list[Path], list[str]]:
    """The image of each task, and the id of its scene: ours, or else the name of the image."""
    by_image: dict[Path, Task] = {}
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
        upload = upload_name(reference)
        name = original_name(upload) if upload else image.name
        ids.append(_text_of(task.data, ID_KEY) or PurePosixPath(name).stem)
    if len(set(ids)) < len(ids):
        # Alike in several folders: by the way from the folder that holds all.
        top = os.path.commonpath([image.absolute().parent for image in images])
        paths = [image.absolute().relative_to(top) for image in images]
        ids = [path.with_suffix("").as_posix() for path in paths]
        if len(set(ids)) < len(ids):
            ids = [path.as_posix() for path in paths]
    return images, ids


def _text_of(data: Mapping[str, Any], key: str) -> str:
    """What we wrote of a scene; only beside its id is a key of that name ours."""
    value = data.get(key) if isinstance(data.get(ID_KEY), str) else None
    return value if isinstance(value, str) else ""


def _gsd_of(data: Mapping[str, Any]) -> float | None:
    value = data.get(GSD_KEY) if isinstance(data.get(ID_KEY), str) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        return None
    return float(value)
