"""What has to be settled before a scene is predicted: its bands, its scale, its tiles."""

from __future__ import annotations

from dataclasses import dataclass

from rooftrace.core.errors import BandMismatch, DataError
from rooftrace.core.types import RasterSource, Window
from rooftrace.io.masks import NODATA
from rooftrace.io.resample import Scaling, scaling_for
from rooftrace.models.spec import BundleSpec
from rooftrace.tiling.plan import TilePlan, plan, plan_blocks

__all__ = ["ScenePlan", "plan_scene"]

TILE_PX = 1536
"""The largest tile: larger ones save little overlap and cost memory."""

OVERLAP_PX = 64
BLOCK_PX = 2048

_FEW_CHANNELS = 4
"""With more, tiles and blocks have half the sides: what is held grows with both, and with them."""


@dataclass(frozen=True)
class ScenePlan:
    """How one scene is predicted.

    Args:
        shape_yx: of the source.
        scaling: between the source and the model.
        tiles: over the scene at the model's resolution.
        blocks: of the source, in the order in which they are finished.
    """

    shape_yx: tuple[int, int]
    scaling: Scaling
    tiles: TilePlan
    blocks: tuple[Window, ...]

    def model_window(self, block: Window) -> Window:
        """The model pixels that a block of the source is made from."""
        return self.scaling.to_model(block, self.shape_yx)

    def tiles_for(self, block: Window) -> list[tuple[int, int]]:
        """The tiles that a block of the source is made from."""
        return self.tiles.tiles_for(self.model_window(block))

    def blocks_touching(self, window: Window) -> list[int]:
        """Which blocks have pixels in a window of the source, by number."""
        first = self.blocks[0]
        across = -(-self.shape_yx[1] // first.width)
        rows = range(window.row // first.height, (window.row_stop - 1) // first.height + 1)
        cols = range(window.col // first.width, (window.col_stop - 1) // first.width + 1)
        return [row * across + col for row in rows for col in cols]


def plan_scene(
    source: RasterSource,
    spec: BundleSpec,
    *,
    gsd_m: float | None = None,
    tile_px: int | None = None,
    block_px: int | None = None,
) -> ScenePlan:
    """Check an image against a model's contract and lay its tiles.

    Args:
        source: the image.
        spec: the contract.
        gsd_m: of the image, where the person knows better than its georeference.
        tile_px: the largest tile, for a model that takes any size; default TILE_PX, or half of it
            where there are many classes.
        block_px: what is finished at a time, about this squared; default BLOCK_PX, likewise.

    Raises:
        BandMismatch: another number of bands than the model's.
        DataError: pixel values of a type that the model was not trained on.
        GsdMismatch: too far from the model's metres per pixel.
    """
    _check_values(source, spec)
    part = 1 if spec.channels <= _FEW_CHANNELS else 2
    tile_px = tile_px or TILE_PX // part
    block_px = block_px or BLOCK_PX // part
    scaling = scaling_for(source.grid, spec.gsd_m, gsd_m=gsd_m, name=source.name)
    tiles = plan(
        scaling.model_shape(source.grid.shape),
        tile_px=spec.input_px or max(tile_px, spec.input_multiple_px),
        overlap_px=OVERLAP_PX,
        trim_px=min(spec.context_px, OVERLAP_PX // 4),
        multiple_px=spec.input_multiple_px,
        exact=spec.input_px is not None,
    )
    blocks = tuple(plan_blocks(source.grid.shape, block_px=block_px))
    return ScenePlan(source.grid.shape, scaling, tiles, blocks)


def _check_values(source: RasterSource, spec: BundleSpec) -> None:
    if source.bands != len(spec.bands):
        raise BandMismatch(
            f"{source.name} has {source.bands} bands; the model {spec.name!r} expects "
            f"{len(spec.bands)}: {', '.join(spec.bands)}.",
            remedy="Pick those bands with gdal_translate -b, or use a model trained on yours.",
        )
    if source.dtype != spec.numpy_dtype and spec.dtype != "float32":
        raise DataError(
            f"{source.name} holds {source.dtype} values; the model {spec.name!r} expects "
            f"{spec.dtype}.",
            remedy=f"Convert it with gdal_translate -ot {_GDAL_TYPES[spec.dtype]} -scale.",
        )
    if len(spec.classes) > NODATA:
        raise DataError(
            f"The model {spec.name!r} has {len(spec.classes)} classes; a mask of bytes holds "
            f"{NODATA} and one value for nodata.",
            remedy="Train with fewer classes.",
        )


_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}
