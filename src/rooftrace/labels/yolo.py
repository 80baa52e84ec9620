"""Write labels for YOLO segmentation: a line for each polygon, beside the images.

https://docs.ultralytics.com/datasets/segment
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rooftrace.core.types import Progress
from rooftrace.io.files import write_atomically
from rooftrace.labels.folders import FOLDER
from rooftrace.labels.footprints import scene_outlines
from rooftrace.labels.image_files import image_name, write_image
from rooftrace.labels.mask_values import IGNORED
from rooftrace.labels.shapes import bridged
from rooftrace.labels.source import SceneSet, SourceKind, WriteOptions, WriteResult, lost_gsd_note


def _write(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> WriteResult:
    """Write `images/`, `labels/` and `data.yaml`, in which the background is no class."""
    unknown = 0
    gsds_m: set[float | None] = set()
    for entry, scene in source.opened(progress):
        name = image_name(entry.id)
        write_image(scene.image, entry.image, out / "images", name)
        outlines, classes = scene_outlines(scene)
        sides = np.array([scene.image.grid.width, scene.image.grid.height])
        unknown += int((classes == IGNORED).any())
        lines = [
            " ".join([str(index - 1), *(f"{share:.7g}" for share in (bridged(one) / sides).flat)])
            for one, index in zip(outlines, classes.tolist()) if index > 0
        ]  # fmt: skip
        gsds_m.add(scene.stated_gsd_m)
        write_atomically(out / "labels" / f"{name}.txt", "".join(f"{x}\n" for x in lines).encode())
    names = json.dumps(list(source.classes[1:]), ensure_ascii=False)
    text = f"path: .\ntrain: images\nval: images\nnames: {names}\n"
    write_atomically(out / "data.yaml", text.encode())
    notes = lost_gsd_note(gsds_m)
    if unknown:
        notes = (*notes, f"{unknown} scenes have unknown areas, which YOLO takes for background.")
    return WriteResult(out, len(source), notes)


YOLO = SourceKind(
    "yolo",
    "YOLO segmentation: polygons beside images",
    # A folder of YOLO is one of the layouts of the kind `folder`.
    lambda _: False,
    FOLDER.read,
    _write,
)
