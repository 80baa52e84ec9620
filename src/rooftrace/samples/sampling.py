"""Draw the scene, and the part of it, from which the next training sample is cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError
from rooftrace.core.types import Scene, Window
from rooftrace.labels.source import BLOCK_PX, SceneSet, count_classes

Balance = Literal["area", "image", "class", "built_up"]

STRATA = (0.0, 0.01, 0.05, 0.15, 0.30, 0.50)
"""Upper limits of the strata of built-up share; the last stratum is everything above."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Place in which a sample has its centre.

    Args:
        scene: Number of the scene, counted over all sets.
        block: Part of the scene; None for any part.
        class_index: Class of the centre pixel; None for any class.
    """

    scene: int
    block: Window | None = None
    class_index: int | None = None


@dataclass(frozen=True)
class _Stratum:
    """Places that are drawn by weight, with the block of each unless places are whole scenes."""

    scenes: NDArray[np.intp]
    cumulative: NDArray[np.float64]
    blocks: NDArray[np.intp] | None = None
    class_index: int | None = None


@dataclass(frozen=True)
class Sampler:
    """Draws places. Made by `make_sampler`.

    Args:
        pools: Pools of strata. A pool is drawn by share; its strata are equally likely.
        cumulative: (pool,) cumulative sum of the shares.
        shapes_yx: (scene, 2) shapes of all scenes.
    """

    pools: tuple[tuple[_Stratum, ...], ...]
    cumulative: NDArray[np.float64]
    shapes_yx: NDArray[np.intp]

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw the next place, which depends only on the generator's state."""
        strata = self.pools[_pick(self.cumulative, rng)]
        stratum = strata[int(rng.integers(len(strata)))]
        place = _pick(stratum.cumulative, rng)
        scene = int(stratum.scenes[place])
        if stratum.blocks is None:
            return Draw(scene)
        row, col = (int(step) * BLOCK_PX for step in stratum.blocks[place])
        height, width = (int(side) for side in self.shapes_yx[scene])
        block = Window(row, col, min(BLOCK_PX, height - row), min(BLOCK_PX, width - col))
        return Draw(scene, block, stratum.class_index)


def make_sampler(sources: Sequence[SceneSet], scenes: Sequence[Scene], balance: Balance) -> Sampler:
    """Return the sampler from which training draws.

    If sets have shares, a set is drawn by its share first, and the balance applies within each set;
    without shares it applies to all sets together.

    - `area`: every square metre (every pixel, if metres are unknown) is equally likely.
    - `image`: every scene is equally likely, and every place in it.
    - `class`: every class that has a pixel is equally likely, and every square metre of a class.
      The sample has its centre there.
    - `built_up`: every stratum of `STRATA` that has a block is equally likely, and every square
      metre of a stratum. A block is a square of `BLOCK_PX` of a scene, and its stratum is given by
      the share of buildings among its known pixels. The sample has its centre in the block, shifted
      so that the sample lies in the scene if possible.

    `class` and `built_up` count classes: all labels and images are read once.

    Args:
        sources: Sets of scenes.
        scenes: Scenes of all `sources`, in their order.
        balance: Unit that is drawn with equal probability.
    """
    shapes = np.array([scene.image.grid.shape for scene in scenes], dtype=np.intp)
    grounds = np.array([(scene.gsd_m or 1.0) ** 2 for scene in scenes])
    sizes = [len(source) for source in sources]
    starts = np.cumsum([0, *sizes])
    members = [np.arange(start, start + size) for start, size in zip(starts, sizes) if size]
    taken = [source for source in sources if len(source)]
    shares = [source.share for source in taken]
    given = [share for share in shares if share is not None]
    if given and len(given) < len(shares):
        raise DataError(
            "Some training folders have a share and some have none.",
            remedy="Give a share to all of them, or to none.",
        )
    if given:
        groups = [([source], member) for source, member in zip(taken, members)]
    else:
        groups = [(taken, np.concatenate(members))]
    pools = []
    for group, member in groups:
        if balance == "area":
            strata = [_stratum(member, shapes[member].prod(axis=1) * grounds[member])]
        elif balance == "image":
            strata = [_stratum(member, np.ones(len(member)))]
        else:
            strata = _counted_strata(group, member, grounds[member], balance)
        pools.append(tuple(strata))
    return Sampler(tuple(pools), np.cumsum(given or [1.0]), shapes)


def _counted_strata(
    sources: Sequence[SceneSet],
    member: NDArray[np.intp],
    grounds: NDArray[np.float64],
    balance: Balance,
) -> list[_Stratum]:
    """Return strata of blocks, for `class` and `built_up`."""
    found = [
        counted[scene_id]
        for source in sources
        for counted in [count_classes(source)]
        for scene_id in source.ids
    ]
    scenes = np.repeat(member, [blocks[..., 0].size for blocks in found])
    ground = np.repeat(grounds, [blocks[..., 0].size for blocks in found])
    places = np.concatenate([np.argwhere(np.ones(blocks.shape[:2], bool)) for blocks in found])
    counts = np.concatenate([blocks.reshape(-1, blocks.shape[-1]) for blocks in found])
    known = counts.sum(axis=1)
    if not known.any():
        raise DataError(
            f"No pixel of {', '.join(source.name for source in sources)} is known: all are nodata "
            "or ignored.",
            remedy="Check nodata and ignore in the configuration, or leave balance out.",
        )
    strata: list[tuple[NDArray[np.int64], int | None]]
    if balance == "class":
        strata = [(counts[:, index].astype(np.int64), index) for index in range(counts.shape[1])]
    else:
        share = counts[:, sources[0].building_class] / np.maximum(known, 1)
        stratum_of = np.searchsorted(STRATA, share, side="left")
        strata = [(known * (stratum_of == number), None) for number in range(len(STRATA) + 1)]
    return [
        _stratum(scenes[some], weights[some] * ground[some], places[some], class_index)
        for weights, class_index in strata
        for some in [np.flatnonzero(weights)]
        if len(some)
    ]


def _stratum(
    scenes: NDArray[np.intp],
    weights: NDArray[np.float64],
    blocks: NDArray[np.intp] | None = None,
    class_index: int | None = None,
) -> _Stratum:
    return _Stratum(scenes, np.cumsum(weights, dtype=np.float64), blocks, class_index)


def _pick(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    found = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return min(int(found), len(cumulative) - 1)
