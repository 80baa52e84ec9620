"""Result of an evaluation: a report of each model or tool, and comparisons between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rooftrace.core.text import list_first
from rooftrace.flows.evaluate.leakage import LeakageReport
from rooftrace.metrics.report import FIGURES, EvalReport
from rooftrace.metrics.resampling import PairedTest

_COMPARED = ("pixel.iou", "pixel.dice", "per_image.dice", "boundary.boundary_iou", "objects.f1")
_COMPARED_CLASSES = ("pixel.mean_iou", *_COMPARED)

_MAIN = ("pixel.iou", "pixel.precision", "pixel.recall", "boundary.boundary_iou", "objects.f1")

_LISTED = 5
"""Maximum number of scenes listed in a note; the report has all."""


@dataclass(frozen=True)
class PairedComparison:
    """Comparison of one model with another on the same scenes.

    Args:
        first, second: Positions of the two among the reports. A difference is positive where the
            first is better.
        figures: Test of each figure, such as `pixel.iou`.
    """

    first: int
    second: int
    figures: dict[str, PairedTest]


@dataclass(frozen=True)
class Evaluation:
    """Reports of models and tools on the same scenes.

    Args:
        reports: Report of each, in the order in which they were given.
        leaks: Training data leakage of each model; empty where it was not checked.
        baseline: Position of the report with which the others are compared.
    """

    reports: tuple[EvalReport, ...]
    leaks: tuple[LeakageReport, ...] = ()
    baseline: int = 0

    @property
    def first(self) -> EvalReport:
        """Report of the first model, which has pictures."""
        return self.reports[0]

    @property
    def columns(self) -> tuple[EvalReport, ...]:
        """Reports to show side by side, each with a unique name.

        For a single refined model, they are those of the model and of its segmenter alone.
        """
        if len(self.reports) == 1 and self.first.coarse is not None:
            return replace(self.first, name=f"{self.first.name}, refined"), replace(
                self.first.coarse, name="its segmenter alone"
            )
        names = [report.name for report in self.reports]
        return tuple(
            replace(report, name=f"{report.name} ({number})")
            if names.count(report.name) > 1
            else report
            for number, report in enumerate(self.reports, start=1)
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, starting with those that put the figures in doubt."""
        notes = list(self.warnings)
        notes += self._leakage_notes()
        notes += [note for report in self.reports for note in report.notes]
        return tuple(dict.fromkeys(notes))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes on scenes that show ground on which a model was trained."""
        return tuple(
            f"{len(leak.scenes)} of {leak.checked} scenes show ground that {report.name} was "
            f"trained on: {list_first(leak.scenes, _LISTED)}"
            for leak, report in zip(self.leaks, self.reports)
            if leak.scenes
        )

    def _leakage_notes(self) -> list[str]:
        """Return the notes of the leakage checks; those of several models name the models."""
        if len(self.leaks) == 1:
            return list(self.leaks[0].notes)
        models: dict[str, list[str]] = {}
        for leak, report in zip(self.leaks, self.reports):
            for note in leak.notes:
                models.setdefault(note, []).append(report.name)
        return [f"{', '.join(names)}: {note}" for note, names in models.items()]

    @cached_property
    def comparisons(self) -> tuple[PairedComparison, ...]:
        """Comparison of each other model with the baseline."""
        names = _COMPARED if self.first.is_binary else _COMPARED_CLASSES
        others = [number for number in range(len(self.reports)) if number != self.baseline]
        return tuple(self._compare(number, self.baseline, names) for number in others)

    @property
    def headline(self) -> str:
        """Figure by which models are compared first."""
        return (_COMPARED if self.first.is_binary else _COMPARED_CLASSES)[0]

    @property
    def main_figures(self) -> set[str]:
        """Names of the figures that are shown at once; the page folds the others."""
        return {FIGURES[key] for key in (*_MAIN, self.headline)}

    def _compare(self, first: int, second: int, figures: Sequence[str]) -> PairedComparison:
        counts = [self.reports[number].scene_counts for number in (first, second)]
        return PairedComparison(first, second, counts[0].against(counts[1], figures))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints.

        For one model it is the report. For several it has `reports`, and in `comparisons` each
        other model against the baseline.
        """
        beside = {
            "leaks": [leak.to_json() for leak in self.leaks],
            "notes": list(self.notes),
        }
        if len(self.reports) == 1:
            return self.first.to_json() | beside
        return {
            "reports": [report.to_json() for report in self.reports],
            "comparisons": [self._comparison_json(one) for one in self.comparisons],
            **beside,
        }

    def _comparison_json(self, one: PairedComparison) -> dict[str, Any]:
        return {
            "first": self.reports[one.first].name,
            "second": self.reports[one.second].name,
            "figures": {name: test.to_json() for name, test in one.figures.items()},
        }
