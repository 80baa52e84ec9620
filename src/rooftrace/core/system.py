"""What differs between machines: memory, locks, cores, folders, and versions of the software.

This is the only module that imports what some systems lack, or that reads /proc. A system that
lacks a limit or a priority goes without it; results are the same.
"""

import ctypes
import gc
import logging
import math
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal


def _module(name: str) -> Any:
    """Return a module that some systems lack, or None."""
    try:
        return import_module(name)
    except ImportError:
        return None


_fcntl, _msvcrt, _resource = map(_module, ("fcntl", "msvcrt", "resource"))

_IS_WINDOWS = os.name == "nt"

# Memory.


def peak_rss_mb() -> float:
    """Return the peak memory of this process in MB; 0 if the system does not report it."""
    with suppress(OSError):
        # Not `getrusage`: a process that was forked from a larger one starts with its peak.
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    if _resource is not None:
        peak: int = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return 0.0


def limit_memory(nbytes: int, of: Literal["DATA", "AS"]) -> None:
    """Limit the memory of this process and disable core dumps, on Linux.

    Args:
        nbytes: Maximum in bytes.
        of: `DATA` for what the process allocates; `AS` for its address space, of which threads
            reserve much more than they use.
    """
    if sys.platform == "linux" and _resource is not None:
        _resource.setrlimit(getattr(_resource, f"RLIMIT_{of}"), (nbytes, nbytes))
        _resource.setrlimit(_resource.RLIMIT_CORE, (0, 0))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
"""Parameters of glibc's mallopt: https://man7.org/linux/man-pages/man3/mallopt.3.html."""

_ARENAS = "MALLOC_ARENA_MAX"
"""Environment variable from which glibc takes the number of arenas at the start of a process."""

_PRIMITIVES = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"
"""Number of kernels that oneDNN keeps, which OpenVINO and PyTorch use; its default is 1024."""


def limit_arenas() -> None:
    """Limit the arenas of glibc's allocator to one for each core; call it before threads start.

    By default there are up to eight for each core. Each keeps memory that its threads have freed
    and that no other thread gets. Use it only in a process that belongs to rooftrace: processes
    that this one starts have the same limit, by the environment variable `MALLOC_ARENA_MAX`. If
    that is set already, nothing is changed.
    """
    if _ARENAS not in os.environ:
        # In workers of Ray, threads of Ray have made more arenas before a call could limit them.
        os.environ[_ARENAS] = str(granted_cores())
        _set_allocator({_M_ARENA_MAX: granted_cores()})


def limit_kept_memory() -> None:
    """Limit the memory that libraries keep for later; call it before they are loaded.

    By default glibc raises its thresholds up to 64 MB as large buffers are freed. A server with
    many threads then keeps several hundred MB that its buffers have left in fragments, a prediction
    50 MB. oneDNN keeps the kernels of networks that have been released.
    """
    os.environ.setdefault(*_PRIMITIVES)
    _set_allocator({_M_MMAP_THRESHOLD: 2**20, _M_TRIM_THRESHOLD: 8 * 2**20})


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, for the rest of the process.

    Eager PyTorch on a CPU takes and frees the same large buffers in each step. By default glibc
    maps them again each time, and most of the time goes into page faults.
    """
    _set_allocator({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> None:
    """Give the system what glibc has kept of freed memory, such as that of a million polygons."""
    with suppress(OSError, AttributeError, TypeError):  # another system or C library
        ctypes.CDLL(None).malloc_trim(0)


def sleep_while_waiting() -> None:
    """Let threads of OpenMP sleep while they wait; call it before PyTorch is imported.

    By default they spin. Where four busy programs share two cores, a step of training then takes
    five times as long, and five times as much of the processor; alone on a machine, it takes 3 to
    9 % less.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _set_allocator(values: Mapping[int, int]) -> None:
    with suppress(OSError, AttributeError, TypeError):  # another system or C library
        library = ctypes.CDLL(None)
        for parameter, value in values.items():
            library.mallopt(parameter, value)


# Processors and processes.


@cache
def granted_cores() -> int:
    """Return the number of cores that the system grants to this process.

    It may be bound to some cores of the machine, and a container may have a quota of their time.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def processor_fields() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo; nothing on other systems."""
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    return fields


def loader_start_method() -> str | None:
    """Return `fork` where processes may share the memory of their parent; None for the default."""
    return "fork" if sys.platform == "linux" and hasattr(os, "fork") else None


def apart_from_terminal() -> dict[str, Any]:
    """Return arguments of `Popen` for a process that Ctrl-C in the terminal does not reach."""
    if _IS_WINDOWS:
        # Others lack it.
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    return {"start_new_session": True}


def block_interrupts() -> None:
    """Keep Ctrl-C from this thread, and from processes that it starts, if the system can."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def lower_priority(niceness: int, oom_score: int) -> None:
    """Leave processor time, and memory when it is short, to other processes.

    Args:
        niceness: Steps by which the priority is lowered.
        oom_score: Score of at most 1000 by which Linux chooses the process that it ends.
    """
    if hasattr(os, "nice"):
        os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(oom_score), encoding="ascii")


# Files and sockets.

_LOCKED_BYTE = 2**30
"""Byte that Windows locks: no other process may read it, and the file is shorter."""


def take_lock(file: IO[str]) -> None:
    """Lock an open file until it is closed.

    Raises:
        OSError: Another process holds the lock, or the file system has no locks.
    """
    if _fcntl is not None:
        _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    elif _msvcrt is not None:
        os.lseek(file.fileno(), _LOCKED_BYTE, os.SEEK_SET)
        _msvcrt.locking(file.fileno(), _msvcrt.LK_NBLCK, 1)


def is_file_at(file: IO[str], path: Path) -> bool:
    """Return True if an open file is still the one at a path.

    Windows deletes no open file, and reports other numbers for the path than for the file.
    """
    if _fcntl is None:
        return True
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def call_in_forks(function: Callable[[], None]) -> None:
    """Call a function in each process that is forked from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def bind(listening: socket.socket, address: Any) -> None:
    """Bind a socket to an address that a server may have left a moment ago.

    On Windows the option for this would let two servers listen on one port.
    """
    if not _IS_WINDOWS:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)


def user_folder(kind: Literal["cache", "state"]) -> Path:
    """Return the folder of rooftrace in the user's cache or state.

    https://specifications.freedesktop.org/basedir-spec/latest/; on Windows %LOCALAPPDATA%.
    """
    given = os.environ.get(f"XDG_{kind.upper()}_HOME")
    if given is None and _IS_WINDOWS and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "rooftrace" / kind
    default = Path.home() / (".cache" if kind == "cache" else ".local/state")
    return Path(given or default) / "rooftrace"


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
        # Not `platform.platform()`, which starts another program.
        "platform": f"{platform.system()}-{platform.release()}-{platform.machine()}",
    }


def without_telemetry() -> None:
    """Keep OpenVINO and NNCF, where they are not imported yet, from reporting their use to Intel.

    Their package openvino-telemetry sends each import, and NNCF each network, to Google Analytics
    without asking (OpenVINO 2026.4.1, NNCF 3.4.0). Both work without it.
    """
    _hide("openvino_telemetry")


@contextmanager
def only_errors(*names: str | None) -> Iterator[None]:
    """Silence what loggers of libraries say that is no error; None is the root of all loggers."""
    levels = [(logger, logger.level) for logger in map(logging.getLogger, names)]
    for logger, _ in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)


def _hide(*modules: str) -> list[str]:
    """Let the import of modules fail, and return those that were not imported yet."""
    new = [name for name in modules if name not in sys.modules]
    # Python refuses to import what is None here; the type of the dictionary does not know that.
    sys.modules.update(dict.fromkeys(new))  # type: ignore[arg-type]
    return new


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
    # OpenVINO, which is imported later, imports its converter of models, for half of the time.
    _hide("openvino.tools.ovc")
    hidden = _hide(*unwanted)
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        gc.enable()


def importing_further() -> AbstractContextManager[None]:
    """Return `importing` in a process where it was used before; in others, nothing is hidden."""
    return importing() if gc.get_freeze_count() else nullcontext()
