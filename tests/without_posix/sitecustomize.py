"""Python as on a system without POSIX: all processes load this that have its folder in PYTHONPATH.

rooftrace cannot import the modules that Windows lacks, processes are spawned, and msvcrt locks
bytes of files as Windows does. Other libraries choose their modules by `sys.platform`, which stays.
"""

import importlib.abc
import multiprocessing
import os
import signal
import subprocess  # noqa: F401  # it knows Windows by msvcrt, which must not be there yet
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
NAMES = {os: ("fork", "forkpty", "nice"), signal: ("SIGHUP", "pthread_sigmask")}


class Missing(importlib.abc.MetaPathFinder):
    """Finds no uvloop, and no module of POSIX for rooftrace."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith("<frozen"):
            frame = frame.f_back
        # `importlib.import_module` stands between.
        callers = {
            one.f_globals.get("__name__", "") for one in (frame, frame and frame.f_back) if one
        }
        ours = any(caller.startswith("rooftrace") for caller in callers)
        if name == "uvloop" or (ours and name in MODULES):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


multiprocessing.set_start_method("spawn")
multiprocessing.get_all_start_methods = lambda: ["spawn"]  # type: ignore[assignment]
for module, names in NAMES.items():
    for name in names:
        delattr(module, name)
for name in MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.modules["msvcrt"] = import_module("msvcrt_locks").Msvcrt()
