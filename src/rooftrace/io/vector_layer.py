"""A layer of polygons on its way into a file: its settings, its chunks, and how GDAL writes one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.io.gdal import QUIET, pyogrio_options
from rooftrace.io.partitions import nulls

CHANGE_DATE = "1970-01-01T00:00:00.000Z"
"""Date of the last change in every file, so that its bytes do not depend on the time."""

_CONFIGURED = {
    "OGR_CURRENT_DATE": CHANGE_DATE,
    # The file gets its name when it is complete, so single transactions need not be synchronised.
    "OGR_SQLITE_SYNCHRONOUS": "OFF",
}

_WRITING = Lock()
"""Lock for warning filters and GDAL options, which belong to the whole process."""


@dataclass(frozen=True)
class LayerChunk:
    """Some polygons of a layer.

    Args:
        geometry: (n,) shapely polygons, or multipolygons.
        columns: (n,) values of each column; all chunks have the same columns.
    """

    geometry: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LayerSettings:
    """Settings that all chunks of a layer share.

    Args:
        crs: Coordinate system of the geometry; None for pixels.
        digits: Decimal places of degrees in a GeoJSON.
        multi: True if there are multipolygons.
        name: Name of the layer in a GeoPackage or GeoJSON; "" for the name of the file.
        gsd_m: Metres per pixel of the image, for the highest zoom of PMTiles; None if not known.
    """

    crs: CRS | None
    digits: int = 7
    multi: bool = False
    name: str = ""
    gsd_m: float | None = None


def write_chunk(
    path: Path | BytesIO,
    layer: LayerSettings,
    part: LayerChunk,
    driver: str,
    *,
    append: bool = False,
    **options: str,
) -> None:
    """Write a chunk to a file of its own, or append it to the layer in the file.

    Args:
        path: File in an existing folder, or one in memory.
        layer: Settings of the layer.
        part: The chunk.
        driver: GDAL's name of the format.
        append: Whether the file has the layer.
        options: GDAL's options of the format.

    Raises:
        OSError: The file cannot be written.
    """
    encoded = np.asarray(shapely.to_wkb(part.geometry), np.object_)
    write_wkb(path, layer, encoded, part.columns, driver, append=append, **options)


def write_wkb(
    path: Path | BytesIO,
    layer: LayerSettings,
    encoded: NDArray[np.object_],
    columns: Mapping[str, NDArray[Any]],
    driver: str,
    *,
    append: bool = False,
    **options: str,
) -> None:
    """Write a chunk whose polygons are WKB (n,); otherwise as `write_chunk`."""
    # Imported only here: it imports pandas and pyarrow if they are installed, 130 MB that would
    # occupy memory beside the network all the time.
    import pyogrio

    crs = None if layer.crs is None else layer.crs.to_wkt()
    with _WRITING, QUIET, warnings.catch_warnings(), pyogrio_options(_CONFIGURED):
        # Footprints without a CRS are intended.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        warnings.filterwarnings("ignore", message="No SRS set on layer")
        try:
            pyogrio.raw.write(
                path,
                geometry=encoded,
                field_data=[np.ma.getdata(values) for values in columns.values()],
                fields=list(columns),
                field_mask=[nulls(values) for values in columns.values()],
                geometry_type="MultiPolygon" if layer.multi else "Polygon",
                promote_to_multi=layer.multi,
                # GDAL assumes WGS 84 for lines of GeoJSON and warns if no CRS is given. Outside
                # pyogrio's own thread the warning would go to stderr.
                crs="EPSG:4326" if crs is None and driver == "GeoJSONSeq" else crs,
                driver=driver,
                layer=layer.name or None,
                append=append,
                **options,
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise OSError(str(error)) from error
