"""Finished blocks on disk: the same blocks come back, and what is damaged does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Window
from rooftrace.io.legend import NODATA
from rooftrace.predict.block import Block, TileOutput, TileStats
from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore, pack, unpack


def part(seed: int = 0) -> Checkpoint:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, (30, 40), dtype=np.uint8)
    mask[:5] = 255
    block = Block(
        Window(100, 200, 30, 40),
        np.bincount(mask.ravel(), minlength=256),
        mask,
        rng.integers(0, 256, (30, 40), dtype=np.uint8),
    )
    strip = rng.integers(0, 256, (2, 4, 40), dtype=np.uint8)
    halo = (
        (7, TileOutput((3, 4), Window(126, 200, 4, 40), strip)),
        (9, TileOutput((3, 5), Window(126, 240, 4, 2), None)),
    )
    thumbnail = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), rng.random((3, 4)) > 0.5
    return Checkpoint(replace(block, thumbnail=thumbnail, tiles=TileStats(4)), halo)


def same(one: Checkpoint, other: Checkpoint) -> None:
    assert one.block.window == other.block.window
    for name in ("mask", "count"):
        np.testing.assert_array_equal(getattr(one.block, name), getattr(other.block, name))
    built = (one.block.mask != 0) & (one.block.mask != NODATA)
    np.testing.assert_array_equal(one.block.score[built], other.block.score[built])
    assert one.block.tiles == other.block.tiles
    assert one.block.thumbnail is not None
    assert other.block.thumbnail is not None
    for mine, theirs in zip(one.block.thumbnail, other.block.thumbnail):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    for (number, mine), (target, theirs) in zip(one.halo, other.halo, strict=True):
        assert (number, mine.index, mine.extent) == (target, theirs.index, theirs.extent)
        assert (mine.probability is None) == (theirs.probability is None)
        if mine.probability is not None and theirs.probability is not None:
            np.testing.assert_array_equal(mine.probability, theirs.probability)


def test_a_part_comes_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "parts", {"model": "a"})
    assert store.load(3) is None
    store.save(3, part())
    again = CheckpointStore(tmp_path / "parts", {"model": "a"})
    assert not again.replaced
    loaded = again.load(3)
    assert loaded is not None
    same(part(), loaded)
    assert again.load(4) is None


def test_parts_of_another_run_are_given_up(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "parts", {"model": "a"}).save(0, part())
    other = CheckpointStore(tmp_path / "parts", {"model": "b"})
    assert other.replaced
    assert other.load(0) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_part_is_none_and_never_another(data: st.DataObject) -> None:
    whole = pack(part())
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "more"]))
    if kind == "flip":
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    else:
        damaged = whole[:at] if kind == "cut" else whole + b"x"
    with pytest.raises(ValueError, match="damaged"):
        unpack(damaged)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="could not be written"):
        CheckpointStore(tmp_path / "file" / "parts", {})


def test_a_part_of_nodata_takes_no_room() -> None:
    block = Block.empty(Window(3, 4, 3000, 3000))
    empty = Checkpoint(replace(block, tiles=TileStats(tiles_empty=4)), part().halo)
    packed = pack(empty)
    assert len(packed) < 1500
    back = unpack(packed)
    assert [number for number, _ in back.halo] == [7, 9]
    assert (back.block.window, back.block.tiles) == (empty.block.window, empty.block.tiles)
    assert (back.block.mask == NODATA).all()
    assert back.block.is_empty
