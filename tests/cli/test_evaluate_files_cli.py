"""`rooftrace evaluate --predictions` judges files of `rooftrace predict` as it judges the model."""

import shutil
from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image

from command_line import call
from data_set_samples import spacenet_csv, vectors
from label_samples import (
    NAMES,
    TRUTH,
    cvat_xml,
    drawn,
    npy_masks,
    save,
    save_json,
    save_text,
    yolo_text,
    yolo_ultralytics,
)
from rooftrace.io.vector_read import VectorFile
from town import write_pairs

PIXELS = ("pixel", "per_image", "boundary", "classes", "confusion")
ALL = (*PIXELS, "objects", "polygons", "coco", "calibration", "density")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "data"
    write_pairs(folder, range(4), shape_yx=(96, 128), gsd_m=0.3)
    return folder


@pytest.mark.campaign
def test_files_of_a_model_and_the_model_itself(data: Path, bundle: Path, tmp_path: Path) -> None:
    code, _ = call("predict", data / "images", "-m", bundle, "-o", tmp_path / "out")
    assert code == 0
    code, answer = call("evaluate", bundle, data, "--predictions", tmp_path / "out")
    assert code == 0, answer
    model, files = answer["reports"]
    assert files["objects"]["predicted"] > 0
    for key in ALL:
        assert files[key] == model[key], key
    (comparison,) = answer["comparisons"]
    assert comparison["figures"]["pixel.iou"]["difference"]["value"] == 0


def yolo_of(folder: Path, *, scored: bool) -> Path:
    """Write what `yolo predict save_txt` writes: no file for an image without a building."""
    for name in filter(TRUTH.get, NAMES):
        lines = yolo_text(name).splitlines()
        found = "".join(f"{line}{' 0.75' if scored else ''}\n" for line in lines)
        save_text(folder / f"labels/{name}.txt", found)
    save_text(folder / "classes.txt", "building\n")
    return folder


def spacenet_of(folder: Path) -> Path:
    """Write a submission to SpaceNet: a score for each building."""
    lines = ["ImageId,BuildingId,PolygonWKT_Pix,Confidence"]
    for name in NAMES:
        rows = [f'{name},{n},"{one.wkt}",0.75' for n, one in enumerate(TRUTH[name])]
        lines += rows or [f"{name},-1,POLYGON EMPTY,1"]
    return save_text(folder / "submission.csv", "\n".join(lines) + "\n")


def segment_anything_of(folder: Path) -> Path:
    """Write what `amg.py --convert-to-rle` of Segment Anything writes: a list for each image."""
    for name in NAMES:
        masks = []
        for one in TRUTH[name]:
            runs = np.diff(np.flatnonzero(np.diff(drawn(one).T.ravel(), prepend=2, append=2)))
            rle = {"size": [*drawn(one).shape], "counts": runs.tolist()}
            masks.append({"segmentation": rle, "predicted_iou": 0.75, "stability_score": 0.9})
        save_json(folder / f"{name}.json", masks)
    return folder


def segment_anything_folders(folder: Path) -> Path:
    """Write what `amg.py` writes by default: a folder of masks for each image."""
    for name in NAMES:
        rows = ["id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,predicted_iou,stability_score"]
        for number, one in enumerate(TRUTH[name]):
            save(folder / f"{name}/{number}.png", drawn(one).astype(np.uint8) * 255)
            rows.append(f"{number},9,1,1,3,3,0.75,0.9")
        save_text(folder / f"{name}/metadata.csv", "\n".join(rows))
    return folder


OUTLINES = {
    "Segment Anything": (segment_anything_of, 0.75),
    "Segment Anything, folders": (segment_anything_folders, 0.75),
    "masks as npy": (lambda folder: npy_masks(folder) / "masks", None),
    "YOLO": (partial(yolo_of, scored=False), None),
    "YOLO with scores": (partial(yolo_of, scored=True), 0.75),
    "submission to SpaceNet": (spacenet_of, 0.75),
    "table of SpaceNet": (lambda folder: next(spacenet_csv(folder).glob("*.csv")), None),
    "CVAT": (lambda folder: cvat_xml(folder) / "annotations.xml", None),
}


@pytest.mark.parametrize("name", OUTLINES)
def test_outlines_in_pixels_of_other_tools(name: str, tmp_path: Path) -> None:
    make, score = OUTLINES[name]
    data = yolo_ultralytics(tmp_path / "data")
    given = ("--predictions", make(tmp_path / "found"), "--truth", data, "-o", tmp_path / "out")
    code, answer = call("evaluate", *given)
    assert code == 0, answer
    assert answer["pixel"]["iou"] > 0.999
    objects = answer["objects"]
    assert (objects["matched"], objects["predicted"]) == (6, 6)
    assert (answer["coco"] is None) == (score is None)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert ("COCO AP" in page) == (score is not None)
    if score is not None:
        given = ("--predictions", make(tmp_path / "found"), "--truth", data, "--threshold", "0.8")
        assert call("evaluate", *given)[1]["objects"]["predicted"] == 0


def test_a_layer_of_predictions_with_several(tmp_path: Path) -> None:
    data = vectors("source/{}.tif", "labels/{}.geojson")(tmp_path / "data")
    found = tmp_path / "found.gpkg"
    files = [file for file in sorted(data.glob("labels/*")) if TRUTH[file.stem]]
    outlines = [one for file in files for one in VectorFile(file).read().geometry]
    town = gpd.GeoDataFrame(geometry=outlines, crs=4326)
    town.to_file(found, layer="buildings")
    town[:1].to_file(found, layer="streets")
    given = ("evaluate", "--predictions", found, "--truth", data)
    code, answer = call(*given)
    assert (code, "--layer buildings" in answer["error"]["remedy"]) == (3, True)
    code, answer = call(*given, "--layer", "buildings")
    assert (code, answer["objects"]["matched"]) == (0, 6)
    # With an area, whose file may have layers, too.
    code, answer = call(*given, "--layer", "buildings", "--area", found)
    assert (code, answer["objects"]["matched"]) == (0, 6)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "No labelled data"),
        (["DATA"], "no model and no predictions to evaluate"),
        (["--predictions", "DATA/masks"], "No labelled data"),
        (["DATA", "--predictions", "DATA/masks", "--size", "big"], "--size received 'big'"),
        (["DATA", "--predictions", "DATA/masks", "--order", "row"], "no prediction is a table"),
        (["BUNDLE", "DATA/masks", "--predictions", "DATA/masks"], "needs images"),
    ],
)
def test_what_cannot_be_judged(data: Path, bundle: Path, arguments: list[str], part: str) -> None:
    filled = [one.replace("DATA", str(data)).replace("BUNDLE", str(bundle)) for one in arguments]
    code, answer = call("evaluate", *filled)
    assert (code, answer["error"]["type"]) == (2, "ConfigError")
    assert part in answer["error"]["message"]
    assert answer["error"]["remedy"]


@pytest.mark.parametrize("name", ["masks", "town.geojson", "town.jpg", "runs.csv", "coco.json"])
def test_predictions_in_the_place_of_a_model(data: Path, tmp_path: Path, name: str) -> None:
    given = data / name if name == "masks" else tmp_path / name
    if name != "masks":
        given.write_text("[]")
    code, answer = call("evaluate", given, data)
    assert (code, answer["error"]["type"]) == (4, "BundleError")
    assert answer["error"]["message"] == f"{given} was given as a model, but it is not one."
    assert "--predictions" in answer["error"]["remedy"]


@pytest.mark.parametrize("labels", ["footprints", "mask", "folders"])
def test_an_image_and_its_labels_are_given_apart(data: Path, tmp_path: Path, labels: str) -> None:
    """`--truth` means the same as a folder in which both lie, or as `--images`."""
    image, truth, choice = data / "images", data / "masks", ()
    if labels != "folders":
        image = min(image.iterdir())
        truth, choice = truth / image.name, ("--glob", image.name)
    if labels == "footprints":
        truth = tmp_path / "houses.geojson"
        assert call("convert", data, "-o", truth, *choice)[0] == 0
    masks = shutil.copytree(data / "masks", tmp_path / "masks")
    Image.new("RGB", (9, 9), "red").save(masks / "overview.jpg")
    common = ("--predictions", masks, "--only", "pixels", *choice)
    expected, found = (
        call("evaluate", *given, *common)[1] for given in ((data,), (image, "--truth", truth))
    )
    assert found["images"] == (1 if choice else 4)
    assert (found["pixel"], found["imagery"]) == (expected["pixel"], str(image))
    if labels == "mask":
        _, answer = call("inspect", image, "--truth", truth)
        assert " holds 1 image" in answer["verdict"]["paragraph"]


def test_an_image_and_labels_that_do_not_belong_together(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "x.gpkg"
    labels.touch()
    (tmp_path / "stopped/checkpoints").mkdir(parents=True)
    (tmp_path / "x.pt").touch()
    image, other = sorted((data / "images").iterdir())[:2]
    given = ("evaluate", "default", image, "--truth", data)
    error = call(*given, "--images", other)[1]["error"]
    assert error["message"] == f"The images were given twice: {image}, and --images {other}."
    assert f"The image {image} has no mask" in call(*given)[1]["error"]["message"]
    swapped = call("evaluate", "default", data / "masks", "--truth", data / "images")
    assert "Swap the two" in swapped[1]["error"]["remedy"]
    one_mask = call("evaluate", "default", data / "images", "--truth", data / "masks" / image.name)
    assert "is one label file, but " in one_mask[1]["error"]["message"]
    for words, meant in (
        ((labels, image), "Models come first"),
        ((image, "default"), "Models come first"),
        ((tmp_path / "x.pt", data), f"rooftrace import {tmp_path / 'x.pt'} -o model.rooftrace"),
        ((labels, "--truth", image), f"{image} --truth {labels}"),
        ((image, other, "--truth", labels), "then one image or folder"),
        ((image, "--truth", labels, "--truth", data), "Give one: a label file"),
        ((tmp_path / "stopped", data), "continues with --resume"),
    ):
        models = () if words[1] == "default" else ("default",)
        assert meant in call("evaluate", *models, *words)[1]["error"]["remedy"]


def test_an_area_without_metres_is_not_applied_and_a_note_says_so(tmp_path: Path) -> None:
    truth = np.zeros((64, 64), np.uint8)
    truth[5:8, 5:8] = truth[20:50, 20:50] = 255
    found = truth.copy()
    found[5:8, 5:8] = 0
    pictures = {"t/images": np.full((64, 64, 3), 90, np.uint8), "t/masks": truth, "p": found}
    for folder, picture in pictures.items():
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    given = ("evaluate", "--predictions", tmp_path / "p", "--truth", tmp_path / "t")
    code, answer = call(*given, "--min-area", 20)
    assert code == 0
    assert answer["objects"]["labelled"] == 2
    assert any("--min-area was not applied to 1 image" in note for note in answer["notes"])
    code, answer = call(*given, "--min-area", 20, "--set", "gsd_m=1")
    assert (code, answer["objects"]["labelled"]) == (0, 1)
    assert not any("--min-area" in note for note in answer["notes"])
