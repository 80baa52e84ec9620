"""The texts of the page; no text from outside becomes markup."""

from __future__ import annotations

import pytest
from page_images import classes_of, kept_of

from rooftrace.app.page import strings

EVIL = "<script>alert(1)</script>"


def test_a_status_is_announced_and_escaped() -> None:
    assert 'role="alert"' in strings.status("Broken.", "error")
    assert 'role="status"' in strings.status("Fine.")
    assert EVIL not in strings.status(EVIL)
    assert strings.status("") == ""


def test_figures() -> None:
    text = strings.figures(kept_of().prediction)
    for part in (">2<", "12.5%", "sparse", "0.5 m/px", "100 × 80 px", "threshold of 0.5", "250 m²"):
        assert part in text
    assert "not known" in strings.figures(kept_of("a.png", placed=False).prediction)


def test_a_legend_of_confidence_or_of_classes() -> None:
    assert "confidence" in strings.legend(kept_of().prediction)
    text = strings.legend(classes_of().prediction)
    assert "water 100.0%" in text
    # What is nowhere is left out.
    assert "building" not in text


@pytest.mark.parametrize(
    ("share", "valid", "name"),
    [(0.0, 9, "sparse"), (0.199, 9, "sparse"), (0.2, 9, "dense"), (0.0, 0, None)],
)
def test_sparse_and_dense_are_those_of_rooftrace_density(
    share: float, valid: int, name: str | None
) -> None:
    assert strings.dense_or_sparse(share, valid) == name
