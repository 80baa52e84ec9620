"""Every kind of data is read again as written, and errors name what is wrong.

A kind joins by being in `KINDS` with a writer; what it asks for is in `CASES`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from raster_files import write_geotiff
from rooftrace.core.errors import DataError
from rooftrace.core.types import LabelReader, Mask, Scene, Window
from rooftrace.flows.convert import ConvertReport, run_convert
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import KINDS, open_source
from rooftrace.labels.source import SceneEntry, SceneSet, WriteOptions, WriteResult

CLASSES = ("background", "building", "road")
EMPTY = "leer"
SHAPE = (48, 64)


def mask_of(number: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Three classes, with a hole, something at the edge, and two that touch at a corner."""
    mask = np.zeros(shape, np.uint8)
    mask[4:20, 6 + number : 24 + number] = 1
    mask[9:14, 12:17] = 0
    mask[20:24, 24 + number : 30 + number] = 1
    mask[-6:, :9] = 1
    mask[30:34] = 2
    return mask


def picture(number: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(0, 255, (*shape, 3), np.uint8)


def save_pair(folder: Path, name: str, image: np.ndarray, mask: np.ndarray, suffix: str) -> None:
    for part, array in (("images", image), ("masks", mask)):
        path = folder / part / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".png":
            Image.fromarray(array).save(path)
            continue
        bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        place = Affine(0.5, 0, 500_000 + 100 * len(name), 0, -0.5, 5_000_000)
        write_geotiff(path, bands, crs="EPSG:32633", transform=place)


def pairs(suffix: str, names: tuple[str, ...], shape: tuple[int, int]) -> Callable[[Path], Path]:
    """Write a folder of pairs, the last of them with an empty label."""

    def make(folder: Path) -> Path:
        for number, name in enumerate(names):
            mask = mask_of(number, shape)
            save_pair(folder, name, picture(number, shape), mask, suffix)
        last = folder / "masks" / f"{names[-1]}{suffix}"
        last.unlink()
        save_pair(folder, names[-1], picture(9, shape), np.zeros(shape, np.uint8), suffix)
        return folder

    return make


NAMES = ("Haus Nr 5 äöü 東京", "b'; --", EMPTY)
PLAIN = pairs(".png", NAMES, SHAPE)


@dataclass(frozen=True)
class Case:
    """Requirements and capabilities of a kind.

    Args:
        out: Name of the file or folder that is written.
        make: Function that writes the folder of pairs to convert.
        classes: Whether the kind holds more than one class besides the background.
        least_iou: Minimum IoU of masks that are read back; 1 if they are equal.
        own_images: Whether its labels name the images, so that one can be missing or too large.
        reading: Options with which it must be read.
    """

    out: str = "out"
    make: Callable[[Path], Path] = PLAIN
    classes: bool = True
    least_iou: float = 1.0
    own_images: bool = True
    reading: dict[str, Any] = field(default_factory=dict)


CASES = {
    "rle": Case(out="out/m.csv", classes=False, reading={"order": "row"}),
    "coco": Case(out="out/c.json"),
    "labelstudio": Case(out="out/t.json"),
    "footprints": Case(
        out="out/f.gpkg", make=pairs(".tif", NAMES, SHAPE), least_iou=0.99, own_images=False
    ),
}  # fmt: skip

WRITABLE = sorted(name for name, kind in KINDS.items() if kind.write is not None)
each_kind = pytest.mark.parametrize("kind", WRITABLE)


def case(kind: str) -> Case:
    return CASES.get(kind, Case())


def written(source: SceneSet, kind: str, out: Path) -> WriteResult:
    write = KINDS[kind].write
    assert write is not None
    return write(source, out, WriteOptions(), None)


def config(path: Path, kind: str, /, **options: Any) -> SourceConfig:
    classes = CLASSES if case(kind).classes else CLASSES[:2]
    return SourceConfig.model_validate(
        {"path": str(path), "labels": {"classes": classes}, **case(kind).reading, **options}
    )


def converted(folder: Path, kind: str, **options: Any) -> ConvertReport:
    """Write the folder of the case as a kind, with its images beside it."""
    data = case(kind).make(folder / "data")
    given = SourceConfig(path=str(data), labels=LabelConfig(classes=CLASSES), **options)
    return run_convert(given, kind, folder / case(kind).out, WriteOptions(images="copy"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind once, for tests that only read."""
    made = {}
    for kind in WRITABLE:
        made[kind] = converted(tmp_path_factory.mktemp(kind), kind).written
    return made


def read_mask(scene: Scene) -> Mask:
    assert scene.label is not None
    return scene.label.read()


@each_kind
@pytest.mark.parametrize("images", ["refer", "copy"])
def test_what_is_written_is_read_again(kind: str, images: Any, tmp_path: Path) -> None:
    this = case(kind)
    data = this.make(tmp_path / "data")
    given = SourceConfig(path=str(data), labels=LabelConfig(classes=CLASSES))
    report = run_convert(given, kind, tmp_path / this.out, WriteOptions(images=images))
    before = {scene.id: scene for scene in open_source(given)}
    placed = {"images": str(data / "images")} if kind == "footprints" and images == "refer" else {}
    again = open_source(config(report.written, kind, kind=kind, **placed))
    assert list(again.ids) == sorted(before)
    assert report.scenes == len(before)
    for scene in again:
        old = before[scene.id]
        np.testing.assert_array_equal(scene.image.read().data, old.image.read().data)
        assert scene.gsd_m == pytest.approx(old.gsd_m)
        mask, drawn = read_mask(scene), read_mask(old)
        assert mask.valid.all()
        expected = drawn.data if this.classes else (drawn.data == 1).astype(np.uint8)
        if this.least_iou == 1:
            np.testing.assert_array_equal(mask.data, expected)
        for index in (1, 2):
            one, other = mask.data == index, expected == index
            assert (one & other).sum() >= this.least_iou * (one | other).sum()
    # Left to itself rooftrace sees what it is.
    # YOLO is one of the layouts of a folder.
    read_as = "folder" if kind == "yolo" else kind
    assert open_source(config(report.written, kind, **placed)).kind == read_as


@each_kind
def test_an_empty_label_stays_one(kind: str, shared: dict[str, Path]) -> None:
    source = open_source(config(shared[kind], kind))
    assert len(source) == 3
    assert source.unlabelled == ()
    empty = [scene.id for scene in source if not read_mask(scene).data.any()]
    assert empty == [NAMES[-1]]


@each_kind
def test_images_without_a_label_do_not_become_empty_labels(kind: str, tmp_path: Path) -> None:
    data = case(kind).make(tmp_path / "data")
    source = open_source(SourceConfig(path=str(data), labels=LabelConfig(classes=CLASSES)))
    # As a layout that has unlabelled images: GROUP/images without GROUP/masks.
    (data / "images").rename(tmp_path / "images")
    (data / "masks").rename(tmp_path / "masks")
    for part in ("images", "masks"):
        (data / "west").mkdir(exist_ok=True)
        (tmp_path / part).rename(data / "west" / part)
    (data / "east" / "images").mkdir(parents=True)
    first = source.entries[0].image
    assert first is not None
    moved = data / "west" / "images" / first.name
    moved.rename(data / "east" / "images" / first.name)
    (data / "west" / "masks" / first.name).unlink()
    given = SourceConfig(path=str(data), labels=LabelConfig(classes=CLASSES))
    report = run_convert(given, kind, tmp_path / case(kind).out, WriteOptions(images="copy"))
    assert report.left_out == (f"east/{first.stem}",)
    assert any("1 image without a label left out" in note for note in report.notes)
    again = open_source(config(report.written, kind))
    assert (len(again), again.unlabelled) == (2, ())


@each_kind
def test_an_image_of_another_size_is_named_with_both_sizes(kind: str, tmp_path: Path) -> None:
    if not case(kind).own_images:
        pytest.skip("its labels lie on the ground, and images of any size show them")
    if kind == "yolo":
        pytest.skip("its corners are shares of an image of any size")
    path = converted(tmp_path, kind).written
    source = open_source(config(path, kind))
    image = source.entries[0].image
    assert image is not None
    Image.fromarray(picture(0, (20, 31))).save(image)
    with pytest.raises(DataError) as caught:
        read_mask(next(iter(open_source(config(path, kind)))))
    message = caught.value.message
    assert "20 rows × 31 columns" in message
    # A table says no size of its own: there the runs reach beyond the image.
    assert ("ends at pixel" if kind == "rle" else "48 rows × 64 columns") in message
    assert kind == "rle" or image.stem in message


@each_kind
def test_a_missing_image_is_named(kind: str, tmp_path: Path) -> None:
    if kind == "yolo":
        pytest.skip("a text without an image belongs to no scene")
    path = converted(tmp_path, kind).written
    source = open_source(config(path, kind))
    image = source.entries[0].image
    assert image is not None
    image.unlink()
    if not case(kind).own_images:
        assert open_source(config(path, kind)).ids == source.ids[1:]
        return
    with pytest.raises(DataError) as caught:
        next(iter(open_source(config(path, kind)))).image.read()
    assert image.stem in caught.value.message


@each_kind
def test_a_set_goes_to_another_process(kind: str, shared: dict[str, Path]) -> None:
    source = open_source(config(shared[kind], kind))
    again: SceneSet = pickle.loads(pickle.dumps(source))
    assert again.entries == source.entries
    for one, two in zip(source, pickle.loads(pickle.dumps(list(again)))):
        assert one.id == two.id
        np.testing.assert_array_equal(read_mask(one).data, read_mask(two).data)
        np.testing.assert_array_equal(one.image.read().data, two.image.read().data)


@each_kind
def test_chips_are_the_scenes_in_pieces(kind: str, shared: dict[str, Path]) -> None:
    source = open_source(config(shared[kind], kind))
    chips = open_source(config(shared[kind], kind, chip_px=40))
    assert all(max(chip.image.grid.shape) <= 40 for chip in chips)
    for scene in source:
        whole = read_mask(scene)
        seen = 0
        for chip in chips:
            if chip.group != scene.id and chip.group != scene.group:
                continue
            scene_id, _, place = chip.id.rpartition("@")
            if scene_id != scene.id:
                continue
            row, col = map(int, place.split("_"))
            part = Window(row, col, *chip.image.grid.shape).slices()
            np.testing.assert_array_equal(read_mask(chip).data, whole.data[part])
            seen += whole.data[part].size
        assert seen == whole.data.size


class PartlyUnknown:
    """A label of which a part is not known."""

    def __init__(self, label: LabelReader) -> None:
        self._label = label

    def read(self, window: Window | None = None) -> Mask:
        whole = self._label.read()
        whole.valid[26:30, 3:40] = False
        part = (window or Window.whole(whole.data.shape)).slices()
        return Mask(whole.data[part], whole.valid[part], whole.grid)


@each_kind
def test_unknown_pixels_stay_unknown_or_are_noted(kind: str, tmp_path: Path) -> None:
    data = case(kind).make(tmp_path / "data")
    source = open_source(SourceConfig(path=str(data), labels=LabelConfig(classes=CLASSES)))

    def open_scene(entry: SceneEntry) -> Scene:
        scene = source.open_scene(entry)
        assert scene.label is not None
        return replace(scene, label=PartlyUnknown(scene.label))

    made = written(replace(source, open_scene=open_scene), kind, tmp_path / case(kind).out)
    placed = {"images": str(data / "images")} if kind == "footprints" else {}
    # A folder says by its card what is unknown in it.
    options = {"labels": None} if kind == "folder" else {}
    lost = 0
    for scene in open_source(config(made.path, kind, **placed, **options)):
        valid = read_mask(scene).valid
        assert valid[:26].all()
        lost += bool(valid[26:30, 3:40].any())
    assert lost == 0 or any("unknown" in note.lower() for note in made.notes)
