"""Ground that images of several parts of the data show: one rule for `inspect` and `split`.

Where all images are georeferenced, their outlines decide. Otherwise the images themselves are
compared, also rotated or mirrored; all are taken to have one scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from rooftrace.audit.facts import MOST_IDS, Finding
from rooftrace.audit.keypoints import (
    NO_KEYPOINTS,
    Keypoints,
    detect_keypoints,
    match_scenes,
    thin_keypoints,
)
from rooftrace.core.errors import RooftraceError
from rooftrace.core.text import list_first
from rooftrace.core.types import Ints
from rooftrace.labels.scene_extents import Lonlat, SceneExtents, outline_of
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries

_KEYPOINTS, _PER_IMAGE = 50_000, 25
"""Number of keypoints that are kept, and the least mean number of an image: of 40 pairs of real
tiles that share half of a tile, 35 are found with 25, 27 with 10, and 38 with all. 100,000 are
compared in 16 s."""

_MOST_IMAGES = 10_000
"""Maximum number of images that are compared; the time grows with its square."""


@dataclass(frozen=True)
class SharedGround:
    """Images that show ground of images of an earlier part.

    Args:
        text: Their number in each part, such as `1 of 2 images of val show ground of images of
            train`.
        pairs: Ids of an image of the later part and of one of the earlier, the most similar first.
        tested: Names of the later parts.
        count: Number of the images of later parts.
        is_by_place: Whether the georeference decided.
    """

    text: str
    pairs: tuple[tuple[str, str], ...]
    tested: str
    count: int
    is_by_place: bool

    def finding(self, key: str) -> Finding:
        """Return the finding, whose ids are those of the pairs."""
        way = "block" if self.is_by_place else "group, or --by block if they are georeferenced"
        return Finding(
            key,
            "warning",
            self.text,
            f"They overlap, or are copies. The scores on {self.tested} are too good. Examples: "
            f"{list_first([' and '.join(pair) for pair in self.pairs], 3)}.",
            f"Leave them out of {self.tested}, or divide the images by place: rooftrace split "
            f"--by {way}.",
            tuple(name for pair in self.pairs[: MOST_IDS // 2] for name in pair),
            self.count,
        )


_Match = Callable[[Ints, Ints], list[tuple[float, int, int]]]


def overlap_findings(
    key: str, parts: Mapping[str, SceneSet], copies: Sequence[tuple[str, str]] = (), known: int = 0
) -> list[Finding]:
    """Return the finding about images that show ground of images of an earlier part, if any.

    Args:
        key: Name of the finding.
        parts: Images by the name of their part, from the first, which is trained on, to the last.
        copies: Ids of pairs of near-duplicates, which count, too.
        known: Number of such images that another finding names.
    """
    starts = np.cumsum([0, *map(len, parts.values())]).tolist()
    members = {part: np.arange(*ends) for part, ends in zip(parts, pairwise(starts))}
    ground = Ground.of([*parts.values()])
    shared = ground.shared(members, copies)
    if shared is not None and shared.count > known:
        return [shared.finding(key)]
    if ground.is_compared:
        return []
    return [
        Finding(
            f"{key}_unknown", "note",
            f"Overlaps of {' and '.join(parts)} were not looked for: {len(ground.ids):,} images",
            f"Images without a georeference are compared up to {_MOST_IMAGES:,}.",
            "If they were cut from larger images, keep those of one in one part: rooftrace split "
            "--by group",
        )
    ]  # fmt: skip


@dataclass(frozen=True)
class Ground:
    """The ground that images show, for any division of them into parts.

    Args:
        ids: Ids of all images.
        match: Function (numbers of some images, numbers of others) that returns pairs with the same
            ground, each after its unlikeness.
        is_by_place: Whether the georeference decides.
        is_compared: Whether pairs were looked for.
    """

    ids: tuple[str, ...]
    match: _Match
    is_by_place: bool
    is_compared: bool = True

    @classmethod
    def of(cls, sources: Sequence[SceneSet], *, compare_images: bool = True) -> Ground:
        """Look at the images of all sets.

        Args:
            compare_images: Whether images are read where not all are georeferenced; otherwise no
                pairs are found then.
        """
        ids = tuple(scene_id for source in sources for scene_id in source.ids)
        outlines = [one for source in sources for one in map_entries(source, _outline)]
        known = [one for one in outlines if one is not None]
        is_by_place = len(known) == len(ids) > 0
        if is_by_place:
            return cls(ids, _by_place(known), is_by_place)
        compared = compare_images and len(ids) <= _MOST_IMAGES
        return cls(ids, _by_image(sources if compared else ()), is_by_place, compared)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the numbers of all pairs of images with the same ground."""
        every = np.arange(len(self.ids))
        return [(one, other) for _, one, other in self.match(every, every) if one < other]

    def shared(
        self, members: Mapping[str, Ints], copies: Sequence[tuple[str, str]] = ()
    ) -> SharedGround | None:
        """Return what `overlap_findings` looks for, by the numbers of the images of parts."""
        number = {scene_id: n for n, scene_id in enumerate(self.ids)}
        either = [(number.get(one, -1), number.get(other, -1)) for one, other in copies]
        either += [(other, one) for one, other in either]
        clauses, pairs = [], []
        leaked: dict[str, set[int]] = {}
        for earlier, later in combinations(members, 2):
            found = self.match(members[later], members[earlier])
            known = {(one, other) for _, one, other in found}
            ours, theirs = set(members[later].tolist()), set(members[earlier].tolist())
            found += [
                (0.0, one, other)
                for one, other in either
                if one in ours and other in theirs and (one, other) not in known
            ]
            if found:
                shown = {number for _, number, _ in found}
                of = f"{len(shown)} of {len(members[later])} images of {later}"
                clauses.append(f"{of} show ground of images of {earlier}")
                leaked.setdefault(later, set()).update(shown)
                pairs += found
        if not pairs:
            return None
        return SharedGround(
            "; ".join(clauses),
            tuple((self.ids[one], self.ids[other]) for _, one, other in sorted(pairs)),
            " and ".join(part for part in members if part in leaked),
            sum(map(len, leaked.values())),
            self.is_by_place,
        )


def _by_place(outlines: Sequence[Lonlat]) -> _Match:
    extents = SceneExtents.of(outlines)

    def match(first: Ints, second: Ints) -> list[tuple[float, int, int]]:
        numbers = np.arange(len(outlines))
        nearest = extents.nearest(np.isin(numbers, first), np.isin(numbers, second), 0.0)
        return [(0.0, one, int(nearest[one])) for one in first.tolist() if nearest[one] >= 0]

    return match


def _by_image(sources: Iterable[SceneSet]) -> _Match:
    detected = [one for source in sources for one in map_entries(source, _detect)]
    scenes, _ = thin_keypoints(detected, max(_KEYPOINTS, _PER_IMAGE * len(detected)))

    def match(first: Ints, second: Ints) -> list[tuple[float, int, int]]:
        if not scenes:
            return []
        found = match_scenes([scenes[n] for n in first], [scenes[n] for n in second])
        return [(-one.share, int(first[one.first]), int(second[one.second])) for one in found]

    return match


def _outline(source: SceneSet, entry: SceneEntry) -> Lonlat | None:
    try:
        return outline_of(source.open_scene(entry).image.grid)
    except RooftraceError:
        return None


def _detect(source: SceneSet, entry: SceneEntry) -> Keypoints:
    try:
        return detect_keypoints(source.open_scene(entry), None)
    except RooftraceError:
        # Another finding names the image that cannot be read.
        return NO_KEYPOINTS
