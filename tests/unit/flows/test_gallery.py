"""Pictures on the page of an evaluation: which scenes, and how they are read."""

import base64
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from memory_sets import ArrayLabel, set_of
from rooftrace.core.types import GeoGrid, Mask, Raster, Scene, Window
from rooftrace.flows.evaluate.evaluation import Gallery, draw_gallery
from rooftrace.flows.evaluate.predictions import Predictions, ScenePrediction
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.legend import Legend
from rooftrace.metrics.image_counts import ImageCounts
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.metrics.report import EvalReport

HEAD_PX = 34


@dataclass
class Watched:
    """An image that records what is read of it."""

    data: NDArray[np.uint8]
    read_px: list[int] = field(default_factory=list)

    @property
    def grid(self) -> GeoGrid:
        return GeoGrid(self.data.shape[1:])

    bands = 3
    dtype = np.dtype(np.uint8)

    def read(self, window: Window | None = None) -> Raster:
        window = window or Window.whole(self.grid.shape)
        self.read_px.append(window.area_px)
        rows, cols = window.slices()
        valid = np.ones(window.shape_yx, bool)
        return Raster(self.data[:, rows, cols], valid, self.grid.crop(window))


def left_half(scene: Scene) -> ScenePrediction:
    """Say of the left half that it is a building."""
    mask = np.zeros(scene.image.grid.shape, np.uint8)
    mask[:, : mask.shape[1] // 2] = 1
    valid = np.ones(mask.shape, bool)
    return ScenePrediction(Mask(mask, valid, scene.image.grid), np.zeros(0, np.object_))


CLASSES = ("land", "building")
HALF = Predictions("half", CLASSES, 1, Legend(CLASSES), {}, left_half)


def report_of(ious: dict[str, float | None]) -> EvalReport:
    """Return a report with the given IoU in hundredths of each scene; None means an empty scene."""
    images = []
    for name, iou in ious.items():
        right = 0 if iou is None else round(100 * iou)
        matrix = np.array([[50, 0], [0 if iou is None else 100 - right, right]])
        images.append(ImageCounts(name, PixelCounts(matrix)))
    return EvalReport(tuple(images), ("land", "building"), 1, {})


def blank(name: str, shape_yx: tuple[int, int] = (40, 60)) -> Scene:
    grid = GeoGrid(shape_yx)
    label = np.zeros(shape_yx, np.uint8)
    label[: shape_yx[0] // 2] = 1
    return Scene(name, BlankSource(grid, name), ArrayLabel(label))


def picture(shown: Gallery, name: str) -> NDArray[np.uint8]:
    """(y, x, 3) RGB."""
    (address,) = (one.address for some in shown.values() for one in some if one.id == name)
    head, _, text = address.partition(",")
    assert head == "data:image/jpeg;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded[..., ::-1], np.uint8)


def test_a_large_scene_is_read_in_parts_and_shown_small() -> None:
    shape = (3100, 2900)
    # Rows and columns show where a pixel was.
    data = np.zeros((3, *shape), np.uint8)
    data[0] = np.linspace(0, 250, shape[0])[:, None]
    data[1] = np.linspace(0, 250, shape[1])
    image = Watched(data)
    scene = Scene("a", image, blank("a", shape).label)
    shown = draw_gallery([HALF], set_of(scene), report_of({"a": 0.5}), 4)
    assert max(image.read_px) <= 1 << 22
    assert sum(image.read_px) == shape[0] * shape[1]
    sheet = picture(shown, "a")
    width = (sheet.shape[1] + 8) // 4 - 8
    assert max(sheet.shape[0] - HEAD_PX, width) == 360
    panel = sheet[HEAD_PX:, :width].astype(float)
    panel[..., 0] -= np.linspace(0, 250, panel.shape[0])[:, None]
    panel[..., 1] -= np.linspace(0, 250, panel.shape[1])
    # JPEG is off in the blocks beside the white around.
    assert np.abs(panel[20:-20, 20:-20, :2]).max() < 8
