"""Two dates of imagery: a change counts only where the probabilities of both dates are sure of it.

A pixel has surely changed if its probability at one date is high, and at the other date low in all
pixels around it. Between the two limits the model is not sure. A different threshold, a shift by a
pixel or another resolution of the image are then no change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, GeoreferenceError, GsdMismatch
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, RasterSource
from rooftrace.flows.compare.inputs import BuildingLayer, date_of, read_buildings_layer
from rooftrace.flows.vectorize import DEFAULT_THRESHOLD
from rooftrace.io.gdal import is_raster, rasterize
from rooftrace.io.georeferenced import close_source, provenance_of
from rooftrace.io.legend import NODATA
from rooftrace.io.masks import mask_sink
from rooftrace.io.raster import open_raster
from rooftrace.io.remote_raster import open_image
from rooftrace.io.resample import warped
from rooftrace.predict.block import Block
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.outputs import OutputPaths
from rooftrace.predict.plan import SceneOptions, ScenePlan, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.vector.compare import GONE, NEW, OUTSIDE, SAME, SideStatus
from rooftrace.vector.layer_offset import LayerOffset
from rooftrace.vector.match import PackedPolygons

PROBABILITY_FILES = ("new_probability.tif", "old_probability.tif")
"""Files of the probabilities of two images."""

Shift = Callable[[Floats], Floats]
"""Function from (n, 2) places of one date to the (n, 2) shift to the same ground at the other."""

Side = tuple[PackedPolygons, SideStatus]
"""Buildings of one date at their own place, and their statuses."""

_SURE_SHARE = 0.5
"""Minimum share of a new or gone building over which the change is sure."""

_CHANGED_SHARE = 0.25
"""Minimum share of one outline over which the change is sure, of buildings in both dates."""

_SEEN_SHARE = 0.5
"""Minimum share of a building that the other date shows, where it can be new or gone."""

_AROUND_PX = 2
"""Distance in pixels up to which places count as the same."""

_MIN_PIXEL_M = 0.3
"""Minimum side in metres of the pixels in which two dates are compared: models see no more detail,
and dates do not fit more exactly."""

_BLOCK_PX = 128
_CHUNK = 50_000


@dataclass(frozen=True)
class Dates:
    """Probabilities of two dates.

    Args:
        new, old: Rasters of building probabilities; bytes are 255ths.
        threshold: Probability from which a pixel is a building.
    """

    new: Path
    old: Path
    threshold: float

    @property
    def low(self) -> float:
        """Probability below which the model is sure that there is no building."""
        return self.threshold / 2

    @property
    def high(self) -> float:
        """Probability from which the model is sure that there is a building."""
        return (1 + self.threshold) / 2

    def to_json(self) -> dict[str, Any]:
        """Return the entries of the report."""
        return {name: round(getattr(self, name), 4) for name in ("threshold", "low", "high")}


def predict_dates(
    new: Path,
    old: Path,
    models: ModelSet,
    threshold: float | None,
    out: Path,
    step: Callable[[], None],
) -> tuple[BuildingLayer, BuildingLayer, Dates]:
    """Predict two images, and write the probabilities of each to a folder.

    Args:
        new, old: Images.
        models: Model of both.
        threshold: Probability from which a pixel is a building; None for the model's own.
        out: Folder for `PROBABILITY_FILES`.
        step: Function that is called after each image.

    Returns:
        The buildings of both dates, and the probabilities.

    Raises:
        ConfigError: An input is no image, or the model has more than two classes.
        GeoreferenceError: An image has no coordinate system.
        RooftraceError: An image cannot be predicted, see `Predictor.predict`.
    """
    for name, path in (("NEW", new), ("OLD", old)):
        if path.is_dir() or not is_raster(path):
            raise ConfigError(
                f"-m predicts two images, but {name}, {path}, is none.",
                remedy="Give two images, or leave out -m to compare layers of buildings.",
            )
    spec = models.bundles[0].spec
    if not spec.is_binary:
        raise ConfigError(
            f"The model {spec.name!r} has {len(spec.classes)} classes; two dates are compared by "
            "the probabilities of a model of two classes.",
            remedy="Predict both images, and compare their polygons.",
        )
    predictor = models.ready()
    spec = predictor.bundle.spec
    options = SceneOptions(threshold=threshold, outputs=("polygons",))
    files = [out / name for name in PROBABILITY_FILES]
    layers = []
    with ExitStack() as opened:
        plans = []
        # Both images are checked before the first one is predicted.
        for path in (new, old):
            source = open_image(path)
            opened.callback(close_source, source)
            if source.grid.crs is None:
                raise _no_crs(str(path))
            try:
                plans.append(plan_scene(source, spec, options))
            except GsdMismatch as error:
                raise GsdMismatch(
                    error.message,
                    remedy="Give images near the resolution of the model, or correct the "
                    "georeference with gdal_edit.",
                ) from error
        for path, plan, file in zip((new, old), plans, files):
            layers.append(_predicted(path, plan, predictor, file))
            step()
    limit = plans[0].threshold
    assert limit is not None
    return layers[0], layers[1], Dates(files[0], files[1], limit)


def probabilities_of(new: Path, old: Path, threshold: float | None) -> Dates | None:
    """Return the probabilities that two inputs are; None if one of them is something else.

    Fractions are probabilities, and so are bytes where a threshold is given, as for `open_mask`.
    """
    for path in (new, old):
        if path.is_dir() or not is_raster(path):
            return None
        if threshold is None and open_raster(path).dtype.kind != "f":
            return None
    return Dates(new, old, DEFAULT_THRESHOLD if threshold is None else threshold)


def _predicted(image: Path, plan: ScenePlan, predictor: Predictor, file: Path) -> BuildingLayer:
    """Predict an image, write its probabilities to a file, and return its buildings."""
    with TemporaryDirectory() as folder:
        paths = OutputPaths.of(Path(folder), "date", plan.source.grid, plan.spec.legend)
        with mask_sink(file, plan.source.grid, coloured=False) as sink:

            def keep(block: Block) -> None:
                # The highest byte is that of nodata.
                score = np.minimum(block.score, np.uint8(NODATA - 1))
                sink.write(block.window, np.where(block.mask == NODATA, block.mask, score))

            predictor.predict_plan(plan, paths, on_block=keep)
        layer = read_buildings_layer(paths.polygons, file.parent)
    stated = provenance_of(plan.source).imagery_date
    return replace(layer, name=str(image), notes=plan.notes, date=date_of(image, stated))


def _no_crs(name: str) -> GeoreferenceError:
    return GeoreferenceError(
        f"{name} has no coordinate system, so it has no place on the ground.",
        remedy="Assign one: gdal_edit -a_srs EPSG:… FILE, and compare again.",
    )


def keep_certain_changes(
    new: Side, old: Side, dates: Dates, plane: CRS, offset: LayerOffset | None
) -> tuple[tuple[Floats, Floats], list[str]]:
    """Set the statuses of all changes of which the probabilities are not sure.

    A new or gone building is sure if at least half of its pixels have surely changed. The statuses
    of buildings in both dates are kept if at least a quarter of an outline has: of the building, of
    its partner, or of a piece of either. All others become `same`, without a partner if they were
    new or gone. New and gone buildings become `outside` if the other date shows less than half of
    them.

    Args:
        new, old: Buildings and statuses of both dates; the statuses are changed.
        dates: Probabilities.
        plane: Coordinate system of the buildings, in metres.
        offset: Offset of the new date from the old one; None for none.

    Returns:
        (n,) and (k,) share of each building that has surely changed, NaN where it was the same
        before; and notes.

    Raises:
        GeoreferenceError: A raster has no coordinate system.
        DataError: It cannot be read.
    """
    with ExitStack() as opened:
        sources = []
        for path in (dates.new, dates.old):
            sources.append(open_raster(path, palette="indices"))
            opened.callback(close_source, sources[-1])
        # That of the coarser raster.
        pixel_m = _MIN_PIXEL_M
        for source in sources:
            if source.grid.gsd_m is None:
                raise _no_crs(source.name)
            pixel_m = max(pixel_m, source.grid.gsd_m)
        before, after = sources[1], sources[0]
        shares = [
            _set_outside(
                new, _DateProbabilities(after, before, dates, plane, pixel_m, _shift(offset, -1))
            ),
            _set_outside(
                old, _DateProbabilities(before, after, dates, plane, pixel_m, _shift(offset, 1))
            ),
        ]
    unsure = [0, 0]
    spread = _with_partners((new[1], old[1]), shares)
    for number, (status, share, value) in enumerate(zip((new[1], old[1]), shares, spread)):
        single = np.isin(status.status, (NEW, GONE))
        is_certain = np.where(single, share >= _SURE_SHARE, value >= _CHANGED_SHARE)
        kept = is_certain | np.isin(status.status, (SAME, OUTSIDE))
        alone = np.flatnonzero(single & ~kept)
        nothing = np.zeros(len(alone))
        status.put(alone, SAME, np.full(len(alone), -1), (nothing, nothing, nothing))
        status.status[~kept] = SAME
        unsure[number] = int((~kept).sum())
    notes = []
    if any(unsure):
        one, other = plural(unsure[0], "building"), f"{unsure[1]:,}"
        note = f"{one} of NEW and {other} of OLD differ, but not surely: they count as the same."
        notes = [note]
    return (shares[0], shares[1]), notes


def _set_outside(side: Side, view: _DateProbabilities) -> Floats:
    """Return the shares of the buildings that have surely changed; NaN where they are the same.

    New and gone buildings become `outside` where the other date does not show them.
    """
    packed, status = side
    share = np.full(len(packed), np.nan)
    found = np.flatnonzero(~np.isin(status.status, (SAME, OUTSIDE)))
    for start in range(0, len(found), _CHUNK):
        index = found[start : start + _CHUNK]
        share[index], seen = view.shares(packed.unpack(index))
        single = np.isin(status.status[index], (NEW, GONE))
        status.status[index[single & (seen < _SEEN_SHARE)]] = OUTSIDE
    return share


def _shift(offset: LayerOffset | None, sign: float) -> Shift:
    if offset is None:
        return np.zeros_like
    return lambda places: sign * offset.at(places)


def _with_partners(sides: tuple[SideStatus, SideStatus], shares: Sequence[Floats]) -> list[Floats]:
    """Return the largest share among each building, its partner and all pieces of either."""
    own = [np.nan_to_num(share) for share in shares]
    has = [np.flatnonzero((side.partner >= 0) & (side.status != SAME)) for side in sides]
    pieces = [share.copy() for share in own]
    for number in (0, 1):
        linked = has[number]
        np.maximum.at(pieces[1 - number], sides[number].partner[linked], own[number][linked])
    spread = [share.copy() for share in pieces]
    for number in (0, 1):
        linked = has[number]
        of_partner = pieces[1 - number][sides[number].partner[linked]]
        spread[number][linked] = np.maximum(spread[number][linked], of_partner)
    return spread


@dataclass(frozen=True)
class _DateProbabilities:
    """The probabilities of two dates on one grid, block by block of ground.

    Args:
        own: Raster of the date that the buildings are from.
        other: Raster of the other date.
        dates: Limits of the probabilities.
        plane: Coordinate system of the grid, in metres.
        pixel_m: Side of a pixel.
        to_other: Shift from the one date to the other.
    """

    own: RasterSource
    other: RasterSource
    dates: Dates
    plane: CRS
    pixel_m: float
    to_other: Shift

    def shares(self, outlines: NDArray[np.object_]) -> tuple[Floats, Floats]:
        """Return the (n,) shares of (n,) buildings that have surely changed, and that are seen.

        The first one is a share of what is seen at both dates.
        """
        counts = np.zeros((3, len(outlines)), np.int64)
        side = _BLOCK_PX * self.pixel_m
        blocks: dict[tuple[int, int], list[int]] = defaultdict(list)
        spans = np.floor(shapely.bounds(outlines).reshape(-1, 4) / side).astype(np.int64)
        for number, (left, bottom, right, top) in enumerate(spans.tolist()):
            for row in range(bottom, top + 1):
                for col in range(left, right + 1):
                    blocks[row, col].append(number)
        for (row, col), numbers in sorted(blocks.items()):
            here = np.array(numbers)
            counts[:, here] += self._counted((col * side, (row + 1) * side), outlines[here])
        changed, seen, drawn = counts
        # A building without the centre of a pixel has no share that could be sure.
        return changed / np.maximum(seen, 1), np.where(drawn, seen / np.maximum(drawn, 1), 1.0)

    def _counted(self, corner: tuple[float, float], outlines: NDArray[np.object_]) -> Ints:
        """Return the (3, n) numbers of pixels of each building in a block: surely changed, seen at
        both dates, and all.
        """
        size = self.pixel_m
        around = _AROUND_PX
        px = _BLOCK_PX + 2 * around
        left, top = corner[0] - around * size, corner[1] + around * size
        inner = np.s_[around:-around, around:-around]
        middle = np.array([[left + px * size / 2, top - px * size / 2]])
        east, north = self.to_other(middle)[0].tolist()
        own, known = self._read(self.own, (left, top), px)
        other, known_other = self._read(self.other, (left + east, top + north), px)
        window = np.ones((2 * around + 1, 2 * around + 1), np.uint8)
        near = cv2.dilate((other >= self.dates.low).view(np.uint8), window) > 0
        seen = (known & known_other)[inner]
        changed = seen & (own >= self.dates.high)[inner] & ~near[inner]
        numbers = rasterize(
            zip(outlines, range(1, len(outlines) + 1)), seen.shape, dtype=np.int32,
            transform=Affine(size, 0, corner[0], 0, -size, corner[1]),
        )  # fmt: skip
        count = len(outlines) + 1
        masks = (numbers[changed], numbers[seen], numbers.ravel())
        return np.array([np.bincount(mask, minlength=count)[1:] for mask in masks])

    def _read(
        self, source: RasterSource, corner: tuple[float, float], px: int
    ) -> tuple[NDArray[np.float32], BoolArray]:
        """Return (y, x) probabilities in 0..1 of a square, 0 where invalid, and their validity."""
        size = self.pixel_m
        grid = GeoGrid((px, px), Affine(size, 0, corner[0], 0, -size, corner[1]), self.plane)
        raster = warped(source, grid)
        scale = np.float32(255 if raster.data.dtype == np.uint8 else 1)
        return np.where(raster.valid, raster.data[0] / scale, 0).astype(np.float32), raster.valid
