"""The summary follows from the findings, the worst of them first."""

import pytest

from rooftrace.audit.facts import Finding, SetStatistics, Severity, compute_statistics
from rooftrace.audit.report import summarize_audit

from .test_statistics import scene


def town(images: int = 400) -> SetStatistics:
    return compute_statistics([scene(str(n), 900, gsd_m=0.5) for n in range(images)], 2, 1)


def finding(severity: Severity, number: int = 0, remedy: str = "Do this.") -> Finding:
    return Finding(f"key.{number}", severity, f"Something {severity} {number}", remedy=remedy)


@pytest.mark.parametrize(
    ("severities", "fit"),
    [([], "yes"), (["note"], "yes"), (["warning", "note"], "with care"), (["error"], "no")],
)
def test_the_worst_finding_decides(severities: list[Severity], fit: str) -> None:
    made = summarize_audit("town", town(), [finding(s, n) for n, s in enumerate(severities)])
    assert made.fit == fit
    assert len(made.actions) == 3
    assert "400 images" in made.paragraph
    assert "at 0.5 m per pixel" in made.paragraph
    assert ("1 error" in made.paragraph) == (fit == "no")
    assert ("1 warning" in made.paragraph) == (fit == "with care")


def test_without_labels_there_is_nothing_to_train_on() -> None:
    images = compute_statistics([scene(str(n), 0, label=None) for n in range(5)], 2, 1)
    made = summarize_audit("tiles", images, [])
    assert made.fit == "no"
    assert "no labels" in made.paragraph
    assert "label push" in made.actions[0]


def test_unreadable_labels_are_not_missing_labels() -> None:
    masks = [scene(str(n), 0, label=None, label_error="coloured") for n in range(5)]
    made = summarize_audit(
        "tiles", compute_statistics(masks, 2, 1), [finding("error", 1, "Give a palette.")]
    )
    assert made.fit == "no"
    assert "None of its labels could be read." in made.paragraph
    assert made.actions[0] == "Something error 1. Give a palette."
    assert not any("label push" in action for action in made.actions)
