"""An image of which nothing is known."""

from __future__ import annotations

from rooftrace.core.types import GeoGrid, RasterSource, Window
from rooftrace.io.sources import BlankSource


def test_it_is_black_and_valid_everywhere() -> None:
    source = BlankSource(GeoGrid((5, 7)), "a")
    assert isinstance(source, RasterSource)
    whole = source.read()
    assert whole.data.shape == (3, 5, 7)
    assert whole.data.dtype == source.dtype
    assert whole.valid.all()
    assert not whole.data.any()
    part = source.read(Window(1, 2, 3, 4))
    assert part.data.shape == (source.bands, 3, 4)
    assert part.grid == source.grid.crop(Window(1, 2, 3, 4))
