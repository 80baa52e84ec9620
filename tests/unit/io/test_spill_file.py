"""Polygons return from a temporary file."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.io import spill_file as module
from rooftrace.io.spill_file import SpillFile


def squares(count: int) -> np.ndarray:
    """Each of its own, some with a hole, so that they differ in size."""
    outer = shapely.box(*np.arange(count) + np.array([[0], [0], [9], [9]]))
    inner = shapely.box(*np.arange(count) + np.array([[2], [2], [4], [4]]))
    return np.where(np.arange(count) % 3 == 0, shapely.difference(outer, inner), outer)


@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("gap_bytes", [-1, 0, 200, 1 << 20])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_polygons_return_in_the_requested_order(
    seed: int, gap_bytes: int, in_memory_bytes: int
) -> None:
    generator = np.random.default_rng(seed)
    polygons = squares(20)
    spool = SpillFile(in_memory_bytes=in_memory_bytes)
    first, second = spool.append(polygons[:7]), spool.append(polygons[7:])
    start, stop = np.append(first[:-1], second[:-1]), np.append(first[1:], second[1:])
    assert first[-1] == second[0]
    asked = generator.integers(0, 20, generator.integers(0, 12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_GAP_BYTES", gap_bytes)
        read = spool.read(start[asked], stop[asked])
    spool.close()
    assert shapely.equals_exact(read, polygons[asked]).all()
