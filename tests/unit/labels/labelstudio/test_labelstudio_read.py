"""Exports of Label Studio become scenes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.labelstudio_regions import encode_brush
from rooftrace.labels.source import SceneSet

HEIGHT, WIDTH = 20, 40
SIZES = {"original_width": WIDTH, "original_height": HEIGHT}


def save_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 80)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        save_image(tmp_path / f"{name}.png")
    return tmp_path


def box(col: int, row: int, width: int, height: int, name: str = "building") -> dict[str, Any]:
    """Return a result with a rectangle, given in pixels."""
    value = {
        "x": col / WIDTH * 100, "y": row / HEIGHT * 100, "rotation": 0,
        "width": width / WIDTH * 100, "height": height / HEIGHT * 100, "rectanglelabels": [name],
    }  # fmt: skip
    return {"id": "r", "type": "rectanglelabels", "value": value, **SIZES}


def brush(mask: np.ndarray[Any, Any], name: str = "building") -> dict[str, Any]:
    value = {"format": "rle", "rle": list(encode_brush(mask)), "brushlabels": [name]}
    return {"id": "b", "type": "brushlabels", "value": value, **SIZES}


def annotation(*results: dict[str, Any], by: object = 1, **more: Any) -> dict[str, Any]:
    return {"id": 7, "completed_by": by, "was_cancelled": False, "result": [*results], **more}


def task(image: str, *annotations: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return {"id": number, "data": {"image": image}, "annotations": [*annotations]}


def write(folder: Path, *tasks: object) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps([*tasks]), encoding="utf-8")
    return path


def read(path: Path, labels: LabelConfig | None = None, **options: Any) -> SceneSet:
    return open_source(SourceConfig(path=str(path), **options), labels)


def classes_of(source: SceneSet, number: int = 0) -> np.ndarray[Any, Any]:
    """Return (y, x) class indices of a scene, 255 where it is not valid."""
    label = source.open_scene(source.entries[number]).label
    assert label is not None
    mask = label.read()
    return np.where(mask.valid, mask.data, 255)


def drawn(*boxes: tuple[int, int, int, int, int]) -> np.ndarray[Any, Any]:
    expected = np.zeros((HEIGHT, WIDTH), dtype=int)
    for col, row, width, height, index in boxes:
        expected[row : row + height, col : col + width] = index
    return expected


def test_scenes_of_an_export(folder: Path) -> None:
    skipped = annotation(box(0, 0, 9, 9), was_cancelled=True)
    path = write(
        folder,
        task("b.png", annotation()),
        task("a.png", skipped, annotation(box(2, 3, 10, 5)), number=2),
        task("c.png", skipped, number=3),
    )
    source = read(path)
    assert (source.kind, source.name, source.ids) == ("labelstudio", "export", ("a", "b"))
    assert [entry.id for entry in source.unlabelled] == ["c"]
    assert np.array_equal(classes_of(source), drawn((2, 3, 10, 5, 1)))
    assert not classes_of(source, 1).any()
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(classes_of(again), classes_of(source))
    assert source.open_scene(source.unlabelled[0]).label is None


def test_json_min_says_the_same(folder: Path) -> None:
    def flat(result: dict[str, Any]) -> dict[str, Any]:
        return result["value"] | SIZES

    mask = drawn((0, 0, 7, 7, 1)).astype(bool)
    row = {"image": "a.png", "id": 4, "annotator": 1, "annotation_id": 9, "lead_time": None}
    path = write(
        folder,
        row | {"box": [flat(box(20, 10, 9, 9))], "brush": [flat(brush(mask))], "word": "x"},
        row | {"annotator": "b@x.org", "annotation_id": 10, "box": [flat(box(1, 1, 2, 2))]},
        row | {"id": 5, "image": "b.png"},
        row | {"id": 6, "image": "c.png", "annotation_id": None, "annotator": None},
    )
    source = read(path, annotator="1")
    assert source.ids == ("a", "b")
    assert [entry.id for entry in source.unlabelled] == ["c"]
    assert np.array_equal(classes_of(source), drawn((20, 10, 9, 9, 1), (0, 0, 7, 7, 1)))
    assert np.array_equal(classes_of(read(path, annotator="B@x.org")), drawn((1, 1, 2, 2, 1)))


def test_what_comes_later_lies_on_top(folder: Path) -> None:
    labels = LabelConfig(
        classes=("background", "building", "road"), ignore=("tree",), drop=("note",),
        names={"road": ("street", "lane")},
    )  # fmt: skip
    shapes = [box(0, 0, 10, 10, "Building"), box(5, 5, 10, 10, "lane"), box(8, 8, 4, 4, "tree"),
              box(9, 9, 20, 1, "note"), box(2, 2, 2, 2, "background")]  # fmt: skip
    expected = drawn((0, 0, 10, 10, 1), (5, 5, 10, 10, 2), (8, 8, 4, 4, 255), (2, 2, 2, 2, 0))
    source = read(write(folder, task("a.png", annotation(*shapes))), labels)
    assert np.array_equal(classes_of(source), expected)
    # The same through a brush in the middle, which hides no building: then all is painted.
    below = brush(np.ones((HEIGHT, WIDTH), dtype=bool), "street")
    painted = read(write(folder, task("a.png", annotation(shapes[0], below, *shapes[1:]))), labels)
    expected[expected == 0] = 2
    expected[2:4, 2:4] = 0
    assert np.array_equal(classes_of(painted), expected)


def test_several_exports_mean_the_same_and_have_one_note(folder: Path) -> None:
    word = {"id": "w", "type": "textarea", "value": {"text": ["x"]}, **SIZES}
    for name, label in (("a", "roof"), ("b", "tree")):
        made = write(folder, task(f"{name}.png", annotation(box(1, 2, 3, 3, label), word)))
        made.rename(folder / f"{name}.json")
    source = read(folder)
    assert source.ids == ("a/a", "b/b")
    assert [classes_of(source, number).sum() for number in (0, 1)] == [9, 0]
    other, kind = source.notes
    assert "'tree'" in other
    assert kind.endswith("has 2 results of the type textarea: left out, as they are no areas.")


def test_a_label_that_is_no_class(folder: Path) -> None:
    path = write(folder, task("a.png", annotation(box(0, 0, 3, 3, "Hut"))))
    with pytest.raises(LabelError, match=r"has the labels 'Hut', none of which plainly means"):
        read(path)
    two = box(0, 0, 3, 3)
    two["value"]["rectanglelabels"] = ["building", "road"]
    road = LabelConfig(classes=("background", "building", "road"))
    with pytest.raises(LabelError, match="'building', 'road', which are different classes"):
        read(write(folder, task("a.png", annotation(two))), road)
    nameless = box(0, 0, 3, 3)
    nameless["value"]["rectanglelabels"] = []
    path = write(folder, task("a.png", annotation(nameless)))
    with pytest.raises(LabelError, match="has the labels '', none of which"):
        read(path)
    said = LabelConfig(names={"building": ""})
    assert np.array_equal(classes_of(read(path, said)), drawn((0, 0, 3, 3, 1)))


@pytest.fixture
def disputed(folder: Path) -> Path:
    """Three annotators agree in part on a.png, two disagree on b.png, and one labelled c.png."""
    ann = {"id": 11, "email": "Ann@x.org"}
    return write(
        folder,
        task(
            "a.png",
            annotation(box(0, 0, 10, 10), by=ann),
            annotation(box(5, 0, 10, 10), by={"id": 12, "email": "bob@x.org"}),
            annotation(box(5, 5, 10, 10), by=13),
        ),
        task(
            "b.png",
            annotation(box(0, 0, 4, 4), by=ann),
            annotation(box(9, 9, 4, 4), by=13),
            number=2,
        ),
        task("c.png", annotation(box(0, 0, 2, 2), by=13), number=3),
    )


def test_several_annotators_need_a_word(disputed: Path) -> None:
    with pytest.raises(LabelError, match=r"2 tasks .* have several annotations") as raised:
        read(disputed)
    assert "the annotators are Ann@x.org, bob@x.org, 13" in raised.value.message
    assert "--annotator majority" in raised.value.remedy


@pytest.mark.parametrize("name", ["ann@x.org", "11"])
def test_one_annotator(disputed: Path, name: str) -> None:
    source = read(disputed, annotator=name)
    assert source.ids == ("a", "b")
    assert [entry.id for entry in source.unlabelled] == ["c"]
    assert np.array_equal(classes_of(source), drawn((0, 0, 10, 10, 1)))


def test_union_and_majority_which_is_more_than_half(disputed: Path) -> None:
    expected = drawn((0, 0, 10, 10, 1), (5, 0, 10, 10, 1), (5, 5, 10, 10, 1))
    assert np.array_equal(classes_of(read(disputed, annotator="union")), expected)
    source = read(disputed, annotator="majority")
    # Two of three: where any two of the boxes overlap.
    expected = drawn((5, 0, 5, 10, 1), (5, 5, 10, 5, 1))
    assert np.array_equal(classes_of(source), expected)
    assert not classes_of(source, 1).any()
    assert np.array_equal(classes_of(source, 2), drawn((0, 0, 2, 2, 1)))


def test_an_annotator_who_is_not_there(disputed: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no annotation by 'anne@x\.org'\. Did you mean 'Ann@"):
        read(disputed, annotator="anne@x.org")
    twice = write(folder, task("a.png", annotation(by=1, id=3), annotation(by=1, id=4)))
    with pytest.raises(LabelError, match="2 annotations by 1: annotation 3, annotation 4"):
        read(twice, annotator="1")


def test_a_brush_that_cannot_be_read_is_named(folder: Path) -> None:
    broken = brush(np.ones((HEIGHT, WIDTH), dtype=bool))
    broken["value"]["rle"] = broken["value"]["rle"][:9]
    source = read(write(folder, task("a.png", annotation(broken), number=31)))
    label = next(iter(source)).label
    assert label is not None
    with pytest.raises(LabelError, match=r"task 31, annotation 7, result b cannot be read: it end"):
        label.read()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"annotations": 1}', "contains an object; expected a list"),
        ('[{"annotations": ', "is not JSON"),
        ('[{"annotations": 3, "data": {"image": "a.png"}}]', "task 1 cannot be read: "),
        ('[{"annotations": [], "data": {"image": 5}}]', "its image is 5; expected a path"),
    ],
)  # fmt: skip
def test_malformed_files(folder: Path, content: str, said: str) -> None:
    path = folder / "export.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        read(path, kind="labelstudio")
    assert said in raised.value.message
    assert str(path) in raised.value.message


def test_where_the_images_are(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path, task("/data/upload/1/0123abcd-far.png", annotation()))
    save_image(tmp_path / "elsewhere" / "sub" / "far.png")
    assert read(path, images=str(tmp_path / "elsewhere")).ids == ("far",)
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        read(path, images=str(tmp_path / "nowhere"))
