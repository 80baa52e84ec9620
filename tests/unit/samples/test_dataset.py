"""Tiles equal the scene; samples depend only on seed, epoch and number."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from memory_sets import set_of
from raster_files import write_geotiff
from rooftrace.core.errors import BandMismatch, DataError, GeoreferenceError
from rooftrace.core.scales import WorkingScales
from rooftrace.core.types import GeoGrid, Mask, Raster, Sample, Scene, Window
from rooftrace.io.resample import Resampler, scaling_for
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.derived import cut_into_chips
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from rooftrace.samples.augment import AugmentConfig
from rooftrace.samples.dataset import EvalTiles, SceneCache, TrainSamples, model_scale
from rooftrace.samples.sampling import Balance

BINARY = LabelConfig()
PLENTY = 2**28


def write(
    folder: Path, name: str, image: np.ndarray, mask: np.ndarray, gsd_m: float | None = 0.5
) -> None:
    """Write one pair as GeoTIFFs, without georeference if `gsd_m` is None."""
    place: dict[str, object] = {"crs": None, "transform": None}
    if gsd_m is not None:
        # On the equator of a transverse Mercator without shrinkage a metre is a metre.
        crs = "+proj=tmerc +lat_0=0 +lon_0=9 +k=1 +datum=WGS84 +units=m"
        place = {"crs": crs, "transform": Affine(gsd_m, 0, 1, 0, -gsd_m, 1)}
    for part, data in (("images", image), ("masks", mask[None])):
        (folder / part).mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            write_geotiff(folder / part / f"{name}.tif", data, **place)


def source_of(folder: Path, **options: object) -> SceneSet:
    return open_source(SourceConfig(path=str(folder), **options), BINARY)  # type: ignore[arg-type]


def random_pair(seed: int, shape: tuple[int, int], bands: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.integers(1, 255, (bands, *shape), dtype=np.uint8),
        rng.integers(0, 2, shape, dtype=np.uint8),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("random")
    for number, shape in enumerate([(70, 110), (64, 64), (33, 200)]):
        write(root, f"s{number}", *random_pair(number, shape))
    return root


def tiles_of(source: SceneSet, gsd_m: float | None = None, **options: object) -> EvalTiles:
    scales = None if gsd_m is None else WorkingScales(gsd_m)
    settings = {"crop_px": 32, "scales": scales, "cache_bytes": PLENTY} | options
    return EvalTiles(source, **settings)  # type: ignore[arg-type]


def samples_of(*sources: SceneSet, **options: object) -> TrainSamples:
    settings = {
        "crop_px": 32, "gsd_m": None, "augment": AugmentConfig(), "samples": 12, "seed": 3,
        "cache_bytes": PLENTY,
    } | options  # fmt: skip
    return TrainSamples(sources, **settings)  # type: ignore[arg-type]


def equal(a: Sample, b: Sample) -> None:
    for name in ("image", "target", "valid"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.campaign
@pytest.mark.parametrize("cache_bytes", [0, PLENTY])
@pytest.mark.parametrize("gsd_m", [None, 0.5])
def test_tiles_at_scale_one_are_the_scene_without_gap_or_overlap(
    folder: Path, gsd_m: float | None, cache_bytes: int
) -> None:
    source = source_of(folder)
    tiles = tiles_of(source, gsd_m, cache_bytes=cache_bytes)
    number = 0
    for scene in source:
        height, width = scene.image.grid.shape
        rows, cols = -(-height // 32), -(-width // 32)
        whole = np.zeros((5, rows * 32, cols * 32), np.float32)
        for row in range(rows):
            for col in range(cols):
                tile = tiles[number]
                assert tile.image.dtype == np.float32
                part = np.concatenate([tile.image, tile.target[None], tile.valid[None]])
                whole[:, row * 32 : row * 32 + 32, col * 32 : col * 32 + 32] = part
                number += 1
        assert scene.label is not None
        np.testing.assert_array_equal(whole[:3, :height, :width], scene.image.read().data)
        np.testing.assert_array_equal(whole[3, :height, :width], scene.label.read().data)
        assert whole[4, :height, :width].all()
        assert not whole[4, height:].any()
        assert not whole[4, :, width:].any()
    assert number == len(tiles)


@pytest.mark.parametrize(("gsd_m", "scale"), [(0.8, 1.6), (0.35, 0.7), (1.15, 2.3), (2.0, 4.0)])
def test_tiles_at_another_scale_show_the_right_ground(
    tmp_path: Path, gsd_m: float, scale: float
) -> None:
    rows, cols = np.mgrid[:200, :160]
    image = np.stack([rows, cols, rows + cols]).astype(np.uint16) * 100
    write(tmp_path, "a", image, np.zeros((200, 160), np.uint8))
    tiles = tiles_of(source_of(tmp_path), gsd_m)
    across = int(np.ceil(160 / scale / 32))
    assert len(tiles) == across * int(np.ceil(200 / scale / 32))
    ys, xs = np.mgrid[:32, :32]
    for number in range(len(tiles)):
        tile = tiles[number]
        expected = [
            ((number // across) * 32 + ys + 0.5) * scale - 0.5,
            ((number % across) * 32 + xs + 0.5) * scale - 0.5,
        ]
        inside = (
            (expected[0] > scale) & (expected[0] < 199 - scale)
            & (expected[1] > scale) & (expected[1] < 159 - scale)
        )  # fmt: skip
        assert tile.valid[inside].all()
        for band in (0, 1):
            np.testing.assert_allclose(
                tile.image[band][inside] / 100, expected[band][inside], atol=0.05 * scale
            )


def test_a_building_keeps_its_size_on_the_ground(tmp_path: Path) -> None:
    image, mask = np.full((3, 200, 200), 90, np.uint8), np.zeros((200, 200), np.uint8)
    mask[80:120, 70:130] = 1  # 20 m × 30 m at 0.5 m
    write(tmp_path, "a", image, mask)
    source = source_of(tmp_path)
    augment = AugmentConfig(rotate_deg=180, flip_horizontal=0.5, gsd_range_m=(0.4, 1.2))
    for gsd_m in (0.4, 0.7, 1.0):
        tiles = tiles_of(source, gsd_m, crop_px=64)
        found = sum(int(tiles[n].target.sum()) for n in range(len(tiles)))
        assert found * gsd_m**2 == pytest.approx(600, rel=0.05)
    # The crop sees the whole scene at the coarse end, so the building's pixels show its scale.
    samples = samples_of(source, augment=augment, gsd_m=0.8, crop_px=128, samples=40)
    areas = [int(samples[n].target.sum()) for n in range(40)]
    scales = np.sqrt(600 / np.array([a for a in areas if a]))
    assert scales.min() < 0.6
    assert 0.9 < scales.max() < 1.25
    fixed = samples_of(source, augment=AugmentConfig(rotate_deg=180), gsd_m=1.0, crop_px=96)
    for n in range(12):
        assert fixed[n].target.sum(dtype=int) == pytest.approx(600, rel=0.05)
    wide = samples_of(source, augment=AugmentConfig(scale_range=(2, 2)), crop_px=128)
    assert wide[0].target.sum(dtype=int) == pytest.approx(600, rel=0.05)


AUGMENT = AugmentConfig(
    rotate_deg=180, flip_horizontal=0.5, scale_range=(0.7, 2.5), prefer_buildings=0.5, gamma=1.5,
    noise=0.05, blur=0.5, grey=0.3,
)  # fmt: skip


@pytest.mark.campaign
@settings(max_examples=8)
@given(
    order=st.permutations(range(4)),
    cache=st.sampled_from([0, 40_000, PLENTY]),
    balance=st.sampled_from(["area", "class", "built_up"]),
)
def test_a_sample_does_not_depend_on_what_was_read_before(
    folder: Path, order: list[int], cache: int, balance: Balance
) -> None:
    source = source_of(folder)
    augment = AUGMENT.model_copy(update={} if balance == "area" else {"prefer_buildings": 0.0})
    straight = samples_of(source, augment=augment, balance=balance)
    other = samples_of(source, augment=augment, balance=balance, cache_bytes=cache)
    found = {number: other[number] for number in order}
    for number in range(4):
        equal(found[number], straight[number])


def test_the_colour_of_nodata_takes_no_part(tmp_path: Path) -> None:
    image, mask = random_pair(1, (40, 40))
    image[:, :, 20:] = 255
    write(tmp_path, "a", image, mask)
    source = source_of(tmp_path, nodata=(255, 255, 255))
    tile = tiles_of(source, crop_px=40)[0]
    assert tile.valid[:, :20].all()
    assert not tile.valid[:, 20:].any()
    assert not tile.image[:, :, 20:].any()
    assert not tile.target[:, 20:].any()
    sample = samples_of(source, augment=AugmentConfig(rotate_deg=180, brightness=0.5))[0]
    assert 0 < sample.valid.mean() < 1
    assert not sample.image[:, ~sample.valid].any()
    # Nodata looks in training as in predictions.
    (tile,) = tiles_of(source, 0.5, crop_px=40)
    scene = next(iter(source))
    scaling = scaling_for(scene.image.grid, WorkingScales(0.5))
    pixels, valid = Resampler(scene.image, scaling).read(Window(0, 0, 40, 40))
    np.testing.assert_array_equal(tile.image, pixels)
    np.testing.assert_array_equal(tile.valid, valid)


def test_what_is_no_number_takes_no_part(tmp_path: Path) -> None:
    image, mask = random_pair(1, (40, 40))
    image = image.astype(np.float32) / 255
    image[1, 10:13, 10:13] = np.nan
    image[0, 30, 30] = np.inf
    write(tmp_path, "a", image, mask)
    source = source_of(tmp_path)
    tile = tiles_of(source, crop_px=40)[0]
    assert np.isfinite(tile.image).all()
    assert (~tile.valid).sum() == 10
    samples = samples_of(source, augment=AUGMENT)
    for n in range(6):
        assert np.isfinite(samples[n].image).all()


def constant(root: Path, name: str, value: int, side: int = 64, gsd_m: float = 0.5) -> SceneSet:
    image = np.full((3, side, side), value, np.uint8)
    write(root / name, "a", image, np.zeros((side, side), np.uint8), gsd_m)
    return source_of(root / name)


def drawn_share(samples: TrainSamples, value: int) -> float:
    return float(np.mean([samples[n].image.max() == value for n in range(len(samples))]))


def test_shares_of_folders(tmp_path: Path) -> None:
    one, other = constant(tmp_path, "one", 10), constant(tmp_path, "other", 20)
    given_shares = (replace(one, share=3.0), replace(other, share=1.0))
    samples = samples_of(*given_shares, samples=300)
    assert drawn_share(samples, 10) == pytest.approx(0.75, abs=0.08)
    # Without shares it is the ground that counts: here 4 times as many pixels, each of 1/4 m².
    large = constant(tmp_path, "large", 30, side=128, gsd_m=0.25)
    assert drawn_share(samples_of(one, large, samples=300), 30) == pytest.approx(0.5, abs=0.09)
    with pytest.raises(DataError, match="Some training folders have a share and some have none"):
        samples_of(given_shares[0], other)
    # A folder that the split left empty is not drawn from.
    assert drawn_share(samples_of(one, other.subset([]), samples=20), 10) == 1


def test_images_must_be_alike(tmp_path: Path) -> None:
    write(tmp_path, "a", *random_pair(0, (40, 40)))
    write(tmp_path, "b", *random_pair(0, (40, 40), bands=5))
    for make in (samples_of, tiles_of):
        with pytest.raises(BandMismatch) as caught:
            make(source_of(tmp_path))
        for part in ("b.tif has 5 bands of uint8", "a.tif has 3 of uint8"):
            assert part in caught.value.message


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float64])
def test_a_dtype_that_no_bundle_has_is_refused_before_training(tmp_path: Path, dtype: type) -> None:
    image, mask = random_pair(0, (40, 40))
    write(tmp_path, "a", image.astype(dtype), mask)
    with pytest.raises(DataError, match=r"a\.tif has pixels of .*expected uint8, uint16 or float"):
        samples_of(source_of(tmp_path))


def test_metres_are_needed_where_the_model_has_them(tmp_path: Path) -> None:
    write(tmp_path, "a", *random_pair(0, (40, 40)), gsd_m=None)
    source = source_of(tmp_path)
    assert model_scale(next(iter(source)), None) == (1.0, 1.0)
    with pytest.raises(GeoreferenceError, match=r"a\.tif.* has no CRS") as caught:
        tiles_of(source, 0.5)
    assert "gsd_m" in caught.value.remedy
    with pytest.raises(GeoreferenceError):
        samples_of(source, augment=AugmentConfig(gsd_range_m=(0.3, 0.5)), gsd_m=0.4)
    said = source_of(tmp_path, gsd_m=0.25)
    assert model_scale(next(iter(said)), WorkingScales(0.5)) == (2.0, 2.0)


def test_pixels_of_an_unknown_class_keep_their_colours(tmp_path: Path) -> None:
    """An ignored ring around each building must not be visible in the image."""
    mask = np.zeros((96, 96), np.uint8)
    mask[16:80, 16:80], mask[20:76, 20:76] = 255, 1
    image = np.full((3, 96, 96), 120, np.uint8)
    write(tmp_path, "a", image, mask)
    labels = LabelConfig(ignore=(255,))
    source = open_source(SourceConfig(path=str(tmp_path), nodata=7), labels)
    light = AugmentConfig(blur=1.0, gamma=1.5, cutout=0.0)
    for scale in (1.0, 2.0):
        tile = tiles_of(source, 0.5 * scale, crop_px=int(96 / scale))[0]
        assert (tile.image == 120).all()
        assert not tile.valid.all()
        assert not tile.target[~tile.valid].any()
        for augment in (AugmentConfig(), light):
            crop_px = int(96 / scale)
            sample = samples_of(source, augment=augment, gsd_m=0.5 * scale, crop_px=crop_px)[0]
            assert not sample.valid.all()
            assert np.ptp(sample.image) < 1e-3
    # Nodata of the image is still black.
    image[:, :8] = 7
    write(tmp_path, "a", image, mask)
    tile = tiles_of(source, 0.5, crop_px=96)[0]
    assert not tile.image[:, :8].any()
    assert (tile.image[:, 8:] == 120).all()
    assert not tile.valid[:8].any()
    assert tile.valid[8:16].all()


def write_disc_in_degrees(folder: Path) -> SceneSet:
    """Write a round building, 20 m wide, at 60 degrees north, where a pixel is half as wide as
    high.
    """
    rows, cols = np.mgrid[:120, :240]
    disc = (((cols - 120) * 0.2232) ** 2 + ((rows - 60) * 0.4456) ** 2 < 100).astype(np.uint8)
    place = {"crs": "EPSG:4326", "transform": Affine(4e-6, 0, 10, 0, -4e-6, 60)}
    for part, data in (("images", np.stack([disc * 200 + 20] * 3)), ("masks", disc[None])):
        (folder / part).mkdir()
        write_geotiff(folder / part / "a.tif", data, **place)
    return source_of(folder)


def test_pixels_in_degrees_are_resampled_to_square_ones(tmp_path: Path) -> None:
    source = write_disc_in_degrees(tmp_path)
    scene = next(iter(source))
    expected = scaling_for(scene.image.grid, WorkingScales(0.3)).scale_yx
    assert model_scale(scene, WorkingScales(0.3)) == pytest.approx(expected, rel=0.01)
    for part in (source, cut_into_chips(source, 200)):
        tile = tiles_of(part, 0.3, crop_px=256)[0]
        assert sides_px(tile.target) == pytest.approx((67, 67), abs=2)
    augment = AugmentConfig(rotate_deg=180, gsd_range_m=(0.3, 0.3), prefer_buildings=1)
    samples = samples_of(source, augment=augment, gsd_m=0.3, crop_px=192)
    for number in range(8):
        target = samples[number].target
        if not (target[[0, -1]].any() or target[:, [0, -1]].any()):
            assert sides_px(target) == pytest.approx((67, 67), abs=3)
    # Metres that are given are those of both axes.
    (given,) = tiles_of(source_of(tmp_path, gsd_m=0.3), 0.3, crop_px=256)
    assert sides_px(given.target) == pytest.approx((45, 90), abs=2)


def sides_px(target: np.ndarray) -> tuple[int, int]:
    rows, cols = np.nonzero(target)
    return int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1


def test_the_cache_forgets_what_does_not_fit(folder: Path) -> None:
    scenes = list(source_of(folder))
    sizes = [s.image.grid.height * s.image.grid.width * 5 for s in scenes]
    watched = [Watched(scene) for scene in scenes]
    cache = SceneCache([scene.scene for scene in watched], 8 * max(sizes))
    for index in (0, 1, 2, 0, 1, 2):
        cache.read(index, Window(0, 0, 5, 5))
    assert [len(scene.windows) for scene in watched] == [1, 1, 1]
    assert cache.nbytes == sum(sizes)
    # The limit is for all of them, and an eighth of it for one.
    small = [replace(scenes[0], id=str(number)) for number in range(20)]
    full = SceneCache(small, 8 * sizes[0])
    for index in range(20):
        full.read(index, Window(0, 0, 1, 1))
        assert full.nbytes == min(index + 1, 8) * sizes[0]
    tight = SceneCache([watched[0].scene], 8 * sizes[0] - 8)
    for _ in range(3):
        part = tight.read(0, Window(3, 4, 5, 6))
        assert part.image.shape == (3, 5, 6)
    assert watched[0].windows[1:] == [Window(3, 4, 5, 6)] * 3
    assert tight.nbytes == 0


class Watched:
    """Return a scene that records the windows read of its image."""

    def __init__(self, scene: Scene) -> None:
        self.windows: list[Window] = []
        self._image = scene.image
        self.scene = replace(scene, image=self)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._image, name)

    def read(self, window: Window | None = None) -> Raster:
        self.windows.append(window or Window.whole(self._image.grid.shape))
        return self._image.read(window)


class Endless:
    """An image and its label, generated for each window that is read."""

    name, bands, dtype = "endless", 3, np.dtype(np.uint8)

    def __init__(self, side: int, every: int) -> None:
        self.grid = GeoGrid((side, side))
        self.every = every
        self.windows: list[Window] = []
        self.labels: list[Window] = []

    def read(self, window: Window | None = None) -> Raster:
        assert window is not None
        self.windows.append(window)
        shape = window.shape_yx
        return Raster(np.full((3, *shape), 90, np.uint8), np.ones(shape, bool), self.grid)

    @property
    def label(self) -> Endless.Label:
        return Endless.Label(self)

    @dataclass(frozen=True)
    class Label:
        image: Endless

        def read(self, window: Window | None = None) -> Mask:
            assert window is not None
            self.image.labels.append(window)
            rows, cols = np.ogrid[window.row : window.row_stop, window.col : window.col_stop]
            inside = (rows % self.image.every < 9) & (cols % self.image.every < 9)
            return Mask(inside.astype(np.uint8), np.ones(inside.shape, bool), self.image.grid)


SIDE = 20_000
"""Check the memory for a scene that would need 1.2 GB in full."""


@pytest.mark.parametrize(("every", "prefer"), [(50, 0.5), (1500, 1.0)])
def test_of_a_large_scene_a_window_is_read_and_no_more(every: int, prefer: float) -> None:
    image = Endless(SIDE, every)
    source = set_of(Scene("a", image, image.label))
    augment = AugmentConfig(policy="strong", prefer_buildings=prefer)
    samples = samples_of(source, augment=augment, crop_px=64, samples=30)
    for number in range(30):
        assert samples[number].valid.any()
    # A rotated square of twice the scale, stretched and sheared, with a margin.
    most = 64 * 2.0 * (2 * 1.25 * 1.2) ** 0.5 + 12
    assert max(max(window.shape_yx) for window in (*image.windows, *image.labels)) <= most
    assert sum(window.area_px for window in image.windows) < 2 * 30 * most**2
    image.windows.clear()
    tiles = tiles_of(source, crop_px=64, limit=10)
    for number in range(10):
        tiles[number]
    assert all(window.area_px <= 70**2 for window in image.windows)
    assert len(image.windows) == 10
