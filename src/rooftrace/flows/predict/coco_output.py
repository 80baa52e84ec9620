"""The COCO results of a run: each building with its score, as contests ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import shapely

from rooftrace.core.errors import ConfigError, LayoutError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import GeoGrid
from rooftrace.flows.predict.image_run import RunReport
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.files import check_outputs, write_json
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.reproject import in_pixels
from rooftrace.io.vector_read import VectorFile
from rooftrace.labels.coco import Id, read_ids
from rooftrace.labels.coco_label import outline_rle
from rooftrace.labels.label_files import ImageFinder

COCO_RESULTS = "results.json"
"""Name of the file in the folder of the results."""

_MAX_LISTED = 5


@dataclass(frozen=True)
class CocoOutput:
    """COCO results to write (https://cocodataset.org/#format-results).

    Args:
        path: File to write.
        ids: Each image, and its `image_id`.
        category: `category_id` of buildings.
    """

    path: Path
    ids: Sequence[tuple[SceneInput, Id]]
    category: Id = 1

    @classmethod
    def of(cls, scenes: Sequence[SceneInput], out: Path, sample: Path | None = None) -> CocoOutput:
        """Return the results for some images, checked before the work.

        Args:
            scenes: Images with distinct names.
            out: Folder of the results.
            sample: COCO file that numbers images and categories; default: an image's number in its
                name, or its name, and category 1.

        Raises:
            LayoutError: The sample lacks an image.
            ConfigError: The category of buildings is unknown, or the sample would be overwritten.
            MissingExtraError: pycocotools is not installed.
        """
        path = out / COCO_RESULTS
        check_outputs([path], [sample, *(scene.path for scene in scenes)])
        outline_rle(shapely.box(0, 0, 1, 1), (1, 1))
        if sample is None:
            names = [(scene, scene.name) for scene in scenes]
            return cls(path, [(scene, int(n) if n.isdecimal() else n) for scene, n in names])
        images, categories = read_ids(sample)
        finder = ImageFinder((), [scene.path for scene in scenes])
        ids = {finder.look(name, str(sample)): number for name, number in images.items()}
        missing = [str(scene.path) for scene in scenes if scene.path not in ids]
        if missing:
            raise LayoutError(
                f"{sample} lacks {plural(len(missing), 'image')} of {len(scenes)}: "
                f"{list_first(missing, _MAX_LISTED)}.",
                remedy="Give the folder that holds the images of the sample.",
            )
        named = [one for name, one in categories.items() if name.casefold() in BUILDING_NAMES]
        found = named or [*categories.values()]
        if len(found) != 1:
            raise ConfigError(
                f"{sample} has the categories {', '.join(categories) or 'none'}; expected one "
                "that is called building.",
                remedy="Rename the category of buildings.",
            )
        return cls(path, [(scene, ids[scene.path]) for scene in scenes], found[0])

    def write(self, report: RunReport) -> RunReport:
        """Write the results of all images from their polygons.

        Raises:
            ExportError: The file cannot be written.
        """
        files: Mapping[str, str | None] = {one.input: one.polygons for one in report.outputs}
        results = []
        for scene, image in self.ids:
            polygons, grid = files[scene.shown], scene.source.grid
            assert polygons is not None
            results += [
                {
                    "image_id": image,
                    "category_id": self.category,
                    "segmentation": outline_rle(outline, grid.shape),
                    "score": float(score),
                }
                for outline, score in _scored_outlines(Path(polygons), grid)
            ]
        write_json(self.path, results)
        count = plural(len(results), "building")
        note = f"{COCO_RESULTS}: {count} in {plural(len(self.ids), 'image')}"
        return replace(report, table=str(self.path), notes=(*report.notes, note))


def _scored_outlines(path: Path, grid: GeoGrid) -> Iterator[tuple[shapely.Geometry, Any]]:
    """Yield the buildings of an image in its pixels, with their scores; some are in memory."""
    file = VectorFile(path)
    if "score" not in file.fields:  # a GeoJSON without features has no attributes
        return
    if grid.crs is None:
        outlines, _, values, _ = file.columns(["score"], buildings=True)
        yield from zip(outlines, values["score"])
        return
    for layer in file.chunks(["score"], buildings=True):
        yield from zip(in_pixels(layer.geometry, layer.crs, grid), layer.values["score"])
