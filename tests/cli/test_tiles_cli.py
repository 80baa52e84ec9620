"""Tiles and footprints through the real command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import call
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import generate_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    generate_scene(3, shape_yx=(300, 400)).write(tmp_path / "data", "scene")
    return tmp_path / "data" / "scene_truth.gpkg"


def test_footprints_to_folder_and_back(scene: Path, tmp_path: Path) -> None:
    """Through masks: what is lost is the outline between the pixels, and no pixel."""
    folder, layer = tmp_path / "folder", tmp_path / "again" / "layer.fgb"
    assert call("convert", scene, "--to", "folder", "-o", folder)[0] == 0
    code, made = call("convert", folder, "--to", "footprints", "-o", layer, "--copy-images")
    assert code == 0
    assert any("layer_images" in note for note in made["notes"])
    (given,) = open_source(SourceConfig(path=str(scene)))
    (back,) = open_source(SourceConfig(path=str(layer)))
    assert given.label is not None
    assert back.label is not None
    mask = given.label.read().data
    assert mask.any()
    np.testing.assert_array_equal(back.label.read().data, mask)


@pytest.mark.campaign
def test_a_layer_of_another_place_is_refused(scene: Path, tmp_path: Path) -> None:
    (scene.parent / "x.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, '
        '"geometry": {"type": "Polygon", "coordinates": [[[2, 48], [3, 48], [3, 49], [2, 48]]]}}]}'
    )
    code, report = call(
        "convert", scene.parent / "x.geojson", "--to", "folder", "-o", tmp_path / "o"
    )
    assert (code, report["error"]["type"]) == (3, "GeoreferenceError")
    assert "longitude 2.0" in report["error"]["message"]
