"""Label Studio's JSON and JSON-MIN exports, as tasks with their annotations.

https://labelstud.io/guide/export#Label-Studio-JSON-format
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rooftrace.core.errors import DataError
from rooftrace.data.labelstudio.regions import Region, find_regions, malformed

__all__ = ["Annotation", "Task", "is_export", "read_tasks"]

_PEEK_BYTES = 1 << 16
_KEYS = re.compile(
    rb'"(annotations|completions|annotation_id|lead_time|original_width|'
    rb'(brush|polygon|rectangle|ellipse)labels)"\s*:|"format"\s*:\s*"rle"'
)
_BEGINNING = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*\{")

_OWN = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
"""Keys of JSON-MIN that are neither data nor labels."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one annotator says of one image.

    Args:
        where: its place, for errors.
        annotator: as errors name the person: the e-mail address, or else the number.
        names: by which the person may be asked for, in lower case.
        regions: in the order in which they were drawn; none where there is nothing to label.
    """

    where: str
    annotator: str
    names: frozenset[str]
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One image to label.

    Args:
        where: file and number, for errors.
        data: what the task was made of; holds the image's name.
        annotations: those that were not skipped.
    """

    where: str
    data: Mapping[str, Any]
    annotations: tuple[Annotation, ...]


def is_export(path: Path) -> bool:
    """Whether a file looks like an export of Label Studio, by its beginning."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(_PEEK_BYTES)
    return bool(_BEGINNING.match(beginning) and _KEYS.search(beginning))


def read_tasks(path: Path) -> tuple[list[Task], dict[str, int]]:
    """The tasks of an export, in its order.

    Returns:
        The tasks; and how many results of which type were left out, since they are no areas.

    Raises:
        DataError: the file is not JSON, or no list.
        LabelError: a task, an annotation or a result that is not what Label Studio writes.
    """
    loaded = _load(path)
    if not isinstance(loaded, list):
        raise DataError(
            f"{path} holds {type(loaded).__name__}; expected a list of tasks.",
            remedy="Export it from Label Studio as JSON or JSON-MIN.",
        )
    left_out: dict[str, int] = {}
    tasks: list[Task] = []
    rows: dict[int | str, int] = {}
    for number, item in enumerate(loaded):
        if not isinstance(item, Mapping):
            raise malformed(f"{path}, task {number + 1}", "it", item, "an object")
        task_id = item.get("id")
        if not isinstance(task_id, int | str):
            task_id = None
        where = f"{path}, task {number + 1 if task_id is None else task_id}"
        if "annotations" in item or "completions" in item or isinstance(item.get("data"), Mapping):
            tasks.append(_task(item, where, left_out))
            continue
        task = _row(item, where, left_out)
        # JSON-MIN has a row for each annotation of a task.
        if task_id is not None and task_id in rows:
            before = tasks[rows[task_id]]
            merged = before.annotations + task.annotations
            tasks[rows[task_id]] = Task(where, before.data, merged)
            continue
        if task_id is not None:
            rows[task_id] = len(tasks)
        tasks.append(task)
    return tasks, left_out


def _load(path: Path) -> Any:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, object_hook=_compact, parse_constant=_refuse)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.", remedy="Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON: {error}.", remedy="Export it from Label Studio again."
        ) from error


def _compact(item: dict[str, Any]) -> dict[str, Any]:
    """Brush masks as bytes: a list of numbers takes eight times as much."""
    rle = item.get("rle")
    if isinstance(rle, list):
        try:
            item["rle"] = bytes(rle)
        except (TypeError, ValueError):
            return item  # told with its task and result, when it is their turn
    return item


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")


def _task(item: Mapping[str, Any], where: str, left_out: dict[str, int]) -> Task:
    data = item.get("data")
    if not isinstance(data, Mapping):
        raise malformed(where, "data", data, "an object")
    given = item.get("annotations", item.get("completions")) or []
    if not isinstance(given, list):
        raise malformed(where, "annotations", given, "a list")
    found = []
    for number, one in enumerate(given):
        if not isinstance(one, Mapping):
            raise malformed(where, f"annotation {number + 1}", one, "an object")
        if one.get("was_cancelled") or one.get("skipped"):
            continue
        name = one.get("id", number + 1)
        results = one.get("result") or []
        found.append(
            _annotation(results, one.get("completed_by"), f"{where}, annotation {name}", left_out)
        )
    return Task(where, data, tuple(found))


def _row(item: Mapping[str, Any], where: str, left_out: dict[str, int]) -> Task:
    """A row of JSON-MIN: data, and under the name of each control what was drawn with it."""
    results: list[Any] = []
    for value in item.values():
        if isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
            results += value
    data = {key: value for key, value in item.items() if key not in _OWN}
    if not results and item.get("annotation_id") is None:
        return Task(where, data, ())
    where_one = f"{where}, annotation {item.get('annotation_id')}"
    return Task(where, data, (_annotation(results, item.get("annotator"), where_one, left_out),))


def _annotation(results: object, by: object, where: str, left_out: dict[str, int]) -> Annotation:
    regions, others = find_regions(results, where)
    for kind in others:
        left_out[kind] = left_out.get(kind, 0) + 1
    given = [by.get("email"), by.get("id")] if isinstance(by, Mapping) else [by]
    names = [str(name) for name in given if isinstance(name, int | str) and name != ""]
    return Annotation(
        where,
        names[0] if names else "nobody",
        frozenset(name.casefold() for name in names),
        tuple(regions),
    )
