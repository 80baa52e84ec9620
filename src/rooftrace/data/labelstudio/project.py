"""Projects of a Label Studio server: found by number or title, and where polygons belong in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rooftrace.core.config import nearest
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.labelstudio.client import LabelStudio
from rooftrace.data.labelstudio.write import Control

__all__ = ["PolygonTool", "find_project", "number_of", "polygon_tool"]

_SHORTEST_TITLE, _LONGEST_TITLE = 3, 50


@dataclass(frozen=True)
class PolygonTool:
    """Where the polygons of a class belong in a project.

    Args:
        control: of the polygons.
        label: the class, as the project writes it.
        key: of a task's data, under which its image is named.
    """

    control: Control
    label: str
    key: str


def find_project(server: LabelStudio, project: str) -> dict[str, Any] | None:
    """The project of a number, or of a title; None where there is none of that title.

    Raises:
        ConfigError: no project of that number, several of that title, or no title at all.
    """
    if project.isdecimal() and project.isascii():
        return server.project(int(project))
    if not _SHORTEST_TITLE <= len(project) <= _LONGEST_TITLE or not project.isprintable():
        raise ConfigError(
            f"--project received {project!r}; expected a number, or a title of {_SHORTEST_TITLE} "
            f"to {_LONGEST_TITLE} signs.",
            remedy="The number stands in the address of the project's page.",
        )
    found = server.projects_named(project)
    if len(found) > 1:
        raise ConfigError(
            f"{server.url} has {len(found)} projects called {project!r}: "
            f"{', '.join(str(one.get('id')) for one in found)}.",
            remedy="Say which by its number.",
        )
    return found[0] if found else None


def number_of(project: Mapping[str, Any]) -> int:
    """Raises DataError where the server's answer has no number."""
    number = project.get("id")
    if not isinstance(number, int):
        raise DataError(f"The server's project has the number {number!r}; expected an integer.")
    return number


def polygon_tool(project: Mapping[str, Any], building: str) -> PolygonTool:
    """Where the project's labelling configuration takes polygons of buildings.

    Raises:
        ConfigError: it has no `<PolygonLabels>` on an image, or none with such a label.
    """
    parsed = project.get("parsed_label_config")
    labels: list[str] = []
    for name, control in parsed.items() if isinstance(parsed, dict) else ():
        tool = _tool(str(name), control)
        if tool is None:
            continue
        to_name, key, names = tool
        for label in names:
            if label.casefold() == building.casefold():
                return PolygonTool(Control(str(name), to_name), label, key)
        labels += names
    title = project.get("title")
    if not labels:
        raise ConfigError(
            f"The project {title!r} has no <PolygonLabels> on an <Image>, which predictions need.",
            remedy="Add them to its labelling interface, or let a new project be made: give a "
            "title that is not taken.",
        )
    raise ConfigError(
        f"The project {title!r} has no polygon label {building!r}, as the model calls it. "
        f"{nearest(building, labels)}".strip(),
        remedy=f"Add it to its labelling interface; it has {', '.join(labels)}.",
    )


def _tool(name: str, control: object) -> tuple[str, str, list[str]] | None:
    """What a control labels, under which key its image is, and its labels, if it draws polygons."""
    match control:
        case {
            "type": "PolygonLabels",
            "to_name": [str(to_name), *_],
            "inputs": [{"type": "Image", "value": str(key)}, *_],
            "labels": [*labels],
        }:
            return to_name, key, [label for label in labels if isinstance(label, str)]
    return None
