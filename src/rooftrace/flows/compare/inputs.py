"""Inputs of `rooftrace compare`: layers of buildings in any form, and the area that was seen."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.text import plural
from rooftrace.flows.vectorize import run_vectorize
from rooftrace.io.gdal import is_raster
from rooftrace.io.partitions import MANIFEST
from rooftrace.io.reproject import reprojected
from rooftrace.io.vector_read import VectorFile, VectorLayer
from rooftrace.labels.shapes import polygon_parts, valid_geometry
from rooftrace.vector.match import PackedPolygons

__all__ = [
    "BEND_M",
    "BuildingLayer",
    "areal",
    "on_plane",
    "read_buildings_layer",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]

BEND_M = 0.01
"""Maximum deviation in metres of an edge that is reprojected."""

_IDS = ("id", "osm_id", "osm_way_id", "full_plus_code", "fid", "gml_id")
_SCORES = ("score", "confidence", "probability", "prob", "conf")
"""Names of attributes that hold the id and the score of a building, in upper or lower case."""

_OSM_PREFIX = {"osm_way_id": "way/", "osm_id": "relation/"}
"""Kinds of the ids in the two columns that GDAL gives an extract of OpenStreetMap."""

_BUILDING = ("building", "buildings")
_POLYGONS_END, _MASK_END = "_buildings", "_mask.tif"
"""Ends of the names of a scene's results."""

_CHUNK = 50_000
_PARQUET = (".parquet", ".geoparquet")


@dataclass(frozen=True)
class BuildingLayer:
    """Buildings of one input.

    Args:
        name: Name in messages.
        wkb: (n,) well-known binary of each building in `crs`.
        crs: Coordinate system.
        bounds_xy: Left, bottom, right and top of all buildings; NaN without any.
        ids: (n,) id of each building as text: its own, or its number from 1 in the input.
        score: (n,) score in 0..1, NaN where there is none.
        attributes: (n,) values of each attribute; empty unless they were asked for.
        masks: Rasters whose valid pixels were seen: the input itself, or the mask that `rooftrace
            predict` has written beside the polygons; empty where there is none.
        notes: Notes for the user.
    """

    name: str
    wkb: NDArray[np.object_]
    crs: CRS
    bounds_xy: tuple[float, float, float, float]
    ids: NDArray[np.object_]
    score: NDArray[np.float32]
    attributes: Mapping[str, NDArray[Any]]
    masks: tuple[Path, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.wkb)


def read_buildings_layer(
    path: Path, *, attributes: bool = False, threshold: float | None = None
) -> BuildingLayer:
    """Read the buildings of a vector file, of a folder of GeoParquet, or of a mask.

    Args:
        path: File of polygons; folder with the files of one layer, such as that of `rooftrace
            catalogue`; or a mask or raster of probabilities, which is vectorised.
        attributes: True to read all attributes.
        threshold: Probability from which a pixel of a raster is a building; see `open_mask`.

    Raises:
        DataError: The input does not exist, cannot be read, or has something else than polygons.
        GeoreferenceError: It has no coordinate system.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.", remedy="Check the path.")
    if path.is_dir():
        return _of_files(str(path), _files_of(path), (), attributes=attributes)
    if not is_raster(path):
        layer = _of_files(str(path), [path], (), attributes=attributes)
        return replace(layer, masks=_mask_beside(path))
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "buildings.gpkg"
        report = run_vectorize(path, traced, threshold=threshold)
        notes = tuple(note for note in report.notes if str(traced) not in note)
        if not VectorFile(traced).outlines()[1]:
            raise GeoreferenceError(
                f"{path} has no coordinate system, so it has no place on the ground.",
                remedy="Assign one: gdal_edit -a_srs EPSG:… FILE, and compare again.",
            )
        layer = _of_files(str(path), [traced], notes, attributes=attributes)
    return replace(layer, masks=(path,))


def _mask_beside(path: Path) -> tuple[Path, ...]:
    """Return the mask of the prediction that wrote the polygons, where it lies beside them."""
    if not path.stem.endswith(_POLYGONS_END):
        return ()
    mask = path.with_name(f"{path.stem.removesuffix(_POLYGONS_END)}{_MASK_END}")
    return (mask,) if mask.is_file() and is_raster(mask) else ()


def _files_of(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PARQUET)
    # The temporary files of a run that was killed are hidden.
    found = [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found and not (folder / MANIFEST).is_file():
        raise DataError(
            f"The folder {folder} has no GeoParquet; expected the files of one layer.",
            remedy="Give the folder that rooftrace catalogue has written, or a single file.",
        )
    return found


def _of_files(
    name: str, files: Sequence[Path], notes: tuple[str, ...], *, attributes: bool
) -> BuildingLayer:
    layers = [_read(VectorFile(path), attributes) for path in files]
    if not layers:
        return _empty(name, notes)
    crs = layers[0][0].crs
    for path, (layer, _) in zip(files, layers):
        if not layer.crs.equals(crs, ignore_axis_order=True):
            raise GeoreferenceError(
                f"{path} is in {layer.crs.name!r}, but {files[0]} in {crs.name!r}; the files of a "
                "layer have one coordinate system.",
                remedy="Reproject the files to one system: ogr2ogr -t_srs EPSG:4326 OUT IN",
            )
    kept = [_buildings(layer) for layer, _ in layers]
    geometry = np.concatenate([layer.geometry[rows] for (layer, _), rows in zip(layers, kept)])
    shared = [one for one in layers[0][1] if all(one in fields for _, fields in layers)]
    values = {
        field: np.concatenate([layer.values[field][rows] for (layer, _), rows in zip(layers, kept)])
        for field in shared
    }
    repaired = sum(layer.repaired for layer, _ in layers)
    left_out = sum(layer.without_outline for layer, _ in layers)
    other = sum(int((~rows).sum()) for rows in kept)
    layers.clear()
    wkb = np.asarray(shapely.to_wkb(geometry), np.object_)
    bounds = tuple(shapely.total_bounds(geometry).tolist()) if len(geometry) else (np.nan,) * 4
    area = shapely.area(geometry) > 0
    del geometry
    first = _first_of_equal(wkb) & area
    said = [
        (repaired, "had invalid outlines, which were repaired"),
        (left_out + int((~area).sum()), "without an area are left out"),
        (other, "have another class than building and are left out"),
        (int((area & ~first).sum()), "lie exactly on another one and are left out"),
    ]
    notes += tuple(f"{name}: {plural(count, 'polygon')} {what}." for count, what in said if count)
    ids = _ids(values, len(wkb))[first]
    score = _scores(values, len(wkb))[first]
    kept_values = {field: column[first] for field, column in values.items()} if attributes else {}
    return BuildingLayer(
        name, wkb[first], crs, bounds, ids, score, kept_values, (), notes
    )  # fmt: skip


def _empty(name: str, notes: tuple[str, ...]) -> BuildingLayer:
    none = np.zeros(0, np.object_)
    nowhere = (np.nan,) * 4
    return BuildingLayer(
        name, none, CRS.from_epsg(4326), nowhere, none, np.zeros(0, np.float32), {}, (), notes
    )


def _read(file: VectorFile, attributes: bool) -> tuple[VectorLayer, list[str]]:
    """Return a layer and the names of its attributes.

    Raises:
        DataError: The file was written to meanwhile.
    """
    before = _stamp(file.path)
    wanted = {*_IDS, *_SCORES, "class"}
    fields = [
        name
        for name in file.fields
        if (attributes or name.lower() in wanted) and name not in ("geometry", "bbox", "geom")
    ]
    layer = file.read(fields, typed=True)
    if _stamp(file.path) != before:
        raise DataError(
            f"{file.path} was written to while it was read; its buildings may be of two versions.",
            remedy="Wait until it is complete, and compare again.",
        )
    return layer, fields


def _stamp(path: Path) -> tuple[tuple[int, int], ...]:
    """Return the size and the time of the last change of a file and of its log, zeros without one.

    SQLite first writes the changes of a GeoPackage to the log beside it.
    """
    # An empty log is none: reading may create one, and remove it.
    log = path.with_name(f"{path.name}-wal")
    found = [file.stat() if file.exists() else None for file in (path, log)]
    return tuple(
        (stat.st_size, stat.st_mtime_ns) if stat is not None and stat.st_size else (0, 0)
        for stat in found
    )


def _buildings(layer: VectorLayer) -> Bools:
    """Return (n,) True for buildings: all, unless the attribute `class` names some as such."""
    names = layer.values.get("class")
    if names is None:
        return np.ones(len(layer), np.bool_)
    found = np.array([str(name).casefold() in _BUILDING for name in names.tolist()], np.bool_)
    return found if found.any() else np.ones(len(layer), np.bool_)


def _first_of_equal(wkb: NDArray[np.object_]) -> Bools:
    """Return (n,) False for each polygon that equals an earlier one to the bit."""
    seen: set[bytes] = set()
    first = np.ones(len(wkb), np.bool_)
    for number, one in enumerate(wkb.tolist()):
        if one in seen:
            first[number] = False
        else:
            seen.add(one)
    return first


def _columns_of(values: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[str]:
    """Return the names of those columns that have one of these names, in the order of `names`."""
    by_name = {name.lower(): name for name in values}
    return [by_name[name] for name in names if name in by_name]


def _ids(values: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.object_]:
    """Return ids as text; where a building has none, its number from 1."""
    ids = np.array([str(number) for number in range(1, count + 1)], np.object_)
    is_osm = {*_OSM_PREFIX} <= {*values}
    for name in reversed(_columns_of(values, _IDS)):
        prefix = _OSM_PREFIX.get(name, "") if is_osm else ""
        for number, value in enumerate(values[name].tolist()):
            if value is not None and value == value:
                whole = isinstance(value, float) and value.is_integer()
                ids[number] = f"{prefix}{int(value) if whole else value}"
    return ids


def _scores(values: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.float32]:
    """Return scores in 0..1; NaN where there is no such number."""
    score = np.full(count, np.nan, np.float32)
    for name in _columns_of(values, _SCORES)[:1]:
        try:
            found = values[name].astype(np.float32)
        except ValueError:
            break
        # Microsoft writes -1 where it has none.
        score = np.where((found >= 0) & (found <= 1), found, np.float32(np.nan))
    return score


def on_plane(layer: BuildingLayer, plane: CRS) -> PackedPolygons:
    """Return the buildings of a layer on the plane of the comparison, in its order.

    Raises:
        GeoreferenceError: A building has no coordinates there.
    """
    parts = []
    for start in range(0, len(layer), _CHUNK):
        geometry = np.asarray(shapely.from_wkb(layer.wkb[start : start + _CHUNK]), np.object_)
        geometry = reprojected(geometry, layer.crs, plane, BEND_M)
        lost = int((~np.isfinite(shapely.bounds(geometry)).all(axis=1)).sum())
        if lost:
            raise GeoreferenceError(
                f"{plural(lost, 'building')} of {layer.name} in {layer.crs.name!r} "
                f"{'has' if lost == 1 else 'have'} no coordinates in {plane.name!r}, the system of "
                "the comparison: too far away.",
                remedy="Give layers of one place, or check both coordinate systems.",
            )
        parts.append(PackedPolygons.of(areal(geometry)))
    if not parts:
        return PackedPolygons.of(np.zeros(0, np.object_))
    columns = zip(*((part.wkb, part.bounds, part.area, part.centre) for part in parts))
    return PackedPolygons(*(np.concatenate(column) for column in columns))


def areal(geometry: Polygons) -> Polygons:
    """Return valid polygons and multipolygons: rounding may cross rings that touch."""
    valid = valid_geometry(geometry)
    mixed = np.flatnonzero(shapely.get_type_id(valid) > shapely.GeometryType.MULTIPOLYGON)
    for index in mixed.tolist():
        valid[index] = shapely.union_all(polygon_parts(valid[[index]])[0])
    return valid
