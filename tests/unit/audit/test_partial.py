"""Labels that end where the town goes on are found; complete labels and an area are not."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest
from shapely import box

from rooftrace.audit.facts import Finding
from rooftrace.audit.report import run_audit
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from town import generate_scene


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with all labels, those of its western half, and that half as an area."""
    folder = tmp_path_factory.mktemp("half")
    drawn = generate_scene(5, shape_yx=(768, 1024))
    drawn.write(folder, "scene")
    labels = gpd.read_file(folder / "scene_truth.gpkg")
    left, bottom, right, top = drawn.grid.bounds_xy
    area = box(left, bottom, (left + right) / 2, top)
    labels[labels.intersects(area)].to_file(folder / "west.gpkg")
    gpd.GeoDataFrame(geometry=[area], crs=labels.crs).to_file(folder / "area.gpkg")
    return folder


def found(labels: Path, area: str | None = None) -> dict[str, Finding]:
    images = str(labels.parent / "scene.tif")
    source = open_source(SourceConfig(path=str(labels), images=images, area=area))
    return {finding.key: finding for finding in run_audit(source).findings}


def test_labels_of_a_part_only(half: Path) -> None:
    finding = found(half / "west.gpkg")["label.partial"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert "--area" in finding.remedy
    assert "label.partial" not in found(half / "west.gpkg", str(half / "area.gpkg"))
    assert "label.partial" not in found(half / "scene_truth.gpkg")
