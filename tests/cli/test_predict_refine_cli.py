"""`rooftrace predict --refine sam` with a tiny network of transformers."""

import json
from pathlib import Path

import geopandas
import pytest

pytest.importorskip("transformers")

from command_line import command
from sam_models import save_tiny
from tiny_models import write_tiny_bundle
from town import generate_scene

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "sam2", "sam2")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the arguments of a scene and a model."""
    folder = tmp_path_factory.mktemp("scene")
    generate_scene(3, (200, 240)).write(folder, "scene")
    bundle = write_tiny_bundle(folder / "tiny.rooftrace")
    return "predict", str(folder / "scene.tif"), "-m", str(bundle), "--threshold", "0.6"


def test_the_outlines_of_a_scene_are_refined(
    given: tuple[str, ...], weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = command(*given, "--refine", "sam", "--sam-weights", weights, "-o", out, "--json")
    assert done.code == 0, done.err
    record = json.loads((out / "run.json").read_text())
    assert record["options"]["refine"]["kind"] == "sam2"
    assert record["options"]["refine"]["name"] == str(weights)
    table = geopandas.read_file(out / "scene_buildings.gpkg")
    assert len(table) == record["figures"][0]["classes"][1]["polygons"] > 5
    assert table["refined"].sum() == record["figures"][0]["refined"]
    assert "buildings were refined" in " ".join(record["notes"])
    again = tmp_path / "again"
    done = command(*given, "--refine", "sam", "--sam-weights", weights, "-o", again)
    assert done.code == 0
    for name in ("scene_buildings.gpkg", "scene_mask.tif", "scene_preview.png"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("{folder}/none", 4, "There is no folder"),
        ("{folder}", 4, "has no config.json"),
        ("{weights} --outputs mask", 2, "only the mask was requested"),
    ],
)
def test_wrong_options_are_refused_before_the_work(
    given: tuple[str, ...], weights: Path, tmp_path: Path, options: str, code: int, message: str
) -> None:
    placed = [one.format(weights=weights, folder=tmp_path) for one in options.split()]
    done = command(*given, "--refine", "sam", "--sam-weights", *placed, "-o", tmp_path / "out")
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert not list((tmp_path / "out").glob("scene_*"))
