"""Find sets whose labels are complete in one area only: beyond it buildings stand unlabelled.

Squares of the ground are described by their colours and texture. Where labels lie, a linear
discriminant (R. A. Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936) learns
which squares hold a building. It is then applied beyond the labels of each scene: if it finds
about as many buildings there, the labels end, but the town does not.

It is silent rather than wrong: of 22 real sets and scenes with complete labels none is named, and
of 52 in which a part of the labels was erased 8 are, those where the town goes on as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from rooftrace.audit.facts import Finding, SceneFacts, make_finding, share
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import BoolArray, Floats, Window
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.samples.dataset import full_scale_of

_CELL_PX = 32
"""Side of a square in pixels."""

_STRIP_CELLS = 8
"""Number of rows of squares that are read at a time, so that no block of a file is read twice."""

_MOST_SCENES = 48
_MOST_PX = 2**26
"""Maximum number of scenes that are read, and of their pixels together."""

_BUILT = 0.2
"""Share of a square's pixels from which it holds a building."""

_LEAST_CELLS = 30
"""Minimum number of squares with and without buildings among the labels, and beyond them."""

_LEAST_BEYOND = 0.2
_LEAST_RATIO = 0.7
"""Share of the ground beyond the labels, and ratio of built squares there to those among the
labels, from which labels are called incomplete."""

_LEAST_AUC = 0.75
"""Area under the ROC curve on squares that were left out, below which squares tell nothing."""


def partial_findings(source: SceneSet, facts: Sequence[SceneFacts]) -> list[Finding]:
    """Return `label.partial` if ground beyond the labels looks as built up as that among them.

    Args:
        source: The set; at most 48 scenes with labels are read.
        facts: Facts of its scenes.
    """
    by_id = {f.id: f for f in facts if f.label is not None}
    entries = [entry for entry in source.entries if entry.id in by_id]
    chosen = tuple(entries[:: -(-len(entries) // _MOST_SCENES) or 1])
    found = map_entries(replace(source, entries=chosen), _cells)
    parts = [(by_id[entry.id], part) for entry, part in zip(chosen, found) if part is not None]
    if not parts:
        return []
    features, built = (np.concatenate([part[k] for _, part in parts]) for k in (0, 1))
    among = np.concatenate([part[2] for _, part in parts])
    counts = int(built[among].sum()), int((~built[among]).sum()), int((~among).sum())
    if min(counts) < _LEAST_CELLS or counts[2] < _LEAST_BEYOND * len(among):
        return []
    scores = _left_out_scores(features[among], built[among])
    if _auc(scores, built[among]) < _LEAST_AUC:
        return []
    # As many squares among the labels are above the limit as hold a building.
    inside = float(built[among].mean())
    beyond = _discriminant(features[among], built[among], features[~among])
    outside = float((beyond > np.quantile(scores, 1 - inside)).mean())
    if outside < _LEAST_RATIO * inside:
        return []
    without = {f.id: float((~part[2]).mean()) for f, part in parts}
    finding = make_finding(
        "label.partial",
        "warning",
        f"Labels end, but buildings seem to go on: {share(counts[2], len(among))} of the ground "
        "lies beyond all labels",
        [f for f, _ in parts if without[f.id] >= _LEAST_BEYOND],
        detail=f"By colour and texture, {outside:.0%} of it looks like the {inside:.0%} with "
        "buildings among the labels. A model would learn that such buildings are background.",
        remedy="If labels are complete in one area only, give it: --area AREA.geojson; outside it "
        "pixels count as unknown. Otherwise label the rest, or leave these images out.",
        by=lambda f: without[f.id],
    )
    return [] if finding is None else [finding]


def _cells(source: SceneSet, entry: SceneEntry) -> tuple[Floats, BoolArray, BoolArray] | None:
    """Return (n, k) features of the known squares of a scene, whether each holds a building, and
    whether it lies in the rectangle of the labels; None if the scene cannot be read.
    """
    try:
        scene = source.open_scene(entry)
        height, width = scene.image.grid.shape
        rows, cols = height // _CELL_PX, width // _CELL_PX
        if scene.label is None or not rows or not cols:
            return None
        step = -(-height * width * _MOST_SCENES // _MOST_PX) if height * width > 2**21 else 1
        features, built, known = [], [], []
        for row in range(0, rows, _STRIP_CELLS * step):
            count = min(_STRIP_CELLS, rows - row)
            strip = Window(row * _CELL_PX, 0, count * _CELL_PX, cols * _CELL_PX)
            raster, mask = scene.image.read(strip), scene.label.read(strip)
            building = (mask.data == source.building_class) & mask.valid
            features.append(_features(raster.data))
            built.append(_means(building.astype(np.float32)))
            known.append(_means((mask.valid & raster.valid).astype(np.float32)) > 0.99)
    except RooftraceError:
        return None
    shares, seen = np.concatenate(built), np.concatenate(known)
    table = np.concatenate(features)
    # The surroundings of a square say more than the square alone.
    table = np.concatenate([table, cv2.blur(table, (3, 3)).reshape(table.shape)], axis=2)
    inside = np.zeros(shares.shape, np.bool_)
    down, along = np.nonzero(shares > 0)
    if len(down):
        first, last = (np.array([down, along]).min(axis=1) - 1, np.array([down, along]).max(axis=1))
        inside[max(first[0], 0) : last[0] + 2, max(first[1], 0) : last[1] + 2] = True
    return table[seen].astype(np.float64), shares[seen] > _BUILT, inside[seen]


def _features(data: np.ndarray) -> np.ndarray:
    """Return the (rows, columns, k) means of colours, edges and corners in squares of a strip."""
    bands = data[:3].astype(np.float32) / np.float32(full_scale_of(data.dtype))
    luma = bands.mean(axis=0)
    edges = np.hypot(cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1))
    corners = np.sqrt(np.maximum(cv2.cornerMinEigenVal(luma, 5), 0))
    figures = [
        *bands, *(bands[1:] - bands[0]), luma**2, bands.max(axis=0) - bands.min(axis=0), edges,
        np.sqrt(edges), np.abs(cv2.Laplacian(luma, cv2.CV_32F)), corners,
    ]  # fmt: skip
    return np.stack([_means(figure) for figure in figures], axis=2)


def _means(values: np.ndarray) -> np.ndarray:
    """Return the (rows, columns) means of the squares of a strip."""
    height, width = values.shape
    blocks = values.reshape(height // _CELL_PX, _CELL_PX, width // _CELL_PX, _CELL_PX)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _discriminant(x: Floats, is_built: BoolArray, at: Floats) -> Floats:
    """Return the (m,) scores of `at` (m, k) by the discriminant of (n, k) squares."""
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6

    def scaled(values: Floats) -> Floats:
        return np.column_stack([(values - mean) / spread, np.ones(len(values))])

    weight = np.where(is_built, 1 / is_built.sum(), 1 / (~is_built).sum())
    weighted = scaled(x) * weight[:, None]
    matrix = weighted.T @ scaled(x) + 0.01 * np.eye(x.shape[1] + 1)
    return scaled(at) @ np.linalg.solve(matrix, weighted.T @ np.where(is_built, 1.0, -1.0))


def _left_out_scores(x: Floats, is_built: BoolArray) -> Floats:
    """Return the (n,) scores of squares, each by the discriminant of three other quarters."""
    fold = np.arange(len(x)) * 4 // len(x)
    scores = np.zeros(len(x))
    for number in range(4):
        rest = fold != number
        if is_built[rest].any() and not is_built[rest].all():
            scores[~rest] = _discriminant(x[rest], is_built[rest], x[~rest])
    return scores


def _auc(scores: Floats, is_built: BoolArray) -> float:
    """Return the probability that a built square has a higher score than another one."""
    rank = np.empty(len(scores))
    rank[np.argsort(scores)] = np.arange(len(scores))
    built = int(is_built.sum())
    return float((rank[is_built].sum() - built * (built - 1) / 2) / (built * (~is_built).sum()))
