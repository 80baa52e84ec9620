"""Panels side by side: unknown pixels, and colours that everyone can distinguish."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from rooftrace.core.types import GeoGrid, Mask
from rooftrace.io.legend import Legend
from rooftrace.io.side_by_side import FOUND, INVENTED, MISSED, side_by_side

SHAPE = (300, 400)
LEGEND = Legend(("land", "building"))

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


def mask_of(data: np.ndarray, valid: np.ndarray | None = None) -> Mask:
    known = np.ones(SHAPE, bool) if valid is None else valid
    return Mask(data.astype(np.uint8), known, GeoGrid(SHAPE))


def test_what_the_prediction_does_not_know_is_grey_in_it_alone() -> None:
    valid = np.ones(SHAPE, bool)
    valid[:, :100] = False
    data = np.where(valid, 0, 255)
    pixels = np.full((3, *SHAPE), 120, np.uint8)
    zeros = np.zeros(SHAPE)
    sheet = side_by_side(pixels, mask_of(zeros), mask_of(data, valid), "", LEGEND)
    _, truth, predicted, errors = (sheet[34:, n * 408 :][:, :400] for n in range(4))
    assert (truth == 120).all()
    for panel in (predicted, errors):
        assert (panel[:, :100] == 70).all()
        assert (panel[:, 100:] == 120).all()


def test_without_an_image_there_are_three_panels() -> None:
    zeros = np.zeros(SHAPE)
    sheet = side_by_side(None, mask_of(zeros), mask_of(zeros), "", LEGEND)
    assert sheet.shape == (34 + 300, 3 * 400 + 2 * 8, 3)
    assert (sheet[34:, :400] == 205).all()


@pytest.mark.parametrize("seen", SEEN)
def test_errors_can_be_distinguished(seen: str) -> None:
    rgb = np.array([FOUND, MISSED, INVENTED]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    looks = (linear @ SEEN[seen].T).clip(0, 1).astype(np.float32)
    lab = cv2.cvtColor(looks[None], cv2.COLOR_LRGB2Lab)[0]
    # A distance of 2 is just visible side by side; these are a few pixels of a picture.
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 20
