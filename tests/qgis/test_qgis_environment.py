"""The environment that the QGIS plugin makes, with false uv and pip that succeed, hang and fail."""

from __future__ import annotations

import json
import shlex
import shutil
import stat
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from test_qgis_plugin import load

environment, plugin_command = load("environment"), load("command")

_TOOL = """#!/bin/sh
# A false uv and a false Python: it notes its calls, makes environments, and "installs" rooftrace.
echo "$0 $*" >> {log}
env | grep -E '^(HTTPS_PROXY|PIP_CERT|PYTHONHOME)=' >> {log}
case "$*" in
  *venv*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
  *install*) echo "Collecting numpy>=2"; {behaviour}
    for folder in {folder}/environment-*; do
      [ -d "$folder" ] || continue
      printf '#!/bin/sh\\necho {version}\\n' > "$folder/bin/rooftrace"
      chmod +x "$folder/bin/rooftrace"
    done ;;
esac
"""


class Machine:
    """A computer with a false uv on PATH, or with the false Python of a QGIS alone."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, has_uv: bool) -> None:
        self.folder, self.log = folder / "profile" / "rooftrace", folder / "log"
        self.log.touch()
        self.tool = folder / "bin" / ("uv" if has_uv else "python3")
        self.tool.parent.mkdir()
        monkeypatch.setenv("PATH", f"{self.tool.parent if has_uv else ''}:/usr/bin:/bin")
        monkeypatch.setattr(sys, "exec_prefix", str(folder))
        self.progress: list[Any] = []
        self.lines: list[str] = []
        self.behave("")

    def behave(self, behaviour: str, version: str = "0.2.0") -> None:
        self.tool.write_text(_TOOL.format(
            log=self.log, folder=self.folder, behaviour=behaviour, version=version
        ))  # fmt: skip
        self.tool.chmod(self.tool.stat().st_mode | stat.S_IXUSR)

    def install(self, is_canceled: Any = lambda: False, **wanted: Any) -> str:
        found: str = environment.install(
            environment.Installation(self.folder, **wanted), is_canceled=is_canceled,
            on_progress=self.progress.append, on_line=self.lines.append,
        )  # fmt: skip
        return found

    @property
    def command(self) -> Path | None:
        found: Path | None = environment.current_command(self.folder)
        return found


@pytest.fixture(params=[True, False], ids=["uv", "pip"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    return Machine(tmp_path, monkeypatch, has_uv=request.param)


def test_a_new_environment_replaces_the_earlier_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/of/qgis")
    network = {"HTTPS_PROXY": "http://proxy:8080", "PIP_CERT": "/ca.pem"}
    assert machine.command is None
    assert machine.install(extras=("serve", "services"), variables=network) == "0.2.0"
    first = machine.command
    assert first is not None
    assert plugin_command.find_command("", first) == str(first)
    calls = machine.log.read_text()
    assert "rooftrace[serve,services]" in calls
    assert {"HTTPS_PROXY=http://proxy:8080", "PIP_CERT=/ca.pem"} <= set(calls.splitlines())
    assert "PYTHONHOME" not in calls
    assert "numpy>=2" in {one.text for one in machine.progress}
    assert "Collecting numpy>=2" in machine.lines
    assert machine.install() == "0.2.0"
    assert machine.command not in (None, first)
    assert not first.exists()


def test_offline_installation_asks_no_index(machine: Machine, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with pytest.raises(plugin_command.RooftraceProblem, match=r"no wheel of rooftrace.*download"):
        machine.install(wheels=wheels)
    for name in ("rooftrace-0.2.0-py3-none-any", "numpy-2.4-cp312-cp312-manylinux_2_28_x86_64"):
        (wheels / f"{name}.whl").touch()
    machine.install(wheels=wheels)
    calls = machine.log.read_text()
    assert f"--no-index --find-links {wheels} rooftrace" in calls
    if machine.tool.name == "uv":
        # uv may choose the Python, so it takes the one of the wheels.
        assert "venv --offline --python 3.12" in calls


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] verify failed", "certificate of the package"),
        ("error: invalid peer certificate: UnknownIssuer", "Manage Certificates"),
        ("ProxyError('Cannot connect.', OSError('Tunnel failed: 407'))", "The proxy refuses"),
        ("NewConnectionError: [Errno -2] Name or service not known", "cannot be reached"),
        ("error: Failed to fetch: `https://pypi.org/simple/` dns error", "folder of wheels"),
        ("ERROR: No matching distribution found for rooftrace", "has not all packages"),
        ("x No solution found when resolving dependencies", "has not all packages"),
        ("No module named ensurepip", "python3-venv"),
        ("[Errno 13] Permission denied: '/x'", "cannot be written"),
        ("Something else", "Details"),
    ],
)
def test_a_failing_step_ends_in_a_sentence(machine: Machine, line: str, sentence: str) -> None:
    machine.install()
    kept = machine.command
    machine.behave(f"echo {shlex.quote(line)}; exit 2")
    with pytest.raises(plugin_command.RooftraceProblem) as caught:
        machine.install()
    assert sentence in str(caught.value)
    assert line[:40] in str(caught.value)
    # The plugin stays usable, without leftovers, and another try succeeds.
    assert machine.command == kept
    assert kept is not None
    assert [one.name for one in machine.folder.glob("environment-*")] == [kept.parent.parent.name]
    machine.behave("")
    assert machine.install() == "0.2.0"


def test_cancel_ends_pip_that_hangs(machine: Machine) -> None:
    machine.behave(f"trap '' INT TERM; echo waiting >> {machine.log}; sleep 60")
    stop = threading.Event()
    watcher = threading.Thread(target=lambda: (_wait_for(machine.log, "waiting"), stop.set()))
    watcher.start()
    begun = time.monotonic()
    with pytest.raises(plugin_command.Canceled):
        machine.install(stop.is_set)
    watcher.join()
    assert time.monotonic() - begun < 30
    assert machine.command is None
    assert not list(machine.folder.glob("environment-*"))


def _wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_full_disk_and_old_rooftrace_are_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.behave("", version="0.0.9")
    with pytest.raises(plugin_command.RooftraceProblem, match=r"has version 0\.0\.9.*needs 0\.2"):
        machine.install()
    assert machine.command is None
    usage = namedtuple("usage", "total used free")(10**12, 10**12, 3 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(plugin_command.RooftraceProblem, match=r"3\.0 GB of free.*needs 8 GB"):
        machine.install(extras=("train",))
    machine.behave("")
    assert machine.install() == "0.2.0"


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 12, 1)], ids=["old", "cannot"])
def test_an_old_python_or_one_without_environments_fetches_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]
) -> None:
    machine = Machine(tmp_path, monkeypatch, has_uv=False)
    monkeypatch.setattr(sys, "version_info", version)
    tools = machine.folder / "tools" / "bin"
    machine.behave(f'mkdir -p {tools}; cp "$0" {tools}/uv; chmod +x {tools}/uv')
    venv = 'case "$*" in *"-m venv"*) echo "No module named ensurepip"; exit 1 ;; esac\n'
    machine.tool.write_text(f"{machine.tool.read_text()}{venv}")
    assert machine.install() == "0.2.0"
    calls = [line.split(" ", 1) for line in machine.log.read_text().splitlines() if " " in line]
    fails = [("python3", "-m")] if version >= (3, 11) else []
    assert [(Path(tool).name, call.split()[0]) for tool, call in calls] == [
        *fails, ("python3", "-m"), ("uv", "venv"), ("uv", "pip"),
    ]  # fmt: skip
    # Without internet, uv has to be among the wheels.
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "rooftrace-0.2.0-py3-none-any.whl").touch()
    with pytest.raises(plugin_command.RooftraceProblem, match=r"needs 3\.11|python3-venv"):
        machine.install(wheels=wheels)


def test_diagnostics_hold_the_doctor_and_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tool = tmp_path / "rooftrace"
    tool.write_text(f'#!/bin/sh\necho \'{{"healthy": true, "at": "{tmp_path}/x"}}\'\n')
    tool.chmod(0o755)
    report = json.loads(environment.diagnostics(str(tool), {"QGIS": "4.0"}, lambda: False))
    assert report == {"QGIS": "4.0", "rooftrace doctor": {"healthy": True, "at": "~/x"}}
    tool.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    report = json.loads(environment.diagnostics(str(tool), {}, lambda: False))
    assert report == {"rooftrace doctor": ["broken"]}
    report = json.loads(environment.diagnostics(None, {}, lambda: False))
    assert report == {"rooftrace": "not installed"}
