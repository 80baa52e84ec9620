"""`rooftrace heights`: how tall buildings are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputFile,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterLayer,
)

from .command import RooftraceProblem
from .inputs import image_of, vector_file
from .run import LoadStyle, RooftraceAlgorithm


class HeightsAlgorithm(RooftraceAlgorithm):
    """`rooftrace heights`."""

    NAME = "heights"
    TITLE = "Measure the heights of buildings"
    PURPOSE = (
        "Measures how tall buildings are, from a surface model or a laser scan: height with its "
        "90 % interval, shape of the roof, and a 3D city model (CityJSON)."
    )
    TAGS = ("height", "3d", "dsm", "lidar", "cityjson")

    def initAlgorithm(self, configuration: Any = None) -> None:
        polygons = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterFeatureSource("BUILDINGS", "Buildings", polygons),
            "Layer of polygons, such as the result of a prediction.",
        )
        self.add(
            QgsProcessingParameterRasterLayer("SURFACE", "Surface model (DSM)", optional=True),
            "Raster of heights with the buildings.",
            "--surface",
        )
        self.add(
            QgsProcessingParameterRasterLayer("TERRAIN", "Terrain model (DTM)", optional=True),
            "Raster of the ground. Empty: the ground is looked for around each building.",
            "--terrain",
        )
        self.add(
            QgsProcessingParameterFile(
                "POINTS", "Laser scan", optional=True,
                fileFilter="Point clouds (*.las *.laz);;All files (*)",
            ),
            "LAS, LAZ or COPC, in place of a surface model.",
            "--points",
        )  # fmt: skip
        self.add(
            QgsProcessingParameterBoolean("MOVE", "Move the outlines onto the roofs", False),
            "Moves all outlines by their systematic offset from the roofs of the surface.",
            "--move",
        )
        self.add(
            QgsProcessingParameterBoolean("PLANES", "Write the roof planes", False),
            "Adds a layer with slope, azimuth from true north and area of each roof plane, for "
            "instance for solar panels.",
            "--planes",
        )
        self.add_last("heights")
        vector = QgsProcessing.SourceType.TypeVectorPolygon
        self.addOutput(QgsProcessingOutputVectorLayer("HEIGHTS", "Heights", vector))
        self.addOutput(QgsProcessingOutputVectorLayer("ROOF_PLANES", "Roof planes", vector))
        self.addOutput(QgsProcessingOutputFile("MODEL_3D", "3D city model"))

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        buildings = vector_file(self, parameters, "BUILDINGS", context, feedback)
        found = ["heights", str(buildings), "-o", str(self.out)]
        surface = self.parameterAsRasterLayer(parameters, "SURFACE", context)
        terrain = self.parameterAsRasterLayer(parameters, "TERRAIN", context)
        points = self.parameterAsFile(parameters, "POINTS", context)
        if (surface is None) == (not points):
            raise RooftraceProblem("Give either “Surface model (DSM)” or “Laser scan”.")
        found += ["--points", points] if points else ["--surface", image_of(surface)]
        found += [] if terrain is None else ["--terrain", image_of(terrain)]
        switches = {"MOVE": "--move", "PLANES": "--planes"}
        return found + [
            option
            for name, option in switches.items()
            if self.parameterAsBoolean(parameters, name, context)
        ]

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        feedback.pushInfo(f"{answer['measured']:,} of {answer['buildings']:,} buildings measured")
        for reason, count in answer["reasons"].items():
            feedback.pushInfo(f"not measured, {reason}: {count:,}")
        found = {"OUTPUT": str(self.out)}
        layers = {"_heights.gpkg": "HEIGHTS", "_roof_planes.gpkg": "ROOF_PLANES"}
        files = [Path(one) for one in answer["files"]]
        has_planes = any(path.name.endswith("_roof_planes.gpkg") for path in files)
        for path in files:
            for end, output in layers.items():
                if path.name.endswith(end):
                    title = output.lower().replace("_", " ")
                    # Below gaps between planes, heights would look like planes.
                    is_shown = output == "ROOF_PLANES" or not has_planes
                    style = LoadStyle.of_file(is_shown=is_shown)
                    found[output] = self.load(path, title, output, style, context)
            if path.name.endswith(".city.json"):
                found["MODEL_3D"] = str(path)
        return found
