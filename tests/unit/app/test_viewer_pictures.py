"""The layers of the viewer, decoded again."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from viewer_images import SHAPE, classes_of, kept_of, roofs

from rooftrace.app.viewer import fill_png, outline_colours, outlines, picture_jpeg
from rooftrace.io.legend import CONFIDENCE


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


def read(data: bytes) -> list[tuple[NDArray[np.float64], int]]:
    """Rings in pixels of the picture, and the colour of each; as viewer.js reads them."""
    (count,) = np.frombuffer(data, "<u4", 1)
    lengths = np.frombuffer(data, "<u4", count, 4)
    xy = np.frombuffer(data, "<i2", 2 * lengths.sum(), 4 + 4 * count).reshape(-1, 2) / 16
    colours = np.frombuffer(data, np.uint8, count, 4 + 4 * count + 4 * lengths.sum())
    assert len(data) == 4 + 4 * count + 4 * lengths.sum() + count
    return [*zip(np.split(xy, np.cumsum(lengths)[:-1]), colours.tolist())]


def test_classes_have_their_colours() -> None:
    kept = classes_of()
    fill = decoded(fill_png(kept.scores, kept.prediction))
    red, green, blue = kept.prediction.legend.rgb(2)
    assert (fill == [blue, green, red, 255]).all()
    ((ring, colour),) = read(outlines(kept.scores, kept.prediction))
    assert outline_colours(kept.prediction)[colour] == f"#{red:02x}{green:02x}{blue:02x}"
    assert ring.min(axis=0).tolist() == [0, 0]
    assert ring.max(axis=0).tolist() == [SHAPE[1], SHAPE[0]]


@pytest.mark.parametrize("placed", [True, False])
def test_outlines_lie_around_the_buildings_in_the_colour_of_their_confidence(placed: bool) -> None:
    kept = kept_of(placed=placed)
    (sure, best), (doubtful, low) = read(outlines(kept.scores, kept.prediction))
    assert [sure.min(axis=0).tolist(), sure.max(axis=0).tolist()] == [[10, 10], [40, 30]]
    assert [doubtful.min(axis=0).tolist(), doubtful.max(axis=0).tolist()] == [[60, 50], [80, 70]]
    colours = outline_colours(kept.prediction)
    # A score of 250 / 255, and one of 140 / 255, between 0.3 and 1.
    assert [best, low] == [round((score - 0.3) / 0.7 * 31) for score in (250 / 255, 140 / 255)]
    assert colours[0] == CONFIDENCE[0]
    assert colours[31] == CONFIDENCE[-1]
