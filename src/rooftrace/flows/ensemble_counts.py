"""Counts of pixels by what several models say of them, alone and together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.source import SceneSet
from rooftrace.flows.ensemble_weights import LEVELS, PixelSample, histogram, mixed
from rooftrace.flows.scored import ScoredSet, level_of

__all__ = ["Answers", "Counted", "sample_pixels"]

_SAMPLE_PX = 2**20
"""Of all sets, that weights are fitted on."""

_CHUNK_PX = 2**20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What the models say of one set.

    Args:
        team: of each model, as it answers in the ensemble: on its tiles, at its scale.
        alone: of each model, as it answers by itself.
    """

    team: tuple[ScoredSet, ...]
    alone: tuple[ScoredSet, ...]

    @property
    def source(self) -> SceneSet:
        return self.team[0].source


def sample_pixels(sets: Sequence[Answers], folds: Sequence[Ints]) -> list[dict[int, PixelSample]]:
    """Of each set and fold some of the pixels, at random; every set has an equal part.

    Args:
        sets: what the models say.
        folds: of each set the (scenes,) fold of each scene.
    """
    made = []
    for one, fold in zip(sets, folds):
        area_px = sum(scene.score.size for scene in one.team[0])
        share = min(1.0, _SAMPLE_PX / len(sets) / area_px)
        rng = np.random.default_rng(0)
        rows: dict[int, list[NDArray[np.uint8]]] = {}
        truth: dict[int, list[NDArray[np.bool_]]] = {}
        for number, which in enumerate(fold.tolist()):
            scenes = [member[number] for member in one.team]
            taken = scenes[0].judged & (rng.random(scenes[0].score.shape) < share)
            said = np.stack([scene.score[taken] for scene in scenes], axis=1)
            rows.setdefault(which, []).append(said)
            truth.setdefault(which, []).append(scenes[0].truth[taken])
        made.append(
            {
                which: PixelSample.of(np.concatenate(rows[which]), np.concatenate(truth[which]))
                for which in rows
            }
        )
    return made


class Counted:
    """(scenes, columns, 2, 256) judged pixels of each set by level: of each model alone, of the
    average, of the votes (255 for the building, else 0), and of each row of weights.

    Args:
        sets: what the models say.
        weights: (rows, models), each row summing to one.
        thresholds: of each model, where it votes.
        scratch: a folder for the counts, which take some kilobytes a scene.
    """

    def __init__(
        self,
        sets: Sequence[Answers],
        weights: Floats,
        thresholds: Sequence[float],
        scratch: Path,
    ) -> None:
        models = weights.shape[1]
        limits = np.array([level_of(threshold) for threshold in thresholds], np.uint8)
        mixes = np.concatenate([np.full((1, models), 1 / models), weights])
        self._tied_px = self._judged_px = 0
        self.sets = []
        for number, one in enumerate(sets):
            shape = (len(one.source), models + 1 + len(mixes), 2, LEVELS)
            path = scratch / f"counts-{number}.npy"
            counts = np.lib.format.open_memmap(path, "w+", np.uint32, shape)
            for scene in range(len(one.source)):
                self._count(one, scene, mixes, limits, counts[scene])
            self.sets.append(counts)

    @property
    def tied(self) -> float:
        """The share of judged pixels on which as many models are for the building as not."""
        return self._tied_px / max(self._judged_px, 1)

    def _count(
        self,
        one: Answers,
        number: int,
        mixes: Floats,
        limits: NDArray[np.uint8],
        out: NDArray[np.uint32],
    ) -> None:
        team = [member[number] for member in one.team]
        judged, truth = team[0].judged, team[0].truth
        models = len(team)
        for member, (alone, said) in enumerate(zip(one.alone, one.team)):
            scene = team[member] if alone is said else alone[number]
            out[member] = histogram(scene.score[judged], truth[judged])
        rows = np.stack([scene.score[judged] for scene in team], axis=1)
        right = truth[judged]
        for first in range(0, len(rows), _CHUNK_PX):
            part, known = rows[first : first + _CHUNK_PX], right[first : first + _CHUNK_PX]
            votes = 2 * (part >= limits).sum(axis=1)
            self._tied_px += int((votes == models).sum())
            self._judged_px += len(part)
            chosen = (votes >= models) * np.uint8(LEVELS - 1)
            out[models + 1] += histogram(chosen, known).astype(np.uint32)
            for column, mix in zip((models, *range(models + 2, len(out))), mixes):
                out[column] += histogram(mixed(part, mix), known).astype(np.uint32)
