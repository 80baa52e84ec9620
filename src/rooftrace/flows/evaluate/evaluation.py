"""Result of an evaluation: a report of each model or tool, comparisons, and leakage.

Leakage means scenes that show ground on which a model was trained. The training scenes are known
from the fingerprint in its bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

from rooftrace.audit.duplicates import NO_HASH
from rooftrace.audit.keypoints import (
    Keypoints,
    detect_keypoints,
    has_enough_keypoints,
    match_scenes,
)
from rooftrace.core.text import list_first
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.metrics.report import FIGURES, EvalReport
from rooftrace.metrics.resampling import PairedTest
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.fingerprint import Fingerprint

Status = Literal["none", "found", "unknown"]
"""Result of the check; `unknown` means that nothing was found, but not all could be compared."""


@dataclass(frozen=True)
class LeakedScene:
    """A scene of the evaluation that shows ground of a training scene.

    Args:
        scene_id: Id of the scene in the evaluation.
        train_id: The training scene: `SET, scene N of M` in the order of the ids.
        bits: Number of differing bits, of 64, between the hashes (for keypoints the median).
        likeness: Similarity in 0..1: the share of agreeing keypoints where both scenes lie, for
            copies of whole scenes the share of equal bits.
    """

    scene_id: str
    train_id: str
    bits: float
    likeness: float


@dataclass(frozen=True)
class LeakageReport:
    """Result of a leakage check.

    Args:
        status: `found` where there is any pair.
        checked: Number of scenes that were compared.
        pairs: The most similar first; a scene has one pair for each matching training scene.
        notes: Method of the check, and what it does not cover, for the user.
    """

    status: Status
    checked: int
    pairs: tuple[LeakedScene, ...]
    notes: tuple[str, ...]

    @property
    def scenes(self) -> tuple[str, ...]:
        """Ids of the scenes that show training ground, the most similar first."""
        return tuple(dict.fromkeys(pair.scene_id for pair in self.pairs))

    def to_json(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "checked": self.checked,
            "scenes": len(self.scenes),
            "pairs": [asdict(pair) for pair in self.pairs],
            "notes": list(self.notes),
        }


def check_leakage(bundles: Sequence[ModelBundle], source: SceneSet) -> tuple[LeakageReport, ...]:
    """Look for ground on which each of some models, or any member of an ensemble, was trained.

    Args:
        bundles: The models; an ensemble is checked by its members.
        source: Scenes of the evaluation; each is read once for all models of one scale, a large one
            by windows.

    Raises:
        DataError and its kinds: An image of `source` cannot be read.
        BundleError: A fingerprint is damaged.
    """
    scenes = _SceneKeypoints(source)
    return tuple(_of_members(one.members or (one,), scenes) for one in bundles)


def _of_members(members: Sequence[ModelBundle], scenes: _SceneKeypoints) -> LeakageReport:
    reports = [_check(bundle, scenes) for bundle in members]
    if len(reports) == 1:
        return reports[0]
    names = [bundle.spec.name for bundle in members]
    every: list[Status] = [report.status for report in reports]
    return LeakageReport(
        "found" if "found" in every else "unknown" if "unknown" in every else "none",
        max(report.checked for report in reports),
        _ordered([
            replace(pair, train_id=f"{name}: {pair.train_id}")
            for name, report in zip(names, reports)
            for pair in report.pairs
        ]),
        tuple(f"{name}: {note}" for name, report in zip(names, reports) for note in report.notes),
    )  # fmt: skip


class _SceneKeypoints:
    """Scenes of the evaluation, with keypoints computed once for all models of the same scale."""

    def __init__(self, source: SceneSet) -> None:
        self.source = source
        self._by_scale: dict[tuple[float | None, float | None], tuple[Keypoints, ...]] = {}

    def at(self, gsd_m: float | None, model_gsd_m: float | None) -> tuple[Keypoints, ...]:
        key = (gsd_m, model_gsd_m)
        if key not in self._by_scale:
            detect = partial(_detect, gsd_m=gsd_m, assumed_gsd_m=model_gsd_m)
            self._by_scale[key] = map_entries(self.source, detect)
        return self._by_scale[key]


def _detect(
    source: SceneSet, entry: SceneEntry, *, gsd_m: float | None, assumed_gsd_m: float | None
) -> Keypoints:
    return detect_keypoints(source.open_scene(entry), gsd_m, assumed_gsd_m=assumed_gsd_m)


def _check(bundle: ModelBundle, scenes: _SceneKeypoints) -> LeakageReport:
    source, fingerprint = scenes.source, bundle.spec.fingerprint
    notes: list[str] = []
    if fingerprint is None:
        notes.append("The bundle has no fingerprint of its training scenes.")
        return LeakageReport("unknown", 0, (), tuple(notes))
    notes.append("Compared with the fingerprint of the training scenes in the bundle.")
    if fingerprint.share < 1:
        notes.append(f"It is of an even sample, {fingerprint.share:.0%}, of these.")
    keypoints = scenes.at(fingerprint.gsd_m, bundle.spec.gsd_m)
    trained, numbers = fingerprint.unpack(bundle.source)
    pairs = [
        LeakedScene(
            source.entries[one.first].id,
            _name_of(fingerprint, numbers[one.second]),
            one.bits,
            round(one.share, 3),
        )
        for one in match_scenes(keypoints, trained)
    ]
    notes += _limits(fingerprint, keypoints)
    checked = sum(has_enough_keypoints(one) or one.whole != NO_HASH for one in keypoints)
    status: Status = "found" if pairs else "none" if checked else "unknown"
    return LeakageReport(status, checked, _ordered(pairs), tuple(notes))


def _name_of(fingerprint: Fingerprint, number: int) -> str:
    which, place = fingerprint.place_of(number)
    trained = fingerprint.sets[which]
    return f"{trained.name}, scene {place + 1} of {trained.scenes}"


def _limits(fingerprint: Fingerprint, looked: Sequence[Keypoints]) -> list[str]:
    """Return notes on what the check cannot find."""
    side = fingerprint.finds_px
    size = f"{side * fingerprint.gsd_m:.0f} m" if fingerprint.gsd_m else f"{2 * side} px"
    notes = [f"Parts that two scenes share are found from about {size} by {size}."]
    small = sum(not has_enough_keypoints(one) for one in looked)
    if small:
        notes.append(
            f"{small} of the {len(looked)} scenes are too small, or show too little, for that: "
            "these are found as whole copies alone."
        )
    return notes


def _ordered(pairs: Sequence[LeakedScene]) -> tuple[LeakedScene, ...]:
    return tuple(sorted(pairs, key=lambda p: (-p.likeness, p.bits, p.scene_id, p.train_id)))


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
