"""Changed copies are found, and different images are not."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rooftrace.audit.duplicates import (
    MOST_BITS,
    NO_HASH,
    Pairs,
    across,
    confirm,
    grey_thumbnail,
    hash_of,
    likeness,
    near_duplicates,
    phash,
    symmetries,
)
from rooftrace.core.arrays import components
from town import generate_scene

Luma = NDArray[np.uint8]


def picture(seed: int, side: int = 256) -> Luma:
    """Return a cloudy image with structure at all scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for cells in (4, 8, 16, 32, 64):
        rough = rng.normal(size=(cells, cells))
        total += cv2.resize(rough, (side, side), interpolation=cv2.INTER_CUBIC) / cells**0.7
    return np.clip(128 + 60 * total / total.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes() -> list[Luma]:
    whole = cv2.cvtColor(
        np.ascontiguousarray(np.moveaxis(generate_scene(4, (768, 768)).image, 0, -1)),
        cv2.COLOR_RGB2GRAY,
    )
    return [whole[r : r + 256, c : c + 256] for r in (0, 256, 512) for c in (0, 256, 512)]


def bits(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def hashes(*values: int) -> NDArray[np.uint64]:
    return np.array(values, dtype=np.uint64)


CHANGES = {
    "jpeg": lambda y: cv2.imdecode(cv2.imencode(".jpg", y, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0),
    "half": lambda y: cv2.resize(y, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "0.8": lambda y: cv2.resize(y, None, fx=0.8, fy=0.8),
    "brighter": lambda y: np.clip(y * 1.1, 0, 255).astype(np.uint8),
    "darker": lambda y: (y * 0.9).astype(np.uint8),
    "shifted": lambda y: np.ascontiguousarray(y[3:, 2:]),
    "as float": lambda y: y.astype(np.float32) * 7,
}


@pytest.mark.campaign
@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_copy_is_similar(name: str, scenes: list[Luma]) -> None:
    for luma in scenes:
        copy = CHANGES[name](luma)
        assert bits(phash(luma), phash(copy)) <= MOST_BITS
        assert likeness(grey_thumbnail(luma), grey_thumbnail(copy)) > 0.9


@given(st.integers(0, 50), st.integers(0, 7))
def test_rotated_copies_are_found(seed: int, number: int) -> None:
    luma = picture(seed)
    turned = luma.T if number >= 4 else luma
    turned = turned[:: -1 if number % 4 >= 2 else 1, :: -1 if number % 2 else 1]
    one, other = hashes(phash(luma)), hashes(phash(np.ascontiguousarray(turned)))
    expected = symmetries(one)[number]
    assert bits(int(other[0]), int(expected[0])) <= 1
    pairs = across(one, other)
    assert len(pairs) == 1
    # The symmetry transforms the second image into the first.
    small = grey_thumbnail(np.ascontiguousarray(turned))
    assert likeness(grey_thumbnail(luma), small, int(pairs.symmetry[0])) > 0.99


def brute(a: NDArray[np.uint64], b: NDArray[np.uint64], most: int) -> dict[tuple[int, int], int]:
    found = {}
    for i, one in enumerate(a.tolist()):
        for j in range(len(b)):
            least = min(bits(one, int(turn[j])) for turn in symmetries(b))
            if one != NO_HASH and b[j] != NO_HASH and least <= most:
                found[i, j] = least
    return found


def family(seed: int, count: int) -> NDArray[np.uint64]:
    """Return hashes of which many are similar: a few hashes with changed bits, rotated or equal."""
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2**64 - 1, 6, dtype=np.uint64)
    chosen = symmetries(few[rng.integers(0, 6, count)])[int(rng.integers(0, 8))].copy()
    for _ in range(int(rng.integers(0, 12))):
        some = rng.random(count) < 0.7
        chosen[some] ^= np.uint64(1) << rng.integers(0, 64, int(some.sum()), dtype=np.uint64)
    chosen[rng.random(count) < 0.1] = NO_HASH
    return chosen


@pytest.mark.campaign
@given(st.integers(0, 10**6), st.sampled_from([0, 3, 4, 8, 9, 10]))
def test_the_search_misses_nothing(seed: int, most: int) -> None:
    a, b = family(seed, 20), family(seed, 25)
    expected = brute(a, a, most)
    pairs = near_duplicates(a, most_bits=most)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist()))
    assert found <= {(i, j) for i, j in expected if i < j}
    for i, j, least in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.bits.tolist()):
        assert least == expected[i, j]
    # Equal hashes stand for one another, so the connected groups are compared.
    everything = np.array([pair for pair in expected if pair[0] < pair[1]], dtype=np.intp)
    i, j = everything.reshape(-1, 2).T
    assert (components(20, pairs.first, pairs.second) == components(20, i, j)).all()
    # Of two sets, each image that has a copy is found.
    expected = brute(a, b, most)
    both = across(a, b, most_bits=most)
    assert set(zip(both.first.tolist(), both.second.tolist())) <= set(expected)
    assert set(both.first.tolist()) == {i for i, _ in expected}
    assert set(both.second.tolist()) == {j for _, j in expected}
    for i, j, least in zip(both.first.tolist(), both.second.tolist(), both.bits.tolist()):
        assert expected[i, j] == least


def test_many_copies_are_few_pairs() -> None:
    same = np.full(3000, 12345, dtype=np.uint64)
    same[1500:] ^= np.uint64(1)
    pairs = near_duplicates(same)
    assert len(pairs) < 2 * 3000
    assert set(components(3000, pairs.first, pairs.second).tolist()) == {0}
    assert len(across(same, same)) < 4 * 3000


def test_a_similar_hash_is_not_proof() -> None:
    one, other = grey_thumbnail(picture(1)), grey_thumbnail(picture(2))
    zero = np.zeros(1, dtype=np.uint8)
    pairs = Pairs(np.array([0]), np.array([1]), zero, zero)
    assert len(confirm(pairs, [one, other])) == 0
    assert len(confirm(pairs, [one, one])) == 1
    assert len(confirm(pairs, [one], [other, one])) == 1
    assert hash_of(one) != hash_of(other)
