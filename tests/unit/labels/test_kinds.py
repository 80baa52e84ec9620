"""Data of any kind is opened by one function: kinds, cards and misplaced options."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from memory_sets import ArrayLabel
from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.core.types import Scene
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.folders import CARD
from rooftrace.labels.kinds import KINDS, open_source
from rooftrace.labels.source import SceneEntry, SceneSet, WriteOptions
from town import write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "pairs"
    write_pairs(folder, range(4), shape_yx=(64, 72), gsd_m=0.4)
    return folder


def source(path: Path, labels: LabelConfig | None = None, **options: Any) -> SceneSet:
    return open_source(SourceConfig(path=str(path), **options), labels)


def save_pair(folder: Path, name: str, mask: np.ndarray) -> None:
    for part, array in (("images", np.zeros((*mask.shape, 3), np.uint8)), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{name}.png")


# Which kind.


def test_an_option_of_another_kind_is_refused(pairs: Path) -> None:
    for option, value in (("order", "row"), ("annotator", "a"), ("field", "f"), ("zoom", 19)):
        with pytest.raises(ConfigError) as caught:
            source(pairs, kind="folder", **{option: value})
        assert f"The option {option} was given" in caught.value.message
        assert "read as folder, which does not have it" in caught.value.message
    with pytest.raises(ConfigError, match=r"no kind of data named 'foldr'\. Did you mean 'folder'"):
        source(pairs, kind="foldr")
    with pytest.raises(DataError, match="does not exist"):
        source(pairs / "absent")


def test_a_file_of_another_tool_that_names_the_images(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "via_project.json").write_text('{"file": {"1": {"fname": "a.png"}}}')
    (tmp_path / "other.csv").write_text("name,date\nz.png,2026\n")
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    # A prediction that lies among the images is none of them.
    (tmp_path / "out").mkdir()
    (tmp_path / "out/run.json").write_text('{"images": ["a.png"]}')
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "out/a_mask.png")
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt/a.txt").write_text("gsd:0.1\n1 1 9 1 9 9 1 9 building 0\n")  # DOTA
    (tmp_path / "a.txt").write_text("what its camera says\n")
    found = source(tmp_path)
    assert (found.kind, len(found), len(found.unlabelled)) == ("images", 0, 1)
    told = "No label is read from via_project.json, labelTxt/a.txt: the images are"
    assert found.notes[0].startswith(told)
    (tmp_path / "x/y").mkdir(parents=True)
    (tmp_path / "x/y/roofs.json").write_text(json.dumps(coco))
    (note,) = source(tmp_path).notes
    assert note == "No label is read from x/y/roofs.json: give that file as the data."


def test_several_masks_of_one_image(tmp_path: Path) -> None:
    """As of Open Images: the masks of an image are no images, and are read from a folder of it."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(
        tmp_path / "images/a.png"
    )
    for left in (8, 32):
        drawn = np.zeros((64, 64), np.uint8)
        drawn[8:24, left : left + 16] = 255
        (tmp_path / "masks/a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(tmp_path / f"masks/a/m01bl7v_{left}.png")
    with pytest.raises(LayoutError, match="images and labels, but in no known layout") as caught:
        source(tmp_path)
    assert '--layout "images/{id}.png=masks/a/{id}_*.png"' in caught.value.remedy
    for file in (tmp_path / "masks/a").iterdir():
        (tmp_path / f"masks/a_{file.name}").write_bytes(file.read_bytes())
    for layout in ("images/{id}.png=masks/{id}/*", "images/{id}.png=masks/{id}_*.png"):
        (scene,) = source(tmp_path, layout=layout)
        assert scene.label is not None
        assert scene.label.read().data.sum() == 2 * 16 * 16
    (tmp_path / "images/a_m01bl7v.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    with pytest.raises(LayoutError, match=r"Masks of \S+ are also masks of"):
        source(tmp_path, layout="images/{id}.png=masks/{id}_*.png")


@pytest.mark.parametrize(
    ("images", "masks", "layout"),
    [
        ("Luftbild/tile_{}.jpg", "Häuser/tile_{}_Gebäude.png",
         "Luftbild/{id}.jpg=Häuser/{id}_Gebäude.png"),
        ("sat/a{}x.png", "truth/a{}x.tif", "sat/{id}.png=truth/{id}.tif"),
        ("{}-rgb.png", "{}-roofs.png", "{id}-rgb.png={id}-roofs.png"),
        ("{}.png", "{}_label.png", "{id}.png={id}_label.png"),
        ("in_{:x}.png", "in_{:x}_gt.png", "{id}.png={id}_gt.png"),
        ("aerial/{}.png", "mask/{}.jpg", "aerial/{id}.png=mask/{id}.jpg"),
        ("rgb_{}.png", "roofs_{}.png", "rgb{id}.png=roofs{id}.png"),
        ("{}/rgb.png", "{}/roofs.png", "{id}/rgb.png={id}/roofs.png"),
        ("{}_sat/a.png", "{}_gt/a.png", "{part}_sat/{id}.png={part}_gt/{id}.png"),
        ("chips/{}.png", "geojson/{}.geojson", "chips/{id}.png=geojson/{id}.geojson"),
    ],
)  # fmt: skip
def test_labels_never_count_as_images(tmp_path: Path, images: str, masks: str, layout: str) -> None:
    rng = np.random.default_rng(0)
    # In hexadecimal these end in letters.
    for number in range(10, 13) if ":x" in images else range(3):
        for name, high in ((images, 255), (masks, 2)):
            path = tmp_path / name.format(number)
            path.parent.mkdir(exist_ok=True)
            if path.suffix == ".geojson":
                path.write_text('{"type": "FeatureCollection", "features": []}', encoding="utf-8")
                continue
            values = rng.integers(0, high, (32, 32), np.uint8)
            if path.suffix == ".jpg" and high == 2:
                values = np.repeat(np.repeat(values[:4, :4], 8, 0), 8, 1) * np.uint8(255)
            Image.fromarray(values).save(path, quality=75)
    with pytest.raises(LayoutError, match="images and labels, but in no known layout") as caught:
        source(tmp_path)
    found = caught.value.remedy.rpartition("--layout ")[2].strip('".')
    assert found == layout
    assert len(source(tmp_path, layout=found)) == 3


@pytest.mark.parametrize(
    ("pictures", "masks", "layouts"),
    [
        # Two dates over one mask of changes, as in LEVIR-CD.
        (("train/A/{}.png", "train/B/{}.png"), ("train/label/{}.png",),
         ("train/A/{id}.png=train/label/{id}.png", "train/B/{id}.png=train/label/{id}.png")),
        # Heights beside colours; labels in a folder apart, as of ISPRS.
        (("all/top/t{}.tif", "all/dsm/t{}.jpg"), ("truth/t{}.tif",),
         ("all/top/{id}.tif=truth/{id}.tif",)),
    ],
)  # fmt: skip
def test_all_layouts_that_fit_are_named(
    tmp_path: Path, pictures: tuple[str, ...], masks: tuple[str, ...], layouts: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(0)
    for name in (*pictures, *masks):
        for number in range(3):
            path = tmp_path / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = name in masks or "dsm" in name
            values = rng.integers(0, 2 if name in masks else 255, (32, 32, 3)[: 3 - grey], np.uint8)
            Image.fromarray(values).save(path)
    with pytest.raises(LayoutError) as caught:
        source(tmp_path)
    options = " or ".join(f'--layout "{one}"' for one in layouts)
    assert f": {options}." in caught.value.remedy
    assert ("do not train on them" in caught.value.remedy) == (len(layouts) > 1)
    images, labels = (tmp_path / Path(one[0]).parent for one in (pictures, masks))
    notes = source(labels, images=str(images)).notes
    assert any("mark what changed" in note for note in notes) == (len(layouts) > 1)


# The card.


def test_a_card_is_read_and_what_is_said_goes_before_it(tmp_path: Path) -> None:
    save_pair(tmp_path / "data", "a", np.array([[0, 2], [7, 7]], np.uint8))
    save_pair(tmp_path / "data", "b", np.array([[2, 2]], np.uint8))
    card = tmp_path / "data" / CARD
    card.write_text(
        'path = "."\ngsd_m = 0.5\npart = "[:1]"\n[labels]\nclasses = ["other", "house"]\n'
        'building = "house"\nvalues = { house = 2, other = 0 }\nignore = [7]\n',
        encoding="utf-8",
    )
    read = source(tmp_path / "data")
    assert (read.name, read.ids, read.classes) == ("data", ("a",), ("other", "house"))
    (scene,) = read
    assert scene.gsd_m == 0.5
    assert scene.label is not None
    mask = scene.label.read()
    np.testing.assert_array_equal(mask.valid, [[True, True], [False, False]])
    np.testing.assert_array_equal(mask.data, [[0, 1], [0, 0]])

    said = source(tmp_path / "data", gsd_m=0.2, part="[1:]", name="mine")
    assert (said.name, said.ids, next(iter(said)).gsd_m) == ("mine", ("b",), 0.2)
    labels = LabelConfig(classes=("other", "house"), building="house", values={"house": 7})
    (other,) = open_source(SourceConfig(path=str(tmp_path / "data"), labels=labels))
    assert other.label is not None
    with pytest.raises(LabelError, match=r"values? not of a class"):
        other.label.read()
    # The classes of a run must be those of the card; how they are written may differ.
    same = LabelConfig(classes=("other", "house"), building="house")
    assert source(tmp_path / "data", same).classes == ("other", "house")
    with pytest.raises(ConfigError, match=r"read with the classes \['other', 'house'\]"):
        source(tmp_path / "data", LabelConfig())


def test_masks_of_buildings_for_a_model_of_more_classes(tmp_path: Path) -> None:
    save_pair(tmp_path, "a", np.array([[0, 255]], np.uint8))
    three = LabelConfig(classes=("background", "road", "building"))
    given = LabelConfig(values={"building": 255, "background": 0})
    config = SourceConfig(path=str(tmp_path), labels=given)
    (scene,) = open_source(config, three)
    assert scene.label is not None
    np.testing.assert_array_equal(scene.label.read().data, [[0, 2]])
    with pytest.raises(ConfigError, match="read with the classes"):
        open_source(config, LabelConfig(classes=("ground", "building")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path = "."\nlayuot = "a"', "unknown key 'layuot'. Did you mean 'layout'"),
        ("path = [", "is not TOML"),
        ('path = "."\nsurface = "a.tif"', "surface and terrain belong together"),
    ],
)
def test_a_card_that_cannot_be_followed(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / CARD).write_text(text)
    with pytest.raises(ConfigError) as caught:
        source(tmp_path / "data")
    assert CARD in caught.value.message
    assert message in caught.value.message


# What a folder is written as.


def in_memory(images: SceneSet, classes: int, draw: np.ndarray, valid: np.ndarray) -> SceneSet:
    """The images of a set, all with one label."""

    def open_scene(entry: SceneEntry) -> Scene:
        scene = images.open_scene(entry)
        return replace(scene, label=ArrayLabel(draw, valid, scene.image.grid))

    names = ("background", "building", *(f"c{n}" for n in range(2, classes)))
    return replace(images, classes=names, open_scene=open_scene)


def test_a_class_of_the_index_that_means_unknown_cannot_be_written(
    pairs: Path, tmp_path: Path
) -> None:
    draw = np.full((64, 72), 255, np.uint8)
    given = in_memory(source(pairs, part="[:1]"), 256, draw, np.ones(draw.shape, np.bool_))
    write = KINDS["folder"].write
    assert write is not None
    with pytest.raises(LabelError, match="uses the class index 255"):
        write(given, tmp_path / "out", WriteOptions(), None)


@pytest.mark.parametrize("scene_id", ["../../escaped", "a/../../b", "..", "/escaped"])
def test_a_scene_id_that_leads_out_of_a_folder_is_refused(tmp_path: Path, scene_id: str) -> None:
    image = {"id": 1, "file_name": "a.png", "height": 4, "width": 4, "scene_id": scene_id}
    document = {"images": [image], "categories": [], "annotations": []}
    (tmp_path / "coco.json").write_text(json.dumps(document))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match="leads out of a folder") as caught:
        open_source(SourceConfig(path=str(tmp_path / "coco.json")))
    assert repr(scene_id) in caught.value.message
