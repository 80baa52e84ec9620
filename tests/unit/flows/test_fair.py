"""A base model for fAIr: what its checks ask for, and steps that run."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rooftrace.core.errors import ConfigError
from rooftrace.flows.export.card import run_fair
from rooftrace.models.bundle import read_bundle, write_bundle
from tiny_models import write_tiny_bundle

if TYPE_CHECKING:
    from tests.conftest import TinyRun

STUBS = Path(__file__).parents[2] / "fair_stubs"
URL = "https://example.org/weights"


@pytest.mark.parametrize(
    ("spec", "name", "url", "message"),
    [
        ({"licence": "MIT"}, "My-Model", URL, "named 'My-Model'"),
        ({"licence": "MIT"}, "town", "weights", "received 'weights'"),
        ({"licence": "CC-BY-4.0"}, "town", URL, "licence 'CC-BY-4.0'"),
        ({}, "town", URL, "licence 'unknown'"),
        ({"licence": "MIT", "bands": ("nir", "red", "green")}, "town", URL, "expected RGB"),
    ],
)
def test_what_fair_would_refuse_is_refused_first(
    tmp_path: Path, spec: dict[str, Any], name: str, url: str, message: str
) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.rooftrace", **spec)
    with pytest.raises(ConfigError, match=message):
        run_fair(bundle, tmp_path / name, url)
    assert not (tmp_path / name).exists()


@pytest.fixture(scope="module")
def folder(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model, in the place where fAIr's repository has it."""
    root = tmp_path_factory.mktemp("fair")
    bundle = read_bundle(tiny_run.bundle)
    spec = bundle.spec.model_copy(update={"licence": "MIT; trained on a drawn town"})
    write_bundle(root / "tiny.rooftrace", spec, bundle.parts)
    report = run_fair(root / "tiny.rooftrace", root / "models/tiny_town", f"{URL}/")
    assert report.notes[0].startswith("publish ")
    return report.folder


@pytest.mark.campaign
def test_the_folder_has_what_the_checks_of_fair_ask_for(folder: Path) -> None:
    """Restated from fair.utils.model_validator and fair.stac.validators of fair-py-ops 0.3.19."""
    functions = {
        name: {
            node.name: {ast.unparse(one) for one in node.decorator_list}
            for node in ast.parse((folder / name).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        for name in ("pipeline.py", "tests/test_steps.py")
    }
    steps = functions["pipeline.py"]
    assert steps["training_pipeline"] == steps["inference_pipeline"] == {"pipeline"}
    assert steps["split_dataset"] == {"step"}
    assert {"preprocess", "postprocess", "predict"} <= set(steps)
    assert set(functions["tests/test_steps.py"]) >= {
        "test_split_dataset", "test_train_model", "test_evaluate_model", "test_export_onnx",
    }  # fmt: skip
    stages = [line for line in (folder / "Dockerfile").read_text().splitlines() if " AS " in line]
    assert [line.split()[-1] for line in stages] == ["builder", "runtime", "test", "inference"]
    item = json.loads((folder / "stac-item.json").read_text(encoding="utf-8"))
    properties = item["properties"]
    assert item["id"] == "tiny-town"
    assert properties["license"] == "MIT"
    published = {item["assets"][key]["href"] for key in ("checkpoint", "model")}
    assert published == {
        f"{URL}/{path.name}"
        for path in (folder / "weights").iterdir()
        if path.suffix in (".pt", ".onnx")
    }
    assert all("tiny_town-" in url for url in published)
    declared = {one["key"]: one["default"] for one in properties["fair:hyperparameters_spec"]}
    given = {k.split(".")[1]: v for k, v in properties["mlm:hyperparameters"].items()}
    assert given == declared
    variables = properties["mlm:output"][1]["variables"]
    assert set(variables) == set(properties["cube:variables"])
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---")


@pytest.mark.campaign
def test_its_own_tests_pass_with_stand_ins_for_zenml(folder: Path) -> None:
    path = os.pathsep.join([str(STUBS), str(folder.parents[1]), os.environ.get("PYTHONPATH", "")])
    (checkpoint,) = map(str, (folder / "weights").glob("*.pt"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}",
         str(folder / "tests")],
        env={**os.environ, "PYTHONPATH": path, "FAIR_CHECKPOINT": checkpoint},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
