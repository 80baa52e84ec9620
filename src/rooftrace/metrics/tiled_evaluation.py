"""Evaluation of whole images as `rooftrace predict` processes them: overlapping tiles, blended.

A training tile is cut out by itself, and the edges of the tile distort its answers. Decisions that
concern prediction are therefore evaluated here.
"""

import math
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import GsdMismatch
from rooftrace.core.types import Raster, Scene, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.resample import Resampler, enlarge, scaling_for
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.models.spec import BundleSpec
from rooftrace.samples.dataset import model_scale
from rooftrace.tiling.plan import BLEND_ONE, TILE_PX, Blender, plan_tiles, quantise

_WINDOW_PX = 2048
"""Side of the windows of a larger image, in pixels at the model's resolution."""

_MAX_PX = 16 * 2**20
"""Maximum number of pixels per folder, at the model's resolution: a few seconds of a small network.
"""

Run = Callable[[NDArray[Any]], NDArray[np.float32]]


def evaluate_scenes(source: SceneSet, spec: BundleSpec, run: Run) -> PixelCounts:
    """Count the pixels of a labelled folder at the contract's threshold.

    Large images are evaluated in windows, and an evenly spread part is taken of many. Images whose
    ground sample distance is too far from the model's are left out.

    Args:
        run: Function from (n, band, y, x) pixel values to (n, channel, y, x) probabilities.
    """
    counts = PixelCounts.zero(len(spec.classes))
    for scene, window in _windows(source, spec):
        assert scene.label is not None
        pixels, truth = scene.image.read(window), scene.label.read(window)
        try:
            # The georeference knows both axes, which is better than one number for the two.
            gsd_m = None if scene.gsd_m == scene.image.grid.gsd_m else scene.gsd_m
            predicted = predict_mask(pixels, spec, run, gsd_m=gsd_m)
        except GsdMismatch:
            continue
        counts += PixelCounts.of(
            truth.data, predicted, truth.valid & pixels.valid, classes=len(spec.classes)
        )
    return counts


def predict_mask(
    pixels: Raster, spec: BundleSpec, run: Run, *, gsd_m: float | None = None
) -> NDArray[np.uint8]:
    """Return the (y, x) class indices of one image that fits in memory, including its nodata
    pixels.

    Raises:
        GsdMismatch: The image is too far from the model's ground sample distance.
    """
    scaling = scaling_for(pixels.grid, spec.scales, gsd_m=gsd_m)
    source = ArraySource(pixels.data, pixels.grid, pixels.valid)
    resampler = Resampler(source, scaling)
    tiles = plan_tiles(resampler.shape_yx, **spec.tiling(TILE_PX))
    whole = Window.whole(resampler.shape_yx)
    blender = Blender(tiles, whole, spec.channels)
    for index in tiles.tiles_for(whole):
        wanted = tiles.tile(index).read
        inside = wanted.intersection(whole)
        assert inside is not None
        data, _ = resampler.read(inside)
        beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
        tile = np.pad(data, ((0, 0), *beyond), mode="reflect")
        blender.feed(index, quantise(run(tile[None])[0]))
    blended = enlarge(blender.blended, whole, Window.whole(pixels.grid.shape), scaling)
    mask: NDArray[np.uint8]
    if spec.is_binary:
        mask = (blended[0] >= math.ceil(spec.threshold * BLEND_ONE)).astype(np.uint8)
    else:
        mask = blended.argmax(axis=0).astype(np.uint8)
    return mask


def _windows(source: SceneSet, spec: BundleSpec) -> Iterator[tuple[Scene, Window]]:
    """Yield the scenes and windows of a folder that are evaluated."""
    windows: list[tuple[int, Window]] = []
    area_px = 0.0
    for number, scene in enumerate(source):
        scale_yx = model_scale(scene, spec.scales)
        down, along = (max(1, int(_WINDOW_PX * scale)) for scale in scale_yx)
        whole = Window.whole(scene.image.grid.shape)
        windows += [(number, window) for window in whole.blocks(down, along)]
        area_px += whole.area_px / (scale_yx[0] * scale_yx[1])
    count = max(1, min(len(windows), int(len(windows) * _MAX_PX / area_px)))
    places = np.linspace(0, len(windows) - 1, count).round().astype(int)
    chosen = (windows[place] for place in places.tolist())
    for number, of_scene in groupby(chosen, itemgetter(0)):
        scene = source.open_scene(source.entries[number])
        for _, window in of_scene:
            yield scene, window
