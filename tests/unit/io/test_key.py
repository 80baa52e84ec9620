"""A key shows every colour, in as many rows as it takes."""

from __future__ import annotations

import numpy as np
import pytest

from rooftrace.io.legend import class_colours
from rooftrace.io.picture import draw_key

PAPER, INK = (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize("width", [60, 400, 2000])
def test_every_colour_is_shown_at_any_width(width: int) -> None:
    colours = [tuple(rgb) for rgb in class_colours()[1:20, :3].tolist()]
    entries = [(f"class {index}", colour) for index, colour in enumerate(colours)]
    key = draw_key(entries, width, paper=PAPER, ink=INK)
    assert key.width == width
    shown = {tuple(rgb) for rgb in np.unique(np.asarray(key).reshape(-1, 3), axis=0).tolist()}
    assert set(colours) <= shown
