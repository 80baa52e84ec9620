"""Texts for the user: lists, numbers, reasons."""

import math
import re

import pytest

from rooftrace.core.text import (
    first_line,
    list_and_count,
    list_first,
    merge_notes,
    plain_number,
    reason_of,
)


@pytest.mark.parametrize(
    ("count", "first", "counted"),
    [
        (0, "", ""), (1, "1", "1"), (2, "1, 2", "1, 2"), (3, "1, 2, …", "1, 2 and 1 more"),
        (9, "1, 2, …", "1, 2 and 7 more"),
    ],
)  # fmt: skip
def test_lists_the_first_names(count: int, first: str, counted: str) -> None:
    names = range(1, count + 1)
    assert list_first(names, 2) == first
    assert list_and_count(names, 2) == counted


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.4, 3, "0.4"), (0.07416, 3, "0.0742"), (120.4, 3, "120"), (1_234_567.0, 3, "1234567"),
        (0.0000345, 3, "0.0000345"), (-2.5, 3, "-2.5"), (0.0, 3, "0"), (100.0, 2, "100"),
        (120.0, 2, "120"), (1.0, 3, "1"), (math.inf, 3, "inf"), (math.nan, 3, "nan"),
    ],
)  # fmt: skip
def test_numbers_have_no_exponent(value: float, digits: int, expected: str) -> None:
    assert plain_number(value, digits) == expected


@pytest.mark.parametrize(("error", "expected"), [
    (FileNotFoundError(2, "No such file or directory", "a.tif"), "No such file or directory"),
    (ValueError("two\n  lines."), "two lines"),
    (OSError("without a number"), "without a number"),
    (MemoryError(), "MemoryError"),
    (KeyError("state"), "'state' is missing"),
    (RuntimeError("Exception from src/a.cpp:5:\nIt is odd.\n"), "It is odd"),
    (ValueError("sqlite3_prepare_v2(SELECT 1) failed: it is malformed"), "it is malformed"),
    (ValueError("No row: sqlite3_exec(INSERT (1)) failed: it is full"), "No row: it is full"),
    (ValueError("IllegalArgumentException: It is odd"), "It is odd"),
    # Libraries of HTTP pass the text of Python on.
    (RuntimeError("[Errno 111] Connection refused"), "Connection refused"),
])  # fmt: skip
def test_reasons_are_the_end_of_a_sentence(error: Exception, expected: str) -> None:
    assert reason_of(error) == expected
    assert first_line(error) == expected.replace("two lines", "two")


def test_the_first_line_ends_with_a_whole_word() -> None:
    assert first_line(ValueError("/a" * 200)).startswith("/a/a")
    text = first_line(ValueError("a long reason, " * 20 + "\nmore"))
    assert re.search(r"(a|long|reason) …$", text)
    assert len(text) <= 202


def test_notes_that_differ_in_the_image_are_one() -> None:
    names = {"in/a b.tif", "in/c.tif", "https://host/d.tif"}
    notes = [
        "in/a b.tif has 0.3 m per pixel and is resampled to 0.4 m.",
        "in/c.tif has 0.25 m per pixel and is resampled to 0.4 m.",
        "https://host/d.tif has 0.3 m per pixel and is resampled to 0.4 m.",
        "in/c.tif: its results are called c-2, because no result can have its name.",
        "Scores only approximate probabilities.",
        "Scores only approximate probabilities.",
        "e.tif has 0.3 m per pixel and is resampled to 0.4 m.",
    ]
    assert merge_notes(notes, names) == [
        f"{notes[0]} (2 more images with such a note)",
        "in/c.tif: its results are called c-2, because no result can have its name.",
        "Scores only approximate probabilities.",
        "e.tif has 0.3 m per pixel and is resampled to 0.4 m.",
    ]
    assert merge_notes([], names) == []
