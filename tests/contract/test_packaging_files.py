"""The files for conda, Docker and citations say what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"opencv-python-headless": "opencv"}
"""Names of packages on conda-forge that differ from those on PyPI."""


def test_the_conda_recipe_has_the_dependencies_of_the_core_install() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == PROJECT["version"]
    wanted = [f"python {PROJECT['requires-python']}"]
    for one in PROJECT["dependencies"]:
        name, limit = re.fullmatch(r"([\w-]+)(>=[\d.]+)", one).groups()
        wanted.append(f"{CONDA_NAMES.get(name, name)} {limit}")
    assert recipe["requirements"]["run"] == wanted
    assert recipe["about"]["summary"] == PROJECT["description"]
    [script] = recipe["build"]["python"]["entry_points"]
    assert script == f"rooftrace = {PROJECT['scripts']['rooftrace']}"


def test_the_citation_has_the_version_and_the_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_docker_image_has_extras_that_exist() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [extras] = re.findall(r"\.whl\)\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_workflows_run_what_the_repository_has() -> None:
    folder = ROOT / ".github" / "workflows"
    steps = [
        step.get("run", "")
        for path in folder.glob("*.yml")
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        for step in job["steps"]
    ]
    assert {".ci/run", "make test-all"} <= set(steps)
    files = re.findall(r"(?:tests|tools)/[\w/.]+", "\n".join(steps))
    assert [name for name in files if not (ROOT / name).exists()] == []
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    goals = set(re.findall(r"^step make ([\w-]+)", text, re.M)) | {"test-all"}
    rules = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert goals == {"env", "test", "lint", "types", "layers", "demo", "test-all"}
    assert goals <= rules
