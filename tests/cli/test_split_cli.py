"""`rooftrace split` through the real command: its text and its JSON."""

import json
from pathlib import Path

import pytest
from PIL import Image

from command_line import call, command
from town import write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs, two of them the same picture."""
    folder = tmp_path_factory.mktemp("split") / "data"
    write_pairs(folder, range(7), shape_yx=(64, 64))
    for part in ("images", "masks"):
        copy = folder / part / "copy_00000.tif"
        copy.write_bytes((folder / part / "synthetic_00003.tif").read_bytes())
    return folder


@pytest.mark.parametrize(("count", "parts"), [(60, (36, 12, 12)), (20, (12, 4, 4))])
def test_small_sets_have_parts_that_say_something(
    count: int, parts: tuple[int, ...], tmp_path: Path
) -> None:
    for number in range(count):
        for kind in ("images", "masks"):
            path = tmp_path / kind / f"{number:02}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("L", (16, 16), number % 2).save(path)
    data = (tmp_path / "images", "--truth", tmp_path / "masks")
    given = ("split", *data, "--gsd", "0.3", "-o", tmp_path / "s.json", "--no-duplicates")
    printed = "".join(map(str, command(*given)))
    assert (f"finetune {' '.join(map(str, data))} --set gsd_m=0.3 --split" in printed) == (
        count == 60
    )
    _, shown, _ = command(*given, "--json")
    made = json.loads(shown)
    assert tuple(made[part] for part in ("train", "val", "test")) == parts
    assert ("val has 4 images, test has 4 images" in str(made["notes"])) == (count == 20)


def test_the_labels_are_not_replaced(tmp_path: Path) -> None:
    """The data may be a folder whose card names the file of labels."""
    images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "rooftrace.toml").write_text('path = "labels.json"\n')
    before = labels.read_bytes()
    for data in (labels, tmp_path):
        code, answer = call("split", data, "-o", labels)
        assert (code, "would replace the input" in answer["error"]["message"]) == (2, True)
        assert labels.read_bytes() == before
