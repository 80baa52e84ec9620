"""Which scenes are for training, which for validation and which for the one final test."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from rooftrace.core.config import Config
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.io.atomic import write_atomically

__all__ = [
    "Split",
    "group_by_pattern",
    "make_split",
    "parse_reference",
    "read_split",
    "write_split",
]

PARTS = ("train", "val", "test")


class Split(Config):
    """Ids by part. Every id is in one part alone."""

    schema_version: Literal[1] = 1
    by: Literal["image", "group"] = "image"
    seed: int = 0
    parts: dict[str, tuple[str, ...]]

    def ids(self, part: str, *, source: str) -> tuple[str, ...]:
        """The ids of one part; ConfigError where there is no such part."""
        if part not in self.parts:
            raise ConfigError(
                f"{source} has no part {part!r}; it has {', '.join(self.parts)}.",
                remedy=f"Write {source}:PART with one of these.",
            )
        return self.parts[part]


def make_split(
    ids: Sequence[str],
    groups: Sequence[str],
    *,
    val: float,
    test: float,
    by: Literal["image", "group"] = "image",
    seed: int = 0,
) -> Split:
    """Divide scenes at random, whole groups at a time with `by="group"`.

    Each part is as near to its share as whole units, taken in a random order, bring it; it gets at
    least one. The order of `ids` does not matter: the same ids and seed give the same split on any
    machine.

    Args:
        ids: unique names of scenes.
        groups: the group of each, in the same order.
        val, test: shares of the scenes, each in 0..1, in sum below 1.

    Raises:
        ConfigError: shares out of range.
        DataError: too few scenes, or groups, for each part that was asked for to get one.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError(
            f"The shares val = {val} and test = {test} leave nothing to train on, or are negative.",
            remedy="Give shares between 0 and 1 whose sum is below 1, such as 0.05 and 0.05.",
        )
    unit_of = dict(zip(ids, groups if by == "group" else ids))
    if len(unit_of) != len(ids):
        raise DataError("An id occurs twice in the data.", remedy="Rename one of the two.")
    members: dict[str, list[str]] = {}
    for scene_id in sorted(unit_of):
        members.setdefault(unit_of[scene_id], []).append(scene_id)
    asked = [(part, share) for part, share in (("test", test), ("val", val)) if share > 0]
    if len(members) < len(asked) + 1:
        raise DataError(
            f"There are {len(members)} {by}s, too few for {len(asked) + 1} parts.",
            remedy="Divide by image, or name groups with --group-pattern."
            if by == "group"
            else "Add images, or leave a part out with a share of 0.",
        )
    units = list(members)
    np.random.default_rng(seed).shuffle(units)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for number, (part, share) in enumerate(asked):
        quota = share * len(ids)
        left_for_others = len(asked) - number  # a unit for each part after this, and for training
        for unit in list(units):
            have, gain = len(parts[part]), len(members[unit])
            if len(units) > left_for_others and abs(have + gain - quota) < abs(have - quota):
                parts[part] += members[unit]
                units.remove(unit)
        if not parts[part]:
            smallest = min(units, key=lambda unit: len(members[unit]))
            parts[part] += members[smallest]
            units.remove(smallest)
    parts["train"] = [scene_id for unit in units for scene_id in members[unit]]
    ordered = {part: tuple(sorted(parts[part])) for part in PARTS}
    return Split(by=by, seed=seed, parts=ordered)


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
    for part, ids in split.parts.items():
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
