"""The wheel and the source archive: whole, nothing foreign, and good for a bare environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("build")
pytest.importorskip("hatchling")

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BESIDE = {"PKG-INFO", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt",
          ".gitignore"}  # fmt: skip
"""Files of the source archive besides the package."""
UNREACHABLE = ("NewConnectionError", "ConnectionError", "Temporary failure in name resolution",
               "No matching distribution found", "ProxyError", "Read timed out")  # fmt: skip


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path

    @property
    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
            return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    # Without it the archive takes in all that lies in the working folder: gigabytes, for minutes.
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"].get("sdist", {}).get("only-include")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def sources() -> set[str]:
    """Files of the package, as git would keep them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "src/rooftrace"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {name for name in listed.stdout.split("\0") if name}
    return {name.removeprefix("src/") for name in names if (ROOT / name).is_file()}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == sources()
    assert built.wheel.stat().st_size <= 20e6
    wanted = {"rooftrace/py.typed"} | {
        f"rooftrace/assets/{name}.rooftrace" for name in ("default", "clicks")
    }
    assert wanted <= names


def test_the_source_archive_holds_what_the_wheel_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {name for name in names if not name.startswith("src/")} <= BESIDE
    assert {name.removeprefix("src/") for name in names if name.startswith("src/")} == sources()
    assert built.sdist.stat().st_size < 32 * 2**20


def test_no_file_names_where_it_was_built(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        for name in archive.namelist():
            assert str(ROOT).encode() not in archive.read(name), name


def test_metadata(built: Built) -> None:
    shown = built.metadata
    project = PYPROJECT["project"]
    assert (shown["Name"], shown["Version"]) == (project["name"], project["version"])
    assert shown["License-Expression"] == "Apache-2.0"
    assert shown["Description-Content-Type"] == "text/markdown"
    assert shown.get_payload().lstrip().startswith("# rooftrace")
    assert set(shown.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert "Typing :: Typed" in shown.get_all("Classifier", [])
    core = [need for need in shown.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert not [need for need in core if need.startswith(("torch", "fastapi"))]


@pytest.fixture(scope="module")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that holds the wheel and what it needs, nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    command = [binaries / "python", "-m", "pip", "install", "--quiet",
               "-c", ROOT / "constraints.txt", built.wheel]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(word in done.stderr for word in UNREACHABLE):
        pytest.skip(f"pip reaches no packages here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return binaries


def rooftrace(bare: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command of the bare environment, which sees nothing of this one."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    command = [str(bare / "rooftrace"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_demo_runs_from_the_wheel(bare: Path, tmp_path: Path) -> None:
    shown = rooftrace(bare, tmp_path, "--version")
    assert shown.stdout.strip() == PYPROJECT["project"]["version"]
    done = rooftrace(bare, tmp_path, "demo", "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["outputs"]
    assert image["buildings"] > 900
    assert ROOT not in Path(image["input"]).parents
    dark = "np.zeros((256, 256, 3), np.uint8)"
    code = f"import rooftrace, numpy as np; print(rooftrace.load().predict({dark}))"
    python = subprocess.run(
        [bare / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "0 buildings" in python.stdout, python.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"demo_scene_mask.tif", "demo_scene_buildings.gpkg", "run.json"} <= written


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "train.toml", "-o", "run"], "train"),
        (["finetune", "data", "-o", "run"], "train"),
        (["train", "train.toml", "-o", "study", "--trials", "1"], "train"),
        (["predict", "a.tif", "--refine", "sam", "--sam-weights", "w", "-o", "out"], "sam"),
        (["serve", "--port", "0"], "serve"),
        (["export", "default", "--to", "onnx", "--precision", "fp16", "-o", "out.onnx"], "export"),
        (["video", "in.mp4", "-o", "out.mp4"], "video"),
        (["predict", "s3://bucket/a.tif", "-o", "out"], "s3"),
        (["predict", "https://h/Capabilities.xml", "--area", "town.json", "-o", "out"], "services"),
        (["heights", "town.json", "--points", "in.laz", "-o", "out"], "points"),
        (["vectorize", "in.png", "-o", "out.parquet", "--gsd", "0.3"], "parquet"),
        (["predict", "in.png", "--engine", "onnxruntime", "-o", "out"], "onnx"),
        (["predict", "in.mp4", "-o", "out", "--stac"], "stac"),
        (["predict", "in.mp4", "-o", "out", "--cluster", "ray"], "ray"),
    ],
)
def test_a_missing_extra_is_named(
    bare: Path, tmp_path: Path, arguments: list[str], extra: str
) -> None:
    (tmp_path / "train.toml").write_text(
        'data.split = "split.json"\n[[data.train]]\npath = "data"\n', encoding="utf-8"
    )
    (tmp_path / "in.mp4").write_bytes(b"not looked at")
    (tmp_path / "in.laz").write_bytes(b"not looked at")
    Image.new("L", (64, 64)).save(tmp_path / "in.png")
    ring = [[10, 50], [10.001, 50], [10.001, 50.001], [10, 50]]
    town = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "town.json").write_text(json.dumps(town), encoding="utf-8")
    done = rooftrace(bare, tmp_path, *arguments, "--json")
    assert done.returncode == 6, done.stdout + done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "MissingExtraError"
    assert f"rooftrace[{extra}]" in error["remedy"]


def test_a_missing_extra_is_named_to_a_person(bare: Path, tmp_path: Path) -> None:
    done = rooftrace(bare, tmp_path, "mcp")
    assert done.returncode == 6
    assert "rooftrace[mcp]" in done.stderr
