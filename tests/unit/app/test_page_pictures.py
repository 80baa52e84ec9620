"""The layers of the viewer, decoded again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from page_images import SHAPE, classes_of, kept_of, roofs

from rooftrace.app.page.pictures import (
    RAMP,
    fill_png,
    outlines_png,
    picture_jpeg,
    ramp_colour,
    thumbnail,
)


def decoded(data: bytes) -> NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_picture_is_the_image() -> None:
    picture = decoded(picture_jpeg(kept_of().scores))[..., ::-1]
    assert picture.shape == (*SHAPE, 3)
    assert np.abs(picture.astype(int) - np.moveaxis(roofs(), 0, -1)).mean() < 2


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.6, 0.9])
def test_the_browser_fills_what_the_mask_holds(threshold: float) -> None:
    valid = np.ones(SHAPE, dtype=bool)
    valid[:, 25:35] = False
    kept = kept_of(valid=valid)
    score = decoded(fill_png(kept.scores, kept.prediction))
    # As viewer.js has it.
    filled = score >= threshold * 255
    np.testing.assert_array_equal(filled, kept.scores.redecide(threshold).mask.data == 1)


def test_classes_have_their_colours() -> None:
    kept = classes_of()
    fill = decoded(fill_png(kept.scores, kept.prediction))
    red, green, blue = kept.prediction.legend.rgb(2)
    assert (fill == [blue, green, red, 255]).all()
    outlines = decoded(outlines_png(kept.scores, kept.prediction))
    seen = outlines[..., 3] > 0
    assert seen[:2].all()
    assert not seen[5:-5, 5:-5].any()
    assert (outlines[seen][:, :3] == [blue, green, red]).all()


def test_outlines_lie_around_the_buildings_in_the_colour_of_their_confidence() -> None:
    kept = kept_of()
    outlines = decoded(outlines_png(kept.scores, kept.prediction))
    seen = outlines[..., 3] > 0
    near = cv2.dilate((roofs()[0] > 100).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert seen.any()
    assert not (seen & ~near).any()
    assert not seen[16:24, 18:32].any()
    sure, doubtful = (
        outlines[rows][seen[rows]][:, :3].mean(axis=0) for rows in (slice(0, 40), slice(40, 80))
    )
    # Blue, green, red: the sure one is blue, the other is not.
    assert sure[0] > sure[2] + 100
    assert doubtful[2] > sure[2] + 50


def test_no_outlines_are_no_picture() -> None:
    kept = kept_of()
    none = decoded(outlines_png(kept.scores, kept.scores.redecide(1.0)))
    assert none.shape == (*SHAPE, 4)
    assert not none.any()


def test_the_ramp_goes_from_end_to_end() -> None:
    ends = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (ramp_colour(0), ramp_colour(1))]
    assert ends == [RAMP[0], RAMP[-1]]


def test_a_thumbnail_is_small_and_shows_buildings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rooftrace.app.page.pictures._THUMB_PX", 50)
    kept = kept_of()
    small = thumbnail(kept.scores, kept.prediction)
    assert small.shape == (40, 50, 3)
    red, _, blue = small[10, 12].astype(int)
    # White roof under a yellow fill.
    assert red > blue + 30
