"""Files that the page hands out, read by others."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from page_images import SHAPE, UTM, kept_of, result_of
from PIL import Image

from rooftrace.app.page.files import DOWNLOADS, dense_or_sparse, table_csv
from rooftrace.app.page.results import Result
from rooftrace.core.errors import DataError


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_every_kind_can_be_read(nowhere: Path, tmp_path: Path) -> None:
    prediction = kept_of().prediction
    made = {}
    for kind, download in DOWNLOADS.items():
        name, data = download.of(prediction)
        made[kind] = tmp_path / name
        made[kind].write_bytes(data)
    assert [path.name for path in made.values()] == [
        "town_mask.tif", "town_buildings.geojson", "town_buildings.gpkg", "town_overlay.png"
    ]  # fmt: skip
    assert not [*nowhere.iterdir()]
    with rasterio.open(made["mask"]) as mask:
        np.testing.assert_array_equal(mask.read(1), prediction.mask.data)
        assert mask.crs.to_epsg() == UTM.to_epsg()
    frame = gpd.read_file(made["gpkg"])
    assert len(frame) == 2
    assert frame.crs == UTM
    assert frame.area.sum() == pytest.approx((20 * 30 + 20 * 20) * 0.25)
    assert len(json.loads(made["geojson"].read_text())["features"]) == 2
    with Image.open(made["overlay"]) as picture:
        assert picture.height > SHAPE[0]


def test_an_image_that_lies_nowhere_gives_a_png_mask_and_pixels(tmp_path: Path) -> None:
    prediction = kept_of("town.png", placed=False).prediction
    name, data = DOWNLOADS["mask"].of(prediction)
    assert name == "town_mask.png"
    with Image.open(io.BytesIO(data)) as mask:
        np.testing.assert_array_equal(np.asarray(mask), prediction.mask.data)
    name, data = DOWNLOADS["gpkg"].of(prediction)
    (tmp_path / name).write_bytes(data)
    left, top, right, bottom = gpd.read_file(tmp_path / name).total_bounds
    assert (left, top, right, bottom) == (10, 10, 80, 70)


def test_a_table_has_a_row_for_each_image() -> None:
    results = [
        result_of("town.tif"),
        Result("=cmd.tif", error=DataError("It is broken.", remedy="Send another.")),
        result_of("flat.png", placed=False),
    ]
    results[0].at(0.8)
    rows = [*csv.DictReader(io.StringIO(table_csv(results)))]
    assert [row["image"] for row in rows] == ["town.tif", "'=cmd.tif", "flat.png"]
    assert [row["buildings"] for row in rows] == ["1", "", "2"]
    assert float(rows[0]["built_up_share"]) == pytest.approx(600 / 8000)
    assert [row["density"] for row in rows] == ["sparse", "", "sparse"]
    assert [row["threshold"] for row in rows] == ["0.8", "", "0.5"]
    assert (float(rows[0]["gsd_m"]), rows[2]["gsd_m"]) == (pytest.approx(0.5, rel=0.01), "")
    assert rows[1]["error"] == "It is broken. Send another."


@pytest.mark.parametrize(
    ("share", "valid", "name"),
    [(0.0, 9, "sparse"), (0.199, 9, "sparse"), (0.2, 9, "dense"), (0.0, 0, None)],
)
def test_sparse_and_dense_are_those_of_rooftrace_density(
    share: float, valid: int, name: str | None
) -> None:
    assert dense_or_sparse(share, valid) == name
