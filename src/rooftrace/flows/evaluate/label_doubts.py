"""Doubts about labels that lower figures: empty masks, and labels of some of the buildings."""

import cv2
import numpy as np

from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray
from rooftrace.flows.labelled_predictions import SetProbabilities, level_of
from rooftrace.labels.source import SceneSet

_MANY = 0.5
"""Share of labels of one value from which a note is written."""

_FOUND_IN_EMPTY = 0.2
"""Share of the predicted building area in images whose labels have no building, from which those
are in doubt. Most images of farmland rightly have none, and then little is predicted in them."""

_MAX_SIDE_PX = 2000
"""Side of a scene above which its extent is counted in a part of the rows and columns."""

_PARTIAL = 0.8
"""Share of the imagery that the footprints cover at most where they may be incomplete."""

_BEYOND = 0.2
"""Share of the predicted building area that lies beyond the footprints at least, likewise."""

_AS_DENSE = 0.25
"""Density of predictions beyond the footprints at least, in shares of that among them. A village
that is labelled as a whole has some false positives in the fields around it, but no second town."""

_RECALL, _PRECISION = 0.8, 0.5
"""Recall at least, and precision at most, of area where only some buildings may be labelled."""

_LAYERS = ("footprints", "tiles")
"""Kinds of data whose labels are a layer, which may end within the images."""


class LabelDoubts:
    """Counts of the labels of a set and of predictions for it."""

    def __init__(self, source: SceneSet) -> None:
        self._is_layer = source.kind in _LAYERS
        self._remedy = ""
        if source.kind == "folder" and source.building_class > 1:
            # Masks of 0 and 1 then have another class at 1.
            ground, building = source.classes[0], source.classes[source.building_class]
            self._remedy = (
                f" If 1 is {building} in masks of 0 and 1: --set labels.values.{building}=1 --set "
                f"labels.values.{ground}=0."
            )
        self._scenes = self._empty = self._full = 0
        self._labelled = self._hit = self._found = self._found_in_empty = 0
        self._pixels: np.ndarray[tuple[int], np.dtype[np.int64]] = np.zeros(4, np.int64)

    def add(self, labelled: BoolArray, predicted: BoolArray, valid: BoolArray) -> None:
        """Count one scene.

        Args:
            labelled, predicted: (y, x) masks of buildings.
            valid: (y, x) pixels that both sides know; labels end at the edge of an area.
        """
        built, known = int((labelled & valid).sum()), int(valid.sum())
        self._scenes += known > 0
        self._empty += known > 0 and not built
        self._full += 0 < known == built
        predicted_px = int((predicted & valid).sum())
        self._labelled += built
        self._hit += int((predicted & labelled & valid).sum())
        self._found += predicted_px
        self._found_in_empty += 0 if built else predicted_px
        if self._is_layer:
            self._add_extent(labelled, predicted, valid)

    def _add_extent(self, labelled: BoolArray, predicted: BoolArray, valid: BoolArray) -> None:
        # A large scene would take seconds and hundreds of megabytes; the shares of area need not be
        # exact.
        step = max(1, -(-max(labelled.shape) // _MAX_SIDE_PX))
        labelled, predicted, valid = (one[::step, ::step] for one in (labelled, predicted, valid))
        inside = _extent(labelled & valid) & valid
        found = predicted & valid
        both = [inside.sum(), valid.sum(), (found & inside).sum(), found.sum()]
        # Each counted pixel stands for a square of them, beside the scenes that are counted whole.
        self._pixels += np.array(both, np.int64) * step**2

    def notes(self) -> tuple[str, ...]:
        """Return the notes of all scenes, none of which names a single file."""
        values, extent = self._values_note(), self._extent_note()
        few = "" if values or extent else self._few_note()
        return tuple(note for note in (values, extent, few) if note)

    def _values_note(self) -> str:
        scenes = plural(self._scenes, "image")
        if self._scenes and self._empty == self._scenes:
            looked = "rooftrace inspect shows what they hold"
            return f"No label has a building ({scenes}); {looked}.{self._remedy}"
        is_doubted = self._found_in_empty >= max(1, _FOUND_IN_EMPTY * self._found)
        empty = self._empty if is_doubted else 0
        for count, what in ((empty, "no building"), (self._full, "nothing but building")):
            if count and count >= _MANY * self._scenes:
                return (
                    f"{count} of {self._scenes} labels have {what}; rooftrace inspect shows them."
                )
        return ""

    def _extent_note(self) -> str:
        inside, known, found_inside, found = self._pixels.tolist()
        beyond = found - found_inside
        if not inside or inside > _PARTIAL * known or beyond < _BEYOND * found:
            return ""
        if beyond / (known - inside) < _AS_DENSE * found_inside / inside:
            return ""
        return (
            f"The footprints extend over {inside / known:.0%} of the imagery, but "
            f"{beyond / found:.0%} of the predicted building area lies beyond, where it counts as "
            "wrong. If they are complete in one part only, name that part: --area FILE."
        )

    def _few_note(self) -> str:
        if not self._found or self._hit < _RECALL * max(self._labelled, 1):
            return ""
        if self._hit > _PRECISION * self._found:
            return ""
        covered, unlabelled = self._hit / self._labelled, 1 - self._hit / self._found
        return (
            f"The predictions cover {covered:.0%} of the labelled building area, but "
            f"{unlabelled:.0%} of their own area has no label and counts as wrong. If only some "
            "buildings are labelled, label all of a part, and name that part: --area FILE."
        )


def doubts_of(scored: SetProbabilities, threshold: float) -> tuple[str, ...]:
    """Return the notes on the labels of a set by stored probabilities."""
    doubts = LabelDoubts(scored.source)
    for scene in scored:
        predicted = np.asarray(scene.score) >= level_of(threshold)
        doubts.add(scene.truth, predicted, scene.evaluated)
    return doubts.notes()


def _extent(labelled: BoolArray) -> BoolArray:
    """Return the convex hull of the labelled pixels of a scene as a mask (y, x)."""
    rows = np.flatnonzero(labelled.any(axis=1))
    drawn = np.zeros(labelled.shape, np.uint8)
    if len(rows):
        first = labelled[rows].argmax(axis=1)
        last = labelled.shape[1] - 1 - labelled[rows, ::-1].argmax(axis=1)
        xy = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)
        cv2.fillConvexPoly(drawn, cv2.convexHull(xy.astype(np.int32)), 1)
    return drawn > 0
