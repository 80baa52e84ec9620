"""Read exports of label tools that hold the shapes of many images in one file.

Formats: CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format), VGG Image
Annotator 2 (JSON, project and CSV), Labelbox NDJSON, Encord JSON, Kili JSON, Datumaro JSON,
SuperAnnotate JSON (https://doc.superannotate.com/docs/vector-json), Scale AI's tasks
(https://scale.com/docs/api-reference/image-and-video-reference), Hasty JSON 1.1
(https://hasty.ai/content-hub/userdocs/export-formats/hasty-json-v1-1), releases of Segments.ai
(https://docs.segments.ai/reference/label-types), and SpaceNet's tables of `PolygonWKT_Pix`.
"""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import shapely
from shapely import affinity

from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.text import plural
from rooftrace.core.types import RasterSource
from rooftrace.io.files import read_head, xml_root
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.image_files import SceneOpener, unique_names
from rooftrace.labels.label_files import REMEDY, ImageFinder, label_files, load_json
from rooftrace.labels.mask_values import NameRule
from rooftrace.labels.rle import draw_runs
from rooftrace.labels.shape_files import (
    NOTHING,
    DrawnImage,
    DrawnShape,
    check_boxes,
    drawn_label,
    iter_names,
    lines_note,
    polygon,
    read_as,
    read_shapes,
    run_mask,
    size_of,
    traced_runs,
    xy_of,
)
from rooftrace.labels.shapes import ShapesLabel, ellipse, traced
from rooftrace.labels.source import SceneEntry, SceneSet, SourceKind, place_of
from rooftrace.labels.split import part_of_folder

_Parse = Callable[[Path], Iterator[DrawnImage]]

_HEAD_BYTES = 1 << 14


def _label_of(entry: SceneEntry, image: RasterSource, rule: NameRule) -> ShapesLabel:
    return drawn_label(entry.key, rule, image.grid, image.name)


def _read(
    path: Path, config: SourceConfig, labels: LabelConfig, kind: str,
    is_file: Callable[[Path], bool], parse: _Parse,
) -> SceneSet:  # fmt: skip
    """Read all files of a format at a path."""
    files = label_files(path, is_file) or [path]
    given = None if config.images is None else Path(config.images)
    by_image: dict[Path, DrawnImage] = {}
    file_of: dict[Path, Path] = {}
    for file in files:
        finder = ImageFinder.beside(file, given, path if path.is_dir() else None)
        for drawn in read_as(kind, file, parse):
            image = finder.find(drawn.name, drawn.where)
            if by_image.setdefault(image, drawn) is not drawn:
                raise LayoutError(f"{path} has two records about {image}.", remedy=REMEDY)
            file_of[image] = file
    check_boxes(by_image.values(), str(path))
    rule, notes = labels.name_rule().fitted(iter_names(by_image.values()), str(path))
    count = sum(len(drawn.shapes) for drawn in by_image.values())
    entries = [
        SceneEntry(scene_id, image, place_of(scene_id), by_image[image])
        for scene_id, image in zip(_ids(file_of, by_image), by_image)
    ]
    return SceneSet.of(
        kind, path, config, labels, entries,
        SceneOpener(config, partial(_label_of, rule=rule)),
        reading=f"{plural(len(entries), 'image')}, {plural(count, 'shape')}",
        notes=(*notes, *lines_note(by_image.values())), label_file=files[0],
    )  # fmt: skip


def _ids(file_of: Mapping[Path, Path], drawn: Mapping[Path, DrawnImage]) -> list[str]:
    """Return an id for each image, which begins with its part of the data if there are several.

    The label file states the part, or folders of the images are named after the parts, or the
    label files, or their folders.
    """
    ids = unique_names([*file_of])
    top = Path(os.path.commonpath([image.parent for image in file_of])) if file_of else Path()
    places = [
        (drawn[image].part, *image.parent.relative_to(top).parts, file.stem, file.parent.name)
        for image, file in file_of.items()
    ]
    parts = [next(filter(None, map(part_of_folder, some)), None) for some in places]
    if len({*parts}) == 1 or any("/" in one for one in ids):
        return ids
    return [f"{part}/{one}" if part else one for part, one in zip(parts, ids)]


def _cvat(path: Path) -> Iterator[DrawnImage]:
    root = xml_root(path)
    if root.find("track") is not None:
        raise LabelError(
            f"{path} holds tracks, as CVAT exports them of a video; expected images.",
            remedy="Export the task from CVAT as 'CVAT for images 1.1'.",
        )
    for image in root.iter("image"):
        drawn = sorted(image, key=lambda one: int(one.get("z_order") or 0))
        shapes = [_cvat_shape(one) for one in drawn if one.tag != "tag"]
        size = int(image.attrib["height"]), int(image.attrib["width"])
        part = image.get("subset") or ""
        yield DrawnImage(image.attrib["name"], tuple(shapes), size, path, part=part)


def _cvat_shape(one: ElementTree.Element) -> DrawnShape:
    def numbers(*names: str) -> list[float]:
        return [float(one.attrib[name]) for name in names]

    geometry: shapely.Geometry = NOTHING
    if one.tag == "polygon":
        points = [pair.split(",") for pair in one.attrib["points"].split(";")]
        geometry = polygon(points)
    elif one.tag == "box":
        left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
        geometry = shapely.box(left, top, right, bottom)
    elif one.tag == "ellipse":
        geometry = ellipse(*numbers("cx", "cy", "rx", "ry"))
    elif one.tag == "mask":
        x, y, width, height = map(int, numbers("left", "top", "width", "height"))
        counts = [int(count) for count in one.attrib["rle"].split(",")]
        geometry = traced(run_mask(counts, (height, width), "row"), x, y)
    # Clockwise about the centre of the bounds; y points down.
    geometry = affinity.rotate(geometry, float(one.get("rotation") or 0))
    return DrawnShape(one.get("label", ""), geometry, one.tag == "box")


def _via(path: Path) -> Iterator[DrawnImage]:
    if path.suffix.lower() == ".csv":
        yield from _via_table(path)
        return
    raw = load_json(path)
    if "view" in raw:
        yield from _via_3(path, raw)
        return
    records = raw.get("_via_img_metadata", raw)
    for record in records.values():
        regions = record["regions"]
        # Version 1 numbers the regions in an object.
        regions = regions.values() if isinstance(regions, dict) else regions
        pairs = [(one["shape_attributes"], one["region_attributes"]) for one in regions]
        yield _via_image(path, record["filename"], pairs)


_VIA_3_SHAPES = (
    "", "point", "rect", "circle", "ellipse", "line", "polyline", "polygon", "rect", "circle"
)  # fmt: skip
"""Names of the shapes that version 3 numbers; the last two are drawn by extreme points."""


def _via_3(path: Path, raw: Mapping[str, Any]) -> Iterator[DrawnImage]:
    """Read a project of version 3, whose own COCO export has no size of the images."""
    regions: dict[str, list[tuple[Any, Any]]] = {str(view): [] for view in raw["view"]}
    for one in raw["metadata"].values():
        if not one["xy"]:
            continue
        kind, *values = one["xy"]
        keys = {"rect": "x y width height", "ellipse": "cx cy rx ry"}.get(
            _VIA_3_SHAPES[kind], "cx cy r"
        )
        shape = dict(zip(keys.split(), values)) | {
            "name": _VIA_3_SHAPES[kind], "all_points_x": values[::2], "all_points_y": values[1::2]
        }  # fmt: skip
        named = {}
        for key, value in one["av"].items():
            asked = raw["attribute"][key]
            # A choice is stored by its number.
            named[asked["aname"]] = asked["options"].get(value, value)
        regions[str(one["vid"])].append((shape, named))
    for view, some in regions.items():
        (file,) = raw["view"][view]["fid_list"]
        yield _via_image(path, raw["file"][str(file)]["fname"], some)


def _via_table(path: Path) -> Iterator[DrawnImage]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        images: dict[str, list[tuple[Any, Any]]] = {}
        for row in csv.DictReader(file):
            name = row.get("filename") or row["#filename"]
            shape = json.loads(row["region_shape_attributes"] or "{}")
            regions = images.setdefault(name, [])
            if shape:
                regions.append((shape, json.loads(row["region_attributes"] or "{}")))
    for name, regions in images.items():
        yield _via_image(path, name, regions)


def _via_image(path: Path, name: str, regions: Sequence[tuple[Any, Any]]) -> DrawnImage:
    shapes = []
    for shape, attributes in regions:
        kind = shape["name"]
        geometry: shapely.Geometry = NOTHING
        if kind == "polygon":
            points = list(zip(shape["all_points_x"], shape["all_points_y"]))
            geometry = polygon(points)
        elif kind == "rect":
            x, y = shape["x"], shape["y"]
            geometry = shapely.box(x, y, x + shape["width"], y + shape["height"])
        elif kind in ("circle", "ellipse"):
            radii = (shape.get("rx", shape.get("r")), shape.get("ry", shape.get("r")))
            geometry = ellipse(shape["cx"], shape["cy"], *radii)
        shapes.append(DrawnShape(_via_name(attributes), geometry, kind == "rect"))
    return DrawnImage(name, tuple(shapes), None, path)


def _via_name(attributes: Mapping[str, Any]) -> str:
    """Return the value of the attribute that names the class: the only one, or one named so."""
    named = {key: value for key, value in attributes.items() if value not in ("", None, {})}
    usual = [key for key in named if key.casefold() in ("class", "label", "name", "type")]
    value = named.get((usual or list(named) or [""])[0], "")
    if isinstance(value, Mapping):
        return ", ".join(str(name) for name, chosen in value.items() if chosen)
    return str(value)


def _labelbox(path: Path) -> Iterator[DrawnImage]:
    text = path.read_text("utf-8-sig").strip()
    rows = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    for row in rows:
        facts = row["data_row"]
        name = facts.get("external_id") or facts.get("global_key") or facts["id"]
        labels = [label for one in row.get("projects", {}).values() for label in one["labels"]]
        if not labels:
            continue
        if len(labels) > 1:
            raise ValueError(f"{name} has {len(labels)} labels; export one for each data row")
        shapes = [_labelbox_shape(one) for one in labels[0]["annotations"]["objects"]]
        facts = row.get("media_attributes", {})
        size = size_of(facts.get("height"), facts.get("width"))
        yield DrawnImage(name, tuple(shapes), size, path)


def _labelbox_shape(one: Mapping[str, Any]) -> DrawnShape:
    geometry: shapely.Geometry = NOTHING
    if points := one.get("polygon"):
        geometry = polygon(xy_of(points))
    elif box := one.get("bounding_box"):
        left, top = box["left"], box["top"]
        geometry = shapely.box(left, top, left + box["width"], top + box["height"])
    elif "mask" in one:
        raise ValueError("its masks are links to Labelbox; draw polygons, or export COCO")
    return DrawnShape(str(one.get("name") or one.get("value")), geometry, "bounding_box" in one)


def _encord(path: Path) -> Iterator[DrawnImage]:
    for row in load_json(path):
        for unit in row["data_units"].values() if row["label_status"] != "NOT_LABELLED" else ():
            name, size = unit["data_title"], (int(unit["height"]), int(unit["width"]))
            shapes = [
                DrawnShape(one["name"], _encord_shape(one, size), one["shape"] == "bounding_box")
                for one in unit["labels"].get("objects", ())
            ]
            yield DrawnImage(name, tuple(shapes), size, path)


def _encord_shape(one: Mapping[str, Any], size_yx: tuple[int, int]) -> shapely.Geometry:
    height, width = size_yx
    if bitmap := one.get("bitmask"):
        # Its runs go along the rows, those of COCO along the columns.
        sides = bitmap["width"], bitmap["height"]
        turned = traced_runs({"counts": bitmap["rleString"], "size": sides})
        return shapely.transform(turned, lambda xy: xy[:, ::-1] + [bitmap["left"], bitmap["top"]])
    if box := one.get("boundingBox"):
        left, top = box["x"], box["y"]
        shares: shapely.Geometry = shapely.box(left, top, left + box["w"], top + box["h"])
    elif one["shape"] == "polygon":
        # Releases before complex polygons number the corners of one ring.
        corners = (one["polygon"][key] for key in sorted(one["polygon"], key=int))
        parts = one.get("polygons") or [[[p[axis] for p in corners for axis in ("x", "y")]]]
        rings = [[np.reshape(ring, (-1, 2)) for ring in part] for part in parts]
        shares = shapely.MultiPolygon([polygon(outer, holes) for outer, *holes in rings])
    else:
        return NOTHING
    return affinity.scale(shares, width, height, origin=(0, 0))


def _kili(path: Path) -> Iterator[DrawnImage]:
    for asset in load_json(path):
        labels = asset.get("labels") or [asset.get("latestLabel") or {}]
        made = [one for one in labels if one.get("labelType") in ("DEFAULT", "REVIEW")]
        if not made:
            continue
        latest = max(made, key=lambda one: str(one.get("createdAt")))
        jobs = (job for job in latest["jsonResponse"].values() if isinstance(job, dict))
        shapes = []
        for one in (one for job in jobs for one in job.get("annotations", ())):
            # Parts of a shape have a list each, and a shape of one part need not.
            parts = one.get("boundingPoly") or []
            for part in [parts] if parts and isinstance(parts[0], dict) else parts:
                outer, *holes = (xy_of(ring["normalizedVertices"]) for ring in part)
                geometry = polygon(outer, holes)
                name = one["categories"][0]["name"]
                shapes.append(DrawnShape(name, geometry, one["type"] == "rectangle"))
        yield DrawnImage(asset["externalId"], tuple(shapes), None, path, is_relative=True)


def _datumaro(path: Path) -> Iterator[DrawnImage]:
    raw = load_json(path)
    names = [one["name"] for one in raw["categories"]["label"]["labels"]]
    for item in raw["items"]:
        image = item.get("image") or item.get("media") or {}
        drawn = sorted(item["annotations"], key=lambda one: one.get("z_order", 0))
        shapes = []
        for one in drawn:
            if one["type"] == "polygon":
                geometry: shapely.Geometry = polygon(np.reshape(one["points"], (-1, 2)))
            elif one["type"] == "mask":
                geometry = traced_runs(one["rle"])
            elif one["type"] == "bbox":
                x, y, width, height = one["bbox"]
                geometry = shapely.box(x, y, x + width, y + height)
            else:  # a caption has no label
                continue
            shapes.append(DrawnShape(names[one["label_id"]], geometry, one["type"] == "bbox"))
        size = tuple(image["size"]) if image.get("size") else None
        yield DrawnImage(image.get("path") or item["id"], tuple(shapes), size, path)


def _superannotate(path: Path) -> Iterator[DrawnImage]:
    raw = load_json(path)
    facts, shapes = raw["metadata"], []
    for one in raw["instances"]:
        kind, points = one["type"], one.get("points")
        geometry: shapely.Geometry = NOTHING
        if kind == "polygon":
            outer, *holes = (
                np.reshape(ring, (-1, 2)) for ring in (points, *one.get("exclude", ()))
            )
            geometry = polygon(outer, holes)
        elif kind == "ellipse":
            upright = ellipse(*(points[key] for key in ("cx", "cy", "rx", "ry")))
            geometry = affinity.rotate(upright, points["angle"])
        elif kind == "bbox":
            geometry = shapely.box(*(points[key] for key in ("x1", "y1", "x2", "y2")))
        shapes.append(DrawnShape(one.get("className", ""), geometry, kind == "bbox"))
    size = size_of(facts.get("height"), facts.get("width"))
    yield DrawnImage(facts["name"], tuple(shapes), size, path)


def _scale(path: Path) -> Iterator[DrawnImage]:
    raw = load_json(path)
    for task in raw if isinstance(raw, list) else raw.get("docs", [raw]):
        # A task that nobody has labelled has no response.
        if response := task.get("response"):
            shapes = []
            for one in response["annotations"]:
                geometry: shapely.Geometry = NOTHING
                if one["type"] == "polygon":
                    geometry = polygon(xy_of(one["vertices"]))
                elif one["type"] == "box":
                    left, top = one["left"], one["top"]
                    geometry = shapely.box(left, top, left + one["width"], top + one["height"])
                elif one["type"] not in ("line", "point"):
                    raise ValueError(f"it has a shape of the type {one['type']!r}, not a polygon")
                shapes.append(DrawnShape(one["label"], geometry, one["type"] == "box"))
            yield DrawnImage(task["params"]["attachment"], tuple(shapes), None, path)


def _hasty(path: Path) -> Iterator[DrawnImage]:
    for image in load_json(path)["images"]:
        shapes = []
        if not image["labels"] and image.get("image_status") not in ("DONE", "TO REVIEW"):
            continue
        for one in sorted(image["labels"], key=lambda one: one.get("z_index") or 0):
            left, top, right, bottom = one.get("bbox") or (0, 0, 0, 0)
            geometry: shapely.Geometry = shapely.box(left, top, right, bottom)
            if one.get("polygon"):
                geometry = polygon(one["polygon"])
            elif one.get("mask"):
                # Starts, from 1 along the rows of the box, and lengths.
                starts, lengths = np.reshape(one["mask"], (-1, 2)).T
                bounds = np.stack([starts - 1, starts - 1 + lengths], axis=1)
                geometry = traced(draw_runs(bounds, (bottom - top, right - left), "row"), left, top)
            is_box = not (one.get("polygon") or one.get("mask"))
            shapes.append(DrawnShape(one["class_name"], geometry, is_box))
        size = size_of(image.get("height"), image.get("width"))
        yield DrawnImage(image["image_name"], tuple(shapes), size, path)


def _segments(path: Path) -> Iterator[DrawnImage]:
    data = load_json(path)["dataset"]
    names = {one["id"]: one["name"] for one in data["task_attributes"]["categories"]}
    for sample in data["samples"]:
        of_sets, shapes = sample["labels"], []
        label = of_sets.get("ground-truth") or next(filter(None, of_sets.values()), None)
        if label is None:
            continue
        if "segmentation_bitmap" in label["attributes"]:
            raise LabelError(
                f"The masks of {path} are links to Segments.ai.",
                remedy="Export COCO: segments.utils.export_dataset(dataset, 'coco-instance').",
            )
        for one in label["attributes"]["annotations"]:
            geometry: shapely.Geometry = NOTHING
            if one["type"] == "polygon":
                geometry = polygon(one["points"])
            elif one["type"] == "bbox":
                geometry = shapely.box(*np.ravel(one["points"]))
            shapes.append(DrawnShape(names[one["category_id"]], geometry, one["type"] == "bbox"))
        yield DrawnImage(sample["name"], tuple(shapes), None, path)


def _spacenet(path: Path) -> Iterator[DrawnImage]:
    images: dict[str, list[DrawnShape]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            shapes = images.setdefault(row["ImageId"], [])
            # Some tables have a third coordinate, which is 0.
            geometry = shapely.force_2d(shapely.from_wkt(row["PolygonWKT_Pix"]))
            if geometry.geom_type.endswith("Polygon") and not geometry.is_empty:
                score = float(row["Confidence"]) if row.get("Confidence") else None
                shapes.append(DrawnShape("building", geometry, score=score))
    for name, shapes in images.items():
        yield DrawnImage(name, tuple(shapes), None, path)


_EXPORTS = (
    ("cvat", "CVAT for images (XML)", (".xml",), rb"<annotations>[\s\S]*<(meta|image|version)",
     _cvat),
    ("datumaro", "Datumaro JSON", (".json",), rb'"categories"\s*:\s*\{', _datumaro),
    ("via", "VGG Image Annotator (JSON, CSV)", (".json", ".csv"),
     rb'"filename"\s*:[\s\S]*"regions"\s*:|region_shape_attributes|"vid_list"', _via),
    ("labelbox", "Labelbox NDJSON", (".ndjson", ".json", ".jsonl"), rb'^\W*"data_row"', _labelbox),
    ("encord", "Encord JSON", (".json",), rb'"label_hash"\s*:', _encord),
    ("kili", "Kili JSON", (".json",), rb'"externalId"\s*:', _kili),
    ("superannotate", "SuperAnnotate JSON", (".json",),
     rb'\A(?=[\s\S]*"(metadata"\s*:\s*\{|class(Name|Id)"))[\s\S]*"instances"\s*:\s*\[',
     _superannotate),
    ("scale", "Scale AI's tasks (JSON)", (".json",),
     rb'"task_id"\s*:[\s\S]*"attachment"\s*:[\s\S]*"annotations"\s*:', _scale),
    ("hasty", "Hasty JSON", (".json",), rb'"export_format_version"[\s\S]*"label_classes"', _hasty),
    ("segments", "a release of Segments.ai (JSON)", (".json",),
     rb'"task_attributes"\s*:[\s\S]*"samples"\s*:', _segments),
    ("spacenet", "SpaceNet CSV of polygons in pixels", (".csv",), rb"PolygonWKT_Pix", _spacenet),
)  # fmt: skip


_Export = tuple[str, str, tuple[str, ...], bytes, _Parse]


def _is_export(path: Path, row: _Export) -> bool:
    if path.suffix.lower() not in row[2] or not path.is_file():
        return False
    return re.search(row[3], read_head(path, _HEAD_BYTES)) is not None


def drawn_files(files: Sequence[Path]) -> list[Path]:
    """Return those of some files that may hold shapes of images: an export, or one for each image.

    Beside those of YOLO, which name no image, there may be other texts.
    """
    if len(files) == 1 and any(_is_export(files[0], row) for row in _EXPORTS):
        return [*files]
    texts = [file for file in files if file.suffix in _PATTERNS]
    return texts if any(map(_is_of_one_image, texts)) else []


def read_drawn(file: Path) -> list[DrawnImage]:
    """Return the shapes of one of `drawn_files`, which are predictions; [] for another text.

    Raises:
        LabelError: The file is damaged, or all shapes are boxes.
    """
    for row in _EXPORTS:
        if _is_export(file, row):
            images = read_as(row[0], file, row[4])
            check_boxes(images, str(file))
            return images
    return [read_shapes(file, scored=True)] if _is_of_one_image(file) else []


_PATTERNS = {
    ".txt": rb"^\d+ [\d.]+ ",
    ".json": rb'"(shapes|predicted_iou)"\s*:',
    ".csv": rb"^id,area,bbox_x0,.*,predicted_iou",
}
"""What is near the beginning of predictions of YOLO, and of LabelMe and Segment Anything."""


def _is_of_one_image(file: Path) -> bool:
    pattern = _PATTERNS.get(file.suffix)
    return pattern is not None and re.search(pattern, read_head(file, _HEAD_BYTES)) is not None


def _kind(row: _Export) -> SourceKind:
    name, summary, _, _, parse = row
    is_file = partial(_is_export, row=row)
    return SourceKind(
        name, summary, lambda path: bool(label_files(path, is_file)),
        partial(_read, kind=name, is_file=is_file, parse=parse), options=frozenset({"images"}),
    )  # fmt: skip


EXPORTS = tuple(map(_kind, _EXPORTS))
"""Kinds of data of this module."""
