"""Which regions the labelling interface of a project takes, by its XML.

https://labelstud.io/tags. Label Studio sends the interface with each request, so that what is
chosen there need not be kept here: attributes of the control that begin with `rooftrace_`, and
`predicted_values` of a `<Label>`, which other ML backends read, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal
from xml.etree import ElementTree

from pydantic import Field

from rooftrace.core.config import Config, nearest, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.data.labelstudio.read import UNKNOWN_LABEL
from rooftrace.data.labelstudio.write import Control
from rooftrace.models.spec import BundleSpec

__all__ = ["Settings", "Tool", "ToolKind", "read_interface"]

ToolKind = Literal["polygon", "brush", "rectangle"]

_TAGS: dict[str, ToolKind] = {
    "PolygonLabels": "polygon",
    "BrushLabels": "brush",
    "RectangleLabels": "rectangle",
}
"""In this order, where an interface has several: an outline is the easiest to correct."""

_PREFIX = "rooftrace_"
_MOST_SIGNS = 1_000_000

# Comments and CDATA apart: a document type, which alone can hold entities.
_DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")


class Settings(Config):
    """What a control's attributes say, without their `rooftrace_`.

    Args:
        gsd_m: metres per pixel of images whose georeference does not say.
        threshold: on the building's probability; default the model's own.
        min_area_m2: smaller buildings are left out.
        fill: whether this control is filled, where the interface has several.
    """

    gsd_m: Annotated[float, Field(gt=0)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    min_area_m2: Annotated[float, Field(ge=0)] | None = None
    fill: bool = False


@dataclass(frozen=True)
class Tool:
    """The control of an interface that is filled.

    Args:
        kind: what is drawn with it.
        control: the names that results go by.
        key: of a task's data, under which its image is named.
        labels: names by class index of the model; a class without one is left out.
        shows_unknown: whether it has the label for pixels about which nothing is known.
        settings: of its attributes.
    """

    kind: ToolKind
    control: Control
    key: str
    labels: dict[int, str]
    shows_unknown: bool
    settings: Settings


def read_interface(xml: str, spec: BundleSpec) -> Tool:
    """The control that the regions of a model belong to.

    Args:
        xml: the labelling interface.
        spec: of the model; its classes are looked for among the labels, in whatever case, and
            among their `predicted_values`.

    Raises:
        ConfigError: the XML cannot be read; it has no control for regions of an image; none of
            the model's classes is a label of it; an attribute is wrong.
    """
    found = list(_candidates(_parsed(xml), spec))
    if not found:
        raise ConfigError(
            "The labelling interface has none of "
            f'{", ".join(f"<{tag}>" for tag in _TAGS)} on an <Image value="$…">.',
            remedy="Add one of them to it, with a <Label> for each class of the model: "
            f"{', '.join(spec.classes[1:])}.",
        )
    asked = [tool for tool, _ in found if tool.settings.fill]
    if len(asked) > 1:
        names = ", ".join(tool.control.name for tool in asked)
        raise ConfigError(
            f'The labelling interface has rooftrace_fill="true" {len(asked)} times ({names}).',
            remedy="Leave it at the one control that is to be filled.",
        )
    order = list(_TAGS.values())
    usable = asked or [tool for tool, _ in found if tool.labels]
    if usable and usable[0].labels:
        return min(usable, key=lambda tool: order.index(tool.kind))
    known = dict.fromkeys(label for _, labels in found for label in labels)
    wanted = spec.classes[spec.building_class]
    raise ConfigError(
        f"The labelling interface has no label {wanted!r}, as the model calls it. "
        f"{nearest(wanted, known)}".strip(),
        remedy=f'Add it, or say which label it is: <Label value="…" predicted_values="{wanted}"/>. '
        f"There are {', '.join(known) or 'none'}.",
    )


def _parsed(xml: str) -> ElementTree.Element:
    if len(xml) > _MOST_SIGNS:
        raise _unreadable(f"it has {len(xml):,} signs, more than {_MOST_SIGNS:,}")
    if _DECLARATION.search(xml):
        raise _unreadable("it has a document type, which none needs")
    try:
        return ElementTree.fromstring(xml)  # noqa: S314  no entity without a document type
    except (ElementTree.ParseError, ValueError) as error:
        raise _unreadable(str(error)) from error


def _unreadable(why: str) -> ConfigError:
    return ConfigError(
        f"The labelling interface cannot be read as XML: {why}.",
        remedy="Save it again in the project's settings.",
    )


def _candidates(
    root: ElementTree.Element, spec: BundleSpec
) -> Iterator[tuple[Tool, tuple[str, ...]]]:
    """The controls that can be filled, with all their labels."""
    images = {
        str(image.get("name")): image.get("value", "")[1:]
        for image in root.iter("Image")
        if image.get("value", "").startswith("$")
    }
    for element in root.iter():
        kind = _TAGS.get(str(element.tag))
        if kind is None:
            continue
        name = element.get("name", "")
        on = [one for one in element.get("toName", "").split(",") if images.get(one)]
        if not name or not on:
            continue
        own = {
            key.removeprefix(_PREFIX): value
            for key, value in element.attrib.items()
            if key.startswith(_PREFIX)
        }
        settings = _settings(own, name)
        labels = _labels(element)
        mapped = _mapped(labels, spec)
        tool = Tool(
            kind, Control(name, on[0]), images[on[0]], mapped, UNKNOWN_LABEL in labels, settings
        )
        yield tool, tuple(labels)


def _settings(attributes: dict[str, str], name: str) -> Settings:
    source = f"The attributes {_PREFIX}… of {name!r} in the labelling interface"
    try:
        return parse_config(dict(attributes), Settings, source=source)
    except ConfigError as error:
        known = ", ".join(_PREFIX + key for key in Settings.model_fields)
        raise ConfigError(error.message, remedy=f"Correct it; there are {known}.") from error


def _labels(control: ElementTree.Element) -> dict[str, tuple[str, ...]]:
    """Names in results, each with what a model may call it."""
    labels = {}
    for label in control.iter("Label"):
        value, alias = label.get("value", ""), label.get("alias", "")
        told = [part.strip() for part in label.get("predicted_values", "").split(",")]
        if value or alias:
            labels[alias or value] = tuple(name for name in (*told, value, alias) if name)
    return labels


def _mapped(labels: dict[str, tuple[str, ...]], spec: BundleSpec) -> dict[int, str]:
    mapped: dict[int, str] = {}
    for index, wanted in enumerate(spec.classes):
        for label, names in labels.items():
            if index and wanted.casefold() in (name.casefold() for name in names):
                mapped.setdefault(index, label)
    return mapped
