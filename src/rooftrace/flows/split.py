"""Implement `rooftrace split`: divide a set into parts and write the split file."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.duplicates import confirm, hash_of, near_duplicates, strips_of, thumbnail_of
from rooftrace.audit.overlaps import Ground
from rooftrace.core.arrays import components
from rooftrace.core.errors import SplitError
from rooftrace.core.text import plural
from rooftrace.core.types import LabelReader, Progress
from rooftrace.io.files import check_outputs
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.labels.scene_extents import Lonlat, SceneExtents, outline_of
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.labels.split import (
    GROUP_EXAMPLE,
    PARTS,
    Split,
    SplitBy,
    SplitOptions,
    group_by_pattern,
    make_split,
    mean_by_part,
    own_split,
    write_split,
)

_AUGMENTED = re.compile(r"\.rf\.\w+$")
"""What Roboflow adds to the name of an image for each of its augmentations."""

_BLOCKS_A_PART = 2
"""Minimum number of blocks in the smallest part, if the ground has room for them."""

_MUCH_DROPPED = 0.25
"""Share of dropped images above which a note is written, and a gap that was not given is 0."""

_SMALL_SHARE, _SHARE = 0.2, 0.05
"""Default share of the validation and of the test part, of small sets and of others."""

_LEAST_IN_PART = 10
"""Images in a part below which its figures say little: a small set is one whose parts of `_SHARE`
have fewer."""


def run_split(
    data: SourceConfig,
    out: Path,
    options: SplitOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Split:
    """Write the ids of each part to `out`.

    Args:
        data: Data to divide: its labelled images, or all images if none is labelled.
        out: Split file to write.

    Raises:
        LayoutError, DataError, ConfigError, ExportError: See `open_source` and `make_split`.
        SplitError: Parts cannot be made, such as blocks of images without a georeference.
    """
    options = options or SplitOptions()
    opened = open_source(data)
    check_outputs([out], [*data.paths, *opened.files])
    count = len(opened) or len(opened.unlabelled)
    share = _SMALL_SHARE if _SHARE * count < _LEAST_IN_PART else _SHARE
    names = ("val", "test") if options.fold is None else ("val",)
    shares = {name: getattr(options, name) for name in names}
    shares = {name: share if one is None else one for name, one in shares.items()}
    split = divide_scenes(opened, options.model_copy(update=shares), progress)
    notes = [*split.notes]
    own = own_split(opened.ids or opened.all_ids)
    if own is not None:
        use = (
            "this split divides all images, whatever their part. finetune without --split uses "
            "those parts, and --split {last} takes one."
        )
        notes.append(own.own_note(opened.name, use))
    counts = {name: len(ids) for name, ids in split.parts.items() if ids}
    small = [f"{name} has {plural(n, 'image')}" for name, n in counts.items() if n < _LEAST_IN_PART]
    if small:
        notes.append(
            f"{', '.join(small)}: figures from fewer than {_LEAST_IN_PART} say little. Label more; "
            "to fine-tune, leave the split out: rooftrace finetune compares few images by "
            "cross-validation."
        )
    split = split.model_copy(update={"notes": tuple(notes)})
    write_split(out, split)
    return split


def divide_scenes(
    opened: SceneSet, options: SplitOptions, progress: Progress | None = None
) -> Split:
    """Divide the scenes of an opened set; see `run_split`. Shares that are None are 0."""
    by, block_m, gap_m = options.by, options.block_m, options.gap_m
    stratify, duplicates = options.stratify, options.duplicates
    val, test = options.val or 0.0, options.test or 0.0
    fold = None if options.fold is None else options.fold_of
    source, notes = _to_divide(opened, stratify)
    units = _groups(source, by, options.group_pattern)
    outlines: Sequence[Lonlat | None] = ()
    built_up: dict[str, float] = {}
    copies: list[list[str]] = []
    thumbnails: Sequence[NDArray[np.float16]] = ()
    if stratify or duplicates or by == "block":
        summarize = partial(_summarize, labels=stratify, pixels=duplicates)
        outlines, shares, thumbnails = zip(*map_entries(source, summarize, progress=progress))
        built_up = {name: one for name, one in zip(source.ids, shares) if one is not None}
    extents = None
    if by == "block":
        extents = _extents(outlines, source)
        if block_m is None:
            fold_share = 0.0 if fold is None else 1 / fold[1]
            smallest = min((share for share in (val, test, fold_share) if share > 0), default=1.0)
            block_m = round(extents.suggest_block_m(_BLOCKS_A_PART / smallest), 3)
        units = extents.blocks(block_m)
    ground = None if extents is not None else Ground.of([source], compare_images=duplicates)
    if duplicates:
        overlaps = [] if ground is None or ground.is_by_place else ground.pairs()
        smallest = min((share for share in (val, test) if share > 0), default=1.0)
        copies = _kept_together(source.ids, thumbnails, overlaps, smallest * len(source))
    split = make_split(
        source.ids, units, val=val, test=test, by=by, seed=options.seed, built_up=built_up,
        together=copies, fold=fold,
    )  # fmt: skip
    if extents is not None:
        split, note = _apart(split, source, extents, gap_m)
        notes.append(note)
    if ground is not None:
        notes.append(_shared_ground_note(split, ground))
    return split.model_copy(
        update={
            "block_m": block_m,
            "fold": options.fold,
            "built_up": mean_by_part(split.parts, built_up),
            "copies": sum(len(ids) - 1 for ids in copies),
            "notes": tuple(note for note in notes if note),
        }
    )


def _summarize(
    source: SceneSet, entry: SceneEntry, *, labels: bool, pixels: bool
) -> tuple[Lonlat | None, float | None, NDArray[np.float16] | None]:
    """Return the outline on the ground, the built-up share and the thumbnail of a scene.

    The outline is None without a georeference, the others where `labels` or `pixels` is False.
    """
    scene = source.open_scene(entry)
    share = None
    if labels and scene.label is not None:
        share = built_up_of(scene.label, scene.image.grid.shape, source.building_class)
    small = thumbnail_of(scene.image).astype(np.float16) if pixels else None
    return outline_of(scene.image.grid), share, small


def built_up_of(label: LabelReader, shape: tuple[int, int], building_class: int) -> float | None:
    """Return the share of the building class among known label pixels; None without any."""
    built = known = 0
    for window in strips_of(shape):
        mask = label.read(window)
        known += int(mask.valid.sum())
        built += int(((mask.data == building_class) & mask.valid).sum())
    return built / known if known else None


def _to_divide(source: SceneSet, stratify: bool) -> tuple[SceneSet, list[str]]:
    notes = list(source.notes)
    if not source.entries:
        if stratify:
            notes.append("No image has a label: the parts are not stratified by built-up share.")
        return source.only_unlabelled(), notes
    if left_out := len(source.unlabelled):
        notes.append(f"In no part: {plural(left_out, 'image')} without a label.")
    return source, notes


def _groups(source: SceneSet, by: SplitBy, group_pattern: str | None) -> Sequence[str]:
    if by != "group":
        return source.ids
    if group_pattern is not None:
        return group_by_pattern(source.ids, group_pattern)
    found = [entry.group for entry in source.entries]
    if len(set(found)) == 1:
        raise SplitError(
            f"All images of {source.name} are in one group: they lie in one folder.",
            remedy=f"Define the groups with --group-pattern, such as {GROUP_EXAMPLE}.",
        )
    return found


def first_copies(thumbnails: Sequence[NDArray[np.float16]]) -> NDArray[np.intp]:
    """Return (n,) the smallest index among the near-duplicates of each of n images."""
    hashes = np.array([hash_of(one.astype(np.float32)) for one in thumbnails], dtype=np.uint64)
    pairs = confirm(near_duplicates(hashes), thumbnails)
    return components(len(thumbnails), pairs.first, pairs.second)


def _kept_together(
    ids: Sequence[str],
    thumbnails: Sequence[NDArray[np.float16]],
    overlaps: Sequence[tuple[int, int]],
    most: float,
) -> list[list[str]]:
    """Return lists of ids, each of near-duplicates of one another, or of Roboflow's augmentations
    of one image, which are alike in their names alone, or of images that overlap.

    Overlaps do not count if a list would have more than `most` images, as that of a mosaic.
    """
    named: dict[str, int] = {}
    augmented = [named.setdefault(_AUGMENTED.sub("", name), n) for n, name in enumerate(ids)]
    copies = [*enumerate(first_copies(thumbnails).tolist()), *enumerate(augmented)]
    for pairs in ([*copies, *overlaps], copies):
        lists: dict[int, list[str]] = {}
        for name, first in zip(ids, components(len(ids), *np.array(pairs).T).tolist()):
            lists.setdefault(first, []).append(name)
        if max(map(len, lists.values())) <= most:
            break
    return [some for some in lists.values() if len(some) > 1]


def _extents(outlines: Sequence[Lonlat | None], source: SceneSet) -> SceneExtents:
    known = [one for one in outlines if one is not None]
    nowhere = [name for name, one in zip(source.ids, outlines) if one is None]
    if nowhere:
        raise SplitError(
            f"{len(nowhere)} of the {len(source)} images of {source.name} have no georeference, "
            f"including {nowhere[0]}; a split by block needs one.",
            remedy="Georeference them, or define groups with --by group --group-pattern.",
        )
    return SceneExtents.of(known)


def _apart(
    split: Split, source: SceneSet, extents: SceneExtents, gap_m: float | None
) -> tuple[Split, str]:
    """Return a split without images closer than `gap_m` to another part, and a note or "".

    Where no gap was given, it is half the side of an image, or 0 if that would drop many images or
    all those of a part.
    """
    most, note = _MUCH_DROPPED * len(source), ""
    if gap_m is None:
        usual_m = round(float(np.median(extents.side_m)) / 2, 3)
        kept = _with_gap(split, source, extents, usual_m)
        if len(kept.dropped) <= most and _emptied(split, kept) is None:
            return kept, ""
        gap_m = 0.0
        note = (
            f"A gap of {usual_m:g} m would leave out more than {_MUCH_DROPPED:.0%} of the images: "
            f"parts share no ground, but touch. --gap-m {usual_m:g} keeps them apart."
        )
    kept = _with_gap(split, source, extents, gap_m)
    if (part := _emptied(split, kept)) is not None:
        raise SplitError(
            f"No image is left in the part {part!r}: all its images lie closer than {gap_m:g} m to "
            "another part.",
            remedy="Choose larger blocks with --block-m, or a smaller gap with --gap-m.",
        )
    if not note and len(kept.dropped) > most:
        note = (
            f"{len(kept.dropped)} of {len(source)} images lie closer than {gap_m:g} m to another "
            "part and are in no part. Larger blocks (--block-m) or a smaller gap (--gap-m) drop "
            "fewer."
        )
    return kept, note


def _with_gap(split: Split, source: SceneSet, extents: SceneExtents, gap_m: float) -> Split:
    """Drop images too close to another part; training yields to validation, and both to test."""
    part_of = split.part_of
    where = [part_of[scene_id] for scene_id in source.ids]
    train, val, test = (np.array([part == name for part in where]) for name in PARTS)
    val &= ~extents.near(val, test, gap_m)
    train &= ~extents.near(train, val | test, gap_m)
    kept = {name: _chosen(source.ids, part) for name, part in zip(PARTS, (train, val, test))}
    dropped = _chosen(source.ids, ~(train | val | test))
    return split.model_copy(update={"parts": kept, "dropped": dropped, "gap_m": gap_m})


def _emptied(split: Split, kept: Split) -> str | None:
    """Return the first part that has no image any more."""
    return next((part for part, ids in kept.parts.items() if split.parts[part] and not ids), None)


def _chosen(ids: Sequence[str], keep: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(sorted(ids[index] for index in np.flatnonzero(keep).tolist()))


def _shared_ground_note(split: Split, ground: Ground) -> str:
    """Return a note on ground that several parts show, in a split that is not by block."""
    number = {name: n for n, name in enumerate(ground.ids)}
    members = {part: np.array([number[i] for i in ids], int) for part, ids in split.parts.items()}
    shared = ground.shared(members)
    if shared is None:
        return ""
    way = "block" if shared.is_by_place else "group, or by block if they are georeferenced"
    return f"{shared.text}, so scores will be too high. Divide with --by {way}."
