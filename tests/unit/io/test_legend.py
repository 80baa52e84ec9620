"""Colours of classes: given colours are kept, and the others can be distinguished by everyone."""

from itertools import combinations

import numpy as np
import pytest

from rooftrace.io.legend import NODATA, Legend, class_colours, filled_colours
from rooftrace.io.picture import FOUND, INVENTED, MISSED, draw_key

# Machado, Oliveira and Fernandes 2009, severity 1: what linear RGB is seen as.
SEEN = {
    "normal": np.eye(3),
    "deuteranope": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],
    ),
    "protanope": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],
    ),
}  # fmt: skip


def cielab(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]],
    )  # fmt: skip
    xyz = (linear @ seen.T).clip(0, 1) @ to_xyz.T / (0.95047, 1, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize(("classes", "minimum"), [(8, 16), (20, 16), (64, 6), (255, 2)])
def test_colours_differ_for_everyone(seen: str, classes: int, minimum: float) -> None:
    """A distance of 2 in CIELAB is just visible side by side; 16 is another colour."""
    lab = cielab(class_colours()[:classes, :3].astype(float), SEEN[seen])
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > minimum


@pytest.mark.parametrize("seen", SEEN)
def test_errors_can_be_distinguished(seen: str) -> None:
    lab = cielab(np.array([FOUND, MISSED, INVENTED], float), SEEN[seen])
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 20


def test_given_colours_are_kept_and_nodata_is_seen_through() -> None:
    table = class_colours(("#000000", "#3c1098"))
    np.testing.assert_array_equal(table[:2, :3], [(0, 0, 0), (0x3C, 0x10, 0x98)])
    np.testing.assert_array_equal(table[2:], class_colours()[2:])
    assert (table[:NODATA, 3] == 255).all()
    assert table[NODATA, 3] == 0
    assert Legend(("land", "building"), ("#000000", "#3c1098")).rgb(1) == (0x3C, 0x10, 0x98)


def test_no_class_takes_the_colour_of_another() -> None:
    own = filled_colours({}, 20)
    assert len(set(own)) == 20
    filled = filled_colours({0: own[3].lower(), 7: own[1]}, 20)
    assert (filled[0], filled[7]) == (own[3], own[1])
    assert len(set(filled)) == 20
    kept = [i for i in range(20) if i not in (0, 1, 3, 7)]
    assert [filled[i] for i in kept] == [own[i] for i in kept]
    assert len(set(filled_colours({i: own[i] for i in range(5, 9)}, 255))) == 255


PAPER, INK = (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize("width", [60, 400, 2000])
def test_every_colour_is_shown_at_any_width(width: int) -> None:
    colours = [tuple(rgb) for rgb in class_colours()[1:20, :3].tolist()]
    entries = [(f"class {index}", colour) for index, colour in enumerate(colours)]
    key = draw_key(entries, width, paper=PAPER, ink=INK)
    assert key.width == width
    shown = {tuple(rgb) for rgb in np.unique(np.asarray(key).reshape(-1, 3), axis=0).tolist()}
    assert set(colours) <= shown
