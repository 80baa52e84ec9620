"""Write what Label Studio imports: tasks with annotations or predictions, and label configurations.

Images are written as browsers show them, since annotators see them in a browser.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from PIL import ExifTags, Image

from rooftrace.core.errors import DataError, LabelError
from rooftrace.core.text import size_text
from rooftrace.core.types import Footprints, GeoGrid, Mask, Polygons, Progress, RasterSource, Scene
from rooftrace.io.bands import in_colours
from rooftrace.io.files import relative_name, replacing, write_atomically
from rooftrace.io.legend import class_colours
from rooftrace.io.picture import as_rgb, encoded
from rooftrace.labels.footprints import object_outlines
from rooftrace.labels.image_files import LabelFileImages, check_single_file
from rooftrace.labels.label_files import GROUP_KEY, GSD_KEY, ID_KEY
from rooftrace.labels.labelstudio_export import UNKNOWN_LABEL, holds_export, read_exports
from rooftrace.labels.labelstudio_regions import BrushError, encode_brush
from rooftrace.labels.mask_values import IGNORED
from rooftrace.labels.shapes import bridged
from rooftrace.labels.source import SceneEntry, SceneSet, SourceKind, WriteOptions, WriteResult

_IMAGE = "image"
_TOOLS = ("Polygon", "Brush", "Rectangle", "Ellipse")


@dataclass(frozen=True)
class Control:
    """Control of a project to which results belong."""

    name: str
    to_name: str = _IMAGE


POLYGON, BRUSH, RECTANGLE = Control("polygon"), Control("brush"), Control("rectangle")
"""Controls of `label_config`."""


def label_config(classes: Sequence[str], *, unknown: bool = True) -> str:
    """Return the labelling configuration of a project for these classes, as XML.

    Args:
        classes: Class names by class index; the background, index 0, is not labelled.
        unknown: Whether there is a label for unknown pixels, which brushes may have.
    """
    colours = class_colours()
    labels = [
        f'    <Label value={quoteattr(name)} background="#{bytes(colours[index][:3]).hex()}"/>'
        for index, name in enumerate(classes)
        if index
    ]
    if unknown:
        labels.append(f'    <Label value={quoteattr(UNKNOWN_LABEL)} background="#888888"/>')
    lines = ["<View>", f'  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>']
    for tool in _TOOLS:
        lines.append(f'  <{tool}Labels name="{tool.lower()}" toName="{_IMAGE}">')
        lines += [*labels, f"  </{tool}Labels>"]
    return "\n".join([*lines, "</View>"])


def predictions(
    found: Footprints, grid: GeoGrid, label: str, model_version: str, control: Control = POLYGON
) -> list[dict[str, Any]]:
    """Return the `predictions` of one task, from which annotators start: polygons with scores.

    Args:
        found: Buildings.
        grid: Grid of the image.
        label: Label of the polygons.
        model_version: Name of the model in Label Studio.
        control: Control of the project.

    Returns:
        One prediction; its score is the mean score of its polygons.
    """
    results = polygon_results(found, grid, label, control)
    prediction: dict[str, Any] = {"model_version": model_version, "result": results}
    if results:
        prediction["score"] = float(np.mean([result["score"] for result in results]))
    return [prediction]


def polygon_results(
    footprints: Footprints, grid: GeoGrid, label: str, control: Control = POLYGON
) -> list[dict[str, Any]]:
    """Return footprints as `polygonlabels`, in percent of the image.

    Polygons of Label Studio have no holes: a hole is connected to the outer ring by a seam without
    width, so that the area stays the same.
    """
    results = []
    for number, (polygon, score) in enumerate(zip(_in_pixels(footprints, grid), footprints.score)):
        for part, outline in enumerate(shapely.get_parts(polygon)):
            result = _polygon_result(f"p{number}.{part}", outline, grid, label, control)
            results.append(result | {"score": float(score)})
    return results


def _in_pixels(footprints: Footprints, grid: GeoGrid) -> Polygons:
    if footprints.crs is None:
        return footprints.geometry
    return np.asarray(shapely.transform(footprints.geometry, grid.to_pixels), np.object_)


def _polygon_result(
    result_id: str, outline: shapely.Polygon, grid: GeoGrid, label: str, control: Control = POLYGON
) -> dict[str, Any]:
    """Return a polygon in pixels of the image as a result."""
    # A hole runs against the outer ring, so that both fill rules leave it empty.
    ring = bridged(shapely.orient_polygons(outline))
    percent = np.clip(ring / (grid.width, grid.height) * 100, 0, 100)
    value = {"points": percent.tolist(), "closed": True, "polygonlabels": [label]}
    return _result(result_id, "polygonlabels", value, grid.shape, control)


def _scene_results(scene: Scene, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the label of a scene: its objects as polygons, or else its classes as brushes."""
    assert scene.label is not None
    if (outlines := object_outlines(scene)) is None:
        yield from brush_results(scene.label.read(), classes)
        return
    for number, (outline, index) in enumerate(zip(outlines[0], outlines[1].tolist())):
        if index:
            name = UNKNOWN_LABEL if index == IGNORED else classes[index]
            yield _polygon_result(f"p{number}", outline, scene.image.grid, name)


def rectangle_results(
    footprints: Footprints, grid: GeoGrid, label: str, control: Control = RECTANGLE
) -> list[dict[str, Any]]:
    """Return footprints as `rectanglelabels`: bounding boxes in percent of the image."""
    results = []
    sides = (grid.width, grid.height) * 2
    boxes = np.clip(shapely.bounds(_in_pixels(footprints, grid)) / sides * 100, 0, 100)
    for number, (box, score) in enumerate(zip(boxes.tolist(), footprints.score)):
        left, top, right, bottom = box
        value = {"x": left, "y": top, "width": right - left, "height": bottom - top,
                 "rotation": 0, "rectanglelabels": [label]}  # fmt: skip
        result = _result(f"r{number}", "rectanglelabels", value, grid.shape, control)
        results.append(result | {"score": float(score)})
    return results


def brush_results(
    mask: Mask, classes: Sequence[str], control: Control = BRUSH
) -> Iterator[dict[str, Any]]:
    """Yield a mask as one brush for each class, and one for unknown pixels, without loss.

    Raises:
        LabelError: The image is too large for a brush mask.
    """
    layers = {
        classes[index]: (mask.data == index) & mask.valid
        for index in np.unique(mask.data[mask.valid]).tolist()
        if index
    }
    if not mask.valid.all():
        layers[UNKNOWN_LABEL] = ~mask.valid
    for number, (name, layer) in enumerate(layers.items()):
        try:
            rle = list(encode_brush(layer))
        except BrushError as error:
            raise LabelError(
                f"An image of {size_text(layer.shape)} cannot have a brush mask: {error}.",
                remedy="Cut it into chips with --set chip_px=1024.",
            ) from error
        value = {"format": "rle", "rle": rle, "brushlabels": [name]}
        yield _result(f"b{number}", "brushlabels", value, mask.grid.shape, control)


def scene_data(
    entry: SceneEntry,
    scene: Scene,
    reference: str,
    *,
    key: str = _IMAGE,
    georeferenced: bool = True,
) -> dict[str, Any]:
    """Return the data of a task: its image, and what is needed to read the scene back unchanged.

    Args:
        entry, scene: Scene to label.
        reference: Name of the image in the task.
        key: Key of that name in the data.
        georeferenced: Whether the image that the task names has the scene's georeference.
    """
    data: dict[str, Any] = {key: reference, ID_KEY: entry.id}
    if entry.group:
        data[GROUP_KEY] = entry.group
    gsd_m = scene.stated_gsd_m if georeferenced else scene.gsd_m
    if gsd_m is not None:
        data[GSD_KEY] = gsd_m
    return data


def _write_export(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write tasks with one annotation each, as Label Studio imports and exports them.

    Objects are polygons; a mask of classes is one brush for each.

    The labelling configuration that a project needs for them is written beside them as `.xml`.
    """
    check_single_file(out, "Label Studio tasks are", "tasks.json")
    files = LabelFileImages(out, options)
    with replacing(out) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for number, (entry, scene) in enumerate(source.opened(progress)):
            image = files.path_of(entry, scene)
            data = scene_data(entry, scene, relative_name(image, out.parent))
            drawn = [*_scene_results(scene, source.classes)]
            annotation = {"id": number + 1, "result": drawn}
            task = {"id": number + 1, "data": data, "annotations": [annotation]}
            text = json.dumps(task, separators=(",", ":"))
            file.write(("[\n" if number == 0 else ",\n") + text)
        file.write("\n]\n")
    write_atomically(out.with_suffix(".xml"), label_config(source.classes).encode() + b"\n")
    note = f"A project for these tasks needs the labelling interface {out.with_suffix('.xml')}."
    return WriteResult(out, len(source), (note, *files.notes), has_gsd=True)


def _result(
    result_id: str, kind: str, value: dict[str, Any], shape_yx: tuple[int, int], control: Control
) -> dict[str, Any]:
    return {
        "id": result_id,
        "type": kind,
        "from_name": control.name,
        "to_name": control.to_name,
        "original_width": shape_yx[1],
        "original_height": shape_yx[0],
        "image_rotation": 0,
        "value": value,
    }


_MOST_PX = 64_000_000
"""Maximum number of pixels in an image that Label Studio's editor shows."""

_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
_ENDINGS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg")}
_UPRIGHT = 1


@dataclass(frozen=True)
class BrowserImage:
    """An image file for a browser, pixel by pixel on the image's grid."""

    name: str
    content: bytes
    media_type: str


def browser_image(
    image: RasterSource, file: Path | None, name: str, bands: str | None = None
) -> BrowserImage:
    """Return the image's own file if a browser shows it unchanged, otherwise a PNG.

    A PNG has red, green and blue as far as they are known, or the first three bands, or the first;
    values of more than 8 bits are stretched, see `as_rgb`.

    Args:
        image: Image to show.
        file: File from which the image was opened; None if it is a part of a scene.
        name: File name without suffix.
        bands: Bands that the user chose, see `in_colours`.

    Raises:
        DataError: The image has too many pixels for the editor, or cannot be read.
    """
    height, width = image.grid.shape
    if height * width > _MOST_PX:
        raise DataError(
            f"{image.name} has {height * width / 1e6:,.0f} million pixels; Label Studio's editor "
            f"accepts up to {_MOST_PX / 1e6:,.0f}.",
            remedy="Cut it into chips: --set chip_px=2048.",
        )
    kind = None if file is None else is_shown_by_browsers(file)
    if file is not None and kind is not None:
        # A server goes by the suffix, so it must fit the content.
        suffix = file.suffix if file.suffix.lower() in _ENDINGS[kind] else _ENDINGS[kind][0]
        return BrowserImage(name + suffix, file.read_bytes(), _MEDIA_TYPES[kind])
    raster = in_colours(image, bands).read()
    rgb = as_rgb(raster.data, raster.valid)
    picture = Image.fromarray(rgb if image.bands >= 3 else rgb[..., 0])
    return BrowserImage(
        f"{name}.png", encoded(picture, "PNG", compress_level=3), _MEDIA_TYPES["PNG"]
    )


def is_shown_by_browsers(file: Path) -> str | None:
    """Return `PNG` or `JPEG` if a browser shows the file unchanged, judging by content; else None.

    A photograph with a rotation tag does not count: its annotations would have swapped sides.
    """
    try:
        with Image.open(file) as image:
            upright = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT) == _UPRIGHT
            return image.format if upright and image.format in _MEDIA_TYPES else None
    except (OSError, ValueError, SyntaxError):
        return None


LABELSTUDIO = SourceKind(
    "labelstudio",
    "Label Studio's JSON or JSON-MIN: polygons, brushes, rectangles and ellipses",
    holds_export,
    read_exports,
    _write_export,
    frozenset({"annotator", "field", "images"}),
)
