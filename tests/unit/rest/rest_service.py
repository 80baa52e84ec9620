"""A service whose network is a pixel's brightness, and images that it knows buildings in."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rooftrace.engines.base import PointwiseEngine
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service.limits import Limits
from rooftrace.service.service import Service


class Gate(PointwiseEngine):
    """Waits at each run until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.begun.set()
        assert self.go.wait(60)
        return super().run(batch)


def roofs(seed: int = 0, side: int = 96) -> NDArray[np.uint8]:
    """(y, x, 3) bright rectangles on dark ground."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 30, np.uint8)
    for _ in range(6):
        y, x = rng.integers(4, side - 24, 2)
        image[y : y + 16, x : x + 20] = 220
    return image


def png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def geotiff(
    path: Path,
    crs: str | None = "EPSG:32636",
    transform: Affine | None = None,
) -> bytes:
    pixels = np.moveaxis(roofs(), -1, 0)
    with rasterio.open(
        path, "w", driver="GTiff", height=96, width=96, count=3, dtype="uint8", crs=crs,
        transform=transform or Affine(0.5, 0, 500_000, 0, -0.5, 100_000),
    ) as file:  # fmt: skip
        file.write(pixels)
    return path.read_bytes()


def fake_service(engine: PointwiseEngine | None = None, **limits: Any) -> Service:
    return Service(Predictor(tiny_bundle(), engine or PointwiseEngine()), Limits(**limits))
