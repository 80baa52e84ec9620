"""A folder is read in the only way that fits; otherwise an error names the files."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import DataError, LayoutError
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.io.companions import has_images_under, images_under
from rooftrace.labels.folders import pair_images_and_masks
from rooftrace.labels.mask_files import label_masks
from rooftrace.labels.pairing import PartLists, has_reading


def put(root: Path, *names: str, kind: str | None = None) -> None:
    """Write small images under these names; the suffix gives the format, unless `kind` does."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(path, format=kind)


def shown(root: Path, **options: object) -> list[tuple[str, str, str, str]]:
    """Return (id, group, image, mask) of each pair, with paths below the root."""
    found = pair_images_and_masks(root, **options)  # type: ignore[arg-type]
    return [
        (p.id, p.group, *(path.relative_to(root).as_posix() for path in (p.image, p.key) if path))
        for p in found.pairs
    ]  # type: ignore[misc]


@pytest.mark.parametrize("place", ["ImageSets/Segmentation/{}.txt", "{}.txt"])
def test_lists_of_names_are_parts(tmp_path: Path, place: str) -> None:
    for name in "abc":
        put(tmp_path, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png")
    for part, lines in (("train", "a\n"), ("val", "JPEGImages/c.jpg\nb\n")):
        path = tmp_path / place.format(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8")
    assert [one[0] for one in shown(tmp_path)] == ["train/a", "val/b", "val/c"]
    # Some data sets have no test images of their own.
    same = path.with_name("test.txt")
    same.write_text("b\nc\n", encoding="utf-8")
    assert [one[0] for one in shown(tmp_path)] == ["train/a", "val/b", "val/c"]
    same.unlink()
    path.write_text("b_0\nb_1\nc\n", encoding="utf-8")
    assert [one[0] for one in shown(tmp_path)] == ["a", "b", "c"]
    (note,) = pair_images_and_masks(tmp_path).notes
    assert "do not name 1 of 3 images, such as b.jpg. Cut scenes into the tiles" in note


def test_lists_above_the_folders_of_regions(tmp_path: Path) -> None:
    for name in ("accra/{}/a_1.tif", "accra/{}/a_2.tif", "bonn/{}/b_1.tif"):
        put(tmp_path, name.format("images"), name.format("labels"))
    put(tmp_path, "bonn/images/b_2.tif", "bonn/images/b_3.tif")
    lists = {"train": "a_1.tif\n", "val": "a_2.tif\nb_1.tif\n", "test": "b_2.tif\nb_3.tif\n"}
    for part, lines in lists.items():
        (tmp_path / f"{part}.txt").write_text(lines, encoding="utf-8")
    with patch.object(PartLists, "_in", wraps=PartLists._in) as reading:
        found = pair_images_and_masks(tmp_path)
    assert [one.id for one in found.pairs] == ["train/accra/a_1", "val/accra/a_2", "val/bonn/b_1"]
    # There may be thousands of regions.
    tops = [call.args[0] for call in reading.call_args_list]
    assert tops.count(tmp_path) == 1
    assert [one.id for one in found.unlabelled] == ["bonn/b_2", "bonn/b_3"]
    # Of a part that has labels, one is missing.
    (tmp_path / "val.txt").write_text(f"{lists['val']}b_3.tif\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("b_2.tif\n", encoding="utf-8")
    with pytest.raises(LayoutError, match=r"b_3\.tif has no mask"):
        pair_images_and_masks(tmp_path)


def test_groups(tmp_path: Path) -> None:
    put(tmp_path, "Tile 2/images/a.png", "Tile 2/masks/a.png")
    put(tmp_path, "Tile 1/images/a.jpg", "Tile 1/masks/a.png")
    put(tmp_path, "deep/er/images/a.jpg", "deep/er/masks/a.png")
    (tmp_path / "classes.json").write_text("{}")
    assert shown(tmp_path) == [
        ("Tile 1/a", "Tile 1", "Tile 1/images/a.jpg", "Tile 1/masks/a.png"),
        ("Tile 2/a", "Tile 2", "Tile 2/images/a.png", "Tile 2/masks/a.png"),
        ("deep/er/a", "deep/er", "deep/er/images/a.jpg", "deep/er/masks/a.png"),
    ]
    assert pair_images_and_masks(tmp_path).notes == ()
    put(tmp_path, "Tile 1/old/images/b.png", "Tile 1/old/masks/b.png")
    put(tmp_path, "deep/2/y.png", "deep/2/y_mask.png")
    (note,) = pair_images_and_masks(tmp_path).notes
    assert note.startswith("Left out: 2 folders with other labelled images: Tile 1/old, deep/2.")


def test_masks_beside_their_images(tmp_path: Path) -> None:
    names = ("p/a.png", "p/a_mask.png", "p/b.tif", "p/b_mask.png")
    put(tmp_path, *names)
    assert shown(tmp_path) == [("p/a", "p", *names[:2]), ("p/b", "p", *names[2:])]
    put(tmp_path, "p/c.jpg", "p/c_mask.png", "p/preview.png")
    found = pair_images_and_masks(tmp_path)
    assert [one.id for one in found.pairs] == ["p/a", "p/b", "p/c"]
    assert [one.id for one in found.unlabelled] == ["p/preview"]
    (tmp_path / "p/preview.png").rename(tmp_path / "p/d_mask.png")
    with pytest.raises(LayoutError, match=r"mask \S+d_mask\.png has no image"):
        pair_images_and_masks(tmp_path)
    # What rooftrace predict has written into the folder of its images are no labels.
    put(tmp_path / "out", "a.tif", "a_mask.tif")
    (tmp_path / "out/run.json").write_text("{}")
    assert not has_reading(tmp_path / "out")


def test_explicit_pattern_reaches_over_folders(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg", "a/deep/y.jpg", "a/z.png", "b/x_gt.png", "b/deep/y_gt.png")
    assert shown(tmp_path, layout="a/{id}.jpg=b/{id}_gt.png") == [
        ("deep/y", "deep", "a/deep/y.jpg", "b/deep/y_gt.png"),
        ("x", "", "a/x.jpg", "b/x_gt.png"),
    ]
    assert shown(tmp_path, layout="a/{id}.jpg=b/{id}_gt.png", glob=["y*"]) == [
        ("deep/y", "deep", "a/deep/y.jpg", "b/deep/y_gt.png")
    ]


def test_an_explicit_pattern_settles_what_looking_cannot(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "masks/a.png", "images/images/b.png", "label/label/b_label.png")
    with pytest.raises(LayoutError) as caught:
        pair_images_and_masks(tmp_path)
    assert "2 ways" in caught.value.message
    assert "images/NAME.ext + masks/NAME.ext (1 pairs)" in caught.value.message
    assert "label/label/NAME_label.ext (1 pairs)" in caught.value.message
    assert '--layout "images/{id}.*=masks/{id}.*"' in caught.value.remedy
    layout = "images/images/{id}.png=label/label/{id}_label.png"
    assert [row[0] for row in shown(tmp_path, layout=layout)] == ["b"]


def test_content_counts_not_the_ending(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", kind="JPEG")
    put(tmp_path, "masks/a.tif", kind="PNG")
    (tmp_path / "images/Thumbs.db").write_bytes(b"not an image")
    (tmp_path / "images/notes").write_text("not an image")
    assert shown(tmp_path) == [("a", "", "images/a.png", "masks/a.tif")]


def test_an_image_without_its_mask_and_a_mask_without_its_image_are_named(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    with pytest.raises(LayoutError, match=r"images/b\.png has no mask; expected \S+masks/b"):
        pair_images_and_masks(tmp_path)
    with pytest.raises(LayoutError, match=r"b\.png has no mask"):
        pair_images_and_masks(tmp_path, layout="images/{id}.png=masks/{id}.png")
    (tmp_path / "images/b.png").rename(tmp_path / "masks/b.png")
    with pytest.raises(LayoutError, match=r"masks/b\.png has no image"):
        pair_images_and_masks(tmp_path)


def test_a_group_without_masks_is_not_left_out_in_silence(tmp_path: Path) -> None:
    put(tmp_path, "p/images/a.png", "p/masks/a.png", "q/images/b.png", "r/images/c.png")
    (tmp_path / "q/masks").mkdir()
    with pytest.raises(LayoutError, match=r"q/images/b\.png has no mask"):
        pair_images_and_masks(tmp_path)
    (tmp_path / "q/masks").rmdir()
    found = pair_images_and_masks(tmp_path)
    assert [p.id for p in found.pairs] == ["p/a"]
    assert [(p.id, p.group) for p in found.unlabelled] == [("q/b", "q"), ("r/c", "r")]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_two_files_of_one_name_are_named(tmp_path: Path, part: str) -> None:
    put(tmp_path, "images/a.png", "masks/a.png", f"{part}/a.tif")
    with pytest.raises(LayoutError, match=rf"{part}/a\.png and \S+{part}/a\.tif"):
        pair_images_and_masks(tmp_path)


def test_a_folder_that_fits_nothing_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="it contains nothing"):
        pair_images_and_masks(tmp_path)
    put(tmp_path, "loose.png")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(LayoutError, match=r"loose\.png.*including 1 image"):
        pair_images_and_masks(tmp_path)
    with pytest.raises(DataError, match=r"absent does not exist"):
        pair_images_and_masks(tmp_path / "absent")
    with pytest.raises(LayoutError, match=r"loose\.png is a file of an unknown kind"):
        pair_images_and_masks(tmp_path / "loose.png")
    (tmp_path / "data.zip").write_bytes(b"PK\3\4")
    with pytest.raises(LayoutError, match="unknown kind") as caught:
        pair_images_and_masks(tmp_path / "data.zip")
    assert "Unpack it" in caught.value.remedy


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    town = tmp_path / ".kept/town"
    put(town, ".b.png", ".git/c.png", "north/.ipynb_checkpoints/d.png")
    assert not has_images_under(town)  # which is hidden itself
    found = [town / name for name in ("a.png", "north/b.png", "south/old/c.tif")]
    put(town, "a.png", "north/b.png", "south/old/c.tif")
    (town / "north/notes.txt").write_text("no image")
    assert images_under(town) == found
    assert images_under(town, ["b.*"]) == found[1:2]
    assert images_under(tmp_path / "not there") == []


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("a/1.tif a/2.png a/2_mask.tif a/3_mask.tif", "a/2_mask.tif"),
        ("a/1_sat.jpg a/1_mask.png", "a/1_mask.png"),
        ("output/1.jpg output/1_m.png other/1.jpg other/1_m.png", "output/1_m.png"),
        ("d/images/1.tif d/images/2.tif d/Masks/1.png e/masks/2.png", "d/Masks/1.png"),
        ("x/images/1.tiff x/mask/1.tif x/other/1.tif", "x/mask/1.tif"),
        ("x/train/1.tiff x/train_labels/1.tif", "x/train_labels/1.tif"),
        ("p/2_Ortho_R/t_1_R.tif p/5_Labels_all/t_1_label.tif", "p/5_Labels_all/t_1_label.tif"),
    ],
)  # fmt: skip
def test_masks_are_told_from_images_by_any_layout(images: str, masks: str, tmp_path: Path) -> None:
    put(tmp_path, *images.split())
    paths = [{tmp_path / name for name in names.split()} for names in (images, masks)]
    assert label_masks(paths[0]) == paths[1]


def test_masks_are_told_by_the_images_beside_their_folder(tmp_path: Path) -> None:
    put(tmp_path, "images/1.tif", "masks/1.png", "masks/2.png")
    other = tmp_path / "masks/2.png"
    assert label_masks([tmp_path / "masks/1.png", other]) == {tmp_path / "masks/1.png"}
    other.unlink()
    with pytest.raises(DataError, match="has only masks of other images"):
        find_inputs([tmp_path / "masks"])
