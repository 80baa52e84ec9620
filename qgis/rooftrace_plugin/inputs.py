"""Layers of QGIS as files that the command reads."""

from __future__ import annotations

import json
import re
import shutil
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
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsReferencedRectangle,
    QgsVectorFileWriter,
    QgsWkbTypes,
)

from .command import Canceled, RooftraceProblem

_DRAWN_PIXELS = 4e8
"""Maximum number of pixels that QGIS draws for one prediction."""

_REMOTE = (
    "/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift", "http", "WCS:",
)  # fmt: skip
"""Beginnings of sources of GDAL whose copy would be a long download."""

_FORMATS = ["gpkg", "geojson", "json", "shp", "fgb", "parquet", "kml", "gml"]
EXPORT = "Export it as a GeoTIFF (Layer > Save As…, raw data) and use the new layer."
"""Remedy for a layer that is not an image file."""


def image_of(
    layer: QgsRasterLayer | None, folder: Path | None = None, copies: list[Any] | None = None
) -> str:
    """Return the path or the URL of the image file of a raster layer.

    Args:
        layer: Layer.
        folder: Folder for a VRT with the CRS and the nodata value that the user gave the layer in
            QGIS, or for a GeoTIFF of a layer that is a part of a file; without it, such layers are
            refused.
        copies: List that receives the GeoTIFF, the GDAL dataset, and the options of `copy_image`.

    Raises:
        RooftraceProblem: The layer is not an image that the command can read as a whole.
    """
    if layer is None or not layer.isValid():
        raise RooftraceProblem("The image cannot be opened. Choose a raster layer or a file.")
    name, source, provider = layer.name(), layer.source(), layer.providerType()
    if provider != "gdal":
        raise RooftraceProblem(
            f"The layer {name} comes from a web service or database ({provider}), not from an "
            f"image file. {EXPORT}"
        )
    options = _set_in_qgis(layer)
    is_file, is_remote = Path(source).exists(), source.startswith(_REMOTE)
    if is_file and not options:
        return str(source)
    if source.startswith(("/vsicurl/http://", "/vsicurl/https://")) and not options:
        return str(source[len("/vsicurl/") :])
    if folder is None or is_remote:
        why = "has a coordinate system or a nodata value of QGIS, which its file has not"
        if not options:
            why = f"is {source}, which is not a file of its own"
        raise RooftraceProblem(f"The layer {name} {why}. {EXPORT}")
    folder.mkdir(parents=True, exist_ok=True)
    if not is_file and copies is not None:
        path = folder / f"{folder_name(name)}.tif"
        copies.append((path, source, options))
        return str(path)
    path = folder / f"{Path(source).stem}.vrt"
    file = str(Path(source).absolute())
    if gdal.Translate(str(path), file, format="VRT", **options) is None:
        raise RooftraceProblem(f"{path} cannot be written.")
    kept = layer.dataProvider()
    if "noData" in options and kept.sourceHasNoDataValue(1) and kept.useSourceNoDataValue(1):
        # Both values count: pixels with that of the file get that of QGIS.
        text = path.read_text(encoding="utf-8").replace("SimpleSource>", "ComplexSource>")
        own = f"<NODATA>{kept.sourceNoDataValue(1)!r}</NODATA></ComplexSource>"
        path.write_text(text.replace("</ComplexSource>", own), encoding="utf-8")
    return str(path)


def _set_in_qgis(layer: QgsRasterLayer) -> dict[str, Any]:
    """Return what the user gave a layer in QGIS and its file has not, as options of GDAL.

    Raises:
        RooftraceProblem: Its nodata values are not one value for all bands.
    """
    options: dict[str, Any] = {}
    if has_own_crs(layer):
        wkt = QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED_GDAL
        options["outputSRS"] = layer.crs().toWkt(wkt)
    provider = layer.dataProvider()
    ranges = [one for band in range(1, provider.bandCount() + 1)
              for one in provider.userNoDataValues(band)]  # fmt: skip
    values = {number for one in ranges for number in (one.min(), one.max())}
    if len(values) > 1:
        raise RooftraceProblem(
            f"The layer {layer.name()} has several nodata values in QGIS; expected one, in all "
            f"bands. {EXPORT}"
        )
    if values:
        options["noData"] = values.pop()
    elif provider.sourceHasNoDataValue(1) and not provider.useSourceNoDataValue(1):
        options["noData"] = "none"
    return options


def copy_image(path: Path, source: str, options: dict[str, Any], feedback: Any) -> None:
    """Write a GDAL dataset that is not a file of its own as a GeoTIFF.

    Raises:
        Canceled: The user has canceled.
        RooftraceProblem: It cannot be read or written.
    """
    feedback.pushInfo(f"Copying {source} to {path}")
    made = gdal.Translate(
        str(path), source, format="GTiff", callback=lambda *_: int(not feedback.isCanceled()),
        creationOptions=["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"], **options,
    )  # fmt: skip
    if feedback.isCanceled():
        raise Canceled
    if made is None:
        raise RooftraceProblem(f"{source} cannot be copied to {path}. {EXPORT}")


def folder_name(title: str) -> str:
    """Return the title of a layer without what no system, or only some, take in a name."""
    return re.sub(r"[^\w ()+,.=@-]+", "_", title).strip(" ._") or "image"


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
    given = parameters[name]
    if isinstance(given, QgsProcessingFeatureSourceDefinition):  # only the selection
        given = given.source.staticValue()
    layer = algorithm.parameterAsVectorLayer({name: given}, name, context)
    formats = _FORMATS
    if layer is not None:
        if layer.isModified():
            raise RooftraceProblem(
                f"The layer {layer.name()} has edits that are not saved. Save or discard them "
                "(Layer > Save Layer Edits), and start again."
            )
        file = Path(layer.source().partition("|")[0])
        if has_own_crs(layer) or _polygon_layers(layer) > 1 or not file.exists():
            formats = []
    # Without the name of the layer, QGIS would copy each layer of a GeoPackage.
    path, _ = algorithm.parameterAsCompatibleSourceLayerPathAndLayerName(
        parameters, name, context, formats, "gpkg", feedback
    )
    if not path:
        raise RooftraceProblem(f"The layer of “{name}” cannot be read or saved to a file.")
    if layer is not None and not (file.exists() and file.samefile(path)):
        source = algorithm.parameterAsSource(parameters, name, context)
        is_whole = not layer.subsetString() and source.featureCount() == layer.featureCount()
        path = _named_copy(Path(path), layer, file, feedback, is_whole=is_whole)
        algorithm.labels[path] = layer.name()
    return str(path)


def _named_copy(path: Path, layer: Any, file: Path, feedback: Any, *, is_whole: bool) -> str:
    """Give a copy of a layer its name, and the mask of a whole prediction beside it.

    The mask of a part would say that all other ground has no buildings.
    """
    name, buildings, _ = file.stem.rpartition("_buildings")
    mask = file.with_name(f"{name}_mask.tif")
    has_mask = bool(buildings) and mask.is_file()
    if has_mask and not is_whole:
        feedback.pushInfo(
            f"Note: {layer.name()} is filtered or a selection, so that {mask.name}, which says "
            "which ground was seen, does not count."
        )
    elif has_mask:
        shutil.copy(mask, path.with_name(mask.name))
    stem = file.stem if has_mask and is_whole else folder_name(layer.name())
    return str(path.rename(path.with_name(f"{stem}.gpkg")))


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
