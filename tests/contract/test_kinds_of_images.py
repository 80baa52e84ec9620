"""Each kind of image in docs/inputs.md is predicted from a file, or refused with a remedy."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import rasterize

from raster_files import write_geotiff
from rooftrace.core.errors import BandMismatch, DataError, RooftraceError
from rooftrace.core.types import Raster, RasterSource, Window
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor, load
from tiny_models import write_tiny_bundle
from town import demo_scene_path

SIDE = 640
DOCS = Path(__file__).parents[2] / "docs"
MASK = SceneOptions(outputs=("mask",), gsd_m=0.3)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Args:
        write: Function that writes (3, y, x) uint8 pixels as this kind of image.
        least: Least IoU of the masks of this file and of the 8-bit original; 0 where the kind
            holds less than the original.
        notes: Texts in the notes, one for each expected note.
        bands: Numbers of the bands that are read.
        stretch: Way in which the values are stretched; None if they are not.
        refused: Error and text in its remedy, if the image is refused.
        turned: Whether the picture is turned by 90° to the right.
    """

    write: Callable[[Path, Pixels], Path]
    least: float = 0.9
    notes: tuple[str, ...] = ()
    bands: tuple[int, ...] = (1, 2, 3)
    stretch: str | None = None
    refused: tuple[type[RooftraceError], str] | None = field(default=None)
    turned: bool = False


def tiff(path: Path, data: NDArray[Any], **options: Any) -> Path:
    names = options.pop("names", None)
    write_geotiff(path.with_suffix(".tif"), data, **{"crs": None, "transform": None} | options)
    if names:
        with rasterio.open(path.with_suffix(".tif"), "r+") as file:
            file.descriptions = names
    return path.with_suffix(".tif")


def deep(data: Pixels) -> NDArray[np.uint16]:
    return np.asarray(data * 12.5 + 137).astype(np.uint16)


def with_infrared(path: Path, data: Pixels) -> Path:
    return tiff(path, deep(np.concatenate([data, data[1:2] // 2 + 60])))


def with_negative_nodata(path: Path, data: Pixels) -> Path:
    values = deep(data).astype(np.int16)
    values[:, :100, :100] = -9999
    return tiff(path, values, nodata=-9999)


def decimal(path: Path, data: Pixels) -> Path:
    values = (data / 255 * 0.7).astype(np.float32)
    values[:, :100, :100] = np.nan
    return tiff(path, values)


def photograph(path: Path, data: Pixels, mode: str = "RGB", code: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = code
    picture = Image.fromarray(np.moveaxis(data, 0, -1)).convert(mode)
    if code == 6:
        picture = picture.rotate(90, expand=True)
    picture.save(path.with_suffix(".jpg"), quality=95, exif=exif)
    return path.with_suffix(".jpg")


def bits(path: Path, data: Pixels) -> Path:
    Image.fromarray(data.mean(axis=0) > 128).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def palette(path: Path, data: Pixels) -> Path:
    Image.fromarray(np.moveaxis(data, 0, -1)).quantize(256).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def grey(path: Path, data: Pixels) -> Path:
    Image.fromarray(np.moveaxis(data, 0, -1)).convert("L").save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def unnamed_fourth(path: Path, data: Pixels) -> Path:
    alpha = np.full((1, SIDE, SIDE), 255, np.uint8)
    alpha[:, :100, :100] = 0
    return tiff(path, np.concatenate([data, alpha]), photometric="minisblack")


def infrared_as_alpha(path: Path, data: Pixels) -> Path:
    return tiff(path, np.concatenate([data, data[1:2] // 2 + 60]), photometric="rgb", alpha="yes")


KINDS = {
    "8-bit RGB": Kind(tiff, 1.0),
    "16-bit RGB and near infrared": Kind(
        with_infrared, 0.95,
        ("4 bands without names", "is taken as near infrared", "values of type uint16"),
        stretch="percentiles",
    ),
    "16-bit with a negative nodata value": Kind(
        with_negative_nodata, 0.95, ("values of type int16",), stretch="percentiles"
    ),
    "floats": Kind(decimal, 0.95, ("values of type float32",), stretch="percentiles"),
    "8-bit values in a wider type": Kind(
        lambda path, data: tiff(path, data.astype(np.int32)), 1.0, ("8-bit values of type int32",)
    ),
    "very dark 8-bit image": Kind(
        lambda path, data: tiff(path, (data * 0.3).astype(np.uint8)), 0.9, ("is very dark",),
        stretch="dark",
    ),
    "one band (panchromatic)": Kind(grey, 0.5, ("used as red, green and blue",), (1, 1, 1)),
    "1 bit": Kind(
        bits, 0.0, ("only 2 colours", "used as red, green and blue", "fewer than 8 bits"),
        (1, 1, 1), "bits",
    ),
    "palette": Kind(palette, 0.7),
    "bands with names in another order": Kind(
        lambda path, data: tiff(path, data[::-1], names=("Blue", "Green", "Red")), 1.0,
        ("bands 3, 2, 1 are read as red, green, blue",), (3, 2, 1),
    ),
    "as many bands as the model, with unknown names": Kind(
        lambda path, data: tiff(path, data, names=("SR_B4", "SR_B3", "SR_B2")), 1.0,
        ("bands 1 SR_B4, 2 SR_B3, 3 SR_B2 are read as red, green, blue",),
    ),
    "fourth band without a name": Kind(
        unnamed_fourth, 0.95, ("4 bands without names", "is taken as alpha")
    ),
    "fourth band marked as alpha that holds a picture": Kind(
        infrared_as_alpha, 1.0,
        ("band 4 is marked as alpha, but holds a picture", "bands 1, 2, 3 are read as red"),
    ),
    "near infrared in place of red (colour infrared), without names": Kind(
        lambda path, data: tiff(path, data // 4 + np.array([[[150]], [[80]], [[90]]], np.uint8)),
        0.0, ("read as red may be near infrared",),
    ),
    "near infrared in place of red, with names": Kind(
        lambda path, data: tiff(
            path, data // 4 + np.array([[[150]], [[80]], [[90]]], np.uint8),
            names=("nir", "red", "green"),
        ),
        0.0, ("is wrong on near infrared",),
    ),
    "many bands without names": Kind(
        lambda path, data: tiff(path, np.concatenate([data, data])),
        refused=(BandMismatch, "--bands"),
    ),
    "two bands": Kind(
        lambda path, data: tiff(path, data[:2]), refused=(BandMismatch, "--bands 1")
    ),
    "CMYK JPEG": Kind(lambda path, data: photograph(path, data, "CMYK"), 0.85),
    "grey TIFF with MINISWHITE": Kind(
        lambda path, data: tiff(
            path, 255 - data.mean(axis=0, keepdims=True).astype(np.uint8), photometric="miniswhite"
        ),
        0.5, ("used as red, green and blue",), (1, 1, 1),
    ),
    "JPEG with an EXIF orientation": Kind(lambda path, data: photograph(path, data, code=6), 0.85),
    "complex numbers (radar)": Kind(
        lambda path, data: tiff(path, data.astype(np.complex64)), refused=(DataError, "amplitudes")
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return open_raster(demo_scene_path()).read(Window(700, 700, SIDE, SIDE)).data


@pytest.fixture(scope="module")
def model() -> Predictor:
    return load()


@pytest.fixture(scope="module")
def original(pixels: Pixels, model: Predictor) -> NDArray[np.bool_]:
    """The buildings that the model finds in the plain image."""
    options = SceneOptions(outputs=("mask",), gsd_m=0.3, stretch="none")
    found = model.predict(ArraySource(pixels), options=options).mask.data == 1
    assert 0.05 < found.mean() < 0.6
    return found


def iou(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    return float((found & expected).sum() / max((found | expected).sum(), 1))


def test_the_table_has_a_row_for_each_kind() -> None:
    table = (DOCS / "inputs.md").read_text(encoding="utf-8").partition("|---|---|")[2]
    assert re.findall(r"^\| ([^|]+) \|", table.partition("\n\n")[0], re.MULTILINE) == [*KINDS]


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_image(
    name: str, pixels: Pixels, original: NDArray[np.bool_], model: Predictor, tmp_path: Path
) -> None:
    kind = KINDS[name]
    path = kind.write(tmp_path / "image", pixels)
    if kind.refused is not None:
        error, remedy = kind.refused
        with pytest.raises(error, match=re.escape(str(path))) as caught:
            model.predict(path, options=MASK)
        assert remedy in caught.value.remedy
        return
    prediction = model.predict(path, options=MASK)
    found, known = prediction.mask.data == 1, prediction.mask.valid
    assert iou(found & known, original & known) >= kind.least
    values = prediction.summary.values
    assert values is not None
    assert tuple(values["bands"]) == kind.bands
    assert (values["stretch"] or {}).get("how") == kind.stretch
    assert json.loads(json.dumps(values)) == prediction.summary.to_json()["values"]
    reported = " ".join(prediction.summary.notes)
    assert all(note in reported for note in kind.notes), reported
    assert len(prediction.summary.notes) == len(kind.notes), prediction.summary.notes
    has_nodata = any(word in name for word in ("nodata", "floats", "without a name"))
    assert known[:100, :100].all() != has_nodata
    assert known[100:].all()


def test_a_refused_image_is_predicted_with_the_remedy(
    pixels: Pixels, original: NDArray[np.bool_], model: Predictor, tmp_path: Path
) -> None:
    path = tiff(tmp_path / "image", np.concatenate([pixels // 2, pixels[::-1]]))
    options = SceneOptions(outputs=("mask",), gsd_m=0.3, bands="6,5,4")
    assert np.array_equal(model.predict(path, options=options).mask.data == 1, original)


def made(path: Path, out: Path, **options: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Return the mask and the record of a run with a model that uses each pixel by itself."""
    chosen = SceneOptions(**{"outputs": ("mask",), "gsd_m": 0.3} | options)
    bundle = write_tiny_bundle(out.with_suffix(".rooftrace"), gsd_m=0.3)
    report = run_predict(find_inputs([path]), read_models(bundle), out, chosen)
    mask = open_raster(str(report.outputs[0].mask), palette="indices").read().data[0]
    return mask, json.loads((out / "run.json").read_text())


def test_blocks_do_not_change_a_stretched_scene(
    pixels: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The brightness differs over the scene, so that a stretch for each block would differ, too.
    slope = np.linspace(0.3, 1, SIDE)
    path = tiff(tmp_path / "a", deep((pixels * slope).astype(np.uint8)), tiled=True)
    whole, record = made(path, tmp_path / "whole")
    assert record["figures"][0]["values"]["stretch"]["how"] == "percentiles"
    assert record["options"]["stretch"] == "auto"
    monkeypatch.setattr("rooftrace.predict.plan.BLOCK_PX", 256)
    monkeypatch.setattr("rooftrace.predict.plan.TILE_PX", 256)
    several, again = made(path, tmp_path / "blocks")
    assert record["figures"][0]["values"] == again["figures"][0]["values"]
    assert np.array_equal(whole, several)
    assert 0.05 < (whole == 1).mean() < 0.95


class Sixteen:
    """A scene of 8 bits as one of 16 bits with near infrared, converted while it is read."""

    def __init__(self, source: RasterSource) -> None:
        self._source = source
        self.name, self.grid, self.bands = "sixteen", source.grid, 4
        self.dtype = np.dtype(np.uint16)

    def read(self, window: Window | None = None) -> Raster:
        raster = self._source.read(window)
        data = np.concatenate([raster.data, raster.data[1:2] // 2 + 60])
        return Raster(deep(data), raster.valid, raster.grid)


@pytest.mark.campaign
@pytest.mark.realdata
def test_a_real_scene_of_sixteen_bits_is_as_accurate(realdata: Path, model: Predictor) -> None:
    scene = open_raster(realdata / "scenes" / "catanduanes_z20.tif")
    labels = open_labels(realdata / "oam" / "catanduanes" / "labels.geojson", scene)
    options = SceneOptions(outputs=("mask",))
    plain, wide = (
        model.predict(source, options=options).mask for source in (scene, Sixteen(scene))
    )
    assert np.array_equal(plain.valid, wide.valid)
    truth = labels & plain.valid
    plain_iou, wide_iou = (iou(mask.data == 1, truth) for mask in (plain, wide))
    assert plain_iou > 0.6
    assert abs(plain_iou - wide_iou) <= 0.01


def open_labels(path: Path, scene: RasterSource) -> NDArray[np.bool_]:
    import geopandas as gpd

    assert scene.grid.crs is not None
    shapes = gpd.read_file(path).to_crs(scene.grid.crs.to_wkt()).geometry
    drawn = rasterize(shapes, scene.grid.shape, transform=scene.grid.transform, dtype=np.uint8)
    return np.asarray(drawn, np.bool_)
