"""The notebooks run from top to bottom, and a prediction shows itself in them."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor, load
from tiny_models import write_tiny_bundle

FOLDER = Path(__file__).parents[2] / "notebooks"


def executed(name: str, **parameters: object) -> list[Any]:
    """Run the cells as Jupyter does, with other parameters; return what they show."""
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    variables: dict[str, Any] = {}
    shown = []
    for cell in cells:
        tags, text = cell["metadata"].get("tags", []), "".join(cell["source"])
        assert cell.get("outputs", []) == [], "notebooks are kept without outputs"
        if cell["cell_type"] != "code" or "map" in tags:
            continue
        if text.startswith("!"):
            command = shlex.split(text[1:].format(**variables))
            assert command[0] == "rooftrace"
            subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
            continue
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), variables)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), name, "eval"), variables))
        if "parameters" in tags:
            variables |= parameters
    return shown


@pytest.mark.campaign
def test_a_scene_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result, described, large, printed = executed("map-a-scene.ipynb")
    count = int(described.loc["count", "score"])
    assert 700 < count < 1181
    assert f"{count:,}" in result._repr_html_()
    assert (large["area_m2"] > 1000).all()
    assert printed is None
    assert (tmp_path / "out/demo_scene_buildings.gpkg").is_file()


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of affine, by rasterio
def test_a_model_is_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    figures, prediction = executed("fine-tune-on-tiles.ipynb", minutes=0.1)
    assert all(set(one) == {"start", "tuned"} for one in figures.values())
    assert figures
    assert prediction.mask.shape == (512, 512)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace"))


def picture() -> np.ndarray:
    image = np.full((1200, 700, 3), 20, np.uint8)
    image[200:600, 300:600] = 230
    return image


def test_a_prediction_is_a_picture_and_a_table(model: Predictor) -> None:
    result = model.predict(picture(), gsd_m=0.4)
    html = result._repr_html_()
    for text in ("data:image/jpeg;base64,", "Buildings", "700 × 1,200 px", "0.4 m per pixel"):
        assert text in html
    png = result._repr_png_()
    assert png is not None
    assert png.startswith(b"\x89PNG")
    only_mask = model.predict(picture(), options=SceneOptions(outputs=("mask",)))
    assert only_mask._repr_png_() is None
    assert "<img" not in only_mask._repr_html_()
