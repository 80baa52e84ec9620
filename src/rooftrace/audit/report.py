"""The audit of a set: its figures, its findings, and a summary of what to do first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from rooftrace.audit.checks import findings_of, worst_first
from rooftrace.audit.duplicates import duplicate_findings
from rooftrace.audit.facts import (
    Finding,
    LabelFacts,
    Offset,
    SceneFacts,
    SetStatistics,
    compute_statistics,
)
from rooftrace.audit.measure import measure_set
from rooftrace.audit.offset import estimate_offsets, offset_findings
from rooftrace.audit.scale import estimate_scale
from rooftrace.audit.shift import SetComparison, compare_sets, shift_findings
from rooftrace.core.text import plain_number, plural
from rooftrace.core.types import Progress
from rooftrace.labels.source import SceneSet

_LEAST_BUILDINGS = 300
"""Number of buildings below which a set is called small (a rule of thumb). A network trained on
fewer learns these buildings by heart instead of learning what a building is."""

_ACTIONS = 3
"""Number of actions in a summary."""

_SET_ASIDE = "Set a test part aside before the first training: rooftrace split DATA -o split.json"

_BY_BLOCK = f"{_SET_ASIDE}, with --by group or, if images lie side by side, --by block."

_WITHOUT_BLOCKS = (
    f"{_SET_ASIDE}. Keep images of the same place together: --by group, with --group-pattern if "
    "they are in one folder."
)
"""The first action if an image has no georeference, without which there are no blocks."""

_USUAL_ACTIONS = (
    "Look at the contact sheets below. A wrong label is easier to see than to compute.",
    "Train a first model, then look at its worst images: rooftrace evaluate -o.",
)

Fitness = Literal["yes", "with care", "no"]

_FITNESS: dict[Fitness, str] = {
    "yes": "It is fit to train on.",
    "with care": "It can be trained on, with care.",
    "no": "It is not fit to train on as it is.",
}


@dataclass(frozen=True)
class AuditSummary:
    """The summary at the top of an audit.

    Args:
        fit: `yes`; `with care` if a model can be trained but will be worse than necessary, or its
            scores will be too good; `no`.
        paragraph: A few sentences.
        actions: Three things to do, the most useful first.
    """

    fit: Fitness
    paragraph: str
    actions: tuple[str, ...]


def summarize_audit(
    name: str, statistics: SetStatistics, findings: Sequence[Finding]
) -> AuditSummary:
    """Return the summary of a set.

    Args:
        name: Name of the set.
        statistics: Figures of the set.
        findings: Findings about the set, the worst first.
    """
    errors = [f for f in findings if f.severity == "error"]
    warnings = [f for f in findings if f.severity == "warning"]
    is_small = statistics.buildings < _LEAST_BUILDINGS
    fit: Fitness
    if errors or not statistics.labelled:
        fit = "no"
    elif warnings or is_small:
        fit = "with care"
    else:
        fit = "yes"
    sentences = [_describe_set(name, statistics), _FITNESS[fit]]
    if statistics.unreadable_labels == statistics.images:
        sentences.append("None of its labels could be read.")
    elif not statistics.labelled:
        sentences.append("It has no labels.")
    elif is_small:
        sentences.append(f"With {plural(statistics.buildings, 'building')}, it is a small set.")
    if errors or warnings:
        kinds = (("error", errors), ("warning", warnings))
        counts = [plural(len(found), kind) for kind, found in kinds if found]
        sentences.append(f"The audit found {' and '.join(counts)}.")
    return AuditSummary(fit, " ".join(sentences), _actions(statistics, findings))


def _describe_set(name: str, statistics: SetStatistics) -> str:
    gsd_m = statistics.gsd_m
    gsd = "" if gsd_m is None else f" at {plain_number(gsd_m.median, 2)} m per pixel"
    size = f"{plural(statistics.images, 'image')} ({statistics.pixels / 1e6:,.1f} Mpx{gsd})"
    if statistics.built_up is None:
        return f"{name} holds {size}."
    empty = f"{statistics.low_share:.0%}" if statistics.low_share else "none"
    return (
        f"{name} holds {size} with {plural(statistics.buildings, 'building')}. On average "
        f"{statistics.built_up.mean:.1%} of an image is built up, and {empty} of the images have a "
        "built-up share of 1 % or less."
    )


def _actions(statistics: SetStatistics, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return the remedies of the worst findings, followed by what is always worth doing."""
    worst = [f for f in findings if f.severity != "note" and f.remedy]
    # One remedy may help against several findings. It is listed once, with the worst of them.
    first = {finding.remedy: finding for finding in reversed(worst)}
    remedies = [f"{f.title.rstrip('.')}. {f.remedy}" for f in worst if first[f.remedy] is f]
    usual = []
    if not (statistics.labelled or statistics.unreadable_labels):
        usual.append("Label some images: rooftrace label push sends them to Label Studio.")
    else:
        if statistics.labelled and statistics.buildings < _LEAST_BUILDINGS:
            usual.append("Add images, from other places rather than more of the same.")
        has_blocks = statistics.georeferenced == statistics.images
        usual += [_BY_BLOCK if has_blocks else _WITHOUT_BLOCKS, *_USUAL_ACTIONS]
    return tuple([*remedies, *usual][:_ACTIONS])


@dataclass(frozen=True)
class SetAudit:
    """The figures of one set.

    Args:
        source: The set, including its scenes without a label.
        facts: Facts of each scene, in the order of the set.
        statistics: Figures of the whole set.
        offsets: Offsets of the scenes on which the place of the label was estimated.
    """

    source: SceneSet
    facts: tuple[SceneFacts, ...]
    statistics: SetStatistics
    offsets: tuple[Offset, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "name": self.source.name,
            "kind": self.source.kind,
            "reading": self.source.reading,
            "classes": list(self.source.classes),
            "building": self.source.classes[self.source.building_class],
            "notes": list(self.source.notes),
            "summary": self.statistics.to_json(),
            "offsets": [asdict(offset) for offset in self.offsets],
            "scenes": [_scene_json(f) for f in self.facts],
        }


@dataclass(frozen=True)
class Audit:
    """The result of `rooftrace inspect`.

    Args:
        data: The set.
        against: The other set, if one was given.
        comparison: Comparison of the two sets.
        findings: All findings, the worst first.
        summary: Main facts, and what to do first.
    """

    data: SetAudit
    against: SetAudit | None
    comparison: SetComparison | None
    findings: tuple[Finding, ...]
    summary: AuditSummary

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of `rooftrace inspect --json`; its keys are a contract."""
        return {
            "verdict": asdict(self.summary),
            "findings": [asdict(finding) for finding in self.findings],
            "data": self.data.to_json(),
            "against": None if self.against is None else self.against.to_json(),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }


def run_audit(
    source: SceneSet,
    against: SceneSet | None = None,
    *,
    progress: Progress | None = None,
) -> Audit:
    """Measure every scene of a set, and of another set to compare it with.

    A scene that cannot be read is a finding, not an error.

    Args:
        source: The set, usually the training data.
        against: The set to compare with, usually the images that the model is for. It needs no
            labels.
        progress: Function called with the number of finished scenes and the number of all scenes.
    """
    total = sum(_count(s) for s in (source, against) if s is not None)
    first = _measure(source, 0, total, progress)
    second = None if against is None else _measure(against, _count(source), total, progress)
    found = [
        *findings_of(first.facts, first.source),
        *offset_findings(first.offsets, first.source.label_shift_px),
        *duplicate_findings(
            first.facts,
            None if second is None else second.facts,
            source_a=first.source,
            source_b=None if second is None else second.source,
        ),
    ]
    comparison = None
    if second is not None:
        found += _findings_of_other(second)
        comparison = compare_sets(
            first.facts, second.facts, estimate_scale(first.source, second.source)
        )
        found += shift_findings(comparison)
    found = worst_first(found)
    summary = summarize_audit(source.name, first.statistics, found)
    return Audit(first, second, comparison, tuple(found), summary)


def _findings_of_other(other: SetAudit) -> list[Finding]:
    """Return the findings about the other set as notes, because nothing is trained on it."""
    return [
        replace(
            finding,
            key=f"other.{finding.key}",
            severity="note",
            title=f"{other.source.name}: {finding.title}",
        )
        for finding in findings_of(other.facts, other.source)
        if finding.severity != "note"
    ]


def _count(source: SceneSet) -> int:
    return len(source.entries) + len(source.unlabelled)


def _measure(source: SceneSet, before: int, total: int, progress: Progress | None) -> SetAudit:
    def report(done: int, _of: int) -> None:
        if progress is not None:
            progress(before + done, total)

    whole = source.with_unlabelled()
    facts = measure_set(whole, progress=report)
    statistics = compute_statistics(facts, len(source.classes), source.building_class)
    offsets = estimate_offsets(source, facts)
    return SetAudit(whole, facts, statistics, offsets)


def _scene_json(facts: SceneFacts) -> dict[str, Any]:
    values = asdict(facts)
    values["phash"] = f"{facts.phash:016x}"
    if isinstance(facts.label, LabelFacts):
        values["label"]["buildings_px"] = facts.label.buildings_px.tolist()
    return values
