"""Near-duplicates: what is trained on, and judged on again, inside a set or across two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.audit.facts import MOST_IDS, Finding, SceneFacts
from rooftrace.data.duplicates import MOST_BITS, Pairs, across, confirm, groups, near_duplicates
from rooftrace.data.glance import thumbnail_of
from rooftrace.data.source import SceneSet

__all__ = ["duplicate_findings"]

_SHOWN = 3
"""So many pairs are written out."""

_OTHER_LABEL = 0.1
"""Two labels differ if the share of a class differs by more."""


def duplicate_findings(
    facts_a: Sequence[SceneFacts],
    facts_b: Sequence[SceneFacts] | None = None,
    *,
    source_a: SceneSet | None = None,
    source_b: SceneSet | None = None,
) -> list[Finding]:
    """What near-duplicates there are in a set, and of its images in another.

    Args:
        facts_a: of every scene of the set.
        facts_b: of every scene of the other set.
        source_a, source_b: the sets; with them the images of each suspicion are read again and
            compared, without them the hashes decide.

    Returns:
        `copies.inside`, `copies.labels` (copies whose labels differ) and `copies.across`. Their
        ids are those of the pairs, the nearest first: inside a set both of each pair, one after
        the other; across sets those of the first.
    """
    small_a = None if source_a is None else _Reader(source_a, facts_a)
    pairs = near_duplicates(_hashes(facts_a))
    if small_a is not None:
        pairs = confirm(pairs, small_a)
    found = [_inside(pairs, facts_a), _labels(pairs, facts_a)]
    if facts_b is not None:
        pairs = across(_hashes(facts_a), _hashes(facts_b))
        if small_a is not None and source_b is not None:
            pairs = confirm(pairs, small_a, _Reader(source_b, facts_b))
        found.append(_across(pairs, facts_a, facts_b))
    return [finding for finding in found if finding is not None]


class _Reader:
    """From the number of a scene to its thumbnail, read once."""

    def __init__(self, source: SceneSet, facts: Sequence[SceneFacts]) -> None:
        entries = {entry.id: entry for entry in (*source.entries, *source.unlabelled)}

        @cache
        def read(number: int) -> NDArray[np.float32]:
            return thumbnail_of(source.open_scene(entries[facts[number].id]).image)

        self._read = read

    def __call__(self, number: int) -> NDArray[np.float32]:
        return self._read(number)


def _hashes(facts: Sequence[SceneFacts]) -> NDArray[np.uint64]:
    return np.array([one.phash for one in facts], dtype=np.uint64)


def _inside(pairs: Pairs, facts: Sequence[SceneFacts]) -> Finding | None:
    if not len(pairs):
        return None
    pairs = _nearest_first(pairs)
    member = groups(len(facts), pairs)
    copies = int((member != np.arange(len(facts))).sum())
    return Finding(
        key="copies.inside",
        severity="warning",
        title=f"{copies} of {len(facts)} images are near-duplicates of another",
        detail=f"{_how(pairs)} Where one is trained on and the other is judged on, the score is "
        f"too good. {_examples(pairs, facts, facts)}",
        remedy="Divide the set with rooftrace split, which keeps copies in one part; or remove "
        "them.",
        ids=_both(pairs, facts),
        count=copies,
    )


def _labels(pairs: Pairs, facts: Sequence[SceneFacts]) -> Finding | None:
    differ = np.array(
        [_unlike(facts[i], facts[j]) for i, j in zip(pairs.first.tolist(), pairs.second.tolist())],
        dtype=bool,
    )
    pairs = _nearest_first(pairs.only(differ))
    if not len(pairs):
        return None
    return Finding(
        key="copies.labels",
        severity="warning",
        title=f"{len(pairs)} pairs of near-duplicates have labels that differ",
        detail="The same picture is labelled in two ways: the share of a class differs by more "
        f"than {_OTHER_LABEL:.0%} of the image. {_examples(pairs, facts, facts)}",
        remedy="Look at both labels, and keep the right one.",
        ids=_both(pairs, facts),
        count=len(pairs),
    )


def _across(
    pairs: Pairs, facts_a: Sequence[SceneFacts], facts_b: Sequence[SceneFacts]
) -> Finding | None:
    if not len(pairs):
        return None
    pairs = _nearest_first(pairs)
    of_a, of_b = len(set(pairs.first.tolist())), len(set(pairs.second.tolist()))
    ids = dict.fromkeys(facts_a[i].id for i in pairs.first.tolist())
    return Finding(
        key="copies.across",
        severity="warning",
        title=f"{of_a} images have near-duplicates in the other set ({of_b} of its {len(facts_b)})",
        detail=f"{_how(pairs)} A model that was trained on one set is not judged by the other. "
        f"{_examples(pairs, facts_a, facts_b)}",
        remedy="Remove them from one of the two sets.",
        ids=tuple(ids)[:MOST_IDS],
        count=of_a,
    )


def _unlike(one: SceneFacts, other: SceneFacts) -> bool:
    if one.label is None or other.label is None:
        return False
    a, b = (np.array(label.class_px, dtype=float) for label in (one.label, other.label))
    if not a.sum() or not b.sum():
        return False
    return bool(np.abs(a / a.sum() - b / b.sum()).max() > _OTHER_LABEL)


def _nearest_first(pairs: Pairs) -> Pairs:
    return pairs.only(np.lexsort((pairs.second, pairs.first, pairs.bits)))


def _how(pairs: Pairs) -> str:
    turned = int((pairs.symmetry > 0).sum())
    return (
        f"Their perceptual hashes differ in at most {MOST_BITS} of 64 bits: the same picture, "
        "perhaps compressed anew, resized, a little shifted, lighter or darker"
        + (f"; {turned} of {len(pairs)} pairs turned or mirrored." if turned else ".")
    )


def _both(pairs: Pairs, facts: Sequence[SceneFacts]) -> tuple[str, ...]:
    numbers = np.stack([pairs.first, pairs.second], axis=1)[: MOST_IDS // 2]
    return tuple(facts[number].id for number in numbers.ravel().tolist())


def _examples(pairs: Pairs, facts_a: Sequence[SceneFacts], facts_b: Sequence[SceneFacts]) -> str:
    numbers = zip(pairs.first.tolist(), pairs.second.tolist())
    told = [f"{facts_a[i].id} and {facts_b[j].id}" for i, j in list(numbers)[:_SHOWN]]
    more = len(pairs) - len(told)
    return "Such as: " + "; ".join(told) + (f"; and {more} more." if more else ".")
