"""Versions of the installed software, and the imports of this process."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

_SAME = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless"),
}
"""Other distributions of the same package."""


@cache
def version_of(package: str) -> str | None:
    """Return the installed version of a distribution, or None if it is not installed.

    Another distribution of the same package counts, such as that of ONNX Runtime for GPUs.
    """
    # It is slow to import, and the help needs none of it.
    from importlib import metadata

    for name in (package, *_SAME.get(package, ())):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions by name of those packages that are installed."""
    return {name: version for name in packages if (version := version_of(name)) is not None}


_RESULT_PACKAGES = (
    "rooftrace", "numpy", "openvino", "onnxruntime", "rasterio", "shapely", "pyproj", "pyogrio",
    "pillow",
)  # fmt: skip


def result_versions() -> dict[str, str]:
    """Return the versions that must agree where parts of one result are made: packages and GDAL."""
    import cv2
    import rasterio

    # Several distributions contain OpenCV.
    return installed_versions(_RESULT_PACKAGES) | {
        "opencv": cv2.__version__,
        "gdal": rasterio.__gdal_version__,
    }


def versions() -> dict[str, str]:
    """Return the versions on which results may depend: packages, GDAL, Python, platform."""
    return result_versions() | {
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


_COLLECT_AFTER = 50_000
"""Number of new objects after which Python looks for unreachable cycles; its default is 700. Arrays
and polygons are in no cycles, so that the default costs a twentieth of the time of a prediction."""


_UNWANTED = ("boto3", "geopandas", "pandas", "pyarrow")
"""Packages that libraries import for functions that are not used: rasterio asks boto3 for
credentials of S3, which are read in another way; pyogrio imports the other three."""


@contextmanager
def importing(unwanted: Sequence[str] = _UNWANTED) -> Iterator[None]:
    """Import the modules of a process faster, while the block runs at its start.

    Python does not look for unreachable objects among those that modules define, neither now nor
    later. Use it only in a process that belongs to rooftrace.

    Args:
        unwanted: Packages that are hidden in the block, unless they are already imported.
    """
    # Pydantic looks for plugins in the metadata of all installed packages.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # OpenVINO, which is imported later, imports its converter of models, and with it requests and
    # a client of telemetry.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
    hidden = [name for name in unwanted if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        gc.enable()
