"""Versions of the installed software, the imports and memory of this process, the user's cache."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from rooftrace.core.parallel import core_count

_SAME = {
    "onnxruntime": ("onnxruntime-gpu",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless"),
}
"""Other distributions of the same package."""


def version_of(package: str) -> str | None:
    """Return the installed version of a distribution, or None if it is not installed.

    Another distribution of the same package counts, such as that of ONNX Runtime for GPUs.
    """
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


def peak_rss_mb() -> float:
    """Return the peak memory of this process in MB; 0 if the system does not report it."""
    try:
        # Not `getrusage`: a process that was forked from a larger one starts with its peak.
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


def user_cache() -> Path:
    """Return the folder of rooftrace in the user's cache.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rooftrace"


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


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt: https://man7.org/linux/man-pages/man3/mallopt.3.html."""


_ARENAS = "MALLOC_ARENA_MAX"
"""Environment variable from which glibc takes the number of arenas at the start of a process."""


def limit_arenas() -> None:
    """Limit the arenas of glibc's allocator to one for each core; call it before threads start.

    By default there are up to eight for each core. Each keeps memory that its threads have freed
    and that no other thread gets. Use it only in a process that belongs to rooftrace: processes
    that this one starts have the same limit, by the environment variable `MALLOC_ARENA_MAX`. If
    that is set already, nothing is changed.
    """
    if _ARENAS not in os.environ:
        # In workers of Ray, threads of Ray have made more arenas before a call could limit them.
        os.environ[_ARENAS] = str(core_count())
        _set_allocator({_M_ARENA_MAX: core_count()})


_PRIMITIVES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
"""Number of kernels that oneDNN keeps, which OpenVINO and PyTorch use; its default is 1024."""


def limit_kept_memory() -> None:
    """Limit the memory that libraries keep for later; call it before they are loaded.

    By default glibc raises its thresholds up to 64 MB as large buffers are freed. A server with
    many threads then keeps several hundred MB that its buffers have left in fragments. oneDNN keeps
    the kernels of networks that have been released.
    """
    os.environ.setdefault(*_PRIMITIVES)
    _set_allocator({_M_MMAP_THRESHOLD: 2**20, _M_TRIM_THRESHOLD: 8 * 2**20})


def _set_allocator(values: Mapping[int, int]) -> None:
    with suppress(OSError, AttributeError, TypeError):  # another system or C library
        library = ctypes.CDLL(None)
        for parameter, value in values.items():
            library.mallopt(parameter, value)
