"""The command rooftrace, run as a process of its own. This module imports nothing of QGIS."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

MINIMUM_VERSION = "0.2.0"
"""Oldest rooftrace whose options and results this plugin knows."""

SETTING = "Settings > Options > Processing > Providers > rooftrace"
INSTALL = (
    "Press “Set up…” in the panel Rooftrace, which installs it in an environment of its own. Or "
    "install it yourself (Python 3.11 or newer: pip install rooftrace), and enter the path of the "
    f"command under {SETTING}."
)

_HIDDEN = (
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB",
    "PROJ_DATA",
)  # fmt: skip
"""Variables that QGIS sets for its own Python, GDAL and PROJ, and that break others."""

_STOP_S, _STOP_AGAIN_S = 30.0, 5.0
"""Seconds for a canceled command to stop after the first Ctrl-C and the second, the last before it
is killed."""

_TAIL = 15
"""Number of last lines of the log in the message for a command that ended without an answer."""

_WINDOWS = os.name == "nt"


class RooftraceProblem(Exception):
    """A reason why there is no result, in words for the user."""


class Canceled(Exception):
    """The user has canceled the work."""


class Progress(NamedTuple):
    """Progress of a command.

    Args:
        step: Name of the step.
        share: Share that is done, 0 to 1; None if it is unknown.
        text: Amount and rate in words.
    """

    step: str
    share: float | None
    text: str


def split_options(text: str, *, is_windows: bool = _WINDOWS) -> list[str]:
    """Return the options in a text as a terminal divides them; Windows has paths with backslashes.

    Raises:
        ValueError: A quotation mark is not closed.
    """
    words = shlex.shlex(text, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, ""
    if is_windows:
        words.escape = ""
    return list(words)


def parse_progress(line: str) -> Progress | None:
    """Return the progress in a line of the log; None for any other line."""
    if not line.startswith('{"progress"'):
        return None
    try:
        record = json.loads(line)["progress"]
        share = record["share"]
        return Progress(
            str(record["step"]), None if share is None else float(share), str(record["text"])
        )
    except (KeyError, TypeError, ValueError):
        return None


def find_command(setting: str, own: Path | None = None) -> str:
    """Return the path of the command.

    Args:
        setting: Path of the setting, which comes first; empty for none.
        own: Command of the environment that the plugin made; else PATH is searched.

    Raises:
        RooftraceProblem: The command is missing.
    """
    found = shutil.which(setting or str(own or "rooftrace"))
    if found is not None:
        return found
    if setting:
        reason = "is a folder" if Path(setting).is_dir() else "is missing or cannot be run"
        raise RooftraceProblem(
            f"The command rooftrace is set to {setting}, which {reason}. "
            f"Correct the path under {SETTING}, or leave it empty."
        )
    raise RooftraceProblem(f"rooftrace is not installed yet. {INSTALL}")


_checked: dict[tuple[str, float], str] = {}
"""Versions of the commands that were checked, by path and time of the last change."""


def check_version(command: str) -> str:
    """Return the version of a command.

    Raises:
        RooftraceProblem: The command is no rooftrace, does not start, or is too old.
    """
    key = (command, Path(command).stat().st_mtime)
    if key not in _checked:
        code, out, lines = run_process([command, "--version"])
        version = out.strip()
        if code != 0 or re.fullmatch(r"\d+(\.\d+)+\S*", version) is None:
            raise RooftraceProblem(
                f"{command} is not a rooftrace that works: `{command} --version` ended with "
                f"{_code(code)} and printed {version or 'nothing'!r}.\n" + _tail(lines) + INSTALL
            )
        if _numbers(version) < _numbers(MINIMUM_VERSION):
            raise RooftraceProblem(
                f"{command} has version {version}; this plugin needs {MINIMUM_VERSION} or newer. "
                "Press “Set up…” in the panel Rooftrace, or run pip install --upgrade rooftrace in "
                "its environment."
            )
        _checked[key] = version
    return _checked[key]


def run_command(
    command: Sequence[str],
    *,
    is_canceled: Callable[[], bool],
    on_progress: Callable[[Progress], None],
    on_line: Callable[[str], None],
    variables: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run a command with `--json` to its end and return its answer.

    Args:
        command: Path of rooftrace and its arguments, without `--json`.
        is_canceled: Function that returns True when the user has canceled.
        on_progress: Function that receives each progress.
        on_line: Function that receives each other line of the log.
        variables: Further variables of its environment, such as those of a proxy.

    Raises:
        Canceled: The user has canceled, and the command has stopped.
        RooftraceProblem: The command has failed.
    """

    def divide(line: str) -> None:
        progress = parse_progress(line)
        if progress is None:
            on_line(line)
        else:
            on_progress(progress)

    code, out, lines = run_process([*command, "--json"], is_canceled, divide, variables)
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if code == 0 and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        raise RooftraceProblem(reason_of(error))
    why = f"rooftrace ended with {_code(code)} and without an answer."
    if code == -9:
        why += " The system has ended it, probably for lack of memory."
    raise RooftraceProblem(f"{why}\n{_tail(lines)}".strip())


def reason_of(error: Mapping[str, Any]) -> str:
    """Return the message and the remedy of an error of rooftrace."""
    remedy = error.get("remedy") or ""
    if error.get("type") == "MissingExtraError":
        remedy = (
            "Press “Set up…” in the panel Rooftrace, choose what is missing, and install again."
        )
    return f"{error.get('message', '')} {remedy}".strip()


def start_process(
    command: Sequence[str], variables: Mapping[str, str], *, is_merged: bool = False
) -> subprocess.Popen[str]:
    """Start a command in a group of its own, without the variables of QGIS.

    Args:
        command: Program and arguments.
        variables: Further variables of its environment.
        is_merged: Whether stderr goes to stdout.

    Raises:
        RooftraceProblem: It cannot be started.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    environment.update(
        variables, ROOFTRACE_PROGRESS="json", PYTHONIOENCODING="utf-8", PYTHONUTF8="1"
    )
    own_group: dict[str, Any] = {"start_new_session": True}
    if _WINDOWS:
        flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
        own_group = {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}
    try:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if is_merged else subprocess.PIPE, encoding="utf-8",
            errors="replace", **own_group,
        )  # fmt: skip
    except OSError as error:
        raise RooftraceProblem(f"{command[0]} cannot be started: {error}. {INSTALL}") from error


def run_process(
    command: Sequence[str],
    is_canceled: Callable[[], bool] = lambda: False,
    on_line: Callable[[str], None] = lambda _: None,
    variables: Mapping[str, str] = MappingProxyType({}),
    *,
    is_merged: bool = False,
) -> tuple[int, str, list[str]]:
    """Run a command; return its exit code, stdout, and the lines of stderr without progress.

    Args:
        command: Program and arguments.
        is_canceled: Function that returns True when the user has canceled.
        on_line: Function that receives each line of stderr.
        variables: Further variables of its environment.
        is_merged: Whether stdout counts as stderr; such a program has nothing to save, and is
            killed when the user cancels.

    Raises:
        Canceled: The user has canceled, and the command has stopped.
        RooftraceProblem: The command cannot be started.
    """
    process = start_process(command, variables, is_merged=is_merged)
    out: list[str] = []
    log: queue.Queue[str | None] = queue.Queue()
    streams = [process.stdout] if is_merged else [process.stderr, process.stdout]
    readers = [
        threading.Thread(target=_forward, args=(streams[0], log), daemon=True),
        *(threading.Thread(target=lambda: out.append(process.stdout.read()), daemon=True)
          for _ in streams[1:]),
    ]  # fmt: skip
    for reader in readers:
        reader.start()
    lines: list[str] = []
    try:
        while True:
            if is_canceled():
                raise Canceled
            try:
                line = log.get(timeout=0.1)
            except queue.Empty:
                continue
            if line is None:
                break
            if parse_progress(line) is None:
                lines.append(line)
            on_line(line)
        code = process.wait()
    finally:
        # Also if QGIS itself is interrupted.
        stop_process(process, is_killed=is_merged)
        for reader, stream in zip(readers, streams):
            reader.join(timeout=5)
            if not reader.is_alive():
                stream.close()
    return code, "".join(out), lines


def _forward(stream: Any, log: queue.Queue[str | None]) -> None:
    for line in stream:
        if line.strip():
            log.put(line.rstrip())
    log.put(None)


def stop_process(process: subprocess.Popen[str], *, is_killed: bool = False) -> None:
    """Stop a command that still runs as Ctrl-C does; kill its group if it does not stop.

    Args:
        process: The command.
        is_killed: Whether it has nothing to save, and is killed at once.
    """
    if process.poll() is not None:
        return
    ctrl_c = _interruption()
    steps = [(ctrl_c, _STOP_S), (ctrl_c, _STOP_AGAIN_S), (None, 5.0)]
    for number, seconds in steps[-1:] if is_killed else steps:
        try:
            if number is None:
                process.kill() if _WINDOWS else os.killpg(process.pid, signal.SIGKILL)
            elif _WINDOWS:
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return
            time.sleep(0.05)


def _interruption() -> int:
    if _WINDOWS:
        return int(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined, unused-ignore]
    # A QGIS that a script started in the background ignores Ctrl-C, and so do its processes.
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return signal.SIGTERM if ignored else signal.SIGINT


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _code(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _tail(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines[-_TAIL:])
