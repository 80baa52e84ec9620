"""Read what the values or colours of masks mean from the files that label tools put beside them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rooftrace.core.errors import LabelError
from rooftrace.core.text import reason_of
from rooftrace.labels.config import LabelConfig

Legend = dict[str, int | str]
"""Value, or colour as `#RRGGBB`, of each class by name."""

_USUAL = LabelConfig()


def with_legend(
    labels: LabelConfig, folder: Path, root: Path, usual: Mapping[str, Any]
) -> tuple[LabelConfig, tuple[str, ...]]:
    """Return the meaning of masks, and a note if it is not that of `labels`.

    What the user gave goes first, then a legend in the folder or around it, then the values that
    are usual for the layout.

    Args:
        labels: Meaning that the user gave.
        folder: Base folder of the layout.
        root: Folder in which the search for a legend ends.
        usual: Fields of `LabelConfig` that the layout has.

    Raises:
        LabelError: A legend cannot be read, or it does not say which class is the building.
    """
    if labels.classes != _USUAL.classes or labels.building != _USUAL.building:
        return labels, ()
    if labels.palette or labels.values or labels.instances:
        return labels, ()
    for place in (folder, *folder.parents):
        for file, read in _legends(place):
            try:
                legend = read(file)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise LabelError(
                    f"{file} cannot be read as a legend of masks: {reason_of(error)}.",
                    remedy="Correct it, or remove it and give labels.values or labels.palette.",
                ) from error
            if len(legend) > 1:
                return _as_config(labels, legend, file), (f"Masks are read by {file}.",)
        if place == root:
            break
    if not usual:
        return labels, ()
    ignored = tuple(dict.fromkeys((*usual.get("ignore", ()), *labels.ignore)))
    listed = ", ".join(f"{key} = {value}" for key, value in usual.items())
    note = f"Masks are read with what is usual for this layout: {listed}."
    return labels.model_copy(update={**usual, "ignore": ignored}), (note,)


def _as_config(labels: LabelConfig, legend: Legend, file: Path) -> LabelConfig:
    rule, _ = labels.name_rule().fitted(legend, str(file), unsure=True)
    classes: dict[str, list[int | str]] = {"background": [], "building": []}
    for name, value in legend.items():
        index = rule.index_of(name, str(file)) or 0
        classes[labels.classes[index]].append(value)
    key = "palette" if isinstance(next(iter(legend.values())), str) else "values"
    return labels.model_copy(update={key: {name: tuple(row) for name, row in classes.items()}})


def _legends(folder: Path) -> Iterator[tuple[Path, Any]]:
    for name, read in (
        ("labelmap.txt", _labelmap), ("_classes.csv", _table), ("class_dict.csv", _table),
        ("label_class_dict.csv", _table), ("dataset.json", _nnunet),
    ):  # fmt: skip
        if (folder / name).is_file():
            yield folder / name, read
    for file in sorted(folder.glob("*.emd")) if folder.is_dir() else ():
        yield file, _emd


def _hex(colour: Iterator[Any] | list[Any]) -> str:
    return "#{:02X}{:02X}{:02X}".format(*(int(part) for part in list(colour)[:3]))


def _labelmap(file: Path) -> Legend:
    """Read CVAT's `label:color_rgb:parts:actions`."""
    lines = (line for line in file.read_text("utf-8").splitlines() if line and line[0] != "#")
    rows = (line.split(":") for line in lines)
    # Datumaro leaves the colours of masks of indices out.
    return {row[0]: _hex(row[1].split(",")) for row in rows if row[1]}


def _table(file: Path) -> Legend:
    """Read Roboflow's `Pixel Value, Class`, or a table of `name,r,g,b`."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = [[cell.strip() for cell in row] for row in csv.reader(opened) if row]
    if len(rows[0]) == 2:
        return {name: int(value) for value, name in rows[1:]}
    return {row[0]: _hex(row[1:4]) for row in rows[1:]}


def _nnunet(file: Path) -> Legend:
    labels: dict[str, Any] = json.loads(file.read_bytes()).get("labels", {})
    # Version 1 maps values to names, version 2 names to values.
    if any(isinstance(value, str) for value in labels.values()):
        return {name: int(value) for value, name in labels.items()}
    return labels


def _emd(file: Path) -> Legend:
    """Read the classes of an ArcGIS Pro model definition; value 0 is the background."""
    classes = json.loads(file.read_bytes()).get("Classes", [])
    legend: Legend = {"background": 0}
    return legend | {one["Name"]: int(one["Value"]) for one in classes}
