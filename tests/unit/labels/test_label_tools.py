"""Exports of label tools and downloaded data sets are read right without an option."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image

from data_set_samples import DOWNLOADS, vectors
from label_samples import (
    HEIGHT,
    NAMES,
    SHAPE,
    TOOLS,
    WIDTH,
    images,
    picture,
    place,
    save,
    save_json,
    save_text,
    truth,
    yolo_text,
    yolo_ultralytics,
)
from raster_files import write_geotiff
from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.types import InstanceReader, LabelReader, Window
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import own_split

LEAST_IOU = 0.995
COCO_IOU = 0.975
"""pycocotools colours the pixels that an outline touches at its left and upper side."""


def scores(source: SceneSet) -> dict[str, float]:
    """Return the IoU of each labelled scene with the truth, by the name of its chip."""
    found = {}
    for scene in pickle.loads(pickle.dumps(source)):
        row = scene.id.rpartition("/")[2].partition("_")
        # Rows of a table have numbers, two to a group.
        name = next(
            (name for name in NAMES if name in scene.id),
            NAMES[2 * int(row[0]) + int(row[2])] if row[2].isdecimal() else "",
        )
        mask = scene.label.read()
        assert mask.valid.all()
        both, either = mask.data & truth(name), mask.data | truth(name)
        found[name] = both.sum() / either.sum() if either.any() else 1.0
    return found


@pytest.mark.parametrize("name", [*TOOLS, *DOWNLOADS])
def test_what_lies_on_the_disk_is_read(name: str, tmp_path: Path) -> None:
    path = {**TOOLS, **DOWNLOADS}[name](tmp_path / "data")
    source = open_source(SourceConfig(path=str(path)))
    found = scores(source)
    assert sorted(found) == sorted(NAMES), source.unlabelled
    assert min(found.values()) >= (COCO_IOU if source.kind == "coco" else LEAST_IOU), found
    assert len(source) == len(NAMES)
    if name == "Data Science Bowl 2018":
        assert [scene.label.read_instances().max() for scene in source] == [2, 3, 0, 1]
    if name == "CVAT for images":
        assert source.notes == ("Left out: 4 lines and points, without an area.",)
    if name == "xBD":
        layout = "{part}/images/{id}_post_disaster.*={part}/labels/{id}_post_disaster.json"
        source = open_source(SourceConfig(path=str(path), layout=layout))
        assert source.notes == ("Left out: 4 shapes with other labels: 'destroyed'.",)
        for scene in source:
            mask = scene.label.read()
            assert np.argwhere(~mask.valid).tolist() == [[0, 0]]
            np.testing.assert_array_equal(mask.data[:, 3:], truth(scene.id.split("/")[1])[:, 3:])
            assert scene.gsd_m == pytest.approx(0.5, rel=0.01)
        for file in path.rglob("*_post_disaster.json"):
            file.write_text(file.read_text().replace("minor-damage", "destroyed"))
        assert "'destroyed'" in open_source(SourceConfig(path=str(path), layout=layout)).notes[0]
    if name == "Roboflow masks":
        text = "Pixel Value, Class\n0, background\n1, solar_panel\n2, road\n"
        (path / "train/_classes.csv").write_text(text)
        panels = LabelConfig(names={"solar_panel": "solar_panel"})
        assert scores(open_source(SourceConfig(path=str(path), labels=panels))) == found
        three = LabelConfig(classes=("background", "road", "solar_panel"), building="solar_panel")
        assert set(only_label(path, labels=three).read().data.flat) == {0, 2}
    if name in ("KITTI", "Massachusetts, Kaggle"):
        # Notes do not say where the data lie.
        assert source.notes[0].startswith("Masks are read by data/label_c")
        three = LabelConfig(classes=("background", "road", "building"))
        assert set(only_label(path, labels=three).read().data.flat) == {0, 2}
        roads = LabelConfig(classes=("ground", "road"), building="road", ignore=("building",))
        assert not only_label(path, labels=roads).read().valid.all()
    if name == "VIA in parts":
        split = own_split(source.ids)
        assert split is not None
        assert [*split.parts["val"]] == ["val/chip_c", "val/chip_d"]


def only_label(path: Path, **options: object) -> LabelReader:
    """Return the label of the first scene."""
    source = open_source(SourceConfig(path=str(path), **options))  # type: ignore[arg-type]
    label = source.open_scene(source.entries[0]).label
    assert label is not None
    return label


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ("['Building', 'tree']", None),
        ("['rooftops', 'car']", None),
        ("['PV', 'building']", None),
        ("['panel', 'building']", "'panel', 'building', none of which plainly means pv"),
        ("['house', 'roof']", "labels 'house', 'roof', each of which may mean building"),
        ("['object', 'thing']", "labels 'object', 'thing', none of which plainly means"),
        ("['Flat_roof', 'Gable_roof']", "labels 'Flat_roof', 'Gable_roof', none of which"),
        ("['building', 'bulding']", "label 'bulding', which is not a class"),
    ],
)
def test_a_class_that_plainly_means_building(tmp_path: Path, names: str, error: str | None) -> None:
    yolo_ultralytics(tmp_path, f"names: {names}\n")
    save_text(tmp_path / "labels/train/chip_a.txt", yolo_text("chip_a", 0) + "1 0 0 0 .1 .1 .1\n")
    target = "pv" if "building'" in names and "bulding" not in names else "building"
    labels = LabelConfig(classes=("background", target), building=target)
    if error is None:
        source = open_source(SourceConfig(path=str(tmp_path), labels=labels))
        assert min(scores(source).values()) > LEAST_IOU
        return
    with pytest.raises(LabelError, match=error) as caught:
        only_label(tmp_path, labels=labels)
    said = LabelConfig(names={"building": "object"})
    assert "--set" in caught.value.remedy
    if "Flat" in names:
        assert """building=["Flat_roof", "Gable_roof"]'""" in caught.value.remedy
    if "object" in names:
        source = open_source(SourceConfig(path=str(tmp_path), labels=said))
        assert any("Left out: 1 shape with other labels: 'thing'" in note for note in source.notes)


def test_a_label_file_without_an_image_is_named(tmp_path: Path) -> None:
    source = open_source(SourceConfig(path=str(yolo_ultralytics(tmp_path))))
    assert source.notes == ()
    save_text(tmp_path / "labels/val/gone.txt", yolo_text("chip_a"))
    source = open_source(SourceConfig(path=str(tmp_path)))
    assert source.notes == ("1 label file without an image left out: gone.txt.",)
    assert len(source) == len(NAMES)


SIDES = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
VOC = f"<annotation><object><name>roof</name><bndbox>{SIDES}</bndbox></object></annotation>"
CVAT_BOX = (
    '<annotations><version>1.1</version><image id="0" name="chip_a.png" width="128" height="96">'
    '<box label="building" xtl="1" ytl="1" xbr="9" ybr="9"/></image></annotations>'
)
CVAT_DAMAGED = CVAT_BOX.replace("</annotations>", '<image id="1"/></annotations>')
CVAT_TRACK = "<annotations><version>1.1</version><track id='0' label='building'/></annotations>"
SEGMENTS_BITMAP = (
    '{"dataset": {"task_attributes": {"categories": []}, "samples": [{"name": "a.png", "labels": '
    '{"b": {"attributes": {"segmentation_bitmap": {}}}}}]}}'
)


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("labels/chip_a.txt", "0 0.5 0.5 0.1 0.2\n", "line 1 is a box; expected a class"),
        ("labels/chip_a.txt", "1 0 0 0 9 9 40 40 0 0 0 0 0 0 0", "polygon, in shares of the image"),
        ("annotations.xml", CVAT_BOX, "all 1 shape are boxes, not outlines"),
        ("images/chip_a.xml", VOC, "all 1 shape are boxes, not outlines"),
        ("annotations.xml", CVAT_TRACK, "holds tracks, as CVAT exports them of a video"),
        ("v1.json", SEGMENTS_BITMAP, "are links to Segments.ai"),
        ("annotations.xml", CVAT_DAMAGED, "xml, after chip_a.png, cannot be read as cvat: 'h"),
        ("task-1-annotation-2-by-1-tag-building-0.txt", "", None),
    ],
)
def test_boxes_are_refused_because_they_are_boxes(
    tmp_path: Path, file: str, text: str, error: str | None
) -> None:
    images(tmp_path / "images", names=("chip_a",))
    if error is None:
        save(tmp_path / Path(file).with_suffix(".png"), truth("chip_a"))
        error = "brush masks of Label Studio, which do not name"
    else:
        save_text(tmp_path / file, text)
    with pytest.raises((LabelError, LayoutError), match=error) as caught:
        only_label(tmp_path)
    assert "xport" in caught.value.remedy


def _stored(values: np.ndarray, **options: object) -> Callable[[Path], object]:
    return lambda path: write_geotiff(path, values, crs=None, transform=None, **options)


DRAWN = truth("chip_a").astype(np.uint8)
MASKS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "float32": (_stored(DRAWN.astype(np.float32)), None),
    "int32 with nodata": (_stored(DRAWN.astype(np.int32), nodata=-1), None),
    "255 as nodata": (_stored(DRAWN, nodata=255), None),
    "1 bit": (_stored(DRAWN, nbits=1), None),
    "half size": (_stored(DRAWN[::2, ::2]), "the image on which it was drawn"),
    "values 1 and 2": (_stored(DRAWN + 1), "labels.values.building="),
    "0 is nodata": (_stored(DRAWN, nodata=0), "gdal_edit"),
    "JPEG": (lambda path: Image.fromarray(DRAWN * 255).save(path, "JPEG", quality=30), None),
    "three colours": (
        lambda path: Image.fromarray(
            np.eye(3, dtype=np.uint8)[np.vstack([DRAWN[:-1], DRAWN[:1] + 2])] * np.uint8(255)
        ).save(path, "PNG"),
        """building=#00FF00' --set 'labels.palette.background=["#FF0000", "#0000FF"]'""",
    ),
    "red on transparent": (
        lambda path: Image.fromarray(np.dstack([DRAWN * 255, DRAWN * 0, DRAWN * 0, DRAWN * 255]))
        .save(path, "PNG"), "palette",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("form", MASKS)
def test_forms_of_masks(form: str, tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", picture("chip_a"))
    (tmp_path / "masks").mkdir()
    write, remedy = MASKS[form]
    write(tmp_path / "masks/a.tif")
    if remedy is None:
        mask = only_label(tmp_path).read()
        np.testing.assert_array_equal(mask.data, DRAWN)
        assert mask.valid.all()
        return
    with pytest.raises(LabelError) as caught:
        only_label(tmp_path).read()
    assert remedy in caught.value.remedy


def test_the_values_of_several_masks_are_listed_at_once(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES, start=2):
        values = np.where(truth("chip_a"), number, 0).astype(np.uint8)
        save(tmp_path / f"masks/{name}.png", values)
        save(tmp_path / f"images/{name}.png", picture(name))
    with pytest.raises(
        LabelError, match=r"\(2, 3, 4, 5\).* These are the values of 4 masks"
    ) as caught:
        only_label(tmp_path).read()
    built, rest = "'labels.values.building=[5]'", "'labels.values.background=[0, 2, 3, 4]'"
    assert f"{built} --set {rest}, or --set labels.instances=true" in caught.value.remedy


@pytest.mark.parametrize("second", ["building", "road"])
def test_masks_of_0_and_1_beside_a_legend_of_colours(second: str, tmp_path: Path) -> None:
    images(tmp_path / "images", names=("chip_a",))
    save(tmp_path / "masks/chip_a.png", truth("chip_a").astype(np.uint8))
    third = {"building": "road", "road": "building"}[second]
    rows = ("name,r,g,b", "background,0,0,0", f"{second},9,9,9", f"{third},8,8,8", "")
    (tmp_path / "class_dict.csv").write_text("\n".join(rows), encoding="utf-8")
    if second == "building":
        np.testing.assert_array_equal(only_label(tmp_path).read().data, truth("chip_a"))
        return
    with pytest.raises(LabelError, match="By its order 1 is road, not building") as caught:
        only_label(tmp_path)
    built, rest = "labels.values.building=1", "'labels.values.background=[0, 2]'"
    assert f"--set {built} --set {rest}" in caught.value.remedy


def test_each_value_of_an_instance_mask_is_a_building(tmp_path: Path) -> None:
    numbered = np.zeros(SHAPE, np.uint16)
    numbered[5:20, 5:20], numbered[5:20, 20:30] = 300, 7
    images(tmp_path / "images", names=("chip_a",))
    save(tmp_path / "masks/chip_a.png", numbered)
    with pytest.raises(LabelError, match="not of a class") as caught:
        only_label(tmp_path).read()
    assert "--set labels.instances=true" in caught.value.remedy
    label = only_label(tmp_path, labels=LabelConfig(instances=True))
    np.testing.assert_array_equal(label.read().data, numbered > 0)
    assert isinstance(label, InstanceReader)
    window = Window(10, 15, 8, 9)
    np.testing.assert_array_equal(label.read_instances(window), numbered[window.slices()])


def test_a_mask_that_lies_elsewhere_than_its_image_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "images/chip_a.tif", picture("chip_a"))
    save(tmp_path / "masks/chip_a.tif", truth("chip_a").astype(np.uint8))
    assert only_label(tmp_path).read().data.any()
    # The georeference of another chip, 200 pixels away.
    save(tmp_path / "chip_b.tif", truth("chip_a").astype(np.uint8))
    (tmp_path / "chip_b.tif").rename(tmp_path / "masks/chip_a.tif")
    with pytest.raises(LabelError, match=r"by their georeferences, 200\.0 pixels away"):
        only_label(tmp_path).read()


def test_labels_count_inside_the_area_of_complete_labels(tmp_path: Path) -> None:
    vectors("source/{}.tif", "labels/{}.geojson")(tmp_path)
    left = shapely.box(0, 0, 50, HEIGHT)
    ring = [list(place("chip_a") @ xy) for xy in left.exterior.coords]
    area = {"type": "Polygon", "coordinates": [ring]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    feature = {"type": "Feature", "properties": {}, "geometry": area}
    raw = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    file = save_json(tmp_path / "area.geojson", raw)
    source = open_source(SourceConfig(path=str(tmp_path), area=str(file)))
    assert source.ids == ("chip_a",)
    assert source.notes[-1].startswith("Left out: 3 images outside the area")
    (scene,) = source
    assert scene.label is not None
    mask = scene.label.read()
    np.testing.assert_array_equal(mask.valid, np.arange(WIDTH)[None] < np.full((HEIGHT, 1), 50))
    np.testing.assert_array_equal(mask.data, truth("chip_a") & mask.valid)
    outlines, _ = scene.label.read_outlines()  # type: ignore[attr-defined]
    assert shapely.total_bounds(outlines)[2] == pytest.approx(50, abs=0.01)
    chips = open_source(SourceConfig(path=str(tmp_path), area=str(file), chip_px=32))
    assert len(chips) == 2 * HEIGHT // 32
