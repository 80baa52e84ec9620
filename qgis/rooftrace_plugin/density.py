"""`rooftrace density`: built-up share and buildings per hectare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
)

from .command import RooftraceProblem
from .inputs import vector_file
from .run import LoadStyle, RooftraceAlgorithm


class DensityAlgorithm(RooftraceAlgorithm):
    """`rooftrace density`."""

    NAME = "density"
    TITLE = "Measure building density"
    PURPOSE = (
        "Measures the built-up share and the number, size and distance of buildings, by cells of a "
        "grid or by zones such as wards. The input is a mask, polygons of buildings, or both: then "
        "shares come from the mask and counts from the polygons."
    )
    TAGS = ("built-up", "settlement", "grid", "zonal statistics")

    def initAlgorithm(self, configuration: Any = None) -> None:
        polygons = [QgsProcessing.SourceType.TypeVectorPolygon]
        self.add(
            QgsProcessingParameterRasterLayer("MASK", "Mask", optional=True),
            "Mask of a prediction: 1 is building; or 0 and 255.",
        )
        self.add(
            QgsProcessingParameterFeatureSource("BUILDINGS", "Buildings", polygons, None, True),
            "Polygons of buildings. Without a mask, every cell counts as observed.",
        )
        self.add(
            QgsProcessingParameterFeatureSource("ZONES", "Zones", polygons, None, True),
            "Polygons to measure by. Empty: cells.",
            "--zones",
        )
        self.add_number(
            "CELL", "--cell", "Side of a cell (m)",
            "Empty: 100 m. It cannot be combined with zones.", 1e-3,
        )  # fmt: skip
        self.add_number(
            "MIN_AREA", "--min-area", "Minimum area of a building (m²)",
            "Smaller buildings are not counted.", 0.0,
        )  # fmt: skip
        self.add_number(
            "THRESHOLD", "--threshold", "Minimum built-up share of a dense place", "Empty: 0.2.",
            0.0, 1.0,
        )  # fmt: skip
        self.add_number(
            "GSD", "--gsd", "Metres per pixel", "For a mask without a coordinate system.", 1e-4
        )
        self.add_last("density")
        self.addOutput(QgsProcessingOutputRasterLayer("DENSITY", "Density raster"))
        vector = QgsProcessing.SourceType.TypeVectorPolygon
        self.addOutput(QgsProcessingOutputVectorLayer("PLACES", "Cells or zones", vector))

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        mask = self.image(parameters, "MASK", context)
        found = ["density", mask] if mask else ["density"]
        buildings = vector_file(self, parameters, "BUILDINGS", context, feedback)
        found += [] if buildings is None else [buildings]
        if len(found) == 1:
            raise RooftraceProblem("Choose a mask, a layer of buildings, or both.")
        zones = vector_file(self, parameters, "ZONES", context, feedback)
        found += [] if zones is None else ["--zones", zones]
        return [*found, "-o", str(self.out / "density")]

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        for name, count in answer["classes"].items():
            feedback.pushInfo(f"{name}: {count:,} places")
        files = {Path(file).suffix: Path(file) for file in answer["files"]}
        found = {"OUTPUT": str(self.out)}
        if ".tif" in files:
            found["DENSITY"] = self.load(
                files[".tif"], "density", "DENSITY", LoadStyle.of_file(), context
            )
            found["PLACES"] = str(files[".gpkg"])
        else:
            found["PLACES"] = self.load(
                files[".gpkg"], "density by zones", "PLACES", LoadStyle.of_file(), context
            )
        return found
