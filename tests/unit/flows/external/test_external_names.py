"""Predictions are matched to scenes by their names, and missing ones are reported."""

from pathlib import Path

import pytest

from rooftrace.core.errors import LayoutError
from rooftrace.flows.evaluate.prediction_names import match_scene_names, names_of_images
from rooftrace.labels.source import SceneEntry


@pytest.mark.parametrize(
    ("scene", "prediction"),
    [
        ("a", "a"), ("a", "a.png"), ("a.png", "a"), ("town/a", "town/a"),
        ("town/a", "town__a_mask"), ("town/a", "a"), ("a", "a_pred_mask"), ("a", "pred_a"),
        ("a_gt", "a-Prediction"), ("23_15", "23_15_buildings"),
    ],
)  # fmt: skip
def test_what_belongs_together(scene: str, prediction: str) -> None:
    matched = match_scene_names(["other", scene], ["other", prediction], "files")
    assert matched.number == {"other": 0, scene: 1}
    assert (matched.missing, matched.surplus) == ((), ())


@pytest.mark.parametrize(("scene", "prediction"), [("a", "b"), ("a1", "a"), ("mask", "pred")])
def test_what_does_not(scene: str, prediction: str) -> None:
    matched = match_scene_names([scene], [prediction], "files")
    assert (matched.missing, matched.surplus) == ((scene,), (prediction,))


def test_the_name_of_the_image_counts_after_that_of_the_scene() -> None:
    entries = [SceneEntry(f"train/{n}", Path(f"{n}_pre_disaster.png")) for n in "ab"]
    entries += [SceneEntry(f"scene_{row}", Path("scene.tif")) for row in (0, 1)]
    images = names_of_images(entries)
    names = ["b_pre_disaster_mask", "a", "scene_mask"]
    matched = match_scene_names([one.id for one in entries], names, "files", images)
    assert matched.number == {"train/b": 0, "train/a": 1}
    assert matched.surplus == ("scene_mask",)


def test_what_is_missing_on_either_side_is_listed() -> None:
    matched = match_scene_names([f"s{n}" for n in range(8)], ["s7", "t1", "t2"], "predicted/")
    with pytest.raises(LayoutError) as raised:
        matched.check("predicted/", is_selection=False)
    assert "7 of 8 labelled scenes have no prediction: s0, s1, s2, s3, s4, …" in str(raised.value)
    assert "2 of 3 predictions belong to no labelled scene: t1, t2" in str(raised.value)
    assert raised.value.remedy.endswith("with --part, --glob or --split")
    surplus = match_scene_names(["a"], ["a", "b"], "predicted/")
    with pytest.raises(LayoutError) as raised:
        surplus.check("predicted/", is_selection=False)
    assert raised.value.remedy.endswith('or ignore other predictions: --part "[:]"')
    surplus.check("predicted/", is_selection=True)


def test_doubt_is_an_error() -> None:
    names = ["p/pred/a", "q/masks/a"]
    assert match_scene_names(["q/a", "p/a"], names, "files").number == {"p/a": 0, "q/a": 1}
    with pytest.raises(LayoutError, match="may belong to 2 scenes: p/a, q/a"):
        match_scene_names(["p/a", "q/a"], ["a"], "files")
    with pytest.raises(LayoutError, match="'a' and 'a_mask' both belong to the scene 'a'"):
        match_scene_names(["a"], ["a", "a_mask"], "files")
