"""Result of a fine-tuning: the tuned model against the start model, and advice."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rooftrace.core.text import plural
from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.train import TrainReport
from rooftrace.metrics.resampling import Interval, PairedTest, paired_permutation_test

Verdict = Literal[
    "better", "probably better", "no different", "probably worse", "worse", "cannot tell"
]
"""Comparison of the tuned model with the start model, see `FinetuneReport.verdict`."""

_LATE_SHARE = 0.25
"""Share of the epochs at the end of a run; if the best one is among them, a longer run may help."""

_PROBABLE, _PROBABLE_OF_FOLDS = 0.8, 0.6
"""Level of the interval for "probably". Outside of that of 80 %, a sign is wrong in one case of
ten. Models of folds were trained on a part of the images, and their mean is better than they are:
in eight draws of bench/finetune.py, by 1.9 points (standard deviation 1.0) more than they said. So
60 % does for them."""

LEAST_FOR_VERDICT = 6
"""Minimum number of held-out images for a verdict to rely on.

With fewer, a sign test finds no difference at 5 %, even if all images have the same sign: 2 / 2^5.
"""

_FIGURES = (
    ("IoU", "pixel", "iou"),
    ("precision", "pixel", "precision"),
    ("recall", "pixel", "recall"),
    ("F1 of buildings", "objects", "f1"),
    ("expected calibration error", "calibration", "ece"),
)
"""Figures of the comparison: name, and the keys under which a report has it."""


@dataclass(frozen=True)
class FinetuneReport:
    """Result of a fine-tuning run.

    Args:
        evaluation: Tuned model and start model on the scenes that were held out; the tuned model is
            the first.
        split: `FILE:PART` of these scenes.
        notes: Notes on how the data was divided, and on held-out images that show ground on which
            one of the models was trained.
        folds: Number of folds of a cross-validation; 0 if one part was held out.
        share: Share of the training that counts in the weights of the model.
    """

    trained: TrainReport
    evaluation: Evaluation
    split: str
    page: Path
    notes: tuple[str, ...] = ()
    folds: int = 0
    share: float = 1.0

    @property
    def bundle(self) -> Path:
        """The tuned model."""
        return self.trained.best["best_iou"][2]

    @cached_property
    def tests(self) -> dict[str, PairedTest]:
        """Paired comparison of each figure; a difference is positive where the tuned model is
        better.
        """
        return self.evaluation.comparisons[0]

    @property
    def buildings(self) -> PairedTest | None:
        """Paired comparison of F1 of buildings; None with more than two classes."""
        return self.tests.get("objects.f1")

    @property
    def verdict(self) -> Verdict:
        """Result of the comparison of IoU and F1 of buildings.

        A difference is clear if 0 lies outside of its 95 % interval. The tuned model is better if
        one of the two is clearly better and none clearly worse, and worse in the opposite case. If
        none is clear, the mean of the two decides by its 80 % interval, or that of 60 % for folds:
        it is what was maximised, and less uncertain than either. On ground that either model was
        trained on, nobody can tell. A start model whose threshold alone was chosen, on these very
        images, is no different.
        """
        if any(leak.spoils_comparison for leak in self.evaluation.leaks):
            return "cannot tell"
        if self.share == 0:
            return "no different"
        judged = self.tests[self.evaluation.headline], self.buildings
        signs = {_sign(test.difference) for test in judged if test is not None}
        if signs == {0} and self.gain is not None:
            probable = _sign(self.gain)
            return ("no different", "probably better", "probably worse")[probable]
        if 1 in signs and -1 not in signs:
            return "better"
        return "worse" if -1 in signs and 1 not in signs else "no different"

    @property
    def verdict_text(self) -> str:
        """The verdict, with what was compared."""
        tuned, start = self.evaluation.reports
        how = "each predicted by a model that had not seen it" if self.folds else "held out"
        return (
            f"{self.verdict}, compared with {start.name} on {plural(len(tuned.images), 'image')}, "
            f"{how}"
        )

    @cached_property
    def gain(self) -> Interval | None:
        """Gain of the mean of IoU and F1 of buildings; None with more than two classes."""
        if self.buildings is None:
            return None
        tuned, start = (one.scene_counts for one in self.evaluation.reports)
        iou, f1 = (tuned.ratios[name] for name in (self.evaluation.headline, "objects.f1"))
        level = _PROBABLE_OF_FOLDS if self.folds and self.share else _PROBABLE
        test = paired_permutation_test(
            tuned.counts, start.counts, lambda sums: (iou(sums) + f1(sums)) / 2,
            groups=tuned.groups, level=level,
        )  # fmt: skip
        return test.difference

    @property
    def figures(self) -> dict[str, tuple[float | None, float | None]]:
        """Figures of the start model and of the tuned model; None where one is not defined."""
        tuned, base = (report.to_json() for report in self.evaluation.reports)

        def value(report: dict[str, Any], group: str, key: str) -> float | None:
            return (report[group] or {}).get(key)

        return {
            name: (value(base, group, key), value(tuned, group, key))
            for name, group, key in _FIGURES
        }

    @property
    def advice(self) -> tuple[str, ...]:
        """Sentences on what would help, and on what a verdict rests on."""
        test = self.tests[self.evaluation.headline]
        gap, advice = test.difference, []
        if self.evaluation.first.trivial:
            advice.append(self.evaluation.first.trivial)
        if self.verdict != "no different" and test.scenes < LEAST_FOR_VERDICT:
            advice.append(
                f"This verdict is from {plural(test.scenes, 'image')} only: do not rely on it with "
                f"fewer than {LEAST_FOR_VERDICT}. Label more, or raise --val."
            )
        if self.share == 0 and self.verdict != "cannot tell":
            advice.append(
                "No share of the training was better on images that were held out: the model keeps "
                "the weights of the start model, with a threshold that was chosen on these images."
            )
        if self.verdict in ("better", "probably better"):
            return tuple(advice)
        if self.verdict == "cannot tell":
            reason = (
                "The tuned model was trained on the ground that is held out, so it looks better "
                "than it is: rooftrace inspect names the copies, and --val 0.2 divides all images "
                "anew."
                if self.evaluation.leaks[0].spoils_comparison
                else "The start model was trained on this ground, so it looks better than it is "
                "elsewhere: compare the models on images of another place, with --split FILE that "
                "names them as test."
            )
            return (reason,)
        buildings = self.buildings
        if buildings is not None and _sign(buildings.difference) < 0:
            advice.append(
                f"Fewer buildings are found one by one: F1 falls from {buildings.second:.3f} to "
                f"{buildings.first:.3f}. Look in the report for neighbours that are joined."
            )
        if not gap.is_known:
            advice.append(f"There is no interval of the difference: {gap.reason}.")
        advice.append(
            "Label more tiles, above all of the kinds in which the pictures of the report show "
            "errors; check the labels with rooftrace inspect."
        )
        best, epochs = self.trained.best["best_iou"][0], self.trained.epochs
        if not self.folds:
            is_late = best > (1 - _LATE_SHARE) * epochs
            advice.append(
                f"The best epoch was {best} of {epochs}: more --minutes "
                f"{'may help' if is_late else 'are unlikely to help'}."
            )
        if self.verdict in ("worse", "probably worse"):
            advice.append("Keep the start model, or lower the rates: --config optimizer.lr=1e-4.")
        return tuple(advice)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.trained.to_json(),
            "verdict": self.verdict,
            "held_out": self.split,
            "share": self.share,
            "scenes": self.tests[self.evaluation.headline].scenes,
            "figures": {
                name: {"start": base, "tuned": tuned}
                for name, (base, tuned) in self.figures.items()
            },
            "intervals": {
                name: {key: one.to_json() for key, one in report.intervals.items()}
                for name, report in zip(("tuned", "start"), self.evaluation.reports)
            },
            "differences": {name: test.to_json() for name, test in self.tests.items()},
            "gain": None if self.gain is None else self.gain.to_json(),
            "report": str(self.page),
            "advice": list(self.advice),
            "notes": list(self.notes),
        }


def _sign(gap: Interval) -> int:
    """Return 1 or -1 if a difference is clearly above or below 0, and otherwise 0."""
    return 0 if not gap.is_known else int(gap.low > 0) - int(gap.high < 0)
