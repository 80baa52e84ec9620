"""Calls of functions on strangers' files, in a child process with limits of time and memory.

A library that reads a stranger's file may loop without end, exhaust the memory or end the process.
The child starts in an empty folder, so that relative paths in a file lead nowhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from rooftrace.core.errors import BundleError, RooftraceError
from rooftrace.core.failures import is_out_of_memory
from rooftrace.core.system import limit_memory
from rooftrace.core.text import first_line

_CODE = "import sys; from rooftrace.core.limited_child import _serve; _serve(*sys.argv[1:])"
_RESULT, _ERROR = b"+", b"-"
"""First byte of what the child writes, before the result or the error as JSON."""

_REMEDY = "Do not use the file if you do not know where it comes from; else get it again."


def run_limited(
    function: Callable[[bytes], bytes],
    data: bytes,
    *,
    source: str,
    seconds: float,
    memory_bytes: int,
) -> bytes:
    """Return what a function makes of some bytes in a child process.

    Args:
        function: Function of a module; the child imports it by its name.
        data: Argument of the function.
        source: Name of the file that the data come from, for messages.
        seconds: Maximum duration in seconds.
        memory_bytes: Maximum memory that the child allocates; it is only limited on Linux.

    Raises:
        BundleError: The child exceeded a limit, or ended before the function returned.
        RooftraceError: The error that the function raised; one of another library is a BundleError.
    """
    names = function.__module__, function.__qualname__, str(memory_bytes)
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            done = subprocess.run(  # noqa: S603  # ourselves
                [sys.executable, "-c", _CODE, *names],
                input=data,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BundleError(
                f"{source} was not loaded and run on one tile within {seconds:g} s.", remedy=_REMEDY
            ) from error
    kind, result = done.stdout[:1], done.stdout[1:]
    if kind == _ERROR:
        raise RooftraceError.from_json(json.loads(result))
    if kind != _RESULT or done.returncode:
        raise BundleError(
            f"{source} ended the process that loaded it, with exit code {done.returncode}.",
            remedy=_REMEDY,
        )
    return result


def _serve(module: str, name: str, memory_bytes: str) -> None:
    """Run a function in the child process, from standard input to standard output."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print on standard output
    limit_memory(int(memory_bytes), "DATA")
    try:
        result = getattr(import_module(module), name)(sys.stdin.buffer.read())
        out.write(_RESULT + result)
    except Exception as error:  # engines raise many types
        reported = error
        if is_out_of_memory(error):
            mib = int(memory_bytes) // 2**20
            reported = BundleError(f"The model needs more than {mib:,} MiB.", remedy=_REMEDY)
        elif not isinstance(error, RooftraceError):
            reported = BundleError(f"The model cannot be run: {first_line(error)}.", remedy=_REMEDY)
        assert isinstance(reported, RooftraceError)
        out.write(_ERROR + json.dumps(reported.to_json()).encode())
    out.close()
