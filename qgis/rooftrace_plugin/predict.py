"""Buildings of an image, by the command or by a server."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterAuthConfig,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsReferencedRectangle,
)
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtNetwork import QNetworkRequest

from .command import RooftraceProblem
from .inputs import area_file, draw_layer, has_more_files, service_of, y_upwards
from .run import LoadStyle, RooftraceAlgorithm
from .server import Server

_OUTPUTS = ["polygons", "mask", "density"]

_DRAWN_GSD_M = 0.25
"""Metres per pixel of a layer that QGIS draws: the finest that the bundled model uses."""


class _ImageAlgorithm(RooftraceAlgorithm):
    """Parameters and results that both algorithms have."""

    TAGS = ("detection", "segmentation", "deep learning", "machine learning", "extract")

    def add_image(self) -> None:
        self.add(
            QgsProcessingParameterRasterLayer("INPUT", "Image"),
            "Aerial or satellite image: a layer or a file that GDAL reads.",
        )

    def add_options(self) -> None:
        self.add_number(
            "THRESHOLD", "--threshold", "Threshold",
            "Minimum probability of a pixel of a building. Empty: the threshold of the model.",
            0.0, 1.0,
        )  # fmt: skip
        self.add_number(
            "MIN_AREA", "--min-area", "Minimum area of a building (m²)",
            "Smaller buildings are left out. Empty: the default of rooftrace.", 0.0,
        )  # fmt: skip
        self.add_number(
            "GSD", "--gsd", "Metres per pixel",
            "Size of a pixel on the ground, for images that do not contain it.", 1e-4,
        )  # fmt: skip
        self.add_number(
            "CELL", "--cell", "Side of a density cell (m)",
            "Empty: 100 m. The density is left out for images of less than 3 cells.", 0.1,
        )  # fmt: skip
        self.add(
            QgsProcessingParameterEnum("OUTPUTS", "Results", _OUTPUTS, True, [0, 1, 2]),
            "polygons: buildings with a score; mask: a class for each pixel; density: built-up "
            "share and buildings per hectare in cells.",
        )

    def add_outputs(self) -> None:
        vector = QgsProcessing.SourceType.TypeVectorPolygon
        self.addOutput(QgsProcessingOutputVectorLayer("BUILDINGS", "Buildings", vector))
        self.addOutput(QgsProcessingOutputRasterLayer("MASK", "Mask"))
        self.addOutput(QgsProcessingOutputRasterLayer("DENSITY", "Density"))
        self.addOutput(QgsProcessingOutputNumber("COUNT", "Number of buildings"))

    def wanted(self, parameters: Any, context: Any) -> list[str]:
        found = [_OUTPUTS[at] for at in self.parameterAsEnums(parameters, "OUTPUTS", context)]
        if not found:
            raise RooftraceProblem("No result was chosen under “Results”.")
        return found

    def load_all(self, files: dict[str, str | None], name: str, classes: int, context: Any) -> Any:
        """Load the results of an image; return the outputs of the algorithm."""
        loaded = {}
        polygons, mask, density = (files.get(kind) for kind in _OUTPUTS)
        if mask:
            style = LoadStyle.named("mask" if classes == 2 else "", is_shown=not polygons)
            loaded["MASK"] = self.load(Path(mask), f"{name} mask", "MASK", style, context)
        if density:
            style = LoadStyle.of_file(is_shown=not polygons)
            loaded["DENSITY"] = self.load(
                Path(density), f"{name} density", "DENSITY", style, context
            )
        if polygons:
            path = Path(polygons)
            in_pixels = path.suffix == ".geojson"
            if in_pixels:
                path = y_upwards(path)
            style = LoadStyle.named("buildings" if classes == 2 else "", in_pixels=in_pixels)
            loaded["BUILDINGS"] = self.load(path, f"{name} buildings", "BUILDINGS", style, context)
        return loaded


class PredictAlgorithm(_ImageAlgorithm):
    """`rooftrace predict`."""

    NAME = "predict"
    TITLE = "Find buildings in an image"
    PURPOSE = (
        "Finds buildings in an image with rooftrace on this computer: polygons with a score, a "
        "mask, and a density raster. Nothing leaves the computer, except requests for the tiles "
        "of an image that is a web service. A canceled run resumes if it is started again with the "
        "same folder."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add_image()
        self.add(
            QgsProcessingParameterExtent("AREA", "Area", optional=True),
            "Only this part of the image is predicted. Empty: all of it. Layers of web services "
            "need an area.",
            "--area",
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "POLYGONS", "Polygons of the area", [QgsProcessing.SourceType.TypeVectorPolygon],
                None, True,
            ),
            "In place of “Area”: only the ground inside of these polygons is predicted.",
        )  # fmt: skip
        self.add_model("Model")
        self.add_options()
        self.add_last("predict")
        self.add_outputs()

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        polygons = self.parameterAsSource(parameters, "POLYGONS", context)
        has_area = parameters.get("AREA") not in (None, "")
        is_service = layer is not None and layer.isValid() and layer.providerType() != "gdal"
        if has_area and polygons is not None:
            raise RooftraceProblem("Give either “Area” or “Polygons of the area”, not both.")
        if is_service and not has_area and polygons is None:
            raise RooftraceProblem(
                f"The layer {layer.name()} comes from a web service. Choose an “Area”, such as the "
                "extent of the map, so that only its tiles are requested; check before that the "
                "terms of the service permit it."
            )
        image = service_of(layer) if is_service else [str(self.image(parameters, "INPUT", context))]
        if not is_service:
            _check_place(layer)
        self._check_free("" if is_service else Path(image[0]).stem, context)
        self._title = layer.name()
        crs = layer.crs()
        outline = None
        if polygons is not None:
            crs = polygons.sourceCrs()
            outline = QgsGeometry.unaryUnion([one.geometry() for one in polygons.getFeatures()])
            if outline.isEmpty():
                raise RooftraceProblem("The layer of “Polygons of the area” has no polygons.")
        elif has_area:
            outline = self.parameterAsExtentGeometry(parameters, "AREA", context, crs)
        self._drawn = None
        if image is None:
            shown = context.project().crs()
            if not shown.isValid():
                raise RooftraceProblem(
                    f"QGIS draws {layer.name()} in the coordinate system of the project, which has "
                    "none. Set one under Project > Properties > CRS."
                )
            transform = QgsCoordinateTransform(crs, shown, context.transformContext())
            extent = transform.transformBoundingBox(outline.boundingBox())
            gsd_m = self.parameterAsDouble(parameters, "GSD", context) or _DRAWN_GSD_M
            self._drawn = layer, QgsReferencedRectangle(extent, shown), gsd_m
            # Beside the results, so that they can be reviewed and trained on.
            image = [str(self.out / "image.tif")]
        found = ["predict", *image, "-o", str(self.out)]
        found += [] if outline is None else ["--area", area_file(outline, crs, self.out)]
        model = self.parameterAsString(parameters, "MODEL", context)
        found += ["--model", model] if model else []
        return [*found, "--outputs", ",".join(self.wanted(parameters, context))]

    def _check_free(self, name: str, context: Any) -> None:
        """Raise if the buildings of an image would overwrite a layer of the project."""
        project = context.project()
        for layer in [] if project is None else project.mapLayers().values():
            file = Path(layer.source().partition("|")[0])
            if file.parent == self.out and file.name.endswith(f"{name}_buildings.gpkg"):
                raise RooftraceProblem(
                    f"{file} would be overwritten, with your edits: it is the layer "
                    f"{layer.name()}. Choose another “Folder for the results”, or remove the layer."
                )

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        if self._drawn is not None:
            try:
                draw_layer(*self._drawn, self.out / "image.tif", context, feedback)
            except RooftraceProblem as problem:
                raise QgsProcessingException(str(problem)) from None
        return super().processAlgorithm(parameters, context, feedback)

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        record = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        self.show_notes(record["notes"], feedback)
        if answer["resumed_images"] or answer["resumed_blocks"]:
            feedback.pushInfo(
                f"Resumed an earlier run; blocks already finished: {answer['resumed_blocks']:,}"
            )
        output = answer["outputs"][0]
        count = output["buildings"]
        feedback.pushInfo(
            f"{'' if count is None else f'{count:,} buildings, '}"
            f"{output['built_up_share']:.1%} built up, in {output['seconds']:.1f} s"
        )
        loaded = self.load_all(output, self._title, len(output["classes"]), context)
        return {"OUTPUT": str(self.out), "COUNT": count, **loaded}


class PredictOnServerAlgorithm(_ImageAlgorithm):
    """A job of `rooftrace serve`."""

    NAME = "predictonserver"
    TITLE = "Find buildings in an image (server)"
    PURPOSE = (
        "Uploads an image to a rooftrace server, which finds the buildings with its own model, and "
        "downloads the polygons, the mask and the density raster. The image and its results are "
        "deleted from the server at the end."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        self.add_image()
        self.add(
            QgsProcessingParameterString("SERVER", "Server", "http://127.0.0.1:8000"),
            "Address of the server, which rooftrace serve prints.",
        )
        self.add(
            QgsProcessingParameterAuthConfig("AUTH", "Authentication", optional=True),
            "For a server with an API key: a configuration Basic with the key as the password "
            "and any user name.",
        )
        self.add_options()
        self.add_folder()
        self.add_outputs()

    def canExecute(self) -> tuple[bool, str]:
        return True, ""

    def arguments(self, parameters: Any, context: Any, feedback: Any) -> list[str]:
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        image = Path(str(self.image(parameters, "INPUT", context)))
        _check_place(layer)
        if not self._copies and not image.is_file():
            raise RooftraceProblem(f"{image} is not a file on this computer that can be uploaded.")
        if not self._copies and has_more_files(image):
            copy = self.out / "input" / f"{image.stem}.tif"
            copy.parent.mkdir(exist_ok=True)
            self._copies.append((copy, str(image), {}))
            image = copy
        self._image = image
        self._server = self.parameterAsString(parameters, "SERVER", context)
        self._headers = _headers(self._server, self.parameterAsString(parameters, "AUTH", context))
        self._options: dict[str, Any] = {
            option.lstrip("-").replace("-", "_"): number
            for option, number in self.numbers(parameters, context).items()
        }
        self._options["outputs"] = self.wanted(parameters, context)
        return []

    def execute(self, feedback: Any) -> dict[str, Any]:
        server = Server(self._server, self._headers, feedback.isCanceled)
        feedback.pushInfo(f"{self._image} to {urllib.parse.urlsplit(self._server).netloc}")
        return server.predict(
            self._image, self.out, self._options, lambda progress: self.show(progress, feedback)
        )

    def results(self, answer: dict[str, Any], context: Any, feedback: Any) -> dict[str, Any]:
        record = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
        self.show_notes(record["notes"], feedback)
        output = record["outputs"][0]
        files = {
            kind: str(self.out / Path(output[kind]).name) if output[kind] else None
            for kind in _OUTPUTS
        }
        loaded = self.load_all(files, self._image.stem, len(output["classes"]), context)
        return {"OUTPUT": str(self.out), "COUNT": output["buildings"], **loaded}


def _check_place(layer: Any) -> None:
    """Raise if an image has a position without a CRS: its buildings would lie elsewhere."""
    corner = layer.extent().xMinimum(), layer.extent().yMaximum()
    if not layer.crs().isValid() and corner != (0, 0):
        raise RooftraceProblem(
            f"The layer {layer.name()} has a position, but no coordinate system. Set it (Layer > "
            "Set CRS of Layer(s)), and start again."
        )


def _headers(address: str, login: str) -> dict[str, str]:
    """Return the headers with which an authentication configuration of QGIS logs in.

    Args:
        address: Address of the server.
        login: Id of the configuration; empty for none.

    Raises:
        RooftraceProblem: The configuration cannot be used.
    """
    if not login:
        return {}
    request = QNetworkRequest(QUrl(address))
    QgsApplication.authManager().updateNetworkRequest(request, login)
    headers = {
        bytes(name).decode(): bytes(request.rawHeader(name)).decode()
        for name in request.rawHeaderList()
    }
    if not headers:
        raise RooftraceProblem(
            f"The authentication {login} does not log in. Choose a configuration of the kind Basic "
            "with the key of the server as the password and any user name."
        )
    return headers
