"""A plan covers the scene, and the weights of its tiles sum to one everywhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.types import Window
from rooftrace.tiling.plan import WEIGHT_ONE, TilePlan, plan_blocks, plan_tiles


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    shape = draw(st.tuples(st.integers(1, 400), st.integers(1, 400)))
    multiple = draw(st.sampled_from([1, 8, 32]))
    overlap = draw(st.integers(0, 60))
    return plan_tiles(
        shape, tile_px=draw(st.integers(1, 6)) * 32, overlap_px=overlap,
        trim_px=draw(st.integers(0, overlap // 2)), multiple_px=multiple, exact=draw(st.booleans()),
    )  # fmt: skip


@given(plans())
def test_weights_sum_to_one(tiles: TilePlan) -> None:
    for axis in (tiles.rows, tiles.cols):
        total = np.zeros((axis.count - 1) * axis.stride_px + axis.tile_px, dtype=int)
        for i in range(axis.count):
            total[i * axis.stride_px :][: axis.tile_px] += axis.weights(i)
        assert (total == WEIGHT_ONE).all()
        assert len(total) >= axis.length


@given(plans(), st.data())
def test_tiles_for_is_exactly_the_tiles_with_weight(tiles: TilePlan, data: st.DataObject) -> None:
    height, width = tiles.shape_yx
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(
        row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    )
    every = [(i, j) for i in range(tiles.rows.count) for j in range(tiles.cols.count)]
    expected = [index for index in every if tiles.tile(index).write.intersection(window)]
    assert tiles.tiles_for(window) == expected


@given(plans())
def test_write_lies_in_read_and_in_the_scene(tiles: TilePlan) -> None:
    scene = Window.whole(tiles.shape_yx)
    for index in tiles.tiles_for(scene):
        tile = tiles.tile(index)
        assert tile.write.intersection(tile.read) == tile.write
        assert tile.write.intersection(scene) == tile.write


@given(st.integers(1, 30_000), st.sampled_from([256, 512, 1024, 2048]), st.sampled_from([32, 64]))
def test_sizes_are_multiples_within_the_limit(length: int, tile_px: int, multiple: int) -> None:
    axis = plan_tiles((length, length), tile_px=tile_px, overlap_px=64, multiple_px=multiple).rows
    assert axis.tile_px % multiple == 0
    assert axis.tile_px <= tile_px


def test_exact_size_is_kept() -> None:
    tiles = plan_tiles((100, 1000), tile_px=256, overlap_px=64, exact=True)
    assert tiles.tile_shape_yx == (256, 256)


@given(st.tuples(st.integers(1, 6000), st.integers(1, 70_000)), st.sampled_from([512, 2048, 4096]))
def test_blocks_partition_the_scene(shape: tuple[int, int], block_px: int) -> None:
    blocks = plan_blocks(shape, block_px=block_px)
    assert sum(block.area_px for block in blocks) == shape[0] * shape[1]
    assert all(block.row % 512 == 0 and block.col % 512 == 0 for block in blocks)
    assert all(block.intersection(Window.whole(shape)) == block for block in blocks)
    assert len(set(blocks)) == len(blocks)
    assert blocks == sorted(blocks)
