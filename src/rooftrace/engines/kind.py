"""What an entry of the registry of engines says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rooftrace.engines.base import Engine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import Output

__all__ = ["EngineKind", "Offers", "offered_by_graph"]

Offers = Mapping[str, tuple[str, ...]]
"""From a precision to the parts of a bundle that it is run from."""


@dataclass(frozen=True)
class EngineKind:
    """An engine that can be chosen by name.

    Args:
        name: of the registry.
        takes: what it runs, for people.
        build: from a bundle, the names of its parts, a precision and an output.
        offers: what it can make of a bundle; nothing is loaded for it.
        prefers: precisions, the fastest on this machine first.
        check: raises MissingExtraError where its package is missing, and ConfigError where it has
            nothing to run on.
    """

    name: str
    takes: str
    build: Callable[[ModelBundle, Sequence[str], str, Output], Engine]
    offers: Callable[[ModelBundle], Offers]
    prefers: Callable[[], Sequence[str]]
    check: Callable[[], None]


def offered_by_graph(
    bundle: ModelBundle, engine: str, precisions: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The variants of a bundle for an engine, and its plain graph in `precisions`."""
    offered: dict[str, tuple[str, ...]] = {
        v.precision: v.files for v in bundle.spec.variants if v.engine == engine
    }
    if GRAPH_NAME in bundle.parts:
        for plain in precisions:
            offered.setdefault(plain, (GRAPH_NAME,))
    return offered
