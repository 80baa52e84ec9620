"""`vectorize` makes the polygons of `predict` again from the mask alone, byte by byte, where no
probability has divided a region.
"""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from raster_files import write_geotiff
from rooftrace.core.types import ResultProvenance
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.flows.vectorize import run_vectorize
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import load
from rooftrace.vector.prepare import TAG, MaskRecord, VectorOptions
from rooftrace.vector.watershed import WatershedOptions
from town import generate_scene


def compared(image: Path, out: Path, options: SceneOptions, bundle: Path | None) -> int:
    """Compare the polygons of a prediction with those of its mask; return their number."""
    found = find_inputs([image], provenance=ResultProvenance("2024-05-17", "© Somebody"))
    report = run_predict(found, read_models(bundle), out, options)
    (output,) = report.outputs
    again = out / f"again{Path(output.polygons).suffix}"
    run_vectorize(Path(output.mask), again)
    predicted, made = geopandas.read_file(output.polygons), geopandas.read_file(again)
    assert made.geometry.to_wkb().tolist() == predicted.geometry.to_wkb().tolist()
    for column in set(predicted.columns) - {"geometry", "score"}:
        assert made[column].tolist() == predicted[column].tolist(), column
    # GDAL reads a text of this form in a GeoJSON as a date.
    assert {*predicted["imagery_date"].astype(str).str[:10]} == {"2024-05-17"}
    assert {*made["source"]} == {"© Somebody"}
    return len(made)


@pytest.mark.campaign
@pytest.mark.parametrize(
    "options",
    [
        SceneOptions(),
        SceneOptions(scale=0.5),
        SceneOptions(min_area_m2=30.0, min_hole_m2=10.0, outline="pixel"),
        SceneOptions(separate=False, gsd_m=0.2),
    ],
    ids=["default", "halved", "areas", "whole"],
)
def test_polygons_of_a_mask_are_those_of_the_prediction(
    options: SceneOptions, bundle: Path, tmp_path: Path
) -> None:
    scene = generate_scene(3, (512, 512), gsd_m=0.3)
    # The model of the tests finds what is bright: touching houses, narrow necks, small specks.
    bright = np.where(scene.mask() > 0, np.uint8(210), np.uint8(40))
    image = write_geotiff(
        tmp_path / "town.tif", np.stack([bright] * 3), transform=Affine(0.3, 0, 5e5, 0, -0.3, 9e6)
    )
    assert compared(image, tmp_path / "out", options, bundle) > 10


def test_a_mask_in_a_png_has_the_same_polygons(bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    bright = np.where(
        generate_scene(3, (512, 512), gsd_m=0.3).mask() > 0, np.uint8(210), np.uint8(40)
    )
    Image.fromarray(np.stack([bright] * 3, axis=2)).save(tmp_path / "town.png")
    assert compared(tmp_path / "town.png", tmp_path / "out", SceneOptions(scale=0.5), bundle) > 10


def test_what_probabilities_have_divided_is_said(bundle: Path, tmp_path: Path) -> None:
    """The model of the tests gives less certain answers for pixels that are less bright."""
    pixels = np.full((3, 64, 96), 40, np.uint8)
    pixels[:, 10:50, 8:84] = 225
    pixels[:, 10:50, 44:48] = 150
    image = write_geotiff(tmp_path / "a.tif", pixels, transform=Affine(0.3, 0, 5e5, 0, -0.3, 9e6))

    def polygons(options: SceneOptions) -> tuple[int, int, tuple[str, ...]]:
        report = run_predict(find_inputs([image]), read_models(bundle), tmp_path, options)
        again = run_vectorize(tmp_path / "a_mask.tif", tmp_path / "again.gpkg")
        return report.outputs[0].buildings, again.polygons, again.notes

    assert polygons(SceneOptions(separate=False)) == (1, 1, ())
    predicted, made, (note,) = polygons(SceneOptions())
    assert (predicted, made) == (2, 1)
    assert "some are separated in another way here" in note


def test_probabilities_give_the_polygons_of_the_prediction(bundle: Path, tmp_path: Path) -> None:
    """Bright houses touch by pixels that are less bright; a speck is no building."""
    town = generate_scene(3, (512, 512), gsd_m=0.3).mask() > 0
    bright = np.where(town, 225, 40).astype(np.uint8)
    bright[100:140, 100:176], bright[100:140, 136:140], bright[2:4, 2:4] = 225, 150, 225
    place = {"transform": Affine(0.3, 0, 5e5, 0, -0.3, 9e6)}
    image = write_geotiff(tmp_path / "town.tif", np.stack([bright] * 3), **place)
    options = SceneOptions(threshold=0.5, gsd_m=load(bundle).bundle.spec.gsd_m)
    report = run_predict(find_inputs([image]), read_models(bundle), tmp_path, options)
    assert report.outputs[0].polygons is not None
    predicted = geopandas.read_file(report.outputs[0].polygons)
    score = load(bundle).predict(image, options=options).score
    prob = write_geotiff(tmp_path / "prob.tif", score, **place)
    out = tmp_path / "again.gpkg"
    notes = run_vectorize(prob, out, threshold=0.5, gsd_m=options.gsd_m).notes
    made = geopandas.read_file(out)
    assert made.geometry.to_wkb().tolist() == predicted.geometry.to_wkb().tolist()
    assert made["score"].tolist() == predicted["score"].tolist()
    assert len(made) > 10
    assert notes == ()


def test_without_the_channel_that_separated_buildings_their_shape_does(tmp_path: Path) -> None:
    mask = np.zeros((1, 64, 96), np.uint8)
    mask[:, 10:50, 8:44] = mask[:, 10:50, 48:84] = mask[:, 28:32, 44:48] = 1
    path = write_geotiff(tmp_path / "a.tif", mask)
    with rasterio.open(path, "r+") as file:
        record = MaskRecord(polygons=VectorOptions(), building=1, shape=(64, 96))
        file.update_tags(**record.tags())
    report = run_vectorize(path, tmp_path / "a.gpkg")
    assert report.polygons == 2
    assert any("here shapes do" in note for note in report.notes)


def test_outlines_are_pixels_simplified_or_regular(tmp_path: Path) -> None:
    row, col = np.mgrid[:80, :80] - 40
    # A house of 40 × 24 pixels, turned by 20 degrees, whose corner a model has rounded off.
    along, across = np.cos(0.35) * col + np.sin(0.35) * row, np.cos(0.35) * row - np.sin(0.35) * col
    house = (np.abs(along) < 20) & (np.abs(across) < 12) & (along + across < 29)
    mask = write_geotiff(tmp_path / "mask.tif", house.astype(np.uint8)[None])
    corners, area = {}, {}
    for style in ("pixel", "simplified", "regular"):
        report = run_vectorize(mask, tmp_path / "out.gpkg", outline=style)
        assert report.regularized == (1 if style == "regular" else None)
        (outline,) = geopandas.read_file(tmp_path / "out.gpkg").geometry
        corners[style], area[style] = len(outline.exterior.coords) - 1, outline.area
    assert corners["pixel"] > 4 * corners["simplified"]
    assert corners["simplified"] > corners["regular"] == 4
    pixel_m2 = rasterio.open(mask).res[0] ** 2
    assert area["pixel"] == pytest.approx(house.sum() * pixel_m2)


def test_record_of_a_mask(tmp_path: Path) -> None:
    options = VectorOptions(
        min_area_m2=1 / 3, min_area_px=4.1, regularize=False, watershed=WatershedOptions(0.5)
    )
    origin = ResultProvenance("2024-05-17", None, "ü")
    record = MaskRecord(polygons=options, gsd_m=0.1, building=2, origin=origin, shape=(8, 8))
    path = write_geotiff(tmp_path / "a.tif", np.zeros((1, 8, 8), np.uint8))
    assert MaskRecord.read(path) is None
    with rasterio.open(path, "r+") as file:
        later = json.loads(record.tags()[TAG])
        later |= {"name": 1, "origin": later["origin"] | {"licence": "CC BY"}}
        file.update_tags(**{TAG: json.dumps(later)})
    found = MaskRecord.read(path)
    assert found == record


@pytest.mark.parametrize("placed", [True, False], ids=["georeferenced", "pixels"])
def test_a_mask_that_another_program_resampled_has_pixels_of_its_own(
    placed: bool, bundle: Path, tmp_path: Path
) -> None:
    """Other programs copy the tag, though its limits and its `--gsd` are of the former pixels."""
    pixels = np.full((3, 200, 200), 20, np.uint8)
    pixels[:, 40:120, 40:120] = 240
    image = write_geotiff(
        tmp_path / "a.tif", pixels, transform=Affine(0.5, 0, 5e5, 0, -0.5, 5e6),
        crs="EPSG:32633" if placed else None,
    )  # fmt: skip
    found = find_inputs([image], provenance=ResultProvenance("2024-05-17"))
    run_predict(found, read_models(bundle), tmp_path, SceneOptions(gsd_m=0.5))
    with rasterio.open(tmp_path / "a_mask.tif") as file:
        tags = file.tags()
        data = file.read(1)
        assert TAG in tags

    def polygons(name: str, values: np.ndarray, size_m: float) -> tuple[float, tuple[str, ...]]:
        path = write_geotiff(
            tmp_path / name, values[None], transform=Affine(size_m, 0, 5e5, 0, -size_m, 5e6),
            crs="EPSG:32633" if placed else None,
        )  # fmt: skip
        with rasterio.open(path, "r+") as file:
            file.update_tags(**tags)
        out = tmp_path / ("again.gpkg" if placed else "again.geojson")
        report = run_vectorize(path, out)
        table = geopandas.read_file(out)
        assert {*table["imagery_date"].astype(str).str[:10]} == {"2024-05-17"}
        (area,) = table["area_m2"]
        return area, tuple(note for note in report.notes if "predicted with" in note)

    area, notes = polygons("same.tif", data, 0.5)
    assert (round(area), notes) == (1600, ())
    if placed:
        assert round(polygons("part.tif", data[20:], 0.5)[0]) == 1600
    area, (note,) = polygons("half.tif", data[::2, ::2].copy(), 1.0)
    assert "do not apply" in note
    assert area is None if not placed else area == pytest.approx(1600, rel=0.002)
