"""Tiles that an export is calibrated and judged on: real ones, or generated town."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import Scene, Window
from rooftrace.data.source import Entry, SceneSet
from rooftrace.io.resample import Resampler
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.scene import plan_scene
from rooftrace.testing import generate_scene

__all__ = ["TileSet", "draw_tiles", "generated_tiles", "tile_side"]

_SIDE_PX = 256
_MOST_SCENES = 512
_ENOUGH_VALID = 0.5
"""Share of a tile's pixels that are no nodata."""

_OPEN = 16
_SEEDS = (301, 302, 303)
_GENERATED_GSD_M = 0.3


@dataclass(frozen=True)
class TileSet:
    """Tiles at a model's resolution.

    Args:
        name: of the data.
        images: (band, y, x) pixel values each, all of one size.
        notes: what was assumed, for the person to see.
    """

    name: str
    images: tuple[NDArray[Any], ...]
    notes: tuple[str, ...] = ()

    def split(self, first: int) -> tuple[TileSet, TileSet]:
        """`first` of them, or half where they are fewer than twice that, and the others; where
        there is only one tile it is in both.
        """
        cut = min(first, len(self.images) // 2)
        if not cut:
            return self, self
        head, tail = self.images[:cut], self.images[cut:]
        return TileSet(self.name, head, self.notes), TileSet(self.name, tail)


def tile_side(spec: BundleSpec) -> int:
    """Of the tiles that a model is judged on."""
    return spec.input_px or -(-_SIDE_PX // spec.input_multiple_px) * spec.input_multiple_px


def draw_tiles(source: SceneSet, spec: BundleSpec, count: int) -> TileSet:
    """Tiles from everywhere in a set of data, the same each time; labels are not looked at.

    Args:
        source: of many scenes some are taken, spread evenly.
        spec: the contract of the model, to whose metres per pixel the scenes are brought.
        count: at most so many; fewer where there are no more, or most is nodata.

    Raises:
        DataError: there is no image, or none that is not nodata.
        BandMismatch, GsdMismatch: an image is not what the model was trained on.
    """
    entries = source.with_unlabelled().entries
    chosen = np.linspace(0, len(entries) - 1, min(len(entries), _MOST_SCENES)).round().astype(int)
    opened = _Scenes(source, [entries[number] for number in chosen], spec)
    side = tile_side(spec)
    laid = [
        (number, Window(row, col, side, side))
        for number in range(len(chosen))
        for row, col in _corners(opened.shape_yx(number), side)
    ]
    order = np.random.default_rng(0).permutation(len(laid))
    found: list[NDArray[Any]] = []
    for place in order:
        tile, valid = opened.read(*laid[place])
        if valid >= _ENOUGH_VALID:
            found.append(tile)
        if len(found) == count:
            break
    if not found:
        raise DataError(
            f"{source.name} has no tile of {side} px of which half is image: it has "
            f"{len(entries)} images.",
            remedy="Name other data.",
        )
    return TileSet(source.name, tuple(found), opened.notes)


def generated_tiles(spec: BundleSpec, count: int) -> TileSet:
    """Tiles of generated town.

    Raises:
        ConfigError: the model takes other bands or pixel values.
    """
    if len(spec.bands) != 3 or spec.dtype != "uint8":
        raise ConfigError(
            f"The model {spec.name} takes {len(spec.bands)} bands of {spec.dtype}, and generated "
            "tiles have three of uint8.",
            remedy="Name images that it can be checked on with --check.",
        )
    side = tile_side(spec)
    gsd_m = min(max(spec.gsd_m or _GENERATED_GSD_M, 0.05), 2.0)
    across = math.ceil(math.sqrt(count / len(_SEEDS)))
    tiles = []
    for seed in _SEEDS:
        image = generate_scene(seed, (side * across, side * across), gsd_m).image
        tiles += [
            image[:, row : row + side, col : col + side]
            for row in range(0, image.shape[1], side)
            for col in range(0, image.shape[2], side)
        ]
    note = "checked on generated town: name real images with --check to know how it is on those"
    return TileSet("generated town", tuple(tiles[:count]), (note,))


class _Scenes:
    """Scenes at the model's resolution, a few of them open at a time."""

    def __init__(self, source: SceneSet, entries: list[Entry], spec: BundleSpec) -> None:
        self._source, self._entries, self._spec = source, entries, spec
        self._open: OrderedDict[int, Resampler] = OrderedDict()
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Of the first scene that needed one: the others say the same."""
        return tuple(self._notes)[:1]

    def shape_yx(self, number: int) -> tuple[int, int]:
        return self._at(number).shape_yx

    def read(self, number: int, window: Window) -> tuple[NDArray[Any], float]:
        """A tile, mirrored where it leaves its scene, and what share of it is valid."""
        scene = self._at(number)
        inside = window.intersection(Window.whole(scene.shape_yx))
        assert inside is not None, "laid over the scene"
        data, valid = scene.read(inside)
        beyond = (0, window.height - inside.height), (0, window.width - inside.width)
        return np.pad(data, ((0, 0), *beyond), mode="symmetric"), float(valid.mean())

    def _at(self, number: int) -> Resampler:
        if number not in self._open:
            scene: Scene = self._source.open_scene(self._entries[number])
            plan = plan_scene(scene.image, self._spec, gsd_m=scene.said_gsd_m)
            if plan.scaling.note:
                self._notes[plan.scaling.note] = None
            self._open[number] = Resampler(scene.image, plan.scaling, self._spec.mean)
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


def _corners(shape_yx: tuple[int, int], side: int) -> Iterator[tuple[int, int]]:
    """Where tiles lie side by side; what remains at the end is left out, but of small scenes."""
    rows, cols = (max(1, length // side) for length in shape_yx)
    return ((row * side, col * side) for row in range(rows) for col in range(cols))
