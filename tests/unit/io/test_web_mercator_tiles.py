from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from rooftrace.io.web_mercator import WORLD_M, TileName


@st.composite
def tiles(draw: st.DrawFn) -> TileName:
    zoom = draw(st.integers(0, 24))
    at = st.integers(0, (1 << zoom) - 1)
    return TileName(zoom, draw(at), draw(at))


SHAPES = st.tuples(st.integers(1, 600), st.integers(1, 600))


@given(tiles())
def test_a_name_is_read_as_it_is_written(tile: TileName) -> None:
    assert TileName.parse(Path(f"a/OAM-{tile.col}-{tile.row}-{tile.zoom}.png")) == tile
    assert TileName.parse(Path(f"a/{tile}.webp")) == tile
    assert TileName.parse(Path(f"a/{tile}.webp"), folders=False) is None
    # A short one may also be a number.
    read = tile if tile.zoom >= 15 else None
    assert TileName.parse(Path(f"b/{tile.quadkey}.jpeg"), folders=False) == read


@given(st.text(max_size=30))
def test_any_name_is_a_tile_or_none(name: str) -> None:
    tile = TileName.parse(Path(name))
    if tile is not None:
        assert 0 <= tile.row < 1 << tile.zoom
        assert 0 <= tile.col < 1 << tile.zoom


@pytest.mark.parametrize(
    "name", ["OAM-9-0-3.png", "3/9/0.png", "31/0/0.png", "2024/5/7.png", "7.png"]
)
def test_a_number_that_the_zoom_does_not_have_is_no_tile(name: str) -> None:
    assert TileName.parse(Path("x") / name) is None


@given(tiles(), SHAPES)
def test_a_grid_shows_its_tile(tile: TileName, shape: tuple[int, int]) -> None:
    grid = tile.grid(shape)
    assert grid.bounds_xy == pytest.approx(tile.bounds_xy, abs=1e-6)
    assert tile.placed(grid) is grid


@given(tiles())
def test_children_lie_in_their_parents(tile: TileName) -> None:
    for zoom in range(tile.zoom + 1):
        left, bottom, right, top = tile.parent(zoom).bounds_xy
        inner = tile.bounds_xy
        assert left <= inner[0] + 1e-6
        assert bottom <= inner[1] + 1e-6
        assert inner[2] <= right + 1e-6
        assert inner[3] <= top + 1e-6


@given(tiles())
def test_tms_counts_from_the_south(tile: TileName) -> None:
    left, bottom, right, top = tile.bounds_xy
    assert tile.flipped().bounds_xy == pytest.approx((left, -top, right, -bottom), abs=1e-6)
    assert tile.flipped().flipped() == tile


@given(st.floats(-80, 80), st.floats(-179, 179), st.integers(0, 22))
def test_the_formula_of_the_wiki(lat: float, lon: float, zoom: int) -> None:
    """Compare with https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames."""
    n = 2**zoom
    col = (lon + 180) / 360 * n
    row = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * n
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(lon, lat)
    left, bottom, right, top = TileName(zoom, int(row), int(col)).bounds_xy
    tolerance = 1e-6 * WORLD_M
    assert left - tolerance <= x <= right + tolerance
    assert bottom - tolerance <= y <= top + tolerance
