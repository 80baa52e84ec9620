"""Doubts about labels that lower figures: empty masks, and labels of some of the buildings."""

import numpy as np

from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray
from rooftrace.flows.labelled_predictions import SetProbabilities, level_of

_MANY = 0.5
"""Share of labels of one value from which a note is written."""

_FOUND_IN_EMPTY = 0.2
"""Share of the predicted building area in images whose labels have no building, from which those
are in doubt. Most images of farmland rightly have none, and then little is predicted in them."""

_RECALL, _PRECISION = 0.8, 0.5
"""Recall at least, and precision at most, of area where only some buildings may be labelled."""


class LabelDoubts:
    """Counts of the labels of a set and of predictions for it."""

    def __init__(self) -> None:
        self._scenes = self._empty = self._full = 0
        self._labelled = self._hit = self._found = self._found_in_empty = 0

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

    def notes(self) -> tuple[str, ...]:
        """Return the notes of all scenes, none of which names a single file."""
        note = self._values_note() or self._few_note()
        return (note,) if note else ()

    def _values_note(self) -> str:
        scenes = plural(self._scenes, "image")
        if self._scenes and self._empty == self._scenes:
            return f"No label has a building ({scenes}); rooftrace inspect shows what they hold."
        is_doubted = self._found_in_empty >= max(1, _FOUND_IN_EMPTY * self._found)
        empty = self._empty if is_doubted else 0
        for count, what in ((empty, "no building"), (self._full, "nothing but building")):
            if count and count >= _MANY * self._scenes:
                return (
                    f"{count} of {self._scenes} labels have {what}; rooftrace inspect shows them."
                )
        return ""

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
    doubts = LabelDoubts()
    for scene in scored:
        predicted = np.asarray(scene.score) >= level_of(threshold)
        doubts.add(scene.truth, predicted, scene.evaluated)
    return doubts.notes()
