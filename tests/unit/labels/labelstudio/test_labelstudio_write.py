"""Tasks written for Label Studio are read again unchanged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pyproj import CRS

from rooftrace.core.types import Footprints, GeoGrid, Mask
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import KINDS, open_source
from rooftrace.labels.labelstudio import predictions
from rooftrace.labels.labelstudio_export import label_of
from rooftrace.labels.labelstudio_regions import find_regions
from rooftrace.labels.source import SceneSet, WriteOptions
from rooftrace.vector.trace import trace

MULTI = LabelConfig(classes=("nothing", "road", "building", 'a <b> & "c"'), ignore=(9,))


def write(source: SceneSet, out: Path, **options: Any) -> Path:
    writer = KINDS["labelstudio"].write
    assert writer is not None
    written = writer(source, out, WriteOptions(**options), None)
    assert written.scenes == len(source)
    return written.path


def labels_of(source: SceneSet) -> Iterator[tuple[str, str, float | None, Any, Any]]:
    for entry, scene in zip(source.entries, source):
        assert scene.label is not None
        mask = scene.label.read()
        yield entry.id, entry.group, scene.gsd_m, mask.data.tolist(), mask.valid.tolist()


@pytest.fixture
def multi(tmp_path: Path) -> SceneSet:
    """Groups whose files have the same names, with four classes and unknown pixels."""
    rng = np.random.default_rng(5)
    for group in ("ä town", "b"):
        for part in ("images", "masks"):
            (tmp_path / "data" / group / part).mkdir(parents=True)
        for name in ("1", "2 x"):
            values = rng.choice([0, 1, 2, 3, 9], (24, 36)).astype(np.uint8)
            folder = tmp_path / "data" / group
            Image.fromarray(values).save(folder / "masks" / f"{name}.png")
            Image.new("RGB", (36, 24), (9, 9, 9)).save(folder / "images" / f"{name}.png")
    return open_source(SourceConfig(path=str(tmp_path / "data"), gsd_m=0.4), MULTI)


@pytest.mark.parametrize("images", ["refer", "copy"])
def test_there_and_back(multi: SceneSet, tmp_path: Path, images: str) -> None:
    path = write(multi, tmp_path / "out" / "tasks.json", images=images)
    again = open_source(SourceConfig(path=str(path)), MULTI)
    assert [*labels_of(again)] == [*labels_of(multi)]
    copied = sorted(p.name for p in (tmp_path / "out").rglob("*.png"))
    assert len(copied) == (4 if images == "copy" else 0)


def paint(results: list[dict[str, Any]], shape: tuple[int, int], names: tuple[str, ...]) -> Mask:
    """Write results as JSON and read them as a label."""
    regions, _ = find_regions(json.loads(json.dumps(results)), "prediction")
    vote = tuple((region, names.index(region.labels[0])) for region in regions)
    return label_of([vote], GeoGrid(shape), "image").read()


CLASSES = ("background", "building", "road")


@given(arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_polygons_of_predictions_cover_the_mask(mask: np.ndarray[Any, Any]) -> None:
    """Polygons may have holes, and islands in holes."""
    traced = trace(mask)
    n = len(traced)
    found = Footprints(
        traced.polygons, np.linspace(0.2, 1, n, dtype=np.float32), np.full(n, np.nan), None
    )
    [prediction] = predictions(found, GeoGrid(mask.shape), "building", "m1")
    assert prediction["model_version"] == "m1"
    assert ("score" in prediction) == (n > 0)
    for result, score in zip(prediction["result"], found.score):
        assert result["score"] == pytest.approx(score)
        assert 0 <= np.min(result["value"]["points"]) <= np.max(result["value"]["points"]) <= 100
    assert np.array_equal(paint(prediction["result"], mask.shape, CLASSES).data, mask)


def test_footprints_on_the_ground_go_back_to_pixels() -> None:
    grid = GeoGrid((50, 80), Affine(0.3, 0, 500_000, 0, -0.3, 9e6), CRS.from_epsg(32736))
    house = shapely.box(10, 5, 40, 30).difference(shapely.box(20, 10, 25, 20))
    placed = shapely.transform(
        np.array([house], dtype=object), lambda xy: np.stack(grid.to_world(*xy.T), axis=1)
    )
    found = Footprints(placed, np.ones(1, np.float32), np.ones(1), grid.crs)
    [prediction] = predictions(found, grid, "road", "m1")
    mask = paint(prediction["result"], grid.shape, CLASSES)
    expected = np.zeros(grid.shape, dtype=np.uint8)
    expected[5:30, 10:40] = 2
    expected[10:20, 20:25] = 0
    assert np.array_equal(mask.data, expected)
