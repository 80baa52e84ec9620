"""The buildings of many scenes as one layer, scene after scene, with memory for those that meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.vector.sightings import (
    CUT_PX,
    NEAR_PX,
    Pairs,
    Sightings,
    components,
    distances_m,
    find_pairs,
    metres_per_degree,
    settle,
)

__all__ = ["Gatherer"]

_FEW = 20_000
"""Polygons that are held without a look at which of them are settled."""


class Gatherer:
    """Takes the buildings of scenes, and gives those that no scene to come can change.

    What is held are polygons that lie near another scene's ground, until all scenes that are near
    those connected with them have come: with scenes that come in an order of place, some along
    the line between those that came and those that did not.

    Args:
        outlines: (n,) of the valid data of each scene, in degrees; None of one that has none.
        gsd_m: (n,) of each.
    """

    def __init__(self, outlines: Sequence[Any], gsd_m: Sequence[float]) -> None:
        self.most_held = 0
        self._outlines = np.array(
            [shapely.Polygon() if one is None else one for one in outlines], np.object_
        )
        self._gsd_m = np.array(gsd_m, float)
        self._near = self._neighbours()
        self._came = np.zeros(len(self._outlines), np.bool_)
        self._held: Sightings | None = None
        self._ids = np.zeros(0, np.int64)
        self._count = 0
        self._pairs: list[Pairs] = []
        """By the ids of polygons."""

        self._look_at = _FEW

    def add(self, scene: int, found: Sightings) -> list[Sightings]:
        """Take the buildings of a scene, each scene once.

        Args:
            found: with `cut` and `edge_m` of no matter.

        Returns:
            What is settled, of this scene and of others.
        """
        assert not self._came[scene]
        self._came[scene] = True
        contested = self._contested(scene, found)
        settled = [found.of(~contested)]
        new = self._with_edges(scene, found.of(contested))
        if len(new):
            ids = np.arange(self._count, self._count + len(new))
            self._count += len(new)
            if self._held is None:
                self._held, self._ids = new, ids
            else:
                pairs = find_pairs(new, self._held)
                self._pairs.append(replace(pairs, one=ids[pairs.one], other=self._ids[pairs.other]))
                self._held = Sightings.joined([self._held, new])
                self._ids = np.concatenate([self._ids, ids])
            self.most_held = max(self.most_held, len(self._held))
        if self._held is not None and len(self._held) > self._look_at:
            settled += self._settled()
            self._look_at = max(_FEW, 2 * len(self._ids))
        return [part for part in settled if len(part)]

    def finish(self) -> list[Sightings]:
        """What was held, when all scenes have come; those that failed never do."""
        self._came[:] = True
        return self._settled()

    def _neighbours(self) -> list[NDArray[np.int64]]:
        """Of each scene the others that are near it."""
        near: list[list[int]] = [[] for _ in self._outlines]
        known = np.flatnonzero(~shapely.is_empty(self._outlines))
        if len(known):
            bounds = shapely.bounds(self._outlines[known])
            reach = self._reach(known)
            low, high = bounds[:, :2] - reach, bounds[:, 2:] + reach
            boxes: NDArray[np.object_] = np.asarray(shapely.box(*low.T, *high.T))
            for one, other in shapely.STRtree(boxes).query(boxes).T.tolist():
                if one != other:
                    near[known[one]].append(int(known[other]))
        return [np.array(sorted(own), np.int64) for own in near]

    def _reach(self, scenes: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, 2) degrees that are near enough."""
        corners = shapely.bounds(self._outlines[scenes])[:, :2]
        return NEAR_PX * self._gsd_m[scenes, None] / metres_per_degree(corners)

    def _contested(self, scene: int, found: Sightings) -> NDArray[np.bool_]:
        """Which of a scene's polygons lie near another's valid data."""
        contested = np.zeros(len(found), np.bool_)
        for other in self._near[scene].tolist():
            reach = max(self._reach(np.array([scene, other])).max(axis=1))
            grown = shapely.buffer(self._outlines[other], reach, join_style="mitre")
            shapely.prepare(grown)
            contested |= shapely.intersects(grown, found.geometry)
        return contested

    def _with_edges(self, scene: int, found: Sightings) -> Sightings:
        edge_m = distances_m(found.geometry, shapely.boundary(self._outlines[scene]))
        return replace(found, cut=edge_m <= CUT_PX * self._gsd_m[scene], edge_m=edge_m)

    def _settled(self) -> list[Sightings]:
        """Polygons that, with all that are connected with them, no scene to come is near."""
        held = self._held
        if held is None:
            return []
        pairs = self._joined_pairs()
        complete = np.array([bool(self._came[near].all()) for near in self._near])
        place = np.searchsorted(self._ids, np.stack([pairs.one, pairs.other]))
        group = components(len(held), zip(*place.tolist()))
        open_groups = np.unique(group[~complete[held.scene]])
        ready = ~np.isin(group, open_groups)
        if not ready.any():
            return []
        number = np.cumsum(ready) - 1
        own = ready[place[0]]
        known = replace(pairs.of(own), one=number[place[0][own]], other=number[place[1][own]])
        settled = settle(held.of(ready), known)
        left = ~ready
        self._held = held.of(left) if left.any() else None
        self._ids = self._ids[left]
        self._pairs = [pairs.of(~own)]
        return [settled]

    def _joined_pairs(self) -> Pairs:
        if not self._pairs:
            none = np.zeros(0, np.int64)
            return Pairs(none, none, none.astype(np.bool_), none.astype(np.bool_))
        return Pairs.joined(self._pairs)
