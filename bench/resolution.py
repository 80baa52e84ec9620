"""Resolution: the IoU of images at several metres per pixel, as they are and resampled.

Each real scene is averaged to every value of `--gsd`, with its labels. The image is then predicted
as it is, and resampled to every value of `--working`; the model's own choice is not used.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import argument_parser, say, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rooftrace.core.types import Raster
    from rooftrace.predict.predictor import Predictor

_SCENES = ("catanduanes_z20", "kampala_z20", "banepa_z20", "nairobi_z20", "zanzibar_z20")
_GSDS_M = (0.3, 0.4, 0.45, 0.5, 0.6, 0.8, 1.0)
_WORKING_M = (0.4, 0.3, 0.25, 0.2)


def main() -> dict[str, Any]:
    from rooftrace.predict.predictor import load

    options = _options()
    model = load(options.model)
    rows = []
    for place in options.scenes:
        for gsd_m in options.gsd:
            image, truth = averaged(options.data, place, gsd_m)
            working = [gsd_m, *options.working]
            row = {"scene": place, "gsd_m": gsd_m} | compare(model, image, truth, gsd_m, working)
            say(", ".join(f"{key} {value}" for key, value in row.items()))
            rows.append(row)
    return {"model": model.bundle.spec.name, "model_gsd_m": model.bundle.spec.gsd_m, "rows": rows}


def averaged(data: Path, place: str, gsd_m: float) -> tuple[Raster, Any]:
    """Return a scene and its labels, averaged from finer pixels to metres per pixel."""
    import numpy as np
    from rasterio.features import rasterize
    from rasterio.warp import transform_geom

    from rooftrace.core.types import GeoGrid, Raster, Window
    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.io.raster import open_raster
    from rooftrace.io.resample import Resampler, Scaling

    source = open_raster(data / "scenes" / f"{place}.tif")
    grid = source.grid
    assert grid.gsd_yx_m is not None
    step_y, step_x = (round(256 * gsd_m / own) for own in grid.gsd_yx_m)
    scaling = Scaling((step_y, step_x))
    labels = json.loads((data / "oam" / place.split("_")[0] / "labels.geojson").read_text())
    shapes = [transform_geom("OGC:CRS84", grid.crs, one["geometry"]) for one in labels["features"]]
    buildings = rasterize(shapes, grid.shape, transform=grid.transform, dtype="uint8")
    fine = ArraySource((buildings * np.uint8(255))[None])
    whole = Window.whole(scaling.model_shape(grid.shape))
    pixels, valid = Resampler(source, scaling).read(whole)
    inside, _ = Resampler(fine, scaling).read(whole)
    return Raster(pixels, valid, GeoGrid(whole.shape_yx)), inside[0] >= 128


def compare(
    model: Predictor, image: Raster, truth: Any, gsd_m: float, working: Sequence[float]
) -> dict[str, float]:
    """Return the IoU of an image of `gsd_m` with its labels, at each of some working scales."""
    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.predict.options import SceneOptions
    from rooftrace.predict.predictor import Predictor

    source = ArraySource(image.data, image.grid, image.valid)
    found = {}
    for working_m in working:
        # An image may be four times as coarse as `gsd_m`, and is interpolated further.
        coarser_m = max(working_m, gsd_m / 2)
        scales = {"gsd_m": coarser_m, "finest_gsd_m": None, "interpolated_gsd_m": working_m}
        spec = model.bundle.spec.model_copy(update=scales)
        fixed = Predictor(replace(model.bundle, spec=spec), model.engine)
        options = SceneOptions(gsd_m=gsd_m, outputs=("mask",))
        mask = fixed.predict(source, options=options).mask.data == 1
        both, either = mask & truth & image.valid, (mask | truth) & image.valid
        name = "as_it_is" if working_m == gsd_m else f"at_{working_m:g}_m"
        found[name] = round(float(both.sum() / max(1, either.sum())), 4)
    return found


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("data", type=Path, help="folder of the real imagery")
    parser.add_argument("--scenes", nargs="+", default=_SCENES)
    parser.add_argument("--gsd", nargs="+", type=float, default=_GSDS_M)
    parser.add_argument("--working", nargs="+", type=float, default=_WORKING_M)
    return parser.parse_args()


if __name__ == "__main__":
    start(main)
