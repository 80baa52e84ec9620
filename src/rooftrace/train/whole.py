"""Whole images as `rooftrace predict` answers them: overlapping tiles, blended, on their own grid.

A tile of training is cut out by itself, and its answers are bent along all of its sides. What is
decided for prediction is judged on this instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import GsdMismatch
from rooftrace.core.types import Raster, Scene, Window
from rooftrace.data.dataset import model_scale
from rooftrace.data.source import SceneSet
from rooftrace.io.memory import ArraySource
from rooftrace.io.resample import Resampler, enlarge, scaling_for
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.models.spec import BundleSpec
from rooftrace.tiling.blend import BLEND_ONE, Blender, quantise
from rooftrace.tiling.plan import plan

__all__ = ["judge_whole", "whole_mask"]

_TILE_PX, _OVERLAP_PX, _TRIM_PX = 1664, 128, 48
"""As `rooftrace predict` lays its tiles."""

_PIECE_PX = 2048
"""The side, at the model's resolution, of what is taken of a larger image at a time."""

_MOST_PX = 16 * 2**20
"""Of one folder, at the model's resolution: a few seconds of a small network."""

Run = Callable[[NDArray[Any]], NDArray[np.float32]]


def judge_whole(source: SceneSet, spec: BundleSpec, run: Run) -> PixelCounts:
    """Count the pixels of a labelled folder at the contract's threshold.

    Large images are judged by pieces, and of many a part is taken that is spread evenly. Images
    that are too far from the model's metres per pixel to be predicted are left out.

    Args:
        run: (n, band, y, x) pixel values to (n, channel, y, x) probabilities.
    """
    counts = PixelCounts.zero(len(spec.classes))
    for scene, window in _pieces(source, spec):
        assert scene.label is not None
        pixels, truth = scene.image.read(window), scene.label.read(window)
        try:
            # What the georeference says of both axes it says better than one figure for the two.
            told = None if scene.gsd_m == scene.image.grid.gsd_m else scene.gsd_m
            predicted = whole_mask(pixels, spec, run, gsd_m=told)
        except GsdMismatch:
            continue
        counts += PixelCounts.of(
            truth.data, predicted, truth.valid & pixels.valid, classes=len(spec.classes)
        )
    return counts


def whole_mask(
    pixels: Raster, spec: BundleSpec, run: Run, *, gsd_m: float | None = None
) -> NDArray[np.uint8]:
    """(y, x) class indices of one image, which fits in memory; nodata is answered like the rest.

    Raises:
        GsdMismatch: it is too far from the model's metres per pixel.
    """
    scaling = scaling_for(pixels.grid, spec.gsd_m, gsd_m=gsd_m)
    source = ArraySource(pixels.data, pixels.grid, pixels.valid)
    resampler = Resampler(source, scaling, spec.mean)
    tile_px = spec.input_px or max(_TILE_PX, spec.input_multiple_px)
    overlap_px = min(_OVERLAP_PX, tile_px // 4)
    tiles = plan(
        resampler.shape_yx,
        tile_px=tile_px,
        overlap_px=overlap_px,
        trim_px=min(spec.context_px, overlap_px * _TRIM_PX // _OVERLAP_PX),
        multiple_px=spec.input_multiple_px,
        exact=spec.input_px is not None,
    )
    whole = Window.whole(resampler.shape_yx)
    blender = Blender(tiles, whole, spec.outputs)
    for index in tiles.tiles_for(whole):
        wanted = tiles.tile(index).read
        inside = wanted.intersection(whole)
        assert inside is not None
        data, _ = resampler.read(inside)
        beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
        tile = np.pad(data, ((0, 0), *beyond), mode="reflect")
        blender.feed(index, quantise(run(tile[None])[0]))
    blended = enlarge(blender.finish(), whole, Window.whole(pixels.grid.shape), scaling)
    mask: NDArray[np.uint8]
    if spec.is_binary:
        mask = (blended[0] >= math.ceil(spec.threshold * BLEND_ONE)).astype(np.uint8)
    else:
        mask = blended[: spec.channels].argmax(axis=0).astype(np.uint8)
    return mask


def _pieces(source: SceneSet, spec: BundleSpec) -> Iterator[tuple[Scene, Window]]:
    """What is judged of a folder, image by image."""
    laid: list[tuple[int, Window]] = []
    area_px = 0.0
    for number, scene in enumerate(source):
        scale = model_scale(scene, spec.gsd_m)
        side = max(1, int(_PIECE_PX * scale))
        height, width = scene.image.grid.shape
        laid += [
            (number, Window(row, col, min(side, height - row), min(side, width - col)))
            for row in range(0, height, side)
            for col in range(0, width, side)
        ]
        area_px += height * width / scale**2
    count = max(1, min(len(laid), int(len(laid) * _MOST_PX / area_px)))
    chosen = {laid[place] for place in np.linspace(0, len(laid) - 1, count).round().astype(int)}
    for number, scene in enumerate(source):
        for piece in laid:
            if piece[0] == number and piece in chosen:
                yield scene, piece[1]
