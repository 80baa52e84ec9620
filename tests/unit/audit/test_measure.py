"""Measurements of a scene match what was painted, for any parts in which it is read."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from memory_sets import ArrayLabel
from rooftrace.audit import measure
from rooftrace.audit.facts import SceneFacts
from rooftrace.audit.measure import measure_set
from rooftrace.core.types import Scene, Window
from rooftrace.io.area import Area
from rooftrace.io.georeferenced import ArraySource
from rooftrace.labels import source as parallel
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.derived import limit_label
from rooftrace.labels.kinds import open_source

CLASSES = ("background", "building")


def scene_of(image: np.ndarray, mask: np.ndarray | None = None, **more: np.ndarray) -> Scene:
    source = ArraySource(image, valid=more.get("valid"))
    label = None if mask is None else ArrayLabel(mask, more.get("known"))
    return Scene("a", source, label, "g", 0.5)


def facts_of(*arrays: np.ndarray, **more: np.ndarray) -> SceneFacts:
    return measure.measure_scene(scene_of(*arrays, **more), CLASSES, 1)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, 60, 80), dtype=np.uint8)


masks = st.tuples(
    st.integers(1, 24), st.integers(2, 24), st.integers(0, 2**32 - 1), st.floats(0, 1)
)


def drawn(shape: tuple[int, int, int, float]) -> np.ndarray:
    rows, cols, seed, share = shape
    return (np.random.default_rng(seed).random((rows, cols)) < share).astype(np.uint8)


@given(masks, st.integers(1, 9))
def test_buildings_do_not_depend_on_the_strips(
    shape: tuple[int, int, int, float], rows: int
) -> None:
    mask = drawn(shape)
    whole = Window.whole(mask.shape)
    sums = measure._LabelSums(2, 1, whole, exact=True)
    label = ArrayLabel(mask)
    for window in whole.strips(rows):
        sums.feed(label.read(window), None, window)
    figures = sums.finish()
    stats = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]
    assert sorted(figures.buildings_px) == sorted(stats[:, cv2.CC_STAT_AREA])
    at_edge = (
        (stats[:, cv2.CC_STAT_LEFT] == 0)
        | (stats[:, cv2.CC_STAT_TOP] == 0)
        | (stats[:, cv2.CC_STAT_LEFT] + stats[:, cv2.CC_STAT_WIDTH] == mask.shape[1])
        | (stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT] == mask.shape[0])
    )
    assert figures.cut == at_edge.sum()


def test_pixels_and_label(image: np.ndarray) -> None:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[10:20, 10:20] = mask[50:, 70:] = 1
    facts = facts_of(image, mask)
    label = facts.label
    assert label.class_px == (4600, 200)
    assert (label.buildings_px.tolist(), label.cut) == ([100, 100], 1)
    assert facts.built_up(1) == 200 / 4800
    assert (facts.shape_yx, facts.bands, facts.dtype) == ((60, 80), 3, "uint8")
    assert (facts.group, facts.gsd_m, facts.valid_share, facts.measured_share) == ("g", 0.5, 1, 1)
    np.testing.assert_allclose(facts.mean, image.mean((1, 2)) / 255, atol=1e-9)
    np.testing.assert_allclose(facts.std, image.std((1, 2)) / 255, atol=1e-9)
    luma = np.tensordot([0.299, 0.587, 0.114], image / 255, 1)
    assert facts.brightness == pytest.approx(luma.mean(), abs=1e-3)
    assert facts.contrast == pytest.approx(luma.std(), rel=1e-2)
    spread = (image.max(0).astype(float) - image.min(0)) / 255
    assert facts.saturation == pytest.approx(spread.mean(), abs=1e-9)


def test_unknown_pixels_and_nodata_do_not_count(image: np.ndarray) -> None:
    mask = np.ones((60, 80), dtype=np.uint8)
    valid = np.ones((60, 80), dtype=bool)
    valid[:, 40:] = False
    known = np.ones((60, 80), dtype=bool)
    known[:15, :] = False
    hidden = image.copy()
    hidden[:, :, 40:] = 77  # values under nodata
    facts = facts_of(hidden, mask, valid=valid, known=known)
    alone = facts_of(image[:, :, :40].copy(), mask[:, :40], known=known[:, :40])
    assert facts.label.class_px == (0, 45 * 40)
    assert facts.label.unknown_share == 0.25
    assert facts.valid_share == 0.5
    for name in ("mean", "std", "brightness", "contrast", "saturation"):
        assert getattr(facts, name) == pytest.approx(getattr(alone, name), abs=1e-9)
    assert facts.sharpness == pytest.approx(alone.sharpness, rel=0.02)
    nothing = facts_of(image, mask, valid=np.zeros((60, 80), dtype=bool))
    assert (nothing.valid_share, nothing.phash) == (0, 0)
    assert nothing.built_up(1) is None
    area = Area(np.array([shapely.box(0, 0, 40, 60)]), None, "surveyed.geojson")
    surveyed = limit_label(scene_of(image, mask, known=known), area)
    limited = measure.measure_scene(surveyed, CLASSES, 1).label
    assert (limited.class_px, limited.unknown_share) == ((0, 45 * 40), 0.25)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_strips_give_the_same_figures_as_the_whole(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(1)
    small = cv2.resize(generator.random((9, 9)), (300, 260), interpolation=cv2.INTER_CUBIC)
    full = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    rough = np.stack([small, small**2, 1 - small]) + generator.normal(0, 0.05, (3, 260, 300))
    image = (np.clip(rough, 0.05, 0.95) * full).astype(dtype)
    mask = (small > 0.7).astype(np.uint8)
    valid = small > 0.1
    whole = facts_of(image, mask, valid=valid)
    monkeypatch.setattr(measure, "_STRIP_PX", 300 * 64)
    strips = facts_of(image, mask, valid=valid)
    assert sorted(strips.label.buildings_px) == sorted(whole.label.buildings_px)
    assert strips.label.class_px == whole.label.class_px
    for name in ("mean", "std", "brightness", "contrast", "saturation", "valid_share"):
        assert getattr(strips, name) == pytest.approx(getattr(whole, name), rel=1e-6)
    assert strips.sharpness == pytest.approx(whole.sharpness, rel=0.02)
    assert (strips.phash ^ whole.phash).bit_count() <= 4


def test_a_large_scene_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_EXACT_PX", 64 * 64)
    monkeypatch.setattr(measure, "WINDOW_PX", 32)
    monkeypatch.setattr(measure, "_WINDOWS", 12)
    image = np.full((3, 320, 320), 100, dtype=np.uint8)
    mask = np.zeros((320, 320), dtype=np.uint8)
    mask[np.arange(320) % 16 < 4] = 0
    for row in range(0, 320, 16):
        mask[row + 4 : row + 10, 4::16] = 1
    valid = np.ones((320, 320), dtype=bool)
    valid[:160] = False
    facts = facts_of(image, mask, valid=valid)
    assert facts.measured_share == pytest.approx(12 * 32**2 / 320**2)
    assert facts.valid_share == pytest.approx(0.5, abs=0.15)
    assert set(facts.label.buildings_px) == {6}
    assert len(facts.label.buildings_px) == 12 * 4
    assert facts.brightness == pytest.approx(100 / 255, abs=1e-3)


@pytest.mark.parametrize("fill", [0, 255])
def test_unmarked_nodata_is_seen(image: np.ndarray, fill: int) -> None:
    image[:, :, 50:] = fill
    image[:, 30, 20] = fill  # one pixel within
    facts = facts_of(image)
    assert facts.flat_share == 0.375
    assert facts.flat_colour == (fill,) * 3
    marked = facts_of(image, valid=np.broadcast_to(np.arange(80) < 50, (60, 80)).copy())
    assert (marked.flat_share, marked.flat_colour) == (0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 small pairs, of which the second image and the third mask cannot be read."""
    root = tmp_path_factory.mktemp("set")
    for part in ("images", "masks"):
        (root / part).mkdir()
    generator = np.random.default_rng(0)
    for number in range(70):
        name = f"{number:03d}.png"
        cv2.imwrite(str(root / "images" / name), generator.integers(0, 255, (24, 30, 3), np.uint8))
        mask = (generator.random((24, 30)) < number / 70).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / name), mask)
    (root / "images" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n not an image")
    cv2.imwrite(str(root / "masks" / "002.png"), np.full((24, 30), 9, np.uint8))
    return root


@pytest.mark.campaign
def test_processes_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(SourceConfig(path=str(folder)))
    alone = measure_set(source, workers=1)
    monkeypatch.setattr(parallel, "_TRIAL_S", 0.0)
    monkeypatch.setattr(parallel, "_WORTH_S", 0.0)
    monkeypatch.setattr(parallel, "_CHUNK", 8)
    monkeypatch.setattr(parallel, "_CHUNKS_AHEAD", 2)
    seen = []
    several = measure_set(source, workers=2, progress=lambda done, of: seen.append(done))
    assert repr(several) == repr(alone)
    assert seen == sorted(set(seen))
    assert seen[-1] == 70
    # Other processes measured some scenes.
    assert len(seen) < 70
