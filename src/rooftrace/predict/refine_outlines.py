"""Building outlines refined by a network that answers prompts, such as SAM.

Each outline of the model is a prompt: its box, and a point inside. The network sees a square crop
of the scene whose position and size follow from the outline alone, so that the result depends
neither on blocks nor on other outlines, and memory is limited to one crop. The answer becomes the
outline only if it agrees with that of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, PredictError, is_out_of_memory, out_of_memory
from rooftrace.core.types import BoolArray, Ints, Polygons, RasterSource, Window
from rooftrace.io.files import write_atomically
from rooftrace.io.spill_file import SpillFile
from rooftrace.models.clicks import Click, Prompt, PromptSegmenter
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.plan import SceneOptions, ScenePlan
from rooftrace.vector.match import pair_iou
from rooftrace.vector.prepare import FootprintRecords, OutlineMaker, encode_pairs
from rooftrace.vector.resolve_overlaps import resolve_scene_overlaps
from rooftrace.vector.simplify import SIMPLIFY_PX
from rooftrace.vector.trace import trace

CROP_PX = 256
"""Side of the smallest crop in pixels of the scene. The masks of SAM have 256 × 256 cells, so that
a cell is one pixel of the scene."""

MAX_CROP_PX = 4096
"""Side of the largest crop in pixels; outlines that do not fit into it stay as they are."""

MIN_IOU = 0.5
"""Minimum IoU of the network's answer with the outline of the model; below it, they are different
objects."""

_MARGIN_PX = 16
"""Minimum distance in pixels between an outline and the edges of its crop."""

_AT_ONCE = 500
"""Number of outlines that are held and stored together."""

_KEPT_AT_ONCE = 50
"""Number of outlines whose answers are kept in one file; a killed run repeats fewer than these."""

_RGB = ("red", "green", "blue")


def check_refinable(spec: BundleSpec, options: SceneOptions) -> None:
    """Check before the work that the outlines of a model can be refined."""
    if not {*_RGB} <= {*spec.bands} or spec.numpy_dtype != np.uint8:
        raise ConfigError(
            f"The model {spec.name!r} sees {', '.join(spec.bands)} as {spec.numpy_dtype}; expected "
            "red, green and blue as uint8, on which outlines are refined.",
            remedy="Leave out the refinement, or predict with a model of these bands.",
        )
    if {*options.outputs} == {"mask"}:
        raise ConfigError(
            "Outlines are to be refined, but only the mask was requested, which has none.",
            remedy="Request polygons, too, or leave out the refinement.",
        )


def crops_around(bounds: NDArray[np.floating[Any]], shape_yx: tuple[int, int]) -> Ints:
    """Return the crop of each outline: one of a grid of overlapping squares over the scene.

    The squares of a size overlap by half, so that an outline is at most a quarter of the side away
    from the centre of its crop, and neighbours share a crop.

    Args:
        bounds: (n, 4) left, top, right and bottom of outlines, in pixels.
        shape_yx: Height and width of the scene.

    Returns:
        (n, 3) side, first row and first column; the side is 0 where the largest crop is too small.
        Crops are moved into the scene, but a small scene may end before its crop does.
    """
    low, high = np.asarray(bounds[:, :2], np.float64), np.asarray(bounds[:, 2:], np.float64)
    reach = (high - low).max(axis=1, initial=0) / 2 + _MARGIN_PX
    side = CROP_PX * 2 ** np.ceil(np.log2(np.maximum(4 * reach / CROP_PX, 1))).astype(np.int64)
    centre_yx = ((low + high) / 2)[:, ::-1]
    step = side[:, None] // 2
    first = np.floor(centre_yx / step).astype(np.int64) * step - step // 2
    last = np.array(shape_yx) - side[:, None]
    first = np.maximum(np.minimum(first, last), 0)
    side[side > MAX_CROP_PX] = 0
    return np.concatenate([side[:, None], first], axis=1)


@dataclass
class OutlineRefiner:
    """Refines the building outlines of one scene.

    Args:
        source: Image with the bands and values of the model.
        bands: Indices of red, green and blue in it.
        segmenter: Network that answers prompts.
        folder: Existing folder of this scene that keeps answers, from which a killed run resumes;
            None to keep none.
    """

    source: RasterSource
    bands: tuple[int, ...]
    segmenter: PromptSegmenter
    folder: Path | None = None
    _crop: _Crop | None = field(default=None, init=False)
    """Last crop; neighbours follow each other and share it."""

    @classmethod
    def of(
        cls, plan: ScenePlan, segmenter: PromptSegmenter, folder: Path | None = None
    ) -> OutlineRefiner:
        """Return the refiner of a scene."""
        check_refinable(plan.spec, plan.options)
        bands = tuple(plan.spec.bands.index(name) for name in _RGB)
        return cls(plan.source, bands, segmenter, folder)

    def refine(
        self, records: FootprintRecords, chosen: BoolArray, spill: SpillFile, maker: OutlineMaker
    ) -> FootprintRecords:
        """Return the records of a scene with refined outlines, of which no two overlap.

        Where refined outlines cannot be separated, those of the model stay.

        Args:
            records: Records of all footprints, whose outlines do not overlap.
            chosen: (n,) True for the outlines to refine.
            spill: File that holds the polygons, and to which new ones are added.
            maker: Maker that makes outlines of pixels.

        Raises:
            PredictError: The network failed.
            ExportError: There is no space for the polygons or the answers.
        """
        number = np.flatnonzero(chosen)
        crops = crops_around(records["bounds"][number], self.source.grid.shape)
        order = np.lexsort(crops.T[::-1])
        number, crops = number[order], crops[order]
        proposed = records.copy()
        for first in range(0, len(number), _AT_ONCE):
            at = number[first : first + _AT_ONCE]
            outlines = spill.read(records["proposed"][at], records["stop"][at])
            part = crops[first : first + _AT_ONCE]
            regions = self._answers(first, outlines, part)
            better, regular, taken = _proposals(regions, outlines, part[:, 0], maker)
            changed = records[at]
            # As raw polygons the outlines of the model stand, which overlap nothing.
            spill.append_bytes([encode_pairs(changed, outlines, better, spill.size)])
            changed["accepted"][taken] = regular[taken]
            changed["area_m2"][taken] = maker.area_m2(better[taken])
            proposed[at] = changed
        resolved = resolve_scene_overlaps(proposed, chosen, spill, maker.area_m2, min_iou=MIN_IOU)
        return _marked(records, resolved, number, spill)

    def _answers(self, number: int, outlines: Polygons, crops: Ints) -> Polygons:
        """Return (n,) the regions of `_regions`, those of an earlier run where they are kept.

        `number` is the position of the first outline in the order of the scene.
        """
        regions = [np.zeros(0, np.object_)]
        for first in range(0, len(outlines), _KEPT_AT_ONCE):
            part = slice(first, first + _KEPT_AT_ONCE)
            path = self.folder and self.folder / f"refined_{number + first:09d}.part"
            answers = _kept(path, len(outlines[part]))
            if answers is None:
                answers = np.array([*self._regions(outlines[part], crops[part])], np.object_)
                if path is not None:
                    collected = shapely.geometrycollections(list(answers))
                    write_atomically(path, shapely.to_wkb(collected), sync=True)
            regions.append(answers)
        return np.concatenate(regions)

    def _regions(self, outlines: Polygons, crops: Ints) -> Iterator[shapely.Polygon]:
        """Yield the region of pixels that the network found for each outline; empty for none."""
        height, width = shape_yx = self.source.grid.shape
        for outline, (side, row, col) in zip(outlines, crops.tolist()):
            if not side:
                yield shapely.Polygon()
                continue
            window = Window(row, col, min(side, height - row), min(side, width - col))
            try:
                if self._crop is None or self._crop.window != window:
                    pixels = self.source.read(window)
                    image = np.ascontiguousarray(pixels.data[[*self.bands]])
                    self._crop = _Crop(window, pixels.valid, self.segmenter.encode(image))
                segment = self.segmenter.segment(self._crop.encoded, _prompt(outline, window))
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise out_of_memory(
                        f"the network that refines outlines at {window} of {self.source.name}"
                    ) from error
                raise PredictError(
                    f"{self.source.name}: the network that refines outlines failed at {window}: "
                    f"{error}.",
                    remedy="Use another network, or predict without refinement.",
                ) from error
            yield _region(segment.mask & self._crop.valid, window, outline, shape_yx)


@dataclass(frozen=True)
class _Crop:
    """Crop that the network has seen; `valid` is (y, x), False where nodata."""

    window: Window
    valid: NDArray[np.bool_]
    encoded: Any


def _kept(path: Path | None, count: int) -> Polygons | None:
    """Return the answers in a file; None if it is missing or damaged."""
    if path is None:
        return None
    try:
        answers = shapely.get_parts(shapely.from_wkb(path.read_bytes()))
    except (OSError, shapely.errors.ShapelyError):
        return None
    return np.asarray(answers, np.object_) if len(answers) == count else None


def _proposals(
    found: Polygons, outlines: Polygons, side: Ints, maker: OutlineMaker
) -> tuple[Polygons, BoolArray, BoolArray]:
    """Make outlines of the regions that the network found.

    Args:
        found: (n,) regions of pixels; empty for none.
        outlines: (n,) outlines of the model.
        side: (n,) sides of the crops.
        maker: Maker of outlines.

    Returns:
        (n,) outlines, of which some are replaced; (n,) True for regular ones of these; and (n,)
        True for those that were replaced.
    """
    better, regular = outlines.copy(), np.zeros(len(outlines), np.bool_)
    taken = ~shapely.is_empty(found)
    for px in np.unique(side[taken]).tolist():
        here = taken & (side == px)
        # The answer has the detail of its cells, not that of the model's pixels.
        options = replace(maker.options, simplify_px=SIMPLIFY_PX * px / CROP_PX)
        scaled = replace(maker, options=options)
        better[here], regular[here] = scaled.outline(found[here], is_building=True)
    taken &= pair_iou(better, outlines) >= MIN_IOU
    better[~taken] = outlines[~taken]
    return better, regular, taken


def _prompt(outline: shapely.Polygon, window: Window) -> Prompt:
    """Return the box of an outline and a point inside it, in pixels of a window."""
    left, top, right, bottom = outline.bounds
    row, col = int(np.floor(top)), int(np.floor(left))
    box = Window(row, col, int(np.ceil(bottom)) - row, int(np.ceil(right)) - col)
    inside = outline.point_on_surface()
    click = Click(inside.y - window.row, inside.x - window.col)
    return Prompt((click,), box=replace(box, row=row - window.row, col=col - window.col))


def _region(
    mask: NDArray[np.bool_], window: Window, outline: shapely.Polygon, shape_yx: tuple[int, int]
) -> shapely.Polygon:
    """Return the part of a mask that shares most with an outline, in pixels of the scene; empty if
    none agrees with it or the part is cut off by the edge of its crop.
    """
    parts = trace(mask, window).polygons
    parts = parts[shapely.intersects(parts, outline)]
    if not len(parts):
        return shapely.Polygon()
    same = np.full(len(parts), outline, np.object_)
    agreement = pair_iou(parts, same)
    best = int(agreement.argmax())
    left, top, right, bottom = parts[best].bounds
    is_cut = (
        (left <= window.col > 0)
        or (top <= window.row > 0)
        or (right >= window.col_stop < shape_yx[1])
        or (bottom >= window.row_stop < shape_yx[0])
    )
    return shapely.Polygon() if is_cut or agreement[best] < MIN_IOU else parts[best]


def _marked(
    records: FootprintRecords, resolved: FootprintRecords, number: Ints, spill: SpillFile
) -> FootprintRecords:
    """Return the resolved records in which changed outlines are marked as refined."""
    marked = resolved.copy()
    for first in range(0, len(number), _AT_ONCE):
        at = number[first : first + _AT_ONCE]
        before = spill.read(records["proposed"][at], records["stop"][at])
        after = spill.read(resolved["proposed"][at], resolved["stop"][at])
        marked["refined"][at] = ~shapely.equals_exact(before, after)
    # An outline to which the model's was restored is as regular as it was.
    kept = ~marked["refined"]
    marked["accepted"][kept] = records["accepted"][kept]
    return marked
