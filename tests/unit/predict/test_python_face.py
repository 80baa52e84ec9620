"""What a user of Python sees: any usual array, results as arrays, and errors in Python's words."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.vrt import WarpedVRT

import rooftrace
from rooftrace.core.errors import (
    ConfigError,
    DataError,
    GeoreferenceError,
    GsdMismatch,
    PredictError,
)
from rooftrace.core.text import in_python_terms
from rooftrace.core.types import GeoGrid
from rooftrace.io.georeferenced import ArraySource
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor, as_source, load
from tiny_models import write_tiny_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tmp_path_factory.mktemp("model") / "tiny.rooftrace"
    write_tiny_bundle(path, gsd_m=0.4)
    return load(path)


@pytest.fixture
def picture() -> np.ndarray:
    """Return a dark picture (y, x, band) with a bright house."""
    image = np.full((90, 120, 3), 60, np.uint8)
    image[20:50, 30:80] = (220, 200, 180)
    image[0, :9] -= np.arange(9, dtype=np.uint8)[:, None]  # more colours than a mask has
    return image


def test_bands_may_come_first_or_last(model: Predictor, picture: np.ndarray) -> None:
    last = model.predict(picture, gsd_m=0.4)
    for same in (np.moveaxis(picture, -1, 0), Image.fromarray(picture)):
        found = model.predict(same, gsd_m=0.4)
        np.testing.assert_array_equal(found.mask, last.mask)
        np.testing.assert_array_equal(found.probability, last.probability)
    assert np.sum(last.mask == 1) == np.asarray(last.mask).sum() == 30 * 50
    for mode in ("P", "CMYK", "HSV"):
        other = Image.fromarray(picture).convert(mode)
        np.testing.assert_array_equal(model.predict(other, gsd_m=0.4).mask, last.mask)
    with pytest.raises(GeoreferenceError, match="expected an Affine"):
        GeoGrid((90, 120), (0.4, 0, 5e5, 0, -0.4, 9e6))  # type: ignore[arg-type]


def test_images_of_rasterio_and_xarray_keep_position_and_nodata(
    model: Predictor, picture: np.ndarray
) -> None:
    data = np.moveaxis(picture, -1, 0)
    data[:, :, 90:] = 255
    hidden = np.broadcast_to(data == 255, data.shape)
    place, crs = Affine(0.4, 0, 500_000, 0, -0.4, 9_000_000), rasterio.CRS.from_epsg(32737)
    memory = rasterio.MemoryFile()
    with memory.open(
        driver="GTiff", count=3, height=90, width=120, dtype="uint8", nodata=255, crs=crs,
        transform=place,
    ) as file:  # fmt: skip
        file.write(data)
    grid = GeoGrid((90, 120), place, crs)
    floats = np.where(hidden, np.float32("inf"), data)
    floats[:, ::2][hidden[:, ::2]] = np.nan
    uneven = _DataArray(data, place, crs)
    uneven.coords = {"x": np.delete(np.arange(121.0), 60), "y": np.arange(90.0)}
    with pytest.raises(DataError, match=r"x of town\.tif are not evenly spaced"):
        as_source(uneven)
    for bands in ([3, 2, 1], ["blue", "green", "red"]):
        selected = _DataArray(data[::-1], place, crs)
        # Longitudes of 0.3 m, in digits of 0.1 m.
        degrees = np.round(39 + np.arange(120) * 2.7e-6, 6)
        selected.coords = {"band": np.array(bands), "x": degrees}
        infos = as_source(selected).band_info
        assert [info.description for info in infos] == ["blue", "green", "red"]
    with pytest.raises(DataError, match="Put the bands first"):
        ArraySource(picture, grid)
    with memory.open() as dataset, WarpedVRT(dataset, crs=crs) as warped:
        images = [
            dataset, warped, _DataArray(data, place, crs), ArraySource(floats, grid),
            ArraySource(np.ma.masked_array(data, hidden), grid),
        ]  # fmt: skip
        found = [model.predict(image) for image in images]
    with pytest.raises(DataError, match="is closed"):
        model.predict(dataset)
    expected = np.zeros((90, 120), np.uint8)
    expected[20:50, 30:80], expected[:, 90:] = 1, 255
    for one in found:
        np.testing.assert_array_equal(one.mask, expected)
        assert one.footprints.crs.to_epsg() == 32737
        assert one.footprints.total_bounds == pytest.approx(
            (500_012, 8_999_980, 500_032, 8_999_992)
        )
    np.testing.assert_array_equal(
        model.predict(np.ma.masked_array(data, hidden), gsd_m=0.4).mask, expected
    )


class _DataArray:
    """What `as_source` uses of a DataArray of rioxarray, with its axes in the order y, x, band."""

    def __init__(self, data: np.ndarray, place: Affine, crs: rasterio.CRS) -> None:
        self.data, self.encoding, self.coords = data, {"source": "town.tif"}, {}
        self.dims, self.attrs = ("y", "x", "band"), {"long_name": ("red", "green", "blue")}
        self.rio = SimpleNamespace(
            crs=crs, nodata=255, x_dim="x", y_dim="y", transform=lambda recalc: place
        )

    def __array__(self) -> np.ndarray:
        return self.data.transpose(1, 2, 0)

    def transpose(self, *dims: object) -> np.ndarray:
        assert dims == (..., "y", "x")
        return self.data


@pytest.mark.parametrize(
    ("shape", "bands", "expected"),
    [
        ((90, 120), 3, (1, 90, 120)), ((90, 120, 1), 3, (1, 90, 120)),
        ((90, 120, 4), 3, (4, 90, 120)), ((8, 120, 90), 3, (8, 120, 90)),
        ((12, 12, 3), 3, (3, 12, 12)), ((3, 8, 8), 3, (3, 8, 8)),
        ((90, 120, 24), 24, (24, 90, 120)), ((200, 90, 120), 3, (200, 90, 120)),
    ],
)  # fmt: skip
def test_the_band_axis_is_found(
    shape: tuple[int, ...], bands: int, expected: tuple[int, int, int]
) -> None:
    source = as_source(np.zeros(shape, np.uint8), bands)
    assert (source.bands, *source.grid.shape) == expected


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((3, 500, 3), np.uint8), "first or last axis"),
        (np.zeros((3, 500, 4), np.uint8), "first or last axis"),
        (np.zeros((64, 500, 64), np.uint8), "first or last axis"),
        (np.zeros((2, 3, 64, 64), np.uint8), "one by one"),
        (np.zeros((0, 64, 3), np.uint8), "if it is empty"),
        (np.zeros(9, np.uint8), r"shape \(9,\)"),
        ({"a": 1}, "has the type dict; expected a path, an open dataset"),
        ("/vsimem/a.tif", "is a path within GDAL"),
        (SimpleNamespace(data_vars=["red", "nir"]), "a Dataset with the variables red, nir"),
    ],
)
def test_what_is_no_image_or_ambiguous_is_refused(image: object, text: str) -> None:
    with pytest.raises(DataError, match=text):
        as_source(image)  # type: ignore[arg-type]


def test_a_result_is_read_like_an_array(model: Predictor, picture: np.ndarray) -> None:
    valid = np.arange(120)[None] >= np.zeros((90, 1)) + 10
    source = ArraySource(np.moveaxis(picture, -1, 0), valid=valid, name="town")
    result = model.predict(source, gsd_m=0.4)
    mask = np.asarray(result.mask)
    assert (result.mask.shape, mask.shape, mask.dtype) == ((90, 120), (90, 120), np.uint8)
    assert np.array(result.mask, dtype=float).max() == 255
    probability = result.probability
    assert (probability.shape, probability.dtype) == ((90, 120), np.float32)
    np.testing.assert_array_equal(np.isnan(probability), ~valid)
    np.testing.assert_array_equal(probability[valid] >= 0.5, mask[valid] == 1)
    text = "<Prediction of 'town': 1 building, 15.2% built up, 90 × 120 px, 0.4 m per pixel"
    assert repr(result) == f"{text}; 1 note in summary.notes>"
    assert repr(result.mask) == "<Mask: 90 × 120 px, 92% valid, in pixels>"
    assert repr(result.outlines) == "<Footprints: 1 polygon in pixels>"
    assert repr(source.read()).startswith("<Raster: 3 bands of uint8, 90 × 120 px")
    shown = "<Predictor 'brightness': 0.4 m per pixel, background, building; openvino in "
    assert repr(model) == f"{shown}{model.engine.precision}>"


def test_a_model_is_loaded_in_each_process(model: Predictor) -> None:
    with pytest.raises(PredictError, match="cannot be pickled"):
        pickle.dumps(model)


def test_probabilities_go_to_on_block_alone(model: Predictor, picture: np.ndarray) -> None:
    seen = []
    result = model.predict(picture, gsd_m=0.4, on_block=seen.append)
    assert sum(block.window.area_px for block in seen) == 90 * 120
    with pytest.raises(ConfigError, match="on_block received them"):
        _ = result.probability


def test_errors_and_notes_have_the_words_of_python(model: Predictor, picture: np.ndarray) -> None:
    with pytest.raises(GsdMismatch, match=r"give the right one with gsd_m\.$") as raised:
        model.predict(picture, gsd_m=9)
    assert "--gsd" in raised.value.remedy  # as the command line shows it
    with pytest.raises(ConfigError, match=r"^SceneOptions\.stretch received 'foo'.*per-band"):
        SceneOptions(stretch="foo")
    with pytest.raises(ConfigError, match=r"Did you mean 'threshold' or 'stretch'\? Correct"):
        SceneOptions(treshold=0.5)
    (note,) = model.predict(picture).summary.notes
    assert note.endswith("give the right value with gsd_m.")
    for value, rule in (("-9999", "value=-9999"), ("255,0", "colour=(255,0)")):
        choice = f"a masked array or open_raster(path, nodata=NodataRule({rule}))."
        assert in_python_terms(f"give --nodata {value}.") == f"give {choice}"
    assert "give ArraySource(array, keeps_fill=True) or" in in_python_terms("give --nodata none.")
    assert "importlib" not in dir(rooftrace)
