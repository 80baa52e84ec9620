"""Bands and values of any image become those of a model, the same for every part of a scene."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from raster_files import write_geotiff
from rooftrace.core.errors import BandMismatch, ConfigError
from rooftrace.core.types import Window
from rooftrace.io.area import Area, AreaSource
from rooftrace.io.bands import find_bands, name_bands
from rooftrace.io.georeferenced import ArraySource, WindowSource
from rooftrace.io.image_header import BandInfo
from rooftrace.io.pixels import PreparedSource, Stretch, parse_stretch, prepare
from rooftrace.io.raster import open_raster

RGB = ("red", "green", "blue")
USUAL = ((120.0, 60.0),) * 3


def prepared(source: object, wanted=RGB, dtype="uint8", **options: str) -> PreparedSource:
    made = prepare(source, wanted, np.dtype(dtype), USUAL[: len(wanted)], **options)
    assert isinstance(made, PreparedSource)
    return made


def infos(*names: str, colours: tuple[str, ...] = ()) -> list[BandInfo]:
    shown = colours or ("undefined",) * len(names)
    return [BandInfo(n, colour, name) for n, (name, colour) in enumerate(zip(names, shown), 1)]


def noise(bands: int, side: int, top: int, dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (bands, side, side)).astype(dtype)


GDAL_RGBA = ("red", "green", "blue", "alpha")
SENTINEL = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
PLANET = ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir")
WORLDVIEW = tuple(f"BAND_{name}" for name in ("C", "B", "G", "Y", "R", "RE", "N", "N2"))


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (infos("", "", ""), (0, 1, 2)),
        (infos("", "", "", colours=("blue", "green", "red")), (2, 1, 0)),
        (infos("", "", "", "", colours=("red", "green", "blue", "undefined")), (0, 1, 2)),
        (infos("Blue", "Green", "Red", "NIR", colours=GDAL_RGBA), (2, 1, 0)),
        (infos(*SENTINEL), (3, 2, 1)), (infos("B02", "B03", "B04", "B08"), (2, 1, 0)),
        (infos(*PLANET), (5, 3, 1)), (infos(*WORLDVIEW), (4, 2, 1)),
        (infos("B4 (red)", "B3 (green)", "B2 (blue)", "B8 (nir)"), (0, 1, 2)),
        (infos("Band 1", "Band 2", "Band 3"), (0, 1, 2)),
        (infos("B1", "B2", "B3", "B4"), (0, 1, 2)),
        (infos("Layer_1", "Layer_2", "Layer_3", colours=GDAL_RGBA[:3]), (0, 1, 2)),
        (infos("gray"), (0, 0, 0)),
    ],
)  # fmt: skip
def test_bands_are_found(bands: list[BandInfo], expected: tuple[int, ...]) -> None:
    found = find_bands(bands, RGB, None, "scene.tif")
    assert found.indexes == expected
    # Anything but three bands in their order is a choice that is reported.
    assert bool(found.note) == (expected != (0, 1, 2) or len(bands) > 3)


def test_the_names_of_files_of_planet_and_landsat_say_what_their_bands_are() -> None:
    for name in ("20200101_3B_AnalyticMS_SR.tif", "20200101_101010_ssc1d1_0001_analytic.tif"):
        assert find_bands(infos("", "", "", ""), RGB, None, name).indexes == (2, 1, 0)
    for name, hint in (("ortho_red.tif", True), ("Alfred.tif", False)):
        assert ("gdalbuildvrt -separate" in find_bands(infos(""), RGB, None, name).note) == hint
    bands = infos(*[f"B{n}" for n in range(1, 8)])
    with pytest.raises(BandMismatch, match="the file does not say which these are"):
        find_bands(bands, RGB, None, "LE71700602003001ASN00.tif")


@pytest.mark.parametrize(
    "names", [("SR_B2", "SR_B3", "SR_B4"), ("Band 2", "Band 3", "Band 4"), ("VV", "VH", "ratio")]
)
@pytest.mark.parametrize("colours", [(), GDAL_RGBA[:3]])
def test_descriptions_that_are_not_understood_are_reported(
    names: tuple[str, ...], colours: tuple[str, ...]
) -> None:
    found = find_bands(infos(*names, colours=colours), RGB, None, "scene.tif")
    assert found.indexes == (0, 1, 2)
    shown = ", ".join(f"{n} {name}" for n, name in enumerate(names, 1))
    assert f"bands {shown} are read as red, green, blue" in found.note
    assert "--bands 3,2,1" in found.note


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (infos("", "", ""), RGB),
        (infos("Blue", "Green", "Red", "NIR", colours=GDAL_RGBA), ("blue", "green", "red", "nir")),
        (infos("nir", "red", "green", colours=GDAL_RGBA[:3]), ("nir", "red", "green")),
        (infos("SR_B4", "SR_B3", "SR_B2", colours=GDAL_RGBA[:3]), ("sr_b4", "sr_b3", "sr_b2")),
        (infos("B4", "B3", "B2", "NDSM"), ("red", "green", "blue", "ndsm")),
        (infos("", "", "", "", colours=(*RGB, "undefined")), (*RGB, "band4")),
        (infos("", "", "", ""), ("band1", "band2", "band3", "band4")),
        (infos("Band 1", "Band 2"), ("band1", "band2")),
    ],
)
def test_a_model_records_the_names_of_its_training_images(
    bands: list[BandInfo], expected: tuple[str, ...]
) -> None:
    names = name_bands(bands, "scene.tif")
    assert names == expected
    # A model finds the bands of its own images as they are.
    assert find_bands(bands, names, None, "scene.tif").indexes == tuple(range(len(bands)))


def test_bands_without_names_in_the_model() -> None:
    unnamed = ("band1", "band2", "band3", "band4")
    named = infos("Blue", "Green", "Red", "NIR")
    assert find_bands(infos("", "", "", ""), unnamed, None, "x.tif").note == ""
    found = find_bands(named, unnamed, None, "x.tif")
    assert found.indexes == (0, 1, 2, 3)
    assert "bands 1 Blue, 2 Green, 3 Red, 4 NIR are read as band1, band2" in found.note
    found = find_bands(named, (*RGB, "band4"), None, "x.tif")
    assert found.indexes == (2, 1, 0, 3)
    assert "bands 3 Red, 2 Green, 1 Blue, 4 NIR are read as red" in found.note


def test_a_model_of_more_bands_finds_them_by_name() -> None:
    wanted = (*RGB, "nir")
    assert find_bands(infos(*SENTINEL), wanted, None, "s2.tif").indexes == (3, 2, 1, 7)
    assert find_bands(infos("", "", "", ""), wanted, None, "x.tif").indexes == (0, 1, 2, 3)
    with pytest.raises(BandMismatch, match=r"expects 4: red, green, blue, nir"):
        find_bands(infos("", "", ""), wanted, None, "x.tif")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3,2,1", (2, 1, 0)), ("red, green, blue", (5, 3, 1)), ("nir,red,green_i", (7, 5, 2)),
        ("4", (3, 3, 3)),
    ],
)  # fmt: skip
def test_bands_that_were_given(text: str, expected: tuple[int, ...]) -> None:
    found = find_bands(infos(*PLANET), RGB, text, "planet.tif")
    assert (found.indexes, found.note) == (expected, "")


@pytest.mark.parametrize("text", ["9,2,1", "0,1,2", "swir,red,green", "3,2", "3,,1", "1,2,3,4"])
def test_bands_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bands"):
        find_bands(infos(*PLANET), RGB, text, "planet.tif")


@pytest.mark.parametrize("text", ["5,1", "1,1", "a", "1", "nan,2", "1,inf", "", "1,2,3"])
def test_a_stretch_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="stretch received"):
        parse_stretch(text)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_values_of_every_type_are_mapped(dtype: str) -> None:
    stretch = Stretch((-20.0, 3.0), (90.0, 77.0), ((0.0, 255.0),) * 2, "uint8", "given")
    limits = np.array([-128, -21, -20, 0, 3, 50, 77, 89, 90, 91, 127])
    if np.dtype(dtype).kind == "u":
        limits = np.abs(limits)
    data = np.stack([limits, limits[::-1]]).astype(dtype)[:, None]
    low, high = np.array([-20, 3])[:, None, None], np.array([90, 77])[:, None, None]
    exact = ((data.astype(float) - low) * 255 / (high - low)).clip(0, 255)
    # Half a value, and what float32 rounds.
    assert np.abs(stretch.apply(data) - exact).max() <= 0.5 + 1e-4


def test_a_plain_image_is_read_as_it_is() -> None:
    data = noise(3, 200, 256, "uint8")
    made = prepared(ArraySource(data))
    assert made.stretch is None
    assert made.choices == ()
    assert np.array_equal(made.read().data, data)
    assert made.record == {"bands": [1, 2, 3], "stretch": None}


def test_values_of_sixteen_bits_are_stretched_jointly() -> None:
    data = noise(3, 300, 4000)
    data[2] //= 2
    made = prepared(ArraySource(data, name="scene.tif"))
    assert made.dtype == np.uint8
    read = made.read().data
    assert made.stretch is not None
    assert len({*made.stretch.high}) == 1, "one stretch for all bands keeps the colours"
    assert read[0].max() == 255
    assert 120 < read[2].max() < 136
    (note,) = made.choices
    assert "scene.tif has values of type uint16" in note
    assert json.loads(json.dumps(made.record))["stretch"]["how"] == "percentiles"
    data[:, :20], data[:, :, :20] = 65535, 0
    for how in ("auto", "per-band"):
        framed = prepared(ArraySource(data), stretch=how).stretch
        assert framed is not None
        assert max(framed.high) < 4000, "a collar at the ends of the type does not squeeze it"
    data = data[:, 20:, 20:]
    by_band = prepared(ArraySource(data), stretch="per-band")
    assert by_band.read().data[2].max() == 255


def test_no_stretch_cuts_off_and_says_so() -> None:
    data = np.array([-5, 7, 100, 300], np.int16).reshape(1, 1, 4).repeat(3, 0)
    made = prepared(ArraySource(data, name="s.tif"), stretch="none")
    assert made.read().data[0, 0].tolist() == [0, 7, 100, 255]
    assert made.choices == ("s.tif has values of type int16, which are not stretched.",)


def test_nodata_does_not_count_in_the_stretch(tmp_path: Path) -> None:
    data = noise(3, 256, 3000, "int16") + np.int16(500)
    data[:, :100] = -9999
    source = open_raster(write_geotiff(tmp_path / "a.tif", data, nodata=-9999))
    made = prepared(source)
    assert made.stretch is not None
    assert min(made.stretch.low) > 499
    raster = made.read()
    assert not raster.valid[:100].any()
    assert raster.valid[100:].all()


def test_the_fourth_band_is_alpha_or_infrared_by_its_values() -> None:
    data = noise(4, 64, 256, "uint8")
    made = prepared(ArraySource(data))
    assert made.read().valid.all()
    assert f"{made.name}: band 4 is taken as near infrared" in made.choices[1]
    data[3] = np.where(np.arange(64) < 10, 0, 255)
    blurred = data.copy()
    blurred[3, :, 8:12] = [3, 20, 238, 252]  # as JPEG does
    for image in (data, blurred, blurred.astype(np.float32)):
        made = prepared(ArraySource(image))
        assert not made.read().valid[:, :10].any()
        assert made.read().valid[:, 10:].all()
        assert made.bands == 3
        assert f"{made.name}: band 4 is taken as alpha" in made.choices[1]
    for roof in (90, 255):  # infrared of dark water
        data[3] = np.where(np.arange(64) < 63, np.arange(64) % 20, roof)
        assert prepared(ArraySource(data)).read().valid.all()


def test_models_of_other_types_get_their_range() -> None:
    data = noise(3, 64, 4000)
    # A model of the same type, or of decimal numbers, gets the values themselves.
    assert np.array_equal(prepared(ArraySource(data), dtype="uint16").read().data, data)
    assert prepared(ArraySource(data), dtype="float32").read().data.dtype == np.uint16
    made = prepared(ArraySource(data.astype(np.float32) / 4000), dtype="uint16").read().data
    assert made.dtype == np.uint16
    assert (made.min(), made.max()) == (0, 240)


def test_every_part_of_a_scene_is_stretched_alike(tmp_path: Path) -> None:
    rows = np.linspace(0, 4000, 1500).astype(np.uint16)
    data = np.broadcast_to(rows[:, None], (3, 1500, 1500)).copy()
    path = write_geotiff(tmp_path / "a.tif", data, tiled=True, blockxsize=256, blockysize=256)
    whole = prepared(open_raster(path)).read().data
    part = Window(1100, 300, 200, 150)
    again = prepared(open_raster(path))
    assert np.array_equal(again.read(part).data, whole[:, *part.slices()])
    copied = pickle.loads(pickle.dumps(again))
    assert copied.__dict__["_found"] == again.__dict__["_found"], "a worker does not sample again"
    assert np.array_equal(copied.read(part).data, whole[:, *part.slices()])
    dark_corner = Area(np.array([shapely.box(0, 0, 200, 200)], object), None, "area", True)
    inside = prepared(AreaSource(ArraySource(data), dark_corner))
    seen = inside.read(Window(0, 0, 200, 200))
    assert np.array_equal(seen.data, prepared(ArraySource(data)).read().data[:, :200, :200])
    chip = prepared(WindowSource(open_raster(path), part))
    assert np.array_equal(chip.read().data, whole[:, *part.slices()])


def test_overviews_are_sampled_where_there_are_some(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", noise(3, 2048, 3000), tiled=True)
    assert open_raster(path).read_overview(2**16, 2**20) is None
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8])
    raster = open_raster(path).read_overview(2**16, 2**20)
    assert raster is not None
    assert raster.data.shape == (3, 256, 256)
    stretch = prepared(open_raster(path)).stretch
    assert stretch is not None
    assert 2900 < stretch.high[0] < 3000


def test_scattered_data_is_found() -> None:
    data = np.zeros((3, 4096, 1024), np.uint16)
    valid = np.zeros((4096, 1024), bool)
    data[:, 2000:2150, 300:450] = noise(3, 150, 3000)
    valid[2000:2150, 300:450] = True
    made = prepared(ArraySource(data, valid=valid)).stretch
    assert made is not None
    assert made.high[0] > 2900


def test_near_infrared_is_not_alpha(tmp_path: Path) -> None:
    data = noise(4, 40, 256, "uint8")
    data[3, :20] = 0
    path = write_geotiff(tmp_path / "a.tif", data)
    with rasterio.open(path, "r+") as file:
        assert file.colorinterp[3].name == "alpha", "GDAL's default"
        file.descriptions = ("blue", "green", "red", "nir")
    made = prepared(open_raster(path))
    raster = made.read()
    assert raster.valid.all()
    assert np.array_equal(raster.data, data[[2, 1, 0]])


@pytest.mark.parametrize("code", range(1, 9))
def test_photographs_are_turned(tmp_path: Path, code: int) -> None:
    rgb = np.kron(noise(3, 6, 256, "uint8").transpose(1, 2, 0)[:4], np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = code
    path = tmp_path / "a.jpg"
    Image.fromarray(rgb).save(path, exif=exif, quality=95, subsampling=0)
    # Pillow turns pictures by code of its own.
    from PIL import ImageOps

    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened)).transpose(2, 0, 1)
    source = open_raster(path)
    assert source.grid.shape == expected.shape[1:]
    read = source.read().data
    # GDAL and Pillow round differently when they decode.
    assert np.abs(read.astype(int) - expected).max() <= 4
    window = Window(5, 9, 30, 40)
    assert np.array_equal(source.read(window).data, read[:, *window.slices()])


def test_a_georeferenced_photograph_is_not_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jgw").write_text("0.5\n0\n0\n-0.5\n500000\n9000000\n")
    assert open_raster(tmp_path / "a.jpg").grid.shape == (40, 60)


def test_a_mask_in_place_of_an_image_has_a_note() -> None:
    for colours in ([0, 255], [30, 60, 120]):
        data = np.random.default_rng(0).choice(np.uint8(colours), (1, 64, 64)).repeat(3, 0)
        (note,) = prepared(ArraySource(data, name="mask.png")).choices
        assert f"mask.png has only {len(colours)} colours: it is a mask" in note
