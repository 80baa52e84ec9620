"""Layers of QGIS as files that the command reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsDataSourceUri,
    QgsFeature,
    QgsFields,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

from .command import RooftraceProblem

__all__ = ["EXPORT", "area_file", "image_of", "vector_file", "y_upwards"]

_FORMATS = ["gpkg", "geojson", "json", "shp", "fgb", "parquet", "kml", "gml"]
EXPORT = "Export it as a GeoTIFF (Layer > Save As…, raw data) and use the new layer."
"""Remedy for a layer that is not an image file."""


def image_of(layer: QgsRasterLayer | None, *, has_area: bool = True) -> str:
    """Return the path or the address of the image of a raster layer.

    Args:
        layer: Layer of the user.
        has_area: Whether an area limits the work, as tiles of a service need it.

    Raises:
        RooftraceProblem: The layer is not an image that the command can read.
    """
    if layer is None or not layer.isValid():
        raise RooftraceProblem("The image cannot be opened. Choose a raster layer or a file.")
    name, source, provider = layer.name(), layer.source(), layer.providerType()
    if provider == "gdal":
        if source.startswith(("/vsicurl/http://", "/vsicurl/https://")):
            return str(source[len("/vsicurl/") :])
        if Path(source).exists():
            return str(source)
        raise RooftraceProblem(
            f"The layer {name} is {source}, which is not a file of its own (a part of a database, "
            f"of an archive, or in memory). {EXPORT}"
        )
    if provider == "wms":
        uri = QgsDataSourceUri()
        uri.setEncodedUri(source)
        address = uri.param("url")
        if uri.param("type") == "xyz" and address.startswith(("http://", "https://")):
            if has_area:
                return str(address)
            raise RooftraceProblem(
                f"The layer {name} has the tiles of a web service. Choose an “Area”, such as the "
                "extent of the map, so that only its tiles are requested; check before that the "
                "terms of the service permit it."
            )
    raise RooftraceProblem(
        f"The layer {name} comes from a web service or database ({provider}), not from an image "
        f"file. {EXPORT}"
    )


def area_file(geometry: Any, crs: QgsCoordinateReferenceSystem) -> str:
    """Write an area as a file for `--area` and return its path.

    Args:
        geometry: Polygon in the coordinate system.
        crs: Coordinate system; an invalid one means the pixels of an image, y upwards.

    Raises:
        RooftraceProblem: The file cannot be written.
    """
    if not crs.isValid():
        path = QgsProcessingUtils.generateTempFilename("area.geojson")
        feature = {"type": "Feature", "properties": {}, "geometry": json.loads(geometry.asJson())}
        _flip(feature["geometry"]["coordinates"])
        Path(path).write_text(json.dumps(feature), encoding="utf-8")
        return path
    path = QgsProcessingUtils.generateTempFilename("area.gpkg")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    writer = QgsVectorFileWriter.create(
        path, QgsFields(), QgsWkbTypes.MultiPolygon, crs, QgsCoordinateTransformContext(), options
    )
    feature = QgsFeature()
    geometry.convertToMultiType()
    feature.setGeometry(geometry)
    written = writer.addFeature(feature)
    message = writer.errorMessage()
    del writer  # closes the file
    if not written:
        raise RooftraceProblem(f"The area cannot be written to {path}: {message}")
    return path


def vector_file(
    algorithm: Any, parameters: Any, name: str, context: Any, feedback: QgsProcessingFeedback
) -> str | None:
    """Return the file of a layer of polygons; None if the parameter is empty.

    Layers in memory, filters and selections are written to a temporary GeoPackage. So is a layer of
    a file with several layers.
    """
    if parameters.get(name) in (None, ""):
        return None
    layer = algorithm.parameterAsVectorLayer(parameters, name, context)
    formats = _FORMATS
    if layer is not None:
        if layer.isModified():
            feedback.pushWarning(
                f"The layer {layer.name()} has edits that are not saved; they do not count."
            )
        if len(layer.dataProvider().subLayers()) > 1:
            formats = []
    # Without the name of the layer, QGIS would copy each layer of a GeoPackage.
    path, _ = algorithm.parameterAsCompatibleSourceLayerPathAndLayerName(
        parameters, name, context, formats, "gpkg", feedback
    )
    if not path:
        raise RooftraceProblem(f"The layer of “{name}” cannot be read or saved to a file.")
    return str(path)


def y_upwards(path: Path) -> Path:
    """Return a copy of polygons in pixel coordinates that lies upon the image in QGIS.

    QGIS draws images without a coordinate system with y upwards and 0 at the upper edge.
    """
    collection = json.loads(path.read_text(encoding="utf-8"))
    for feature in collection["features"]:
        _flip(feature["geometry"]["coordinates"])
    copy = path.with_name(f"{path.stem}_qgis.geojson")
    copy.write_text(json.dumps(collection), encoding="utf-8")
    return copy


def _flip(coordinates: Any) -> None:
    if coordinates and isinstance(coordinates[0], (int, float)):
        coordinates[1] = -coordinates[1]
        return
    for one in coordinates:
        _flip(one)
