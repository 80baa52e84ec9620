"""`rooftrace split`: divide a set into parts once, and write down how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError
from rooftrace.data.blocks import Ground
from rooftrace.data.config import SourceConfig
from rooftrace.data.duplicates import confirm, groups, hash_of, near_duplicates
from rooftrace.data.glance import Glance, glances
from rooftrace.data.kinds import open_source
from rooftrace.data.source import Progress, SceneSet
from rooftrace.data.split import (
    PARTS,
    Split,
    SplitBy,
    group_by_pattern,
    make_split,
    mean_by_part,
    write_split,
)

__all__ = ["run_split"]

_BLOCKS_A_PART = 2
"""The smallest part gets so many blocks or more, where the ground has room for them."""

_MUCH_DROPPED = 0.25
_MOST_GAP_M = 50_000.0


def run_split(
    data: SourceConfig,
    out: Path,
    *,
    val: float,
    test: float,
    by: SplitBy = "image",
    group_pattern: str | None = None,
    block_m: float | None = None,
    gap_m: float | None = None,
    stratify: bool = True,
    duplicates: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Split:
    """Write the ids of each part to `out`.

    Args:
        data: what is divided: its labelled images; if it has none, all.
        val, test: shares of the images.
        by: what stays together: images alone, their groups, or what lies in one block of ground.
        group_pattern: a regular expression whose first bracket is the group in an id; default the
            folder that the image lies in.
        block_m: side of the blocks, in metres; default so that each part has a few.
        gap_m: what lies nearer than that to another part is left out; default half of the side of
            an image. With 0 parts share no ground, but may have an edge in common.
        stratify: whether parts get like shares of built-up ground; all labels are read for it.
        duplicates: whether near-duplicates stay in one part; all images are read for it.
        progress: called with the scenes that were read and that there are.

    Raises:
        LayoutError, DataError, ConfigError, ExportError: see `open_source` and `make_split`.
        GeoreferenceError: the split is by block, and an image lies nowhere on the ground.
    """
    _check_options(by, group_pattern, block_m, gap_m)
    source, notes = _to_divide(open_source(data), stratify)
    units = _groups(source, by, group_pattern, data.path)
    looked: list[Glance] = []
    if stratify or duplicates or by == "block":
        looked = glances(source, labels=stratify, pixels=duplicates, progress=progress)
    built_up = {one.id: one.built_up for one in looked if one.built_up is not None}
    copies = _copies(looked) if duplicates else []
    ground = None
    if by == "block":
        ground = _ground(looked, source)
        if block_m is None:
            smallest = min((share for share in (val, test) if share > 0), default=1.0)
            block_m = round(ground.block_m(_BLOCKS_A_PART / smallest), 3)
        if gap_m is None:
            gap_m = round(float(np.median(ground.side_m)) / 2, 3)
        units = ground.blocks(block_m)
    split = make_split(
        source.ids, units, val=val, test=test, by=by, seed=seed, built_up=built_up, together=copies
    )
    if ground is not None and gap_m is not None:
        split = _with_gap(split, source, ground, gap_m)
        notes.append(_on_dropped(split, len(source)))
    else:
        notes.append(_on_shared_ground(split, looked))
    split = split.model_copy(
        update={
            "block_m": block_m,
            "built_up": mean_by_part(split.parts, built_up),
            "copies": sum(len(ids) - 1 for ids in copies),
            "notes": tuple(note for note in notes if note),
        }
    )
    write_split(out, split)
    return split


def _check_options(
    by: SplitBy, group_pattern: str | None, block_m: float | None, gap_m: float | None
) -> None:
    for name, given, owner in (
        ("--group-pattern", group_pattern, "group"),
        ("--block-m", block_m, "block"),
        ("--gap-m", gap_m, "block"),
    ):
        if given is not None and by != owner:
            raise ConfigError(
                f"{name} was given, but the split is by {by}.", remedy=f"Add --by {owner}."
            )
    if block_m is not None and not 0 < block_m < np.inf:
        raise ConfigError(
            f"--block-m is {block_m}; expected metres above 0.", remedy="For example: 200"
        )
    if gap_m is not None and not 0 <= gap_m <= _MOST_GAP_M:
        raise ConfigError(
            f"--gap-m is {gap_m}; expected 0 to {_MOST_GAP_M:g} metres.", remedy="For example: 20"
        )


def _to_divide(source: SceneSet, stratify: bool) -> tuple[SceneSet, list[str]]:
    notes = list(source.notes)
    if not source.entries:
        if stratify:
            notes.append("No image has a label: the parts are not stratified by built-up share.")
        return source.only_unlabelled(), notes
    if left_out := len(source.unlabelled):
        notes.append(f"{left_out} images without a label are in no part.")
    return source, notes


def _groups(source: SceneSet, by: SplitBy, group_pattern: str | None, path: str) -> Sequence[str]:
    if by != "group":
        return source.ids
    if group_pattern is not None:
        return group_by_pattern(source.ids, group_pattern)
    found = [entry.group for entry in source.entries]
    if len(set(found)) == 1:
        raise DataError(
            f"All images of {path} are in one group: they lie in one folder.",
            remedy="Say what the groups are with --group-pattern, such as '^([a-z]+)_'.",
        )
    return found


def _copies(looked: Sequence[Glance]) -> list[list[str]]:
    """The ids of near-duplicates, those that belong together in one list."""

    def small(number: int) -> NDArray[np.float32]:
        found = looked[number].small
        assert found is not None
        return found.astype(np.float32)

    hashes = np.array([hash_of(small(n)) for n in range(len(looked))], dtype=np.uint64)
    lists: dict[int, list[str]] = {}
    for one, first in zip(looked, groups(len(looked), confirm(near_duplicates(hashes), small))):
        lists.setdefault(int(first), []).append(one.id)
    return [ids for ids in lists.values() if len(ids) > 1]


def _ground(looked: Sequence[Glance], source: SceneSet) -> Ground:
    outlines = [one.outline for one in looked if one.outline is not None]
    nowhere = [one.id for one in looked if one.outline is None]
    if nowhere:
        raise GeoreferenceError(
            f"{len(nowhere)} of the {len(source)} images of {source.name} lie nowhere on the "
            f"ground, {nowhere[0]} among them; a split by block needs a georeference.",
            remedy="Georeference them, or say with --by group --group-pattern what lies together.",
        )
    return Ground.of(outlines)


def _with_gap(split: Split, source: SceneSet, ground: Ground, gap_m: float) -> Split:
    """Without what lies too near to another part: training gives way to validation and test."""
    part_of = split.part_of
    where = [part_of[scene_id] for scene_id in source.ids]
    train, val, test = (np.array([part == name for part in where]) for name in PARTS)
    val &= ~ground.near(val, test, gap_m)
    train &= ~ground.near(train, val | test, gap_m)
    kept = {name: _chosen(source.ids, part) for name, part in zip(PARTS, (train, val, test))}
    for part, ids in kept.items():
        if split.parts[part] and not ids:
            raise DataError(
                f"Nothing is left of the part {part!r}: all its images lie nearer than {gap_m:g} m "
                "to another part.",
                remedy="Choose larger blocks with --block-m, or a smaller gap with --gap-m.",
            )
    dropped = _chosen(source.ids, ~(train | val | test))
    return split.model_copy(update={"parts": kept, "dropped": dropped, "gap_m": gap_m})


def _chosen(ids: Sequence[str], keep: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(sorted(ids[index] for index in np.flatnonzero(keep).tolist()))


def _on_dropped(split: Split, count: int) -> str:
    if len(split.dropped) <= _MUCH_DROPPED * count:
        return ""
    return (
        f"{len(split.dropped)} of {count} images lie nearer than {split.gap_m:g} m to another part "
        "and are in none. Larger blocks (--block-m) or a smaller gap (--gap-m) lose fewer."
    )


def _on_shared_ground(split: Split, looked: Sequence[Glance]) -> str:
    """What a split that does not look at the ground lets through."""
    placed = [(one.id, one.outline) for one in looked if one.outline is not None]
    if not placed:
        return ""
    ground = Ground.of([outline for _, outline in placed])
    part_of = split.part_of
    shared = held_out = 0
    for name in ("val", "test"):
        part = np.array([part_of[scene_id] == name for scene_id, _ in placed])
        held_out += int(part.sum())
        shared += int(ground.near(part, ~part, 0.0).sum())
    if not shared:
        return ""
    return (
        f"{shared} of {held_out} validation and test images show ground that another part shows "
        "too, so scores will be too good. Divide with --by block."
    )
