"""What all findings about one set are made from and put in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rooftrace.data.audit.facts import MOST_IDS, Finding, LabelFacts, SceneFacts, Severity
from rooftrace.data.source import SceneSet

__all__ = ["Told", "plural", "share", "tell"]

Labelled = tuple[SceneFacts, LabelFacts]


@dataclass(frozen=True)
class Told:
    """The facts of a set, as findings ask for them.

    Args:
        facts: of every scene.
        source: the set.
    """

    facts: tuple[SceneFacts, ...]
    source: SceneSet

    @cached_property
    def read(self) -> list[SceneFacts]:
        """Scenes whose image could be read."""
        return [f for f in self.facts if not f.image_error]

    @cached_property
    def shown(self) -> list[SceneFacts]:
        """Those that show anything but nodata."""
        return [f for f in self.read if f.valid_share > 0]

    @cached_property
    def labelled(self) -> list[Labelled]:
        """Scenes whose label could be read, with it."""
        return [(f, f.label) for f in self.read if f.label is not None]

    @cached_property
    def buildings(self) -> int:
        """Of all labels."""
        return sum(len(label.buildings_px) for _, label in self.labelled)

    @cached_property
    def class_px(self) -> list[int]:
        """Valid pixels of each class."""
        return [sum(px) for px in zip(*(label.class_px for _, label in self.labelled))]

    def built_up(self, facts: SceneFacts) -> float:
        """Share of buildings, 0 where nothing is known."""
        return facts.built_up(self.source.building_class) or 0.0


def tell(
    key: str,
    severity: Severity,
    title: str,
    scenes: Sequence[SceneFacts] = (),
    *,
    detail: str = "",
    remedy: str = "",
    by: Callable[[SceneFacts], float] | None = None,
) -> Finding:
    """A finding about `scenes`; those with the greatest `by` are the worst."""
    worst = scenes if by is None else sorted(scenes, key=by, reverse=True)
    ids = tuple(f.id for f in worst[:MOST_IDS])
    return Finding(key, severity, title, detail, remedy, ids, len(scenes))


def share(part: float, whole: float) -> str:
    """In per cent, with a digit where it is small: `0.4 %`."""
    value = 100 * part / whole if whole else 0.0
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2,000 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
