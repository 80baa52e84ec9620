"""Layers of QGIS as files that the command reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import processing
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsDataSourceUri,
    QgsDistanceArea,
    QgsFeature,
    QgsFields,
    QgsPointXY,
    QgsProcessingFeedback,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsReferencedRectangle,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

from .command import RooftraceProblem

_DRAWN_PIXELS = 4e8
"""Maximum number of pixels that QGIS draws for one prediction."""

_FORMATS = ["gpkg", "geojson", "json", "shp", "fgb", "parquet", "kml", "gml"]
EXPORT = "Export it as a GeoTIFF (Layer > Save As…, raw data) and use the new layer."
"""Remedy for a layer that is not an image file."""


def image_of(layer: QgsRasterLayer | None, folder: Path | None = None) -> str:
    """Return the path or the URL of the image file of a raster layer.

    Args:
        layer: Layer.
        folder: Folder for a VRT of the file with the CRS of the layer, where its file has another
            one, or none; without it, such a layer is refused.

    Raises:
        RooftraceProblem: The layer is not an image that the command can read as a whole.
    """
    if layer is None or not layer.isValid():
        raise RooftraceProblem("The image cannot be opened. Choose a raster layer or a file.")
    name, source, provider = layer.name(), layer.source(), layer.providerType()
    if provider == "gdal" and has_own_crs(layer):
        if folder is None or not Path(source).is_file():
            raise RooftraceProblem(
                f"The layer {name} has its coordinate system in QGIS, not in its file. {EXPORT}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{Path(source).stem}.vrt"
        crs = layer.crs().toWkt(QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED_GDAL)
        file = str(Path(source).absolute())
        if gdal.Translate(str(path), file, format="VRT", outputSRS=crs) is None:
            raise RooftraceProblem(f"{path} cannot be written.")
        return str(path)
    if provider == "gdal":
        if source.startswith(("/vsicurl/http://", "/vsicurl/https://")):
            return str(source[len("/vsicurl/") :])
        if Path(source).exists():
            return str(source)
        raise RooftraceProblem(
            f"The layer {name} is {source}, which is not a file of its own (a part of a database, "
            f"of an archive, or in memory). {EXPORT}"
        )
    raise RooftraceProblem(
        f"The layer {name} comes from a web service or database ({provider}), not from an image "
        f"file. {EXPORT}"
    )


def has_own_crs(layer: Any) -> bool:
    """Return whether the user has given a layer a CRS that its file has not."""
    return bool(layer.crs().isValid() and layer.crs() != layer.dataProvider().crs())


def service_of(layer: QgsRasterLayer) -> list[str] | None:
    """Return the arguments with which the command reads a layer of XYZ, WMTS or WMS.

    None if only QGIS can: with a login, several layers at once, or another CRS than Web Mercator.
    """
    uri = QgsDataSourceUri()
    uri.setEncodedUri(layer.source())
    url, names = uri.param("url"), uri.params("layers")
    has_login = any(
        uri.param(key) for key in ("authcfg", "username", "referer", "http-header:referer")
    )
    if layer.providerType() != "wms" or has_login or not url.startswith(("http://", "https://")):
        return None
    if uri.param("type") == "xyz":
        return [url]
    if len(names) != 1 or uri.param("crs") != "EPSG:3857":
        return None
    if not uri.param("tileMatrixSet") and "request=" not in url.lower():
        url += "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
        url += "SERVICE=WMS&REQUEST=GetCapabilities"
    return [url, "--layer", names[0]]


def draw_layer(
    layer: QgsRasterLayer,
    extent: QgsReferencedRectangle,
    gsd_m: float,
    path: Path,
    context: Any,
    feedback: Any,
) -> None:
    """Draw a part of a layer to a GeoTIFF as QGIS shows it.

    Args:
        layer: Layer of any provider.
        extent: Part of it, in the CRS of the project.
        gsd_m: Metres per pixel on the ground.
        path: GeoTIFF.

    Raises:
        RooftraceProblem: The part is too large.
    """
    distance = QgsDistanceArea()
    distance.setSourceCrs(extent.crs(), context.transformContext())
    distance.setEllipsoid("WGS84")
    centre, step = extent.center(), extent.width() / 100
    metres = distance.measureLine(centre, QgsPointXY(centre.x() + step, centre.y()))
    pixel = gsd_m * step / metres
    pixels = extent.width() * extent.height() / pixel**2
    if pixels > _DRAWN_PIXELS:
        raise RooftraceProblem(
            f"The layer {layer.name()} is drawn by QGIS: {pixels / 1e6:,.0f} million pixels at "
            f"{gsd_m:g} m are too many, at most {_DRAWN_PIXELS / 1e6:,.0f} are possible. Choose a "
            "smaller “Area”, or larger “Metres per pixel”."
        )
    feedback.pushInfo(f"QGIS draws {layer.name()} at {gsd_m:g} m per pixel to {path}")
    processing.run(
        "native:rasterize",
        {
            "EXTENT": extent, "TILE_SIZE": 256, "MAP_UNITS_PER_PIXEL": pixel, "LAYERS": [layer],
            "MAKE_BACKGROUND_TRANSPARENT": True, "OUTPUT": str(path),
        },
        context=context, feedback=feedback, is_child_algorithm=True,
    )  # fmt: skip


def area_file(geometry: Any, crs: QgsCoordinateReferenceSystem, folder: Path) -> str:
    """Write an area as a file for `--area` and return its path.

    It lies beside the results, since a training on them has no labels elsewhere.

    Args:
        geometry: Polygon or multipolygon in the coordinate system.
        crs: Coordinate system; an invalid one means the pixels of an image, y upwards.
        folder: Folder of the results.

    Raises:
        RooftraceProblem: The file cannot be written.
    """
    if not crs.isValid():
        path = folder / "area.geojson"
        feature = {"type": "Feature", "properties": {}, "geometry": json.loads(geometry.asJson())}
        _flip(feature["geometry"]["coordinates"])
        path.write_text(json.dumps(feature), encoding="utf-8")
        return str(path)
    path = folder / "area.gpkg"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    kind = QgsWkbTypes.Type.MultiPolygon
    writer = QgsVectorFileWriter.create(
        str(path), QgsFields(), kind, crs, QgsCoordinateTransformContext(), options
    )
    feature = QgsFeature()
    geometry.convertToMultiType()
    feature.setGeometry(geometry)
    written = writer.addFeature(feature)
    message = writer.errorMessage()
    del writer  # closes the file
    if not written:
        raise RooftraceProblem(f"The area cannot be written to {path}: {message}")
    return str(path)


def vector_file(
    algorithm: Any, parameters: Any, name: str, context: Any, feedback: QgsProcessingFeedback
) -> str | None:
    """Return the file of a layer of polygons; None if the parameter is empty.

    Layers in memory, filters and selections are written to a temporary GeoPackage. So is a layer of
    a file with several layers, or without the CRS that the layer has.

    Raises:
        RooftraceProblem: The layer has edits that are not saved, or cannot be read.
    """
    if parameters.get(name) in (None, ""):
        return None
    layer = algorithm.parameterAsVectorLayer(parameters, name, context)
    formats = _FORMATS
    if layer is not None:
        if layer.isModified():
            raise RooftraceProblem(
                f"The layer {layer.name()} has edits that are not saved. Save or discard them "
                "(Layer > Save Layer Edits), and start again."
            )
        if has_own_crs(layer) or _polygon_layers(layer) > 1:
            formats = []
    # Without the name of the layer, QGIS would copy each layer of a GeoPackage.
    path, _ = algorithm.parameterAsCompatibleSourceLayerPathAndLayerName(
        parameters, name, context, formats, "gpkg", feedback
    )
    if not path:
        raise RooftraceProblem(f"The layer of “{name}” cannot be read or saved to a file.")
    if layer is not None and str(path) not in layer.source():
        algorithm.labels[str(path)] = layer.name()
    return str(path)


def _polygon_layers(layer: Any) -> int:
    """Return the number of layers with polygons in the file of a layer.

    The provider of a layer that was opened by its name lists that one alone.
    """
    registry, provider = QgsProviderRegistry.instance(), layer.providerType()
    file = registry.decodeUri(provider, layer.source()).get("path", "")
    kinds = [QgsWkbTypes.geometryType(one.wkbType()) for one in registry.querySublayers(file)]
    polygonal = (
        QgsWkbTypes.GeometryType.PolygonGeometry, QgsWkbTypes.GeometryType.UnknownGeometry,
    )  # fmt: skip
    return sum(kind in polygonal for kind in kinds)


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
