"""Every scene of a set, measured."""

from __future__ import annotations

from rooftrace.core.errors import RooftraceError
from rooftrace.data.audit.facts import SceneFacts
from rooftrace.data.audit.measure import measure_scene
from rooftrace.data.parallel import map_entries
from rooftrace.data.source import Entry, Progress, SceneSet

__all__ = ["measure_set"]


def measure_set(
    source: SceneSet, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[SceneFacts, ...]:
    """Measure every scene of a set.

    Args:
        source: with or without labels.
        workers, progress: see `data.parallel.map_entries`.

    Returns:
        Facts in the order of `source.entries`; see `measure_scene` for what cannot be read.

    Raises:
        DataError: see `data.parallel.map_entries`.
    """
    return map_entries(source, _measure_entry, workers=workers, progress=progress)


def _measure_entry(source: SceneSet, entry: Entry) -> SceneFacts:
    """Measure one scene of a set; one that cannot be opened is a fact, too."""
    try:
        scene = source.open_scene(entry)
    except RooftraceError as error:
        name = entry.id if entry.image is None else str(entry.image)
        return SceneFacts(entry.id, name, entry.group, image_error=error.message)
    return measure_scene(scene, source.classes, source.building_class)
