"""The predictor turns an image into a mask, footprints and a preview."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pyproj import CRS

from rooftrace.core.errors import ConfigError, GeoreferenceError
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.legend import NODATA
from rooftrace.models.spec import Calibration
from rooftrace.predict.plan import NOT_CALIBRATED, SceneOptions, plan_scene
from rooftrace.predict.predictor import Predictor, load
from tiny_models import write_tiny_bundle

HOUSES = (Window(10, 20, 30, 40), Window(100, 50, 20, 25), Window(60, 120, 50, 30))
GRID = GeoGrid((160, 180), Affine(0.4, 0, 500_000, 0, -0.4, 9_000_000), CRS.from_epsg(32737))


def village(shape: tuple[int, int] = (160, 180)) -> np.ndarray:
    """Bright houses on dark ground, (band, y, x)."""
    image = np.full((3, *shape), 60, dtype=np.uint8)
    for house in HOUSES:
        image[:, *house.slices()] = 220
    image[:, 0, :9] -= np.arange(0, 36, 4, dtype=np.uint8)  # more colours than a mask has
    return image


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    path = tmp_path_factory.mktemp("model") / "tiny.rooftrace"
    write_tiny_bundle(path, gsd_m=0.4)
    return load(path)


def test_options_beside_single_ones_are_refused(model: Predictor) -> None:
    image = np.zeros((3, 64, 64), np.uint8)
    with pytest.raises(ConfigError, match="received gsd_m and threshold beside options") as both:
        model.predict(image, gsd_m=0.5, threshold=0.5, options=SceneOptions(outputs=("mask",)))
    assert "SceneOptions(gsd_m=" in both.value.remedy


def test_an_array_gives_mask_and_footprints(model: Predictor) -> None:
    result = model.predict(village())
    np.testing.assert_array_equal(result.mask.data, village()[0] > 128)
    assert result.mask.valid.all()
    assert result.footprints.area.tolist() == pytest.approx([h.area_px for h in _by_row()])
    assert result.footprints["score"].tolist() == pytest.approx([220 / 255] * 3, abs=0.005)
    assert result.summary.buildings == 3
    assert result.summary.built_up_share == pytest.approx(
        sum(house.area_px for house in HOUSES) / (160 * 180)
    )
    assert "has no metres per pixel" in result.summary.notes[0]


def test_a_position_far_from_its_crs_is_noted(model: Predictor) -> None:
    """LV95 as LV03, Krovak without its signs, RD swapped; Norway maps Bergen in zone 33."""
    for epsg, x, y, count in ((21781, 26e5, 12e5, 1), (5514, 74e4, 104e4, 1),
                              (25833, -32e3, 673e4, 0), (28992, 463e3, 155e3, 1)):  # fmt: skip
        grid = GeoGrid((160, 180), Affine(0.4, 0, x, 0, -0.4, y), CRS.from_epsg(epsg))
        notes = plan_scene(ArraySource(village(), grid), model.bundle.spec).notes
        assert sum("far outside of the area" in note for note in notes) == count
        assert ("Its x and y look swapped. " in str(notes)) == (epsg == 28992)


def _by_row() -> list[Window]:
    return sorted(HOUSES)


@pytest.mark.parametrize(("own_m", "side_px"), [(0.1, 64), (0.3, 160), (0.4, 160), (0.8, 320)])
def test_a_model_of_several_scales_runs_at_the_images_own(
    tmp_path: Path, own_m: float, side_px: int
) -> None:
    path = tmp_path / "several.rooftrace"
    write_tiny_bundle(path, gsd_m=0.4, finest_gsd_m=0.25)
    predictor = load(path)
    spec = predictor.bundle.spec
    assert plan_scene(ArraySource(village(), GRID), spec).scaling.is_identity
    plan = plan_scene(ArraySource(village()), spec, SceneOptions(gsd_m=own_m))
    assert plan.scaling.model_shape((160, 180))[0] == side_px
    found = predictor.predict(village(), gsd_m=own_m)
    assert found.summary.buildings == 3
    assert (found.mask.data == (village()[0] > 128)).mean() > 0.98


@pytest.mark.parametrize("least", [None, 0.0])
def test_a_note_says_where_the_least_score_leaves_most_buildings_out(
    tmp_path: Path, least: float | None
) -> None:
    fit = {
        "map": {"kind": "logistic", "slope": 1, "intercept": -20},
        "fitted_on": [{"data": "a", "split": "val", "scenes": 3, "objects": 9, "right": 1}],
        **dict.fromkeys(("ece_before", "ece_after", "log_loss_before", "log_loss_after"), 0.1),
    }
    write_tiny_bundle(tmp_path / "m.rooftrace", calibration=Calibration.model_validate(fit))
    options = SceneOptions(gsd_m=0.4, min_score=least)
    found = load(tmp_path / "m.rooftrace").predict(village(), options=options)
    assert found.summary.buildings == (3 if least == 0 else 0)
    assert ["min_score=0 keeps" in note for note in found.summary.notes] == [True] * (least is None)


def test_a_speck_of_a_coarse_image_is_no_building(model: Predictor) -> None:
    """An image of 1 m per pixel has fewer than two pixels for 9 pixels of the model at 0.4 m."""
    image = np.full((3, 100, 100), 60, dtype=np.uint8)
    image[:, 20:22, 20] = 220
    image[:, 60:63, 60:63] = 220
    source = ArraySource(image)
    plan = plan_scene(source, model.bundle.spec, SceneOptions(gsd_m=1.0))
    assert (plan.vector_options.min_area_px, plan.vector_options.min_score) == (4, 0)
    calibrated = model.bundle.spec.model_copy(update={"calibration": True})
    assert plan_scene(source, calibrated).vector_options.min_score == 0.2
    assert NOT_CALIBRATED not in plan_scene(source, calibrated).notes
    assert NOT_CALIBRATED in plan_scene(source, calibrated, SceneOptions(threshold=0.7)).notes
    result = model.predict(source, gsd_m=1.0)
    assert result.mask.data[20:22, 20].all()
    assert len(result.footprints) == 1
    fine = plan_scene(source, model.bundle.spec, SceneOptions(gsd_m=0.2))
    assert fine.vector_options.min_area_px == pytest.approx(36)


def test_a_fine_tuned_model_may_know_infrared(model: Predictor) -> None:
    image = ArraySource(village() // 4 + np.array([150, 80, 90], np.uint8)[:, None, None])
    deep = ArraySource(image.read().data * np.uint16(99))  # white, as it is not stretched
    spec, as_it_is = model.bundle.spec, SceneOptions(stretch="none")
    tuned = spec.model_copy(update={"training": {"start": {}}})
    plans = plan_scene(image, spec), plan_scene(image, tuned), plan_scene(deep, spec, as_it_is)
    assert ["infrared" in " ".join(plan.notes) for plan in plans] == [True, False, False]


def test_a_placed_image_gives_placed_footprints(model: Predictor) -> None:
    source = ArraySource(village(), GRID, name="village.tif")
    result = model.predict(source)
    frame = result.footprints
    assert frame.crs.to_epsg() == 32737
    assert frame["area_m2"].tolist() == pytest.approx(
        [h.area_px * 0.16 for h in _by_row()], rel=2e-3
    )
    left, bottom, right, top = frame.geometry.iloc[0].bounds
    assert (left, top) == pytest.approx((500_008, 8_999_996))
    assert (right, bottom) == pytest.approx((500_024, 8_999_984))
    assert result.summary.notes == ()
    assert len(model.predict(source, min_area_m2=100).footprints) == 2


def test_a_smallest_area_needs_metres(model: Predictor) -> None:
    with pytest.raises(GeoreferenceError, match="m²"):
        model.predict(village(), min_area_m2=10)
    assert len(model.predict(village(), min_area_m2=100, gsd_m=0.4).footprints) == 2


@pytest.mark.parametrize("placed", [True, False])
def test_save_writes_the_files_of_a_prediction(
    model: Predictor, tmp_path: Path, placed: bool
) -> None:
    valid = np.ones((160, 180), dtype=bool)
    valid[:8] = False
    source = ArraySource(village(), GRID if placed else None, valid, name="some/village.png")
    source.notes = ("taken at noon",)  # type: ignore[attr-defined]
    found = model.predict(source)
    assert "taken at noon" in found.summary.notes[0]
    saved = found.save(tmp_path / "saved")
    names = ["village_buildings", "village_mask", "village_preview"]
    assert sorted({path.stem for path in (tmp_path / "saved").iterdir()}) == names
    assert saved.density is None
    mask_alone = model.predict(source, options=SceneOptions(outputs=("mask",)))
    assert [*vars(mask_alone.save(str(tmp_path / "mask"))).values()][1:] == [None] * 3
    assert mask_alone.save(tmp_path, name="tile_7").mask.stem == "tile_7_mask"
    with pytest.raises(ConfigError, match="expected one without a folder"):
        mask_alone.save(tmp_path, name="../tile_7")
    with rasterio.open(saved.mask) if placed else Image.open(saved.mask) as opened:
        mask = opened.read(1) if placed else np.asarray(opened)
    np.testing.assert_array_equal(mask, np.where(valid, village()[0] > 128, NODATA))
    assert len(gpd.read_file(saved.polygons)) == 3
    with Image.open(saved.preview) as picture:
        assert picture.width >= 180
        assert picture.height > 160
