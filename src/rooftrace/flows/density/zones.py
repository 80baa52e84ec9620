"""Zones of `rooftrace density`: read from a file, placed on the ground, written with figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import DataError
from rooftrace.core.text import plain_number, plural
from rooftrace.core.types import Floats, GeoGrid, Polygons
from rooftrace.density.accumulate import centres_of
from rooftrace.density.cells import DENSITY_COLUMNS, DensityFigures
from rooftrace.density.files import SEEN_ASSUMED, share_grades, write_table
from rooftrace.flows.density.ground import SeenGround
from rooftrace.io.reproject import BEND_M, degrees_text, missing_grid, reprojected
from rooftrace.io.vector_formats import KML_ID, KML_PREFIX
from rooftrace.io.vector_read import VectorFile, VectorLayer
from rooftrace.io.vector_write import write_polygons
from rooftrace.vector.footprints import square_metres_per_px

_SHARED = 0.01
"""Minimum share of the smaller of two zones that is no inaccuracy of their borders."""


@dataclass(frozen=True)
class Zones:
    """Polygons whose density is measured."""

    path: Path
    layer: VectorLayer
    names: list[str]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, layer_name: str | None) -> Self:
        """Read the zones of a file.

        Raises:
            DataError: The file cannot be read, or holds no polygon.
        """
        file = VectorFile(path, layer_name, areas=True)
        fields = [one for one in file.fields if one == KML_ID or not one.startswith(KML_PREFIX)]
        layer = file.read(fields, typed=True)
        if not len(layer):
            raise DataError(
                f"{path} holds no zone with an outline; expected polygons.",
                remedy="Draw the zones as polygons.",
            )
        # GDAL adds columns of times to every KML.
        values = {
            name: column for name, column in layer.values.items()
            if name not in ("timestamp", "begin", "end") or {*column.tolist()} - {None}
        }  # fmt: skip
        layer = replace(layer, values=values)
        return cls(path, layer, zone_names(layer.values, len(layer)), file.notes(layer.counts))

    def on(self, grounds: Sequence[SeenGround]) -> tuple[Polygons, list[str]]:
        """Return the zones on the plane of the ground, of one or more dates, and notes.

        Raises:
            DataError: No zone lies on observed ground.
        """
        layer, plane = self.layer, grounds[0].plane
        outlines = reprojected(layer.geometry, layer.crs, plane, BEND_M)
        seen = np.concatenate(
            [[one.around] if one.observed is None else one.observed for one in grounds]
        )
        zone, at = shapely.STRtree(seen).query(outlines, predicate="intersects")
        if shapely.touches(seen[at], outlines[zone]).all():
            raise DataError(
                f"No zone of {self.path} ({degrees_text(layer.bounds_xy, layer.crs)}) touches the "
                f"observed area ({degrees_text(*grounds[0].place)}).",
                remedy="Give zones of the same place, or check both coordinate systems.",
            )
        systems = [crs for one in grounds for crs in one.systems or (one.place[1],)]
        moved = [note for crs in systems for note in missing_grid(layer.crs, crs, layer.bounds_xy)]
        return outlines, [*dict.fromkeys(moved), *_shared_notes(outlines, self.names)]

    def true_areas(self, figures: DensityFigures, outlines: Polygons, plane: CRS) -> Floats:
        """Return (n,) areas of `figures` in m², at its own place where a zone was not seen.

        The plane is true around the observed ground alone.
        """
        area = figures.area_m2.copy()
        unseen = figures.observed_m2 == 0
        far, units = outlines[unseen], GeoGrid((1, 1), crs=plane)
        area[unseen] = shapely.area(far) * square_metres_per_px(units, centres_of(far))
        return area.round(1)

    def write(
        self,
        files: Sequence[Path],
        columns: dict[str, NDArray[Any]],
        grounds: Sequence[SeenGround],
    ) -> None:
        """Write the GeoPackage and the table: all zones of a date, then those of the next one.

        Where no input says which ground was seen, a column does.
        """
        geometry = np.tile(self.layer.geometry, len(grounds))
        assumed = np.array([one.observed is None for one in grounds])
        if assumed.any():
            columns |= {SEEN_ASSUMED: np.repeat(assumed, len(self.layer))}
        grades = share_grades(columns["built_up_share"])
        write_polygons(files[0], geometry, columns, self.layer.crs, grades=grades)
        write_table(files[1], list(columns), zip(*map(_readable, columns.items())))


def _shared_notes(zones: Polygons, names: Sequence[str]) -> list[str]:
    """Return a note on zones that overlap, whose figures must not be added up."""
    one, other = shapely.STRtree(zones).query(zones, predicate="intersects")
    one, other = one[one < other], other[one < other]
    area = shapely.area(zones)
    common = shapely.area(shapely.intersection(zones[one], zones[other]))
    pairs = np.flatnonzero(common > _SHARED * np.minimum(area[one], area[other]))
    if not len(pairs):
        return []
    most = pairs[common[pairs].argmax()]
    count = plural(len(pairs), "pair of zones overlaps", "pairs of zones overlap")
    note = (
        f"{count}, most of all {names[one[most]]} and {names[other[most]]} "
        f"({common[most]:,.0f} m²): buildings there count in each, so do not add up the zones."
    )
    return [note]


def _readable(column: tuple[str, NDArray[Any]]) -> list[Any]:
    """Return the values of a column for a table: figures of ours have 4 significant digits."""
    name, values = column
    if name.removeprefix("common_") not in DENSITY_COLUMNS:
        return list(values.tolist())
    return [value if np.isnan(value) else plain_number(value, 4) for value in values.tolist()]


_NAMES = ("name", "title", "label", "ward", "district", "zone")
_NAME_PARTS = ("nam", "nom", "naam", "navn", "bezeich")
"""Names of columns with the name of a zone, and what such names hold in other languages."""

_FORMAT_IDS = ("gml_id", KML_PREFIX)
"""Beginnings of the names of columns that a format adds to the attributes."""


def zone_names(values: Mapping[str, NDArray[Any]], count: int) -> list[str]:
    """Return a name of each zone: that of a column called so which tells most of them apart, or of
    the one that does so best, such as `taskId` or `ADM3_EN`; a number where there is none.
    """
    different = {name: len({*column.tolist()} - {None}) for name, column in values.items()}
    called = {name.casefold(): name for name, n in different.items() if 2 * n > count}
    chosen = next((called[name] for name in _NAMES if name in called), None)
    if chosen is None:
        able = [name for name, column in values.items() if column.dtype.kind == "O"
                or name.casefold().endswith(("id", "code"))]  # fmt: skip
        chosen = max(able, key=lambda name: (
            different[name], not name.startswith(_FORMAT_IDS), values[name].dtype.kind == "O",
            any(part in name.casefold() for part in _NAME_PARTS),
        ), default=None)  # fmt: skip
    named = [None] * count if chosen is None else values[chosen].tolist()
    return [f"zone {row}" if name is None else str(name) for row, name in enumerate(named, 1)]
