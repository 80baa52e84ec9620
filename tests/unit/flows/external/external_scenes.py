"""A small scene of three houses, as many kinds of files."""

import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from raster_files import write_geotiff
from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.rle import encode_runs
from rooftrace.metrics.report import EvalReport

SHAPE = 60, 80
HOUSES = ((5, 5, 25, 20), (40, 10, 70, 30), (10, 35, 30, 55))
"""Left, top, right, bottom in pixels."""

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000)
CRS = "EPSG:32736"


def houses(*which: int) -> NDArray[np.uint8]:
    """(y, x) 1 inside of these houses; default all."""
    mask = np.zeros(SHAPE, np.uint8)
    for index in which or range(len(HOUSES)):
        left, top, right, bottom = HOUSES[index]
        mask[top:bottom, left:right] = 1
    return mask


def write_tiff(
    path: Path,
    data: NDArray[Any],
    place: Affine | None = PLACE,
    crs: str = CRS,
    nodata: float | None = None,
) -> Path:
    """(y, x) or (band, y, x); `place` None: without a georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = data if data.ndim == 3 else data[None]
    nowhere = {"crs": None, "transform": None}
    where = nowhere if place is None else {"transform": place, "crs": crs}
    with warnings.catch_warnings():
        # A raster that lies nowhere is meant to.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        write_geotiff(path, bands, nodata=nodata, **where)
    return path


def write_png(path: Path, mask: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def write_polygons(path: Path, *which: int, crs: str = CRS, **columns: Any) -> Path:
    """The houses on the ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [
        shapely.transform(shapely.box(*HOUSES[i]), lambda xy: np.stack(PLACE @ xy.T, axis=1))
        for i in (which or range(len(HOUSES)))
    ]
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=CRS).to_crs(crs)
    frame.to_file(path, engine="pyogrio")
    return path


def write_table(
    path: Path,
    masks: dict[str, NDArray[np.uint8]],
    order: Any = "row",
    header: str = "img_id,mask_rle",
) -> Path:
    lines = [header, *(f"{name},{encode_runs(mask, order)}" for name, mask in masks.items())]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def judged(
    predictions: Path, truth: Path, options: EvalOptions | None = None, **config: Any
) -> EvalReport:
    """The report of files held against labels."""
    source = SourceConfig(path=str(truth), **config)
    options = options or EvalOptions()
    return run_evaluate([], source, None, options, predictions=[predictions]).first
