"""Warnings that several threads silence at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from rasterio import features

import rooftrace
from rooftrace.core.types import GeoGrid
from rooftrace.io.area import Area, AreaSource
from rooftrace.io.gdal import QUIET
from rooftrace.io.sources import ArraySource
from rooftrace.metrics.image_counts import rasterize_polygons


def test_polygons_are_drawn_while_no_other_thread_silences_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = features.rasterize
    locked: list[bool] = []

    def rasterize(*given: Any, **options: Any) -> Any:
        locked.append(QUIET.locked())
        return drawn(*given, **options)

    monkeypatch.setattr(features, "rasterize", rasterize)
    outline = np.array([shapely.box(2, 2, 6, 6)])
    source = ArraySource(np.ones((1, 8, 8), np.uint8), GeoGrid((8, 8)))
    assert AreaSource(source, Area(outline, None, "area")).read().valid.sum() == 16
    assert (rasterize_polygons(outline, (8, 8)) > 0).sum() == 16
    assert locked == [True, True]


def test_nothing_draws_polygons_without_the_lock() -> None:
    package = Path(rooftrace.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"rasterio\.features import|from rasterio import .*features", path.read_text())
    ]
    assert found == [str(Path("io", "gdal.py"))]
