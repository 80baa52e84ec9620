"""How many pixels of each class a set holds, and where; the filter by built-up share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import Window
from rooftrace.data.parallel import map_entries
from rooftrace.data.source import Entry, Progress, SceneSet

__all__ = ["BLOCK_PX", "Census", "built_up_shares", "census", "filtered"]

BLOCK_PX = 256
"""Side of the squares of a scene that are counted apart."""

_STRIP_PX = 2**24
"""Larger scenes are read in strips of about so many pixels."""


@dataclass(frozen=True)
class Census:
    """What scenes hold.

    Args:
        blocks: by id of the scene, (block row, block column, class) int32: pixels of each class
            that image and label know, in squares of `BLOCK_PX`; those at the right and lower edge
            are cut.
    """

    blocks: Mapping[str, NDArray[np.int32]]

    def counts(self, scene_id: str) -> NDArray[np.int64]:
        """(class,) pixels of one scene."""
        total: NDArray[np.int64] = self.blocks[scene_id].sum(axis=(0, 1), dtype=np.int64)
        return total


def census(source: SceneSet, *, progress: Progress | None = None) -> Census:
    """Count every labelled scene of a set, several at a time.

    All labels and images are read (an image says where nodata is), each once; what a set has been
    counted for before (`SceneSet.census`) is not counted again.

    Raises:
        DataError and its kinds: an image or a label cannot be read.
    """
    known = dict(source.census.blocks) if source.census is not None else {}
    missing = tuple(entry for entry in source.entries if entry.id not in known)
    found = map_entries(replace(source, entries=missing), _count, progress=progress)
    known.update(zip((entry.id for entry in missing), found))
    return Census({entry.id: known[entry.id] for entry in source.entries})


def built_up_shares(source: SceneSet, counted: Census) -> NDArray[np.float64]:
    """(n,) share of the building class among the known pixels of each scene; NaN without any."""
    counts = np.array([counted.counts(scene_id) for scene_id in source.ids]).reshape(
        len(source), len(source.classes)
    )
    total = counts.sum(axis=1)
    shares = np.full(len(source), np.nan)
    np.divide(counts[:, source.building_class], total, out=shares, where=total > 0)
    return shares


def filtered(source: SceneSet, least: float, most: float) -> SceneSet:
    """Only the labelled scenes whose built-up share is from `least` to `most`.

    A scene of which nothing is known has no share, and is left out.

    Raises:
        DataError: none is left, and the message tells the shares that there are; or no scene has a
            label.
    """
    if not source.entries:
        raise DataError(
            f"The built-up share of the images of {source.name} is not known: none has a label.",
            remedy="Leave out min_built_up and max_built_up.",
        )
    counted = census(source)
    shares = built_up_shares(source, counted)
    inside = (shares >= least) & (shares <= most)
    kept = tuple(entry for entry, keep in zip(source.entries, inside) if keep)
    if not kept:
        raise DataError(
            f"None of the {len(source)} labelled scenes of {source.name} has a built-up share "
            f"from {least:.1%} to {most:.1%}. {_told(shares)}",
            remedy="Widen min_built_up and max_built_up; rooftrace inspect shows what each leaves.",
        )
    notes = list(source.notes)
    if dropped := len(source) - len(kept):
        notes.append(
            f"{source.name}: {dropped} of {len(source)} scenes are left out, being built up by "
            f"less than {least:.1%} or more than {most:.1%}."
        )
    return replace(source, entries=kept, notes=tuple(notes), census=counted)


def _told(shares: NDArray[np.float64]) -> str:
    known = shares[~np.isnan(shares)]
    if not len(known):
        return "All of their pixels are nodata."
    low, quarter, middle, three_quarters, high = np.quantile(known, (0, 0.25, 0.5, 0.75, 1))
    return (
        f"Their shares go from {low:.1%} to {high:.1%}; half of them lie between {quarter:.1%} "
        f"and {three_quarters:.1%}, the middle one at {middle:.1%}."
    )


def _count(source: SceneSet, entry: Entry) -> NDArray[np.int32]:
    scene, classes = source.open_scene(entry), len(source.classes)
    height, width = scene.image.grid.shape
    found = np.zeros((-(-height // BLOCK_PX), -(-width // BLOCK_PX), classes), dtype=np.int32)
    assert scene.label is not None
    rows = max(1, _STRIP_PX // (width * BLOCK_PX)) * BLOCK_PX
    for strip in Window.whole((height, width)).strips(rows):
        mask = scene.label.read(strip)
        known = mask.valid & scene.image.read(strip).valid
        for row in range(0, strip.height, BLOCK_PX):
            for col in range(0, width, BLOCK_PX):
                square = slice(row, row + BLOCK_PX), slice(col, col + BLOCK_PX)
                counts = np.bincount(mask.data[square][known[square]], minlength=classes)
                found[(strip.row + row) // BLOCK_PX, col // BLOCK_PX] = counts
    return found
