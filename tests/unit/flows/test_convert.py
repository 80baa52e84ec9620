"""Converting preserves data, names the scene that fails, and leaves no partial file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from raster_files import write_geotiff
from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.core.types import Window
from rooftrace.flows.convert import ConvertReport, run_convert
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.footprints import scene_outlines
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import WriteOptions
from town import write_pairs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data", range(3), shape_yx=(64, 72), gsd_m=0.4)
    return tmp_path / "data"


def convert(data: Path, to: str, out: Path, **options: Any) -> ConvertReport:
    keys = ("labels", "part", "nodata", "gsd_m")
    given = {key: options.pop(key) for key in keys if key in options}
    return run_convert(SourceConfig(path=str(data), **given), to, out, **options)


def test_groups_classes_and_unknown_pixels_survive_a_chain_of_kinds(tmp_path: Path) -> None:
    labels = LabelConfig(classes=("land", "house", "road"), building="house", ignore=(9,))
    drawn = np.zeros((40, 50), np.uint8)
    drawn[3:20, 4:9], drawn[22:30], drawn[:, 45:] = 1, 2, 9
    for group in ("a", "b"):
        for part, array in (("images", np.zeros((40, 50, 3), np.uint8)), ("masks", drawn)):
            (tmp_path / "data" / group / part).mkdir(parents=True)
            Image.fromarray(array).save(tmp_path / "data" / group / part / "x.png")
    given = SourceConfig(path=str(tmp_path / "data"), labels=labels, gsd_m=0.3)
    report = run_convert(given, "coco", tmp_path / "c.json")
    assert any('labels.classes = ["land", "house", "road"]' in note for note in report.notes)
    again = SourceConfig(path=str(report.written), labels=labels)
    report = run_convert(again, "folder", tmp_path / "end")
    assert not any("does not hold the classes" in note for note in report.notes)
    scenes = list(open_source(SourceConfig(path=str(report.written))))
    # A group is a part of the name, as the folder has no other place for it.
    assert [scene.id for scene in scenes] == ["a__x", "b__x"]
    for scene in scenes:
        assert scene.gsd_m == 0.3
        assert scene.label is not None
        mask = scene.label.read()
        np.testing.assert_array_equal(mask.valid, drawn != 9)
        np.testing.assert_array_equal(mask.data, np.where(drawn == 9, 0, drawn))


@pytest.mark.campaign
def test_chips_become_images_of_their_own(data: Path, tmp_path: Path) -> None:
    given = SourceConfig(path=str(data), chip_px=40)
    report = run_convert(given, "coco", tmp_path / "c.json")
    chips = open_source(SourceConfig(path=str(report.written)))
    assert len(chips) == 3 * 4
    assert {scene.image.grid.shape for scene in chips} == {(40, 40), (40, 32), (24, 40), (24, 32)}
    scene = next(iter(open_source(SourceConfig(path=str(data)))))
    chip = next(iter(chips))
    assert chip.image.grid == scene.image.grid.crop(Window(0, 0, 40, 40))


@pytest.mark.campaign
def test_what_is_nodata_by_rule_is_nodata_in_what_is_written(data: Path, tmp_path: Path) -> None:
    with rasterio.open(data / "images" / "synthetic_00000.tif", "r+") as file:
        file.write(np.full((3, 9, 72), 255, np.uint8), window=((0, 9), (0, 72)))
    report = convert(data, "folder", tmp_path / "out", nodata=(255.0, 255.0, 255.0))
    first = next(iter(open_source(SourceConfig(path=str(report.written)))))
    assert not first.image.read().valid[:9].any()
    assert first.image.read().valid[9:].any()
    referred = convert(data, "coco", tmp_path / "c.json", nodata=(255.0, 255.0, 255.0))
    assert any("--nodata" in note for note in referred.notes)
    options = WriteOptions(images="copy")
    copied = convert(data, "coco", tmp_path / "d.json", nodata=(255.0,) * 3, options=options)
    assert copied.notes == ()


def test_what_a_sidecar_says_of_an_image_is_not_lost(data: Path, tmp_path: Path) -> None:
    first, second = sorted((data / "images").iterdir())[:2]
    gaps = np.full((64, 72), 255, np.uint8)
    gaps[:30] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(first, "r+") as file:
        file.write_mask(gaps)
    assert first.with_name(f"{first.name}.msk").is_file()
    Image.fromarray(np.zeros((64, 72, 3), np.uint8)).save(second.with_suffix(".png"))
    second.unlink()
    # The mask of an image that lies elsewhere now.
    mask = data / "masks" / second.name
    with rasterio.open(mask) as file:
        Image.fromarray(file.read(1)).save(mask.with_suffix(".png"))
    mask.unlink()
    second.with_name(f"{second.stem}.png.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>5e5, .5, 0, 5e6, 0, -.5</GeoTransform>"
        "</PAMDataset>"
    )
    given = SourceConfig(path=str(data), glob=(first.name, f"{second.stem}.png"))
    report = run_convert(given, "folder", tmp_path / "out")
    old, new = (list(open_source(one)) for one in (given, SourceConfig(path=str(report.written))))
    np.testing.assert_array_equal(new[0].image.read().valid, gaps > 0)
    assert old[1].image.grid.crs is not None
    assert new[1].image.grid == old[1].image.grid


def test_a_part_of_a_split(data: Path, tmp_path: Path) -> None:
    split = tmp_path / "s.json"
    ids = ["synthetic_00001", "gone"]
    split.write_text(json.dumps({"parts": {"train": ids, "test": ["elsewhere"]}}))
    report = convert(data, "folder", tmp_path / "out", split=f"{split}:train")
    assert report.scenes == 1
    assert any("1 id of" in note and "gone" in note for note in report.notes)
    with pytest.raises(DataError, match="None of the ids in the part 'test'"):
        convert(data, "folder", tmp_path / "none", split=f"{split}:test")
    assert not (tmp_path / "none").exists()


# What is in the way.


def test_what_is_there_is_not_written_over_unasked(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert convert(data, "folder", out, part="[:2]").scenes == 2
    with pytest.raises(ConfigError, match="exists and is not empty"):
        convert(data, "folder", out, part="[1:]")
    report = convert(data, "folder", out, part="[1:]", overwrite=True)
    assert report.scenes == 2
    (note,) = report.notes
    assert "still contains 2 files from before" in note
    assert "images/synthetic_00000.tif" in note
    file = tmp_path / "c.json"
    file.touch()
    convert(data, "coco", file)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        convert(data, "coco", file)
    assert convert(data, "coco", file, overwrite=True).notes == ()


def test_what_is_read_is_never_written_over(data: Path, tmp_path: Path) -> None:
    for out in (data, tmp_path, data / "images"):
        with pytest.raises(ConfigError, match="is, or contains, data that is read"):
            convert(data, "folder", out, overwrite=True)
    report = convert(data, "coco", tmp_path / "c.json")
    with pytest.raises(ConfigError, match="is, or contains, data that is read"):
        convert(report.written, "coco", report.written, overwrite=True)


def test_a_scene_that_fails_is_named_and_leaves_no_file(data: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 72), 3, np.uint8)).save(data / "masks" / "synthetic_00001.png")
    (data / "masks" / "synthetic_00001.tif").unlink()
    for kind in ("coco", "rle", "labelstudio"):
        out = tmp_path / f"out.{'csv' if kind == 'rle' else 'json'}"
        with pytest.raises(LabelError, match="synthetic_00001"):
            convert(data, kind, out)
        assert not out.exists()
    # An error that does not say which scene it is about.
    broken = data / "images" / "synthetic_00001.tif"
    broken.rename(data / "images" / "renamed.tif")
    raw = {"images": [{"id": 1, "file_name": "images/renamed.tif", "width": 72, "height": 64,
                       "scene_id": "this one"}],
           "annotations": [{"id": 5, "image_id": 1, "category_id": 1,
                            "segmentation": {"size": [64, 72], "counts": [3]}}],
           "categories": [{"id": 1, "name": "building"}]}  # fmt: skip
    (data / "c.json").write_text(json.dumps(raw))
    with pytest.raises(LabelError, match=r"^this one: .*3 pixels in total"):
        convert(data / "c.json", "rle", tmp_path / "out.csv")


def test_two_scenes_of_one_name_and_data_without_labels(data: Path, tmp_path: Path) -> None:
    raw = {"images": [{"id": n, "file_name": f"images/synthetic_0000{n}.tif", "width": 72,
                       "height": 64, "scene_id": name} for n, name in enumerate(("a/b", "a__b"))],
           "annotations": [], "categories": []}  # fmt: skip
    (data / "c.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="a/b and a__b would both be written as a__b"):
        convert(data / "c.json", "folder", tmp_path / "out")
    with pytest.raises(DataError, match=r"read as images, with 3 images without a label"):
        convert(data / "images", "folder", tmp_path / "out")


@pytest.mark.parametrize(
    ("to", "out", "is_kept"),
    [
        ("folder", "out", True),
        ("coco", "out.json", True),
        ("labelstudio", "out.json", True),
        ("rle", "out.csv", False),
        ("footprints", "out.gpkg", False),
    ],
)
def test_metres_that_override_the_georeference_are_kept_or_noted(
    data: Path, tmp_path: Path, to: str, out: str, is_kept: bool
) -> None:
    report = convert(data, to, tmp_path / "written" / out, gsd_m=0.5)
    assert any("etres per pixel" in note for note in report.notes) != is_kept
    if is_kept:
        read = open_source(SourceConfig(path=str(report.written)))
        assert [scene.gsd_m for scene in read] == [0.5] * 3
    # Metres of the georeference are nothing to note or to write down.
    report = convert(data, to, tmp_path / "plain" / out)
    assert not [note for note in report.notes if "etres per pixel" in note]
    if to in ("folder", "coco", "labelstudio"):
        read = open_source(SourceConfig(path=str(report.written)))
        assert {scene.stated_gsd_m for scene in read} == {None}


def test_a_folder_of_several_metres_per_pixel_says_what_it_cannot_hold(tmp_path: Path) -> None:
    images = []
    for number, gsd_m in enumerate((0.3, 0.6)):
        Image.new("RGB", (32, 32), (90, number, 9)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 32, "width": 32,
                       "gsd_m": gsd_m})  # fmt: skip
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "building"}]}
    (tmp_path / "c.json").write_text(json.dumps(document))
    report = convert(tmp_path / "c.json", "folder", tmp_path / "out")
    assert any("(0.3, 0.6) must be given again: --gsd" in note for note in report.notes)
    report = convert(tmp_path / "c.json", "coco", tmp_path / "again" / "c.json")
    assert [s.gsd_m for s in open_source(SourceConfig(path=str(report.written)))] == [0.3, 0.6]
    assert not any("etres per pixel" in note for note in report.notes)


@pytest.mark.parametrize("ids", ["a b", "train/a val/b", "train/x/a val/x/b test/x/a"])
@pytest.mark.parametrize("names", [("background", "building"), ("background", "road", "building")])
def test_what_is_written_is_read(names: tuple[str, ...], ids: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = {}
    for name in ids.split():
        mask = rng.integers(0, len(names), (12, 15)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        mask[8:28, 8:28] = len(names) - 1
        mask[12:16, 12:16] = mask[20:24, 12:24] = 0
        truth[name.replace("x/", "x__")] = mask
        for kind, values in (("images", mask * 9), ("masks", mask)):
            folder = tmp_path / "data" / Path(name).parent / kind
            folder.mkdir(parents=True, exist_ok=True)
            write_geotiff(folder / f"{Path(name).name}.tif", values)
    labels = LabelConfig(classes=names)
    data = SourceConfig(path=str(tmp_path / "data"), labels=labels)
    # Parts stay apart; from one kind to itself, too.
    for to, out in (("yolo", "out"), ("yolo", "again"), ("folder", "end")):
        assert run_convert(data, to, tmp_path / out).scenes == len(truth)
        data = SourceConfig(path=str(tmp_path / out), labels=labels)
    # Of a tree, by its kind, and by data.yaml as Ultralytics takes it.
    for path, kind in (("out", None), ("out", "yolo"), ("again/data.yaml", None), ("end", None)):
        read = open_source(SourceConfig(path=str(tmp_path / path), kind=kind, labels=labels))
        assert {*read.ids} == {*truth}
        for scene in read:
            assert scene.label is not None
            np.testing.assert_array_equal(scene.label.read().data, truth[scene.id])


@pytest.mark.parametrize(
    ("to", "out"), [("coco", "c.json"), ("yolo", "yolo"), ("labelstudio", "l.json")]
)
def test_objects_that_touch_stay_apart(to: str, out: str, tmp_path: Path) -> None:
    drawn = np.zeros((60, 80), np.uint8)
    drawn[5:15, 5:15], drawn[5:15, 15:30], drawn[20:50, 20:60], drawn[30:40, 30:40] = 1, 2, 3, 0
    for part, array in (("images", np.zeros((60, 80, 3), np.uint8)), ("masks", drawn)):
        (tmp_path / "data" / part).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "data" / part / "a.png")
    data = SourceConfig(path=str(tmp_path / "data"), labels=LabelConfig(instances=True))
    report = run_convert(data, to, tmp_path / out)
    (scene,) = open_source(SourceConfig(path=str(report.written)))
    outlines, _ = scene_outlines(scene)
    assert [round(one.area) for one in outlines] == [100, 150, 1100]
    assert scene.label is not None
    np.testing.assert_array_equal(scene.label.read().data, drawn > 0)
