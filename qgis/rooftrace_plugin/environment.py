"""The plugin's own Python environment with rooftrace. This module imports nothing of QGIS.

Each installation goes to a fresh folder, and becomes the current one when it has run: whatever
fails before that leaves the earlier environment, or none, as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from .command import Progress, RooftraceProblem, check_version, run_process

_CURRENT = "current.json"
_OLDEST_PYTHON = (3, 11)
_WINDOWS = os.name == "nt"

_FREE_BYTES = {"": 2 * 10**9, "train": 8 * 10**9}
"""Free bytes that an installation needs, without and with PyTorch."""

_UV = "https://docs.astral.sh/uv"
_RETRY = "Then press “Install” again."

_REASONS = {
    r"No space left|ENOSPC|os error 28|not enough space|quota exceeded": "The disk is full. Free "
    f"some space. {_RETRY}",
    r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|UnknownIssuer|self[- ]signed cert": "The "
    "certificate of the package index is not trusted, as happens where a proxy opens encrypted "
    "connections. Import the certificate of your organisation under Settings > Options > "
    f"Authentication > Manage Certificates > Authorities. {_RETRY}",
    r"\b407\b|Proxy Authentication|ProxyError|[Tt]unnel": "The proxy refuses the connection. "
    f"Correct its address, user and password under Settings > Options > Network. {_RETRY}",
    r"name resolution|Name or service not known|getaddrinfo|dns error|NewConnectionError|refused|"
    r"timed? ?out|unreachable|error sending request|Failed to fetch|ConnectionError|reset": "The "
    "package index cannot be reached. Check the network and the proxy (Settings > Options > "
    f"Network), or install from a folder of wheels. {_RETRY}",
    r"Permission denied|Access is denied|os error 13|os error 5\b|not permitted": "The folder "
    f"cannot be written: a security program or its permissions forbid it. {_RETRY}",
    r"No module named ['\"]?(venv|ensurepip|pip)|ensurepip is not available": "The Python of QGIS "
    f"cannot make environments. Install uv ({_UV}) or, on Debian and Ubuntu, "
    f"the package python3-venv. {_RETRY}",
}
"""Patterns in the output of pip and uv, the surest first, and what they mean for the user."""

_SAID = 160
"""Maximum number of characters of a line of pip or uv in a message."""


class Installation(NamedTuple):
    """What is installed, and how.

    Args:
        folder: Folder of the plugin in the profile of the user.
        extras: Extras of rooftrace, such as `serve`.
        wheels: Folder of wheels, for an installation without a network; None for the index.
        variables: Environment variables of the network: proxy and certificates.
    """

    folder: Path
    extras: tuple[str, ...] = ()
    wheels: Path | None = None
    variables: Mapping[str, str] = {}


class _Watch(NamedTuple):
    is_canceled: Callable[[], bool]
    on_progress: Callable[[Progress], None]
    on_line: Callable[[str], None]


def current_command(folder: Path) -> Path | None:
    """Return the command of the current environment; None if there is none that is whole."""
    try:
        name = json.loads((folder / _CURRENT).read_text(encoding="utf-8"))["environment"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    command = _program(folder / str(name), "rooftrace")
    return command if command.is_file() else None


def install(
    wanted: Installation,
    *,
    is_canceled: Callable[[], bool],
    on_progress: Callable[[Progress], None],
    on_line: Callable[[str], None],
) -> str:
    """Make a new environment with rooftrace, and return the version of rooftrace.

    Args:
        wanted: What is installed.
        is_canceled: Function that returns True when the user has canceled.
        on_progress: Function that receives each progress.
        on_line: Function that receives each line of pip or uv.

    Raises:
        Canceled: The user has canceled; the earlier environment is as it was.
        RooftraceProblem: It has failed, in words for the user; the earlier one is as it was.
    """
    folder = wanted.folder
    watch = _Watch(is_canceled, on_progress, on_line)
    numbers = [int(found[1]) for found in map(_ENVIRONMENT.fullmatch, _names(folder)) if found]
    new = folder / f"environment-{max(numbers, default=0) + 1}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check(wanted)
        _install_into(new, wanted, watch)
        on_progress(Progress("check", None, "starting rooftrace"))
        version = check_version(str(_program(new, "rooftrace")))
        record = {"environment": new.name, "version": version, "extras": list(wanted.extras)}
        draft = folder / f"{_CURRENT}.new"
        draft.write_text(json.dumps(record), encoding="utf-8")
        draft.replace(folder / _CURRENT)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise RooftraceProblem(_explained([str(error)], wanted)) from error
        raise
    for name in _names(folder):
        if _ENVIRONMENT.fullmatch(name) and name != new.name:
            # On Windows, files of a server that still runs stay until the next installation.
            shutil.rmtree(folder / name, ignore_errors=True)
    return version


_ENVIRONMENT = re.compile(r"environment-(\d+)")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _check(wanted: Installation) -> None:
    """Raise what would fail after minutes."""
    needed = _FREE_BYTES["train" if "train" in wanted.extras else ""]
    free = shutil.disk_usage(wanted.folder).free
    if free < needed:
        raise RooftraceProblem(
            f"{wanted.folder} has {free / 1e9:.1f} GB of free space; the installation needs "
            f"{needed / 1e9:.0f} GB. Free some space. {_RETRY}"
        )
    if wanted.wheels is not None and not any(wanted.wheels.glob("rooftrace-*.whl")):
        raise RooftraceProblem(
            f"{wanted.wheels} has no wheel of rooftrace. Choose the folder that “pip download "
            f"'{_requirement(wanted)}' -d FOLDER” wrote on a computer of the same system with the "
            "same version of Python."
        )


def _install_into(new: Path, wanted: Installation, watch: _Watch) -> None:
    """Make the environment and install rooftrace by uv, or by venv and pip."""
    source = [] if wanted.wheels is None else ["--no-index", "--find-links", str(wanted.wheels)]
    packages = [*source, _requirement(wanted)]
    # A QGIS that was started from the desktop may not have the PATH of a terminal.
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path.home() / ".local" / "bin"))
    if uv is None:
        python = _python_of_qgis()
        try:
            if sys.version_info < _OLDEST_PYTHON:
                found, oldest = (
                    ".".join(map(str, one[:2])) for one in (sys.version_info, _OLDEST_PYTHON)
                )
                raise RooftraceProblem(
                    f"QGIS has Python {found}; rooftrace needs {oldest} or newer. Install uv "
                    f"({_UV}) and such a Python. {_RETRY}"
                )
            _run([python, "-m", "venv", str(new)], "Python", wanted, watch)
        except RooftraceProblem:
            if wanted.wheels is not None and not any(wanted.wheels.glob("uv-*.whl")):
                raise
            # pip of that Python brings uv, which brings a Python of its own.
            shutil.rmtree(new, ignore_errors=True)
            tools = wanted.folder / "tools"
            pip = [python, "-m", "pip", "install", "--target", str(tools), "--upgrade"]
            _run([*pip, *source, "uv"], "uv", wanted, watch)
            uv = str(tools / "bin" / ("uv.exe" if _WINDOWS else "uv"))
    if uv is not None:
        offline = [] if wanted.wheels is None else ["--offline"]
        version = _python_of_wheels(wanted.wheels)
        _run([uv, "venv", *offline, "--python", version, str(new)], "Python", wanted, watch)
        into = ["--python", str(_program(new, "python"))]
        _run([uv, "pip", "install", *offline, *into, *packages], "install", wanted, watch)
    else:
        pip = [str(_program(new, "python")), "-m", "pip", "install", "--progress-bar", "off"]
        patience = ["--no-input", "--retries", "2", "--timeout", "30"]
        _run([*pip, *patience, *packages], "install", wanted, watch)


def _run(command: Sequence[str], step: str, wanted: Installation, watch: _Watch) -> None:
    watch.on_line(" ".join(command))

    def forward(line: str) -> None:
        watch.on_line(line)
        if found := re.match(r"\s*(?:Collecting|Downloading|Building|Processing) (\S+)", line):
            watch.on_progress(Progress(step, None, Path(found[1]).name))

    watch.on_progress(Progress(step, None, "starting"))
    code, _, lines = run_process(
        command, watch.is_canceled, forward, wanted.variables, is_merged=True
    )
    if code != 0:
        raise RooftraceProblem(_explained(lines, wanted))


def _explained(lines: Sequence[str], wanted: Installation) -> str:
    """Return the reason of a failure in a sentence, with the line of the program that says so."""
    for pattern, reason in _REASONS.items():
        saying = [line.strip() for line in lines if re.search(pattern, line)]
        if saying:
            return f"{reason}\n({_end_of(saying[-1])})"
    last = _end_of(next((line.strip() for line in reversed(lines) if line.strip()), "no output"))
    if re.search(r"No matching distribution|No solution found|not found in|no wheels", str(lines)):
        where = f"The folder {wanted.wheels}" if wanted.wheels else "The package index"
        return (
            f"{where} has not all packages of rooftrace for this system and its Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}. ({last})"
        )
    return f"The installation failed. Open “Details” for its log. ({last})"


def _end_of(line: str) -> str:
    return line if len(line) <= _SAID else f"…{line[-_SAID:]}"


def _requirement(wanted: Installation) -> str:
    return f"rooftrace[{','.join(wanted.extras)}]" if wanted.extras else "rooftrace"


def _python_of_wheels(wheels: Path | None) -> str:
    """Return the version of Python for which a folder has wheels, as uv names it."""
    names = [] if wheels is None else [path.name for path in wheels.glob("*.whl")]
    minors = {
        int(found[1]) for found in (re.search(r"-cp3(\d+)-cp3\d+-", n) for n in names) if found
    }
    return f"3.{minors.pop()}" if len(minors) == 1 else ">={}.{}".format(*_OLDEST_PYTHON)


def _program(environment: Path, name: str) -> Path:
    if _WINDOWS:
        return environment / "Scripts" / f"{name}.exe"
    return environment / "bin" / name


def _python_of_qgis() -> str:
    """Return the interpreter of QGIS, whose `sys.executable` is QGIS itself on some systems."""
    names = ["python.exe", "python3.exe"] if _WINDOWS else ["python3", "python"]
    folders = [Path(sys.exec_prefix), Path(sys.executable or sys.exec_prefix).parent]
    for folder in (one for parent in folders for one in (parent, parent / "bin")):
        for name in names:
            if (folder / name).is_file():
                return str(folder / name)
    raise RooftraceProblem(
        f"The Python of QGIS was not found in {sys.exec_prefix}. Install uv ({_UV}). {_RETRY}"
    )


def diagnostics(
    command: str | None, about: Mapping[str, Any], is_canceled: Callable[[], bool]
) -> str:
    """Return a report for an issue: versions of QGIS and `rooftrace doctor --json`.

    Args:
        command: Path of rooftrace; None if it is missing.
        about: Names and values of QGIS, the plugin and the system.
        is_canceled: Function that returns True when the user has canceled.

    Raises:
        Canceled: The user has canceled.
    """
    found: dict[str, Any] = dict(about)
    if command is None:
        found["rooftrace"] = "not installed"
    else:
        try:
            _, out, lines = run_process([command, "doctor", "--json"], is_canceled)
            try:
                found["rooftrace doctor"] = json.loads(out)
            except ValueError:
                found["rooftrace doctor"] = [*out.splitlines(), *lines][-20:]
        except RooftraceProblem as problem:
            found["rooftrace doctor"] = str(problem)
    # A report is public: it does not name the user.
    return json.dumps(found, indent=1, ensure_ascii=False).replace(str(Path.home()), "~")
