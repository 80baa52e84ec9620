"""Polygons read from any vector format that GDAL supports, and from GeoParquet."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, GeoreferenceError, LabelError, RooftraceError
from rooftrace.core.text import PLACE_IMAGE, plural, reason_of
from rooftrace.core.types import BoolArray, Bounds, Polygons
from rooftrace.io.companions import check_links, is_image_file, predicted_file
from rooftrace.io.files import check_exists
from rooftrace.io.gdal import ARCHIVES, conversion_of
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.make_valid import valid_by_structure, without_lines
from rooftrace.io.reproject import crs_text
from rooftrace.io.vector_formats import PARQUET, InputFinder, VectorInput, kml_text, ogr2ogr_input
from rooftrace.io.vector_layers import (
    FOR_POINTS,
    POLYGONAL,
    GdalLayer,
    ParquetFile,
    Rows,
    Values,
    can_be_degrees,
    is_comparison,
    layers_of,
    text_column,
    typed_column,
)

_RESIZED = 0.01
"""Share of the area of an outline by which a repair changes it, from which a note counts it."""

SCORE_FIELDS = ("score", "confidence", "probability", "prob", "conf")
"""Names of attributes that hold the score of a polygon, in upper or lower case."""

_CLASS_FIELDS = ("class", "type", "category", "label", "theme", "art", "genre", "genere")
"""Names of attributes that may hold classes."""

_RULE_FIELDS = {*_CLASS_FIELDS, "building", "side", "status"}

_OTHER_CLASSES = {
    "road", "roads", "street", "tree", "trees", "forest", "vegetation", "grass", "field", "water",
    "river", "lake", "pool", "car", "land",
}  # fmt: skip
"""Classes that are not buildings. They are whole values: OpenStreetMap has a water_tower."""

_OTHER_WORDS = {
    "strasse", "befestigte", "wald", "acker", "gewaesser", "gartenanlage", "route", "revetement",
    "foret", "jardin", "strada", "bosco", "giardino",
}  # fmt: skip
"""Words in classes that are not buildings, of the Swiss cadastre (MOpublic)."""

_OSM_FIELDS = frozenset(
    (
        "@id", "@type", "osm_id", "osm_way_id", "osm_type", "full_id", "landuse", "highway",
        "natural", "leisure", "amenity", "waterway", "railway", "barrier", "man_made",
        "building:part", "building:levels", "addr:street", "addr:housenumber",
    )
)  # fmt: skip
"""Attributes by which polygons with an attribute `building` come from OpenStreetMap."""


class VectorLockedError(DataError):
    """Another program holds the file, so that it cannot be read or written now."""


class NoPolygonsError(DataError):
    """The file has features, but points and lines alone."""


@dataclass(frozen=True)
class ReadCounts:
    """Numbers of features that were repaired or left out.

    Args:
        repaired: Polygons that were invalid.
        without_outline: Features without an outline.
        not_polygons: Points and lines.
        not_buildings: Polygons that their attributes name as something else than a building.
        older: Buildings of the older layer of a comparison.
        resized: Repaired polygons whose area is another one than that of their outlines.
    """

    repaired: int = 0
    without_outline: int = 0
    not_polygons: int = 0
    not_buildings: int = 0
    older: int = 0
    resized: int = 0

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(*(a + b for a, b in zip(astuple(self), astuple(other))))

    def notes(self, name: object) -> tuple[str, ...]:
        """Return a note for the user on each number that is not 0."""
        areas = f", the area of {self.resized} by more than 1 %" if self.resized else ""
        said = (
            (plural(self.repaired, "polygon"), f"with invalid outlines repaired{areas}"),
            (plural(self.without_outline, "feature"), "without an outline left out"),
            (plural(self.not_polygons, "point or line", "points and lines"), "left out"),
            (plural(self.not_buildings, "polygon"), "of another class than building left out"),
            (plural(self.older, "building"), "of the older layer of the comparison left out"),
        )
        counts = astuple(self)
        return tuple(f"{name}: {n} {what}." for (n, what), count in zip(said, counts) if count)


@dataclass(frozen=True)
class PolygonLayer:
    """Polygons in one coordinate system.

    Args:
        geometry: (n,) valid shapely polygons and multipolygons in two dimensions.
    """

    geometry: Polygons
    crs: CRS

    def __len__(self) -> int:
        return len(self.geometry)

    @property
    def bounds_xy(self) -> Bounds:
        """Bounds (left, bottom, right, top) of all polygons in the CRS; NaN if there are none."""
        left, bottom, right, top = shapely.total_bounds(self.geometry)
        return float(left), float(bottom), float(right), float(top)


@dataclass(frozen=True)
class VectorLayer(PolygonLayer):
    """The polygons of a file, or of a chunk of it.

    Args:
        values: (n,) values of each attribute; see `VectorFile.read`.
        counts: Numbers of features that were repaired or left out.
    """

    values: Mapping[str, NDArray[np.object_]]
    counts: ReadCounts


class VectorFile:
    """The polygons of a file, a geodatabase, or a folder of GeoParquet; it is read on first use.

    See `io.vector_formats` for the formats. With `buildings`, the methods leave out what attributes
    name as something else:

    - polygons of OpenStreetMap without a tag `building`, or with `building=no`; of an extract,
      others are read with `areas` alone;
    - where the attribute `class` names some polygons as buildings, those of other classes;
    - in a comparison of both layers, the buildings of the older one.

    Args:
        path: Path of the data; `self.path` is that of the file for the folder of `rooftrace
            predict` with the polygons of one image.
        layer: Name or pattern (`*`) of the layers that are read, where several have polygons; or
            several, separated by commas, for files whose layers have different names.
        areas: Whether all areas of OpenStreetMap count, such as boundaries, not buildings alone.

    Raises:
        DataError: The folder of a prediction has the polygons of several images.
    """

    def __init__(self, path: Path, layer: str | None = None, *, areas: bool = False) -> None:
        self.path = predicted_file(path, "polygons")
        self._wanted = layer
        self._areas = areas
        self._distinct: dict[str, list[str]] = {}

    @cached_property
    def _scratch(self) -> Path:
        """Folder that disappears with this object."""
        folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @cached_property
    def _inputs(self) -> list[VectorInput]:
        return InputFinder(lambda: self._scratch, self._areas).inputs(self.path)

    @cached_property
    def _parts(self) -> list[GdalLayer | ParquetFile]:
        """The layers that are read, of all files."""
        parts: list[GdalLayer | ParquetFile] = []
        layers: list[GdalLayer] = []
        for one in self._inputs:
            if isinstance(one.path, Path) and one.path.suffix.lower() in PARQUET:
                parts.append(ParquetFile(one.path))
            else:
                layers += layers_of(one)
        if parts or not self._inputs:
            return parts
        return [*self._chosen(layers)]

    def _chosen(self, layers: list[GdalLayer]) -> list[GdalLayer]:
        words = ("Polygon", "Surface", "Unknown", "Collection")
        able = [one for one in layers if one.kind and any(word in one.kind for word in words)]
        if len(able) > 1:
            # A layer without a declared geometry type counts if a polygon is found in it.
            able = [one for one in able if "Polygon" in (one.kind or "") or one.has_polygons()]
        if len(able) == 1:
            return able
        if self._wanted is not None:
            named = [one for one in able if one.name == self._wanted]
            if named:
                return named
            fits = [
                [one for one in able if fnmatchcase(one.name, name)]
                for name in (self._wanted, *self._wanted.split(","))
            ]
            found = {tuple(one.name for one in some): some for some in fits if some}
            if len(found) == 1:
                return next(iter(found.values()))
            if found:
                # Names are for two files, such as buildings and zones: joined, zones were counted.
                last = shlex.quote([*found.values()][-1][0].name)
                raise DataError(
                    f"{self.path} has several of the layers {self._wanted}; expected one of them.",
                    remedy="Copy one to a file of its own: ogr2ogr OUT.gpkg "
                    f"{ogr2ogr_input(self.path)} {last}",
                )
        listed = ", ".join(f"{one.name} ({one.kind or 'no geometry'})" for one in layers)
        wanted = "one" if self._wanted is None else f"one called {self._wanted!r}"
        remedy = f"Give a file with polygons: closed outlines of areas. {FOR_POINTS}"
        if able:
            name = shlex.quote(able[0].name)
            remedy = (
                f"Choose the layer: --layer {name}, or all: --layer '*'. For a command without it: "
                f"ogr2ogr OUT.gpkg {ogr2ogr_input(self.path)} {name}"
            )
        error = DataError if able or not layers else NoPolygonsError
        raise error(
            f"{self.path} has {len(able) or 'no'} layers of polygons, expected {wanted}; it has "
            f"{listed or 'no layer'}.",
            remedy=remedy,
        )

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the attributes that all files and layers have.

        Raises:
            DataError: the file cannot be read, or does not have exactly one layer of polygons.
        """
        with _explained(self.path):
            names = [part.fields for part in self._parts] or [()]
        return tuple(name for name in names[0] if all(name in others for others in names))

    @cached_property
    def crs(self) -> CRS | None:
        """CRS that the file, or the first of its layers, states."""
        with _explained(self.path):
            return self._parts[0].crs if self._parts else None

    @cached_property
    def has_fids(self) -> bool:
        """Whether records have ids that are no attribute: a GeoPackage's fid, a GeoJSON's `id`.

        They are read as an attribute called `fid`.
        """
        if "fid" in map(str.lower, self.fields):
            return False
        with _explained(self.path):
            return len(self._parts) == 1 and self._parts[0].has_fids

    @cached_property
    def in_pixels(self) -> bool:
        """Whether the file states that it is in pixels of an image."""
        with _explained(self.path):
            return any(part.in_pixels for part in self._parts)

    def notes(self, counts: ReadCounts) -> tuple[str, ...]:
        """Return notes for the user: what was assumed, repaired and left out."""
        said = [note for one in (*self._inputs, *self._parts) for note in one.notes]
        return (*dict.fromkeys(said), *counts.notes(self.path))

    def distinct(self, field: str) -> list[str]:
        """Return the values of an attribute as texts, in order; none where there is no such one."""
        if field not in self.fields:
            return []
        if field not in self._distinct:
            with _explained(self.path):
                found = {value for part in self._parts for value in part.distinct(field)}
            self._distinct[field] = sorted(str(value) for value in found if value is not None)
        return self._distinct[field]

    def copy_notes(self) -> tuple[str, ...]:
        """Return notes on what is lost where the outlines are written again: their heights."""
        if any((part.kind or "").endswith(" Z") for part in self._parts):
            return (f"{self.path}: the heights of the outlines (Z) are not kept.",)
        return ()

    def read(
        self, fields: Sequence[str] = (), *, typed: bool = False, buildings: bool = False
    ) -> VectorLayer:
        """Read the polygons, and repair invalid ones.

        Attributes are strings, "" for null. With `typed` they keep their types: floats (NaN is
        null), integers and booleans (null is masked), dates and times as datetime64 (NaT is null),
        and texts (null is None). Times that state their offset become those of UTC. Other values,
        such as lists, become texts.

        Args:
            fields: Attributes to read, among `self.fields`.
            typed: True to keep the types of attributes.
            buildings: True to leave out what is not a building, see the class.

        Raises:
            DataError: see `fields`; also if there are features, but none is a polygon.
            GeoreferenceError: the file has no CRS, or coordinates outside the range of its CRS.
        """
        whole = self._read_all(fields, buildings)
        return self._layer_of(whole, fields, typed=typed, buildings=buildings)

    def chunks(
        self, fields: Sequence[str] = (), *, buildings: bool = False
    ) -> Iterator[VectorLayer]:
        """Yield the polygons in their order as `read` returns them, in one or more chunks.

        GeoParquet, GeoPackages and Shapefiles are read chunk by chunk. Other formats cannot be
        entered in the middle and are read as a whole, in one chunk.

        Args:
            fields: Attributes to read, among `self.fields`, with their types; also `fid`, if
                `self.has_fids`.
            buildings: True to leave out what is not a building, see the class.

        Raises:
            DataError, GeoreferenceError: As `read`.
        """
        with _explained(self.path):
            files = self._parts
        if len(files) == 1 and not files[0].has_chunks:
            yield self.read(fields, typed=True, buildings=buildings)
            return
        rule = [self.building_field] if buildings and self.building_field is not None else []
        wanted = list(dict.fromkeys([*fields, *rule]))
        crs: CRS | None = None
        for file in files:
            parts = file.chunks(wanted)
            while True:
                # Only reading is explained, not what the caller does between two chunks.
                with _explained(self.path):
                    part = next(parts, None)
                if part is None:
                    break
                layer = self._layer_of(part, fields, typed=True, buildings=buildings)
                crs = crs or layer.crs
                _check_same(self.path, layer.crs, crs)
                yield layer

    def columns(
        self, fields: Sequence[str] = (), *, buildings: bool = False
    ) -> tuple[Polygons, CRS | None, dict[str, NDArray[np.object_]], ReadCounts]:
        """Read the polygons without a check of the coordinates, the CRS if there is one, and
        attributes as strings, "" for null.

        Raises:
            DataError: As `read`.
        """
        crs, geometry, values, _ = self._read_all(fields, buildings)
        geometry, values, counts = self._polygons(geometry, values, buildings=buildings)
        return geometry, crs, {name: text_column(values[name]) for name in fields}, counts

    @cached_property
    def building_field(self) -> str | None:
        """Name of the attribute that tells buildings from others; None if all are buildings."""
        sides = self.distinct("side")
        if len(sides) > 1 and is_comparison(sides, self.distinct("status")):
            return "side"
        if "building" in self.fields and not _OSM_FIELDS.isdisjoint(self.fields):
            return "building"
        for field in (one for one in self.fields if one.casefold() in _CLASS_FIELDS):
            names = self.distinct(field)
            folded = {name.casefold() for name in names}
            # `type` may be the kind of a building, of which one is called building.
            words = {word for name in folded for word in re.split(r"[\W_]+", name)}
            is_class = field.casefold() == "class" or bool(
                folded & _OTHER_CLASSES or words & _OTHER_WORDS
            )
            if is_class and not folded.isdisjoint(BUILDING_NAMES):
                return field
            if len(names) > 1 and field == "class" and "class_id" in self.fields:
                raise LabelError(
                    f"{self.path} has the classes {', '.join(names)}, none of which is called "
                    "building.",
                    remedy=f"Keep only buildings: ogr2ogr OUT.gpkg {ogr2ogr_input(self.path)} "
                    f"-where \"class = '{names[0]}'\"; or, for density, name their class: "
                    f"--building {names[0]}",
                )
        return None

    def _layer_of(
        self, read: Rows, fields: Sequence[str], *, typed: bool, buildings: bool
    ) -> VectorLayer:
        """Check and repair what was read."""
        crs, geometry, values, closed = read
        if self.in_pixels:
            raise GeoreferenceError(
                f"{self.path} is in pixels of an image, so it has no place on the ground.",
                remedy=f"Give the image a georeference and predict it again: {PLACE_IMAGE}",
            )
        if crs is None:
            raise GeoreferenceError(
                f"{self.path} has no coordinate system.",
                remedy=assign_crs(geometry, self.path, self.distinct("Layer")),
            )
        if not len(geometry) and self.path.suffix.lower() in (".kml", ".kmz"):
            check_links(self.path, kml_text(self.path))
        geometry, values, counts = self._polygons(geometry, values, buildings=buildings)
        converted = typed_column if typed else text_column
        layer = VectorLayer(
            geometry, crs, {name: converted(values[name]) for name in fields},
            counts + ReadCounts(repaired=closed),
        )  # fmt: skip
        _check_coordinates(layer, self.path, zones=self._areas)
        return layer

    def _polygons(
        self, geometry: Polygons, values: Values, *, buildings: bool
    ) -> tuple[Polygons, Values, ReadCounts]:
        """Return the valid polygons and their attributes, without what is left out."""
        geometry, kept, counts = _polygons(geometry, self.path)
        values = {name: column[kept] for name, column in values.items()}
        for name in values.keys() & {"height", "confidence"}:
            # Microsoft's footprints have -1 for what is not known.
            column = values[name]
            if column.dtype.kind == "f":
                values[name] = np.where(column == -1, np.nan, column)
            elif column.dtype.kind == "i":
                values[name] = np.ma.masked_equal(column, -1)
        field = self.building_field if buildings else None
        if field is None:
            return geometry, values, counts
        names = [name.casefold() for name in text_column(values[field]).tolist()]
        wanted = {"building": {*names} - {"", "no"}, "side": {"new"}}.get(field, BUILDING_NAMES)
        chosen = np.array([name in wanted for name in names], np.bool_)
        left_out = int((~chosen).sum())
        counts += ReadCounts(**{"older" if field == "side" else "not_buildings": left_out})
        return geometry[chosen], {name: one[chosen] for name, one in values.items()}, counts

    def _read_all(self, fields: Sequence[str], buildings: bool = False) -> Rows:
        # Another pass for each attribute of the rule would take up to a third of the time.
        rule = [one for one in self.fields if buildings and one.casefold() in _RULE_FIELDS]
        with _explained(self.path):
            reads = [part.read(list(dict.fromkeys([*fields, *rule]))) for part in self._parts]
        for name in rule:
            found = {str(value) for _, _, values, _ in reads for value in values[name].tolist()}
            self._distinct[name] = sorted(found - {"None"})
        if not reads:
            return CRS.from_epsg(4326), np.zeros(0, np.object_), {}, 0
        first = None if self.in_pixels else reads[0][0]
        if len(reads) == 1:
            return first, *reads[0][1:]
        systems, geometry, values, closed = zip(*reads)
        for crs in systems:
            _check_same(self.path, crs, first)
        joined = {name: join_columns([one[name] for one in values]) for name in values[0]}
        return first, np.concatenate(geometry), joined, sum(closed)


def join_columns(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the values of several files or chunks as one column."""
    kinds = {column.dtype.kind for column in columns}
    if len(kinds) > 1 and not kinds <= {"i", "u", "f"}:
        columns = [column.astype(object) for column in columns]
    # The types of numpy lack it.
    joined: NDArray[Any] = np.ma.concatenate(columns)  # type: ignore[no-untyped-call]
    return joined if np.ma.is_masked(joined) else np.ma.getdata(joined)


def _check_same(path: Path, crs: CRS | None, first: CRS | None) -> None:
    if crs is not None and first is not None and not crs.equals(first, ignore_axis_order=True):
        raise GeoreferenceError(
            f"{path} has files or layers in {crs_text(crs)} and {crs_text(first)}; expected one.",
            remedy="Reproject the files to one system: ogr2ogr -t_srs EPSG:4326 OUT IN",
        )


def assign_crs(geometry: Polygons, path: Path | str, drawn: Sequence[str] = ()) -> str:
    """Return the remedy for (n,) polygons without a coordinate system.

    Layers that are `drawn` may hold parcels, which must not count as buildings.
    """
    code = "EPSG:4326" if can_be_degrees(geometry) else "EPSG:…"
    read, also = ogr2ogr_input(Path(path)), ""
    if len(drawn) > 1:
        also = ", and keep the layers of buildings alone"
        read = f"""-where "Layer IN ('{"', '".join(drawn)}')" {read}"""
    return f"Assign its coordinate system{also}: ogr2ogr -a_srs {code} OUT.gpkg {read}"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # Drivers warn about what is checked here anyway: crossing rings, widths of fields.
            warnings.simplefilter("ignore")
            yield
    except RooftraceError:
        raise
    except Exception as error:
        check_exists(path)
        if is_image_file(path):
            raise DataError(
                f"{path} is an image; expected vector data.",
                remedy="Give polygons, such as a GeoPackage or GeoJSON.",
            ) from error
        # Readers raise what they do not document, such as UnboundLocalError for a damaged .prj.
        reason = reason_of(error)
        if isinstance(error, (AttributeError, TypeError, KeyError, IndexError, NameError)):
            reason = "its description of the data is damaged"
        if "not recognized as being in a supp" in reason and path.suffix.lower() == ".json":
            raise DataError(
                f"{path} has no GeoJSON; expected polygons with coordinates on the ground.",
                remedy="Give a GeoPackage or GeoJSON. docs/response.md makes one of xBD's labels; "
                "of others on GeoTIFFs: rooftrace convert IMAGES --truth FILE -o OUT.geojson",
            ) from error
        if "database is locked" in reason:
            raise VectorLockedError(
                f"{path} is held by another program, such as QGIS.",
                remedy="Close the file there, or end its editing, and try again.",
            ) from error
        unpack = conversion_of(path) if path.suffix.lower() in ARCHIVES else None
        # ISO's codes of polyhedral surfaces (15), TINs (16) and triangles, also with Z (1000).
        if re.search(r"type is not supported: [123]?0?1[5-7]$", reason):
            unpack = f"Copy it: ogr2ogr -nlt MULTIPOLYGON OUT.gpkg {ogr2ogr_input(path)}"
        if isinstance(error, UnicodeDecodeError):
            unpack = "Save it with the encoding UTF-8, for instance with a GIS."
        if "Nonlinear" in reason:
            unpack = "Write arcs as segments where they come from: ST_CurveToLine(geom)"
        raise DataError(
            f"{path} cannot be read as vector data: {reason}.",
            remedy=unpack or "Open it with a GIS to check that it is complete.",
        ) from error


def _polygons(geometry: Polygons, path: Path) -> tuple[Polygons, BoolArray, ReadCounts]:
    """Return the valid polygons, (n,) bool of the kept geometries, and counts of the others."""
    kinds = shapely.get_type_id(geometry)
    present = ~shapely.is_missing(geometry) & ~shapely.is_empty(geometry)
    others = present & ~np.isin(kinds, POLYGONAL)
    if others.any() and (others == present).all():
        found = Counter(shapely.GeometryType(kind).name.title() for kind in kinds[others])
        raise NoPolygonsError(
            f"{path} has no polygon ({', '.join(f'{found[name]} {name}' for name in sorted(found))}"
            "); footprints must be polygons.",
            remedy=f"Give a file with outlines, or draw them. {FOR_POINTS}",
        )
    present &= ~others
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    present[owner[~np.isfinite(coordinates).all(axis=1)]] = False
    invalid = present & ~shapely.is_valid(geometry)
    repair = invalid | present & (kinds == shapely.GeometryType.GEOMETRYCOLLECTION)
    drawn, geometry = geometry, geometry.copy()
    geometry[repair] = without_lines(valid_by_structure(geometry[repair]))
    kept = present & ~shapely.is_empty(geometry)
    count = int(others.sum())
    without = len(kept) - int(kept.sum()) - count
    repaired = np.flatnonzero(invalid & kept)
    areas = shapely.area(geometry[repaired]), shapely.area(drawn[repaired])
    resized = int((~np.isclose(*areas, rtol=_RESIZED, atol=0)).sum())
    return geometry[kept], kept, ReadCounts(len(repaired), without, count, resized=resized)


def _check_coordinates(layer: VectorLayer, path: Path, *, zones: bool) -> None:
    """Refuse pixels or metres in a format that assumes degrees."""
    if not len(layer) or not layer.crs.is_geographic:
        return
    left, bottom, right, top = layer.bounds_xy
    turns = 360 / layer.crs.axis_info[0].unit_conversion_factor * np.pi / 180
    # At a pole, a change of the coordinate system rounds beyond it.
    turns *= 1 + 1e-9
    if max(abs(left), abs(right)) > turns or max(abs(bottom), abs(top)) > turns / 4:
        raise GeoreferenceError(
            f"{path} has coordinates from {left:g}, {bottom:g} to {right:g}, {top:g}, not "
            f"degrees, but its coordinate system is {crs_text(layer.crs)}.",
            remedy=("Give degrees, name the crs in the GeoJSON, or a" if zones else "A")
            + f"ssign the right coordinate system: ogr2ogr -a_srs EPSG:… OUT.gpkg "
            f"{ogr2ogr_input(path)}"
            + ("" if zones else f". If they are pixels, georeference the image: {PLACE_IMAGE}"),
        )
