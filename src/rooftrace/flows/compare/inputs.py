"""Inputs of `rooftrace compare`: layers of buildings in any form, and the area that was seen."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError, GeoreferenceError, LabelError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import Ints, Polygons, RasterSource
from rooftrace.flows.predict.run_folder import mask_beside
from rooftrace.flows.vectorize import run_vectorize
from rooftrace.io.area import Area, observed_file
from rooftrace.io.files import check_exists
from rooftrace.io.gdal import is_raster
from rooftrace.io.georeferenced import BlankSource, placed_by, provenance_of
from rooftrace.io.image_header import named_dates
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.make_valid import areal
from rooftrace.io.raster import open_image, open_raster
from rooftrace.io.reproject import BEND_M, bounds_of, crs_text, joint_bounds, reprojected
from rooftrace.io.vector_formats import KML_ID
from rooftrace.io.vector_read import SCORE_FIELDS, ReadCounts, VectorFile, join_columns
from rooftrace.vector.match import PackedPolygons, SpilledPolygons, first_of_equal
from rooftrace.vector.prepare import MaskRecord

_IDS = ("id", "@id", "osm_id", "osm_way_id", "full_plus_code", "fid", "gml_id", KML_ID)
"""Names of attributes that hold the id of a building, in upper or lower case."""

_OSM_PREFIX = {"osm_way_id": "way/", "osm_id": "relation/"}
"""Kinds of the ids in the two columns that GDAL gives an extract of OpenStreetMap."""

ORIGINS = {"compare_date": "imagery_date", "compare_source": "source"}
"""Columns with the origin of new outlines, and the attributes of the new layer that tell it."""

_COMPARED = "compare_layer"
"""Column of the layers that `rooftrace compare` writes."""

_OF_FIRST = {*ORIGINS.values(), "model"}
"""Attributes of which the first value counts for the layer."""

_OF_RESULTS = {"score", "area_m2", "model"}
"""Columns that layers of rooftrace have beside `source`; OpenStreetMap has a tag of that name."""

_TEXT = np.dtypes.StringDType()
"""Texts in memory, without an object of Python for each; an empty one is None."""


@dataclass(frozen=True)
class BuildingLayer:
    """Buildings of one input.

    Args:
        outlines: The n buildings in `crs`.
        bounds_xy: Left, bottom, right and top of all buildings; NaN without any.
        ids: (n,) text, the id of each building: its own, or its row from 1 in the input: `row 7`.
        score: (n,) score in 0..1, NaN where there is none.
        attributes: (n,) values of each attribute; empty unless they were asked for.
        mask: Mask that says which ground was seen: the input itself, or the one that `rooftrace
            predict` has written beside the polygons; None where there is none.
        seen: Image whose valid pixels were seen, made from the mask.
        observed: Ground that was seen, as a catalogue or a comparison writes it; None with a mask.
        source: Attribution of the imagery of a layer that rooftrace predicted.
        building: Attribute that tells its buildings from other polygons, and the value for one.
    """

    name: str
    outlines: SpilledPolygons
    crs: CRS
    bounds_xy: tuple[float, float, float, float]
    ids: NDArray[Any]
    score: NDArray[np.float32]
    attributes: Mapping[str, NDArray[Any]]
    notes: tuple[str, ...]
    mask: Path | None = None
    seen: RasterSource | None = None
    observed: Area | None = None
    date: str | None = None
    source: str | None = None
    model: str | None = None
    building: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self.outlines)

    @property
    def ground(self) -> str:
        """Name of the file that says which ground was seen; "" without one."""
        return self.observed.name if self.observed is not None else str(self.mask or "")

    def column(self, name: str, kinds: str) -> NDArray[Any] | None:
        """Return (n,) values of an attribute; None where their kind in NumPy is another one."""
        values = self.attributes.get(name)
        return values if values is not None and values.dtype.kind in kinds else None

    def values(self, name: str, index: Ints) -> NDArray[Any]:
        """Return an attribute of some buildings; texts are strings, or None."""
        values = self.attributes[name][index]
        if values.dtype != _TEXT:
            return values
        texts = values.astype(np.object_)
        texts[texts == ""] = None
        return texts

    def ids_of(self, index: Ints) -> NDArray[np.object_]:
        """Return the ids of some buildings as strings."""
        return self.ids[index].astype(np.object_)


def no_crs(source: RasterSource) -> GeoreferenceError:
    """Return the error for an image or mask without a coordinate system."""
    return GeoreferenceError(
        f"{source.name} has no coordinate system, so it has no place on the ground.",
        remedy=placed_by(source),
    )


ALL_FIELDS = ("*",)
"""All attributes of a layer."""


def read_buildings_layer(
    path: Path,
    folder: Path,
    *,
    attributes: Sequence[str] = (),
    threshold: float | None = None,
    layer_name: str | None = None,
    id_field: str | None = None,
    needs_id: bool = False,
) -> BuildingLayer:
    """Read the buildings of a vector file, of a folder of GeoParquet, or of a mask.

    Outlines go to a temporary file.

    Args:
        path: File of polygons; folder of `rooftrace predict` with those of one image; folder with
            the files of one layer, such as that of `rooftrace catalogue`; or a mask or raster of
            probabilities, which is vectorised.
        folder: Folder of the temporary file, which has no name and disappears with the process.
        attributes: Names of the attributes that are read if they exist, or `ALL_FIELDS`.
        threshold: Probability from which a pixel of a raster is a building; see `open_mask`.
        layer_name: Layer of a file with several; see `VectorFile`.
        id_field: Attribute that holds the ids, before those of `_IDS`, where the layer has it.
        needs_id: Whether the layer must have `id_field`.

    Raises:
        DataError: The input does not exist, cannot be read, has something else than polygons, or
            lacks `id_field`.
        GeoreferenceError: It has no coordinate system.
        LabelError: A mask has classes of which none is called building.
    """
    check_exists(path)
    layer_of = partial(
        _of_file, folder=folder, id_field=id_field, needs_id=needs_id, attributes=attributes
    )
    if path.is_dir() or not is_raster(path):
        file = VectorFile(path, layer_name)
        layer = layer_of(file.path, file, ())
        mask = mask_beside(file.path)
        if mask is not None:
            return _seen_by(mask, layer)
        if (beside := observed_file(file.path)) is None:
            return layer
        ground = beside.read([])
        return replace(layer, observed=Area(ground.geometry, ground.crs, str(beside.path)))
    with tempfile.TemporaryDirectory() as made:
        # Polygons of a mask have no ids; in a GeoPackage they would get some.
        traced = Path(made) / "buildings.parquet"
        report = run_vectorize(path, traced, threshold=threshold)
        _check_classes(path, [one.name for one in report.classes])
        notes = tuple(note for note in report.notes if str(traced) not in note)
        file = VectorFile(traced)
        if file.columns()[1] is None:
            raise no_crs(open_image(path))
        layer = layer_of(path, file, notes)
    stated = provenance_of(open_image(path)).imagery_date
    record = MaskRecord.read(path)
    model = None if record is None else record.origin.model
    return _seen_by(path, replace(layer, date=date_of(path, stated), model=model))


def _check_classes(path: Path, names: Sequence[str]) -> None:
    """Raise an error for a mask of classes of which none is called building."""
    if names and not any(name.casefold() in BUILDING_NAMES for name in names):
        raise LabelError(
            f"{path} has the classes {', '.join(names)}; expected a mask of buildings, or a class "
            "called building.",
            remedy="Make polygons of the class of buildings, and compare these: rooftrace "
            f"vectorize {path.name} --class CLASS -o buildings.gpkg. With --imagery "
            f"{path.name}, the valid pixels of the mask say which ground was seen.",
        )


def _seen_by(mask: Path, layer: BuildingLayer) -> BuildingLayer:
    """Return a layer whose mask says which ground was seen."""
    image = open_raster(mask, palette="indices")
    if image.nodata[0] != 0:
        return replace(layer, mask=mask, seen=open_image(mask))
    # Tools that rasterise polygons write it like this.
    note = f"{mask} declares 0, its background, as nodata: all of it counts as seen"
    seen = BlankSource(image.grid, image.name)
    return replace(layer, mask=mask, seen=seen, notes=(*layer.notes, note))


def date_of(path: Path, stated: str | None) -> str | None:
    """Return the date of a layer: stated by its data, of its STAC item, or in its name.

    Returns:
        The date from the year on, such as `2024` or `2024-05-17`; None if nothing tells it.
    """
    if stated:
        return stated.partition("/")[0][:10]
    item = path.with_name(f"{path.stem.removesuffix('_buildings').removesuffix('_mask')}.json")
    with suppress(OSError, ValueError, KeyError, TypeError):
        properties = json.loads(item.read_bytes())["properties"]
        return str(properties["datetime"] or properties["start_datetime"])[:10]
    named = named_dates(path.stem) or named_dates(path.parent.name)
    return named[-1] if named else None


def _of_file(
    path: Path, file: VectorFile, notes: tuple[str, ...], *, folder: Path, id_field: str | None,
    needs_id: bool, attributes: Sequence[str],
) -> BuildingLayer:  # fmt: skip
    """Read the layer of a file chunk by chunk."""
    by_fid = id_field == "fid" and file.has_fids
    if needs_id and not by_fid and id_field not in file.fields:
        raise DataError(
            f"{path} has no column {id_field!r}; it has {list_first(sorted(file.fields), 12)}.",
            remedy="Give the one with its ids, or remove --id.",
        )
    id_names = _IDS if id_field is None else (id_field.lower(), *_IDS)
    fields = _fields(file, attributes, id_names)
    kept = fields if attributes == ALL_FIELDS else {*fields} & {*attributes}
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in kept}
    id_texts, bounds, has_area = [_texts(())], [np.zeros((0, 4))], [np.zeros(0, np.bool_)]
    scores: list[NDArray[np.float32] | None] = [np.zeros(0, np.float32)]
    first: dict[str, str] = {}
    crs, counts = None, ReadCounts()

    def read() -> Iterator[Polygons]:
        """Yield the polygons chunk by chunk, and keep what belongs to them."""
        nonlocal crs, counts
        for chunk in file.chunks(fields, buildings=True):
            crs = crs or chunk.crs
            counts += chunk.counts
            values = {name: chunk.values[name] for name in fields}
            id_texts.append(_texts(_ids(values, len(chunk), id_names)))
            bounds.append(bounds_of(chunk.geometry, chunk.crs))
            has_area.append(shapely.area(chunk.geometry) > 0)
            scores.append(_scores(values, len(chunk)))
            for name in (_OF_FIRST & {*values}) - {*first}:
                if one := next((str(one) for one in values[name] if one), None):
                    first[name] = one
            for name, parts in columns.items():
                column = values[name]
                parts.append(_texts(column.tolist()) if column.dtype.kind == "O" else column)
            yield chunk.geometry

    outlines = SpilledPolygons.of(read(), folder)
    places, area = np.concatenate(bounds), np.concatenate(has_area)
    crs = crs or CRS.from_epsg(4326)
    is_first = first_of_equal(places, outlines.unpack)
    notes += file.copy_notes() if attributes == ALL_FIELDS else ()
    notes += file.notes(counts)
    notes += tuple(
        f"{path}: {plural(count, 'polygon')} {what}."
        for count, what in (
            (int((~area).sum()), "without an area left out"),
            (int((area & ~is_first).sum()), "exactly on another one left out"),
        )
        if count
    )
    # What does not count is left out.
    index = np.flatnonzero(is_first & area)
    ids = np.concatenate(id_texts)[index]
    missing = ids == ""
    ids[missing] = [f"row {number}" for number in (index[missing] + 1).tolist()]
    known = [one for one in scores if one is not None]
    has_scores = len(known) == len(scores)
    score = np.concatenate(known)[index] if has_scores else np.full(len(index), np.nan, np.float32)
    building = None
    if field := file.building_field:
        names = [one for one in file.distinct(field) if one.casefold() in BUILDING_NAMES]
        building = field, {"building": "yes", "side": "new"}.get(field) or names[0]
    # A conflated layer has buildings of several dates.
    is_conflated = _COMPARED in file.fields
    is_ours = not is_conflated and {*file.fields} >= _OF_RESULTS
    return BuildingLayer(
        str(path), outlines.take(index), crs, joint_bounds(places, crs), ids, score,
        {name: _joined(columns.pop(name))[index] for name in [*columns]}, notes,
        date=None if is_conflated else date_of(path, first.get("imagery_date")),
        source=first.get("source") if is_ours else None,
        model=first.get("model") if is_ours else None, building=building,
    )  # fmt: skip


def _fields(file: VectorFile, attributes: Sequence[str], id_names: Sequence[str]) -> list[str]:
    """Return the names of the attributes that are read."""
    wanted = {*id_names, *SCORE_FIELDS, *_OF_FIRST, *attributes}
    fields = [
        name
        for name in file.fields
        if (attributes == ALL_FIELDS or name.lower() in wanted) and name not in ("geometry", "bbox")
    ]
    # Beside other ids, a fid would look like one of them, unless it was asked for.
    has_ids = id_names[0] != "fid" and any(name.lower() in id_names for name in file.fields)
    return [*fields, "fid"] if file.has_fids and not has_ids else fields


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the values of several chunks; texts where some are texts, or of another kind."""
    kinds = {part.dtype.kind for part in parts}
    if kinds == {_TEXT.kind} or (len(kinds) > 1 and kinds != {"i", "f"}):
        return np.concatenate([
            part if part.dtype == _TEXT else _texts(part.tolist()) for part in parts
        ])  # fmt: skip
    return join_columns(parts)


def _texts(values: Iterable[object]) -> NDArray[Any]:
    """Return values as texts; None and NaN are empty."""
    texts = ["" if value is None or value != value else str(value) for value in values]
    return np.array(texts, _TEXT)


def _columns_of(values: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[str]:
    """Return the names of those columns that have one of these names, in the order of `names`."""
    by_name = {name.lower(): name for name in values}
    return [by_name[name] for name in names if name in by_name]


def _ids(values: Mapping[str, NDArray[Any]], count: int, names: Sequence[str]) -> list[str | None]:
    """Return ids as text; None where a building has none."""
    ids: list[str | None] = [None] * count
    is_osm = {*_OSM_PREFIX} <= {*values}
    for name in reversed(_columns_of(values, names)):
        prefix = _OSM_PREFIX.get(name, "") if is_osm else ""
        for number, value in enumerate(values[name].tolist()):
            if value is not None and value == value:
                whole = isinstance(value, float) and value.is_integer()
                ids[number] = f"{prefix}{int(value) if whole else value}"
    return ids


def _scores(values: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.float32] | None:
    """Return scores in 0..1, NaN where there is none; None if the attribute has other texts."""
    for name in _columns_of(values, SCORE_FIELDS)[:1]:
        try:
            scores = np.ma.filled(values[name].astype(np.float32), np.nan)
        except (TypeError, ValueError):
            return None
        # Microsoft writes -1 where it has none.
        return np.where((scores >= 0) & (scores <= 1), scores, np.float32(np.nan))
    return np.full(count, np.nan, np.float32)


def on_plane(layer: BuildingLayer, plane: CRS) -> PackedPolygons:
    """Return the buildings of a layer on the plane of the comparison, in its order."""
    if layer.crs.equals(plane, ignore_axis_order=True):
        return PackedPolygons.of_stored(layer.outlines)

    def projected() -> Iterator[Polygons]:
        for _, outlines in layer.outlines.chunks():
            geometry = reprojected(outlines, layer.crs, plane, BEND_M)
            lost = int((~np.isfinite(shapely.bounds(geometry)).all(axis=1)).sum())
            if lost:
                raise GeoreferenceError(
                    f"{plural(lost, 'building')} of {layer.name} in {crs_text(layer.crs)} "
                    f"{'has' if lost == 1 else 'have'} no coordinates in {crs_text(plane)}, the "
                    "system of the comparison: too far away.",
                    remedy="Give layers of one place, or check both coordinate systems.",
                )
            yield areal(geometry)

    folder = layer.outlines.spill.folder
    return PackedPolygons.of_stored(SpilledPolygons.of(projected(), folder))
