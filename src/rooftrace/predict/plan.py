"""Plan of one scene: its bands, scale, tiles and blocks, made before any pixel is read.

A block is the unit that is finished, stored and resumed: the part of the scene that belongs to a
number of whole tiles. Each tile is read and run for one block only. Where a tile extends into the
blocks to the right and below, they receive the few rows and columns in which it has weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any

from rooftrace.core.errors import ConfigError, DataError, GsdMismatch
from rooftrace.core.text import CHECK_CRS, EIGHT_DIGITS, plain_number
from rooftrace.core.types import UNKNOWN_PROVENANCE, RasterSource, ResultProvenance, Window
from rooftrace.io.companions import RESULT_FILES
from rooftrace.io.georeferenced import innermost, provenance_of
from rooftrace.io.legend import NODATA
from rooftrace.io.mosaic import Mosaic
from rooftrace.io.pixels import prepare
from rooftrace.io.reproject import position_note
from rooftrace.io.resample import Scaling, scaling_for
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.options import AS_FOUND, NEED_POLYGONS, OUTPUTS, SceneOptions, SceneOutput
from rooftrace.tiling.plan import TILE_PX, TileAxis, TilePlan, plan_tiles

if TYPE_CHECKING:
    from rooftrace.vector.prepare import VectorOptions

__all__ = [
    "AS_FOUND", "OUTPUTS", "RESULT_FILES", "BlockAxis", "SceneOptions", "SceneOutput", "ScenePlan",
    "TileIndex", "plan_scene", "prepared", "threshold_for",
]  # fmt: skip

TileIndex = tuple[int, int]
"""Row and column of a tile in the plan."""

BLOCK_PX = 3072
"""Approximate side of a block in pixels."""

_FINE_SCALE = 4.2
"""Pixels of the image per pixel of the model above which tiles and blocks are smaller, to limit
memory: half as large up to twice this scale, a third up to three times, and so on."""

_SMALL_TILE_PX = 128
"""Side in pixels below which tiles are not reduced for a fine image."""

_MAX_TILE_SIDE_PX = 2**15
"""Maximum side in pixels of the image under a tile of a model that takes only one size."""

_FEW_CHANNELS = 4
"""Number of channels above which tiles and blocks have half the side, to limit memory."""

_ALIGN_PX = 512
"""Side of the output file's tiles in pixels; blocks begin at a multiple of it where possible."""

_MIN_SHOWN_PX = 4.0
"""Minimum area of a building, in pixels of the image. In an image that is coarser than the model,
single pixels that compression left beside nodata would be buildings, too."""

MIN_SCORE = 0.2
"""Calibrated score from which a building is kept: on the validation places, 6 % of the buildings
below it are right, and F1 is the same from here to 0.3."""


@dataclass(frozen=True)
class BlockAxis:
    """Blocks along one axis.

    Args:
        tiles: Tiles of the axis, in pixels of the model.
        per_block: Number of tiles in each block; the last block may have fewer.
        edges: (blocks + 1,) edges of the blocks, in pixels of the source.
        spans: (blocks,) half-open range of the model's pixels from which each block is made.
    """

    tiles: TileAxis
    per_block: int
    edges: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def contributing(self, block: int) -> range:
        """Return the blocks whose tiles have weight in a block, including the block itself."""
        tiles = self.tiles.touching(*self.spans[block])
        return range(tiles[0] // self.per_block, block + 1)

    def extents(self, tile: int) -> list[tuple[int, int, int]]:
        """Return the blocks in which a tile has weight, its own first, each with the half-open
        range of the model's pixels in which it has weight there.
        """
        start, stop = self.tiles.support[tile]
        parts = []
        for block in range(tile // self.per_block, len(self.spans)):
            low, high = self.spans[block]
            if low >= stop:
                break
            if start < high:
                parts.append((block, max(start, low), min(stop, high)))
        return parts


NOT_CALIBRATED = (
    "Scores were calibrated for the model's own threshold and mirroring of tiles. With these "
    "settings they only approximate probabilities."
)
"""Note on another threshold or mirroring than those of the calibration."""

_OTHER_GSD = 0.1
"""Share by which metres per pixel that were given may differ from those of the georeference without
a note; a scale in a projection differs by less."""


@dataclass(frozen=True)
class ScenePlan:
    """Plan for the prediction of one scene. Blocks are numbered row by row.

    Args:
        source: Image, with the bands and values that the model expects.
        spec: Contract of the model.
        threshold: Building probability from which a pixel is a building; None if each pixel takes
            the most probable class.
        scaling: Scaling between the source and the model.
        tiles: Tiles over the scene at the model's resolution.
        rows, cols: Blocks of the source along either axis.
        provenance: Origin of the results, which the polygons carry.
    """

    source: RasterSource
    spec: BundleSpec
    options: SceneOptions
    threshold: float | None
    scaling: Scaling
    tiles: TilePlan
    rows: BlockAxis
    cols: BlockAxis
    provenance: ResultProvenance = UNKNOWN_PROVENANCE

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the record of the training: it is large, and no work on the
        scene needs it.
        """
        return self.__dict__ | {"spec": self.spec.model_copy(update={"training": {}})}

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel of the source; None if they are unknown."""
        given = self.options.gsd_m
        return given if given is not None else self.source.grid.gsd_m

    @property
    def contradicts_georeference(self) -> bool:
        """True if the given metres per pixel differ from those of the georeference."""
        given, own = self.options.gsd_m, self.source.grid.gsd_m
        return given is not None and own is not None and abs(given / own - 1) > _OTHER_GSD

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the source, such as that it is a photograph, and assumptions about place, scale,
        bands and values; the scene may be sampled for them.
        """
        grid, given, name = self.source.grid, self.options.gsd_m, self.source.name
        notes = [*getattr(self.source, "notes", ())]
        if self.contradicts_georeference:
            uses = "the scale of the model and for areas" if self.options.scale is None else "areas"
            notes.append(
                f"{name}: its georeference says {grid.gsd_m:.3g} m per pixel, but {given:g} m were "
                f"given, which count for {uses}. Coordinates stay those of the georeference."
            )
        if place := position_note(name, grid.crs, grid.bounds_xy):
            is_given = innermost(self.source).grid.crs != grid.crs
            remedy = f"Check --crs. {EIGHT_DIGITS}" if is_given else CHECK_CRS
            notes.append(f"{place} {remedy}")
        if grid.crs is None and not grid.transform.is_identity:
            notes.append(
                getattr(innermost(self.source), "site_grid_note", "")
                or f"{name}: it has a position, but no coordinate system. The mask keeps the "
                "position; polygons are in pixels, and metres are unknown. Name the system with "
                "rooftrace predict --crs EPSG:…, or in a .prj file beside it."
            )
        if self.scaling.note:
            notes.append(self.scaling.note)
        if self.spec.calibration and self.threshold not in (None, self.spec.threshold):
            notes.append(NOT_CALIBRATED)
        if self.spec.doubt:
            notes.append(self.spec.doubt)
        if self.spec.separation is not None:
            notes.append(
                f"The second head of {self.spec.name}, which located walls between buildings, is "
                "not used any more: a watershed separates them."
            )
        return (*notes, *getattr(self.source, "choices", ()))

    @cached_property
    def vector_options(self) -> VectorOptions:
        """Options for tracing the polygons of the mask."""
        # A network is compiled while what makes polygons is imported, see `ModelSet.begin`.
        from rooftrace.vector.prepare import MIN_BUILDING_PX, MIN_MARKER_PX, VectorOptions
        from rooftrace.vector.simplify import SIMPLIFY_PX
        from rooftrace.vector.watershed import WatershedOptions

        options, scale_yx = self.options, self.scaling.scale_yx
        # The mask has the detail of the model; on a finer grid its pixel staircases are larger.
        area, length = scale_yx[0] * scale_yx[1], max(1.0, *scale_yx)
        min_score = options.min_score
        if min_score is None:
            min_score = 0.0 if self.spec.calibration is None else MIN_SCORE
        return VectorOptions(
            min_area_m2=options.min_area_m2,
            min_hole_m2=options.min_hole_m2,
            min_score=min_score,
            # A minimum in m² that is asked for applies in addition.
            min_area_px=max(MIN_BUILDING_PX * area, _MIN_SHOWN_PX),
            simplify_px=SIMPLIFY_PX * length,
            separate=options.separate,
            min_marker_px=MIN_MARKER_PX * area,
            watershed=WatershedOptions.at_threshold(self.threshold).scaled(length),
        ).drawn(options.outline)

    @property
    def mask_tags(self) -> dict[str, str]:
        """Tags of the mask, from which `rooftrace vectorize` makes the same polygons."""
        from rooftrace.vector.prepare import MaskRecord

        spec = self.spec
        return MaskRecord(
            polygons=self.vector_options, gsd_m=self.options.gsd_m, building=spec.building_class,
            origin=self.provenance, shape=self.source.grid.shape,
            pixel_m=self.source.grid.gsd_yx_m,
        ).tags()  # fmt: skip

    @cached_property
    def blocks(self) -> tuple[Window, ...]:
        """Windows of the source, in the order in which they are finished."""
        tops, lefts = self.rows.edges, self.cols.edges
        return tuple(
            Window(top, left, bottom - top, right - left)
            for top, bottom in pairwise(tops)
            for left, right in pairwise(lefts)
        )

    def own_tiles(self, number: int) -> list[TileIndex]:
        """Return the tiles that are run for a block, row by row."""
        rows, cols = (
            range(place * axis.per_block, min((place + 1) * axis.per_block, axis.tiles.count))
            for place, axis in zip(divmod(number, len(self.cols.spans)), (self.rows, self.cols))
        )
        return [(row, col) for row in rows for col in cols]

    def contributing(self, number: int) -> frozenset[int]:
        """Return the earlier blocks whose tiles have weight in a block."""
        across = len(self.cols.spans)
        row, col = divmod(number, across)
        contributing = {
            i * across + j for i in self.rows.contributing(row) for j in self.cols.contributing(col)
        }
        return frozenset(contributing - {number})

    def extents(self, index: TileIndex) -> list[tuple[int, Window]]:
        """Return the blocks in which a tile has weight, the tile's own block first, and the window
        of the model's pixels in which it has weight in each.
        """
        return [
            (row * len(self.cols.spans) + col, Window(top, left, bottom - top, right - left))
            for row, top, bottom in self.rows.extents(index[0])
            for col, left, right in self.cols.extents(index[1])
        ]


def plan_scene(
    source: RasterSource,
    spec: BundleSpec,
    options: SceneOptions | None = None,
    *,
    tile_px: int | None = None,
    block_px: int | None = None,
    provenance: ResultProvenance = UNKNOWN_PROVENANCE,
) -> ScenePlan:
    """Check a scene against a model's contract, and plan its tiles and blocks.

    Args:
        source: Image.
        spec: Contract of the model.
        tile_px: Side of the largest tile, for a model that takes any size; default: TILE_PX, or
            half of it for many classes.
        block_px: Approximate side of a block in pixels of the model, at least one tile; default:
            BLOCK_PX, or half of it for many classes.
        provenance: Origin of the image, where it is known better than from the source.

    Raises:
        BandMismatch: The bands of the model cannot be found in the scene.
        DataError: The values are complex numbers, or the scene is too large.
        GsdMismatch: The metres per pixel are too different from those of the model, or too fine for
            its fixed tiles.
        ConfigError, GeoreferenceError: The options do not fit the model or the scene.
    """
    options = options or SceneOptions()
    threshold = threshold_for(spec, options.threshold)
    shape_yx = source.grid.shape
    scaling = scaling_for(
        source.grid, spec.scales, gsd_m=options.gsd_m,
        scale=options.scale, name=source.name,
    )  # fmt: skip
    _check(source, spec, scaling)
    source = prepared(source, spec, options)
    part = 1 if spec.channels <= _FEW_CHANNELS else 2
    part *= ceil(max(*scaling.scale_yx, 1.0) / _FINE_SCALE)
    tile_px = tile_px or max(TILE_PX // part, _SMALL_TILE_PX)
    block_px = block_px or BLOCK_PX // part
    tiles, rows, cols = _divided(
        shape_yx, replace(scaling, note=""), block_px, **spec.tiling(tile_px)
    )
    origin = provenance.filled(provenance_of(source)).filled(ResultProvenance(model=spec.name))
    plan = ScenePlan(source, spec, options, threshold, scaling, tiles, rows, cols, origin)
    if not NEED_POLYGONS.isdisjoint(options.outputs):
        plan.vector_options.check(source.grid, options.gsd_m)
    return plan


def prepared(source: RasterSource, spec: BundleSpec, options: SceneOptions) -> RasterSource:
    """Return an image with the bands and values that a model expects; see `io.pixels`."""
    image = innermost(source)
    if isinstance(image, Mosaic):
        image.is_forgiving = options.forgiving
    usual = list(zip(spec.mean, spec.std))
    # A model that was fine-tuned may know infrared; finetune said so then.
    is_natural = spec.bands == ("red", "green", "blue") and "start" not in spec.training
    return prepare(
        source, spec.bands, spec.numpy_dtype, usual,
        bands=options.bands, stretch=options.stretch or "auto", is_natural=is_natural,
    )  # fmt: skip


def threshold_for(spec: BundleSpec, threshold: float | None) -> float | None:
    """Return the building probability from which a pixel is a building.

    Args:
        spec: Contract of the model.
        threshold: Threshold that the user chose; None for the model's own.

    Returns:
        Threshold; None for a model of several classes, where the most probable class is chosen.
    """
    if spec.is_binary:
        return spec.threshold if threshold is None else threshold
    if threshold is not None:
        raise ConfigError(
            f"A threshold of {threshold:g} was given, but the model {spec.name!r} has "
            f"{len(spec.classes)} classes, and each pixel takes the most probable one.",
            remedy="Leave out the threshold.",
        )
    return None


@lru_cache(maxsize=16)
def _divided(
    shape_yx: tuple[int, int], scaling: Scaling, block_px: int, **tiling: Any
) -> tuple[TilePlan, BlockAxis, BlockAxis]:
    """Return the tiles and blocks of a scene, the same ones for all scenes of one shape."""
    tiles = plan_tiles(scaling.model_shape(shape_yx), **tiling)
    blocks = []
    for which, axis in enumerate((tiles.rows, tiles.cols)):
        length, scale = shape_yx[which], scaling.scale_yx[which]
        per_block = max(1, block_px // axis.stride_px)
        # Distance that the resampling filter reads beyond the first pixel of a tile.
        reach = 0 if scaling.is_identity else int(scale) + 1
        edges = [0]
        for tile in range(per_block, axis.count, per_block):
            # The tile has no weight before this edge; tiles of the new block cover everything
            # after it.
            latest = int(axis.support[tile][0] * scale)
            while scaling.needed(which, edges[-1], latest, length)[1] > axis.support[tile][0]:
                latest -= 1
            earliest = int(tile * axis.stride_px * scale) - reach
            assert latest >= earliest
            aligned = latest // _ALIGN_PX * _ALIGN_PX
            edges.append(aligned if aligned >= max(earliest, edges[-1] + 1) else latest)
        edges.append(length)
        spans = tuple(scaling.needed(which, start, stop, length) for start, stop in pairwise(edges))
        blocks.append(BlockAxis(axis, per_block, tuple(edges), spans))
    rows, cols = blocks
    return tiles, rows, cols


def _check(source: RasterSource, spec: BundleSpec, scaling: Scaling) -> None:
    """Check that a scene is not too large, and that the model's tiles and classes can be used."""
    height, width = source.grid.shape
    if height * width > _MAX_SCENE_PX or max(height, width) > _MAX_SIDE_PX:
        raise DataError(
            f"{source.name} has {width:,} × {height:,} pixels; at most {_MAX_SCENE_PX:,} pixels, "
            f"and {_MAX_SIDE_PX:,} in a row or column, are planned as one scene.",
            remedy="Check its size with gdalinfo; cut a scene of this size into parts with "
            "gdal_translate -srcwin.",
        )
    if len(spec.classes) > NODATA:
        raise DataError(
            f"The model {spec.name!r} has {len(spec.classes)} classes; an 8-bit mask can hold "
            f"{NODATA} classes and nodata.",
            remedy="Train with fewer classes.",
        )
    scale = max(scaling.scale_yx)
    if spec.input_px is not None and spec.input_px * scale > _MAX_TILE_SIDE_PX:
        raise GsdMismatch(
            f"{source.name} has {plain_number(scale)} times as many pixels in a row as the model "
            f"{spec.name!r} sees, and the model takes only tiles of {spec.input_px} px; expected "
            f"at most {plain_number(_MAX_TILE_SIDE_PX / spec.input_px)} times as many.",
            remedy="Average it first, with gdal_translate -r average -outsize 10% 10%.",
        )


_MAX_SCENE_PX = 2**44
"""Maximum number of pixels of a scene, with which planning takes a second: 1,200 km square at 0.3 m
per pixel. A small file can state a size of 10^18 pixels."""

_MAX_SIDE_PX = 2**27
"""Maximum number of pixels in a row or column: the Earth's circumference at 0.3 m per pixel."""
