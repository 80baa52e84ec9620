"""Labels that are offset are shifted to their place, in whole and by window."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.types import GeoGrid, Mask, Scene, Window
from rooftrace.io.raster import RasterFile
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.derived import ShiftedLabel, cut_into_chips
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneEntry, SceneSet
from town import write_pairs

SHAPE = (9, 13)
GRID = GeoGrid(SHAPE)
RNG = np.random.default_rng(0)
DATA = RNG.integers(0, 3, SHAPE, dtype=np.uint8)
KNOWN = RNG.random(SHAPE) < 0.8


class Painted:
    def read(self, window: Window | None = None) -> Mask:
        window = window or Window.whole(SHAPE)
        assert window.intersection(Window.whole(SHAPE)) == window
        here = window.slices()
        return Mask(DATA[here], KNOWN[here], GRID.crop(window))


@given(st.integers(-15, 15), st.integers(-15, 15), st.data())
def test_every_pixel_comes_from_its_place(rows: int, cols: int, draw: st.DataObject) -> None:
    row, col = draw.draw(st.integers(0, 8)), draw.draw(st.integers(0, 12))
    window = Window(
        row, col, draw.draw(st.integers(1, 9 - row)), draw.draw(st.integers(1, 13 - col))
    )
    label = ShiftedLabel(Painted(), GRID, rows, cols, SHAPE)
    whole, part = label.read(), label.read(window)
    for r, c in np.ndindex(SHAPE):
        inside = 0 <= r - rows < SHAPE[0] and 0 <= c - cols < SHAPE[1]
        assert whole.valid[r, c] == (inside and KNOWN[r - rows, c - cols])
        if whole.valid[r, c]:
            assert whole.data[r, c] == DATA[r - rows, c - cols]
    np.testing.assert_array_equal(part.data, whole.data[window.slices()])
    np.testing.assert_array_equal(part.valid, whole.valid[window.slices()])
    assert part.grid == GRID.crop(window)


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """Labels that lie 3 rows too low and 2 columns too far left."""
    write_pairs(tmp_path, range(2), shape_yx=(64, 64))
    for path in (tmp_path / "masks").iterdir():
        with rasterio.open(path, "r+") as mask:
            mask.write(np.roll(mask.read(1), (3, -2), (0, 1)), 1)
    return tmp_path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SceneSet:
    folder = tmp_path_factory.mktemp("chips")
    write_pairs(folder, range(2), shape_yx=(70, 100), gsd_m=0.5)
    write_pairs(folder, [2], shape_yx=(64, 64), gsd_m=0.5, prefix="small")
    return open_source(SourceConfig(path=str(folder)))


def test_chips_that_follow_one_another_share_their_scene(scenes: SceneSet) -> None:
    opened: list[str] = []

    def open_scene(entry: SceneEntry) -> Scene:
        opened.append(entry.id)
        return scenes.open_scene(entry)

    chips = cut_into_chips(replace(scenes, open_scene=open_scene), 32)
    opened.clear()
    assert len(list(chips)) == 2 * 12 + 4
    assert opened == ["small_00002", "synthetic_00000", "synthetic_00001"]


def test_chips_of_nodata_alone_are_left_out(
    scenes: SceneSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RasterFile, "is_empty", lambda _, window: window.row > 0)
    chips = cut_into_chips(scenes, 32)
    assert len(chips) == 2 * 4 + 2
    assert chips.notes == ("Left out: 18 chips of nodata alone.",)
