"""A service whose network returns the brightness of a pixel, and images with bright roofs."""

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from affine import Affine
from fastapi import APIRouter, FastAPI
from numpy.typing import NDArray

from raster_files import write_geotiff
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.rest.problems import install_problems
from rooftrace.service.decode import Limits
from rooftrace.service.service import Service


class Gate(PointwiseEngine):
    """An engine that waits at each run until the test opens it."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()
        if is_open:
            self.go.set()

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self.begun.set()
        assert self.go.wait(60)
        return super().run(batch)


def roofs(seed: int = 0, side: int = 96) -> NDArray[np.uint8]:
    """Return an image (y, x, 3) with bright rectangles on a dark background."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), 30, np.uint8)
    for _ in range(6):
        y, x = rng.integers(4, side - 24, 2)
        image[y : y + 16, x : x + 20] = 220
    return image


def png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def geotiff(path: Path, crs: str | None = "EPSG:32636", transform: Affine | None = None) -> bytes:
    pixels = np.moveaxis(roofs(), -1, 0)
    write_geotiff(
        path, pixels, crs=crs, transform=transform or Affine(0.5, 0, 500_000, 0, -0.5, 100_000)
    )
    return path.read_bytes()


def fake_service(engine: PointwiseEngine | None = None, **limits: Any) -> Service:
    return Service(Predictor(tiny_bundle(), engine or PointwiseEngine()), Limits(**limits))


def app_with(*routers: APIRouter) -> FastAPI:
    """Return an application of these routers, whose errors are problems."""
    app = FastAPI()
    install_problems(app)
    for router in routers:
        app.include_router(router)
    return app
