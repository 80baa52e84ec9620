"""The control of a Label Studio labelling interface that receives the predicted regions.

https://labelstud.io/tags describes the XML. Label Studio sends the interface with each request, so
settings are kept there: attributes of the control that begin with `rooftrace_`, and
`predicted_values` of a `<Label>`, which other ML backends also read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal
from xml.etree import ElementTree

from pydantic import Field

from rooftrace.core.config import Config, did_you_mean, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.labels.labelstudio import Control
from rooftrace.labels.labelstudio_export import UNKNOWN_LABEL
from rooftrace.models.spec import BundleSpec

ControlKind = Literal["polygon", "brush", "rectangle"]

_TAGS: dict[str, ControlKind] = {
    "PolygonLabels": "polygon",
    "BrushLabels": "brush",
    "RectangleLabels": "rectangle",
}
"""Kind by tag, in order of preference: annotators correct outlines most easily."""

_PREFIX = "rooftrace_"
_MAX_XML_CHARS = 1_000_000

# A document type declaration, the only place for entities. Comments and CDATA are allowed.
_DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")


class ControlSettings(Config):
    """Attributes of a control, without their prefix `rooftrace_`.

    Args:
        gsd_m: Metres per pixel of images without a georeference.
        threshold: Threshold of the building probability; by default the model's own.
        min_area_m2: Minimum area of a building.
    """

    gsd_m: Annotated[float, Field(gt=0)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    min_area_m2: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True)
class LabelControl:
    """The control of an interface that receives the predicted regions.

    Args:
        kind: Kind of region.
        control: Names of the control and its image in results.
        key: Key of the image in a task's data.
        labels: Label by class index of the model, without classes that have no label.
        shows_unknown: Whether the control has the label for pixels of unknown class.
        settings: Settings of the control's attributes.
    """

    kind: ControlKind
    control: Control
    key: str
    labels: dict[int, str]
    shows_unknown: bool
    settings: ControlSettings


def read_interface(xml: str, spec: BundleSpec) -> LabelControl:
    """Return the control of an interface that receives the regions of a model.

    Args:
        xml: Labelling interface.
        spec: Description of the model. Its classes are matched with the labels and their
            `predicted_values`, ignoring case.

    Raises:
        ConfigError: The XML cannot be read, has no control for regions of an image, has no label
            for a class of the model, or has a wrong attribute.
    """
    candidates = list(_candidates(_parsed(xml), spec))
    if not candidates:
        raise ConfigError(
            "The labelling interface has none of "
            f'{", ".join(f"<{tag}>" for tag in _TAGS)} on an <Image value="$…">.',
            remedy="Add one of them, with a <Label> for each class of the model: "
            f"{', '.join(spec.classes[1:])}.",
        )
    order = list(_TAGS.values())
    usable = [control for control, _ in candidates if control.labels]
    if usable:
        return min(usable, key=lambda control: order.index(control.kind))
    labels_of_all = dict.fromkeys(label for _, labels in candidates for label in labels)
    building = spec.classes[spec.building_class]
    raise ConfigError(
        f"The labelling interface has no label {building!r}, a class of the model. "
        f"{did_you_mean(building, labels_of_all)}".strip(),
        remedy=f'Add it, or assign it to a label: <Label value="…" predicted_values="{building}"/>.'
        f" Labels of the interface: {', '.join(labels_of_all) or 'none'}.",
    )


def _parsed(xml: str) -> ElementTree.Element:
    if len(xml) > _MAX_XML_CHARS:
        raise _unreadable(f"it has {len(xml):,} characters, more than {_MAX_XML_CHARS:,}")
    if _DECLARATION.search(xml):
        raise _unreadable("it has a document type declaration, which is not allowed")
    try:
        # There are no entities without a document type.
        return ElementTree.fromstring(xml)  # noqa: S314  # nosec B314
    except (ElementTree.ParseError, ValueError) as error:
        raise _unreadable(str(error)) from error


def _unreadable(why: str) -> ConfigError:
    return ConfigError(
        f"The labelling interface cannot be read as XML: {why}.",
        remedy="Save it again in the project's settings.",
    )


def _candidates(
    root: ElementTree.Element, spec: BundleSpec
) -> Iterator[tuple[LabelControl, tuple[str, ...]]]:
    """Yield the controls for regions of an image, each with all its labels."""
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
        control = LabelControl(
            kind, Control(name, on[0]), images[on[0]], mapped, UNKNOWN_LABEL in labels, settings
        )
        yield control, tuple(labels)


def _settings(attributes: dict[str, str], name: str) -> ControlSettings:
    source = f"The attributes {_PREFIX}… of {name!r} in the labelling interface"
    try:
        return parse_config(dict(attributes), ControlSettings, source=source)
    except ConfigError as error:
        names = ", ".join(_PREFIX + key for key in ControlSettings.model_fields)
        raise ConfigError(
            error.message, remedy=f"Correct it; the attributes are {names}."
        ) from error


def _labels(control: ElementTree.Element) -> dict[str, tuple[str, ...]]:
    """Return the labels of a control, each with the class names that match it."""
    labels = {}
    for label in control.iter("Label"):
        value, alias = label.get("value", ""), label.get("alias", "")
        classes = [part.strip() for part in label.get("predicted_values", "").split(",")]
        if value or alias:
            labels[alias or value] = tuple(name for name in (*classes, value, alias) if name)
    return labels


def _mapped(labels: dict[str, tuple[str, ...]], spec: BundleSpec) -> dict[int, str]:
    mapped: dict[int, str] = {}
    for index, wanted in enumerate(spec.classes):
        for label, names in labels.items():
            if index and wanted.casefold() in (name.casefold() for name in names):
                mapped.setdefault(index, label)
    return mapped
