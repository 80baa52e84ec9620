"""The QGIS plugin, as far as it can be tested without QGIS."""

import ast
import importlib.util
import json
import os
import re
import stat
import sys
import time
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from command_line import command
from local_server import LocalServer, QuietHandler, running

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "qgis" / "rooftrace_plugin"
REQUIRED = {
    "name", "description", "about", "version", "qgisMinimumVersion", "author", "email",
    "repository", "tracker", "homepage",
}  # fmt: skip
"""Keys that plugins.qgis.org and the check of qgis-plugin-ci require."""


def load(name: str) -> Any:
    """Return a module of the plugin that does not import QGIS."""
    sys.path.insert(0, str(PLUGIN.parent))
    try:
        return importlib.import_module(f"rooftrace_plugin.{name}")
    finally:
        sys.path.remove(str(PLUGIN.parent))


plugin_command, plugin_server = load("command"), load("server")


def executable(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def run(
    command: list[str], is_canceled: Any = lambda: False
) -> tuple[dict[str, Any], list[Any], list[str]]:
    progress: list[Any] = []
    lines: list[str] = []
    answer = plugin_command.run_command(
        command, is_canceled=is_canceled, on_progress=progress.append, on_line=lines.append
    )
    return answer, progress, lines


# The package.


def test_zip_has_all_that_plugins_qgis_org_requires(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("qgis_zip", ROOT / "tools" / "qgis_plugin.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    extra = {name: f"https://e.org/{name}" for name in ("repository", "tracker", "homepage")}
    extra["email"] = "m@e.org"
    made = tool.build_zip(tmp_path, extra)
    again = tool.build_zip(tmp_path / "again", extra)
    assert made.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        metadata = archive.read("rooftrace_plugin/metadata.txt").decode()
        page = archive.read("rooftrace_plugin/help.html").decode()
    assert "<table>" in page
    assert ".md" not in page
    kept = {
        path.relative_to(PLUGIN.parent).as_posix()
        for path in PLUGIN.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(names) == {*kept, "rooftrace_plugin/help.html"}
    parsed = ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(metadata)
    general = parsed["general"]
    assert set(general) >= REQUIRED
    assert all(general[key].strip() for key in REQUIRED)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert general["version"] == project["version"]
    assert (general["qgisMinimumVersion"], general["qgisMaximumVersion"]) == ("3.22", "4.99")


def test_plugin_and_map_page_have_the_values_and_colours_of_the_files() -> None:
    from rooftrace.density.files import SHARE_GRADES
    from rooftrace.flows.compare.outputs import COLOURS
    from rooftrace.io.legend import CONFIDENCE, SCORE_GRADES, Legend, mask_style
    from rooftrace.service.review_store import REVIEW_COLOURS
    from rooftrace.vector.compare import MAP_WORDS

    def colours(root: ElementTree.Element) -> dict[str, str]:
        return {
            symbol.attrib["name"]: "#"
            + bytes(map(int, option.attrib["value"].split(",")[:3])).hex()
            for symbol in root.iter("symbol")
            for option in symbol.iterfind(".//Option[@name='outline_color']")
        }

    mask, compare, buildings = (
        ElementTree.parse(PLUGIN / "styles" / f"{name}.qml").getroot()
        for name in ("mask", "compare", "buildings")
    )
    written = ElementTree.fromstring(mask_style(Legend(("background", "building"))))
    classes, expected = ([e.attrib for e in qml.iter("paletteEntry")] for qml in (mask, written))
    assert classes == expected
    drawn = {
        (status, colours(compare)[rule.attrib["symbol"]])
        for rule in compare.iter("rule")
        for status in re.findall(r"'([\w ]+)'", rule.get("filter", "").split(" AND ")[0])
    }
    of_maps = {word: COLOURS[status] for status, word in MAP_WORDS.items()}
    assert drawn == set((COLOURS | of_maps).items())
    assert tuple(colours(buildings).values()) == (*CONFIDENCE, "#9aa0a6")
    ranges = [(one.attrib["label"], float(one.attrib["upper"])) for one in buildings.iter("range")]
    assert ranges == [(label, end) for label, end, _ in SCORE_GRADES.steps]
    review = (PLUGIN / "canvas.py").read_text().partition("_STATUSES = {")[2].partition("}")[0]
    assert re.findall("#[0-9a-f]{6}", review) == [*REVIEW_COLOURS.values()]
    page = (ROOT / "src/rooftrace/app/map/static/style.js").read_text()
    shares = {f"#{bytes(colour).hex()}" for _, end, colour in SHARE_GRADES.steps if end > 0}
    assert {*CONFIDENCE, *shares, *re.findall("#[0-9a-f]{6}", review)} <= {
        *re.findall("#[0-9a-f]{6}", page)
    }


def test_plugin_imports_nothing_of_rooftrace() -> None:
    allowed = {"qgis", "processing", "osgeo", *sys.stdlib_module_names}
    for path in PLUGIN.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path


DROPPED = {
    "exec_": "exec", "QVariant": "None, or the type of Python", "QRegExp": "QRegularExpression",
    "QAction": "the action that a menu returns (Qt 6 has the class elsewhere)",
    "QDesktopWidget": "QScreen", "QTextCodec": "an encoding of Python", "QMatrix": "QTransform",
    "QSignalMapper": "a lambda", "QWebView": "QTextBrowser",
    "globalPos": "globalPosition", "localPos": "position", "setMargin": "setContentsMargins",
    "toTime_t": "toSecsSinceEpoch", "setTabStopWidth": "setTabStopDistance",
    "QgsMapLayerType": "Qgis.LayerType", "removeprefix": "a slice", "removesuffix": "a slice",
}  # fmt: skip
"""Names that Qt 6 or QGIS 4 dropped or Python 3.8 has not, and what stands in their place."""

NESTED = {"SaveVectorOptions", "LayerDetails"}
"""Classes inside of classes of QGIS, whose names look like values of enums."""


def dropped_names(source: str) -> list[str]:
    """Return the names in a source that Qt 6 or QGIS 4 does not know, with their lines.

    A value of an enum is written with its enum, as `Qt.Key.Key_A`: Qt 6 has no `Qt.Key_A`.
    """
    found = []
    tree = ast.parse(source, feature_version=(3, 8))
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            names = [alias.name for alias in node.names]
            if module.split(".")[0] in ("PyQt5", "PyQt6", "sip") or "PyQt5" in names:
                found.append(f"{node.lineno}: {module or names}, write qgis.PyQt")
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
            outer = parents[id(node)]
            is_enum = isinstance(node.value, ast.Name) and re.match(
                r"Q(t|gis|gs|[A-Z])", node.value.id
            )
            if (
                is_enum and re.match(r"[A-Z][A-Za-z]*[a-z]", node.attr) and node.attr not in NESTED
                and not isinstance(outer, ast.Attribute)
            ):  # fmt: skip
                found.append(f"{node.lineno}: {ast.unparse(node)}, write the enum before the value")
        elif isinstance(node, ast.Name):
            names = [node.id]
        lines = [f"{node.lineno}: {one}, write {DROPPED[one]}" for one in names if one in DROPPED]  # type: ignore[attr-defined]
        found += lines
    return found


@pytest.mark.parametrize("path", sorted(PLUGIN.glob("*.py")), ids=lambda path: path.stem)
def test_plugin_has_no_name_that_qt_6_dropped(path: Path) -> None:
    assert dropped_names(path.read_text()) == []


# The command.


def test_progress_of_a_real_command_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    for name in "ab":
        Image.new("L", (8, 8), 255).save(tmp_path / f"{name}.png")
    call = ("density", tmp_path, "--by-image", "-o", tmp_path / "shares", "--json")
    monkeypatch.setenv("ROOFTRACE_PROGRESS", "json")
    done = command(*call)
    assert done.code == 0, done.out
    found = [plugin_command.parse_progress(line) for line in done.err.splitlines()]
    assert found
    assert None not in found
    assert (found[-1].step, found[-1].share) == ("density", 1.0)


def test_answer_progress_and_log_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/of/qgis")
    monkeypatch.setenv("PROJ_LIB", "/of/qgis")
    record = '{"progress": {"step": "predict", "done": 1, "total": 4, "share": 0.25, "text": "é"}}'
    tool = executable(
        tmp_path / "tool",
        f"echo '{record}' >&2; echo careful >&2\n"
        'echo "{\\"home\\": \\"$PYTHONHOME$PROJ_LIB\\",'
        ' \\"arguments\\": \\"$*\\", \\"asked\\": \\"$ROOFTRACE_PROGRESS\\"}"',
    )
    answer, progress, lines = run([tool, "predict", "a b"])
    assert answer == {"home": "", "arguments": "predict a b --json", "asked": "json"}
    assert progress == [("predict", 0.25, "é")]
    assert lines == ["careful"]


def test_options_are_divided_as_in_a_terminal() -> None:
    text = r"""--area "C:\my data\a.gpkg" --tta flips #1 -m C:\models\a.rooftrace"""
    words = ["--area", r"C:\my data\a.gpkg", "--tta", "flips", "#1", "-m", r"C:\models\a.rooftrace"]
    assert plugin_command.split_options(text, is_windows=True) == words
    assert plugin_command.split_options(r"a\ b 'c d'", is_windows=False) == ["a b", "c d"]


def test_error_of_a_command_has_its_words(tmp_path: Path) -> None:
    error = json.dumps({"error": {"type": "DataError", "message": "It is bad.", "remedy": "Mend."}})
    tool = executable(tmp_path / "tool", f"echo '{error}'; exit 3")
    with pytest.raises(plugin_command.RooftraceProblem, match=r"^It is bad\. Mend\.$"):
        run([tool])
    tool = executable(tmp_path / "crash", "echo Segmentation >&2; kill -9 $$")
    with pytest.raises(
        plugin_command.RooftraceProblem, match=r"(?s)signal 9.*memory.*Segmentation"
    ):
        run([tool])


def test_cancel_is_ctrl_c_for_the_whole_group(tmp_path: Path) -> None:
    # Both have their traps when this one says that it has started.
    inner = (
        f"trap 'echo inner >> {tmp_path}/seen; exit' INT; echo started > {tmp_path}/started; "
        "while :; do sleep 0.05; done"
    )
    executable(tmp_path / "inner", inner)
    tool = executable(
        tmp_path / "tool",
        # A shell lets its background jobs ignore Ctrl-C.
        f"trap 'echo outer >> {tmp_path}/seen; wait; exit 130' INT; "
        f'{sys.executable} -c "import signal, subprocess as s; '
        "signal.signal(signal.SIGINT, signal.SIG_DFL); "
        f"s.Popen(['{tmp_path}/inner'])\"; while :; do sleep 0.05; done",
    )
    with pytest.raises(plugin_command.Canceled):
        run([tool], is_canceled=(tmp_path / "started").exists)
    deadline = time.monotonic() + 60
    while len(seen := sorted((tmp_path / "seen").read_text().split())) < 2:
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    assert seen == ["inner", "outer"]


def test_command_that_ignores_ctrl_c_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_command, "_STOP_S", 0.1)
    monkeypatch.setattr(plugin_command, "_STOP_AGAIN_S", 0.1)
    tool = executable(
        tmp_path / "tool", f"trap '' INT; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    )
    with pytest.raises(plugin_command.Canceled):
        run([tool], is_canceled=(tmp_path / "pid").exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_missing_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        plugin_command.RooftraceProblem, match=r"not installed yet.*Set up….*pip install.*Providers"
    ):
        plugin_command.find_command("")
    with pytest.raises(plugin_command.RooftraceProblem, match="is a folder"):
        plugin_command.find_command(str(tmp_path))
    tool = executable(tmp_path / "rooftrace", "echo 0.2.0")
    assert plugin_command.find_command("") == tool


def test_foreign_commands_are_refused(tmp_path: Path) -> None:
    foreign = executable(tmp_path / "foreign", "echo hello")
    with pytest.raises(plugin_command.RooftraceProblem, match=r"is not a rooftrace that works"):
        plugin_command.check_version(foreign)


# A server.


class FalseServer(QuietHandler):
    """Handler that sends uploads elsewhere, and answers other requests without JSON."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.received = self.rfile.read(length), self.headers["Authorization"], self.path
        if self.path.startswith("/refused"):
            body = json.dumps({"detail": "The key is missing.", "remedy": "Send it."}).encode()
            self.send_response(401)
        else:
            body = b"no json"
            self.send_response(302 if self.path.startswith("/moved") else 202)
            self.send_header("Location", "http://elsewhere.invalid/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/moved", "302.* enter the final address"),
        ("/refused", r"^The key is missing\. Send it\. Choose an authentication"),
        ("", "did not answer as a rooftrace server"),
    ],
)
def test_answers_of_a_server_are_explained(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "a.tif").write_bytes(bytes(100_000))
    seen: list[Any] = []
    with running(LocalServer(FalseServer)) as server:
        client = plugin_server.Server(server.url + path, {"Authorization": "K"}, lambda: False)
        with pytest.raises(plugin_command.RooftraceProblem, match=reason):
            client.predict(tmp_path / "a.tif", tmp_path / "out", {}, seen.append)
        assert server.received[:2] == (bytes(100_000), "K")
    assert seen[0].step == "upload"


def test_a_server_below_a_folder() -> None:
    client = plugin_server.Server("http://127.0.0.1:9/roofs/", {}, lambda: False)
    assert client._below("/roofs/v1/jobs/1") == client._below("/v1/jobs/1") == "/v1/jobs/1"


def test_addresses_that_are_no_server(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"x")
    with pytest.raises(plugin_command.RooftraceProblem, match=r"expected an address such as"):
        plugin_server.Server("localhost", {}, lambda: False)
    client = plugin_server.Server("http://127.0.0.1:9", {}, lambda: False)
    with pytest.raises(plugin_command.RooftraceProblem, match=r"does not answer.* rooftrace serve"):
        client.predict(tmp_path / "a.tif", tmp_path / "out", {}, lambda _: None)
