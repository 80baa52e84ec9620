"""Training scenes are found in evaluation data; a check without data reports nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from rooftrace.flows.evaluate import leakage
from rooftrace.flows.evaluate.leakage import check_leakage, check_leakage_of_each
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import SceneSet, map_entries
from rooftrace.models.bundle import ModelBundle, read_bundle, write_bundle
from rooftrace.models.fingerprint import fingerprint_of
from rooftrace.models.spec import BundleSpec
from town import write_pairs

GSD_M = 0.3


def at(folder: Path, **given: Any) -> SourceConfig:
    return SourceConfig(path=str(folder), **given)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` with four scenes of 384 px; `cut` a piece of the second, `b` other ground."""
    folder = tmp_path_factory.mktemp("places")
    write_pairs(folder / "a", range(40, 44), shape_yx=(384, 384), gsd_m=GSD_M)
    write_pairs(folder / "b", range(50, 52), shape_yx=(384, 384), gsd_m=GSD_M)
    name = open_source(at(folder / "a")).ids[1]
    for kind in ("images", "masks"):
        source = next((folder / "a" / kind).glob(f"{name}.*"))
        (folder / "cut" / kind).mkdir(parents=True)
        with rasterio.open(source) as file:
            window = Window(101, 77, 256, 256)
            corner = file.transform @ Affine.translation(101, 77)
            profile = file.profile | {"width": 256, "height": 256, "transform": corner}
            with rasterio.open(folder / "cut" / kind / "piece.tif", "w", **profile) as out:
                out.write(file.read(window=window))
    return folder


def bundle_of(
    train: Sequence[SceneSet] = (), data: dict[str, Any] | None = None, source: str = "memory"
) -> ModelBundle:
    spec = BundleSpec(
        name="m",
        bands=("red", "green", "blue"),
        gsd_m=GSD_M,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        classes=("background", "building"),
        training={} if data is None else {"data": data},
        fingerprint=fingerprint_of([(one.name, tuple(one)) for one in train], GSD_M)
        if train
        else None,
    )
    return ModelBundle(spec, {}, source)


@pytest.mark.campaign
def test_a_piece_of_a_training_scene_is_found(places: Path) -> None:
    train = open_source(at(places / "a"))
    seen: list[tuple[int, int]] = []
    report = check_leakage(
        bundle_of([train]), open_source(at(places / "cut")), progress=lambda *n: seen.append(n)
    )
    (pair,) = report.pairs
    assert (report.status, report.checked, report.scenes) == ("found", 1, ("piece",))
    assert (pair.scene_id, pair.train_id) == ("piece", "a, scene 2 of 4")
    assert pair.bits is not None
    assert pair.bits <= 9
    assert pair.likeness > 0.4
    assert seen == [(1, 1)]
    assert json.loads(json.dumps(report.to_json()))["scenes"] == 1
    assert "from about 43 m by 43 m" in " ".join(report.notes)


@pytest.mark.campaign
def test_other_ground_is_not_found(places: Path) -> None:
    report = check_leakage(
        bundle_of([open_source(at(places / "a"))]), open_source(at(places / "b"))
    )
    assert (report.status, report.checked, report.pairs) == ("none", 2, ())


def test_the_same_scenes_are_recognised_by_their_ids(places: Path) -> None:
    data = {"train": [{"path": str(places / "a"), "part": "[:3]"}], "val": [
        {"path": str(places / "a"), "part": "[3:]"}]}  # fmt: skip
    source = open_source(at(places / "a"))
    report = check_leakage(
        bundle_of([source.subset(source.ids[:3])], data), source, at(places / "a")
    )
    assert report.scenes == source.ids[:3]
    assert {pair.bits for pair in report.pairs} == {None}
    assert report.pairs[0].train_id == f"a/{source.ids[0]}"
    assert "threshold was chosen on 1 of these 4 scenes" in " ".join(report.notes)
    rest = source.subset(source.ids[3:])
    assert check_leakage(bundle_of([source.subset(source.ids[:3])], data), rest).status == "none"


def test_a_split_says_what_was_trained_on(places: Path, tmp_path: Path) -> None:
    source = open_source(at(places / "a"))
    a, b, c, d = source.ids
    split = {"parts": {"train": [a, b], "val": [c], "test": [d]}}
    (tmp_path / "split.json").write_text(json.dumps(split))
    data = {"train": [{"path": str(places / "a")}], "split": "split.json"}
    bundle = bundle_of([source.subset((a, b))], data)
    known = check_leakage(bundle, source, at(places / "a"), base=tmp_path)
    assert [(pair.scene_id, pair.bits) for pair in known.pairs] == [(a, None), (b, None)]
    assert "threshold was chosen on 1 of these 4" in " ".join(known.notes)
    tested = check_leakage(bundle, source.subset((d,)), at(places / "a"), base=tmp_path)
    assert (tested.status, "threshold" in " ".join(tested.notes)) == ("none", False)
    # Without the split only the fingerprint shows which scenes were trained on.
    seen = check_leakage(bundle, source, at(places / "a"))
    assert [(pair.scene_id, pair.bits) for pair in seen.pairs] == [(a, 0.0), (b, 0.0)]
    assert seen.pairs[0].train_id == "a, scene 1 of 2"


def test_names_are_those_of_the_folder_if_it_is_still_the_same(
    places: Path, tmp_path: Path
) -> None:
    shutil.copytree(places / "a", tmp_path / "a")
    bundle = bundle_of([open_source(at(places / "a"))], {"train": [{"path": "a"}]})
    cut = open_source(at(places / "cut"))
    name = open_source(at(places / "a")).ids[1]
    assert check_leakage(bundle, cut, base=tmp_path).pairs[0].train_id == f"a/{name}"
    for kind in ("images", "masks"):
        next((tmp_path / "a" / kind).glob(f"{name}.*")).unlink()
    assert check_leakage(bundle, cut, base=tmp_path).pairs[0].train_id == "a, scene 2 of 4"


def test_without_a_fingerprint_the_recorded_folders_are_read(places: Path, tmp_path: Path) -> None:
    data = {"train": [{"path": "a"}, {"path": "gone"}]}
    cut, other = open_source(at(places / "cut")), open_source(at(places / "b"))
    # config.json beside the bundle says where relative paths start.
    (tmp_path / "config.json").write_text(json.dumps({"base": str(places)}))
    bundle = bundle_of(data=data, source=str(tmp_path / "x.rooftrace"))
    report = check_leakage(bundle, cut)
    assert report.status == "found"
    assert "1 of the 2 folders" in " ".join(report.notes)
    missing = check_leakage(bundle, other)
    assert (missing.status, missing.checked, missing.pairs) == ("unknown", 2, ())
    whole = bundle_of(data={"train": [{"path": "a"}]})
    assert check_leakage(whole, other, base=places).status == "none"


def test_a_record_in_the_current_folder_is_not_that_of_a_bundled_model(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"base": str(places)}))
    monkeypatch.chdir(tmp_path)
    bundle = bundle_of(data={"train": [{"path": "a"}]}, source="accurate")
    assert check_leakage(bundle, open_source(at(places / "cut"))).status == "unknown"


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (None, "does not record what it was trained on"),
        ({"train": "of another version"}, "does not record"),
        ({"train": [{"path": "$NO_SUCH_VARIABLE/a"}]}, "none of the folders"),
        ({"train": [{"path": "a"}]}, "none of the folders"),
    ],
)
def test_what_cannot_be_known_is_not_said(
    places: Path, data: dict[str, Any] | None, reported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of that name here is not the one that was meant elsewhere.
    monkeypatch.chdir(places)
    report = check_leakage(bundle_of(data=data), open_source(at(places / "a")), at(places / "a"))
    assert (report.status, report.checked, report.pairs) == ("unknown", 0, ())
    assert reported in " ".join(report.notes)


def test_of_an_ensemble_each_member_counts(places: Path) -> None:
    cut = open_source(at(places / "cut"))
    one, other = (bundle_of([open_source(at(places / name))]) for name in "ab")
    other = replace(other, spec=other.spec.model_copy(update={"name": "second"}))
    report = check_leakage([other, one], cut)
    assert report.status == "found"
    assert [pair.train_id for pair in report.pairs] == ["m: a, scene 2 of 4"]
    assert check_leakage([other, bundle_of()], cut).status == "unknown"
    assert check_leakage([other], cut).status == "none"


def test_of_several_models_each_has_a_report_of_its_own(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ensemble's members are checked; those of one scale share one pass over the scenes."""
    one = bundle_of([open_source(at(places / "a"))])
    other = bundle_of([open_source(at(places / "b"))])
    team = replace(bundle_of(), members=(one, other))
    source = open_source(at(places / "a"))
    expected = [check_leakage(b, source) for b in (one, other, [one, other])]
    looks: list[str] = []

    def counted(source: SceneSet, *given: Any, **more: Any) -> Any:
        looks.append(source.name)
        return map_entries(source, *given, **more)

    monkeypatch.setattr(leakage, "map_entries", counted)
    assert list(check_leakage_of_each([one, other, team], source)) == expected
    assert [report.status for report in expected] == ["found", "none", "found"]
    assert len(looks) == 1


def test_scenes_that_show_nothing_are_not_vouched_for(places: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "dull", range(60, 61), shape_yx=(256, 256), gsd_m=GSD_M)
    (path,) = (tmp_path / "dull" / "images").iterdir()
    with rasterio.open(path, "r+") as file:
        file.write(np.full((3, 256, 256), 70, np.uint8))
    report = check_leakage(
        bundle_of([open_source(at(places / "a"))]), open_source(at(tmp_path / "dull"))
    )
    assert (report.status, report.checked) == ("unknown", 0)
    assert "1 of the 1 scenes are too small, or show too little" in " ".join(report.notes)


def test_training_takes_it(tiny_run: Any, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_run.bundle)
    split = json.loads((tiny_run.folder / "split.json").read_text())["parts"]
    kept = bundle.spec.fingerprint
    assert kept is not None
    assert [one.scenes for one in kept.sets] == [len(split["train"])]
    source = open_source(at(tiny_run.data))
    # By sight, as of a file that was handed on.
    write_bundle(tmp_path / "given.rooftrace", bundle.spec, bundle.parts)
    report = check_leakage(read_bundle(tmp_path / "given.rooftrace"), source)
    assert sorted(report.scenes) == sorted(split["train"])
    # By the record of the run.
    known = check_leakage(bundle, source, at(tiny_run.data))
    assert sorted(known.scenes) == sorted(split["train"])
    assert f"chosen on {len(split['val'])} of these 6" in " ".join(known.notes)
