"""References of tasks are resolved to local image files."""

from pathlib import Path

import pytest

from rooftrace.core.errors import LayoutError
from rooftrace.labels.label_files import ImageFinder, image_key


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    touch(folder, "chip.png", "sub/chip.png", "sub/deep/leaf.tif", "été ville (1).png", "100%.png")
    return folder


FOUND = [
    ("/data/upload/3/0123abcd-chip.png", "chip.png"),
    ("/data/upload/0123abcd-chip.png", "chip.png"),
    ("https://labels.example.com/data/upload/3/0123abcd-chip.png", "chip.png"),
    ("/data/upload/3/0123abcd-leaf.png", "sub/deep/leaf.tif"),
    ("/data/upload/3/0123abcd-été_ville_1.png", "été ville (1).png"),
    ("/data/upload/3/0123abcd-%C3%A9t%C3%A9_ville_1.png", "été ville (1).png"),
    ("/data/local-files/?d=sub/chip.png", "sub/chip.png"),
    ("/data/local-files/?d=root%2Fof%2Fserver%2Fsub%2Fchip.png", "sub/chip.png"),
    ("/data/local-files/?d=C%3A%5Cserver%5Csub%5Cchip.png", "sub/chip.png"),
    ("/data/local-files/?d=elsewhere/%C3%A9t%C3%A9%20ville%20%281%29.png", "été ville (1).png"),
    ("s3://bucket/set/sub/chip.png", "sub/chip.png"),
    ("gs://bucket/chip.png", "chip.png"),
    ("https://example.com/a/%C3%A9t%C3%A9%20ville%20(1).png?size=2#x", "été ville (1).png"),
    ("sub/chip.png", "sub/chip.png"),
    ("/not/here/chip.png", "chip.png"),
    ("100%.png", "100%.png"),
    ("sub/../chip.png", "chip.png"),
]


@pytest.mark.parametrize(("reference", "expected"), FOUND)
@pytest.mark.parametrize("given", [True, False])
def test_found(images: Path, reference: str, expected: str, given: bool) -> None:
    export = images.parent / "images.json"
    if not given:
        images.rename(images.with_name("images_images"))
        images = images.with_name("images_images")
    finder = ImageFinder.beside(export, images if given else None)
    assert finder.find(reference, "task 1").resolve() == (images / expected).resolve()


def test_ambiguous(images: Path) -> None:
    touch(images, "x/twin.png", "y/twin.png", "z/other.jpg", "z/other.tif")
    finder = ImageFinder.beside(images.parent / "x.json", images)
    with pytest.raises(
        LayoutError, match=r"task 1 names the image .* which matches 2 files"
    ) as one:
        finder.find("/data/upload/1/0123abcd-twin.png", "task 1")
    assert str(images / "x/twin.png") in one.value.message
    with pytest.raises(LayoutError, match=r"z/other\.jpg, .*z/other\.tif"):
        finder.find("other.png", "task 1")
    touch(images.parent, "chip.png")
    with pytest.raises(LayoutError, match="which matches 2 files"):
        finder.find("chip.png", "task 1")


def test_what_was_tried_is_listed(images: Path) -> None:
    finder = ImageFinder.beside(images.parent / "x.json", images)
    with pytest.raises(LayoutError) as raised:
        finder.find("s3://b/set/none.png", "task 1")
    assert "'set/none.png', 'none.png'" in raised.value.message
    assert str(images) in raised.value.message
    assert "--images" in raised.value.remedy


def test_which_key_names_the_image() -> None:
    assert image_key({"image": "x", "other": "a.png"}, "t") == "image"
    assert image_key({"name": "tile", "photo": "/data/upload/1/x"}, "t") == "photo"
    assert image_key({"a": "a.png", "b": "b.png"}, "t", "b") == "b"
    with pytest.raises(LayoutError, match=r"'a' or 'b' names the image; expected exactly one"):
        image_key({"a": "a.png", "b": "b.png"}, "t")
    with pytest.raises(LayoutError, match=r"none names the image; expected 'c'"):
        image_key({"a": "a.png"}, "t", "c")
