"""Inputs of `rooftrace density`: a mask, polygons of buildings, or both."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.core.text import list_first, plural
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Polygons, Progress, Window
from rooftrace.density.accumulate import centres_of
from rooftrace.flows.predict.run_folder import mask_beside
from rooftrace.flows.vectorize import MaskInput, open_mask
from rooftrace.io.companions import holds_results, predicted_labels
from rooftrace.io.files import check_exists, prepare_folder
from rooftrace.io.gdal import number_polygons
from rooftrace.io.legend import BUILDING_NAMES, NODATA, read_categories
from rooftrace.io.raster import open_raster
from rooftrace.io.reproject import (
    BEND_M,
    bounds_meet,
    bounds_of,
    crs_units,
    degrees_text,
    joint_bounds,
    layer_position_notes,
    missing_grid,
    outline_bounds,
    reprojected,
)
from rooftrace.io.vector_formats import check_city_model, is_vector_file, ogr2ogr_input
from rooftrace.io.vector_layers import is_comparison, text_column
from rooftrace.io.vector_read import ReadCounts, VectorFile
from rooftrace.vector.compare import MAP_WORDS
from rooftrace.vector.footprints import square_metres_per_px
from rooftrace.vector.match import first_of_equal
from rooftrace.vector.prepare import MaskRecord
from rooftrace.vector.trace_blocks import BlockPolygonizer

Mask8 = NDArray[np.uint8]

_SAME_AREA, _MANY = 0.01, 5
"""Largest relative difference of the area that a prediction wrote from that of its outline; least
number of buildings that show the scale of the areas."""

_ENDINGS = (".tif", ".gpkg", ".png", ".csv", ".json")
_NO_MASK = (
    "A mask holds class indices with 1 for buildings, or 0 and 255. Where it has other classes, "
    "or its 255 is nodata, name the class of buildings: --building 1. Predict an image first, and "
    "give the folder of its results: rooftrace predict IMAGE -o OUT"
)
_BACKGROUND_IS_NODATA = (
    "If the background was observed, unset its nodata value: gdal_edit.py -unsetnodata FILE. If "
    "not, give the polygons alone"
)


@dataclass(frozen=True)
class MaskFile:
    """A mask that is read in blocks of whole rows: 1 is building, 0 is not, NODATA is unknown.

    Args:
        building_class: Class index of buildings in the mask.
        class_name: Name of this class; its index where the mask names no classes.
        outlines: (n,) buildings in pixels that are drawn in place of those of the mask.
    """

    path: Path
    source: MaskInput
    building_class: int
    class_name: str
    outlines: Polygons | None = None

    @classmethod
    def of(cls, path: Path, building: str | None = None) -> Self:
        """Open the mask of a file, see `open_mask`.

        Args:
            building: Value or name of the class of buildings. By default, it is the class called
                building where the mask has several.

        Raises:
            ConfigError: The mask has no class `building`.
            LabelError: It is not known which class is that of buildings.
        """
        if open_raster(path, palette="indices").nodata[0] == 0:
            raise LabelError(
                f"The mask {path} has the nodata value 0, which is the background.",
                remedy=_BACKGROUND_IS_NODATA,
            )
        names = read_categories(path)
        if building is None and len(names) > 2:
            building = next((one for one in names if one.casefold() in BUILDING_NAMES), None)
        wanted = () if building is None else (building,)
        try:
            source = open_mask(path, classes=wanted, option="--building")
        except LabelError as error:
            raise LabelError(error.message, remedy=_NO_MASK) from error
        index = source.classes[0] if wanted else source.building
        if index is None:
            listed = ", ".join(source.names[one] for one in source.classes)
            raise LabelError(
                f"The mask {path} has the classes {listed}; none is called building.",
                remedy=_NO_MASK,
            )
        name = building or "1"
        if name.isdecimal() and int(name) < len(names):
            name = names[int(name)]
        return cls(path, source, index, name)

    @property
    def grid(self) -> GeoGrid:
        return self.source.grid

    def blocks(self, progress: Progress | None = None) -> Iterator[tuple[Window, Mask8]]:
        """Yield windows that partition the mask, from top to bottom, with their values."""
        total = self.grid.height * self.grid.width
        for window, mask, *_ in self.source.blocks():
            built = mask == self.building_class
            if self.outlines is not None:
                built = number_polygons(self.outlines, window) > 0
            yield window, np.where(mask == NODATA, mask, built.view(np.uint8))
            if progress is not None:
                progress(window.row_stop * window.width, total)


def trace_regions(
    shape_yx: tuple[int, int], blocks: Iterable[tuple[Window, Mask8]]
) -> Iterator[Polygons]:
    """Yield the regions of pixels other than 0 as polygons in pixels, once complete.

    Args:
        shape_yx: (rows, columns) of the scene.
        blocks: (y, x) masks of windows that partition the scene.
    """
    polygonizer = BlockPolygonizer(shape_yx)
    for window, mask in blocks:
        polygonizer.feed(window, mask, None)
        yield polygonizer.take().polygons
    yield polygonizer.finish().polygons


@dataclass(frozen=True)
class BuildingPolygons:
    """Polygons of buildings.

    Args:
        geometry: (n,) valid polygons and multipolygons.
        crs: CRS of the geometry; None for pixels of the mask (x right, y down).
        numbers: (n,) float64 values of the attributes that were asked for; NaN where there is none.
        is_edited: Whether the file is a prediction that was reviewed or edited.
    """

    path: Path
    geometry: Polygons
    crs: CRS | None
    numbers: Mapping[str, Floats]
    notes: tuple[str, ...]
    is_edited: bool = False

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of all polygons; see `joint_bounds`."""
        if self.crs is None:
            left, bottom, right, top = shapely.total_bounds(self.geometry).tolist()
            return left, bottom, right, top
        return joint_bounds(bounds_of(self.geometry, self.crs), self.crs)

    def shares_of(self, mask: MaskFile) -> tuple[MaskFile, list[str]]:
        """Return the mask that gives the shares, and a note: edits decide about them, too."""
        if not self.is_edited:
            return mask, []
        outlines = self.geometry
        if self.crs is not None and mask.grid.crs is not None:
            grid_crs = mask.grid.crs
            placed = reprojected(outlines, self.crs, grid_crs, crs_units(BEND_M, grid_crs))
            outlines = np.asarray(shapely.transform(placed, mask.grid.to_pixels), np.object_)
        note = f"{self.path.name} was edited: shares come from its outlines, not from the mask."
        return replace(mask, outlines=outlines), [note]


def areas_with_edits(
    areas: Floats, centres: Floats, crs: CRS, written: NDArray[Any]
) -> tuple[Floats, BoolArray]:
    """Return (n,) areas as a prediction would write them, and which outlines were edited since.

    Edits of corners do not change the areas `written`. With --gsd, these have another scale than
    the ground. The (n,) areas and (n, 2) centres are in units of the CRS.
    """
    ground = areas * square_metres_per_px(GeoGrid((1, 1), crs=crs), centres)
    ratio = ground / np.maximum(np.ma.filled(written.astype(np.float64), np.nan), 1e-9)
    known = ratio[np.isfinite(ratio)]
    scale = np.median(known) if len(known) >= _MANY else 1.0
    return ground / scale, ~(abs(ratio / scale - 1) <= _SAME_AREA)


def read_buildings(
    path: Path,
    building: str | None = None,
    mask: MaskFile | None = None,
    layer_name: str | None = None,
    value: str | None = None,
) -> BuildingPolygons:
    """Return the buildings of a vector file.

    Args:
        building: Value of the attribute `class` of buildings, or of `status` in a comparison;
            default: see `VectorFile`.
        mask: Mask of the same place, which gives the name of the class instead. Polygons may be in
            its pixels if it has no CRS.
        layer_name: Layer of a file with several; see `VectorFile`.
        value: Attribute of numbers that is read, with `height_median` and `FLOORS` where the layer
            has these.

    Raises:
        DataError: The file cannot be read, holds no building, or shows another place than the mask;
            or it has no such attribute, or texts in it.
        GeoreferenceError: It has no CRS, or coordinates outside the range of its CRS.
        ConfigError: The file has several classes, or is a comparison, and `building` is missing; or
            it has no classes and `building` is given.
    """
    file = VectorFile(path, layer_name)
    fields = ["class"] if "class" in file.fields else []
    is_compared = is_comparison(file.distinct("side"), file.distinct("status"))
    if is_compared:
        if building is None:
            raise ConfigError(
                f"{path} holds the buildings of both layers of a comparison; expected those of "
                "one status.",
                remedy="Name it, such as new, gone or changed: --building gone",
            )
        fields = ["side", "status"]
    wanted = [] if value is None else _number_fields(file, value)
    by_name = building is None and mask is None
    values: Mapping[str, NDArray[Any]]
    is_edited = {"review", "reviewer"} <= {*file.fields}
    ours = {"id", "score", "rectangularity", "area_m2"} <= {*file.fields}
    if mask is not None and mask.grid.crs is None:
        geometry, crs, values, counts = file.columns(fields, buildings=by_name)
    else:
        ids = ["id", "area_m2"] if ours else []
        names = [*dict.fromkeys([*fields, *wanted, *ids])]
        layer = file.read(names, typed=True, buildings=by_name)
        geometry, crs, values, counts = layer.geometry, layer.crs, layer.values, layer.counts
        # A prediction numbers its buildings from 1; edits repeat numbers, or leave some out.
        numbered = {*range(1, len(geometry) + 1)}
        is_edited |= ours and {*np.ma.filled(values["id"], 0).tolist()} != numbered
        if ours and mask is not None:
            places = shapely.area(geometry), centres_of(geometry), crs
            is_edited |= bool(areas_with_edits(*places, values["area_m2"])[1].any())
    notes = [*file.notes(counts)]
    if is_compared:
        side, status = (text_column(values[name]) for name in fields)
        # A building that both layers have is there twice.
        twice = (side == "old") & ~np.isin(status, ("gone", MAP_WORDS["gone"]))
        classes = np.where(twice, np.strings.add(status.astype(np.str_), " (old)"), status)
    else:
        classes = text_column(values.get("class", np.zeros(0)))
    rows = np.arange(len(geometry))
    if not by_name:
        name = _class_name(path, sorted(set(classes.tolist())), building, mask)
        if name is not None:
            chosen = classes == name
            if building is None:
                others = ReadCounts(not_buildings=int((~chosen).sum()))
                notes += others.notes(path)
            rows, geometry = rows[chosen], geometry[chosen]
    first = first_of_equal(shapely.bounds(geometry).reshape(-1, 4), geometry.__getitem__)
    if not first.all():
        notes.append(f"{plural(int((~first).sum()), 'polygon')} exactly on another one left out.")
        rows, geometry = rows[first], geometry[first]
    if not ours and (upon := _count_upon(geometry)):
        notes.append(
            f"The centres of {plural(upon, 'polygon')} lie in another one, as where data sets are "
            "joined: all count. Join without duplicates: rooftrace compare NEW OLD --keep old"
        )
    if not len(geometry) and mask is None:
        raise DataError(
            f"{path} holds no building, so the area to measure is unknown.",
            remedy="Give the mask as well: rooftrace density MASK BUILDINGS -o OUT",
        )
    numbers = {name: _numbers(values[name], name, path)[rows] for name in wanted}
    found = BuildingPolygons(path, geometry, crs, numbers, tuple(notes), is_edited)
    if len(geometry):
        notes += layer_position_notes(path.name, crs, found.bounds_xy)
        found = replace(found, notes=tuple(notes))
    if mask is not None:
        _check_place(found, mask)
        if crs is not None and mask.grid.crs is not None and len(geometry):
            moved = missing_grid(crs, mask.grid.crs, found.bounds_xy)
            found = replace(found, notes=(*found.notes, *moved))
    return found


def _count_upon(geometry: Polygons) -> int:
    """Return the number of polygons that share a centroid's place with an earlier one."""
    one, other = shapely.STRtree(geometry).query(shapely.points(centres_of(geometry)), "within")
    return len(np.unique(np.maximum(one, other)[one != other]))


FLOORS = ("num_floors", "num_floors_estimated")
"""Attributes with the number of floors: those that are known, and estimates."""


def _number_fields(file: VectorFile, value: str) -> list[str]:
    if value not in file.fields:
        raise DataError(
            f"{file.path} has no attribute {value!r}; it has "
            f"{list_first(sorted(file.fields), 12)}.",
            remedy="Give the name of a column of numbers, such as --value height.",
        )
    return [value, *({"height_median", *FLOORS} & {*file.fields})]


def _numbers(values: NDArray[Any], name: str, path: Path) -> Floats:
    try:
        return np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    except (TypeError, ValueError):
        raise DataError(
            f"The attribute {name!r} of {path} holds text; expected numbers.",
            remedy="Give the name of a column of numbers, such as --value height.",
        ) from None


def _class_name(
    path: Path, names: Sequence[str], building: str | None, mask: MaskFile | None
) -> str | None:
    """Return the class of buildings among those of polygons; None where all are buildings."""
    wanted = (building or "",) if mask is None else (mask.class_name, *BUILDING_NAMES)
    if len(names) < 2 and mask is not None:
        return None
    by_name = {name.casefold(): name for name in names}
    name = next((by_name[one.casefold()] for one in wanted if one.casefold() in by_name), None)
    if name is not None:
        return name
    if not names:
        raise ConfigError(
            f"{path} has no classes, and --building {building} was given.",
            remedy="Remove --building.",
        )
    if mask is not None:
        raise ConfigError(
            f"{path} has the classes {names}; expected {mask.class_name}, the class of the mask, "
            "or building.",
            remedy=f"Keep only buildings: ogr2ogr OUT.gpkg {ogr2ogr_input(path)} "
            "-where \"class = 'NAME'\"",
        )
    raise ConfigError(
        f"{path} has the classes {names}; --building received {building!r}.",
        remedy=f"Name the class of buildings: --building {names[-1]}",
    )


def _check_place(buildings: BuildingPolygons, mask: MaskFile) -> None:
    """Raise an error for buildings of another place than their mask."""
    if buildings.crs is None or mask.grid.crs is None or not len(buildings.geometry):
        return
    bounds = outline_bounds(mask.grid, buildings.crs)
    if bounds is None or not bounds_meet(bounds, buildings.bounds_xy, buildings.crs):
        raise DataError(
            f"{buildings.path} ({degrees_text(buildings.bounds_xy, buildings.crs)}) and "
            f"{mask.path} ({degrees_text(mask.grid.bounds_xy, mask.grid.crs)}) show different "
            "places.",
            remedy="Give a mask and buildings of one place, or check both coordinate systems.",
        )


def _is_vector(path: Path) -> bool:
    """Return whether an input is read as polygons; those of a table may be missing."""
    return is_vector_file(path) or path.name.lower().endswith((".csv", ".csv.gz"))


SceneFiles = tuple[Path | None, Path | None]
"""Mask and file of polygons of an image; one of them may be missing."""


def scene_files(inputs: Sequence[Path]) -> SceneFiles:
    """Return the mask and the file of polygons of one image, of which one may be missing.

    Polygons alone have the mask of the prediction that wrote them, if it lies beside them.

    Raises:
        ConfigError: An input is a folder of something else.
    """
    mask = polygons = None
    for path in inputs:
        check_exists(path)
        if path.is_dir():
            path = VectorFile(path).path
        if path.is_dir() and not is_vector_file(path):
            raise ConfigError(
                f"{path} is a folder; expected a mask or a file of polygons.",
                remedy="Add --by-image to compute the built-up share of each mask in the folder.",
            )
        check_city_model(path)
        if _is_vector(path):
            polygons = path
        else:
            mask = path
    if mask is None and polygons is not None:
        mask = mask_beside(polygons)
    return mask, polygons


def scenes_of(inputs: Sequence[Path]) -> list[SceneFiles]:
    """Return the files of each image: those given, or all of a prediction's folder."""
    files: list[Path] = []
    for path in inputs:
        predicted = predicted_labels(path) if path.is_dir() and holds_results(path) else {}
        files += [predicted[name] for name in sorted(predicted)] or [path]
    if len(files) < 2 or (len(files) == 2 and len({*map(_is_vector, files)}) == 2):
        return [scene_files(inputs)]
    scenes = [scene_files([file]) for file in dict.fromkeys(files)]
    beside = {mask for mask, polygons in scenes if polygons is not None}
    return [one for one in scenes if one[1] is not None or one[0] not in beside]


def files_of(scenes: Iterable[SceneFiles]) -> list[Path]:
    """Return the files of images."""
    return [path for scene in scenes for path in scene if path is not None]


def mask_notes(
    inputs: Sequence[Path], mask: Path | None, polygons: Path | None, min_area_m2: float
) -> list[str]:
    """Return the note on a mask found beside the polygons, or on one whose specks are counted."""
    if mask is None or (polygons is not None and mask in inputs):
        return []
    if polygons is not None:
        return [f"{mask.name}, beside {polygons.name}, says which ground was seen."]
    record = MaskRecord.read(mask)
    least = 0.0 if record is None else record.polygons.min_area_m2 or 0.0
    note = (
        f"Each region of {mask.name} counts as a building, though its prediction left out those "
        f"below {least:g} m²: --min-area {least:g}, or give its polygons."
    )
    return [note] if least > min_area_m2 else []


def stem_of(out: Path, name: str) -> Path:
    """Return the path of the results without their endings; NAME_density in an existing folder.

    The folder of the path is created.

    Raises:
        ConfigError: The path has the ending of a result.
        ExportError: Its folder is a file, or cannot be created.
    """
    if out.is_dir():
        return out / f"{name}_density"
    if out.suffix.lower() in _ENDINGS:
        raise ConfigError(
            f"-o received {out}, which has the ending of one of several output files.",
            remedy=f"Remove the ending: -o {out.with_suffix('')}",
        )
    prepare_folder(out.parent, (), ())
    return out
