"""Label Studio: its exports read, its tasks and pre-annotations written."""

from __future__ import annotations

from rooftrace.data.labelstudio.read import read_export
from rooftrace.data.labelstudio.tasks import is_export
from rooftrace.data.labelstudio.write import label_config, predictions, write_export
from rooftrace.data.source import SourceKind

__all__ = ["LABELSTUDIO", "label_config", "predictions"]

LABELSTUDIO = SourceKind(
    "labelstudio",
    "Label Studio's JSON or JSON-MIN: polygons, brushes, rectangles and ellipses",
    is_export,
    read_export,
    write_export,
    frozenset({"annotator", "field", "images"}),
)
