"""What an evaluation came to: a report of each model, and how they compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rooftrace.flows.leaks import LeakReport
from rooftrace.metrics.paired import PairedTest
from rooftrace.metrics.report import EvalReport

__all__ = ["Comparison", "Evaluation"]

_COMPARED = ("pixel.iou", "pixel.dice", "per_image.dice", "boundary.boundary_iou", "objects.f1")
_LISTED = 5
_COMPARED_CLASSES = ("pixel.mean_iou", *_COMPARED)


@dataclass(frozen=True)
class Comparison:
    """One model held against another on the same scenes.

    Args:
        first, second: their places among the reports.
        figures: by name, such as `pixel.iou`.
    """

    first: int
    second: int
    figures: dict[str, PairedTest]


@dataclass(frozen=True)
class Evaluation:
    """Reports of what was judged on the same scenes.

    Args:
        reports: of each, in the order they were named.
        leaks: of each, whether it may have seen these scenes before; none where nobody looked.
    """

    reports: tuple[EvalReport, ...]
    leaks: tuple[LeakReport, ...] = ()

    @property
    def first(self) -> EvalReport:
        return self.reports[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """For the person to see: first what makes the figures doubtful."""
        told = [
            f"{len(leak.scenes)} of {leak.checked} scenes show ground that {report.name} was "
            f"trained on: {', '.join(leak.scenes[:_LISTED])}"
            + (", …" if len(leak.scenes) > _LISTED else "")
            for leak, report in zip(self.leaks, self.reports)
            if leak.scenes
        ]
        told += [note for leak in self.leaks for note in leak.notes]
        told += [note for report in self.reports for note in report.notes]
        return tuple(dict.fromkeys(told))

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Each of the others against the first."""
        first = self.first
        names = _COMPARED if first.is_binary else _COMPARED_CLASSES
        return tuple(
            Comparison(number, 0, other.scene_counts.against(first.scene_counts, names))
            for number, other in enumerate(self.reports[1:], start=1)
        )

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`: of one model its report; of several `reports`, and in
        `comparisons` each of the others against the first.
        """
        beside = {
            "leaks": [leak.to_json() for leak in self.leaks],
            "notes": list(self.notes),
        }
        if len(self.reports) == 1:
            return self.first.to_json() | beside
        return {
            "reports": [report.to_json() for report in self.reports],
            "comparisons": [
                {
                    "first": self.reports[one.first].name,
                    "second": self.reports[one.second].name,
                    "figures": {name: test.to_json() for name, test in one.figures.items()},
                }
                for one in self.comparisons
            ],
            **beside,
        }
