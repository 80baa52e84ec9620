"""Every image is in one part, groups stay whole, and the same seed gives the same parts."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.labels.split import (
    GROUP_EXAMPLE,
    SceneParts,
    SplitBy,
    group_by_pattern,
    make_split,
    match_reference,
    mean_by_part,
    own_split,
    read_split,
)

IDS = st.sets(st.text(min_size=1, max_size=6), min_size=3, max_size=60).map(sorted)
SHARES = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45))


@given(IDS, SHARES, st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_disjoint_complete_and_independent_of_order(ids, shares, seed, rng) -> None:  # type: ignore[no-untyped-def]
    val, test = shares
    split = make_split(ids, ids, val=val, test=test, seed=seed)
    together = [i for part in split.parts.values() for i in part]
    assert sorted(together) == ids
    assert list(split.parts) == ["train", "val", "test"]
    assert split.parts["train"]
    for name, share in (("val", val), ("test", test)):
        count = len(split.parts[name])
        assert (count == 0) == (share == 0)
        # As near as whole images can be; each part gets at least one, and so does training.
        least = count == 1 or len(split.parts["train"]) == 1
        assert abs(count - share * len(ids)) <= 0.5 + 1e-9 or least
    shuffled = list(ids)
    rng.shuffle(shuffled)
    assert make_split(shuffled, shuffled, val=val, test=test, seed=seed) == split


@given(
    st.lists(st.integers(0, 6), min_size=12, max_size=80).filter(lambda g: len(set(g)) >= 3),
    SHARES,
    st.integers(0, 1000),
)
def test_groups_never_straddle(numbers: list[int], shares: tuple[float, float], seed: int) -> None:
    ids = [f"i{n:03d}" for n in range(len(numbers))]
    groups = [f"g{n}" for n in numbers]
    val, test = shares
    split = make_split(ids, groups, val=val, test=test, by="group", seed=seed)
    group_of = dict(zip(ids, groups))
    found = [{group_of[i] for i in part} for part in split.parts.values()]
    assert sum(len(part) for part in found) == len(set(groups))
    assert sum(len(part) for part in split.parts.values()) == len(ids)
    in_train, in_val, in_test = found
    assert in_train
    assert (not in_val, not in_test) == (val == 0, test == 0)
    have, quota = len(split.parts["val"]), val * len(ids)
    if len(in_val) > 1 and len(in_train) > 1:
        for group in in_train:
            assert abs(have + groups.count(group) - quota) >= abs(have - quota)


def test_too_few_for_the_parts() -> None:
    with pytest.raises(DataError, match="The data has 2 images, too few for 3 parts"):
        make_split(["a", "b"], ["", ""], val=0.1, test=0.1)
    with pytest.raises(DataError, match="The data has 2 groups, too few for 3 parts"):
        make_split(list("abcd"), list("xxyy"), val=0.1, test=0.1, by="group")
    with pytest.raises(DataError, match=r"2 images \(3 before near-duplicates were merged\)"):
        make_split(list("abc"), list("abc"), val=0.1, test=0.1, together=[["a", "b"]])
    # A part with the share 0 needs no scene.
    split = make_split(["a", "b"], ["", ""], val=0.1, test=0.0)
    assert [len(split.parts[p]) for p in ("train", "val", "test")] == [1, 1, 0]


def shares_of(seed: int, count: int) -> dict[str, float]:
    """Return shares of a set in which half of the images are empty, as is common."""
    rng = np.random.default_rng(seed)
    shares = np.where(rng.random(count) < 0.5, 0, rng.beta(1, 4, count))
    return {f"{n:04d}": float(share) for n, share in enumerate(shares)}


@pytest.mark.parametrize(("count", "at_most"), [(40, 0.9), (200, 0.5), (1000, 0.4)])
def test_stratified_parts_are_alike(count: int, at_most: float) -> None:
    """Return the largest difference of two parts, averaged over draws, relative to chance."""

    def spread(seed: int, stratify: bool) -> float:
        built_up = shares_of(seed, count)
        ids = list(built_up)
        split = make_split(
            ids, ids, val=0.1, test=0.1, seed=seed, built_up=built_up if stratify else None
        )
        means = mean_by_part(split.parts, built_up).values()
        return max(means) - min(means)

    by_chance, stratified = (
        np.mean([spread(seed, stratify) for seed in range(40)]) for stratify in (False, True)
    )
    assert stratified < at_most * by_chance


@given(
    st.lists(st.sets(st.integers(0, 29), min_size=2, max_size=4), max_size=4),
    st.sampled_from(["image", "group"]),
    st.integers(0, 99),
)
def test_what_belongs_together_stays_together(
    copies: list[set[int]], by: SplitBy, seed: int
) -> None:
    ids = [f"{n:02d}" for n in range(30)]
    groups = [f"g{n // 2}" for n in range(30)]
    together = [sorted(ids[n] for n in some) for some in copies]
    split = make_split(ids, groups, val=0.2, test=0.2, by=by, seed=seed, together=together)
    assert sorted(i for part in split.parts.values() for i in part) == ids
    assert all(split.parts.values())
    part_of = split.part_of
    if by == "group":
        together += [[ids[n], ids[n + 1]] for n in range(0, 30, 2)]
    for some in together:
        assert len({part_of[i] for i in some}) == 1


def test_groups_by_pattern() -> None:
    assert group_by_pattern(["oslo_1", "bergen_2"], "^([a-z]+)_") == ["oslo", "bergen"]
    assert group_by_pattern(["a/oslo_1", "b/oslo_2"], "^(.)/") == ["a", "b"]
    assert group_by_pattern(["train/austin1", "train/tyrol2"], "([a-z]+)") == ["austin", "tyrol"]
    named = group_by_pattern(["train/austin1", "Train/santa-rosa_001"], GROUP_EXAMPLE.strip("'"))
    assert named == ["austin", "santa-rosa"]
    with pytest.raises(DataError, match="finds no group in the name '7'"):
        group_by_pattern(["oslo_1", "7"], "^([a-z]+)_")
    with pytest.raises(DataError, match="finds no group in the name 'x'"):
        group_by_pattern(["x"], "^(a)?")
    with pytest.raises(ConfigError, match="is not a regular expression"):
        group_by_pattern(["a"], "([a-z]")
    with pytest.raises(ConfigError, match="has no parentheses"):
        group_by_pattern(["a"], "[a-z]")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a split file"),
        ("[]", "it has no names under 'parts'"),
        ('{"vall": ["a"]}', "it has the keys 'vall'"),
        ('{"val": [154]}', "parts.val.0: it should be a text (received 154)"),
        ('{"val": "val.txt"}', "parts.val: it should be a valid list"),
        ('{"val": ["a"], "valid": ["b"]}', "'valid' is the second list for the part 'val'"),
        ('{"parts": {}, "sead": 1}', "is not a split file"),
        ('{"schema_version": 3, "parts": {}}', "is not a split file"),
        ('{"parts": {"train": ["a", "b"], "val": ["b"]}}', "'b' is in the parts 'train' and 'val'"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_split(path)
    assert message in caught.value.message
    assert "valid tuple" not in str(caught.value)
    assert str(path) in caught.value.message


def _matched(raw: object, scenes: Iterable[str]) -> SceneParts:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "s.json")
        path.write_text(json.dumps(raw))
        return read_split(path).match(scenes, path=Path("s.json"), data="tiles")


SCENES = ("img_1", "img_2", "img_3", "img_4")


@pytest.mark.parametrize(
    "raw",
    [
        ["img_2"], {"val": ["img_2"]}, {"valid": ["img_2.png"]}, {"Validation": ["img_2.TIF"]},
        ["images/img_2.jpg"], ["C:\\data\\img_2.png"], ["./img_2"], ["/home/me/d/img_2.png"],
        {"val": ["img_2"], "seed": 3, "note": "by hand", "train": ["img_1", "img_3", "img_4"]},
        {"parts": {"val": ["img_2"]}}, {"val": ["img_2", "img_2.png"]},
    ],
)  # fmt: skip
def test_lists_of_other_tools_are_splits(raw: object) -> None:
    parts = _matched(raw, SCENES)
    assert parts.ids("val") == parts.ids("validation") == ("img_2",)
    assert parts.ids("train") == ("img_1", "img_3", "img_4")
    assert parts.notes("val") == []


def test_scenes_in_no_list_are_no_training_scenes_if_there_is_a_list_train() -> None:
    parts = _matched({"training": ["img_1"], "testing": ["img_2"]}, SCENES)
    assert (parts.ids("train"), parts.ids("test")) == (("img_1",), ("img_2",))
    parts = _matched({"val": ["img_1"], "dropped": ["img_2.png"]}, SCENES)
    assert parts.ids("train") == ("img_3", "img_4")


def test_a_name_without_folders_stands_for_the_only_scene_of_this_name() -> None:
    scenes = ("a/img_1", "b/img_1", "b/img_2")
    parts = _matched({"val": ["img_2", "b/img_1.png"]}, scenes)
    assert parts.ids("val") == ("b/img_2", "b/img_1")
    assert parts.ids("train") == ("a/img_1",)
    with pytest.raises(DataError, match=r"'img_1\.png' \('a/img_1', 'b/img_1'\)"):
        _matched(["img_1.png"], scenes)
    # Another folder is another scene.
    assert _matched({"val": ["c/img_2"]}, scenes).unmatched["val"] == ("c/img_2",)
    # A scene that is named by its id belongs to no other name.
    parts = _matched({"train": ["img_1"], "val": ["sub/img_1"]}, ("sub/img_1",))
    assert (parts.ids("val"), parts.unmatched["train"]) == (("sub/img_1",), ("img_1",))


def test_names_of_no_scene_are_listed() -> None:
    parts = _matched({"val": ["img_1", "imgg_2", "zzz"]}, SCENES)
    assert parts.ids("val") == ("img_1",)
    [note] = parts.notes("val")
    assert "2 ids of the part 'val' not in tiles" in note
    assert note.endswith("ignored: 'imgg_2', 'zzz'.")
    with pytest.raises(DataError, match=r"None of the ids in the part 'val'.*'img_1', 'img_2'"):
        _matched(["kampala"], SCENES).ids("val")


@pytest.mark.parametrize(
    ("ids", "parts"),
    [
        (["train/a", "valid/b", "test/c"], {"train": ("train/a",), "val": ("valid/b",),
                                            "test": ("test/c",)}),
        (["x/Train2017/a", "x/Val2017/b"], {"train": ("x/Train2017/a",), "val": ("x/Val2017/b",)}),
        (["instances_Train/a", "HoldOut/b"], {"train": ("instances_Train/a",),
                                              "test": ("HoldOut/b",)}),
        (["train/a", "train/b"], None),
        (["valid/a", "test/b"], None),
        (["train/a", "tier3/b", "hold/c"], {"train": ("train/a", "tier3/b"), "test": ("hold/c",)}),
        (["train-00000-of-00002/0", "train-00001-of-00002/0", "test-00000-of-00001-5e/0"],
         {"train": ("train-00000-of-00002/0", "train-00001-of-00002/0"),
          "test": ("test-00000-of-00001-5e/0",)}),
        (["east/a", "test/b"], None),
        (["train", "valid"], None),
    ],
)  # fmt: skip
def test_folders_train_and_valid_are_parts(
    ids: list[str], parts: dict[str, tuple[str, ...]] | None
) -> None:
    own = own_split(ids)
    assert (own and own.parts) == parts


def test_a_part_of_the_data_itself_needs_no_file() -> None:
    ids = ("train/a", "valid/b")
    for text in ("valid", "val"):
        parts, part = match_reference(text, ids)
        assert parts.ids(part) == ("valid/b",)
    with pytest.raises(ConfigError, match="of the data itself, but tiles has 1 train, 1 val"):
        match_reference("test", ids, "tiles")
    with pytest.raises(ConfigError, match="but tiles has no folders train, valid and test"):
        match_reference("test", ("a", "b"), "tiles")
    with pytest.raises(ConfigError, match="expected FILE:PART, or a part of the data's own"):
        match_reference("west", ids)
