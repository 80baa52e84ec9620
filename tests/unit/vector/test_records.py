"""Polygons along pixel edges return from their bytes."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.vector.prepare import decode_staircases, encode_staircases
from rooftrace.vector.trace import trace


def decoded(polygons: np.ndarray) -> np.ndarray:
    records = np.empty(len(polygons), np.object_)
    records[:] = encode_staircases(polygons)
    return decode_staircases(records)


@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.9), far=st.integers(0, 2**31 - 100))
def test_regions_with_holes_return_anywhere_in_a_scene(seed: int, share: float, far: int) -> None:
    mask = np.random.default_rng(seed).random((30, 40)) < share
    polygons = shapely.transform(trace(mask).polygons, lambda xy: np.add(xy, (far, 0)))
    assert shapely.to_wkb(decoded(polygons)).tolist() == shapely.to_wkb(polygons).tolist()


def test_polygons_off_the_pixels_and_with_long_edges_return() -> None:
    polygons = np.array([
        shapely.box(0, 0, 127, 3), shapely.box(0, 0, 128, 3), shapely.box(5.5, 0, 6, 1),
        shapely.box(7, 7, 8, 8), shapely.Polygon(),
    ])  # fmt: skip
    for chosen in (polygons, polygons[:4], polygons[1:3], polygons[:0]):
        assert shapely.to_wkb(decoded(chosen)).tolist() == shapely.to_wkb(chosen).tolist()


def test_a_staircase_takes_an_eighth_of_the_bytes_of_wkb() -> None:
    polygon = trace(np.tri(100, dtype=np.uint8)).polygons[0]
    (record,) = encode_staircases(np.array([polygon]))
    assert len(record) < len(polygon.wkb) / 7
