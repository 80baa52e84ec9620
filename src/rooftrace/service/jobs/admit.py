"""What is looked at before an upload becomes a job: what fails for sure is refused at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from pyproj import CRS

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.types import GeoGrid
from rooftrace.io.memory import ArraySource
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import plan_scene
from rooftrace.service.limits import Limits

__all__ = ["CHILD", "admit"]

CHILD = (sys.executable, "-m", "rooftrace.service.jobs.child")

_REMEDY = "Open it with another program and save it anew as a GeoTIFF."


def admit(
    path: Path, name: str, options: SceneOptions, predictor: Predictor, limits: Limits
) -> tuple[Path, int]:
    """Check an upload's header against the limits and the model.

    The header is read in a process of its own. The file gets the ending that its content has.

    Args:
        path: of the upload.
        name: what messages call it.
        options: what was chosen.
        predictor: that is going to predict it.
        limits: `job_pixels`, `decode_seconds` and `decode_bytes` count.

    Returns:
        The upload's new path, and its pixels.

    Raises:
        DataError: it is no image that is taken, damaged, or its values are of another type.
        TooLargeError: more pixels than the limit.
        ConfigError, BandMismatch, GsdMismatch: it does not fit the model, or the options do not.
    """
    predictor.threshold_for(options.threshold)
    told = _look(path, name, limits)
    rows, cols = told["shape"]
    bands, dtype = told["bands"], np.dtype(told["dtype"])
    crs = None if told["crs"] is None else CRS.from_wkt(told["crs"])
    # As large as the image, but of one pixel in memory.
    pixels = np.broadcast_to(np.zeros((), dtype), (bands, rows, cols))
    valid = np.broadcast_to(np.True_, (rows, cols))
    grid = GeoGrid((rows, cols), Affine(*told["transform"]), crs)
    source = ArraySource(pixels, grid, valid, name)
    plan_scene(source, predictor.bundle.spec, gsd_m=options.gsd_m, scale=options.scale)
    return path.rename(path.with_name(f"scene{told['ending']}")), rows * cols


def _look(path: Path, name: str, limits: Limits) -> dict[str, Any]:
    order = {
        "task": "look",
        "path": str(path),
        "name": name,
        "pixels": limits.job_pixels,
        "memory_bytes": limits.decode_bytes,
    }
    try:
        done = subprocess.run(  # noqa: S603  # ourselves
            CHILD,
            input=json.dumps(order).encode() + b"\n",
            stdout=subprocess.PIPE,
            timeout=limits.decode_seconds,
            check=False,
        )
        told: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"The header of {name} took longer than {limits.decode_seconds:g} s to read.",
            remedy=_REMEDY,
        ) from error
    except ValueError as error:
        raise DataError(
            f"The header of {name} cannot be read: the process that tried ended with the code "
            f"{done.returncode}.",
            remedy=_REMEDY,
        ) from error
    if "error" in told:
        raise RooftraceError.from_json(told["error"])
    return told
