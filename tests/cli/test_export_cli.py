"""`rooftrace export`, and what it wrote as a model of other commands."""

from pathlib import Path

import pytest

from command_line import call

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


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
