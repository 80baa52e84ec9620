"""The real command: its contract for programs, its exit codes, and never a traceback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from command_line import Finished, command
from rooftrace import cli
from rooftrace.cli.commands import COMMANDS, PANELS, PLACES, load_command
from rooftrace.models.bundle import read_bundle
from town import generate_scene, write_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence


def process(*arguments: object, before: str = "", cwd: Path | None = None) -> Finished:
    """Another process, as a person starts it; `before` is run first in it."""
    call = ["-m", "rooftrace"]
    if before:
        call = ["-c", f"import sys; {before}; from rooftrace.__main__ import main; main()"]
    done = subprocess.run(
        [sys.executable, *call, *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=600,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def at_end(value: str) -> str:
    """Return code that prints a value where the command ends its process, after all its work."""
    leave = f"(print({value}, flush=True), leave(code))"
    return f"import os; leave = os._exit; os._exit = lambda code: {leave}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "data"
    write_pairs(folder, range(4), shape_yx=(96, 96), gsd_m=0.3)
    return folder


# What it does.


def test_version_and_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = command("--version")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", done.out)
    done = command("--help")
    assert done.code == 0
    for verb in ("predict", "train", "evaluate", "split", "doctor"):
        assert verb in done.out
        assert command(verb, "--help").code == 0
    for verb in ("predict", "heights", "finetune", "compare", "serve"):
        help_text = command(verb, "--help").out
        assert len(help_text.splitlines()) <= (40 if verb == "predict" else 52), verb
        assert "list[" not in help_text
    assert "--connections" not in command("predict", "--help").out
    assert "--connections" in command("predict", "--help-all").out
    help_text = command("label", "next", "--help").out
    assert help_text.startswith("Usage: rooftrace label next [OPTIONS] {DATA}\n")
    assert help_text.endswith("\nMore options: rooftrace label next --help-all\n\n")


@pytest.mark.campaign
def test_train(tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = tmp_path / "run"
    arguments = ("train", tiny_folder / "tiny.toml", "-o", run, "--set", "samples_per_epoch=4")
    done = process(*arguments, "--set", "epochs=1", "--json")
    assert done.code == 0, done.err
    plain = done.json
    assert set(plain) == {
        "run", "best_iou", "best_loss", "epochs", "stopped_because", "images_per_s", "notes",
    }  # fmt: skip
    # Four samples teach nothing, and a threshold is chosen nevertheless.
    assert re.match(
        r"The IoU of tiny on its validation images, 0\.\d+, is (no|hardly) better than .*training",
        *plain["notes"],
    )
    assert plain["run"] == str(run)
    assert (plain["epochs"], plain["stopped_because"]) == (1, "all epochs done")
    for name in ("best_iou", "best_loss"):
        assert set(plain[name]) == {"epoch", "value", "bundle"}
        assert plain[name]["epoch"] == 1
        assert read_bundle(Path(plain[name]["bundle"])).spec.name == "tiny"
    assert plain["images_per_s"] > 0
    # The progress is for people: it goes to stderr, one line an epoch where that is no terminal.
    assert len(re.findall(r"(?m)^ +1 +\d\.\d{3} +\d\.\d{3} .*\* +0:00", done.err)) == 1
    assert done.err.count("held out") == 2
    again = command(*arguments, "--set", "epochs=1", "--json")
    assert again.code == 2
    assert "--resume" in again.json["error"]["remedy"]


# What it needs.


@pytest.mark.campaign
def test_prediction_and_evaluation_need_no_torch(bundle: Path, data: Path, tmp_path: Path) -> None:
    absent = ("torch", "torchvision", "lightning", "segmentation_models_pytorch", "timm", "nncf",
              "safetensors", "onnx", "onnxruntime")  # fmt: skip
    before = f"sys.modules.update(dict.fromkeys({absent}))"
    done = process("evaluate", bundle, data, "--json", before=before)
    assert done.code == 0, done.err
    assert done.json["images"] == 4
    done = process("predict", data / "images/synthetic_00000.tif", "-m", bundle,
                   "-o", tmp_path, before=before)  # fmt: skip
    assert done.code == 0, done.err


HEAVY = {"cv2", "geopandas", "lightning", "numpy", "openvino", "PIL", "pandas", "pydantic",
         "pyogrio", "pyproj", "rasterio", "shapely", "torch"}  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "own"),
    [
        ("import rooftrace", set()),
        ("main(['--help'])", {"cli", "core", "io"}),
        ("main(['--version'])", {"cli", "core", "io"}),
    ],
)
def test_start_imports_little(statement: str, own: set[str]) -> None:
    """Structure, not time: neither heavy packages nor commands are imported before their use."""
    code = f"""
import sys
if {bool(own)}:
    from rooftrace.cli import main
try:
    {statement}
finally:
    sys.stderr.write(" ".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stderr.split()
    # typer converts the values of options with pydantic.
    assert HEAVY & set(modules) <= ({"pydantic"} if "version" in statement else set())
    ours = [name.split(".") for name in modules if name.startswith("rooftrace.")]
    assert {parts[1] for parts in ours} == own
    assert {parts[2] for parts in ours if parts[1] == "cli" and len(parts) > 2} <= {
        "commands", "options", "show",
    }  # fmt: skip


@pytest.mark.campaign
def test_prediction_imports_what_it_uses(tmp_path: Path) -> None:
    image, _ = generate_scene(41, (256, 256), gsd_m=0.3).write(tmp_path, "town")
    absent = {"boto3", "fastapi", "geopandas", "lightning", "matplotlib", "onnx", "onnxruntime",
              "openvino_telemetry", "pandas", "pyarrow", "ray", "requests", "scipy", "torch",
              "rooftrace.audit", "rooftrace.metrics", "rooftrace.samples", "rooftrace.service",
              "rooftrace.train"}  # fmt: skip
    before = at_end(f"sorted(name for name in {absent} if sys.modules.get(name))")
    done = process("predict", image, "-o", tmp_path / "out", before=before)
    assert (done.code, done.out) == (0, "[]\n"), done.err


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("more", "text"),
    [(("--set", "epohs=1"), "unknown key 'epohs'"), (("--trials", 2), "has no search space")],
)
def test_a_wrong_setting_is_told_before_the_training_is_imported(
    tiny_folder: Path, tmp_path: Path, more: tuple[object, ...], text: str
) -> None:
    given = ("train", tiny_folder / "tiny.toml", "-o", tmp_path / "run", *more)
    done = process(*given, before=at_end("'lightning' in sys.modules"))
    assert (done.code, done.out) == (2, "False\n"), done.err
    assert text in done.err


def test_the_list_of_commands_says_what_each_command_says_itself() -> None:
    listed = {}
    for purposes in PANELS.values():
        for name, purpose in purposes.items():
            loaded = load_command(name)
            assert loaded.name == name
            assert " ".join(loaded.help.split("\n\n")[0].split()) == purpose
            listed[name] = loaded.callback
    assert tuple(listed) == COMMANDS
    folder = Path(cli.__file__).parent
    shared = {"__init__", "commands", "data_options", "option_groups", "options", "show"}
    modules = {path.stem for path in folder.glob("*.py")} - shared
    assert {PLACES.get(name, name).partition(".")[0] for name in COMMANDS} == modules


# What it says when it cannot.


def fails(done: Finished, code: int, kind: str, *parts: str) -> None:
    assert done.code == code, done.out + done.err
    assert set(done.json) == {"error"}
    error = done.json["error"]
    assert set(error) == {"type", "message", "remedy"}
    assert error["type"] == kind
    for part in parts:
        assert part in error["message"]
    assert error["remedy"]
    assert "Traceback" not in done.err


USAGE: list[tuple[Sequence[str], str]] = [
    (("train", "a.toml", "-o", "run", "--keep"), "--keep was given without --trials"),
    (
        ("train", "a.toml", "-o", "s", "--trials", "2", "--resume"),
        "--resume was given with --trials",
    ),
    (("export", "default", "--to", "fair", "-o", "town"), "only one of --to fair and --url"),
    (["predict", "a", "-o", "b", "--sample", "s.csv"], "without --outputs rle"),
    (["predict", "a", "-o", "b", "--refine", "sam"], "--refine sam needs --sam-weights"),
    (["predict", "a", "-o", "b", "--sam-weights", "w"], "--sam-weights requires --refine sam"),
    (["predct", "a"], "predct"),
    (["predict"], "'IMAGES'"),
    (["predict", "a"], "--out"),
    (["predict", "a", "-o", "b", "--gdd", "1"], "--gdd"),
    (["predict", "a", "-o", "b", "--threshold", "2"], "--threshold"),
    (["split", "a", "-o", "b", "--by", "size"], "--by"),
    (["split", "a", "-o", "b", "--val", "much"], "--val"),
    (["evaluate", "default", "a", "--nodata", "white"], "--nodata"),
    (["evaluate", "default", "a", "--nodata", "nan"], "nodata"),
    (["evaluate", "default", "a", "--nodata", "1,,2"], "--nodata"),
    (["predict", "a", "-o", "b", "--on-error", "skip"], "'skip' is not one of 'fail'"),
    (["export", "--to", "tflite", "-o", "model"], "'tflite' is not one of 'onnx'"),
    (["predict", "a", "-o", "b", "--gsd", "abc"], "it should be a number; got 'abc'"),
    (["predict", "a", "-o", "b", "--gsd", "0,3"], "a decimal point: 0.3; got '0,3'"),
    (["predict", "a", "-o", "b", "--gsd", "-1"], "or equal to 0.0001; got '-1'"),
    (["predict", "a", "-o", "b", "--workers", "1.5"], "a whole number; got '1.5'"),
]


@pytest.mark.parametrize(("arguments", "part"), USAGE, ids=lambda value: str(value))
def test_a_wrong_command_line(arguments: Sequence[str], part: str) -> None:
    fails(command(*arguments, "--json"), 2, "ConfigError", part)
    plain = command(*arguments)
    assert (plain.code, plain.out) == (2, "")
    assert part in plain.err
    assert "error:" in plain.err
    # No words of pydantic or typer.
    assert not re.search("Value error|Input should", plain.err)


@pytest.fixture
def corrupt(data: Path, tmp_path: Path) -> Path:
    """A copy of the data whose second image is cut off in the middle."""
    folder = tmp_path / "corrupt"
    shutil.copytree(data, folder)
    image = folder / "images/synthetic_00001.tif"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return folder


def config_for(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(
        f'crop_px = 32\nepochs = 1\nprecision = "fp32"\ndevice = "cpu"\nbatch_size = 2\n'
        f'samples_per_epoch = 40\n[model]\nencoder = "tu-test_resnet"\nencoder_weights = "none"\n'
        f"[[data.train]]\npath = '{data}'\n[[data.val]]\npath = '{data}'\nname = 'val'\n"
    )
    return path


def test_a_corrupt_image(corrupt: Path, bundle: Path, tmp_path: Path) -> None:
    image = corrupt / "images/synthetic_00001.tif"
    out = tmp_path / "out"
    done = command("evaluate", bundle, corrupt, "-o", out, "--json")
    fails(done, 3, "DataError", str(image), "cannot be read")
    assert not out.exists()
    done = command("predict", image, "-m", bundle, "-o", out, "--json")
    assert done.code == 3
    assert str(image) in done.json["error"]["message"]
    assert not list(out.glob("synthetic*")) + list(out.glob(".*"))
    done = command("train", config_for(tmp_path, corrupt), "-o", tmp_path / "run", "--json")
    fails(done, 3, "DataError", str(image))
    assert not list((tmp_path / "run").glob("*.rooftrace"))


@pytest.mark.campaign
def test_an_output_that_cannot_be_written(data: Path, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    image = data / "images/synthetic_00000.tif"
    for arguments in (
        ("split", data, "-o", file / "split.json", "--val", 0.3, "--test", 0.3),
        ("train", config_for(tmp_path, data), "-o", file / "run"),
        ("evaluate", bundle, data, "-o", file / "out"),
        ("predict", image, "-m", bundle, "-o", file / "out"),
    ):
        fails(command(*arguments, "--json"), 5, "ExportError", str(file), "could not be written")
    assert file.read_text() == ""


def test_an_empty_folder_and_a_file_that_is_not_there(
    data: Path, bundle: Path, tmp_path: Path
) -> None:
    absent, empty, out = (tmp_path / name for name in ("absent", "empty", "out"))
    empty.mkdir()
    for path, error in ((absent, "DataError"), (empty, "LayoutError")):
        fails(command("evaluate", bundle, path, "--json"), 3, error, str(path))
        fails(command("split", path, "-o", out, "--json"), 3, error, str(path))
        predict = ("predict", path, "-m", bundle, "-o", tmp_path / "o", "--json")
        fails(command(*predict), 3, "DataError", str(path))
    trained = command("train", config_for(tmp_path, empty), "-o", tmp_path / "run", "--json")
    fails(trained, 3, "LayoutError", str(empty), "it contains nothing")
    assert not out.exists()
    fails(command("evaluate", absent, data, "--json"), 4, "BundleError", f"no bundle at {absent}")
    fails(command("train", absent, "-o", tmp_path / "r", "--json"), 2, "ConfigError", str(absent))
    split = ("--split", f"{absent}:val")
    done = command("evaluate", bundle, data, *split, "--json")
    fails(done, 2, "ConfigError", str(absent), "is not a split file")
