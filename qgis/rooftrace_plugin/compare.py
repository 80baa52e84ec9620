"""`rooftrace compare`: the differences of two layers of buildings, or of two images."""

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
    QgsProcessingParameterField,
    QgsProcessingParameterRasterLayer,
)

from .command import RooftraceProblem
from .inputs import vector_file
from .run import LoadStyle, RooftraceAlgorithm

_KEEP = ["none", "outlines of the old layer", "outlines of the new layer", "both"]
_KEEP_VALUES = ["", "old", "new", "both"]


class CompareAlgorithm(RooftraceAlgorithm):
    """`rooftrace compare`."""

    NAME = "compare"
    TITLE = "Compare two layers of buildings, or two images"
    PURPOSE = (
        "Finds which buildings are new, gone, changed, moved, split or merged between an old and a "
        "new layer, such as a map and a prediction, or between images of two dates. Give two "
        "layers, or two images. They may have different coordinate systems."
    )
    TAGS = ("change detection", "conflation", "difference", "update", "openstreetmap")

    def initAlgorithm(self, configuration: Any = None) -> None:
        polygons = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource("NEW", "New buildings", polygons, None, True),
            "Layer of polygons, such as the result of a prediction.",
        )
        self.add(
            QgsProcessingParameterFeatureSource("OLD", "Old buildings", polygons, None, True),
            "Layer of polygons, such as the buildings of a map.",
        )
        self.add(
            QgsProcessingParameterField(
                "ID", "Ids of the old buildings", None, "OLD", optional=True
            ),
            "Column whose values name the buildings in the results. Empty: a usual one, such as id "
            "or osm_id, else the number of the row.",
            "--id",
        )
        self.add(
            QgsProcessingParameterBoolean("REFERENCE", "Old buildings are of the same time", False),
            "For a map such as a cadastre: buildings without a match are only found, or only in "
            "the map, in place of new and gone. The report gives recall and precision.",
            "--reference",
        )
        for name, label in (("NEW_IMAGE", "Image of the new date"),
                            ("OLD_IMAGE", "Image of the old date")):  # fmt: skip
            self.add(
                QgsProcessingParameterRasterLayer(name, label, optional=True),
                "In place of the buildings: both images are predicted with one model, and a change "
                "counts only where the probabilities of both dates are sure of it.",
            )
        self.add_model("Model of the images", "-m")
        self.add_number(
            "THRESHOLD", "--threshold", "Threshold of the images",
            "Minimum probability of a pixel of a building. Empty: the threshold of the model.",
            0.0, 1.0,
        )  # fmt: skip
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
        vector = QgsProcessing.SourceType.TypeVectorPolygon
        self.addOutput(QgsProcessingOutputVectorLayer("STATUSES", "Statuses", vector))
        self.addOutput(QgsProcessingOutputVectorLayer("CONFLATED", "One layer", vector))
        self.addOutput(QgsProcessingOutputHtml("REPORT", "Report"))

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        given = [
            name for name in ("NEW", "OLD", "NEW_IMAGE", "OLD_IMAGE")
            if parameters.get(name) not in (None, "")
        ]  # fmt: skip
        found = ["compare"]
        if given == ["NEW", "OLD"]:
            model = self.parameterAsString(parameters, "MODEL", context)
            if model:
                raise RooftraceProblem("“Model of the images” has no meaning for two layers.")
            new, old = (vector_file(self, parameters, name, context, feedback) for name in given)
            is_map = self.parameterAsBoolean(parameters, "REFERENCE", context)
            found += [str(new), *(["--reference"] if is_map else []), str(old)]
            column = self.parameterAsString(parameters, "ID", context)
            found += [f"--id={column}"] if column else []
        elif given == ["NEW_IMAGE", "OLD_IMAGE"]:
            found += [str(self.image(parameters, name, context)) for name in given]
            found += ["-m", self.parameterAsString(parameters, "MODEL", context) or "default"]
        else:
            labels = [f"“{self.parameterDefinition(name).description()}”" for name in given]
            raise RooftraceProblem(
                f"{', '.join(labels) or 'Nothing'} was given. Give either “New buildings” and “Old "
                "buildings”, or “Image of the new date” and “Image of the old date”."
            )
        found += ["-o", str(self.out)]
        imagery = self.image(parameters, "IMAGERY", context)
        found += ["--imagery", imagery] if imagery else []
        if self.parameterAsBoolean(parameters, "REMOVE_OFFSET", context):
            found.append("--remove-offset")
        keep = _KEEP_VALUES[self.parameterAsEnum(parameters, "KEEP", context)]
        found += ["--keep", keep] if keep else []
        return found

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        agreed = answer.get("against_map")
        if agreed:
            feedback.pushInfo(
                f"{agreed['pairs']:,} of {agreed['mapped']:,} buildings of the map found one to "
                f"one; {agreed['only_found']:,} of {agreed['found']:,} only found, "
                f"{agreed['only_map']:,} only in the map"
            )
        for status, row in () if agreed else answer["statuses"].items():
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
                files["conflated.gpkg"], "one layer", "CONFLATED", LoadStyle.of_file(), context
            )
        found["STATUSES"] = self.load(
            files["compare.gpkg"], "compared buildings", "STATUSES", LoadStyle.named("compare"),
            context,
        )  # fmt: skip
        return found
