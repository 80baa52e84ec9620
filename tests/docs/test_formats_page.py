"""docs/formats.md: each sample of the tests has a row with a verdict, and none is read wrongly."""

import re
from pathlib import Path

import pytest

from data_set_samples import DOWNLOADS
from label_samples import TOOLS
from vector_samples import LAYERED, SAMPLES, UNPLACED

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/formats.md").read_text(encoding="utf-8")

SECTIONS = {
    "Labels in pixels": (0.95, TOOLS),
    "Data sets as they are downloaded": (0.90, DOWNLOADS),
    "Images": (0.95, {}),
    "Vectors in": (0.95, {**SAMPLES, **LAYERED, **UNPLACED}),
}
"""Least share of samples that are read, or whose error leads on; and samples that have a test.
Those of images are compared in `unit/io/test_image_formats.py`."""


def verdicts(section: str) -> dict[str, str]:
    """Return the verdict of each sample of a section."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([A-Z]+) \| ", text, re.MULTILINE)
    return {name: verdict for names, verdict in rows for name in names.split("; ")}


@pytest.mark.parametrize("section", SECTIONS)
def test_each_sample_has_a_verdict(section: str) -> None:
    found = verdicts(section)
    least, samples = SECTIONS[section]
    assert {*samples} <= {*found}
    helped = [name for name, verdict in found.items() if verdict in ("OK", "REMEDY")]
    assert len(helped) >= least * len(found)
    assert "WRONG" not in found.values()
    read = {name for name, verdict in found.items() if verdict == "OK"}
    assert {*samples} - {*LAYERED, *UNPLACED} <= read


def test_the_tests_that_hold_a_row_exist() -> None:
    named = re.findall(r"`((?:unit|cli|contract|docs)/[\w/]+\.py)`", PAGE)
    assert len(named) > 10
    assert [name for name in named if not (TESTS / name).is_file()] == []
