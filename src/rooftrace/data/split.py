"""Which scenes are for training, which for validation and which for the one final test."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from rooftrace.core.config import Config
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.io.atomic import write_atomically

__all__ = [
    "PARTS",
    "Split",
    "SplitBy",
    "group_by_pattern",
    "make_split",
    "mean_by_part",
    "parse_reference",
    "read_split",
    "write_split",
]

PARTS = ("train", "val", "test")

SplitBy = Literal["image", "group", "block"]

_GOLDEN = (math.sqrt(5) - 1) / 2
_NEIGHBOURS = 4


class Split(Config):
    """Ids by part. Every id is in one part alone.

    Args:
        schema_version: 1 has no more than `by`, `seed` and `parts`.
        by: what was kept together.
        seed: of the draw.
        parts: ids by part.
        dropped: ids that are in no part, since they lie too near to another part.
        block_m: side of the blocks, in metres.
        gap_m: least distance between two parts, in metres.
        built_up: mean share of the building class over the images of each part.
        copies: how many images are near-duplicates of another; they are in the part of that one.
        notes: what a person should know of it.
    """

    schema_version: Literal[1, 2] = 2
    by: SplitBy = "image"
    seed: int = 0
    parts: dict[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()
    block_m: float | None = None
    gap_m: float | None = None
    built_up: dict[str, float] = Field(default_factory=dict)
    copies: int = 0
    notes: tuple[str, ...] = ()

    def ids(self, part: str, *, source: str) -> tuple[str, ...]:
        """The ids of one part; ConfigError where there is no such part."""
        if part not in self.parts:
            raise ConfigError(
                f"{source} has no part {part!r}; it has {', '.join(self.parts)}.",
                remedy=f"Write {source}:PART with one of these.",
            )
        return self.parts[part]

    @property
    def part_of(self) -> dict[str, str]:
        """The part of each id."""
        return {scene_id: part for part, ids in self.parts.items() for scene_id in ids}


def make_split(
    ids: Sequence[str],
    groups: Sequence[str],
    *,
    val: float,
    test: float,
    by: SplitBy = "image",
    seed: int = 0,
    built_up: Mapping[str, float] | None = None,
    together: Sequence[Sequence[str]] = (),
) -> Split:
    """Divide scenes at random, whole units at a time: images, or groups of them.

    Each part is as near to its share as whole units, taken in a random order, bring it; it gets at
    least one. The order of `ids` does not matter: the same ids and seed give the same split on any
    machine.

    Args:
        ids: unique names of scenes.
        groups: the group, or block, of each, in the same order; not looked at with `by="image"`.
        val, test: shares of the scenes, each in 0..1, in sum below 1.
        built_up: share of the building class in each scene that is known, in 0..1. With it each
            part gets its share of the empty, the sparse and the dense.
        together: ids that stay in one part, besides; their units are merged.

    Raises:
        ConfigError: shares out of range.
        DataError: too few scenes, or groups, for each part that was asked for to get one.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError(
            f"The shares val = {val} and test = {test} leave nothing to train on, or are negative.",
            remedy="Give shares between 0 and 1 whose sum is below 1, such as 0.05 and 0.05.",
        )
    unit_of = dict(zip(ids, ids if by == "image" else groups))
    if len(unit_of) != len(ids):
        raise DataError("An id occurs twice in the data.", remedy="Rename one of the two.")
    members = _units(unit_of, together)
    asked = [(part, share) for part, share in (("test", test), ("val", val)) if share > 0]
    if len(members) < len(asked) + 1:
        raise _too_few(len(members), len(set(unit_of.values())), len(asked) + 1, by)
    units = _in_order(members, built_up, seed)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for number, (part, share) in enumerate(asked):
        quota = share * len(ids)
        left_for_others = len(asked) - number  # a unit for each part after this, and for training
        left: list[str] = []
        for position, unit in enumerate(units):
            have, gain = len(parts[part]), len(members[unit])
            enough = len(left) + len(units) - position > left_for_others
            if enough and abs(have + gain - quota) < abs(have - quota):
                parts[part] += members[unit]
            else:
                left.append(unit)
        units = left
        if not parts[part]:
            smallest = min(units, key=lambda unit: len(members[unit]))
            parts[part] += members[smallest]
            units.remove(smallest)
    parts["train"] = [scene_id for unit in units for scene_id in members[unit]]
    ordered = {part: tuple(sorted(parts[part])) for part in PARTS}
    return Split(by=by, seed=seed, parts=ordered)


def mean_by_part(
    parts: Mapping[str, Sequence[str]], built_up: Mapping[str, float]
) -> dict[str, float]:
    """Mean built-up share of each part, of its scenes for which it is known."""
    means = {part: _mean(ids, built_up) for part, ids in parts.items()}
    return {part: round(mean, 6) for part, mean in means.items() if mean is not None}


def _units(unit_of: Mapping[str, str], together: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Ids by unit, both sorted; a merged unit has the first of its names."""
    name = {unit: unit for unit in unit_of.values()}

    def root(unit: str) -> str:
        while name[unit] != unit:
            name[unit] = name[name[unit]]
            unit = name[unit]
        return unit

    for ids in together:
        for other in ids[1:]:
            first, later = sorted((root(unit_of[ids[0]]), root(unit_of[other])))
            name[later] = first
    members: dict[str, list[str]] = {}
    for scene_id in sorted(unit_of):
        members.setdefault(root(unit_of[scene_id]), []).append(scene_id)
    return members


def _in_order(
    members: Mapping[str, Sequence[str]], built_up: Mapping[str, float] | None, seed: int
) -> list[str]:
    """Units at random; where shares are known, so that any run of the list has all of them.

    Sorted by share, each unit gets its rank times the golden ratio, modulo 1: a sequence of which
    every interval takes ranks at even distances (L. Kuipers and H. Niederreiter, Uniform
    Distribution of Sequences, 1974, chapter 2). Its start is drawn, and so is the order of
    neighbours in rank, without which a few units would have few ways to be divided.
    """
    rng = np.random.default_rng(seed)
    units = list(members)
    rng.shuffle(units)
    if not built_up:
        return units
    means = {unit: _mean(members[unit], built_up) for unit in units}
    units.sort(key=lambda unit: (means[unit] is None, means[unit] or 0.0))
    for start in range(0, len(units), _NEIGHBOURS):
        some = units[start : start + _NEIGHBOURS]
        rng.shuffle(some)
        units[start : start + _NEIGHBOURS] = some
    places = (rng.random() + _GOLDEN * np.arange(len(units))) % 1
    return [units[rank] for rank in np.argsort(places, kind="stable")]


def _mean(ids: Sequence[str], built_up: Mapping[str, float]) -> float | None:
    known = [built_up[scene_id] for scene_id in ids if scene_id in built_up]
    return math.fsum(known) / len(known) if known else None


def _too_few(count: int, before: int, parts: int, by: SplitBy) -> DataError:
    remedies = {
        "image": "Add images, or leave a part out with a share of 0.",
        "group": "Divide by image, or name groups with --group-pattern.",
        "block": "Choose smaller blocks with --block-m, or leave a part out with a share of 0.",
    }
    merged = f" ({before} before near-duplicates were put together)" if before > count else ""
    return DataError(
        f"There are {count} {by}s{merged}, too few for {parts} parts.", remedy=remedies[by]
    )


def group_by_pattern(ids: Sequence[str], pattern: str) -> list[str]:
    """What the first bracket of a regular expression finds in each id.

    Raises:
        ConfigError: not a regular expression with a bracket.
        DataError: an id in which it finds nothing.
    """
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"The group pattern {pattern!r} is not a regular expression: {error}.",
            remedy="For example: --group-pattern '^([a-z]+)_'",
        ) from error
    if rule.groups < 1:
        raise ConfigError(
            f"The group pattern {pattern!r} has no brackets.",
            remedy="Put brackets around the part of the name that is the group: '^([a-z]+)_'",
        )
    found = [rule.search(scene_id) for scene_id in ids]
    for scene_id, match in zip(ids, found):
        if match is None or match.group(1) is None:
            raise DataError(
                f"The group pattern {pattern!r} finds nothing in the name {scene_id!r}.",
                remedy="Make the pattern fit every name.",
            )
    return [match.group(1) for match in found if match is not None]


def write_split(path: Path, split: Split) -> None:
    """As JSON; whole or not at all. Raises ExportError where the folder cannot be written to."""
    write_atomically(path, (split.model_dump_json(indent=1) + "\n").encode())


def read_split(path: Path) -> Split:
    """Raises ConfigError where it is not a file of `rooftrace split`, or an id is in two parts."""
    try:
        split = Split.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a split file: {error}.",
            remedy="Make one with: rooftrace split DATA -o split.json",
        ) from error
    seen: dict[str, str] = {}
    for part, ids in (*split.parts.items(), ("dropped", split.dropped)):
        for scene_id in ids:
            if seen.setdefault(scene_id, part) != part:
                raise ConfigError(
                    f"{path}: {scene_id!r} is in the parts {seen[scene_id]!r} and {part!r}.",
                    remedy="An image may be in one part alone; make the split again.",
                )
    return split


def parse_reference(text: str) -> tuple[Path, str]:
    """`split.json:test` to the file and the part. Raises ConfigError without a part."""
    path, colon, part = text.rpartition(":")
    if not colon or not path or not part:
        raise ConfigError(
            f"--split received {text!r}; expected FILE:PART.", remedy="For example: split.json:test"
        )
    return Path(path), part
