"""Polygons to files of the usual vector formats."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError, MissingExtraError
from rooftrace.core.types import Footprints

__all__ = ["VECTOR_SUFFIXES", "check_vector_suffix", "write_footprints", "write_polygons"]

# What RFC 7946 has no member for: a file without longitude and latitude says so.
_PIXELS = "Coordinates are pixels of the image (x right, y down), not longitude and latitude."


def write_footprints(path: Path, footprints: Footprints) -> None:
    """Writes polygons with `Footprints.columns`; area_m2 is null where not known.

    See `write_polygons`.

    Args:
        path: in an existing folder.
        footprints: any number of them, none included.
    """
    write_polygons(path, footprints.geometry, footprints.columns(), footprints.crs)


def write_polygons(
    path: Path,
    geometry: NDArray[np.object_],
    columns: Mapping[str, NDArray[Any]],
    crs: CRS | None,
    *,
    digits: int = 7,
) -> None:
    """Writes polygons with their attributes.

    The suffix tells the format: .gpkg, .geojson, .fgb, .parquet or .shp. The file appears under its
    name when it is complete; one that was there is replaced. FlatGeobuf orders polygons by place,
    the others as given.

    GeoJSON with a CRS follows RFC 7946 (longitude and latitude on WGS 84, exterior rings
    counter-clockwise); without one it is in pixels, which its `description` says. In a GeoJSON of
    no polygons there are no columns, as they belong to its features.

    Args:
        path: in an existing folder.
        geometry: (n,) shapely polygons, or multipolygons among them.
        columns: (n,) each: integers, floats (NaN is null) or strings (None is null).
        crs: of the geometry; None where it is in pixels.
        digits: after the point of the degrees of a GeoJSON; 7 are about a centimetre.

    Raises:
        ExportError: the suffix is unknown, or the file cannot be written.
        MissingExtraError: GeoParquet without pyarrow.
    """
    check_vector_suffix(path)
    try:
        # Beside the target, so that the last step is a rename within one file system.
        folder = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent))
        try:
            layer = _Layer(geometry, columns, crs, digits)
            _WRITERS[path.suffix.lower()](folder / path.name, layer)
            _move_into_place(folder, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ExportError(
            f"{path}: {len(geometry)} footprints could not be written: {reason}.",
            remedy="Choose a folder that exists, that you may write to and that has space left.",
        ) from error


def check_vector_suffix(path: Path) -> None:
    """Raises ExportError where the suffix is no format that can be written."""
    if path.suffix.lower() not in _WRITERS:
        raise ExportError(
            f"{path}: the suffix {path.suffix!r} is not a vector format that can be written.",
            remedy=f"Use one of {', '.join(VECTOR_SUFFIXES)}.",
        )


@dataclass(frozen=True)
class _Layer:
    geometry: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]
    crs: CRS | None
    digits: int


def _move_into_place(folder: Path, path: Path) -> None:
    """Moves all files of a layer, the one that is asked for last."""
    made = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
    if path.suffix.lower() == ".shp":
        # A .prj or an index of the file before would be read as this one's.
        for suffix in (".prj", ".cpg", ".qix", ".sbn", ".sbx"):
            if not (folder / path.with_suffix(suffix).name).exists():
                path.with_suffix(suffix).unlink(missing_ok=True)
    for file in made:
        file.replace(path.parent / file.name)


def _gdal(driver: str, **options: str) -> Callable[[Path, _Layer], None]:
    def write(path: Path, layer: _Layer) -> None:
        # Imported when something is written: it brings pandas and pyarrow where they are
        # installed, 130 MB that would lie beside the network all the time.
        import pyogrio

        multi = bool((shapely.get_type_id(layer.geometry) != shapely.GeometryType.POLYGON).any())
        with warnings.catch_warnings():
            # Footprints without a CRS are meant.
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            try:
                pyogrio.raw.write(
                    path,
                    geometry=np.asarray(shapely.to_wkb(layer.geometry), np.object_),
                    field_data=list(layer.columns.values()),
                    fields=list(layer.columns),
                    field_mask=[
                        np.isnan(values) if values.dtype.kind == "f" else None
                        for values in layer.columns.values()
                    ],
                    geometry_type="MultiPolygon" if multi else "Polygon",
                    promote_to_multi=multi,
                    crs=None if layer.crs is None else layer.crs.to_wkt(),
                    driver=driver,
                    **options,
                )
            except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
                raise OSError(str(error)) from error

    return write


def _geojson(path: Path, layer: _Layer) -> None:
    if layer.crs is None:
        _gdal("GeoJSON", DESCRIPTION=_PIXELS)(path, layer)
    else:
        _gdal("GeoJSON", RFC7946="YES", COORDINATE_PRECISION=str(layer.digits))(path, layer)


def _parquet(path: Path, layer: _Layer) -> None:
    import geopandas as gpd

    table = gpd.GeoDataFrame(dict(layer.columns), geometry=list(layer.geometry), crs=layer.crs)
    try:
        table.to_parquet(path, write_covering_bbox=True)
    except ImportError as error:
        raise MissingExtraError.of("parquet", "Writing GeoParquet", "pyarrow") from error


_WRITERS: dict[str, Callable[[Path, _Layer], None]] = {
    ".gpkg": _gdal("GPKG"),
    ".geojson": _geojson,
    ".fgb": _gdal("FlatGeobuf"),
    ".parquet": _parquet,
    ".shp": _gdal("ESRI Shapefile", ENCODING="UTF-8"),
}
VECTOR_SUFFIXES = tuple(_WRITERS)
