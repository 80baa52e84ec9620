"""Records that are added to, a few at a time."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from rooftrace.vector.prepare import GrowingRecords, Records


def some(rng: np.random.Generator, count: int) -> Records:
    numbers = rng.integers(0, 2**40, (4, count))
    return Records(
        numbers[0], rng.integers(0, 3, count).astype(np.uint8),
        rng.random(count).astype(np.float32), rng.random(count) < 0.5, rng.random(count),
        rng.random((count, 4)).astype(np.float32), *numbers[1:],
    )  # fmt: skip


def test_all_are_there_in_the_order_they_came() -> None:
    rng = np.random.default_rng(0)
    parts = [some(rng, count) for count in (3, 0, 4094, 1, 20_000, 7)]
    kept = GrowingRecords()
    assert len(kept.whole()) == 0
    for number, part in enumerate(parts, start=1):
        kept.append(part)
        assert len(kept) == sum(map(len, parts[:number]))
    whole = kept.whole()
    for one in fields(Records):
        expected = np.concatenate([getattr(part, one.name) for part in parts])
        found = getattr(whole, one.name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_what_was_given_may_go() -> None:
    rng = np.random.default_rng(1)
    part = some(rng, 5)
    kept = GrowingRecords()
    kept.append(part)
    before = part.first.copy()
    part.first[:] = 0
    np.testing.assert_array_equal(kept.whole().first, before)
