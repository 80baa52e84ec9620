"""The choice of scenes on contact sheets, and their pictures."""

import base64
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from memory_sets import ArrayLabel
from rooftrace.core.types import Scene
from rooftrace.flows.inspect import choose_scenes, draw_scene
from rooftrace.io.georeferenced import ArraySource

from .test_statistics import scene


def decoded(address: str) -> NDArray[np.uint8]:
    kind, _, data = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels[..., ::-1]


def test_emptiest_and_fullest_scenes() -> None:
    facts = [scene(f"{n:02d}", area) for n, area in enumerate([0, 0, 0, 10, 500, 9000, 4000])]
    sheets = choose_scenes(facts, 1, 2)
    assert set(sheets) == {"emptiest", "fullest", "typical"}
    assert set(sheets["emptiest"]) <= {"00", "01", "02"}
    assert list(sheets["fullest"]) == ["05", "06"]
    assert sheets["fullest"]["05"] == "90.0% built up"


def test_the_picture_shows_image_label_and_nodata() -> None:
    image = np.full((3, 232, 232), 90, np.uint8)
    valid = np.ones((232, 232), bool)
    valid[:40] = False
    mask = np.zeros((232, 232), np.uint8)
    mask[100:160, 60:180] = 1
    made = Scene("a", ArraySource(image, valid=valid), ArrayLabel(mask))
    shown = decoded(draw_scene(made, 1)).astype(int)
    assert shown.shape == (232, 232, 3)
    assert np.abs(shown[200, 20] - 90).max() < 12
    red, _, blue = shown[130, 120]
    assert red > blue + 20, "the building is tinted"
    edge = shown[100, 70:170].mean(axis=0)
    assert edge[0] > 150
    assert edge[2] < 110, "its outline is yellow"
    bare = decoded(draw_scene(replace(made, label=None), 1)).astype(int)
    assert np.abs(bare[130, 120] - 90).max() < 12
    assert np.abs(bare[20].std(axis=0)).max() > 4, "nodata is striped"
