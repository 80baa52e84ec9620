"""Rasters of other tools are judged on the grid of the labels."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from external_scenes import CRS, HOUSES, PLACE, SHAPE, houses, judged, write_png, write_tiff
from pyproj import Transformer
from rasterio.warp import Resampling, reproject

from rooftrace.core.errors import ConfigError, GeoreferenceError, LabelError, LayoutError
from rooftrace.flows.evaluate.layers import RasterPredictions
from rooftrace.flows.evaluate.run import EvalOptions
from rooftrace.labels.mask_values import LabelRule


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """An image of the three houses with its mask, in pairs."""
    rgb = np.repeat(houses()[None] * np.uint8(200) + np.uint8(20), 3, axis=0)
    write_tiff(tmp_path / "data/images/a.tif", rgb)
    write_tiff(tmp_path / "data/masks/a.tif", houses() * np.uint8(255))
    return tmp_path / "data"


@pytest.mark.parametrize("full", [1, 255, 7])
@pytest.mark.parametrize("kind", ["tif", "png"])
def test_the_truth_itself_is_right(truth: Path, tmp_path: Path, full: int, kind: str) -> None:
    mask = houses() * np.uint8(full)
    path = tmp_path / f"predicted/a_mask.{kind}"
    write_png(path, mask) if kind == "png" else write_tiff(path, mask)
    report = judged(tmp_path / "predicted", truth)
    plain = report.to_json()
    assert plain["pixel"]["iou"] == plain["objects"]["f1"] == plain["objects"]["mean_f1"] == 1
    assert plain["objects"]["predicted"] == 3
    assert plain["polygons"]["iou"] == 1
    assert plain["predictions"] == {"path": str(tmp_path / "predicted"), "kind": "rasters"}


def test_probabilities_have_a_threshold_and_a_curve(truth: Path, tmp_path: Path) -> None:
    sure = houses(0, 1) * np.float32(0.8) + houses(2) * np.float32(0.4)
    write_tiff(tmp_path / "float/a.tif", sure)
    write_tiff(tmp_path / "bytes/a.tif", np.rint(sure * 255).astype(np.uint8))
    half = judged(tmp_path / "float", truth)
    assert half.objects.matched == 2
    assert any("reach 0.5" in note for note in half.notes)
    assert half.images[0].score.tolist() == pytest.approx([0.8, 0.8], abs=0.003)
    for folder in ("float", "bytes"):
        low = judged(tmp_path / folder, truth, EvalOptions(threshold=0.3))
        assert low.to_json()["pixel"]["iou"] == 1
        assert low.context["threshold"] == 0.3
        assert low.curve is not None
        assert low.curve.average_precision() == 1


def test_nodata_is_not_judged_and_what_is_not_predicted_is_background(tmp_path: Path) -> None:
    rgb = np.full((3, *SHAPE), 90, np.uint8)
    rgb[:, :30] = 255
    write_tiff(tmp_path / "data/images/a.tif", rgb)
    write_tiff(tmp_path / "data/masks/a.tif", houses())
    mask = houses()
    mask[:, 60:] = 255
    write_tiff(tmp_path / "predicted/a.tif", mask, nodata=255)
    report = judged(tmp_path / "predicted", tmp_path / "data", nodata=(255.0, 255.0, 255.0))
    # The lower half is judged, all of it; only the third house lies there.
    assert report.pooled.pixels == 30 * 80
    assert report.pooled.iou(1) == 1
    assert any("only partly predicted" in note and "25.0%" in note for note in report.notes)
    whole = judged(tmp_path / "predicted", tmp_path / "data")
    # The second house is ten columns short, which are missed.
    areas = [20 * 15, 30 * 20, 20 * 20]
    assert whole.pooled.recall(1) == pytest.approx((sum(areas) - 10 * 20) / sum(areas))
    assert whole.pooled.precision(1) == 1


def write_labels(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    for name, mask in masks.items():
        write_png(folder / f"{name}.png", mask)
    return folder


def test_the_meaning_of_255_is_that_of_all_files(tmp_path: Path) -> None:
    empty, built = np.zeros(SHAPE, np.uint8), houses()
    truth = write_labels(tmp_path / "truth", {"a": empty, "b": built, "c": built})
    marked = {"a": empty.copy(), "b": built.copy(), "c": built.copy()}
    for mask in marked.values():
        mask[:3] = 255
    report = judged(write_labels(tmp_path / "predicted", marked), truth)
    assert report.to_json()["pixel"]["iou"] == 1
    assert not any("0 and 255" in note for note in report.notes)
    with pytest.raises(LabelError, match="beside it are 1, 2; masks of buildings have one"):
        judged(write_labels(tmp_path / "predicted", marked | {"b": built * np.uint8(2)}), truth)


def test_masks_of_0_and_255_alone_are_taken_for_buildings_with_a_note(tmp_path: Path) -> None:
    masks = {"a": houses(), "b": houses(0)}
    truth = write_labels(tmp_path / "truth", masks)
    for name, mask in masks.items():
        # JPEG blurs between 0 and 255.
        write_png(tmp_path / f"predicted/{name}/{name}.jpg", mask * np.uint8(255))
    report = judged(tmp_path / "predicted", truth)
    assert report.to_json()["pixel"]["iou"] == 1
    (note,) = [note for note in report.notes if "0 and 255" in note]
    assert "255 is taken for building" in note


def test_jpeg_masks_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(16)]
    for path in paths:
        write_png(path, np.zeros((512, 512), np.uint8))
    rule = LabelRule(("background", "building"))
    tracemalloc.start()
    RasterPredictions.of({path.stem: (path,) for path in paths}, rule, 1, None)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 * 512**2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_each_value_of_a_mask_of_instances_is_a_building(tmp_path: Path, dtype: type) -> None:
    write_png(tmp_path / "truth/a.png", houses())
    numbers = np.zeros(SHAPE, dtype)
    # Two of the houses are rows of houses that touch.
    rows = [(5, 20, 5, 15), (5, 20, 15, 25), (35, 55, 10, 30)]
    rows += [(10, 30, left, left + 10) for left in (40, 50, 60)]
    for number, (top, bottom, left, right) in enumerate(rows, start=1):
        numbers[top:bottom, left:right] = 40 * number
    write_tiff(tmp_path / "predicted/a_cp_masks.tif", numbers, None)
    report = judged(tmp_path / "predicted", tmp_path / "truth")
    assert report.to_json()["pixel"]["iou"] == 1
    assert report.objects.predicted == 6
    assert any("each value of the masks is read as one building" in one for one in report.notes)


def test_probabilities_in_bytes_are_known_by_a_file_that_has_buildings(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, np.uint8)
    names = [f"{number:02}" for number in range(20)]
    built = {"01", "11"}
    masks = {name: houses() if name in built else empty for name in names}
    shades = {name: mask * np.uint8(200) for name, mask in masks.items()}
    for name in built:
        shades[name][0, :4] = 1, 2, 3, 4
    truth = write_labels(tmp_path / "truth", masks)
    predicted = write_labels(tmp_path / "predicted", shades)
    report = judged(predicted, truth, EvalOptions(threshold=0.5, group_pattern="(.)"))
    assert report.to_json()["pixel"]["iou"] == 1
    assert [*report.places] == ["0", "1"]
    assert report.context["threshold"] == 0.5


def test_another_resolution_and_origin(truth: Path, tmp_path: Path) -> None:
    # Twice as fine, ten metres farther up and to the left, larger on all sides.
    fine = np.zeros((200, 240), np.uint8)
    for left, top, right, bottom in HOUSES:
        fine[2 * top + 40 : 2 * bottom + 40, 2 * left + 40 : 2 * right + 40] = 1
    place = PLACE @ Affine.translation(-20, -20) @ Affine.scale(0.5)
    write_tiff(tmp_path / "predicted/a.tif", fine, place)
    report = judged(tmp_path / "predicted", truth)
    assert report.to_json()["pixel"]["iou"] == 1
    assert any("another grid" in note for note in report.notes)


def test_another_coordinate_system(truth: Path, tmp_path: Path) -> None:
    moved = Transformer.from_crs(CRS, 4326, always_xy=True)
    west, north = moved.transform(*(PLACE @ (-4, -4)))
    east, south = moved.transform(*(PLACE @ (SHAPE[1] + 4, SHAPE[0] + 4)))
    width, height = round((east - west) * 1e6), round((north - south) * 1e6)
    place = Affine(1e-6, 0, west, 0, -1e-6, north)
    degrees = np.zeros((height, width), np.float32)
    reproject(
        houses().astype(np.float32), degrees, src_transform=PLACE, src_crs=CRS,
        dst_transform=place, dst_crs="EPSG:4326", resampling=Resampling.nearest,
    )  # fmt: skip
    write_tiff(tmp_path / "predicted/a.tif", degrees.astype(np.uint8), place, "EPSG:4326")
    assert judged(tmp_path / "predicted", truth).pooled.iou(1) > 0.97


def test_tiles_are_found_by_their_place(truth: Path, tmp_path: Path) -> None:
    mask = houses()
    for number, (row, col) in enumerate([(0, 0), (0, 40), (30, 0), (30, 40)]):
        part = mask[row : row + 30, col : col + 40]
        write_tiff(
            tmp_path / f"predicted/t{number}.tif", part, PLACE @ Affine.translation(col, row)
        )
    write_tiff(tmp_path / "predicted/far.tif", mask, PLACE @ Affine.translation(5000, 0))
    report = judged(tmp_path / "predicted", truth)
    assert report.to_json()["pixel"]["iou"] == 1
    assert any("1 raster touches no labelled scene: far.tif" in note for note in report.notes)


def test_classes(tmp_path: Path) -> None:
    labels = {"classes": ["nothing", "building", "road"], "building": "building"}
    mask = houses(0) + houses(1) * np.uint8(2)
    write_tiff(tmp_path / "truth/a.tif", mask)
    guess = mask.copy()
    guess[guess == 2] = 0
    write_tiff(tmp_path / "predicted/a.tif", guess)
    report = judged(tmp_path / "predicted", tmp_path / "truth", labels=labels)
    assert report.pooled.iou(1) == 1
    assert report.pooled.recall(2) == 0
    write_tiff(tmp_path / "predicted/a.tif", guess.astype(np.float32))
    with pytest.raises(ConfigError, match="probabilities of one class"):
        judged(tmp_path / "predicted", tmp_path / "truth", labels=labels)


def test_colours_are_read_by_the_palette_of_the_labels(tmp_path: Path) -> None:
    palette = {"background": "#000000", "building": "#3C1098"}
    colours = np.array([[0, 0, 0], [0x3C, 0x10, 0x98]], np.uint8)[houses()]
    for part in ("truth", "predicted"):
        write_png(tmp_path / part / "a.png", colours)
    report = judged(tmp_path / "predicted", tmp_path / "truth", labels={"palette": palette})
    assert report.to_json()["pixel"]["iou"] == 1
    assert report.pooled.matrix[1, 1] == houses().sum()


def test_what_does_not_fit_is_reported(truth: Path, tmp_path: Path) -> None:
    predicted = tmp_path / "predicted"
    write_tiff(predicted / "a.tif", houses()[:50], None)
    with pytest.raises(LayoutError, match="50 rows × 80 columns, but its scene has 60 rows × 80"):
        judged(predicted, truth)
    write_tiff(predicted / "a.tif", houses(), PLACE @ Affine.translation(9000, 0))
    with pytest.raises(GeoreferenceError, match="lies at longitude"):
        judged(predicted, truth)
    sixteen_bits = np.arange(1, houses().size + 1, dtype=np.uint16).reshape(SHAPE)
    for shades in (sixteen_bits, np.random.default_rng(0).integers(0, 250, SHAPE, np.uint8)):
        write_tiff(predicted / "a.tif", shades)
        with pytest.raises(LabelError, match="masks of buildings have one such value"):
            judged(predicted, truth)
    write_tiff(predicted / "a.tif", shades.astype(np.float32))
    with pytest.raises(LabelError, match="probabilities are fractions from 0 to 1"):
        judged(predicted, truth)
    write_tiff(predicted / "a.tif", np.stack([shades, shades[::-1], shades]))
    with pytest.raises(LabelError, match="is coloured: 3 bands that differ"):
        judged(predicted, truth)
    (predicted / "a.tif").unlink()
    write_tiff(predicted / "b.tif", houses(), None)
    write_tiff(predicted / "c.tif", houses(), None)
    with pytest.raises(GeoreferenceError, match="and no georeference"):
        judged(predicted, truth)
