"""Corrections of reviewers as labels: chips around the buildings about which a person has decided.

The server writes which chips and shapes there are, in pixels of the images. The process of a
training draws them, so the labels stay as they were when the training was queued.

Ground on which nothing was decided is left out: it may have buildings that are still missing.
Within a chip, buildings without a decision are unknown ground.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import Mask, RasterSource, Scene, Window
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.files import write_json
from rooftrace.io.gdal import rasterize
from rooftrace.io.georeferenced import WindowSource
from rooftrace.io.nodata import nodata_from_json
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.folders import FOLDER
from rooftrace.labels.source import MaskLabel, SceneEntry, SceneSet, WriteOptions
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.plan import SceneOptions, prepared

CHIP_PX, SMALL_CHIP_PX = 256, 128
"""Sides of a chip in pixels of the model's scale; the small ones where there are few chips."""

_UNKNOWN = -1
_IGNORED = 255


@dataclass(frozen=True)
class CorrectedImage:
    """The corrections of one image.

    Args:
        name: Name of the image in the results.
        path: Its file or folder.
        shape_yx: Rows and columns.
        gsd_m: Metres per pixel that the prediction used; None if the model has no scale.
        reading: Options of the run with which the image was read: `nodata`, `zoom`, `bands`,
            `stretch` and `gsd_m`, which is None if it was not given.
        decided: (n,) polygons in pixels, about which a person has decided, also rejected ones.
        shapes: (m,) polygons in pixels to draw, in this order.
        classes: (m,) class index of each, or -1 for unknown ground.
        frame: Ground in pixels that was predicted; what lies outside of it is unknown.
    """

    name: str
    path: Path
    shape_yx: tuple[int, int]
    gsd_m: float | None
    reading: Mapping[str, Any]
    decided: NDArray[np.object_]
    shapes: NDArray[np.object_]
    classes: NDArray[np.int64]
    frame: shapely.Geometry

    def chips(self, side_px: int, model_gsd_m: float | None) -> list[Window]:
        """Return the chips on which something was decided.

        Args:
            side_px: Side in pixels of the model's scale.
            model_gsd_m: Metres per pixel of the model; None without a scale.
        """
        scale = 1.0
        if self.gsd_m is not None and model_gsd_m is not None:
            scale = model_gsd_m / self.gsd_m
        return decided_windows(self.shape_yx, max(16, ceil(side_px * scale)), self.decided)


def chip_side(
    images: Sequence[CorrectedImage], model_gsd_m: float | None, least: int
) -> tuple[int, int]:
    """Return the side of chips in pixels of the model's scale, and the number of chips.

    The chips are large, unless fewer than `least` chips have a decision.

    Args:
        images: Corrected images.
        model_gsd_m: Metres per pixel of the model; None without a scale.
        least: Number of chips from which they are large.
    """
    for side_px in (CHIP_PX, SMALL_CHIP_PX):
        count = sum(len(image.chips(side_px, model_gsd_m)) for image in images)
        if count >= least:
            break
    return side_px, count


def decided_windows(
    shape_yx: tuple[int, int], chip_px: int, decided: NDArray[np.object_]
) -> list[Window]:
    """Return the squares of a grid that touch a polygon; those at the lower right are cut."""
    whole = Window.whole(shape_yx)
    tree = shapely.STRtree(decided)
    found = []
    for row in range(0, shape_yx[0], chip_px):
        for col in range(0, shape_yx[1], chip_px):
            window = Window(row, col, chip_px, chip_px).intersection(whole)
            assert window is not None
            if len(tree.query(_box(window), predicate="intersects")):
                found.append(window)
    return found


def write_corrections(
    path: Path, images: Iterable[CorrectedImage], side_px: int, model_gsd_m: float | None
) -> None:
    """Write the chips of images with their shapes as JSON.

    Args:
        path: File to write.
        images: Corrected images.
        side_px: See `CorrectedImage.chips`.
        model_gsd_m: See `CorrectedImage.chips`.

    Raises:
        ExportError: The file cannot be written.
    """
    listed = []
    for image in images:
        tree = shapely.STRtree(image.shapes)
        chips = []
        for window in image.chips(side_px, model_gsd_m):
            box = _box(window)
            # In their order, so that later shapes lie on top.
            near = np.sort(tree.query(box, predicate="intersects"))
            shapes = [
                [int(image.classes[at]), shapely.to_wkb(image.shapes[at], hex=True)] for at in near
            ]
            outside = shapely.difference(box, image.frame)
            if outside.area > 0:
                shapes.append([_UNKNOWN, shapely.to_wkb(outside, hex=True)])
            place = [window.row, window.col, window.height, window.width]
            chips.append({"window": place, "shapes": shapes})
        listed.append({
            "name": image.name, "path": str(image.path), "shape": list(image.shape_yx),
            "gsd_m": image.gsd_m, "reading": dict(image.reading), "chips": chips,
        })  # fmt: skip
    write_json(path, {"side_px": side_px, "images": listed})


def write_labelled_chips(path: Path, out: Path, spec: BundleSpec) -> SourceConfig:
    """Draw the chips of a file of `write_corrections`, and return them as labelled data.

    The bands and values of the chips are those that the model expects, as in the prediction.

    Args:
        path: File of `write_corrections`.
        out: Folder to write.
        spec: Contract of the start model.

    Raises:
        DataError: An image is not there any more, or another one has taken its place.
        BandMismatch: An image does not have the bands of the model.
        ExportError: The folder cannot be written.
    """
    entries: list[SceneEntry] = []
    sources: dict[str, RasterSource] = {}
    for image in json.loads(path.read_text(encoding="utf-8"))["images"]:
        name = str(image["name"])
        sources[name] = _opened(image, spec)
        for chip in image["chips"]:
            window = Window(*chip["window"])
            given_m = image["reading"].get("gsd_m")
            key = (name, window, chip["shapes"], given_m, image["gsd_m"])
            entries.append(
                SceneEntry(f"{name}@{window.row}_{window.col}", None, name, key, image["gsd_m"])
            )

    def open_scene(entry: SceneEntry) -> Scene:
        name, window, shapes, given_m, used_m = entry.key
        source = WindowSource(sources[name], window)
        classes = _drawn(window, shapes)
        valid = classes != _IGNORED
        label = MaskLabel(Mask(np.where(valid, classes, 0).astype(np.uint8), valid, source.grid))
        # As in the prediction, a value that was given overrides the georeference.
        return Scene(entry.id, source, label, name, given_m or source.grid.gsd_m or used_m)

    made = SceneSet(
        "corrections", FOLDER.name, spec.classes, spec.building_class, tuple(entries), open_scene
    )
    assert FOLDER.write is not None
    FOLDER.write(made, out, WriteOptions(), None)
    return SourceConfig(path=str(out), name="corrections")


def _opened(image: Mapping[str, Any], spec: BundleSpec) -> RasterSource:
    """Return the image as the prediction has read it."""
    path, reading = Path(image["path"]), image["reading"]
    if not path.exists():
        raise DataError(
            f"The image {path.name} is not where it was.",
            remedy="Put it back, and start the training again.",
        )
    found = find_inputs(
        [path],
        nodata_from_json(reading["nodata"]),
        mosaic=path.is_dir(),
        zoom=reading["zoom"],
        tms=reading.get("tms"),
    )
    source = found.scenes[0].source
    if list(source.grid.shape) != image["shape"]:
        rows, cols = image["shape"]
        raise DataError(
            f"The image {path.name} has {source.grid.height} × {source.grid.width} pixels; "
            f"expected {rows} × {cols}: it has been replaced since it was reviewed.",
            remedy="Put the earlier image back, or predict and review the new one.",
        )
    options = replace(SceneOptions(), bands=reading["bands"], stretch=reading["stretch"])
    return prepared(source, spec, options)


def _drawn(window: Window, shapes: Sequence[tuple[int, str]]) -> NDArray[np.uint8]:
    """Return the (y, x) classes of a chip; unknown ground lies below the buildings."""
    unknown = [shapely.from_wkb(wkb) for index, wkb in shapes if index == _UNKNOWN]
    known = [(shapely.from_wkb(wkb), index) for index, wkb in shapes if index != _UNKNOWN]
    drawn = [*((one, _IGNORED) for one in unknown), *known]
    if not drawn:
        return np.zeros(window.shape_yx, np.uint8)
    to_image = Affine.translation(window.col, window.row)
    return np.asarray(
        rasterize(drawn, window.shape_yx, transform=to_image, dtype=np.uint8), np.uint8
    )


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(
        window.col, window.row, window.col + window.width, window.row + window.height
    )
