"""Many images to one table of run lengths: the sample's own form, checked before the work."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import decode

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.flows.predict.contest_output import RLE_TABLE, CocoOutput, RleOutput
from rooftrace.flows.predict.image_run import RunReport
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.nodata import NodataRule
from rooftrace.labels.rle import NO_RUNS, Order, RleTable, decode_runs, is_empty
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import load
from tiny_models import write_tiny_bundle

NAMES = ("a", "b c", "ü", "empty")
SHAPES = ((64, 80), (32, 48), (96, 64), (32, 32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace", gsd_m=0.3)


def draw(path: Path, shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 40, dtype=np.uint8)
    if path.stem != "empty":
        pixels[5:25, 10:40] = 200
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name, shape in zip(NAMES, SHAPES):
        draw(tmp_path / "in" / f"{name}.png", shape)
    return tmp_path / "in"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample.csv"
    rows = ["img_id,mask_rle,note", "ü.png,,x", "a,,", 'empty,,"y,z"', "b c,,"]
    path.write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    return path


def fill(
    images: Path,
    bundle: Path,
    out: Path,
    sample: Path | None = None,
    order: Order | None = None,
    nodata: NodataRule | None = None,
    *,
    outputs: tuple[str, ...] = (),
) -> RunReport:
    inputs = find_inputs([images], nodata)
    rle = RleOutput.of(inputs.scenes, out, sample, order)
    options = SceneOptions(gsd_m=0.3, outputs=outputs)  # type: ignore[arg-type]
    return run_predict(inputs, read_models(bundle), out, options, rle=rle)


@pytest.mark.campaign
@pytest.mark.parametrize("order", [None, "row", "column"])
def test_the_sample_is_filled_in(
    images: Path, sample: Path, bundle: Path, tmp_path: Path, order: Order | None
) -> None:
    out = tmp_path / "out"
    report = fill(images, bundle, out, sample, order)
    assert report.table == str(out / RLE_TABLE)
    table = RleTable.read(out / RLE_TABLE)
    predictor = load(bundle)
    names = [table.image_id(row).removesuffix(".png") for row in table.rows]
    assert names == ["ü", "a", "empty", "b c"]
    shapes = dict(zip(NAMES, SHAPES))
    for name, row in zip(names, table.rows):
        expected = predictor.predict(images / f"{name}.png", gsd_m=0.3).mask.data == 1
        assert np.array_equal(
            decode_runs(table.runs(row), shapes[name], order or "row", where=""), expected
        )
    assert any("1 without a building" in note for note in report.notes)
    # Its empty mask is that of the sample; but for the runs it is the sample, cell by cell.
    assert [table.runs(row) for row in table.rows if is_empty(table.runs(row))] == [""]
    table.write(tmp_path / "back.csv", [""] * 4)
    assert RleTable.read(tmp_path / "back.csv").rows == RleTable.read(sample).rows


def test_without_a_sample_rows_are_sorted_by_name(
    images: Path, bundle: Path, tmp_path: Path
) -> None:
    report = fill(images, bundle, tmp_path / "out", outputs=("mask",))
    lines = (tmp_path / "out" / RLE_TABLE).read_bytes().decode().split("\n")
    assert lines[0] == "img_id,mask_rle"
    assert [line.split(",")[0] for line in lines[1:]] == ["a", "b c", "empty", "ü", ""]
    assert (tmp_path / "out" / "a_mask.png").exists()
    assert len(report.outputs) == 4


def test_missing_and_surplus_images_are_reported_before_anything_is_predicted(
    images: Path, sample: Path, bundle: Path, tmp_path: Path
) -> None:
    for number in range(7):
        draw(images / f"new{number}.png", (32, 32))
    (images / "a.png").unlink()
    with pytest.raises(LayoutError) as caught:
        fill(images, bundle, tmp_path / "out", sample)
    message = caught.value.message
    assert "1 of its 4 images cannot be found: a (row 3); 7 images are not in it: " in message
    assert message.count("new") == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "error", "reported"),
    [
        ("img_id,mask_rle\na,-1\na.png,-1", LayoutError, r"lists .*a\.png twice, in row 2 and row"),
        ("img_id,img_path\na,a.png", LabelError, "and one for the runs"),
        ("name,rle\na,-1\nb c,-1\nü,-1\nempty,-1", ConfigError, "do not determine the pixel order"),
    ],
)
def test_samples_that_cannot_be_filled_in(
    images: Path, bundle: Path, tmp_path: Path, rows: str, error: type[Exception], reported: str
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_text(rows + "\n", encoding="utf-8")
    with pytest.raises(error, match=reported):
        fill(images, bundle, tmp_path / "out", sample)


def test_the_sample_is_not_replaced(images: Path, bundle: Path, tmp_path: Path) -> None:
    sample = tmp_path / RLE_TABLE
    sample.write_text("img_id,mask_rle\n")
    with pytest.raises(ConfigError, match="would replace the input"):
        fill(images, bundle, tmp_path, sample)


def test_an_image_that_fails_keeps_the_others(
    images: Path, sample: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    good = (images / "b c.png").read_bytes()
    (images / "b c.png").write_bytes(good[:60] + bytes(len(good) - 60))
    with pytest.raises(DataError, match="1 of 4 images failed"):
        fill(images, bundle, out, sample)
    assert not (out / RLE_TABLE).exists()
    (images / "b c.png").write_bytes(good)
    report = fill(images, bundle, out, sample)
    assert report.resumed_images == 3
    fill(images, bundle, tmp_path / "whole", sample)
    assert (out / RLE_TABLE).read_bytes() == (tmp_path / "whole" / RLE_TABLE).read_bytes()


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_coco_results_have_the_ids_of_the_sample(
    images: Path, bundle: Path, tmp_path: Path
) -> None:
    sample, out = tmp_path / "sample.json", tmp_path / "out"
    records = [
        {"id": number, "file_name": f"{name}.jpg", "height": shape[0], "width": shape[1]}
        for number, (name, shape) in enumerate(zip(NAMES, SHAPES), 7)
    ]
    categories = [{"id": 3, "name": "road"}, {"id": 5, "name": "Building"}]
    sample.write_text(json.dumps({"images": records, "categories": categories, "annotations": []}))
    inputs = find_inputs([images])
    coco = CocoOutput.of(inputs.scenes, out, sample)
    options = SceneOptions(gsd_m=0.3, outputs=("mask", "polygons"))
    report = coco.write(run_predict(inputs, read_models(bundle), out, options))
    results = COCO(str(sample)).loadRes(report.table)
    for number, name in enumerate(NAMES, 7):
        found = results.imgToAnns[number]
        assert {(one["category_id"], 0 < one["score"] <= 1) for one in found} <= {(5, True)}
        drawn = sum(results.annToMask(one) for one in found)
        mask = np.asarray(Image.open(out / f"{name}_mask.png")) == 1
        assert np.count_nonzero((drawn > 0) != mask) <= 0.1 * mask.sum()
    sample.write_text(json.dumps({"images": records[1:], "categories": categories}))
    with pytest.raises(LayoutError, match="lacks 1 image of 4"):
        CocoOutput.of(inputs.scenes, out, sample)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools
def test_coco_results_of_a_georeferenced_image_are_in_its_pixels(
    bundle: Path, tmp_path: Path
) -> None:
    pixels = np.full((3, 96, 128), 20, np.uint8)
    pixels[:, 20:50, 30:80] = 240
    inputs = find_inputs([write_geotiff(tmp_path / "4.tif", pixels)])
    coco, out = CocoOutput.of(inputs.scenes, tmp_path / "out"), tmp_path / "out"
    options = SceneOptions(outputs=("polygons",), outline="pixel")
    report = coco.write(run_predict(inputs, read_models(bundle), out, options))
    (found,) = json.loads(Path(str(report.table)).read_text())
    assert (found["image_id"], found["category_id"]) == (4, 1)
    np.testing.assert_array_equal(decode(found["segmentation"]) == 1, pixels[0] > 100)


def test_nodata_is_not_a_building(images: Path, bundle: Path, tmp_path: Path) -> None:
    fill(images, bundle, tmp_path / "out", nodata=NodataRule(value=200))
    table = RleTable.read(tmp_path / "out" / RLE_TABLE)
    assert {table.runs(row) for row in table.rows} == {NO_RUNS}
