"""Near-duplicates become findings."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rooftrace.audit.duplicates import duplicate_findings, grey_thumbnail, phash
from rooftrace.audit.facts import LabelFacts, SceneFacts
from rooftrace.audit.report import run_audit
from rooftrace.flows.inspect import run_inspect
from rooftrace.flows.split import run_split
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SplitOptions
from town import generate_scene


def tiles() -> list[NDArray[np.uint8]]:
    image = np.moveaxis(generate_scene(4, (384, 384)).image, 0, -1)
    return [image[r : r + 128, c : c + 128] for r in (0, 128, 256) for c in (0, 128, 256)]


def facts(scene_id: str, value: int, class_px: tuple[int, ...] | None = None) -> SceneFacts:
    label = None if class_px is None else LabelFacts(class_px, np.zeros(0, dtype=np.int64), 0)
    return SceneFacts(scene_id, scene_id, phash=value, label=label)


def with_thumbnail(scene_id: str, value: int, luma: NDArray[np.uint8]) -> SceneFacts:
    small = grey_thumbnail(luma).astype(np.float16)
    return replace(facts(scene_id, value), thumbnail=small)


def written(folder: Path, pictures: dict[str, NDArray[np.uint8]]) -> SceneSet:
    folder.mkdir(parents=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return open_source(SourceConfig(path=str(folder))).only_unlabelled()


def measured(source: SceneSet) -> list[SceneFacts]:
    grey = (cv2.cvtColor(np.moveaxis(s.image.read().data, 0, -1), cv2.COLOR_RGB2GRAY)
            for s in source)  # fmt: skip
    return [with_thumbnail(e.id, phash(luma), luma) for e, luma in zip(source.entries, grey)]


@pytest.mark.campaign
def test_copies_inside_and_across(tmp_path: Path) -> None:
    some = tiles()
    good, coded = cv2.imencode(".jpg", some[2], [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert good
    train = written(
        tmp_path / "train",
        {f"t{n}": tile for n, tile in enumerate(some[:6])}
        | {"t1_turned": np.rot90(some[1]), "t2_again": cv2.imdecode(coded, cv2.IMREAD_COLOR)},
    )
    test = written(tmp_path / "test", {"u4": some[4][2:], "u7": some[7], "u8": some[8]})
    found = duplicate_findings(measured(train), measured(test))
    assert [finding.key for finding in found] == ["copies.inside", "copies.across"]
    inside, across = found
    assert {inside.ids[k : k + 2] for k in (0, 2)} == {("t1", "t1_turned"), ("t2", "t2_again")}
    assert (inside.count, inside.severity) == (2, "warning")
    assert inside.title == "2 of 8 images are near-duplicates of another image"
    assert "1 of 2 pairs are rotated or mirrored" in inside.detail
    assert (across.ids, across.count) == (("t4",), 1)
    assert "t4 and u4" in across.detail
    assert duplicate_findings(measured(test)) == []


def test_the_images_decide() -> None:
    same = [facts("t0", 77), facts("t1", 77)]
    assert [finding.key for finding in duplicate_findings(same)] == ["copies.inside"]
    same = [with_thumbnail(f"t{n}", 77, tile[..., 0]) for n, tile in enumerate(tiles()[:2])]
    found = duplicate_findings(same, same)
    assert [finding.key for finding in found] == ["copies.across"]
    assert duplicate_findings(same) == []


@pytest.mark.parametrize(("built", "differ"), [(900, True), (50, False), (None, False)])
def test_copies_whose_labels_differ(built: int | None, differ: bool) -> None:
    other = None if built is None else (1000 - built, built)
    found = duplicate_findings([facts("a", 5, (1000, 0)), facts("b", 5, other)])
    assert [finding.key for finding in found] == ["copies.inside", "copies.labels"][: 1 + differ]
    assert all(finding.ids == ("a", "b") for finding in found)


def test_copies_in_two_parts_of_the_data_are_ground_of_both(tmp_path: Path) -> None:
    a, b, c = tiles()[:3]
    good, coded = cv2.imencode(".jpg", a, [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert good
    parts = {"train": {"a": a, "b": b, "b2": np.rot90(b)},
             "valid": {"a2": cv2.imdecode(coded, cv2.IMREAD_COLOR), "c": c}}  # fmt: skip
    for part, pictures in parts.items():
        written(tmp_path / part / "images", pictures)
        written(tmp_path / part / "masks", {n: one[..., 0] // 200 for n, one in pictures.items()})
    findings = run_audit(open_source(SourceConfig(path=str(tmp_path)))).findings
    shared, inside = [one for one in findings if one.key.startswith(("leakage", "copies"))]
    assert shared.title == "1 of 2 images of val show ground of images of train"
    assert [(one.key, one.severity, one.ids) for one in (shared, inside)] == [
        ("leakage.overlap", "warning", ("valid/a2", "train/a")),
        ("copies.inside", "note", ("train/b", "train/b2")),
    ]


def test_overlapping_images_of_two_parts_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = np.moveaxis(generate_scene(3, (384, 640)).image, 0, -1)
    turned = np.rot90(town[90:346, 130:386])
    parts = {"train": {"a": town[:256, :256]}, "valid": {"b": turned, "c": town[128:, 384:]}}
    for part, pictures in parts.items():
        written(tmp_path / part / "images", pictures)
        written(tmp_path / part / "masks", {n: one[..., 0] // 200 for n, one in pictures.items()})
    title = "1 of 2 images of val show ground of images of train"
    audits = {"overlap": run_audit(open_source(SourceConfig(path=str(tmp_path))))}
    train, valid = (open_source(SourceConfig(path=str(tmp_path / part))) for part in parts)
    audits["across"] = run_audit(train, valid)
    for key, audit in audits.items():
        (found,) = [one for one in audit.findings if one.key.startswith(("leakage", "copies"))]
        assert (found.key, found.count) == (f"leakage.{key}", 1)
    assert found.title == "1 of 2 images of the other set show ground of images of this set"
    for part in parts:
        shutil.copytree(tmp_path / part, tmp_path / "flat", dirs_exist_ok=True)
    file = tmp_path / "split.json"
    file.write_text('{"val": ["b", "c"], "train": ["a"]}', encoding="utf-8")
    data = SourceConfig(path=str(tmp_path / "flat"))
    by_file = {one.key: one for one in run_inspect(data, split=file).findings}["leakage.overlap"]
    by_folder = {one.key: one for one in audits["overlap"].findings}["leakage.overlap"]
    assert by_file.title == by_folder.title == title
    assert (by_file.ids, by_folder.ids) == (("b", "a"), ("valid/b", "train/a"))
    split = run_split(data, tmp_path / "made.json", SplitOptions(val=0.4, test=0.3))
    (note,) = [one for one in split.notes if "so scores will be too high" in one]
    assert note.endswith("Divide with --by group, or by block if they are georeferenced.")
    # Of too many images it is said that they were not compared.
    monkeypatch.setattr("rooftrace.audit.overlaps._MOST_IMAGES", 2)
    unknown = {one.key: one for one in run_inspect(data, split=file).findings}
    assert "not looked for: 3 images" in unknown["leakage.overlap_unknown"].title


def test_a_split_keeps_overlapping_images_in_one_part(tmp_path: Path) -> None:
    town = np.moveaxis(generate_scene(3, (384, 640)).image, 0, -1)
    pictures = {f"t{n}": tile for n, tile in enumerate(tiles())}
    pictures |= {"a": town[:256, :256], "b": np.rot90(town[90:346, 130:386])}
    written(tmp_path / "data", pictures)
    data = SourceConfig(path=str(tmp_path / "data"))
    for seed in range(3):
        split = run_split(data, tmp_path / "s.json", SplitOptions(val=0.3, test=0.3, seed=seed))
        assert split.part_of["a"] == split.part_of["b"]
        assert split.copies == 1
        assert not any("show ground" in note for note in split.notes)
