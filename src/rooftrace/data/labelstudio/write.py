"""What Label Studio imports: tasks with annotations or with predictions, and a project's labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.polygon import orient

from rooftrace.core.errors import ConfigError, LabelError
from rooftrace.core.types import Footprints, GeoGrid, Mask, Scene
from rooftrace.data.images import image_name, relative_name, write_image
from rooftrace.data.labelstudio.brush import BrushError, encode_brush
from rooftrace.data.labelstudio.read import UNKNOWN_LABEL
from rooftrace.data.labelstudio.references import GROUP_KEY, GSD_KEY, ID_KEY, own_images
from rooftrace.data.source import Entry, Progress, SceneSet, WriteOptions, Written
from rooftrace.io.atomic import replacing, write_atomically
from rooftrace.io.legend import class_colours
from rooftrace.io.raster import RasterFile

__all__ = ["Control", "brush_results", "label_config", "polygon_results", "predictions",
           "rectangle_results", "scene_data", "write_export"]  # fmt: skip

Floats = NDArray[np.float64]

_IMAGE = "image"
_TOOLS = ("Polygon", "Brush", "Rectangle", "Ellipse")


@dataclass(frozen=True)
class Control:
    """The control of a project that results belong to.

    Args:
        name: of the control, `from_name`.
        to_name: of the image that it labels.
    """

    name: str
    to_name: str = _IMAGE


POLYGON, BRUSH, RECTANGLE = Control("polygon"), Control("brush"), Control("rectangle")
"""Those of `label_config`."""


def label_config(classes: Sequence[str]) -> str:
    """The labelling configuration of a project for these classes, as XML.

    Args:
        classes: names by class index; the background, index 0, is what is not labelled.
    """
    colours = class_colours()
    labels = [
        f'    <Label value={quoteattr(name)} background="#{bytes(colours[index][:3]).hex()}"/>'
        for index, name in enumerate(classes)
        if index
    ]
    labels.append(f'    <Label value={quoteattr(UNKNOWN_LABEL)} background="#888888"/>')
    lines = ["<View>", f'  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>']
    for tool in _TOOLS:
        lines.append(f'  <{tool}Labels name="{tool.lower()}" toName="{_IMAGE}">')
        lines += [*labels, f"  </{tool}Labels>"]
    return "\n".join([*lines, "</View>"])


def predictions(
    found: Footprints | Mask,
    grid: GeoGrid,
    classes: Sequence[str],
    model_version: str,
    *,
    building_class: int = 1,
    control: Control | None = None,
) -> list[dict[str, Any]]:
    """The `predictions` of one task: what a model found, for the annotators to start from.

    Args:
        found: buildings, which become polygons with their scores; or a mask, which becomes a brush
            for each class.
        grid: of the image.
        classes: names by class index; the background, index 0, is left out.
        model_version: what Label Studio calls the model.
        building_class: index of the class that footprints have.
        control: that of the project; default the one of `label_config`.

    Returns:
        One prediction; its score is the mean of those of its polygons.
    """
    if isinstance(found, Mask):
        results = list(brush_results(found, classes, control or BRUSH))
        return [{"model_version": model_version, "result": results}]
    results = polygon_results(found, grid, classes[building_class], control or POLYGON)
    prediction: dict[str, Any] = {"model_version": model_version, "result": results}
    if results:
        prediction["score"] = float(np.mean([result["score"] for result in results]))
    return [prediction]


def polygon_results(
    footprints: Footprints, grid: GeoGrid, label: str, control: Control = POLYGON
) -> list[dict[str, Any]]:
    """Footprints as `polygonlabels`, in percent of the image.

    A polygon of Label Studio has no holes: one is reached from the outer ring over a seam without
    width, so that the area stays as it is.
    """
    results = []
    for number, (polygon, score) in enumerate(zip(footprints.geometry, footprints.score)):
        rings = _rings_px(polygon, grid, placed=footprints.crs is not None)
        for part, ring in enumerate(rings):
            percent = np.clip(ring / (grid.width, grid.height) * 100, 0, 100)
            value = {"points": percent.tolist(), "closed": True, "polygonlabels": [label]}
            result = _result(f"p{number}.{part}", "polygonlabels", value, grid.shape, control)
            results.append(result | {"score": float(score)})
    return results


def rectangle_results(
    footprints: Footprints, grid: GeoGrid, label: str, control: Control = RECTANGLE
) -> list[dict[str, Any]]:
    """Footprints as `rectanglelabels`: the upright box around each, in percent of the image."""
    results = []
    for number, (polygon, score) in enumerate(zip(footprints.geometry, footprints.score)):
        xy = shapely.get_coordinates(polygon)
        if footprints.crs is not None:
            xy = _to_pixels(xy, grid)
        percent = np.clip(xy / (grid.width, grid.height) * 100, 0, 100)
        (left, top), (right, bottom) = percent.min(axis=0).tolist(), percent.max(axis=0).tolist()
        value = {"x": left, "y": top, "width": right - left, "height": bottom - top,
                 "rotation": 0, "rectanglelabels": [label]}  # fmt: skip
        result = _result(f"r{number}", "rectanglelabels", value, grid.shape, control)
        results.append(result | {"score": float(score)})
    return results


def brush_results(
    mask: Mask, classes: Sequence[str], control: Control = BRUSH
) -> Iterator[dict[str, Any]]:
    """A mask as one brush for each of its classes, and one for what is unknown. Lossless.

    Raises:
        LabelError: the image is too large for a brush mask.
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
                f"An image of {layer.shape[0]} rows × {layer.shape[1]} columns has no brush mask: "
                f"{error}.",
                remedy="Cut it into chips with --set chip_px=1024.",
            ) from error
        value = {"format": "rle", "rle": rle, "brushlabels": [name]}
        yield _result(f"b{number}", "brushlabels", value, mask.grid.shape, control)


def scene_data(
    entry: Entry, scene: Scene, reference: str, *, key: str = _IMAGE, placed: bool = True
) -> dict[str, Any]:
    """The data of a task: its image, and what brings the scene back as it went.

    Args:
        entry, scene: what is labelled.
        reference: how the task names the image.
        key: under which it does.
        placed: whether the image that it names has the georeference of the scene's.
    """
    data: dict[str, Any] = {key: reference, ID_KEY: entry.id}
    if entry.group:
        data[GROUP_KEY] = entry.group
    if scene.gsd_m is not None and not (placed and scene.image.grid.crs is not None):
        data[GSD_KEY] = scene.gsd_m
    return data


def write_export(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> Written:
    """Tasks with one annotation each, as Label Studio imports and exports them; brushes alone.

    The labelling configuration that a project needs for them is written beside, as `.xml`.

    Raises:
        ConfigError: `out` does not end in `.json`.
        DataError, ExportError: a scene cannot be read, or a file not be written.
    """
    if out.suffix.lower() != ".json":
        raise ConfigError(
            f"Label Studio's tasks are written as one file, but {out} does not end in .json.",
            remedy=f"Write -o {out / 'tasks.json'}.",
        )
    by_rule = False
    with replacing(out) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for number, (entry, scene) in enumerate(zip(source.entries, source)):
            image = entry.image
            if image is None or options.images == "copy":
                image = write_image(scene.image, image, own_images(out), image_name(entry.id))
            elif isinstance(scene.image, RasterFile):
                by_rule |= not scene.image.says_all
            assert scene.label is not None
            data = scene_data(entry, scene, relative_name(image, out.parent))
            drawn = [*brush_results(scene.label.read(), source.classes)]
            annotation = {"id": number + 1, "result": drawn}
            task = {"id": number + 1, "data": data, "annotations": [annotation]}
            text = json.dumps(task, separators=(",", ":"))
            file.write(("[\n" if number == 0 else ",\n") + text)
            if progress is not None:
                progress(number + 1, len(source))
        file.write("\n]\n")
    write_atomically(out.with_suffix(".xml"), label_config(source.classes).encode() + b"\n")
    notes = [f"A project for these tasks has the labels of {out.with_suffix('.xml')}."]
    if by_rule:
        notes.append("What is nodata in the images by rule must be said again: --nodata.")
    return Written(out, len(source), tuple(notes))


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


def _rings_px(polygon: shapely.Polygon, grid: GeoGrid, *, placed: bool) -> Iterator[Floats]:
    """Rings (n, 2) of x and y in pixels that enclose what a polygon does, holes left out."""
    for part in shapely.get_parts(polygon):
        # Against the outer ring's direction a hole is one by either rule of filling.
        rings = [np.asarray(ring.coords)[:-1] for ring in _rings(orient(part))]
        if placed:
            rings = [_to_pixels(ring, grid) for ring in rings]
        outer, holes = rings[0], rings[1:]
        seams: list[tuple[int, Floats]] = []
        for hole in holes:
            distance = np.hypot(*(outer[:, None] - hole[None]).transpose(2, 0, 1))
            start, entry = np.unravel_index(int(distance.argmin()), distance.shape)
            around = np.roll(hole, -int(entry), axis=0)
            there_and_back = np.concatenate((around, around[:1], outer[start : start + 1]))
            seams.append((int(start) + 1, there_and_back))
        for at, seam in sorted(seams, key=lambda one: -one[0]):
            outer = np.insert(outer, at, seam, axis=0)
        yield outer


def _rings(polygon: shapely.Polygon) -> list[shapely.LinearRing]:
    return [polygon.exterior, *polygon.interiors]


def _to_pixels(xy: Floats, grid: GeoGrid) -> Floats:
    inverse = ~grid.transform
    x, y = xy.T
    return np.stack(
        (inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f),
        axis=1,
    )
