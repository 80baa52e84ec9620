"""Notes that several images cause are one line with a count."""

from __future__ import annotations

from rooftrace.core.text import merge_notes


def test_notes_that_differ_in_the_image_are_one() -> None:
    names = {"in/a b.tif", "in/c.tif", "https://host/d.tif"}
    notes = [
        "in/a b.tif has 0.3 m per pixel and is resampled to the model's 0.4 m.",
        "in/c.tif has 0.25 m per pixel and is resampled to the model's 0.4 m.",
        "https://host/d.tif has 0.3 m per pixel and is resampled to the model's 0.4 m.",
        "in/c.tif: its results are called c-2, because no result can have its name.",
        "Scores only approximate probabilities.",
        "Scores only approximate probabilities.",
        "e.tif has 0.3 m per pixel and is resampled to the model's 0.4 m.",
    ]
    assert merge_notes(notes, names) == [
        f"{notes[0]} (2 more images with such a note)",
        "in/c.tif: its results are called c-2, because no result can have its name.",
        "Scores only approximate probabilities.",
        "e.tif has 0.3 m per pixel and is resampled to the model's 0.4 m.",
    ]
    assert merge_notes([], names) == []
