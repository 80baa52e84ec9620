"""Masks are read as classes, or an error names the file and its invalid values."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pyproj import CRS

from raster_files import write_geotiff
from rooftrace.core.errors import LabelError
from rooftrace.core.types import GeoGrid, LabelReader, Window
from rooftrace.io.masks import mask_sink
from rooftrace.io.raster import RasterFile
from rooftrace.labels.config import LabelConfig
from rooftrace.labels.mask_source import LabelFile, count_smoothed
from rooftrace.labels.mask_values import LabelRule

BINARY = LabelRule(("background", "building"))
LAND = LabelRule(("other", "building", "road"))
COLOURS = LabelRule(
    ("other", "building", "road"),
    palette=(((132, 41, 246), 0), ((60, 16, 152), 1), ((110, 193, 228), 2), ((0, 0, 9), 1)),
    ignore=((155, 155, 155),),
)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)


@given(hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 4)))
def test_a_palette_undoes_its_colouring(drawn: np.ndarray) -> None:
    assert COLOURS.palette is not None
    table = np.array([colour for colour, _ in COLOURS.palette] + list(COLOURS.ignore), np.uint8)
    meaning = np.array([index for _, index in COLOURS.palette] + [0])
    classes, valid = COLOURS.decode(np.moveaxis(table[drawn], -1, 0), "m")
    np.testing.assert_array_equal(classes, meaning[drawn])
    if (drawn == 4).any():
        assert valid is not None
        np.testing.assert_array_equal(valid, drawn != 4)
    else:
        assert valid is None


@given(hnp.arrays(np.uint8, (6, 6), elements=st.sampled_from([0, 128, 255])))
def test_an_ignored_value_is_not_valid(drawn: np.ndarray) -> None:
    rule = LabelRule(("background", "building"), ignore=(128,))
    classes, valid = rule.decode(drawn[None], "m")
    assert valid is not None
    np.testing.assert_array_equal(valid, drawn != 128)
    np.testing.assert_array_equal(classes[valid], drawn[valid] == 255)
    assert classes.max() <= 1


@pytest.mark.parametrize(
    ("rule", "values", "parts"),
    [
        (BINARY, [0, 2], ["1 value not of a class", "(2)", "0 and 1, or 0 and 255"]),
        (BINARY, [0, 1, 255], ["1 value not", "(255)"]),
        (BINARY, [0, 7, 9, 255], ["3 values", "(7, 9, 255)"]),
        (LAND, [0, 1, 2, 3], ["1 value not", "(3)", "0 to 2", "other, building, road"]),
        (BINARY, list(range(30)), ["28 values", "(2, 3, 4, 5, 6, …)"]),
        (BINARY, [0.0, 0.5, np.nan], ["2 values", "0.5", "nan"]),
    ],
)
def test_values_that_are_no_classes_are_named(
    rule: LabelRule, values: list[float], parts: list[str]
) -> None:
    with pytest.raises(LabelError) as caught:
        rule.decode(np.array([[values]]), "folder/m.png")
    for part in ["folder/m.png", *parts]:
        assert part in caught.value.message


def test_colours_that_are_not_in_the_palette_are_named_with_their_pixels() -> None:
    data = np.zeros((3, 2, 3), np.uint8)
    data[:, 0, 0] = 60, 16, 152
    data[:, 1] = np.array([1, 2, 255])[:, None]
    with pytest.raises(LabelError) as caught:
        COLOURS.decode(data, "m.png")
    for part in ("m.png", "#000000 (2 px)", "#0102FF (3 px)"):
        assert part in caught.value.message
    assert """palette.building=["#3C1098", "#000009", "#0102FF"]'""" in caught.value.remedy
    with pytest.raises(LabelError, match="1 band of uint8; a palette is given"):
        COLOURS.decode(data[:1], "m.png")
    with pytest.raises(LabelError, match="3 bands of uint16"):
        COLOURS.decode(data.astype(np.uint16), "m.png")


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


def label(path: Path, rule: LabelRule, shape: tuple[int, int]) -> LabelFile:
    return LabelFile(path, rule, GeoGrid(shape), "image.tif")


@pytest.fixture
def truth() -> np.ndarray:
    square = np.zeros((40, 50), np.uint8)
    square[10:31, 7:22] = 1
    return square


@given(st.integers(0, 39), st.integers(0, 49), st.integers(1, 40), st.integers(1, 50))
def test_a_window_is_a_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "window.png"
    if not path.exists():
        save(path, np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (40, 50)))
    file = label(path, BINARY, (40, 50))
    window = Window(row, col, min(height, 40 - row), min(width, 50 - col))
    part, whole = file.read(window), file.read()
    np.testing.assert_array_equal(part.data, whole.data[window.slices()])
    assert part.valid.all()
    assert part.grid == file.grid.crop(window)
    assert isinstance(file, LabelReader)


def test_a_palette_file_by_index_and_by_colour(tmp_path: Path, truth: np.ndarray) -> None:
    image = Image.fromarray(truth, mode="L").convert("P")
    image.putpalette([132, 41, 246, 60, 16, 152])
    path = tmp_path / "m.png"
    image.save(path)
    for rule in (BINARY, COLOURS):
        np.testing.assert_array_equal(label(path, rule, truth.shape).read().data, truth)


def test_transparent_parts_of_a_mask_are_not_valid(tmp_path: Path, truth: np.ndarray) -> None:
    alpha = np.full(truth.shape, 255, np.uint8)
    alpha[:, 40:] = 0
    mask = save(tmp_path / "m.png", np.dstack([truth * np.uint8(255), alpha]))
    read = label(mask, BINARY, truth.shape).read()
    np.testing.assert_array_equal(read.valid, alpha > 0)
    np.testing.assert_array_equal(read.data[read.valid], truth[read.valid])


def test_a_mask_blurred_by_jpeg_is_read_without_the_blur(
    tmp_path: Path, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    slanted = np.array(Image.fromarray(truth * np.uint8(255)).rotate(20))
    path = save(tmp_path / "m.jpg", slanted, format="JPEG", quality=80)
    assert len(np.unique(np.array(Image.open(path)))) > 4
    file = LabelFile(path, LabelConfig().rule(), GeoGrid(truth.shape), "image")
    np.testing.assert_array_equal(file.read().data, slanted > 127)
    place, read, windows = Window(10, 5, 8, 9), RasterFile.read, []
    file.read(place)
    monkeypatch.setattr(RasterFile, "read", lambda *args: windows.append(args[1]) or read(*args))
    np.testing.assert_array_equal(file.read(place).data, slanted[10:18, 5:14] > 127)
    assert windows == [place]  # the whole file is decoded once


@pytest.mark.parametrize("window", [None, Window(10, 5, 8, 9), Window(0, 0, 50, 3)])
def test_a_mask_with_smoothed_edges_is_read_by_half(tmp_path: Path, window: Window | None) -> None:
    drawn = np.zeros((50, 40), np.uint8)
    drawn[8:30, 6:25] = 255
    smooth = np.array(Image.fromarray(drawn).rotate(20, Image.Resampling.BICUBIC))
    path = save(tmp_path / "m.png", smooth)
    read = label(path, LabelConfig().rule(), smooth.shape).read(window)
    place = np.s_[:] if window is None else window.slices()
    np.testing.assert_array_equal(read.data, (smooth > 127)[place])
    # In a tile with the edge of a building alone, its shade is one as in the others.
    edge = save(tmp_path / "e.png", np.pad(np.full((50, 1), 64, np.uint8), ((0, 0), (0, 39))))
    is_smoothed = count_smoothed([edge, path]) == 1
    tile = LabelFile(edge, BINARY, GeoGrid(smooth.shape), "e.tif", is_of_smoothed=is_smoothed)
    assert not tile.read(window).data.any()
    # Numbers of buildings are no shades, whose neighbours differ.
    numbers = np.kron(np.arange(50).reshape(5, 10) * 5, np.ones((10, 4))).astype(np.uint8)
    heights = np.where(drawn, np.arange(40) % 17 + 3, 0).astype(np.uint8)
    for other in (numbers, heights):
        with pytest.raises(LabelError, match="values not of a class"):
            label(save(tmp_path / "n.png", other), LabelConfig().rule(), other.shape).read()


def test_a_window_of_an_array_reads_its_own_pixels(tmp_path: Path, truth: np.ndarray) -> None:
    path = tmp_path / "m.npy"
    np.save(path, np.tile(truth > 0, (64, 64)))
    grid = GeoGrid((64 * truth.shape[0], 64 * truth.shape[1]))
    mask = LabelFile(path, BINARY, grid, "image")
    np.testing.assert_array_equal(mask.read(Window(0, 0, *truth.shape)).data, truth)
    path.write_bytes(b"")
    with pytest.raises(LabelError, match=r"m\.npy cannot be read: No data left"):
        mask.read()


def test_a_size_that_differs_names_both_files_and_sizes(tmp_path: Path, truth: np.ndarray) -> None:
    path = save(tmp_path / "m.png", truth)
    with pytest.raises(LabelError) as caught:
        label(path, BINARY, (50, 40)).read(Window(0, 0, 10, 10))
    for part in (str(path), "image.tif", "40 rows × 50 columns", "50 rows × 40 columns"):
        assert part in caught.value.message


@pytest.mark.parametrize("nodata", [0, 1])
def test_a_class_that_the_mask_calls_nodata_is_refused(
    tmp_path: Path, truth: np.ndarray, nodata: int
) -> None:
    # Left to itself it would take the whole background, or all buildings, out of the loss.
    path = tmp_path / "m.tif"
    write_geotiff(
        path, truth[None], nodata=nodata, transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
        crs="EPSG:32633",
    )  # fmt: skip
    with pytest.raises(LabelError) as caught:
        label(path, BINARY, truth.shape).read()
    assert str(path) in caught.value.message
    assert f"nodata value {nodata}" in caught.value.message
    assert "unset" in caught.value.remedy


def test_nodata_that_is_no_class_is_not_valid(tmp_path: Path, truth: np.ndarray) -> None:
    path = tmp_path / "m.tif"
    truth[:, 40:] = 99
    write_geotiff(
        path, truth[None], nodata=99, transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
        crs="EPSG:32633",
    )  # fmt: skip
    read = label(path, BINARY, truth.shape).read()
    np.testing.assert_array_equal(read.valid, truth != 99)
    np.testing.assert_array_equal(read.data, truth == 1)


# A file is read in the same way, also by window.

UTM = {"transform": rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "crs": "EPSG:32633"}


def geotiff(path: Path, array: np.ndarray, nodata: float | None = None) -> Path:
    write_geotiff(path, array[None], nodata=nodata, **UTM)
    return path


def test_a_window_without_buildings_knows_that_255_means_unknown(tmp_path: Path) -> None:
    array = np.zeros((2000, 8), np.uint8)
    array[3], array[1990:] = 255, 1
    window = Window(0, 0, 10, 8)
    tagged = label(geotiff(tmp_path / "tagged.tif", array, 255), BINARY, array.shape).read(window)
    np.testing.assert_array_equal(tagged.valid, array[:10] != 255)
    assert not tagged.data.any()
    with pytest.raises(LabelError, match=r"value not of a class \(255\)"):
        label(geotiff(tmp_path / "plain.tif", array), BINARY, array.shape).read(window)


@pytest.mark.parametrize("georeferenced", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 256])
@pytest.mark.parametrize("holds_one", [False, True])
def test_masks_that_rooftrace_writes_are_labels(
    tmp_path: Path, georeferenced: bool, classes: int, holds_one: bool
) -> None:
    array = np.zeros((6, 8), np.uint8)
    array[2:4], array[0, :3] = int(holds_one), 255
    grid = (
        GeoGrid((6, 8), UTM["transform"], CRS.from_epsg(32633))
        if georeferenced
        else GeoGrid((6, 8))
    )
    path = tmp_path / f"m{'.tif' if georeferenced else '.png'}"
    with mask_sink(path, grid) as sink:
        sink.write(Window(0, 0, 6, 8), array)
    names = tuple(f"c{n}" for n in range(classes))
    for ignore in ((), (255,)):
        file = label(path, LabelRule(names, ignore=ignore), (6, 8))
        if not ignore and (classes == 256 or (classes == 2 and not holds_one)):
            # Here 255 may be a class, and nothing says that it is not.
            with pytest.raises(LabelError, match="nodata value 255, which is a class"):
                file.read()
            continue
        mask = file.read()
        np.testing.assert_array_equal(mask.valid, array != 255)
        np.testing.assert_array_equal(mask.data, np.where(mask.valid, array, 0))


# What files hold.


def test_values_are_merged_moved_and_left_out(tmp_path: Path) -> None:
    rule = LabelConfig(
        classes=("other", "building", "road"),
        values={"building": (10, 300), "road": 2, "other": (0, 65535)},
        ignore=(77,),
    ).rule()
    array = np.array([[10, 300, 2], [0, 65535, 77]], np.uint16)
    mask = label(geotiff(tmp_path / "m.tif", array), rule, (2, 3)).read()
    np.testing.assert_array_equal(mask.data, [[1, 1, 2], [0, 0, 0]])
    np.testing.assert_array_equal(mask.valid, array != 77)
    array[0, 0] = 11
    with pytest.raises(LabelError, match=r"\(11\).*expected 10, 300, 2, 0, 65535"):
        label(geotiff(tmp_path / "m.tif", array), rule, (2, 3)).read()


def test_a_transparent_background_is_refused_and_not_left_out(
    tmp_path: Path, truth: np.ndarray
) -> None:
    image = Image.fromarray(truth, mode="L").convert("P")
    image.save(tmp_path / "m.png", transparency=0)
    with pytest.raises(LabelError, match="nodata value 0, which is a class") as caught:
        label(tmp_path / "m.png", BINARY, truth.shape).read()
    assert "save a PNG without transparency" in caught.value.remedy
