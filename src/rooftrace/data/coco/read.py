"""COCO JSON: images, annotations and categories in one file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rooftrace.core.config import expand_path
from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.types import Scene
from rooftrace.data.coco.label import CocoLabel, Drawn, mask_tools
from rooftrace.data.coco.write import write_coco
from rooftrace.data.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.data.images import open_image
from rooftrace.data.labels import IGNORED
from rooftrace.data.source import Entry, SceneSet, SourceKind
from rooftrace.io.raster import NodataRule

__all__ = ["COCO"]

_HEAD_BYTES = 512
_KEYS = "info|licenses|images|annotations|categories"
_BEGINS = re.compile(rf'\s*\{{\s*"({_KEYS})"\s*:'.encode())
_LISTED = 5
_MOST_PX = 2**20
_REMEDY = "Correct the file, or export it again."


@dataclass(frozen=True, slots=True)
class _Picture:
    """What the file says of one image: the key of its entry."""

    shape: tuple[int, int]
    gsd_m: float | None
    drawn: tuple[Drawn, ...]


@dataclass(frozen=True)
class _OpenPicture:
    where: str
    nodata: NodataRule
    gsd_m: float | None

    def __call__(self, entry: Entry) -> Scene:
        assert entry.image is not None
        image = open_image(entry.image, nodata=self.nodata)
        picture: _Picture = entry.key
        label = CocoLabel(picture.drawn, picture.shape, image.grid, self.where, image.name)
        gsd_m = self.gsd_m or image.grid.gsd_m or picture.gsd_m
        return Scene(entry.id, image, label, entry.group, gsd_m)


@dataclass
class _Told:
    """What was left out or taken in a way that a person should know."""

    thin: list[str] = field(default_factory=list)
    crowds: int = 0
    annotations: int = 0

    def notes(self) -> Iterator[str]:
        if self.crowds:
            yield (
                f"{self.crowds} of {self.annotations} annotations are crowd regions (iscrowd = 1): "
                "what is under them takes no part in loss or metrics. Some tools mark all run "
                "lengths so; set iscrowd to 0 there."
            )
        if self.thin:
            shown = ", ".join(self.thin[:_LISTED]) + (", …" if len(self.thin) > _LISTED else "")
            yield f"{len(self.thin)} polygons of fewer than three corners left out: {shown}."


def _recognises(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _BEGINS.match(file.read(_HEAD_BYTES)) is not None


def _read(path: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """All images of a file; those of a file without `annotations` are unlabelled.

    Raises:
        LabelError: what a record lacks, or names and is not there; names the record.
        LayoutError: two images of one name, or none that is where it should be.
    """
    if not path.is_file():
        raise LayoutError(
            f"{path} is a folder; a COCO file was expected.", remedy="Name the .json file."
        )
    raw = _load(path)
    told = _Told()
    labelled = "annotations" in raw
    records = _images(raw, path)
    drawn = _annotations(raw, path, records, labels, told) if labelled else {}
    folders = (
        (path.parent, path.parent / "images")
        if config.images is None
        else (expand_path(config.images, base, key="images"),)
    )
    entries = _entries(records, path, folders, drawn)
    if drawn:
        mask_tools()
    counted = sum(map(len, drawn.values()))
    return SceneSet(
        name=config.name or path.stem,
        kind=COCO.name,
        classes=labels.classes,
        building_class=labels.building_class,
        entries=entries if labelled else (),
        open_scene=_OpenPicture(str(path), nodata_rule(config.nodata), config.gsd_m),
        share=config.share,
        reading=f"{len(entries)} images, {counted} annotations",
        unlabelled=() if labelled else entries,
        notes=tuple(told.notes()),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not JSON: {error}.", remedy=_REMEDY) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("images"), list):
        raise LabelError(
            f"{path} is not a COCO file; expected an object with the list images.",
            remedy="Name the file of annotations, or say what it is with --kind.",
        )
    for name in ("annotations", "categories"):
        if not isinstance(raw.get(name, []), list):
            raise LabelError(
                f"{path}: {name} is no list, but {type(raw[name]).__name__}.", remedy=_REMEDY
            )
    return raw


def _records(raw: dict[str, Any], name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with what errors call it."""
    for number, record in enumerate(raw.get(name, [])):
        told = f"{path}: {name}[{number}]"
        if not isinstance(record, dict):
            raise LabelError(f"{told} is no object, but {record!r:.40}.", remedy=_REMEDY)
        identity = record.get("id")
        yield (told if identity is None else f"{told} (id {identity!r:.40})"), record


def _id_of(record: dict[str, Any], key: str, where: str) -> int | str:
    found = record.get(key)
    if not isinstance(found, (int, str)) or isinstance(found, bool):
        shown = "none" if found is None else repr(found)[:40]
        raise LabelError(f"{where} needs {key}, an integer; it has {shown}.", remedy=_REMEDY)
    return found


def _images(raw: dict[str, Any], path: Path) -> dict[int | str, dict[str, Any]]:
    """The records of images by id; each has a name and a size."""
    found: dict[int | str, dict[str, Any]] = {}
    for where, record in _records(raw, "images", path):
        identity, name = _id_of(record, "id", where), record.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise LabelError(f"{where} needs file_name; it has {name!r:.60}.", remedy=_REMEDY)
        for key in ("height", "width"):
            side = record.get(key)
            if type(side) is not int or not 0 < side < _MOST_PX:
                raise LabelError(
                    f"{where} needs {key}, in pixels; it has {side!r:.40}.", remedy=_REMEDY
                )
        if identity in found:
            raise LayoutError(
                f"{path}: the images {found[identity]['file_name']} and {name} have one id, "
                f"{identity!r}.",
                remedy=_REMEDY,
            )
        found[identity] = record
    return found


def _annotations(
    raw: dict[str, Any],
    path: Path,
    images: dict[int | str, dict[str, Any]],
    labels: LabelConfig,
    told: _Told,
) -> dict[int | str, list[Drawn]]:
    """By image id; crowd regions first, so that what is drawn over them is known."""
    rule = labels.named()
    names = _categories(raw, path)
    indices: dict[int | str, int | None] = {}
    crowds: dict[int | str, list[Drawn]] = {}
    rest: dict[int | str, list[Drawn]] = {}
    for where, record in _records(raw, "annotations", path):
        image, category = _id_of(record, "image_id", where), _id_of(record, "category_id", where)
        if image not in images:
            raise LabelError(
                f"{where} belongs to the image {image!r}, which the file does not have.",
                remedy="Add the image, or remove the annotation.",
            )
        if category not in names:
            raise LabelError(
                f"{where} has the category {category!r}, which the file does not have; it has "
                f"{', '.join(map(repr, list(names)[:_LISTED])) or 'none'}.",
                remedy="Add the category, or correct the annotation.",
            )
        if category not in indices:
            indices[category] = rule.index_of(names[category], f"{path}: categories")
        index = indices[category]
        if index is None:
            continue
        told.annotations += 1
        segmentation = _segmentation(record, where, images[image], told)
        crowd = record.get("iscrowd") in (1, True)
        told.crowds += crowd
        into = crowds if crowd else rest
        into.setdefault(image, []).append(Drawn(where, IGNORED if crowd else index, segmentation))
    return {image: crowds.get(image, []) + rest.get(image, []) for image in {**crowds, **rest}}


def _categories(raw: dict[str, Any], path: Path) -> dict[int | str, str]:
    names: dict[int | str, str] = {}
    for where, record in _records(raw, "categories", path):
        name = record.get("name")
        if not isinstance(name, str):
            raise LabelError(f"{where} needs name, a text; it has {name!r:.40}.", remedy=_REMEDY)
        identity = _id_of(record, "id", where)
        if names.setdefault(identity, name) != name:
            raise LabelError(
                f"{where} has the id of another category, {names[identity]!r}.", remedy=_REMEDY
            )
    return names


def _segmentation(
    record: dict[str, Any], where: str, image: dict[str, Any], told: _Told
) -> list[Any] | dict[str, Any]:
    """As the file has it, without what is no polygon; its numbers are read with the label."""
    given = record.get("segmentation")
    if isinstance(given, list) and given:
        kept = [one for one in given if not _is_thin(one)]
        told.thin += [where.rpartition(": ")[2]] * (len(given) - len(kept))
        return kept
    if not isinstance(given, dict) or not isinstance(given.get("counts"), (str, list)):
        raise LabelError(
            f"{where} has no segmentation of polygons or run lengths, but {given!r:.40}.",
            remedy="Export outlines, and not boxes alone; or remove the annotation.",
        )
    size = [image["height"], image["width"]]
    if given.get("size", size) != size:
        raise LabelError(
            f"{where} has run lengths of the size {given['size']!r:.40}, but the image "
            f"{image['file_name']} has {size} (rows, columns).",
            remedy=_REMEDY,
        )
    return given


def _is_thin(polygon: object) -> bool:
    return isinstance(polygon, list) and len(polygon) < 6 and len(polygon) % 2 == 0


def _entries(
    records: dict[int | str, dict[str, Any]],
    path: Path,
    folders: tuple[Path, ...],
    drawn: dict[int | str, list[Drawn]],
) -> tuple[Entry, ...]:
    """Sorted by id: the one that rooftrace wrote, or the name without an ending if that will do."""
    names = [Path(record["file_name"]) for record in records.values()]
    parts = [[p for p in name.parts if p not in (name.anchor, "..", ".")] for name in names]
    stems = ["/".join([*part[:-1], Path(part[-1]).stem] if part else ["?"]) for part in parts]
    if len(set(stems)) < len(stems):
        stems = ["/".join(part) for part in parts]
    entries: dict[str, Entry] = {}
    missing = []
    for name, stem, (identity, record) in zip(names, stems, records.items()):
        own, group, gsd = (record.get(key) for key in ("scene_id", "group", "gsd_m"))
        scene_id = own if isinstance(own, str) and own else stem
        if scene_id in entries:
            raise LayoutError(f"{path} has two images of the name {scene_id}.", remedy=_REMEDY)
        places = [folder / name for folder in folders]
        there = next(filter(_is_there, places), None)
        if there is None:
            missing.append(name)
        picture = _Picture(
            (record["height"], record["width"]),
            float(gsd) if isinstance(gsd, (int, float)) and 0 < gsd < _MOST_PX else None,
            tuple(drawn.get(identity, ())),
        )
        entries[scene_id] = Entry(
            scene_id,
            there or places[0],
            group if isinstance(group, str) else scene_id.rpartition("/")[0],
            picture,
        )
    if entries and len(missing) == len(entries):
        raise LayoutError(
            f"None of the {len(missing)} images of {path} is in "
            f"{' or '.join(map(str, folders))}: {missing[0]} is not there.",
            remedy="Say where they lie with --images.",
        )
    return tuple(entries[scene_id] for scene_id in sorted(entries))


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


COCO = SourceKind(
    "coco",
    "COCO JSON: polygons and run lengths",
    _recognises,
    _read,
    write_coco,
    frozenset({"images"}),
)
