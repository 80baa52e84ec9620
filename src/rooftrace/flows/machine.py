"""What this process runs on and with, for records."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from rooftrace.core.versions import installed

__all__ = ["peak_rss_mb", "versions"]

_RECORDED = (
    "rooftrace", "numpy", "openvino", "onnxruntime", "rasterio", "shapely", "pyproj", "pyogrio",
    "opencv-python-headless", "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """What a prediction's numbers may depend on: packages, GDAL, Python, platform."""
    import rasterio

    return installed(_RECORDED) | {
        "gdal": rasterio.__gdal_version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def peak_rss_mb() -> float:
    """The most memory that this process has held, in MB; 0 where the system does not say."""
    try:
        # Not `getrusage`: a process that was forked from a larger one starts with that one's peak.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
