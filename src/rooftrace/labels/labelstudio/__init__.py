"""Read Label Studio exports, and write tasks and pre-annotations."""

from __future__ import annotations

from rooftrace.labels.labelstudio.export import holds_export, read_exports
from rooftrace.labels.labelstudio.write import label_config, predictions, write_export
from rooftrace.labels.source import SourceKind

__all__ = ["LABELSTUDIO", "label_config", "predictions"]

LABELSTUDIO = SourceKind(
    "labelstudio",
    "Label Studio's JSON or JSON-MIN: polygons, brushes, rectangles and ellipses",
    holds_export,
    read_exports,
    write_export,
    frozenset({"annotator", "field", "images"}),
)
