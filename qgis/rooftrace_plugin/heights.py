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
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterLayer,
)

from .command import RooftraceProblem
from .inputs import vector_file
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
            QgsProcessingParameterMultipleLayers(
                "POINTS", "Laser scans", QgsProcessing.SourceType.TypeFile, None, True
            ),
            "Files of LAS, LAZ or COPC, in place of a surface model.",
            "--points",
        )
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
        surface, terrain = (self.image(parameters, n, context) for n in ("SURFACE", "TERRAIN"))
        points = [one for one in self.parameterAsFileList(parameters, "POINTS", context) if one]
        if bool(surface) == bool(points):
            raise RooftraceProblem("Give either “Surface model (DSM)” or “Laser scans”.")
        found += ["--surface", surface] if surface else []
        found += [part for one in points for part in ("--points", one)]
        found += ["--terrain", terrain] if terrain else []
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
