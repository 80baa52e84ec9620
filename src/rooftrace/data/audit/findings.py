"""What a person should know of one set before training on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rooftrace.data.audit import imagetrouble, labelerrors, labeltrouble
from rooftrace.data.audit.facts import Finding, SceneFacts
from rooftrace.data.audit.told import Told
from rooftrace.data.source import SceneSet

__all__ = ["findings_of"]

_CHECKS: tuple[Callable[[Told], Finding | None], ...] = (
    imagetrouble.unreadable,
    labelerrors.coloured,
    labelerrors.strange_values,
    labelerrors.other_size,
    labelerrors.unreadable,
    labeltrouble.no_building,
    imagetrouble.different_bands,
    imagetrouble.unmarked_nodata,
    imagetrouble.several_zooms,
    labeltrouble.inverted,
    labeltrouble.unused_classes,
    labeltrouble.whole_blocks,
    labeltrouble.empty,
    labeltrouble.full,
    labeltrouble.cut,
    labeltrouble.vanished,
    labeltrouble.unknown,
    labeltrouble.specks,
    labeltrouble.holes,
    imagetrouble.nothing_shown,
    imagetrouble.enlarged,
    imagetrouble.inner_nodata,
    imagetrouble.range_unused,
    imagetrouble.dark_or_bright,
    imagetrouble.unknown_gsd,
    imagetrouble.alpha_beside_none,
    imagetrouble.other_format,
)
"""Of the same severity, what comes first matters more."""

_SEVERITIES = ("error", "warning", "note")


def findings_of(facts: Sequence[SceneFacts], source: SceneSet) -> list[Finding]:
    """What is wrong or worth knowing, the worst first.

    Keys of images begin with `image.`, of labels with `label.`; `gsd.unknown` and `leakage.zooms`
    besides. Each key appears once at most.

    Args:
        facts: of every scene.
        source: the set.
    """
    told = Told(tuple(facts), source)
    found = [finding for check in _CHECKS if (finding := check(told)) is not None]
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))
