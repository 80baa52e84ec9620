"""COCO JSON as rooftrace writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import BoolArray, Mask
from rooftrace.data.coco.label import Rle, mask_tools
from rooftrace.data.images import image_name, relative_name, write_image
from rooftrace.data.source import Progress, SceneSet, WriteOptions, Written
from rooftrace.io.atomic import write_atomically
from rooftrace.io.raster import RasterFile

__all__ = ["encode_regions", "write_coco"]


def write_coco(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> Written:
    """Each connected building is an annotation; every other class of an image is one.

    All are run lengths, since polygons of COCO have no holes. What is unknown is a crowd region.
    Beside what COCO asks for, an image has `scene_id`, and where they are known `group` and
    `gsd_m`, so that it is the same scene when it is read again.

    Raises:
        ConfigError: `out` does not end in `.json`.
        MissingExtraError: pycocotools is not installed.
        DataError, ExportError: a scene cannot be read, or a file not be written.
    """
    if out.suffix.lower() != ".json":
        raise ConfigError(
            f"COCO data is written as one file, but {out} does not end in .json.",
            remedy=f"Write -o {out / 'coco.json'}.",
        )
    mask_tools()
    folder = out.with_name(f"{out.stem}_images")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    by_rule = False
    for number, (entry, scene) in enumerate(zip(source.entries, source)):
        image = entry.image
        if image is None or options.images == "copy":
            image = write_image(scene.image, entry.image, folder, image_name(entry.id))
        elif isinstance(scene.image, RasterFile):
            by_rule |= not scene.image.says_all
        height, width = scene.image.grid.shape
        record = {"id": number + 1, "file_name": relative_name(image, out.parent),
                  "width": width, "height": height, "scene_id": entry.id}  # fmt: skip
        if entry.group:
            record["group"] = entry.group
        if scene.gsd_m is not None and scene.image.grid.crs is None:
            record["gsd_m"] = scene.gsd_m
        images.append(record)
        assert scene.label is not None
        for annotation in _annotated(scene.label.read(), source):
            identity = {"id": len(annotations) + 1, "image_id": number + 1}
            annotations.append(identity | annotation)
        if progress is not None:
            progress(number + 1, len(source))
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
    notes = ("What is nodata in the images by rule must be said again: --nodata.",)
    return Written(out, len(images), notes if by_rule else ())


def _annotated(mask: Mask, source: SceneSet) -> Iterator[dict[str, Any]]:
    """The annotations of an image, without ids; what is unknown is a crowd region."""
    tools = mask_tools()
    found: list[tuple[int, int, Any]] = []
    if not mask.valid.all():
        found.append((source.building_class, 1, _encode_mask(~mask.valid)))
    for index in np.unique(mask.data[mask.valid]).tolist():
        here = (mask.data == index) & mask.valid
        if index == source.building_class:
            found += [(index, 0, rle) for rle in encode_regions(here)]
        elif index:
            found.append((index, 0, _encode_mask(here)))
    for index, crowd, rle in found:
        yield {
            "category_id": index,
            "iscrowd": crowd,
            "area": int(tools.area(rle)),
            "bbox": [float(side) for side in tools.toBbox(rle)],
            "segmentation": {"size": list(mask.data.shape), "counts": rle["counts"].decode()},
        }


def _encode_mask(mask: BoolArray) -> Rle:
    """A mask (y, x) as one compressed RLE."""
    encoded: Rle = mask_tools().encode(np.asfortranarray(mask.view(np.uint8)))
    return encoded


def encode_regions(mask: BoolArray) -> list[Rle]:
    """Each connected region of a mask (y, x), pixels that touch at a side, as an RLE of its own.

    All are found in one pass over the pixels, however many there are.
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
