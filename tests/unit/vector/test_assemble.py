"""Footprints of a scene do not depend on its division into blocks."""

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.errors import PredictError
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io.spill_file import SpillFile
from rooftrace.tiling.plan import plan_blocks
from rooftrace.vector import assemble, trace_blocks
from rooftrace.vector import resolve_overlaps as overlaps_module
from rooftrace.vector.assemble import FootprintAssembler, FootprintSet
from rooftrace.vector.prepare import (
    OutlineMaker,
    VectorOptions,
    owners,
    separate_by_owner,
)
from rooftrace.vector.resolve_overlaps import WallSharing, resolve_overlaps
from rooftrace.vector.trace import TracedPolygons, trace
from rooftrace.vector.watershed import WatershedOptions

UTM = GeoGrid((120, 160), Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), CRS(32633))
PLAIN = VectorOptions(min_area_px=0, simplify_px=0)


def town(seed: int, shape_yx: tuple[int, int] = (120, 160)) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of three classes, and markers inside class 1."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape_yx, np.uint8)
    markers = np.zeros(shape_yx, np.uint8)
    for _ in range(60):
        row, col = (int(rng.integers(0, side)) for side in shape_yx)
        height, width = rng.integers(3, 25, 2).tolist()
        kind = int(rng.choice([1, 1, 1, 2, 0]))
        mask[row : row + height, col : col + width] = kind
        markers[row : row + height, col : col + width] = 0
        if kind == 1:
            markers[row + 1 : row + height - 1, col + 1 : col + width - 1] = 1
    return mask, markers


def assembled(
    mask: np.ndarray,
    windows: list[Window],
    options: VectorOptions = PLAIN,
    markers: np.ndarray | None = None,
    grid: GeoGrid | None = None,
    classes: tuple[int, ...] = (1, 2),
    **more: object,
) -> FootprintSet:
    score = np.random.default_rng(5).integers(100, 256, mask.shape).astype(np.uint8)
    grid = grid or GeoGrid(mask.shape)
    with FootprintAssembler(grid, classes, 1, options, **more) as assembler:
        for window in windows:
            part = mask[window.slices()]
            inner = None if markers is None else markers[window.slices()]
            occurring = np.unique(part).tolist()
            assembler.feed(window, part, score[window.slices()], occurring, inner)
        return assembler.finish()


def separated(regions: TracedPolygons, markers: np.ndarray, least_px: float) -> TracedPolygons:
    found = trace(markers)
    counted = found.of(found.area_px >= least_px)
    return separate_by_owner(regions, counted, owners(regions, counted))


def blocks(shape_yx: tuple[int, int], side: int, seed: int) -> list[Window]:
    windows = plan_blocks(shape_yx, block_px=side)
    return [windows[i] for i in np.random.default_rng(seed).permutation(len(windows))]


def as_bytes(found: Footprints) -> tuple[object, ...]:
    columns = {name: values.tolist() for name, values in found.columns().items()}
    assert found.divided is not None
    return shapely.to_wkb(found.geometry).tolist(), repr(columns), found.divided.tolist()


BY_CORES = WatershedOptions(0.8, smallest_depth_px=2, core_probability=0.45)
BY_OUTLINE = replace(BY_CORES, core_probability=None)
WATERSHEDS = st.sampled_from([None, BY_OUTLINE, BY_CORES])


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(9, 60), st.booleans(), st.booleans(), WATERSHEDS)
def test_any_partition_gives_the_same(
    seed: int, side: int, regular: bool, with_markers: bool, watershed: WatershedOptions | None
) -> None:
    mask, markers = town(seed)
    options = VectorOptions(
        min_area_m2=3, min_hole_m2=2, regularize=regular, min_marker_px=4,
        watershed=watershed,
    )  # fmt: skip
    more = {"grid": UTM, "class_names": ("ground", "building", "water")}
    inner = markers if with_markers else None
    whole = assembled(mask, [Window.whole(mask.shape)], options, inner, **more)
    cut = assembled(mask, blocks(mask.shape, side, seed), options, inner, **more)
    assert as_bytes(whole.whole()) == as_bytes(cut.whole())
    assert (whole.counts, whole.regularized, whole.considered) == (
        cut.counts, cut.regularized, cut.considered
    )  # fmt: skip


class Elsewhere:
    """Workers to which calls and results pass through pickle, as between processes."""

    size = 2

    def __init__(self) -> None:
        self.calls: list[str] = []

    def submit(self, work: Callable[..., object], /, *given: object) -> Future[object]:
        self.calls.append(getattr(work, "func", work).__name__)
        call, own = pickle.loads(pickle.dumps((work, given)))
        result: Future[object] = Future()
        result.set_result(pickle.loads(pickle.dumps(call(*own))))
        return result


@settings(max_examples=6)
@given(st.integers(0, 1000), st.integers(9, 160), st.booleans(), WATERSHEDS)
def test_workers_that_trace_blocks_in_strips_give_the_same(
    seed: int, side: int, with_markers: bool, watershed: WatershedOptions | None
) -> None:
    mask, markers = town(seed)
    options = VectorOptions(min_area_m2=3, min_marker_px=4, watershed=watershed)
    inner = markers if with_markers else None
    whole = assembled(mask, [Window.whole(mask.shape)], options, inner, grid=UTM)
    windows = blocks(mask.shape, side, seed)
    workers = Elsewhere()
    # Regions of several blocks are joined many times, and markers wait for some of them.
    with (
        patch.object(assemble, "_STRIP_PX", 900),
        patch.object(trace_blocks, "_MIN_NEW_CORNERS", 100),
    ):
        cut = assembled(mask, windows, options, inner, grid=UTM, workers=workers)
    assert as_bytes(whole.whole()) == as_bytes(cut.whole())
    assert whole.counts == cut.counts
    assert set(workers.calls) >= {"trace", "join"}
    assert "make" not in workers.calls


@pytest.mark.campaign
@settings(max_examples=12)
@given(st.integers(0, 1000), st.integers(9, 60), st.booleans(), st.booleans(), WATERSHEDS)
def test_blocks_that_were_traced_elsewhere_give_the_same(
    seed: int, side: int, regular: bool, with_markers: bool, watershed: WatershedOptions | None
) -> None:
    """Some blocks pass through pickle, as between machines, in any order."""
    mask, markers = town(seed)
    options = VectorOptions(
        min_area_px=4, min_area_m2=3, min_hole_m2=2, regularize=regular, min_marker_px=4,
        watershed=watershed,
    )  # fmt: skip
    more = {"grid": UTM, "class_names": ("ground", "building", "water")}
    inner = markers if with_markers else None
    whole = assembled(mask, [Window.whole(mask.shape)], options, inner, **more)
    score = np.random.default_rng(5).integers(100, 256, mask.shape).astype(np.uint8)
    with FootprintAssembler(UTM, (1, 2), 1, options, class_names=more["class_names"]) as assembler:
        tracing = pickle.loads(pickle.dumps(assembler.tracing))
        for number, window in enumerate(blocks(mask.shape, side, seed)):
            part, own = mask[window.slices()], score[window.slices()]
            within = None if inner is None else inner[window.slices()]
            occurring = np.unique(part).tolist()
            if number % 3:
                traced = tracing.trace(window, part, own, occurring, within)
                sent = pickle.loads(pickle.dumps(traced))
                assembler.feed_outlines(sent)
            else:
                assembler.feed(window, part, own, occurring, within)
        found = assembler.finish()
    assert as_bytes(whole.whole()) == as_bytes(found.whole())
    assert (whole.counts, whole.regularized) == (found.counts, found.regularized)


@pytest.mark.parametrize("seed", range(3))
def test_without_options_it_is_the_trace_of_each_class(seed: int) -> None:
    mask, markers = town(seed)
    found = assembled(
        mask, blocks(mask.shape, 40, seed), markers=markers, class_names=("", "a", "b")
    )
    for index in (1, 2):
        own = trace(mask == index)
        if index == 1:
            own = separated(own, markers, PLAIN.min_marker_px)
        assert shapely.equals(found.whole().of_class(index).geometry, own.polygons).all()
        assert found.counts[index] == len(own)
    firsts = [tuple(np.flip(p.bounds[:2])) for p in found.whole().geometry]
    assert [row for row, _ in firsts] == sorted(row for row, _ in firsts)
    assert shapely.area(found.whole().geometry).sum() == (mask > 0).sum()


@pytest.mark.parametrize("at_once", [4, 20_000])
def test_overlaps_are_resolved_as_if_all_were_in_memory(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, markers = town(10, (300, 300))
    monkeypatch.setattr(overlaps_module, "_BOXES_AT_ONCE", at_once)
    options = VectorOptions(min_area_px=4, min_marker_px=4)
    found = assembled(mask, blocks(mask.shape, 100, 0), options, markers, classes=(1,))
    raw = separated(trace(mask == 1), markers, 4)
    raw = raw.of(raw.area_px >= 4)
    group = owners(trace(mask == 1), raw)
    maker = OutlineMaker(GeoGrid(mask.shape), options)
    proposed, accepted = maker.outline(raw.polygons, is_building=True, group=group)
    shared = WallSharing(1.0, mask.shape).shared(raw.polygons, proposed)
    settled = resolve_overlaps(raw.polygons, shared)
    assert not shapely.equals_exact(settled, shared).all()
    assert not shapely.equals_exact(shared, proposed).all()
    assert shapely.to_wkb(found.whole().geometry).tolist() == shapely.to_wkb(settled).tolist()
    reverted = ~shapely.equals_exact(settled, proposed)
    reverted &= shapely.equals_exact(settled, raw.polygons)
    kept = accepted & ~reverted
    assert found.regularized == kept.sum()


def test_large_scenes_use_threads_a_file_and_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mask, markers = town(4, (200, 200))
    options = VectorOptions(min_area_px=4, min_marker_px=4)
    windows = blocks(mask.shape, 64, 0)
    plain = assembled(mask, windows, options, markers)
    monkeypatch.setattr(assemble, "_AT_ONCE", 3)
    monkeypatch.setattr(overlaps_module, "_BOXES_AT_ONCE", 5)
    monkeypatch.setattr(overlaps_module, "_FOOTPRINTS_AT_ONCE", 3)
    monkeypatch.setattr(
        assemble, "SpillFile", lambda folder: SpillFile(folder, in_memory_bytes=100)
    )
    with assembled(mask, windows, options, markers, folder=tmp_path) as found:
        assert as_bytes(found.whole()) == as_bytes(plain.whole())
    assert list(tmp_path.iterdir()) == []


def test_small_areas_and_holes_go() -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[10:40, 10:40] = 1
    mask[20:24, 20:24] = 0  # 4 m²
    mask[22, 22] = 1
    mask[30:38, 30:38] = 0  # 16 m²
    mask[60:64, 60:64] = 1  # 4 m²
    mask[80:90, 80:90] = 1  # 25 m²
    whole = [Window.whole(mask.shape)]
    every = assembled(mask, whole, grid=UTM).whole()
    assert every.area_m2.tolist() == pytest.approx([205.25, 0.25, 4, 25], rel=1e-3)
    options = VectorOptions(min_area_m2=5, min_hole_m2=5, min_area_px=0, simplify_px=0)
    found = assembled(mask, whole, options, grid=UTM)
    assert found.whole().area_m2.tolist() == pytest.approx([209, 25], rel=1e-3)
    assert [len(p.interiors) for p in found.whole().geometry] == [1, 0]
    by_gsd = assembled(mask, whole, options, gsd_m=1.0)
    assert by_gsd.whole().area_m2.tolist() == [820, 16, 100]


def test_scores_are_means_and_may_be_calibrated() -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 1:3] = mask[4, 4:8] = 1
    prob = np.where(np.arange(8) < 4, np.float32(0.5), np.float32(1)) * np.ones((6, 1), np.float32)
    whole = Window.whole(mask.shape)

    def scores(score: np.ndarray | None, least: float = 0.3, **more: object) -> list[float]:
        options = replace(PLAIN, min_score=least)
        assembler = FootprintAssembler(GeoGrid(mask.shape), [1], 1, options, **more)
        assembler.feed(whole, mask, score, [0, 1])
        return assembler.finish().whole().score.tolist()

    assert scores(prob) == [0.5, 1.0]
    assert scores(prob, 0.25, calibrate=lambda score, divided: score / 2) == [0.25, 0.5]
    assert scores(prob, calibrate=lambda score, divided: score / 2) == [0.5]
    assert np.isnan(scores(None)).all()


@pytest.mark.parametrize("by_watershed", [True, False])
def test_pieces_of_a_region_are_divided_and_other_buildings_are_not(by_watershed: bool) -> None:
    mask = np.zeros((40, 90), np.uint8)
    # Two houses with a narrow connection, and one by itself that is as large as both.
    mask[5:25, 5:25] = mask[5:25, 28:48] = mask[14:16, 25:28] = mask[5:25, 50:80] = 1
    markers = np.zeros_like(mask)
    markers[7:23, 7:23] = markers[7:23, 30:46] = markers[7:23, 52:78] = 1
    options = VectorOptions(watershed=WatershedOptions() if by_watershed else None)
    for windows in ([Window.whole(mask.shape)], blocks(mask.shape, 16, 0)):
        found = assembled(
            mask, windows, options, None if by_watershed else markers,
            calibrate=lambda score, divided: np.where(divided, np.float32(0.25), score),
        ).whole()  # fmt: skip
        assert found.divided is not None
        assert found.divided.tolist() == [True, True, False]
        assert (found.score == 0.25).tolist() == [True, True, False]


def test_lost_pixels_are_noticed() -> None:
    mask, _ = town(1)
    assembler = FootprintAssembler(GeoGrid(mask.shape), [1], 1, PLAIN)
    assembler.feed(Window.whole(mask.shape), mask, None, [1])
    assembler._open[1].foreground_px += 1
    with pytest.raises(PredictError, match=r"class 1 cover \d+ pixels, the mask \d+"):
        assembler.finish()
