"""Read and write COCO JSON: images, annotations and categories in one file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.text import json_kind, list_first, plural, reason_of
from rooftrace.core.types import BoolArray, Mask, Progress, RasterSource
from rooftrace.io.files import read_head, write_atomically
from rooftrace.io.gdal import rasterize, trace_values
from rooftrace.labels.coco_label import CocoAnnotation, CocoLabel, Rle, mask_tools
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.image_files import (
    LabelFileImages,
    SceneOpener,
    check_single_file,
    relative_name,
)
from rooftrace.labels.label_files import ImageFinder, label_files, read_each
from rooftrace.labels.mask_values import IGNORED
from rooftrace.labels.source import SceneEntry, SceneSet, SourceKind, WriteOptions, WriteResult

_HEAD_BYTES = 1 << 16
_KEYS = "info|licenses|images|annotations|categories"
_BEGINS = re.compile(rf'\s*\{{\s*"({_KEYS})"\s*:'.encode())
_LISTED = 5
"""Maximum number of items that a message lists."""

_MOST_PX = 2**20
"""Limit of image sides in pixels, and of metres per pixel."""

_REMEDY = "Correct the file, or export it again."


@dataclass(frozen=True, slots=True)
class _ImageRecord:
    """Contents of the file for one image: the key of its entry."""

    where: str
    shape: tuple[int, int]
    annotations: tuple[CocoAnnotation, ...]


def _label_of(entry: SceneEntry, image: RasterSource) -> CocoLabel:
    record: _ImageRecord = entry.key
    return CocoLabel(record.annotations, record.shape, image.grid, record.where, image.name)


@dataclass
class _ReadSummary:
    """Facts about the file that the user should see."""

    thin: list[str] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    crowds: int = 0
    masks: int = 0
    annotations: int = 0

    def notes(self) -> Iterator[str]:
        yield from self.left_out
        if self.crowds:
            yield (
                f"{self.crowds} of {self.annotations} annotations are crowd regions (iscrowd = 1): "
                "pixels under them are ignored in loss and metrics."
            )
        if self.masks:
            yield (
                f"{plural(self.masks, 'mask is', 'masks are')} marked as crowd (iscrowd = 1) by "
                "the tool that exported them, and read as objects."
            )
        if self.thin:
            shown = list_first(self.thin, _LISTED)
            count = plural(len(self.thin), "polygon")
            yield f"Left out: {count} with fewer than three corners: {shown}."


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    head = read_head(path, _HEAD_BYTES)
    # Label tools write small files of categories alone.
    return bool(_BEGINS.match(head)) and (len(head) == _HEAD_BYTES or b'"images"' in head)


def _recognises(path: Path) -> bool:
    return bool(label_files(path, _is_coco))


def _read(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a file, or the files of a folder; see `_read_file` for the errors."""
    files = label_files(path, _is_coco) or [path]
    return read_each(path, files, partial(_read_file, config=config, labels=labels))


def _read_file(
    path: Path, root: Path | None, config: SourceConfig, labels: LabelConfig
) -> SceneSet:
    """Read all images of a file; without the list `annotations` they are unlabelled.

    Raises:
        LabelError: A record lacks a field or refers to a missing record. The message names it.
        LayoutError: Two images have the same name, or no image is found.
    """
    if not path.is_file():
        raise LayoutError(
            f"{path} is a folder; a COCO file was expected.", remedy="Name the .json file."
        )
    raw = _load(path)
    summary = _ReadSummary()
    labelled = "annotations" in raw
    records = _images(raw, path)
    drawn = _annotations(raw, path, records, labels, summary) if labelled else {}
    folder = None if config.images is None else Path(config.images)
    entries = _entries(records, path, ImageFinder.beside(path, folder, root), drawn)
    if drawn:
        mask_tools()
    counted = sum(map(len, drawn.values()))
    return SceneSet.of(
        COCO.name,
        path.stem,
        config,
        labels,
        entries if labelled else (),
        SceneOpener.of(config, _label_of),
        reading=f"{plural(len(entries), 'image')}, {plural(counted, 'annotation')}",
        unlabelled=() if labelled else entries,
        notes=summary.notes(),
        label_file=path,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except ValueError as error:
        raise LabelError(f"{path} is not JSON: {reason_of(error)}.", remedy=_REMEDY) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("images"), list):
        raise LabelError(
            f"{path} is not a COCO file; expected an object with the list images.",
            remedy="Name the file of annotations, or give its kind with --kind.",
        )
    for name in ("annotations", "categories"):
        if not isinstance(raw.get(name, []), list):
            raise LabelError(
                f"{path}: {name} is {json_kind(raw[name])}; expected a list.", remedy=_REMEDY
            )
    return raw


def _records(raw: dict[str, Any], name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list, each with its location for error messages."""
    for number, record in enumerate(raw.get(name, [])):
        where = f"{path}: {name}[{number}]"
        if not isinstance(record, dict):
            raise LabelError(f"{where} is {record!r:.40}; expected an object.", remedy=_REMEDY)
        identity = record.get("id")
        yield (where if identity is None else f"{where} (id {identity!r:.40})"), record


def _id_of(record: dict[str, Any], key: str, where: str) -> int | str:
    found = record.get(key)
    if not isinstance(found, (int, str)) or isinstance(found, bool):
        shown = "none" if found is None else repr(found)[:40]
        raise LabelError(f"{where} needs {key}, an integer; it has {shown}.", remedy=_REMEDY)
    return found


def _images(raw: dict[str, Any], path: Path) -> dict[int | str, dict[str, Any]]:
    """Return the records of images by id, checked to have a name and a size."""
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
    summary: _ReadSummary,
) -> dict[int | str, list[CocoAnnotation]]:
    """Return annotations by image id, crowd regions first so that others are drawn over them."""
    names = _categories(raw, path)
    used = [
        names.get(category, "")
        for _, one in _records(raw, "annotations", path)
        if isinstance(category := one.get("category_id"), (int, str))
    ]
    rule, summary.left_out = labels.name_rule().fitted(filter(None, used), str(path))
    # CVAT's exporter marks each mask as a crowd, and so do tools that write run lengths alone.
    listed = [one for _, one in _records(raw, "annotations", path)]
    ours = any("scene_id" in one for one in images.values())
    masks_are_crowds = not ours and all(one.get("iscrowd") in (1, True) for one in listed)
    indices: dict[int | str, int | None] = {}
    crowds: dict[int | str, list[CocoAnnotation]] = {}
    rest: dict[int | str, list[CocoAnnotation]] = {}
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
        summary.annotations += 1
        segmentation = _segmentation(record, where, images[image], summary)
        crowd = record.get("iscrowd") in (1, True)
        if crowd and (masks_are_crowds or "occluded" in (record.get("attributes") or ())):
            crowd = False
            summary.masks += 1
        summary.crowds += crowd
        into = crowds if crowd else rest
        into.setdefault(image, []).append(
            CocoAnnotation(where, IGNORED if crowd else index, segmentation)
        )
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
    record: dict[str, Any], where: str, image: dict[str, Any], summary: _ReadSummary
) -> list[Any] | dict[str, Any]:
    """Return the segmentation of the file, without polygons of fewer than three corners.

    Its numbers are checked when the label is read.
    """
    given = record.get("segmentation")
    if isinstance(given, list) and given:
        kept = [
            one
            for one in given
            if not (isinstance(one, list) and len(one) < 6 and len(one) % 2 == 0)
        ]
        summary.thin += [where.rpartition(": ")[2]] * (len(given) - len(kept))
        return kept
    if not isinstance(given, dict) or not isinstance(given.get("counts"), (str, list)):
        raise LabelError(
            f"{where} has the segmentation {given!r:.40}; expected polygons or run lengths.",
            remedy="Export outlines instead of boxes only, or remove the annotation.",
        )
    size = [image["height"], image["width"]]
    if given.get("size", size) != size:
        raise LabelError(
            f"{where} has run lengths for the size {given['size']!r:.40}, but the image "
            f"{image['file_name']} has {size} (rows, columns).",
            remedy=_REMEDY,
        )
    return given


def _entries(
    records: dict[int | str, dict[str, Any]],
    path: Path,
    images: ImageFinder,
    drawn: dict[int | str, list[CocoAnnotation]],
) -> tuple[SceneEntry, ...]:
    """Return entries sorted by id.

    The id is the one that rooftrace wrote, or the name; without its suffix if that is unique.
    Images lie in the folder that the user gave, or else beside the file or in `images` there.
    """
    names = [Path(record["file_name"].replace("\\", "/")) for record in records.values()]
    parts = [[p for p in name.parts if p not in (name.anchor, "..", ".")] for name in names]
    stems = ["/".join([*part[:-1], Path(part[-1]).stem] if part else ["?"]) for part in parts]
    if len(set(stems)) < len(stems):
        stems = ["/".join(part) for part in parts]
    entries: dict[str, SceneEntry] = {}
    missing = []
    found: dict[Path, Path] = {}
    for name, stem, (identity, record) in zip(names, stems, records.items()):
        own, group, gsd = (record.get(key) for key in ("scene_id", "group", "gsd_m"))
        scene_id = own if isinstance(own, str) and own else stem
        if scene_id in entries:
            raise LayoutError(f"{path} has two images with the name {scene_id}.", remedy=_REMEDY)
        there = images.look(str(name), str(path))
        if there is None:
            missing.append(images.expected(str(name)))
        elif found.setdefault(there, name) != name:
            raise LayoutError(
                f"{path} has the images {found[there]} and {name}, which are both {there}.",
                remedy="Give the folder where their names start with --images.",
            )
        entries[scene_id] = SceneEntry(
            scene_id,
            there or missing[-1],
            group if isinstance(group, str) else scene_id.rpartition("/")[0],
            _ImageRecord(
                str(path), (record["height"], record["width"]), tuple(drawn.get(identity, ()))
            ),
            float(gsd) if isinstance(gsd, (int, float)) and 0 < gsd < _MOST_PX else None,
        )
    if entries and len(missing) == len(entries):
        raise LayoutError(
            f"None of the {len(missing)} images of {path} can be found: there is no {missing[0]}.",
            remedy="Give their folder with --images.",
        )
    return tuple(entries[scene_id] for scene_id in sorted(entries))


def write_coco(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write a set as COCO JSON.

    Each connected building is an annotation: a polygon, or run lengths if it has holes, which
    polygons of COCO cannot have. Every other class of an image is one annotation of run lengths.
    Unknown pixels are a crowd region.
    Besides COCO's own fields an image has `scene_id`, and `group` and `gsd_m` if these were given,
    so that it is the same scene when it is read again.

    Raises:
        ConfigError: `out` does not end in `.json`.
        MissingExtraError: pycocotools is not installed.
        DataError: A scene cannot be read.
        ExportError: A file cannot be written.
    """
    check_single_file(out, "COCO data is", "coco.json")
    mask_tools()
    files = LabelFileImages(out, options)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (entry, scene) in enumerate(source.opened(progress), start=1):
        height, width = scene.image.grid.shape
        name = relative_name(files.path_of(entry, scene), out.parent)
        record = {"id": number, "file_name": name, "width": width,
                  "height": height, "scene_id": entry.id}  # fmt: skip
        if entry.group:
            record["group"] = entry.group
        if scene.stated_gsd_m is not None:
            record["gsd_m"] = scene.stated_gsd_m
        images.append(record)
        assert scene.label is not None
        for annotation in _annotations_of(scene.label.read(), source):
            identity = {"id": len(annotations) + 1, "image_id": number}
            annotations.append(identity | annotation)
    document = {
        "info": {"description": source.name},
        "licenses": [],
        "categories": [
            {"id": index, "name": name} for index, name in enumerate(source.classes) if index
        ],
        "images": images,
        "annotations": annotations,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    write_atomically(out, text.encode("utf-8", "surrogatepass") + b"\n")
    return WriteResult(out, len(images), files.notes)


def _annotations_of(mask: Mask, source: SceneSet) -> Iterator[dict[str, Any]]:
    """Yield the annotations of an image, without ids; unknown pixels are a crowd region."""
    tools = mask_tools()
    found: list[tuple[int, int, Any]] = []
    if not mask.valid.all():
        found.append((source.building_class, 1, _encode_mask(~mask.valid)))
    for index in np.unique(mask.data[mask.valid]).tolist():
        here = (mask.data == index) & mask.valid
        if index == source.building_class:
            rings, holed = _outlines_of(here)
            found += [(index, 0, ring) for ring in rings]
            found += [(index, 0, rle) for rle in encode_regions(holed)]
        elif index:
            found.append((index, 0, _encode_mask(here)))
    height, width = mask.data.shape
    for index, crowd, shape in found:
        is_polygon = isinstance(shape, list)
        rle = tools.frPyObjects([shape], height, width)[0] if is_polygon else shape
        yield {
            "category_id": index,
            "iscrowd": crowd,
            "area": int(tools.area(rle)),
            "bbox": [float(side) for side in tools.toBbox(rle)],
            "segmentation": [shape] if is_polygon else
            {"size": [height, width], "counts": rle["counts"].decode()},
        }  # fmt: skip


def _outlines_of(mask: BoolArray) -> tuple[list[list[float]], BoolArray]:
    """Return the outlines of the regions of a mask without holes, and a mask of the others.

    Outlines go along the edges of pixels; there pycocotools draws exactly the pixels inside.
    """
    traced = [one for one, _ in trace_values(mask.view(np.uint8), mask, connectivity=4)]
    rings = [one["coordinates"][0][:-1] for one in traced if len(one["coordinates"]) == 1]
    others = [one for one in traced if len(one["coordinates"]) > 1]
    holed = rasterize(others, mask.shape) > 0 if others else np.zeros(mask.shape, np.bool_)
    return [[float(value) for xy in ring for value in xy] for ring in rings], holed


def _encode_mask(mask: BoolArray) -> Rle:
    """Encode a mask (y, x) as one compressed RLE."""
    encoded: Rle = mask_tools().encode(np.asfortranarray(mask.view(np.uint8)))
    return encoded


def encode_regions(mask: BoolArray) -> list[Rle]:
    """Encode each connected region of a mask (y, x) as its own RLE.

    Pixels that share an edge are connected. All regions are encoded in one pass over the pixels.
    """
    tools = mask_tools()
    height, width = mask.shape
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    flat = cv2.transpose(labels).ravel()  # COCO counts down columns
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    stops = np.concatenate((starts[1:], [flat.size]))
    region = flat[starts]
    drawn = np.flatnonzero(region)
    drawn = drawn[np.argsort(region[drawn], kind="stable")]
    cuts = np.flatnonzero(np.diff(region[drawn])) + 1
    found = []
    for runs in np.split(drawn, cuts) if len(drawn) else []:
        edges = np.empty(2 * len(runs) + 2, dtype=np.int64)
        edges[0], edges[1:-1:2], edges[2:-1:2], edges[-1] = 0, starts[runs], stops[runs], flat.size
        counts = np.diff(edges).tolist()
        found.append(tools.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    return found


COCO = SourceKind(
    "coco",
    "COCO JSON: polygons and run lengths",
    _recognises,
    _read,
    write_coco,
    frozenset({"images"}),
)
