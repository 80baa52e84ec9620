"""An audit: everything that is known of a set, and of the set that it was held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rooftrace.data.audit.copies import duplicate_findings
from rooftrace.data.audit.facts import Finding, LabelFacts, Offset, SceneFacts
from rooftrace.data.audit.findings import findings_of
from rooftrace.data.audit.offset import estimate_offsets, offset_findings
from rooftrace.data.audit.run import measure_set
from rooftrace.data.audit.scale import estimate_scale
from rooftrace.data.audit.shift import Comparison, compare, shift_findings
from rooftrace.data.audit.summary import Summary, summarise
from rooftrace.data.audit.verdict import Verdict, conclude
from rooftrace.data.source import SceneSet

__all__ = ["Audit", "SetAudit", "run_audit"]

_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class SetAudit:
    """One set, measured.

    Args:
        source: all its scenes, those without a label among them.
        facts: of each, in its order.
        offsets: of the scenes on which the place of the label was estimated.
    """

    source: SceneSet
    facts: tuple[SceneFacts, ...]
    summary: Summary
    offsets: tuple[Offset, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.source.name,
            "kind": self.source.kind,
            "reading": self.source.reading,
            "classes": list(self.source.classes),
            "building": self.source.classes[self.source.building_class],
            "notes": list(self.source.notes),
            "summary": self.summary.to_json(),
            "offsets": [asdict(offset) for offset in self.offsets],
            "scenes": [_scene_json(f) for f in self.facts],
        }


@dataclass(frozen=True)
class Audit:
    """What `rooftrace inspect` found.

    Args:
        data: the set.
        against: the other set, if one was given.
        comparison: of both.
        findings: the worst first.
    """

    data: SetAudit
    against: SetAudit | None
    comparison: Comparison | None
    findings: tuple[Finding, ...]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The contract of `rooftrace inspect --json`."""
        return {
            "verdict": asdict(self.verdict),
            "findings": [asdict(finding) for finding in self.findings],
            "data": self.data.to_json(),
            "against": None if self.against is None else self.against.to_json(),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }


def run_audit(
    source: SceneSet,
    against: SceneSet | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Measure every scene of a set, and of another to hold it against.

    Args:
        source: the set, usually what a model is to be trained on.
        against: usually what the model will be used on; may have no labels.
        progress: called with the scenes that are done and that there are.

    A scene that cannot be read is a finding, and not an error.
    """
    total = sum(_count(s) for s in (source, against) if s is not None)
    first = _measured(source, 0, total, progress)
    second = None if against is None else _measured(against, _count(source), total, progress)
    found = [
        *findings_of(first.facts, first.source),
        *offset_findings(first.offsets),
        *duplicate_findings(
            first.facts,
            None if second is None else second.facts,
            source_a=first.source,
            source_b=None if second is None else second.source,
        ),
    ]
    comparison = None
    if second is not None:
        found += _of_the_other(second)
        comparison = compare(first.facts, second.facts, estimate_scale(first.source, second.source))
        found += shift_findings(comparison)
    found.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    verdict = conclude(source.name, first.summary, found)
    return Audit(first, second, comparison, tuple(found), verdict)


def _of_the_other(other: SetAudit) -> list[Finding]:
    """What is wrong with the set that is held against: it is not trained on, but compared with."""
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


def _measured(
    source: SceneSet, before: int, total: int, progress: Callable[[int, int], None] | None
) -> SetAudit:
    def report(done: int, _of: int) -> None:
        if progress is not None:
            progress(before + done, total)

    whole = source.with_unlabelled()
    facts = measure_set(whole, progress=report)
    summary = summarise(facts, len(source.classes), source.building_class)
    offsets = estimate_offsets(source, facts)
    return SetAudit(whole, facts, summary, offsets)


def _scene_json(facts: SceneFacts) -> dict[str, Any]:
    values = asdict(facts)
    values["phash"] = f"{facts.phash:016x}"
    if isinstance(facts.label, LabelFacts):
        values["label"]["buildings_px"] = facts.label.buildings_px.tolist()
    return values
