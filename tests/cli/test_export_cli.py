"""`rooftrace export`, and what it wrote as a model of other commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import call
from processor_marks import needs_bf16
from rooftrace.engines.base import this_processor

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, whose bright half is labelled."""
    folder = tmp_path_factory.mktemp("halves")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(6):
        image = rng.integers(0, 60, (256, 256, 3), np.uint8)
        image[:, 128:] += 160
        mask = np.zeros((256, 256), np.uint8)
        mask[:, 128:] = 255
        Image.fromarray(image).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    return folder


FORMS = [
    ("onnx", "fp32", "m.onnx", "openvino"),
    ("onnx", "fp16", "m.onnx", "onnxruntime"),
    ("onnx", "int8", "m.onnx", "openvino"),
    pytest.param("openvino", "bf16", "m.xml", "openvino", marks=needs_bf16),
]


@pytest.mark.campaign
@pytest.mark.parametrize(("to", "precision", "name", "engine"), FORMS)
def test_an_export_is_a_model_of_every_command(
    to: str, precision: str, name: str, engine: str,
    bundle: Path, data: Path, tmp_path: Path
) -> None:  # fmt: skip
    out = tmp_path / name
    given = "--calibration" if precision == "int8" else "--check"
    code, answer = call("export", bundle, "--to", to, "--precision", precision, given, data,
                        "-o", out)  # fmt: skip
    assert code == 0, answer
    assert answer == json.loads((tmp_path / f"{name}.report.json").read_text())
    # Without VNNI, int8 is added in 16 bits, which saturate.
    saturates = precision == "int8" and not this_processor().has_fast_int8
    assert answer["parity"][0]["label_iou"] > (0.97 if saturates else 0.99)
    image = data / "images/0.png"
    code, answer = call("predict", image, "-m", out, "-o", tmp_path / "out")
    assert code == 0, answer
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["engine"]["name"] == engine
    assert run["bundle"]["file"] == str(out)
    assert answer["outputs"][0]["built_up_share"] == pytest.approx(0.5, abs=0.01)
    code, answer = call("evaluate", out, data)
    assert code == 0, answer
    assert answer["pixel"]["iou"] > 0.98
    # By any engine that takes it.
    code, answer = call("predict", image, "-m", out, "-o", tmp_path / "other", "--engine",
                        "onnxruntime" if to == "onnx" else "openvino")  # fmt: skip
    assert code == 0, answer


REFUSED = [
    (["--to", "onnx", "--precision", "int8", "-o", "m.onnx"], 2, "--calibration DATA"),
    (["--to", "onnx", "-o", "m.pt"], 2, "m.onnx"),
    (["--to", "torch", "-o", "m.pt"], 2, "--help"),
    (["--to", "onnx", "--check", "absent", "-o", "m.onnx"], 3, "Check the path"),
    (["--to", "onnx", "--tolerance", "2", "-o", "m.onnx"], 2, "--help"),
]


@pytest.mark.parametrize(("given", "code", "remedy"), REFUSED)
def test_what_is_refused(
    given: list[str], code: int, remedy: str,
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    got, answer = call("export", bundle, *given)
    assert got == code
    assert remedy in answer["error"]["remedy"]
    assert not list(tmp_path.iterdir())


def test_an_ensemble_is_refused(tmp_path: Path) -> None:
    code, answer = call("export", tmp_path / "a.json", "--to", "onnx", "-o", tmp_path / "m.onnx")
    assert code == 2
    assert "Export each of its members" in answer["error"]["remedy"]
