"""Divide scenes into training, validation and test parts, and read and write split files.

Scenes can be divided by image, by group, or by place: `labels.scene_extents` cuts the ground into
square blocks.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rooftrace.core.arrays import components
from rooftrace.core.config import Config, Options, parse_config
from rooftrace.core.errors import ConfigError, DataError, SplitError
from rooftrace.core.text import list_first, plural, reason_of
from rooftrace.io.files import write_atomically

PARTS = ("train", "val", "test")

SplitBy = Literal["image", "group", "block"]

_SYNONYMS = {
    **{part: part for part in PARTS},
    "training": "train", "valid": "val", "validation": "val", "testing": "test",
    "holdout": "test", "hold": "test",
}  # fmt: skip
"""Part by the names that people and tools give it, of folders, files and lists."""

_FOLDER = re.compile(r"(?:instances_)?(.+?)(?:\d*|-\d+-of-\d+.*)", re.IGNORECASE)
"""Name of a folder or a file of one part; tools add the year, COCO what the file holds, and Hugging
Face its number: `train2017`, `instances_train2017`, `train-00000-of-00002`."""

_DROPPED = "dropped"
"""Key of the scenes that are in no part."""

_EXTENSION = re.compile(r"\.(png|jpe?g|tiff?|jp2|webp|bmp|gif|vrt|npy|json)$", re.IGNORECASE)

_GOLDEN = (math.sqrt(5) - 1) / 2

_NEIGHBOURS = 4
"""Number of units with neighbouring built-up shares that are shuffled among themselves."""


class SplitOptions(Options):
    """How scenes are divided; see also the descriptions.

    Args:
        gap_m: With 0, parts share no ground, but may touch.
        duplicates: All images are read for this.
        stratify: All labels are read for this.
    """

    options_of = "a split"

    val: Annotated[
        float | None,
        Field(description="Share of images for validation; default: 0.05, or 0.2 of fewer than 200 "
              "images."),
    ] = None  # fmt: skip
    test: Annotated[
        float | None, Field(description="Share of images for the final test; default: as --val.")
    ] = None
    fold: Annotated[
        str | None,
        Field(description="Fold of a cross-validation that is the test part: 1/5 … 5/5."),
    ] = None
    seed: Annotated[int, Field(ge=0, description="Seed of the random division.")] = 0
    by: Annotated[
        SplitBy, Field(description="Keep together: image, group, or block (one place).")
    ] = "image"
    group_pattern: Annotated[
        str | None,
        Field(description="Regular expression; its first group is the group in an id. Default: the "
              "folder of the image."),
    ] = None  # fmt: skip
    block_m: Annotated[
        float | None,
        Field(gt=0, description="Side of blocks in metres; default: a few blocks for each part."),
    ] = None
    gap_m: Annotated[
        float | None,
        Field(ge=0, le=50_000,
              description="Minimum distance of parts in metres; default: half an image, or 0 if "
              "this leaves out a quarter of the images."),
    ] = None  # fmt: skip
    duplicates: Annotated[
        bool, Field(description="Keep near-duplicates and overlaps in one part.")
    ] = True
    stratify: Annotated[bool, Field(description="Give parts similar built-up shares.")] = True

    @model_validator(mode="after")
    def _fitting(self) -> SplitOptions:
        for name, owner in (("group_pattern", "group"), ("block_m", "block"), ("gap_m", "block")):
            if getattr(self, name) is not None and self.by != owner:
                raise ConfigError(
                    f"--{name.replace('_', '-')} was given, but the split is by {self.by}.",
                    remedy=f"Add --by {owner}.",
                )
        if self.fold is not None:
            number, folds = self.fold_of
            if self.test is not None or folds < 2 or not 1 <= number <= folds:
                also = "" if self.test is None else ", and --test was given"
                raise ConfigError(
                    f"--fold received {self.fold!r}{also}; expected a fold and their number, and "
                    "no other test part.",
                    remedy="For example: --fold 1/5, and so on up to --fold 5/5, with one seed.",
                )
        return self

    @property
    def fold_of(self) -> tuple[int, int]:
        """Number of the fold, from 1, and of all folds; zeros for another text."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.fold or "")
        return (int(found[1]), int(found[2])) if found else (0, 0)


class Split(Config):
    """Scene ids by part. Every id is in one part only.

    Args:
        schema_version: Version of the file; version 1 has only `by`, `seed` and `parts`.
        by: Unit that was kept together.
        seed: Seed of the random division.
        fold: Fold of a cross-validation that is the test part, such as `1/5`.
        parts: Scene ids by part.
        dropped: Scene ids that are in no part: too close to another part, or left alone.
        block_m: Side of the blocks in metres.
        gap_m: Minimum distance between two parts in metres.
        built_up: Mean share of the building class over the images of each part.
        copies: Number of images that are near-duplicates of another image in the same part, or
            overlap one.
        notes: Facts that the user should know.
    """

    schema_version: Literal[1, 2] = 2
    by: SplitBy = "image"
    seed: int = 0
    fold: str | None = None
    parts: dict[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()
    block_m: float | None = None
    gap_m: float | None = None
    built_up: dict[str, float] = Field(default_factory=dict)
    copies: int = 0
    notes: tuple[str, ...] = ()

    @property
    def part_of(self) -> dict[str, str]:
        """Part of each scene id."""
        return {scene_id: part for part, ids in self.parts.items() for scene_id in ids}

    @property
    def counts(self) -> str:
        """Number of images of each part, as text: `30 train, 10 val`."""
        return ", ".join(f"{len(ids)} {part}" for part, ids in self.parts.items())

    def own_note(self, data: str, use: str) -> str:
        """Return the note that data have these parts of their own, and how they are used.

        Args:
            data: Name of the data.
            use: Clause of the use; `{last}` in it is the name of the last part.
        """
        use = use.format(last=next(reversed(self.parts)))
        return f"{data} has parts of its own ({self.counts}): {use}"

    def without_test(self) -> tuple[Split, str]:
        """Return the parts that a training may use, and a clause if `test` is left alone."""
        if "test" not in self.parts:
            return self, ""
        parts = {part: ids for part, ids in self.parts.items() if part != "test"}
        left = self.model_copy(update={"parts": parts, "dropped": self.parts["test"]})
        return left, ", and test is left alone"

    def match(self, scenes: Iterable[str], *, path: Path, data: str = "the data") -> SceneParts:
        """Return the scenes of data by part. If no part is named `train`, all scenes that are in
        no part are its scenes.

        A name stands for the scene with this id. Otherwise the extension of an image, and leading
        folders of either the name or the id, are ignored.

        Args:
            scenes: Ids of all scenes of the data.
            path: Location of the split file, for messages.
            data: Location of the data, for messages.

        Raises:
            DataError: A name stands for several scenes, or a scene is in two parts.
        """
        known = tuple(dict.fromkeys(scenes))
        listed = [*self.parts.items(), (_DROPPED, self.dropped)]
        exact = {name for _, names in listed for name in names} & set(known)
        index = _NameIndex(known, exact)
        part_of: dict[str, tuple[str, str]] = {}
        chosen: list[tuple[str, ...]] = []
        unmatched: dict[str, tuple[str, ...]] = {}
        ambiguous: dict[str, list[str]] = {}
        for part, names in listed:
            found = {name: [name] if name in exact else index.find(name) for name in names}
            unmatched[part] = tuple(name for name, scene in found.items() if not scene)
            ambiguous |= {name: scene for name, scene in found.items() if len(scene) > 1}
            single = {name: scene[0] for name, scene in found.items() if len(scene) == 1}
            chosen.append(tuple(dict.fromkeys(single.values())))
            for name, scene in single.items():
                other, first = part_of.setdefault(scene, (part, name))
                if other != part:
                    raise DataError(
                        f"{path}: {first!r} of the part {other!r} and {name!r} of the part "
                        f"{part!r} both stand for the scene {scene!r} of {data}.",
                        remedy="Write the ids of the scenes, with their folders.",
                    )
        if ambiguous:
            shown = [f"{name!r} ({_some(found)})" for name, found in ambiguous.items()]
            raise DataError(
                f"{path}: {plural(len(ambiguous), 'name')} may stand for several scenes of {data}: "
                f"{list_first(shown)}.",
                remedy="Write the ids of the scenes, with their folders.",
            )
        parts, dropped = dict(zip(self.parts, chosen)), chosen[-1]
        if parts and "train" not in parts:
            parts["train"] = tuple(scene for scene in known if scene not in part_of)
        return SceneParts(path, data, known, parts, unmatched, dropped)


@dataclass(frozen=True)
class SceneParts:
    """The scenes of data by part, as a split file divides them.

    Args:
        path: Location of the split file, for messages.
        data: Location of the data, for messages.
        scenes: Ids of all scenes.
        parts: Ids of the scenes of each part.
        unmatched: Names of each part that stand for no scene.
        dropped: Ids of the scenes that the file names as in no part.
    """

    path: Path
    data: str
    scenes: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    unmatched: dict[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()

    def ids(self, part: str) -> tuple[str, ...]:
        """Return the ids of the scenes of one part."""
        part = _part_name(part)
        if part not in self.parts:
            raise ConfigError(
                f"{self.path} has no part {part!r}; it has {', '.join(self.parts) or 'none'}.",
                remedy=f"Add the list {part!r} to the file, or write {self.path}:PART with one of "
                "these.",
            )
        if not self.parts[part] and (names := self.unmatched.get(part)):
            raise DataError(
                f"None of the ids in the part {part!r} of {self.path} is a scene of {self.data}, "
                f"whose scenes are {_some(self.scenes)}. Its ids are {_some(names)}.",
                remedy="Name the scenes by their ids, or make the split from this data: rooftrace "
                "split DATA -o split.json",
            )
        return self.parts[part]

    def notes(self, part: str) -> list[str]:
        """Return a note on the names of one part that stand for no scene, if there are any."""
        names = self.unmatched.get(_part_name(part), ())
        if not names:
            return []
        listed = plural(len(names), "id")
        note = f"{self.path}: {listed} of the part {part!r} not in {self.data}, ignored: "
        return [f"{note}{_some(names)}."]


def _some(names: Sequence[str]) -> str:
    return list_first([repr(name) for name in names])


class _NameIndex:
    """Scene ids by the names that people write for them.

    Of the ids `listed` as they are in a split file, names with other folders are not theirs.
    """

    def __init__(self, scenes: Iterable[str], listed: Collection[str]) -> None:
        self._listed = frozenset(listed)
        self._by_file: dict[str, list[tuple[str, str]]] = {}
        for scene in scenes:
            plain = _plain(scene)
            self._by_file.setdefault(plain.rpartition("/")[2], []).append((plain, scene))

    def find(self, name: str) -> list[str]:
        """Return the scenes that a name may stand for."""
        wanted = _plain(name)
        rivals = self._by_file.get(wanted.rpartition("/")[2], [])
        equal = [scene for plain, scene in rivals if plain == wanted]
        rivals = [rival for rival in rivals if rival[1] not in self._listed]
        longer = [scene for plain, scene in rivals if plain.endswith(f"/{wanted}")]
        shorter = [rival for rival in rivals if wanted.endswith(f"/{rival[0]}")]
        longest = max((len(plain) for plain, _ in shorter), default=0)
        return equal or longer or [scene for plain, scene in shorter if len(plain) == longest]


def _plain(name: str) -> str:
    """Return a name in normal form, without the extension of an image."""
    plain = unicodedata.normalize("NFC", name).replace("\\", "/").strip().strip("/")
    return _EXTENSION.sub("", plain.removeprefix("./"))


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
    fold: tuple[int, int] | None = None,
) -> Split:
    """Divide scenes at random, keeping units whole: images, or groups of images.

    Each part is as close to its share as whole units in a random order allow, and has at least one
    unit. The order of `ids` does not matter: the same ids and seed give the same split on any
    machine.

    Args:
        ids: Unique scene ids.
        groups: Group or block of each scene, in the same order; not used if `by` is `image`.
        val, test: Shares of the scenes, each in 0..1, with a sum below 1.
        by: Unit that is kept together.
        seed: Seed of the random division.
        built_up: Share of the building class, 0..1, by id of the scenes for which it is known. If
            given, each part gets a similar mix of empty, sparse and dense scenes.
        together: Lists of ids that stay in one part in addition; their units are merged.
        fold: Number, from 1, of the fold that is the test part, and of all folds. The folds of one
            seed are disjoint, hold all scenes, and have similar sizes.

    Raises:
        ConfigError: The shares are out of range.
        SplitError: There are too few scenes or groups for each part to get one.
        DataError: An id occurs twice.
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
    least = len(asked) + 1 if fold is None else max(fold[1], len(asked) + 2)
    if len(members) < least:
        raise _too_few(len(members), len(set(unit_of.values())), least, by)
    units = _in_order(members, built_up, seed)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    if fold is not None:
        chosen = _folds(units, members, fold[1])[fold[0] - 1]
        parts["test"] = [scene_id for unit in chosen for scene_id in members[unit]]
        units = [unit for unit in units if unit not in chosen]
    for number, (part, share) in enumerate(asked):
        quota = share * len(ids)
        left_for_others = len(asked) - number  # one unit for each later part, and one for training
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


def _folds(
    units: Sequence[str], members: Mapping[str, Sequence[str]], count: int
) -> list[list[str]]:
    """Divide units into folds: the largest first, each into the fold with the fewest scenes."""
    folds: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for unit in sorted(units, key=lambda unit: -len(members[unit])):
        smallest = sizes.index(min(sizes))
        folds[smallest].append(unit)
        sizes[smallest] += len(members[unit])
    return folds


def mean_by_part(
    parts: Mapping[str, Sequence[str]], built_up: Mapping[str, float]
) -> dict[str, float]:
    """Return the mean built-up share of each part, over the scenes for which it is known."""
    means = {part: _mean(ids, built_up) for part, ids in parts.items()}
    return {part: round(mean, 6) for part, mean in means.items() if mean is not None}


def _units(unit_of: Mapping[str, str], together: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Return sorted ids by unit; a merged unit has the first of its names."""
    names = sorted(set(unit_of.values()))
    number = {name: index for index, name in enumerate(names)}
    one = [number[unit_of[ids[0]]] for ids in together for _ in ids]
    other = [number[unit_of[scene_id]] for ids in together for scene_id in ids]
    first = components(len(names), np.array(one, int), np.array(other, int)).tolist()
    members: dict[str, list[str]] = {}
    for scene_id in sorted(unit_of):
        members.setdefault(names[first[number[unit_of[scene_id]]]], []).append(scene_id)
    return members


def _in_order(
    members: Mapping[str, Sequence[str]], built_up: Mapping[str, float] | None, seed: int
) -> list[str]:
    """Return units in random order; if shares are known, any section of the list has a mix of them.

    Units are sorted by share, and each gets its rank times the golden ratio, modulo 1. Every
    interval of this sequence contains ranks at even distances (L. Kuipers and H. Niederreiter,
    Uniform Distribution of Sequences, 1974, chapter 2). The start of the sequence and the order of
    neighbours in rank are random; otherwise a few units could be divided in few ways only.
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


def _too_few(count: int, before: int, parts: int, by: SplitBy) -> SplitError:
    remedies = {
        "image": "Add images, or leave a part out with a share of 0.",
        "group": "Divide by image, or define groups with --group-pattern.",
        "block": "Choose smaller blocks with --block-m, or leave a part out with a share of 0.",
    }
    merged = f" ({before} before near-duplicates were merged)" if before > count else ""
    return SplitError(
        f"The data has {plural(count, by)}{merged}, too few for {parts} parts.", remedy=remedies[by]
    )


GROUP_EXAMPLE = "'^([A-Za-z-]+)[_0-9]'"
"""Pattern of names such as austin1 and santa-rosa_001, as a shell reads it."""


def group_by_pattern(ids: Sequence[str], pattern: str) -> list[str]:
    """Return the match of a regular expression's first group in each id.

    If it does not match all of them, or they would be one group, in the names after their folders.
    """
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"The group pattern {pattern!r} is not a regular expression: {error}.",
            remedy=f"For example: --group-pattern {GROUP_EXAMPLE}",
        ) from error
    if rule.groups < 1:
        raise ConfigError(
            f"The group pattern {pattern!r} has no parentheses.",
            remedy=f"Put parentheses around the part that is the group: {GROUP_EXAMPLE}",
        )
    ways = [
        [match[1] if (match := rule.search(name)) else None for name in names]
        for names in (ids, [scene_id.rpartition("/")[2] for scene_id in ids])
    ]
    complete = [way for way in ways if None not in way]
    groups = next((way for way in complete if len({*way}) > 1), [*complete, ways[1]][0])
    for scene_id, group in zip(ids, groups):
        if group is None:
            raise DataError(
                f"The group pattern {pattern!r} finds no group in the name {scene_id!r}.",
                remedy="Write a pattern that matches every name.",
            )
    return [group for group in groups if group is not None]


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON, atomically; raise ExportError if the folder is not writable."""
    write_atomically(path, (split.model_dump_json(indent=1) + "\n").encode())


def read_split(path: Path) -> Split:
    """Read a split file: one of `write_split`, or lists of names as other tools write them.

    Lists are `{"train": [...], "val": [...], "test": [...]}` with any of these keys, or one list,
    which is the part `val`. See docs/data.md.

    Raises:
        ConfigError: The file is invalid, or an id is in two parts.
    """
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise ConfigError(
            f"{path} is not a split file: {reason}.",
            remedy="Make one with: rooftrace split DATA -o split.json",
        ) from error
    remedy = 'Write lists of image names: {"train": [...], "val": [...], "test": [...]}'
    source = f"{path} is not a split file"
    split = parse_config(_with_parts(raw, source, remedy), Split, source=source, remedy=remedy)
    seen: dict[str, str] = {}
    for part, ids in (*split.parts.items(), (_DROPPED, split.dropped)):
        for scene_id in ids:
            if seen.setdefault(scene_id, part) != part:
                raise ConfigError(
                    f"{path}: {scene_id!r} is in the parts {seen[scene_id]!r} and {part!r}.",
                    remedy="Each image may be in one part only; make the split again.",
                )
    return split


def _with_parts(raw: Any, source: str, remedy: str) -> dict[str, Any]:
    """Return the content of a split file with the lists of names below `parts`."""
    if isinstance(raw, list):
        raw = {"val": raw}
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: it is {str(raw)[:40]!r}.", remedy=remedy)
    rest = {key: value for key, value in raw.items() if key != "parts"}
    lists = raw.get("parts")
    if lists is None:
        # Other tools write remarks and settings beside the lists. A list of another name is a part,
        # too: its scenes must not become training scenes.
        lists = {
            key: value for key, value in raw.items()
            if _part_name(key) in PARTS or (key not in Split.model_fields and _is_names(value))
        }  # fmt: skip
        rest = {key: value for key, value in rest.items() if key == _DROPPED}
        if not any(lists.values()) or not any(_part_name(key) in PARTS for key in lists):
            raise ConfigError(
                f"{source}: it has no names under 'parts', or under one of "
                f"{', '.join(map(repr, PARTS))}; it has the keys {list_first([*map(repr, raw)])}.",
                remedy=remedy,
            )
    if not isinstance(lists, dict):
        return {"parts": lists}
    parts: dict[str, Any] = {}
    for key, names in lists.items():
        if _part_name(key) in parts:
            raise ConfigError(
                f"{source}: {key!r} is the second list for the part {_part_name(key)!r}.",
                remedy="Make one list of both.",
            )
        parts[_part_name(key)] = names
    return {**rest, "parts": parts}


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _part_name(name: str) -> str:
    """Return the usual name of a part: `val` for `validation`, for example."""
    return _SYNONYMS.get(name.strip().lower(), name)


def part_of_folder(name: str) -> str | None:
    """Return the part that a folder holds by its name, in any case; None for other folders."""
    match = _FOLDER.fullmatch(name)
    return _SYNONYMS.get(match[1].lower()) if match else None


def own_split(scenes: Iterable[str]) -> Split | None:
    """Return the parts of data in folders named train, valid and test, as tools export them.

    Scenes in other folders, such as xBD's `tier3`, are training, as in split files.

    Returns:
        None unless there are folders of `train` and of another part.
    """
    parts: dict[str, list[str]] = {}
    named: set[str | None] = set()
    for scene_id in scenes:
        folders = map(part_of_folder, scene_id.split("/")[:-1])
        part = next(filter(None, folders), None)
        named.add(part)
        parts.setdefault(part or "train", []).append(scene_id)
    if "train" not in named or len(parts) == 1:
        return None
    return Split(by="group", parts={part: tuple(parts[part]) for part in PARTS if part in parts})


def written_places(scenes: Sequence[str], part: str | None = None) -> dict[str, tuple[str, str]]:
    """Return for each scene the part into whose folder it is written, and its id there.

    Args:
        scenes: Ids of the scenes.
        part: Part of all of them; default the data's own, see `own_split`; the part is "" without.
    """
    own = own_split(scenes)
    part_of = {} if own is None else own.part_of
    places = {}
    for scene_id in scenes:
        here = part or part_of.get(scene_id, "")
        *folders, name = scene_id.split("/")
        kept = [folder for folder in folders if not here or part_of_folder(folder) != here]
        places[scene_id] = here, "/".join((*kept, name))
    if len({*places.values()}) < len(places):
        # Names are unique only in the files of one part, such as those of Hugging Face.
        places = {scene_id: (here, scene_id) for scene_id, (here, _) in places.items()}
    return places


def match_reference(
    text: str, scenes: Sequence[str], data: str = "the data"
) -> tuple[SceneParts, str]:
    """Return the scenes of data by part, and the part that a reference names.

    Args:
        text: `FILE:PART` of a split file, or `PART` of the data's own, see `own_split`.
        scenes: Ids of all scenes of the data.
        data: Location of the data, for messages.
    """
    path, part = parse_reference(text)
    if path is not None:
        return read_split(path).match(scenes, path=path, data=data), part
    own = own_split(scenes)
    if own is None or part not in own.parts:
        found = "has no folders train, valid and test" if own is None else f"has {own.counts}"
        raise ConfigError(
            f"--split received {text!r}, a part of the data itself, but {data} {found}.",
            remedy="Make a split file: rooftrace split DATA -o split.json, and use "
            f"--split split.json:{part}",
        )
    return own.match(scenes, path=Path(data), data=data), part


def parse_reference(text: str) -> tuple[Path | None, str]:
    """Parse `split.json:test` to the file and the part, and `test` to None and the part."""
    if (own := _part_name(text)) in PARTS:
        return None, own
    path, colon, part = text.rpartition(":")
    # The colon of C:\split.json is that of a drive.
    if not (colon and path and part) or {"/", "\\"} & set(part):
        raise ConfigError(
            f"--split received {text!r}; expected FILE:PART, or a part of the data's own: "
            "train, val or test.",
            remedy="For example: split.json:test",
        )
    return Path(path), part
