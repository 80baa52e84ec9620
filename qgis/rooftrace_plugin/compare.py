"""`rooftrace compare`: the differences of two layers of buildings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputHtml,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
)

from .inputs import image_of, vector_file
from .run import LoadStyle, RooftraceAlgorithm

__all__ = ["CompareAlgorithm"]

_KEEP = ["none", "outlines of the old layer", "outlines of the new layer", "both"]
_KEEP_VALUES = ["", "old", "new", "both"]


class CompareAlgorithm(RooftraceAlgorithm):
    """`rooftrace compare`."""

    NAME = "compare"
    TITLE = "Compare two layers of buildings"
    PURPOSE = (
        "Finds which buildings are new, gone, changed, moved, split or merged between an old and a "
        "new layer, such as a map and a prediction. The layers may have different coordinate "
        "systems."
    )
    TAGS = ("change detection", "conflation", "difference", "update", "openstreetmap")

    def initAlgorithm(self, configuration: Any = None) -> None:
        polygons = [QgsProcessing.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource("NEW", "New buildings", polygons),
            "Layer of polygons, such as the result of a prediction.",
        )
        self.add(
            QgsProcessingParameterFeatureSource("OLD", "Old buildings", polygons),
            "Layer of polygons, such as the buildings of a map.",
        )
        self.add(
            QgsProcessingParameterRasterLayer("IMAGERY", "Image of the new layer", optional=True),
            "A building is gone only where this image has valid pixels; elsewhere it is outside. "
            "Empty: the bounding box of the new layer counts as seen.",
            "--imagery",
        )
        self.add(
            QgsProcessingParameterBoolean("REMOVE_OFFSET", "Remove the offset", False),
            "Moves the new layer onto the old one by their systematic offset before they are "
            "compared. The offset is reported in any case.",
            "--remove-offset",
        )
        self.add_number(
            "SAME_IOU", "--same-iou", "Minimum IoU of a building that is the same",
            "Area of the intersection divided by the area of the union. Empty: 0.6.", 0.5, 1.0,
        )  # fmt: skip
        self.add(
            QgsProcessingParameterEnum("KEEP", "One layer without duplicates", _KEEP, False, 0),
            "Also writes conflated.gpkg, with the attributes of the old layer. both: new outlines "
            "only where a building changed.",
            "--keep",
        )
        self.add_last("compare")
        vector = QgsProcessing.TypeVectorPolygon
        self.addOutput(QgsProcessingOutputVectorLayer("STATUSES", "Statuses", vector))
        self.addOutput(QgsProcessingOutputVectorLayer("CONFLATED", "One layer", vector))
        self.addOutput(QgsProcessingOutputHtml("REPORT", "Report"))

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        new, old = (
            vector_file(self, parameters, name, context, feedback) for name in ("NEW", "OLD")
        )
        found = ["compare", str(new), str(old), "-o", str(self.out)]
        imagery = self.parameterAsRasterLayer(parameters, "IMAGERY", context)
        if imagery is not None:
            found += ["--imagery", image_of(imagery)]
        if self.parameterAsBoolean(parameters, "REMOVE_OFFSET", context):
            found.append("--remove-offset")
        keep = _KEEP_VALUES[self.parameterAsEnum(parameters, "KEEP", context)]
        found += ["--keep", keep] if keep else []
        return found

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        for status, row in answer["statuses"].items():
            feedback.pushInfo(f"{status}: {row['new']:,} new, {row['old']:,} old buildings")
        offset = answer["offset"]
        if offset is not None:
            feedback.pushInfo(
                f"Offset of the new layer: {offset['east_m']:+.2f} m east, "
                f"{offset['north_m']:+.2f} m north"
            )
        files = {Path(file).name: Path(file) for file in answer["files"]}
        found = {"OUTPUT": str(self.out), "REPORT": str(files["report.html"])}
        if "conflated.gpkg" in files:
            found["CONFLATED"] = self.load(
                files["conflated.gpkg"], "one layer", "CONFLATED", LoadStyle.named(""), context
            )
        found["STATUSES"] = self.load(
            files["compare.gpkg"], "compared buildings", "STATUSES", LoadStyle.named("compare"),
            context,
        )  # fmt: skip
        return found
