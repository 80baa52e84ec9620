"""Records are appended a few at a time."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from rooftrace.vector.prepare import FootprintRecordBuffer, FootprintRecords


def some(rng: np.random.Generator, count: int) -> FootprintRecords:
    numbers = rng.integers(0, 2**40, (4, count))
    return FootprintRecords(
        numbers[0], rng.integers(0, 3, count).astype(np.uint8),
        rng.random(count).astype(np.float32), rng.random(count) < 0.5, rng.random(count) < 0.5,
        rng.random(count), rng.random((count, 4)).astype(np.float32), *numbers[1:],
        rng.random(count) < 0.5,
    )  # fmt: skip


def test_records_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    parts = [some(rng, count) for count in (3, 0, 4094, 1, 20_000, 7)]
    kept = FootprintRecordBuffer()
    assert len(kept.whole()) == 0
    for number, part in enumerate(parts, start=1):
        kept.append(part)
        assert len(kept) == sum(map(len, parts[:number]))
    whole = kept.whole()
    for one in fields(FootprintRecords):
        expected = np.concatenate([getattr(part, one.name) for part in parts])
        found = getattr(whole, one.name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_appended_records_are_copied() -> None:
    rng = np.random.default_rng(1)
    part = some(rng, 5)
    kept = FootprintRecordBuffer()
    kept.append(part)
    before = part.first.copy()
    part.first[:] = 0
    np.testing.assert_array_equal(kept.whole().first, before)
