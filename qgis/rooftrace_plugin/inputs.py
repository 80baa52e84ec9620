"""Layers of QGIS as files that the command reads."""

from __future__ import annotations

import hashlib
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
    "WMS:", "WMTS:", "AGS:", "<GDAL_WMS",
)  # fmt: skip
"""Beginnings of sources of GDAL whose copy would be a long download."""

_FORMATS = ["gpkg", "geojson", "json", "shp", "fgb", "parquet", "kml", "gml"]
EXPORT = "Export it as a GeoTIFF (Layer > Save As…, raw data) and use the new layer."
"""Remedy for a layer that is not an image file."""


def image_of(layer: QgsRasterLayer | None, folder: Path, copies: list[Any]) -> str:
    """Return the path or the URL of the image file of a raster layer.

    Args:
        layer: Layer.
        folder: Folder for a VRT with the CRS and the nodata value that the user gave the layer in
            QGIS, or for a GeoTIFF of a layer that is a part of a file.
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
    if is_remote:
        why = "has a coordinate system or a nodata value of QGIS, which its file has not"
        if not options:
            why = f"is {source}, which is not a file of its own"
        raise RooftraceProblem(f"The layer {name} {why}. {EXPORT}")
    folder.mkdir(parents=True, exist_ok=True)
    if not is_file:
        path = folder / f"{folder_name(name)}.tif"
        copies.append((path, source, options))
        return str(path)
    path = folder / f"{Path(source).stem}.vrt"
    made = gdal.Translate("", str(Path(source).absolute()), format="VRT", **options)
    if made is None:
        raise RooftraceProblem(f"{source} cannot be opened. {EXPORT}")
    (text,) = made.GetMetadata("xml:VRT")
    kept = layer.dataProvider()
    if "noData" in options and kept.sourceHasNoDataValue(1) and kept.useSourceNoDataValue(1):
        # Both values count: pixels with that of the file get that of QGIS.
        own = f"<NODATA>{kept.sourceNoDataValue(1)!r}</NODATA></ComplexSource>"
        text = text.replace("SimpleSource>", "ComplexSource>").replace("</ComplexSource>", own)
    # A canceled run resumes only with the same file.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
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
    """Write a GDAL dataset that is not a file of its own as a GeoTIFF, unless it is there already.

    Raises:
        Canceled: The user has canceled.
        RooftraceProblem: It cannot be read or written.
    """
    stamp = _stamp_of(source, options)
    if _has_stamp(path, stamp):
        return
    feedback.pushInfo(f"Copying {source} to {path}")
    made = gdal.Translate(
        str(path), source, format="GTiff", callback=lambda *_: int(not feedback.isCanceled()),
        creationOptions=["TILED=YES", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"], **options,
    )  # fmt: skip
    if feedback.isCanceled():
        raise Canceled
    if made is None:
        raise RooftraceProblem(f"{source} cannot be copied to {path}. {EXPORT}")
    made = None  # closes the file
    _set_stamp(path, stamp)


_COPY_OF = "ROOFTRACE_COPY_OF"
"""Item of the metadata of a copy that tells of which version of what it is one."""


def _stamp_of(source: str, options: dict[str, Any]) -> str:
    states = [(one, gdal.VSIStatL(one)) for one in _files_of(source)]
    found = [(one, state.size, state.mtime) for one, state in states if state is not None]
    return _digest(source, options, found)


def _digest(*parts: Any) -> str:
    """Return a hash, since the source of a layer may hold a key."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _has_stamp(path: Path, stamp: str) -> bool:
    dataset = gdal.Open(str(path)) if path.exists() else None
    return dataset is not None and dataset.GetMetadataItem(_COPY_OF) == stamp


def _set_stamp(path: Path, stamp: str) -> None:
    """Mark a copy as complete."""
    gdal.Open(str(path), gdal.GA_Update).SetMetadataItem(_COPY_OF, stamp)


def _files_of(source: str) -> list[str]:
    dataset = gdal.Open(source)
    return [] if dataset is None else dataset.GetFileList() or []


def has_more_files(image: Path) -> bool:
    """Return whether an image has other pixels or no place without the files beside it."""
    return any(not one.lower().endswith(".ovr") for one in _files_of(str(image))[1:])


def folder_name(title: str) -> str:
    """Return the title of a layer without what no system, or only some, take in a name."""
    return re.sub(r"[^\w ()+,.=@-]+", "_", title).strip(" ._") or "image"


def has_own_crs(layer: Any) -> bool:
    """Return whether the user has given a layer a CRS that its file has not."""
    return bool(layer.crs().isValid() and layer.crs() != layer.dataProvider().crs())


def service_of(layer: QgsRasterLayer) -> list[str] | None:
    """Return the arguments with which the command reads a layer of XYZ, WMTS or WMS.

    None if only QGIS can: with a login, several layers at once, a style of a WMS or a dimension of
    a WMTS that was chosen, or another CRS than Web Mercator.
    """
    uri = QgsDataSourceUri()
    uri.setEncodedUri(layer.source())
    url, names, is_wmts = uri.param("url"), uri.params("layers"), bool(uri.param("tileMatrixSet"))
    is_special = any(
        uri.param(key)
        for key in ("authcfg", "username", "referer", "http-header:referer", "tileDimensions")
    )
    if layer.providerType() != "wms" or is_special or not url.startswith(("http://", "https://")):
        return None
    if uri.param("type") == "xyz":
        finest = uri.param("zmax")
        return [f"{url}#zmax={finest}" if finest else url]
    has_style = not is_wmts and uri.param("styles") not in ("", "default")
    if len(names) != 1 or has_style or uri.param("crs") != "EPSG:3857":
        return None
    if not is_wmts and "request=" not in url.lower():
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
    x, y, step = extent.center().x(), extent.center().y(), extent.width() / 100
    # A degree of longitude is shorter than one of latitude.
    metres = max(
        distance.measureLine(QgsPointXY(x, y), end)
        for end in (QgsPointXY(x + step, y), QgsPointXY(x, y + step))
    )
    pixel = gsd_m * step / metres
    pixels = extent.width() * extent.height() / pixel**2
    if pixels > _DRAWN_PIXELS:
        raise RooftraceProblem(
            f"The layer {layer.name()} is drawn by QGIS: {pixels / 1e6:,.0f} million pixels at "
            f"{gsd_m:g} m are too many, at most {_DRAWN_PIXELS / 1e6:,.0f} are possible. Choose a "
            "smaller “Area”, or larger “Metres per pixel”."
        )
    stamp = _digest(layer.source(), extent.crs().authid(), extent.asWktPolygon(), pixel)
    if not (path.parent / "run.json").exists() and _has_stamp(path, stamp):
        feedback.pushInfo(f"{path} of the canceled run is used; delete it to draw it again.")
        return
    feedback.pushInfo(f"QGIS draws {layer.name()} at {gsd_m:g} m per pixel to {path}")
    processing.run(
        "native:rasterize",
        {
            "EXTENT": extent, "TILE_SIZE": 256, "MAP_UNITS_PER_PIXEL": pixel, "LAYERS": [layer],
            "MAKE_BACKGROUND_TRANSPARENT": True, "OUTPUT": str(path),
        },
        context=context, feedback=feedback, is_child_algorithm=True,
    )  # fmt: skip
    if not feedback.isCanceled():
        _set_stamp(path, stamp)


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
    algorithm: Any,
    parameters: Any,
    name: str,
    context: Any,
    feedback: QgsProcessingFeedback,
    folder: Path | None = None,
) -> str | None:
    """Return the file of a layer of polygons; None if the parameter is empty.

    Layers in memory, filters and selections are written to a temporary GeoPackage. So is a layer of
    a file with several layers, or without the CRS that the layer has.

    Args:
        folder: Folder in which copies stay; default: a temporary one.

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
        copy = Path(path)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            copy = Path(shutil.move(path, str(folder / copy.name)))
        path = _named_copy(copy, layer, file, feedback, is_whole=is_whole)
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
    return str(path.replace(path.with_name(f"{stem}.gpkg")))


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
