"""Read and write COCO JSON: images, annotations and categories in one file.

The format: https://cocodataset.org/#format-data. For what is drawn see `coco_label`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import shapely
from pydantic import BaseModel, Field, ValidationError

from rooftrace.core.config import invalid_values
from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.scales import is_gsd_m
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import Progress, RasterSource, Scene
from rooftrace.io.files import read_head, relative_name, write_atomically
from rooftrace.labels.coco_label import (
    CocoAnnotation,
    CocoLabel,
    encode_mask,
    mask_tools,
    polygon_corners,
)
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.footprints import scene_outlines
from rooftrace.labels.image_files import LabelFileImages, SceneOpener, check_single_file
from rooftrace.labels.label_files import (
    REMEDY,
    ImageFinder,
    label_files,
    load_json,
    read_each,
)
from rooftrace.labels.mask_values import IGNORED, NameRule
from rooftrace.labels.shapes import bridged
from rooftrace.labels.source import (
    SceneEntry,
    SceneSet,
    SourceKind,
    WriteOptions,
    WriteResult,
    place_of,
)

_DIGITS = 3
"""Decimal places of corners that are written, in pixels."""

_HEAD_BYTES = 1 << 16
_KEYS = "info|licenses|images|annotations|categories"
_BEGINS = re.compile(rf'\s*\{{\s*"({_KEYS})"\s*:'.encode())
_LISTS = re.compile(rb'"(licenses|images|annotations|categories)"\s*:\s*\[')
Id = int | str
Side = Annotated[int, Field(ge=-1, lt=2**20)]


class _Category(BaseModel):
    id: Id
    name: str
    supercategory: Any = None


class _Image(BaseModel):
    """An image; the last three fields are those that rooftrace writes."""

    id: Id
    file_name: Annotated[str, Field(min_length=1)]
    height: Side
    width: Side
    scene_id: Any = None
    group: Any = None
    gsd_m: Any = None

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.height, self.width


class _Annotation(BaseModel):
    id: Any = None
    image_id: Id
    category_id: Id
    segmentation: Any = None
    iscrowd: Any = 0
    attributes: Any = None


class _Document(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation] | None = None
    categories: list[_Category] = []


R = TypeVar("R", _Image, _Category)


@dataclass(frozen=True, slots=True)
class _ImageRecord:
    """Contents of the file for one image: the key of its entry."""

    where: str
    id: Id
    shape: tuple[int, int]
    annotations: tuple[CocoAnnotation, ...]
    buildings: frozenset[Id]
    """Categories of the file whose annotations are buildings."""


def _label_of(entry: SceneEntry, image: RasterSource) -> CocoLabel:
    record: _ImageRecord = entry.key
    # VIA 3 writes -1 for the sides.
    shape = record.shape if min(record.shape) > 0 else image.grid.shape
    return CocoLabel(record.annotations, shape, image.grid, record.where, image.name)


def coco_files(path: Path) -> list[Path]:
    """Return the COCO files at a path: the file itself, or those of a folder."""
    found = label_files(path, _is_coco)
    # COCO has captions, keypoints and panoptic segments of the same images beside them.
    return [file for file in found if file.stem.lower().startswith("instances")] or found


def _is_coco(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    head = read_head(path, _HEAD_BYTES)
    # Label tools write small files of categories alone, and ISAT large ones that begin alike.
    has_images = b'"images"' in head or (len(head) == _HEAD_BYTES and _LISTS.search(head))
    return bool(_BEGINS.match(head) and has_images)


@dataclass
class _Unusual:
    """What notes name of the annotations of all files.

    Args:
        crowds: Number of them that are crowd regions.
        masks: Number of objects that are marked as crowds.
        nested: Place of each annotation with a polygon inside of another.
    """

    drawn: int = 0
    crowds: int = 0
    masks: int = 0
    nested: list[str] = field(default_factory=list)

    def notes(self) -> Iterator[str]:
        if self.crowds:
            yield (
                f"{self.crowds} of {self.drawn} annotations are crowd regions (iscrowd = 1): "
                "pixels under them are ignored in loss and metrics."
            )
        if self.masks:
            yield (
                f"{plural(self.masks, 'mask is', 'masks are')} marked as crowd (iscrowd = 1) by "
                "the tool that exported them, and read as objects."
            )
        if nested := self.nested:
            yield (
                f"{plural(len(nested), 'annotation has', 'annotations have')} a polygon inside of "
                "another, and both are building, as COCO defines it. If they are courtyards, "
                "export masks (run lengths) in place of polygons: "
                f"{list_first(nested)}."
            )


def _read(path: Path, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Read a file, or the files of a folder, whose categories mean the same in all."""
    documents = {file: _document(file) for file in coco_files(path) or [path]}
    rule, left_out = _fitted_rule(documents, path, labels)
    others = [file.name for file in label_files(path, _is_coco) if file not in documents]
    if others:
        listed = list_first(others)
        left_out += (f"Only files called instances… are read, not {listed}: name one as DATA.",)
    unusual = _Unusual()

    def read(file: Path, root: Path | None) -> SceneSet:
        return _read_document(documents[file], file, root, config, labels, rule, unusual)

    source = read_each(path, [*documents], read)
    return replace(source, notes=(*left_out, *unusual.notes()))


def _fitted_rule(
    documents: Mapping[Path, _Document], path: Path, labels: LabelConfig
) -> tuple[NameRule, tuple[str, ...]]:
    """Return the rule for the categories of files at a path, and a note on those left out."""
    used: list[str] = []
    declared: set[str] = set()
    above: set[object] = set()
    for file, document in documents.items():
        names = {one.id: one.name for one in _by_id(document.categories, file).values()}
        used += [names.get(one.category_id, "") for one in document.annotations or ()]
        declared.update(names.values())
        # Roboflow lists the name of the project as a category above the others.
        above.update(str(one.supercategory) for one in document.categories)
    return labels.name_rule().fitted(filter(None, used), str(path), declared=declared - above)


def result_ids(source: SceneSet, ids: Iterable[Id]) -> tuple[str, dict[Id, str], frozenset[Id]]:
    """Return the file of a set, its scenes by the ids of images, and the categories of buildings.

    All are empty unless the set is that of one file: several number images independently.
    """
    scenes = [(one.id, one.uncut.key) for one in source.entries]
    records = [(name, key) for name, key in scenes if isinstance(key, _ImageRecord)]
    if len({record.where for _, record in records}) != 1:
        return "", {}, frozenset()
    first = records[0][1]
    names = {record.id: name for name, record in records}
    if not names.keys() >= {*ids}:
        # The set may be a part of the file, in which the numbers of others must not count as names.
        every = _document(Path(first.where)).images
        names = {one.id: one.file_name for one in every} | names
    return first.where, names, first.buildings


def _document(path: Path) -> _Document:
    if not path.is_file():
        raise LayoutError(
            f"{path} is a folder; a COCO file was expected.", remedy="Name the .json file."
        )
    try:
        return _Document.model_validate(load_json(path))
    except ValidationError as error:
        problem = invalid_values(error, _Document, most=1)
        raise LabelError(f"{path}, read as COCO: {problem}", remedy=REMEDY) from None


def _read_document(
    document: _Document, path: Path, root: Path | None, config: SourceConfig,
    labels: LabelConfig, rule: NameRule, unusual: _Unusual,
) -> SceneSet:  # fmt: skip
    """Read all images of a file; without the list `annotations` they are unlabelled."""
    images = _by_id(document.images, path)
    drawn, indices = _annotations(document, images, path, rule, unusual)
    buildings = frozenset(one for one, index in indices.items() if index == labels.building_class)
    folder = None if config.images is None else Path(config.images)
    entries = _entries(images, path, ImageFinder.beside(path, folder, root), drawn, buildings)
    if drawn:
        mask_tools()
    labelled = document.annotations is not None
    return SceneSet.of(
        COCO.name,
        path,
        config,
        labels,
        entries if labelled else (),
        SceneOpener(config, _label_of),
        reading=f"{plural(len(entries), 'image')}, "
        f"{plural(sum(map(len, drawn.values())), 'annotation')}",
        unlabelled=() if labelled else entries,
        label_file=path,
    )


def _by_id(records: Sequence[R], path: Path) -> dict[Id, R]:
    """Return records by id; raise LabelError if two different ones share an id."""
    found: dict[Id, R] = {}
    for record in records:
        other = found.setdefault(record.id, record)
        if other is not record and other != record:
            raise LabelError(f"{path}: two records have the id {record.id!r}.", remedy=REMEDY)
    return found


def _annotations(
    document: _Document, images: dict[Id, _Image], path: Path, rule: NameRule, unusual: _Unusual
) -> tuple[dict[Id, list[CocoAnnotation]], dict[Id, int | None]]:
    """Return annotations by image id, and the class index of each category that has some.

    Crowd regions come first, so that others are drawn over them.
    """
    listed = document.annotations or []
    names = {one.id: one.name for one in _by_id(document.categories, path).values()}
    # CVAT's exporter marks each mask as a crowd, and so do tools that write run lengths alone.
    ours = any(one.scene_id is not None for one in images.values())
    masks_are_crowds = not ours and all(one.iscrowd in (1, True) for one in listed)
    indices: dict[Id, int | None] = {}
    crowds: dict[Id, list[CocoAnnotation]] = {}
    rest: dict[Id, list[CocoAnnotation]] = {}
    for number, one in enumerate(listed):
        identity = "" if one.id is None else f" (id {one.id!r:.40})"
        where = f"{path}: annotations[{number}]{identity}"
        if one.image_id not in images:
            raise LabelError(
                f"{where} belongs to the image {one.image_id!r}, which the file does not have.",
                remedy="Add the image, or remove the annotation.",
            )
        if one.category_id not in names:
            raise LabelError(
                f"{where} has the category {one.category_id!r}, which the file does not have; it "
                f"has {list_first([*map(repr, names)]) or 'none'}.",
                remedy="Add the category, or correct the annotation.",
            )
        if one.category_id not in indices:
            name = names[one.category_id]
            indices[one.category_id] = rule.index_of(name, f"{path}: categories")
        index = indices[one.category_id]
        if index is None:
            continue
        segmentation = _segmentation(one, where, images[one.image_id])
        if isinstance(segmentation, list) and _is_nested(segmentation):
            unusual.nested.append(where)
        crowd = one.iscrowd in (1, True)
        if crowd and (masks_are_crowds or "occluded" in (one.attributes or ())):
            crowd = False
            unusual.masks += 1
        into = crowds if crowd else rest
        annotation = CocoAnnotation(where, IGNORED if crowd else index, segmentation)
        into.setdefault(one.image_id, []).append(annotation)
    unusual.crowds += sum(map(len, crowds.values()))
    unusual.drawn += sum(map(len, [*crowds.values(), *rest.values()]))
    drawn = {image: crowds.get(image, []) + rest.get(image, []) for image in {**crowds, **rest}}
    return drawn, indices


def _is_nested(polygons: list[Any]) -> bool:
    """Return whether a polygon of an annotation lies in another, as some tools write courtyards."""
    if len(polygons) < 2:
        return False
    corners = map(polygon_corners, polygons)
    parts = np.array([shapely.Polygon(xy) for xy in corners if xy is not None], np.object_)
    return bool(shapely.STRtree(parts).query(parts, "contains_properly").size)


def _segmentation(one: _Annotation, where: str, image: _Image) -> list[Any] | dict[str, Any]:
    """Return the segmentation of the file, without polygons of fewer than three corners.

    Its numbers are checked when the label is read.
    """
    given = one.segmentation
    if isinstance(given, list) and given:
        return [
            part
            for part in given
            if not (isinstance(part, list) and len(part) < 6 and len(part) % 2 == 0)
        ]
    if not isinstance(given, dict) or not isinstance(given.get("counts"), (str, list)):
        raise LabelError(
            f"{where} has the segmentation {given!r:.40}; expected polygons or run lengths.",
            remedy="Export outlines instead of boxes only, or remove the annotation.",
        )
    size = [image.height, image.width]
    if given.get("size", size) != size:
        raise LabelError(
            f"{where} has run lengths for the size {given['size']!r:.40}, but the image "
            f"{image.file_name} has {size} (rows, columns).",
            remedy=REMEDY,
        )
    return given


def _entries(
    records: dict[Id, _Image],
    path: Path,
    images: ImageFinder,
    drawn: dict[Id, list[CocoAnnotation]],
    buildings: frozenset[Id],
) -> list[SceneEntry]:
    """Return the entries of the images.

    An id is the one that rooftrace wrote, or the name; without its suffix if that is unique.
    Images lie in the folder that the user gave, or else beside the file or in `images` there.
    """
    names = [Path(record.file_name.replace("\\", "/")) for record in records.values()]
    parts = [[p for p in name.parts if p not in (name.anchor, "..", ".")] for name in names]
    stems = ["/".join([*part[:-1], Path(part[-1]).stem] if part else ["?"]) for part in parts]
    if len(set(stems)) < len(stems):
        stems = ["/".join(part) for part in parts]
    entries: dict[str, SceneEntry] = {}
    missing = []
    found: dict[Path, Path] = {}
    for name, stem, (identity, record) in zip(names, stems, records.items()):
        own, group, gsd = record.scene_id, record.group, record.gsd_m
        scene_id = own if isinstance(own, str) and own else stem
        if scene_id in entries:
            raise LayoutError(f"{path} has two images with the name {scene_id}.", remedy=REMEDY)
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
            group if isinstance(group, str) else place_of(scene_id),
            _ImageRecord(
                str(path), identity, record.shape_yx, tuple(drawn.get(identity, ())), buildings
            ),
            float(gsd) if is_gsd_m(gsd) else None,
        )
    if entries and len(missing) == len(entries):
        raise LayoutError(
            f"None of the {len(missing)} images of {path} can be found: there is no {missing[0]}.",
            remedy="Give their folder with --images.",
        )
    return [*entries.values()]


def write_coco(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write a set as COCO JSON.

    Each object, and of a mask of classes each connected region, is an annotation, a polygon; a seam
    without width leads to each of its holes. Unknown pixels are a crowd region.
    Besides COCO's own fields an image has `scene_id`, and `group` and `gsd_m` if these were given,
    so that it is the same scene when it is read again.

    Raises:
        ConfigError: `out` does not end in `.json`.
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
        for annotation in _annotations_of(scene, source):
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
    return WriteResult(out, len(images), files.notes, has_gsd=True)


def _annotations_of(scene: Scene, source: SceneSet) -> Iterator[dict[str, Any]]:
    """Yield the annotations of an image, without ids; unknown pixels are a crowd region."""
    assert scene.label is not None
    mask = scene.label.read()
    if not mask.valid.all():
        unknown, tools = encode_mask(~mask.valid), mask_tools()
        yield {
            "category_id": source.building_class,
            "iscrowd": 1,
            "area": int(tools.area(unknown)),
            "bbox": tools.toBbox(unknown).tolist(),
            "segmentation": {"size": unknown["size"], "counts": unknown["counts"].decode()},
        }
    outlines, classes = scene_outlines(scene)
    # A hole runs against the outer ring, so that it does not count for the area. Along the edges of
    # pixels pycocotools draws exactly the pixels inside.
    for index, one in zip(classes.tolist(), shapely.orient_polygons(outlines)):
        if index > 0:
            ring = bridged(one).round(_DIGITS)
            drawn = shapely.Polygon(ring)
            left, top, right, bottom = drawn.bounds
            yield {
                "category_id": index,
                "iscrowd": 0,
                "area": drawn.area,
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": [ring.ravel().tolist()],
            }


def read_ids(path: Path) -> tuple[dict[str, Id], dict[str, Id]]:
    """Return the ids of the images of a file by name, and those of its categories.

    Raises:
        LabelError: The file is not COCO.
    """
    document = _document(path)
    return (
        {one.file_name: one.id for one in document.images},
        {one.name: one.id for one in document.categories},
    )


COCO = SourceKind(
    "coco",
    "COCO JSON: polygons and run lengths",
    lambda path: bool(coco_files(path)),
    _read,
    write_coco,
    frozenset({"images"}),
)
