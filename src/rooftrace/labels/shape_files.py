"""Read the shapes that label tools save in one file for each image, and write those of YOLO.

Every reader yields the same `DrawnImage`; `drawn_label` turns it into the label of an open image.
Formats: YOLO segmentation (https://docs.ultralytics.com/datasets/segment), LabelMe JSON and XML,
Supervisely (https://docs.supervisely.com/data-organization/00_ann_format_navi), Darwin 2.0
(https://docs.v7labs.com/reference/darwin-json), xBD (https://arxiv.org/abs/1911.09296), Pascal VOC
with Roboflow's polygons, ISAT (https://github.com/yatengLG/ISAT_with_segment_anything), and Segment
Anything (https://github.com/facebookresearch/segment-anything).
"""

import base64
import csv
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import shapely
from pyproj import Geod

from rooftrace.core.arrays import finite_array
from rooftrace.core.errors import LabelError
from rooftrace.core.scales import is_gsd_m
from rooftrace.core.text import plural, reason_of, size_text
from rooftrace.core.types import BoolArray, GeoGrid, Ints, Progress
from rooftrace.io.files import write_atomically, xml_root
from rooftrace.io.make_valid import made_valid
from rooftrace.labels.coco_label import decompress
from rooftrace.labels.footprints import scene_outlines
from rooftrace.labels.image_files import image_name, write_image
from rooftrace.labels.label_files import REMEDY, load_json
from rooftrace.labels.mask_values import IGNORED, NameRule, check_size
from rooftrace.labels.rle import Order, bounds_of, draw_runs
from rooftrace.labels.shapes import ShapesLabel, bridged, ellipse, traced
from rooftrace.labels.source import SceneSet, WriteOptions, WriteResult
from rooftrace.labels.split import PARTS, written_places

_MOST_SHARE = 1.5
"""Maximum coordinate in shares of the image; some tools draw a little beyond the edge."""

BOX_REMEDY = "Export outlines (polygons or masks): a box does not show the shape of a building."

UNCLASSIFIED = "un-classified"
"""Subtype of xBD for buildings of which nobody could tell the state: their pixels are unknown."""

NOTHING = shapely.Polygon()
"""Geometry of what has no area, such as a line."""


@dataclass(frozen=True, slots=True)
class DrawnShape:
    """A shape that somebody drew.

    Args:
        geometry: Polygon or multipolygon, x right and y down, in pixels or in shares of the image.
        is_box: Whether it is an upright rectangle that the tool calls a box.
        score: Score of a prediction; None for a label.
    """

    name: str
    geometry: shapely.Geometry
    is_box: bool = False
    score: float | None = None


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """The shapes of one image, from the lowest to the topmost.

    Args:
        name: Name of the image file, as the label file has it.
        shapes: Shapes; empty if there is nothing to label. Those without an area are left out.
        size_yx: Size of the image in the label file, or None.
        path: Label file.
        is_relative: Whether coordinates are shares of the image's sides, 0..1.
        part: Part of the data to which the image belongs, such as train; "" if not stated.
        declared: Names of labels of the format, also of those that no shape has.
        gsd_m: Metres per pixel by the coordinates of the shapes; None if there is one kind alone.
        lines: Number of shapes that were left out, such as lines and points.
    """

    name: str
    shapes: tuple[DrawnShape, ...]
    size_yx: tuple[int, int] | None
    path: Path
    is_relative: bool = False
    part: str = ""
    declared: tuple[str, ...] = ()
    gsd_m: float | None = None
    lines: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        shapes = tuple(one for one in self.shapes if not shapely.is_empty(one.geometry))
        object.__setattr__(self, "lines", len(self.shapes) - len(shapes))
        object.__setattr__(self, "shapes", shapes)

    @property
    def where(self) -> str:
        """Location for error messages."""
        return f"{self.path}, {self.name}"


def drawn_label(drawn: DrawnImage, rule: NameRule, grid: GeoGrid, name: str) -> ShapesLabel:
    """Return the label of an image, by its grid and its name for messages.

    Raises:
        LabelError: The size differs from the image's, or a name is not a class.
    """
    check_size(drawn.where, drawn.size_yx, grid, name)
    scale = np.array([grid.width, grid.height]) if drawn.is_relative else np.ones(2)
    indices = [
        IGNORED if shape.name == UNCLASSIFIED else rule.index_of(shape.name, drawn.where)
        for shape in drawn.shapes
    ]
    kept = [(shape, index) for shape, index in zip(drawn.shapes, indices) if index is not None]
    geometry = np.array([*(shape.geometry for shape, _ in kept), None], np.object_)[:-1]
    pixels = shapely.transform(geometry, lambda xy: xy * scale)
    return ShapesLabel(pixels, [index for _, index in kept], grid, drawn.gsd_m)


def polygon(points: object, holes: Iterable[object] = ()) -> shapely.Polygon:
    """Return the polygon of [x, y] points; `NOTHING` for fewer than three.

    Raises:
        ValueError: The points are not finite numbers.
    """
    ring = finite_array(points)
    if ring is None or (ring.size and (ring.ndim != 2 or ring.shape[1] != 2)):
        raise ValueError(f"{str(points)[:60]!r} is not a list of corners [x, y]")
    inner = [hole for hole in map(finite_array, holes) if hole is not None and len(hole) > 2]
    return shapely.Polygon(ring, inner) if len(ring) > 2 else NOTHING


def xy_of(points: Iterable[Mapping[str, float]]) -> list[tuple[float, float]]:
    """Return points that have their coordinates by name."""
    return [(point["x"], point["y"]) for point in points]


def _box_of(points: Any) -> shapely.Geometry:
    """Return the upright rectangle around points."""
    return shapely.envelope(shapely.MultiPoint(points))


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """Return a size (rows, columns) of a label file; None if it is not stated."""
    return None if height is None or width is None else (int(height), int(width))


def read_shapes(path: Path, *, scored: bool = False) -> DrawnImage:
    """Read the label file of one image, in any of the formats of this module.

    Args:
        scored: Whether lines of YOLO may end with a score, as those of predictions do.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _yolo(path, scored)
    raw: Any = {suffix: None} if suffix in (".xml", ".csv") else load_json(path)
    if isinstance(raw, list):
        raw = {"masks": raw}
    keys = list(raw) if isinstance(raw, dict) else []
    read = next((read for key, read in _READERS.items() if key in keys), None)
    if read is None:
        raise LabelError(
            f"{path} is not a label file of a known tool; it has "
            f"{', '.join(map(repr, keys[:5])) or 'no keys'}.",
            remedy="Export as LabelMe, ISAT, Supervisely, Darwin or COCO.",
        )
    drawn = read_as(read.__name__[1:], path, lambda path: [read(path, raw)])
    check_boxes(drawn, str(path))
    return drawn[0]


def read_as(
    kind: str, path: Path, parse: Callable[[Path], Iterable[DrawnImage]]
) -> list[DrawnImage]:
    """Return the images that `parse` finds in a file; raise LabelError if it is damaged."""
    found: list[DrawnImage] = []
    try:
        found.extend(parse(path))
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError, zlib.error,
            ElementTree.ParseError, shapely.errors.ShapelyError) as error:  # fmt: skip
        where = f"{path}, after {found[-1].name}," if found else f"{path}"
        raise LabelError(
            f"{where} cannot be read as {kind}: {reason_of(error)}.", remedy=REMEDY
        ) from error


def check_boxes(images: Iterable[DrawnImage], where: str) -> None:
    """Raise LabelError if all shapes are boxes."""
    shapes = [shape for drawn in images for shape in drawn.shapes]
    if shapes and all(shape.is_box for shape in shapes):
        boxes = plural(len(shapes), "shape")
        raise LabelError(f"{where}: all {boxes} are boxes, not outlines.", remedy=BOX_REMEDY)


def _yaml_names(text: str) -> tuple[str, ...]:
    """Return the list or mapping `names` of a YAML file, in the forms that label tools write."""
    found = re.search(r"^names\s*:(.*(?:\n(?:[ \t\-].*)?$)*)", text, re.MULTILINE)
    body = re.sub(r"(^|\s)#.*", "", found[1]) if found else ""
    items = re.split(r",(?=(?:[^'\"]|'[^']*'|\"[^\"]*\")*$)", body.strip().strip("[]{}"))
    if "[" not in body and "{" not in body:
        items = [line.strip().removeprefix("- ") for line in body.splitlines()]
    names: dict[int, str] = {}
    for item in (one.strip() for one in items if one.strip()):
        key = re.match(r"(\d+)\s*:\s*", item)
        value = item[key.end() :] if key else item
        names[int(key[1]) if key else len(names)] = value.strip("'\"")
    return tuple(names.get(index, "") for index in range(max(names, default=-1) + 1))


@lru_cache(maxsize=64)
def _names_of(folder: Path) -> tuple[str, ...]:
    """Return the class names of YOLO labels, from a file in their folder or the three around it."""
    for place in (folder, *folder.parents[:3]):
        for name in ("data.yaml", "dataset.yaml", "classes.txt", "obj.names"):
            if (place / name).is_file():
                text = (place / name).read_text("utf-8", "replace")
                return _yaml_names(text) if name.endswith(".yaml") else tuple(text.split("\n"))
    return ()


def _yolo(path: Path, scored: bool) -> DrawnImage:
    """Read one line a polygon: class, then x and y of each corner in shares of the image."""
    names, shapes = _names_of(path.parent), []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} is not YOLO: {reason_of(error)}.", remedy=REMEDY) from error
    for number, line in enumerate(lines, start=1):
        words, where = line.split(), f"{path}, line {number}"
        if not words:
            continue
        shown = "a box" if len(words) in (5, 6) else repr(line[:60])
        values, score = finite_array(words[1:]), None
        values = np.zeros(0) if values is None else values
        if scored and len(values) % 2:
            score, values = float(values[-1]), values[:-1]
        is_polygon = len(values) > 5 and not len(values) % 2 and values.max() <= _MOST_SHARE
        if not is_polygon or not words[0].isdecimal():
            raise LabelError(
                f"{where} is {shown}; expected a class and the corners x y x y … of a polygon, in "
                "shares of the image.",
                remedy=BOX_REMEDY,
            )
        index = int(words[0])
        name = (names[index].strip() if index < len(names) else "") or words[0]
        shapes.append(DrawnShape(name, shapely.Polygon(values.reshape(-1, 2)), score=score))
    return DrawnImage(path.stem, tuple(shapes), None, path, is_relative=True)


def _labelme(path: Path, raw: Mapping[str, Any]) -> DrawnImage:
    shapes = []
    for one in raw["shapes"]:
        kind, points = one.get("shape_type"), one["points"]
        geometry: shapely.Geometry = NOTHING
        if kind == "mask":
            bitmap = _decoded(base64.b64decode(one["mask"]))
            geometry = traced(bitmap, *points[0])
        elif kind == "circle":
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            geometry = ellipse(x, y, radius, radius)
        elif kind == "rectangle":
            geometry = _box_of(points)
        elif kind in ("polygon", "rotation", None):
            geometry = polygon(points)
        shapes.append(DrawnShape(str(one["label"]), geometry, kind == "rectangle"))
    size = size_of(raw.get("imageHeight"), raw.get("imageWidth"))
    name = str(raw.get("imagePath") or path.stem)
    return DrawnImage(name, tuple(shapes), size, path)


def _decoded(data: bytes) -> BoolArray:
    """Decode a PNG; a pixel is set where its last channel is not 0."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("it has a bitmap that cannot be read")
    bitmap: BoolArray = (image if image.ndim == 2 else image[..., -1]) > 0
    return bitmap


def _supervisely(path: Path, raw: Mapping[str, Any]) -> DrawnImage:
    shapes = []
    for one in raw["objects"]:
        kind = one["geometryType"]
        geometry: shapely.Geometry = NOTHING
        if kind == "bitmap":
            data = zlib.decompress(base64.b64decode(one["bitmap"]["data"]))
            geometry = traced(_decoded(data), *one["bitmap"]["origin"])
        elif kind == "rectangle":
            geometry = _box_of(one["points"]["exterior"])
        elif kind == "polygon":
            points = one["points"]
            geometry = polygon(points["exterior"], points.get("interior") or ())
            if not (shapely.get_coordinates(geometry) % 1).any():
                # Its SDK writes indices of the outermost pixels, and fills these, too.
                centred = shapely.transform(made_valid(geometry), lambda xy: xy + 0.5)
                geometry = centred.buffer(0.5, join_style="mitre")
        shapes.append(DrawnShape(one["classTitle"], geometry, kind == "rectangle"))
    size = raw["size"]["height"], raw["size"]["width"]
    return DrawnImage(path.stem, tuple(shapes), size, path)


def _isat(path: Path, raw: Mapping[str, Any]) -> DrawnImage:
    """Read ISAT, in which shapes of the category `__background__` cut holes into those below."""
    shapes: list[DrawnShape] = []
    ordered = sorted(raw["objects"], key=lambda one: one["layer"])
    for one in ordered:
        drawn = polygon(one["segmentation"])
        if one["category"] != "__background__":
            shapes.append(DrawnShape(one["category"], drawn))
            continue
        hole = made_valid(drawn)
        below = [(shape, made_valid(shape.geometry).difference(hole)) for shape in shapes]
        shapes = [replace(shape, geometry=rest) for shape, rest in below]
    size = size_of(raw["info"]["height"], raw["info"]["width"])
    return DrawnImage(raw["info"]["name"], tuple(shapes), size, path)


def _darwin(path: Path, raw: Mapping[str, Any]) -> DrawnImage:
    shapes = []
    slots = (raw["item"].get("slots") or [{}])[0]
    size = size_of(slots.get("height"), slots.get("width"))
    masks = _darwin_masks(raw["annotations"], size)
    for one in raw["annotations"]:
        if "raster_layer" in one or "tag" in one:
            continue
        outline, box = one.get("polygon") or {}, one.get("bounding_box")
        paths = outline.get("paths") or [outline.get("path") or []]
        parts = (made_valid(polygon(xy_of(ring))) for ring in paths)
        geometry = masks.get(one.get("id")) or reduce(shapely.symmetric_difference, parts)
        is_box = not outline and one.get("id") not in masks
        if is_box and box:
            x, y, width, height = (box[key] for key in ("x", "y", "w", "h"))
            geometry = shapely.box(x, y, x + width, y + height)
        shapes.append(DrawnShape(str(one["name"]), geometry, is_box))
    return DrawnImage(str(raw["item"].get("name") or path.stem), tuple(shapes), size, path)


def _darwin_masks(
    annotations: Sequence[Mapping[str, Any]], size_yx: tuple[int, int] | None
) -> dict[str, shapely.Geometry]:
    """Return the outline of each mask by its id: one raster has the masks of all annotations."""
    found: dict[str, shapely.Geometry] = {}
    for layer in (one["raster_layer"] for one in annotations if one.get("raster_layer")):
        assert size_yx is not None
        pairs = np.reshape(layer["dense_rle"], (-1, 2))
        numbers = np.repeat(pairs[:, 0], pairs[:, 1]).reshape(size_yx)
        for name, value in layer["mask_annotation_ids_mapping"].items():
            found[name] = traced(numbers == value)
    return found


def _xbd(path: Path, raw: Mapping[str, Any]) -> DrawnImage:
    shapes: list[DrawnShape] = []
    for one in raw["features"]["xy"]:
        # After a disaster, the subtype is the damage: what is destroyed is no longer a building.
        facts = one["properties"]
        kind, state = facts.get("feature_type", "building"), facts.get("subtype")
        name = state if state in ("destroyed", UNCLASSIFIED) else kind
        shapes.append(DrawnShape(name, shapely.from_wkt(one["wkt"])))
    facts = raw.get("metadata", {})
    size = size_of(facts.get("height"), facts.get("width"))
    name = str(facts.get("img_name") or path.stem)
    # Its own `gsd` is that of the sensor's coloured bands, four times as coarse as the image.
    area_px = float(sum(shapely.area(shape.geometry) for shape in shapes))
    ground = [shapely.from_wkt(one["wkt"]) for one in raw["features"].get("lng_lat", ())]
    lonlat = shapely.MultiPolygon(shapely.get_parts(shapely.orient_polygons(ground)).tolist())
    area_m2, _ = Geod(ellps="WGS84").geometry_area_perimeter(lonlat)
    gsd_m = math.sqrt(area_m2 / area_px) if area_px and area_m2 > 0 else None
    gsd_m = gsd_m if is_gsd_m(gsd_m) else None
    return DrawnImage(name, tuple(shapes), size, path, declared=("building",), gsd_m=gsd_m)


def _pascal_voc(path: Path, _: object) -> DrawnImage:
    root, shapes = xml_root(path), []
    for one in root.iter("object"):
        outline, box = one.find("polygon"), one.find("bndbox")
        geometry: shapely.Geometry = NOTHING
        if one.findtext("deleted") == "1":
            continue
        if one.find("segm") is not None:
            raise ValueError("its masks are files of their own; export CVAT for images, or COCO")
        if outline is not None and outline.find("pt") is not None:
            points = ((pt.findtext("x", ""), pt.findtext("y", "")) for pt in outline.iter("pt"))
            geometry = polygon([(float(x), float(y)) for x, y in points])
        elif outline is not None:
            # Roboflow writes the corners as x1, y1, x2, y2, ….
            at = {corner.tag: float(corner.text or "") for corner in outline}
            corners = [(at[f"x{n}"], at[f"y{n}"]) for n in range(1, len(at) // 2 + 1)]
            geometry = polygon(corners)
        elif box is not None:
            sides = (float(box.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax"))
            left, top, right, bottom = sides
            geometry = shapely.box(left, top, right, bottom)
        shapes.append(DrawnShape(one.findtext("name", ""), geometry, outline is None))
    size = size_of(
        root.findtext("size/height", root.findtext("imagesize/nrows")),
        root.findtext("size/width", root.findtext("imagesize/ncols")),
    )
    return DrawnImage(root.findtext("filename", path.stem), tuple(shapes), size, path)


def _segment_anything(path: Path, raw: Mapping[str, Any]) -> DrawnImage:
    """Read the masks of its automatic generator: a list for each image, or files of SA-1B."""
    masks = raw["masks"] if "masks" in raw else raw["annotations"]
    shapes = [
        DrawnShape("building", traced_runs(one["segmentation"]), score=one.get("predicted_iou"))
        for one in masks
    ]
    name = raw.get("image", {}).get("file_name", path.stem)
    return DrawnImage(name, tuple(shapes), None, path)


def _segment_anything_folder(path: Path, _: object) -> DrawnImage:
    """Read `metadata.csv` in the folder of an image: a row for each PNG beside it."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(path.with_name(f"{row['id']}.png"), row) for row in csv.DictReader(file)]
    shapes = [
        DrawnShape("building", traced(_decoded(mask.read_bytes())),
                   score=float(row["predicted_iou"]))
        for mask, row in rows
    ]  # fmt: skip
    return DrawnImage(path.absolute().parent.name, tuple(shapes), None, path)


_READERS = {
    ".xml": _pascal_voc, ".csv": _segment_anything_folder, "masks": _segment_anything,
    "image": _segment_anything,
    "shapes": _labelme, "info": _isat, "objects": _supervisely, "annotations": _darwin,
    "features": _xbd,
}  # fmt: skip
"""Reader of each format, by a key that only this format has at the top of its JSON."""


def traced_runs(rle: Mapping[str, Any]) -> shapely.MultiPolygon:
    """Return the outline of a mask in COCO's run lengths, as a string or as numbers."""
    counts = rle["counts"]
    found = decompress(counts) if isinstance(counts, str) else np.asarray(counts)
    if found is None:
        raise ValueError("run lengths cannot be read")
    return traced(run_mask(found.tolist(), (rle["size"][0], rle["size"][1]), "column"))


def run_mask(counts: Sequence[int], shape_yx: tuple[int, int], order: Order) -> BoolArray:
    """Return the bitmap (y, x) of run lengths that begin with a run of zeros.

    Raises:
        ValueError: The runs do not fill the bitmap.
    """
    runs: Ints = np.asarray(counts, np.int64)
    if (runs < 0).any() or runs.sum() != shape_yx[0] * shape_yx[1]:
        raise ValueError(f"run lengths are for {runs.sum()} pixels, not {size_text(shape_yx)}")
    return draw_runs(bounds_of(runs), shape_yx, order)


def lines_note(images: Iterable[DrawnImage]) -> tuple[str, ...]:
    """Return a note on the lines and points of images, if there are any."""
    count = sum(drawn.lines for drawn in images)
    listed = plural(count, "line or point", "lines and points")
    return (f"Left out: {listed}, without an area.",) if count else ()


def iter_names(images: Iterable[DrawnImage]) -> Iterator[str]:
    """Yield the name of each shape that is not unknown."""
    return (one.name for drawn in images for one in drawn.shapes if one.name != UNCLASSIFIED)


def write_yolo(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write `images/`, `labels/` and `data.yaml`, in which the background is no class.

    Parts of the data have a folder each, in both; `data.yaml` names those that `out` has.
    """
    unknown = 0
    places = written_places(source.ids, options.part)
    for entry, scene in source.opened(progress):
        part, name = places[entry.id]
        name = image_name(name)
        write_image(scene.image, entry.image, out / "images" / part, name)
        outlines, classes = scene_outlines(scene)
        sides = np.array([scene.image.grid.width, scene.image.grid.height])
        unknown += int((classes == IGNORED).any())
        lines = [
            " ".join([str(index - 1), *(f"{share:.7g}" for share in (bridged(one) / sides).flat)])
            for one, index in zip(outlines, classes.tolist()) if index > 0
        ]  # fmt: skip
        text = "".join(f"{line}\n" for line in lines)
        write_atomically(out / "labels" / part / f"{name}.txt", text.encode())
    names = json.dumps(list(source.classes[1:]), ensure_ascii=False)
    parts = {part: f"images/{part}" for part in PARTS if (out / "images" / part).is_dir()}
    parts = parts or {"train": "images"}
    text = "".join(f"{part}: {folder}\n" for part, folder in parts.items())
    write_atomically(out / "data.yaml", f"{text}names: {names}\n".encode())
    notes: list[str] = []
    if missing := [part for part in ("train", "val") if part not in parts]:
        note = f"data.yaml names no {missing[0]}, which YOLO needs to train: divide the data with "
        note += f"rooftrace split, and add --split split.json:{missing[0]} --overwrite."
        notes.append(note)
    if unknown:
        notes.append(f"{unknown} scenes have unknown areas, which YOLO takes for background.")
    return WriteResult(out, len(source), tuple(notes))
