"""Overlaps are found for any part of a scene, and other ground gives none."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.audit.duplicates import NO_HASH
from rooftrace.audit.keypoints import Keypoints, detect_keypoints, match_scenes, shows_overlaps
from rooftrace.core.types import Scene, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster
from town import demo_scene_path

GSD_M = 0.3
LOOK_M = 0.6
Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def image() -> Image:
    """A quarter of the demo scene: 1024 × 1024 pixels of 0.3 m."""
    return open_raster(demo_scene_path()).read(Window(0, 0, 1024, 1024)).data


@pytest.fixture(scope="module")
def other() -> Image:
    return open_raster(demo_scene_path()).read(Window(1024, 1024, 1024, 1024)).data


def looked(
    image: NDArray[np.generic], gsd_m: float | None = GSD_M, valid: NDArray[np.bool_] | None = None
) -> Keypoints:
    source = ArraySource(np.ascontiguousarray(image), valid=valid)
    return detect_keypoints(Scene("x", source, gsd_m=gsd_m), LOOK_M)


def piece(image: Image, row: int, col: int, side: int = 300) -> Image:
    return image[:, row : row + side, col : col + side]


def jpeg(image: Image) -> Image:
    rgb = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    coded = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.moveaxis(np.asarray(cv2.imdecode(coded, 1), np.uint8), -1, 0)


def lighter(image: Image) -> Image:
    return np.clip(image * 1.15 + 10, 0, 255).astype(np.uint8)


@pytest.mark.campaign
@pytest.mark.parametrize("change", [lambda a: a, jpeg, lighter])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (301, 477), (724, 13), (555, 724)])
def test_a_part_is_recognised(
    image: Image, other: Image, row: int, col: int, change: Callable[[Image], Image]
) -> None:
    found = match_scenes([looked(change(piece(image, row, col)))], [looked(other), looked(image)])
    assert [(one.first, one.second) for one in found] == [(0, 1)]
    assert found[0].points >= 3
    assert found[0].share > 0.4


def test_other_ground_is_not_recognised(image: Image, other: Image) -> None:
    pieces = [looked(piece(other, r, c)) for r in (0, 300, 600) for c in (0, 300, 600)]
    assert all(shows_overlaps(one, 72) for one in pieces)
    assert match_scenes(pieces, [looked(image)]) == []


def test_a_copy_too_small_for_keypoints_is_recognised_without_metres(image: Image) -> None:
    small = piece(image, 301, 477, 60)
    big = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    assert not shows_overlaps(looked(small), 0)
    (found,) = match_scenes(
        [looked(big, None)], [looked(piece(image, 700, 700, 60)), looked(small)]
    )
    assert (found.second, found.points) == (1, 0)
    assert found.share == 1 - found.bits / 64 >= 60 / 64


def test_a_scene_without_detail_matches_no_other() -> None:
    flat = looked(np.full((3, 300, 300), 90, np.uint8))
    empty = looked(np.zeros((3, 300, 300), np.uint8), valid=np.zeros((300, 300), bool))
    assert len(flat) == len(empty) == 0
    assert flat.whole == empty.whole == NO_HASH
    assert match_scenes([flat, empty], [flat, empty]) == []
    assert match_scenes([], [flat]) == match_scenes([flat], []) == []
