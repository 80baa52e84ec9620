"""Polygons from files of any vector format that GDAL reads, and from GeoParquet."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from rooftrace.core.errors import DataError, GeoreferenceError, MissingExtraError
from rooftrace.io.vector import VECTOR_SUFFIXES

__all__ = ["VectorFile", "VectorLayer", "is_vector_file"]

_MORE_SUFFIXES = (".geoparquet", ".geojsonl", ".geojsons", ".kml", ".gml", ".json")
_PARQUET = (".parquet", ".geoparquet")
_HEAD_BYTES = 2048
_POLYGON, _MULTI, _COLLECTION = (
    shapely.GeometryType.POLYGON,
    shapely.GeometryType.MULTIPOLYGON,
    shapely.GeometryType.GEOMETRYCOLLECTION,
)


@dataclass(frozen=True)
class VectorLayer:
    """The polygons of a layer.

    Args:
        geometry: (n,) valid shapely polygons and multipolygons, in two dimensions.
        values: (n,) strings by attribute, "" where null.
        crs: of the geometry.
        mended: how many were invalid and are so no more.
        without_outline: how many features had none, and are left out.
    """

    geometry: NDArray[np.object_]
    values: Mapping[str, NDArray[np.object_]]
    crs: CRS
    mended: int
    without_outline: int

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of all polygons in the CRS; NaN where there are none."""
        left, bottom, right, top = shapely.total_bounds(self.geometry)
        return float(left), float(bottom), float(right), float(top)


def is_vector_file(path: Path) -> bool:
    """Whether a file is known to hold vector data, by its suffix; a .json by how it begins."""
    suffix = path.suffix.lower()
    if suffix not in (*VECTOR_SUFFIXES, *_MORE_SUFFIXES) or not path.is_file():
        return False
    if suffix != ".json":
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return b'"FeatureCollection"' in head


class VectorFile:
    """The one layer of a file that has polygons; read when it is asked for something.

    Args:
        path: of any format that GDAL reads, or GeoParquet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The names of its attributes.

        Raises:
            DataError: the file cannot be read, or has no layer of polygons, or several.
        """
        with _explained(self.path):
            if self._is_parquet:
                return tuple(name for name in _parquet_schema(self.path).names)
            import pyogrio

            return tuple(map(str, pyogrio.read_info(self.path, layer=self._layer)["fields"]))

    def read(self, fields: Sequence[str] = ()) -> VectorLayer:
        """Its polygons, mended where they are invalid.

        Args:
            fields: the attributes to read, among `self.fields`.

        Raises:
            DataError: as for `fields`, or there are features that are no polygons.
            GeoreferenceError: it has no CRS, or coordinates that its CRS does not have.
        """
        crs, geometry, values = self._read_all(fields)
        if crs is None:
            raise GeoreferenceError(
                f"{self.path} has no coordinate system.",
                remedy="Assign the one that its coordinates are in: "
                f"ogr2ogr -a_srs EPSG:4326 OUT.gpkg {self.path.name}",
            )
        geometry, kept, mended = _polygons(geometry, self.path)
        layer = VectorLayer(
            geometry,
            {name: _texts(column[kept]) for name, column in values.items()},
            crs,
            mended,
            len(kept) - int(kept.sum()),
        )
        _check_degrees(layer, self.path)
        return layer

    def outlines(self) -> tuple[NDArray[np.object_], CRS | None]:
        """Its polygons as in `read`, whatever their coordinates are, and the CRS if it has one.

        Raises:
            DataError: as for `read`.
        """
        geometry, crs, _ = self.columns()
        return geometry, crs

    def columns(
        self, fields: Sequence[str] = ()
    ) -> tuple[NDArray[np.object_], CRS | None, dict[str, NDArray[np.object_]]]:
        """`outlines`, and the values of attributes as in `VectorLayer`.

        Raises:
            DataError: as for `read`.
        """
        crs, geometry, values = self._read_all(fields)
        geometry, kept, _ = _polygons(geometry, self.path)
        return geometry, crs, {name: _texts(column[kept]) for name, column in values.items()}

    def _read_all(
        self, fields: Sequence[str]
    ) -> tuple[CRS | None, NDArray[np.object_], dict[str, NDArray[Any]]]:
        with _explained(self.path):
            read = self._read_parquet if self._is_parquet else self._read_gdal
            return read(fields)

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() in _PARQUET

    @cached_property
    def _layer(self) -> str:
        import pyogrio

        layers = [(str(name), kind) for name, kind in pyogrio.list_layers(self.path)]
        able = [name for name, kind in layers if kind is not None and _may_hold_polygons(kind)]
        if len(able) > 1:
            # A layer that does not say what it holds has polygons only if one is found in it.
            told = dict(layers)
            able = [n for n in able if "Polygon" in told[n] or self._has_polygons(n)]
        if len(able) == 1:
            return able[0]
        listed = ", ".join(f"{name} ({kind or 'no geometry'})" for name, kind in layers)
        raise DataError(
            f"{self.path} has {len(able) or 'no'} layers of polygons, one was expected; "
            f"it has {listed or 'no layer'}.",
            remedy="Write the one that you want into a file of its own: "
            f"ogr2ogr OUT.gpkg {self.path.name} LAYER",
        )

    def _has_polygons(self, layer: str) -> bool:
        import pyogrio

        _, _, wkb, _ = pyogrio.raw.read(self.path, layer=layer, columns=[])
        kinds = shapely.get_type_id(shapely.from_wkb(wkb, on_invalid="ignore"))
        return bool(np.isin(kinds, (_POLYGON, _MULTI, _COLLECTION)).any())

    def _read_gdal(
        self, fields: Sequence[str]
    ) -> tuple[CRS | None, NDArray[np.object_], dict[str, NDArray[Any]]]:
        import pyogrio

        meta, _, wkb, columns = pyogrio.raw.read(
            self.path, layer=self._layer, columns=list(fields), force_2d=True
        )
        # GDAL gives columns in the order of the file.
        values = dict(zip(map(str, meta["fields"]), columns))
        crs = None if meta["crs"] is None else CRS.from_user_input(meta["crs"])
        return crs, _array(shapely.from_wkb(wkb, on_invalid="ignore")), values

    def _read_parquet(
        self, fields: Sequence[str]
    ) -> tuple[CRS | None, NDArray[np.object_], dict[str, NDArray[Any]]]:
        import geopandas as gpd

        told = (_parquet_schema(self.path).metadata or {}).get(b"geo")
        if told is None:
            raise ValueError("it has no geometry (no GeoParquet metadata)")
        column = json.loads(told)["primary_column"]
        table = gpd.read_parquet(self.path, columns=[column, *fields])
        values = {name: table[name].to_numpy(dtype=object) for name in fields}
        geometry = shapely.force_2d(table.geometry.to_numpy())
        return table.crs, _array(geometry), values


def _parquet_schema(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError.of("parquet", "Reading GeoParquet", "pyarrow") from error
    return parquet.read_schema(path)


def _may_hold_polygons(kind: str) -> bool:
    return any(word in kind for word in ("Polygon", "Surface", "Unknown", "Collection"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Of drivers, about what is looked at here anyway: rings that cross, widths of fields.
            warnings.simplefilter("ignore")
            yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, CRSError) as error:
        reason = " ".join(str(error).split()).removesuffix(".") or type(error).__name__
        raise DataError(
            f"{path} cannot be read as vector data: {reason}.",
            remedy="Open it with a GIS to see whether it is whole.",
        ) from error


def _polygons(
    geometry: NDArray[np.object_], path: Path
) -> tuple[NDArray[np.object_], NDArray[np.bool_], int]:
    """Those with an area, as valid polygons; which of all they are; how many were invalid."""
    kinds = shapely.get_type_id(geometry)
    present = ~shapely.is_missing(geometry) & ~shapely.is_empty(geometry)
    _check_kinds(geometry[present], path)
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    present[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    mixed = present & (kinds == _COLLECTION)
    invalid = present & ~shapely.is_valid(geometry)
    mend = invalid | mixed
    geometry = geometry.copy()
    made = shapely.make_valid(geometry[mend])
    geometry[mend] = [_polygonal(one) for one in made]
    kept = present & ~shapely.is_missing(geometry)
    return geometry[kept], kept, int(invalid.sum())


def _polygonal(geometry: Any) -> Any:
    """The part of a geometry that has an area, or None."""
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > _POLYGON).any():
        parts = shapely.get_parts(parts)
    parts = parts[shapely.get_type_id(parts) == _POLYGON]
    if len(parts) < 2:
        return parts[0] if len(parts) else None
    # Parts of a collection may overlap, those of a multipolygon may not.
    return shapely.union_all(parts)


def _check_kinds(geometry: NDArray[np.object_], path: Path) -> None:
    kinds = Counter(shapely.get_type_id(geometry).tolist())
    names = {kind: shapely.GeometryType(kind).name.title() for kind in kinds}
    others = {names[k]: n for k, n in kinds.items() if k not in (_POLYGON, _MULTI, _COLLECTION)}
    if others:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(others.items()))
        raise DataError(
            f"{path} has {sum(others.values())} features that are no polygons ({listed}); "
            "footprints are polygons.",
            remedy="Draw the outlines, or keep only the polygons: ogr2ogr OUT.gpkg "
            f"{path.name} -where \"OGR_GEOMETRY LIKE '%POLYGON'\"",
        )


def _check_degrees(layer: VectorLayer, path: Path) -> None:
    """Pixels or metres that a format takes for degrees, as GeoJSON does."""
    if not len(layer) or not layer.crs.is_geographic:
        return
    left, bottom, right, top = layer.bounds_xy
    turns = 360 / layer.crs.axis_info[0].unit_conversion_factor * np.pi / 180
    if max(abs(left), abs(right)) > turns or max(abs(bottom), abs(top)) > turns / 4:
        raise GeoreferenceError(
            f"{path} has coordinates from {left:g}, {bottom:g} to {right:g}, {top:g}, which are no "
            f"degrees, but its coordinate system is {layer.crs.name}.",
            remedy="Assign the one that they are in: ogr2ogr -a_srs EPSG:… OUT.gpkg "
            f"{path.name}. Pixel coordinates of an image without georeference have none.",
        )


def _texts(column: NDArray[Any]) -> NDArray[np.object_]:
    """Values of an attribute as text: what is null is "", and 3.0 (a 3 beside nulls) is "3"."""
    return _array([_text(value) for value in column.tolist()])


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _array(items: Any) -> NDArray[np.object_]:
    made = np.empty(len(items), np.object_)
    made[:] = items
    return made
