"""Results of a scene with two bright roofs, and a click network that finds what is bright."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.errors import PredictError
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.masks import mask_sink
from rooftrace.io.vector_write import write_footprints
from rooftrace.models.spec import CLICK_BANDS
from rooftrace.predict.clicks import ClickModel

GRID = GeoGrid((200, 300), Affine(0.3, 0, 524_000, 0, -0.3, 9_318_000), CRS(32736))
HALL, SHED = (120, 40, 50, 90), (20, 200, 20, 25)
"""Top, left, height and width of bright roofs; the prediction has found only the shed."""

NODATA_FROM = 280
"""First column without an image."""


class ObedientEngine(PointwiseEngine):
    """Bright pixels are building, but not near a negative click; it counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.fails = False

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.calls += 1
        assert batch.shape[1:] == (6, 160, 160)
        if self.fails:
            raise PredictError("The engine is out of order.")
        return np.where(batch[:, 5:] > 0.5, 0, super().run(batch)).astype(np.float32)


def click_model(engine: ObedientEngine) -> ClickModel:
    """Return a click network that an engine runs."""
    bundle, extra = tiny_bundle(), len(CLICK_BANDS)
    update = {
        "bands": ("red", "green", "blue", *CLICK_BANDS), "dtype": "float32",
        "mean": (*bundle.spec.mean[:3], *[0.0] * extra),
        "std": (*bundle.spec.std[:3], *[1.0] * extra), "gsd_m": 0.3, "threshold": 0.5,
    }  # fmt: skip
    return ClickModel(replace(bundle, spec=bundle.spec.model_copy(update=update)), engine)


def roof(place: tuple[int, int, int, int]) -> shapely.Polygon:
    """Return a roof in pixels."""
    top, left, height, width = place
    return shapely.box(left, top, left + width, top + height)


def write_results(folder: Path, *, georeferenced: bool = True) -> None:
    """Write the image beside a folder of results, which have found only the shed."""
    folder.mkdir()
    pixels = np.full((3, *GRID.shape), 20, np.uint8)
    for top, left, height, width in (HALL, SHED):
        pixels[:, top : top + height, left : left + width] = 240
    grid = GRID if georeferenced else GeoGrid(GRID.shape)
    if georeferenced:
        image = folder.parent / "town.tif"
        valid = np.full(GRID.shape, 255, np.uint8)
        valid[:, NODATA_FROM:] = 0
        with rasterio.open(
            image, "w", driver="GTiff", width=300, height=200, count=3, dtype="uint8",
            crs="EPSG:32736", transform=GRID.transform,
        ) as file:  # fmt: skip
            file.write(pixels)
            file.write_mask(valid)
    else:
        image = folder.parent / "town.png"
        cv2.imwrite(str(image), pixels.transpose(1, 2, 0))
    with mask_sink(folder / f"town_mask.{'tif' if georeferenced else 'png'}", grid) as sink:
        sink.write(Window.whole(grid.shape), np.zeros(grid.shape, np.uint8))
    shed = roof(SHED)
    if georeferenced:
        shed = shapely.transform(
            shed, lambda xy: np.stack(GRID.to_world(xy[:, 0], xy[:, 1]), axis=1)
        )
    found = Footprints(np.array([shed]), np.array([0.9], np.float32), np.array([45.0]), grid.crs)
    suffix = "gpkg" if georeferenced else "geojson"
    write_footprints(folder / f"town_buildings.{suffix}", found)
    mask = f"town_mask.{'tif' if georeferenced else 'png'}"
    record: dict[str, Any] = {"outputs": [{"input": str(image), "mask": mask, "gsd_m": 0.3}]}
    (folder / "run.json").write_text(json.dumps(record))
