"""COCO files of any tool are read as pycocotools reads them; errors name the record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as tools

from label_samples import coco_roboflow
from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import KINDS, open_source
from rooftrace.labels.source import SceneSet, WriteOptions

# What pycocotools does with NumPy 2 when it decodes; rooftrace leaves that to itself.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
HEIGHT, WIDTH = 20, 30


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def runs(mask: np.ndarray) -> list[int]:
    """Encode by the definition of the uncompressed form: down columns, zeros first."""
    counts, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def square(row: int, col: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[row : row + side, col : col + side] = True
    return mask


def document(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a document with one image `a.png` of 20 × 30 and the category 7, building."""
    image = {"id": 3, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
    listed = [
        {"id": 10 + n, "image_id": 3, "category_id": 7, "iscrowd": 0, **annotation}
        for n, annotation in enumerate(annotations)
    ]
    return {"images": [image], "annotations": listed,
            "categories": [{"id": 7, "name": "building"}], **changes}  # fmt: skip


def save(folder: Path, raw: object, name: str = "coco.json") -> Path:
    path = folder / name
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("coco")
    for name in ("a", "b"):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(made / f"{name}.png")
    return made


def read(path: Path, labels: LabelConfig | None = None, **options: Any) -> SceneSet:
    return open_source(SourceConfig(path=str(path), **options), labels)


def only_mask(source: SceneSet) -> Any:
    (scene,) = source
    assert scene.label is not None
    return scene.label.read()


# What it holds.


@given(MASKS)
def test_the_compressed_form_is_read_as_pycocotools_does(folder: Path, mask: np.ndarray) -> None:
    height, width = mask.shape
    Image.fromarray(np.zeros((height, width), np.uint8)).save(folder / "any.png")
    for segmentation in (rle(mask), {"size": [height, width], "counts": runs(mask)}):
        raw = document({"segmentation": segmentation})
        raw["images"] = [{"id": 3, "file_name": "any.png", "height": height, "width": width}]
        found = only_mask(read(save(folder, raw, "any.json")))
        np.testing.assert_array_equal(found.data, mask)
        assert found.valid.all()


@pytest.mark.parametrize("yard", [[], [[4, 5, 8, 5, 8, 7, 4, 7]]], ids=["parts", "yard"])
def test_polygons_are_drawn_as_pycocotools_does(folder: Path, yard: list[list[float]]) -> None:
    polygons = [[2, 3, 11.5, 3, 11.5, 9, 2, 9], [20, 5, 35, 12, 22, 18.25], *yard]
    source = read(save(folder, document({"segmentation": polygons})))
    found = only_mask(source)
    expected = tools.decode(tools.merge(tools.frPyObjects(polygons, HEIGHT, WIDTH)))
    np.testing.assert_array_equal(found.data, expected)
    assert 60 < expected.sum() < 200
    assert ["inside of another" in note for note in source.notes] == [True] * len(yard)


def test_categories_are_classes_by_name(folder: Path) -> None:
    raw = document({"segmentation": rle(square(0, 0))}, {"segmentation": rle(square(0, 8))},
                   {"segmentation": rle(square(0, 16))},
                   {"segmentation": rle(square(0, 24))})  # fmt: skip
    raw["categories"] = [{"id": 90, "name": "House"}, {"id": 7, "name": "BUILDING"},
                         {"id": 4, "name": "tree"}, {"id": 1, "name": "cloud"},
                         {"id": 5, "name": "never used"}]  # fmt: skip
    for annotation, category in zip(raw["annotations"], (90, 7, 4, 1)):
        annotation["category_id"] = category
    labels = LabelConfig(names={"building": "house"}, drop=("tree",), ignore=("cloud",))
    mask = only_mask(read(save(folder, raw), labels))
    np.testing.assert_array_equal(mask.data, square(0, 0) | square(0, 8))
    np.testing.assert_array_equal(mask.valid, ~square(0, 24))
    with pytest.raises(LabelError, match="has the labels 'House', 'BUILDING', each of which may"):
        read(save(folder, raw), LabelConfig())
    # The file of one part may have no building.
    for annotation in raw["annotations"]:
        annotation["category_id"] = 4
    raw["categories"] = [{"id": 7, "name": "roof"}, {"id": 4, "name": "tree"}]
    assert not only_mask(read(save(folder, raw))).data.any()
    # Roboflow's first category is the name of the project.
    raw["categories"][1]["supercategory"] = "roof"
    with pytest.raises(LabelError, match="has the labels 'tree', none of which plainly"):
        read(save(folder, raw))


@pytest.mark.parametrize("as_polygon", [True, False])
def test_the_later_of_two_wins_but_for_what_lies_in_it_and_what_is_drawn_over_a_crowd_is_known(
    folder: Path, as_polygon: bool
) -> None:
    small = [[0, 0, 2, 0, 2, 2, 0, 2]] if as_polygon else rle(square(0, 0, 2))
    raw = document({"segmentation": small}, {"segmentation": rle(square(0, 0))},
                   {"segmentation": rle(square(2, 2))},
                   {"segmentation": rle(square(3, 3, 10)), "iscrowd": 1})  # fmt: skip
    raw["categories"].append({"id": 8, "name": "road"})
    for number in (0, 2):
        raw["annotations"][number]["category_id"] = 8
    labels = LabelConfig(classes=("background", "building", "road"))
    source = read(save(folder, raw), labels)
    mask = only_mask(source)
    expected = np.where(square(2, 2) | square(0, 0, 2), 2, square(0, 0))
    np.testing.assert_array_equal(mask.data, expected)
    np.testing.assert_array_equal(mask.valid, ~square(3, 3, 10) | (expected > 0))
    assert any("1 of 4 annotations are crowd regions" in note for note in source.notes)


def test_images_without_annotations_are_empty_and_without_the_list_unlabelled(folder: Path) -> None:
    raw = document()
    raw["images"].append({"id": "x", "file_name": "b.png", "height": HEIGHT, "width": WIDTH})
    source = read(save(folder, raw))
    assert (source.ids, source.unlabelled) == (("a", "b"), ())
    for scene in source:
        assert scene.label is not None
        assert not scene.label.read().data.any()
        assert scene.label.read().valid.all()
    del raw["annotations"]
    source = read(save(folder, raw))
    assert (source.ids, [e.id for e in source.unlabelled]) == ((), ["a", "b"])


def test_where_images_lie_and_what_they_are_called(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "west" / "img").mkdir(parents=True)
    for name in ("a.png", "west/img/a.png", "a.jpg"):
        (tmp_path / "images" / name).write_bytes((folder / "a.png").read_bytes())
    raw = document()
    raw["images"] = [
        {"id": n, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for n, name in enumerate(["a.png", "west/img/a.png"])
    ]
    source = read(save(tmp_path, raw))
    assert source.ids == ("a", "west/img/a")
    assert [entry.group for entry in source.entries] == ["", "west"]
    raw["images"].append({"id": 9, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH})
    assert read(save(tmp_path, raw)).ids == ("a.jpg", "a.png", "west/img/a.png")
    (tmp_path / "far").mkdir()
    away = save(tmp_path / "far", raw)
    with pytest.raises(LayoutError, match=r"None of the 3 images of .*coco\.json can be found"):
        read(away)
    assert len(read(away, images=str(tmp_path / "images"))) == 3
    assert len(open_source(SourceConfig(path=str(away), images="images"), None, tmp_path)) == 3


@pytest.mark.parametrize(("images", "compared"), [("refer", 0), ("copy", 1 << 18)])
def test_what_is_written_has_holes_gaps_classes_and_names(
    folder: Path, tmp_path: Path, images: Any, compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rooftrace.labels.shapes._MOST_COMPARED", compared)
    building = square(1, 1, 9) & ~square(3, 3, 3) & ~square(7, 7, 2)
    raw = document({"segmentation": rle(building)}, {"segmentation": rle(square(12, 2))},
                   {"segmentation": rle(square(5, 20)), "iscrowd": 1},
                   {"segmentation": rle(square(14, 9)), "category_id": 8})  # fmt: skip
    raw["categories"].append({"id": 8, "name": "road"})
    raw["images"][0] |= {"scene_id": "haus/5 ä", "group": "g", "gsd_m": 0.4}
    labels = LabelConfig(classes=("background", "building", "road"))
    source = read(save(folder, raw), labels)
    write = KINDS["coco"].write
    assert write is not None
    written = write(source, tmp_path / "out" / "c.json", WriteOptions(images=images), None)
    again = read(written.path, labels)
    (one,), (two,) = source, again
    assert (
        (two.id, two.group, two.gsd_m) == (one.id, one.group, one.gsd_m) == ("haus/5 ä", "g", 0.4)
    )
    mask, found = only_mask(source), only_mask(again)
    np.testing.assert_array_equal(found.data, mask.data)
    np.testing.assert_array_equal(found.valid, mask.valid)
    made = json.loads(written.path.read_bytes())
    # Two buildings, each with the figures that COCO's own tools compute.
    instances = [a for a in made["annotations"] if a["category_id"] == 1 and not a["iscrowd"]]
    assert sorted(a["area"] for a in instances) == [16, 81 - 9 - 4]
    assert sorted(a["bbox"] for a in instances) == [[1, 1, 9, 9], [2, 12, 4, 4]]
    assert sum(a["iscrowd"] for a in made["annotations"]) == 1
    assert again.entries[0].image is not None
    copied = tmp_path / "out" / "c_images" in again.entries[0].image.parents
    assert copied == (images == "copy")
    with pytest.raises(ConfigError, match=r"does not end in \.json"):
        write(source, tmp_path / "folder", WriteOptions(), None)


# What is amiss.


def broken(path: list[Any], value: Any) -> dict[str, Any]:
    raw = document({"segmentation": rle(square(1, 1))}, {"segmentation": [[1, 1, 5, 1, 5, 5]]})
    node: Any = raw
    for step in path[:-1]:
        node = node[step]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return raw


def test_what_is_left_out_of_several_parts_is_one_note(tmp_path: Path) -> None:
    for file in coco_roboflow(tmp_path).glob("*/*.json"):
        raw = json.loads(file.read_text())
        raw["categories"].append({"id": 99, "name": "tree"})
        outline = {"segmentation": [[1, 1, 9, 1, 9, 9]], "category_id": 99}
        raw["annotations"].append({"image_id": raw["images"][0]["id"], **outline})
        file.write_text(json.dumps(raw))
    assert read(tmp_path).notes == ("Left out: 3 shapes with other labels: 'tree'.",)
    file.rename(file.with_name("instances.json"))
    assert "called instances… are read, not _annotations.coco.json" in read(tmp_path).notes[1]


SEGMENTATION = ["annotations", 0, "segmentation"]


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (["images", 0, "id"], None, ["the key 'images.0.id' is missing"]),
        (["images", 0, "file_name"], None, ["the key 'images.0.file_name' is missing"]),
        (["images", 0, "height"], -9, ["images.0.height: it should be greater than or equal"]),
        (["images"], {}, ["read as COCO: images: it should be a valid list"]),
        (["annotations", 0, "image_id"], None, ["'annotations.0.image_id' is missing"]),
        (["annotations", 1, "image_id"], 99, ["annotations[1] (id 11)", "image 99"]),
        (["annotations", 0, "category_id"], 2, ["annotations[0] (id 10)", "category 2", "has 7"]),
        (["categories"], None, ["category 7", "it has none"]),
        (["categories", 0, "name"], None, ["'categories.0.name' is missing"]),
        (SEGMENTATION, None, ["annotations[0] (id 10)", "expected polygons or run lengths"]),
        ([*SEGMENTATION, "size"], [30, 20], ["annotations[0] (id 10)", "[30, 20]", "[20, 30]"]),
        ([*SEGMENTATION, "counts"], "~~~", ["annotations[0] (id 10)", "cannot be read", "~~~"]),
        ([*SEGMENTATION, "counts"], [5, 5], ["10 pixels in total, but its image has 600"]),
        ([*SEGMENTATION, "counts"], [5, -5, 600], ["cannot be read"]),
        (["annotations", 1, "segmentation"], [[1, 1, 5, 1, 5]], ["annotations[1]", "polygon"]),
        (["annotations", 1, "segmentation"], [1, 1, 5, 1, 5, 5], ["annotations[1]", "polygon"]),
        (["annotations", 1, "segmentation"], [[0, 0, 9e9, 0, 5, 5]], ["x = 9e+09", "far outside"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    folder: Path, path: list[Any], value: Any, parts: list[str]
) -> None:
    file = save(folder, broken(path, value), "broken.json")
    with pytest.raises(DataError) as caught:
        only_mask(read(file, kind="coco"))
    for part in ["broken.json", *parts]:
        assert part in caught.value.message
    assert caught.value.remedy
