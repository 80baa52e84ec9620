"""Find sets of two classes in which transparency or a nodata value hides the background.

Drawing programs save buildings on a transparent background. Read literally, such masks leave the
background out of loss and metrics, and a model learns that everything is a building.
"""

from __future__ import annotations

import numpy as np

from rooftrace.core.errors import LabelError
from rooftrace.core.types import Window
from rooftrace.labels.source import SceneSet

HIDDEN_DETAIL = (
    "Transparency or a nodata value probably hides the background. A model would learn that "
    "everything is a building."
)
HIDDEN_REMEDY = "Save the masks without transparency, with the background in its own value."

_HIDDEN = 0.05
"""Mean unknown share of labels from which a background that never occurs is taken as hidden."""

_ROWS = 1024
"""Number of rows of a label that are examined at a time."""


def hides_background(built_px: int, known_px: int, unknown_share: float) -> bool:
    """Return whether the labels of a set of two classes hide the background.

    Args:
        built_px: Pixels of the class building in all labels.
        known_px: Pixels of both classes.
        unknown_share: Mean share of an image's valid pixels that its label leaves unknown.
    """
    return 0 < built_px == known_px and unknown_share >= _HIDDEN


def describe_hidden(unknown_share: float) -> str:
    """Return what was found in labels that hide the background, as a clause."""
    return f"All known pixels are labelled as building, and {100 * unknown_share:.0f} % are unknown"


def check_background(source: SceneSet) -> None:
    """Refuse a set whose labels hide the background; reading ends at the first background pixel.

    Raises:
        LabelError: No label has a known pixel of the background, and too many are unknown.
        DataError: A label or an image cannot be read.
    """
    if len(source.classes) != 2:
        return
    built_px, unknown = 0, []
    for scene in source:
        assert scene.label is not None
        known_px = image_px = 0
        for window in Window.whole(scene.image.grid.shape).strips(_ROWS):
            mask = scene.label.read(window)
            if (mask.valid & (mask.data != source.building_class)).any():
                return
            shown = scene.image.read(window).valid
            image_px += int(np.count_nonzero(shown))
            known_px += int(np.count_nonzero(mask.valid & shown))
        built_px += known_px
        unknown.append(1 - known_px / image_px if image_px else 0.0)
    share = float(np.mean(unknown)) if unknown else 0.0
    if hides_background(built_px, built_px, share):
        raise LabelError(
            f"{source.name}: {describe_hidden(share)}. {HIDDEN_DETAIL}", remedy=HIDDEN_REMEDY
        )
