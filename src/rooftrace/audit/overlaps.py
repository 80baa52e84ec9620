"""The finding that images of one part of a set show ground of images of another part."""

from collections.abc import Mapping
from itertools import combinations

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
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.labels.split import PARTS

_MOST_KEYPOINTS = 50_000
"""Maximum number of keypoints of all scenes; it limits the time of the comparison to seconds."""


def overlap_finding(source: SceneSet, part_of: Mapping[str, str]) -> Finding | None:
    """Return the finding `leakage.overlap` on scenes that share ground across parts, if any.

    The images are compared, not their georeference; all are taken to have one scale. Its ids are
    those of the pairs, the most similar first: the scene of the later part, then the other.

    Args:
        part_of: Part of each scene id.
    """
    scenes, _ = thin_keypoints(map_entries(source, _detect), _MOST_KEYPOINTS)
    members = {
        part: [n for n, entry in enumerate(source.entries) if part_of.get(entry.id) == part]
        for part in PARTS
    }
    clauses, pairs, leaked = [], [], set()
    for earlier, later in combinations(PARTS, 2):
        first, second = members[later], members[earlier]
        found = match_scenes([scenes[n] for n in first], [scenes[n] for n in second])
        shown = {first[one.first] for one in found}
        if shown:
            clauses.append(
                f"{len(shown)} of {len(first)} images of {later} show ground of images of {earlier}"
            )
        leaked |= {(later, number) for number in shown}
        pairs += [(one.share, first[one.first], second[one.second]) for one in found]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    names = [(source.entries[one].id, source.entries[other].id) for _, one, other in pairs]
    tested = " and ".join(sorted({part for part, _ in leaked}, key=PARTS.index))
    return Finding(
        "leakage.overlap",
        "warning",
        "; ".join(clauses),
        f"They overlap, or are copies. The scores on {tested} are too good. Examples: "
        f"{list_first([' and '.join(pair) for pair in names], 3)}.",
        f"Leave them out of {tested}, or divide the images by place: rooftrace split --by group, "
        "or --by block if they are georeferenced.",
        tuple(name for pair in names[: MOST_IDS // 2] for name in pair),
        len(leaked),
    )


def _detect(source: SceneSet, entry: SceneEntry) -> Keypoints:
    try:
        return detect_keypoints(source.open_scene(entry), None)
    except RooftraceError:
        # Another finding names the image that cannot be read.
        return NO_KEYPOINTS
