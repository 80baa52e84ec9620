"""Tiles and footprints through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from rooftrace.cli import main
from rooftrace.data.config import SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.models.bundle import write_bundle
from rooftrace.testing import generate_scene


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments), "--json"])
    code = stopped.value.code
    assert isinstance(code, int)
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    generate_scene(3, shape_yx=(300, 400)).write(tmp_path / "data", "scene")
    return tmp_path / "data" / "scene_truth.gpkg"


def test_footprints_to_tiles_to_a_map(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, made = run(capsys, "convert", scene, "--to", "tiles", "-o", tmp_path / "tiles")
    assert (code, made["kind"], made["scenes"]) == (0, "tiles", 6)
    tiny = tiny_bundle()
    write_bundle(tmp_path / "tiny.rooftrace", tiny.spec, tiny.parts)
    options = ("-m", tmp_path / "tiny.rooftrace", "-o", tmp_path / "out")
    code, done = run(capsys, "predict", tmp_path / "tiles", "--mosaic", "--zoom", "19", *options)
    assert code == 0
    (output,) = done["outputs"]
    with rasterio.open(output["mask"]) as mask:
        assert mask.crs.to_epsg() == 3857
    code, done = run(capsys, "predict", tmp_path / "tiles", "--mosaic", "--zoom", "3", *options)
    assert (code, done["error"]["type"]) == (2, "ConfigError")


def test_footprints_to_folder_and_back(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through masks: what is lost is the outline between the pixels, and no pixel."""
    folder, layer = tmp_path / "folder", tmp_path / "again" / "layer.fgb"
    assert run(capsys, "convert", scene, "--to", "folder", "-o", folder)[0] == 0
    code, made = run(capsys, "convert", folder, "--to", "footprints", "-o", layer, "--copy-images")
    assert code == 0
    assert any("layer_images" in note for note in made["notes"])
    (given,) = open_source(SourceConfig(path=str(scene)))
    (back,) = open_source(SourceConfig(path=str(layer)))
    assert given.label is not None
    assert back.label is not None
    mask = given.label.read().data
    assert mask.any()
    np.testing.assert_array_equal(back.label.read().data, mask)


def test_a_layer_of_another_place_is_told(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene.parent / "x.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
        '"geometry": {"type": "Polygon", "coordinates": [[[2, 48], [3, 48], [3, 49], [2, 48]]]}}]}'
    )
    code, told = run(
        capsys, "convert", scene.parent / "x.geojson", "--to", "folder", "-o", tmp_path / "o"
    )
    assert (code, told["error"]["type"]) == (3, "GeoreferenceError")
    assert "longitude 2.0" in told["error"]["message"]
