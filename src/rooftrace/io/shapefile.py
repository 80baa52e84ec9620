"""What a Shapefile cannot hold, told before it is written.

ESRI Shapefile Technical Description (1998), and the dBASE tables beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import ExportError

__all__ = ["SHORT_NAMES", "ShapefileLimits", "short_names"]

SHORT_NAMES = {
    "perimeter_m": "perim_m",
    "orientation_deg": "orient",
    "rectangularity": "rectang",
}
"""Columns whose names are longer than the ten characters that there is room for."""

_MAX_NAME = 10
_MAX_TEXT_BYTES = 254
_MAX_FILE_BYTES = 2**31 - 1
_NUMBER_BYTES = 24
"""Of a number in the table; some take less."""

_REMEDY = "Write a GeoPackage (.gpkg) or FlatGeobuf (.fgb)."


def short_names(columns: Mapping[str, object]) -> dict[str, str]:
    """What the columns are called in a Shapefile, of those that have another name there."""
    return {
        name: SHORT_NAMES.get(name, name[:_MAX_NAME]) for name in columns if len(name) > _MAX_NAME
    }


class ShapefileLimits:
    """Watches over the parts of a Shapefile.

    Args:
        path: of the file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shape_bytes = 100
        self._table_bytes = 1000

    def check(
        self, geometry: NDArray[np.object_], columns: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """The columns under the names that they get.

        Args:
            geometry: (n,) of the next part.
            columns: (n,) each, of the next part.

        Raises:
            ExportError: a file grows beyond 2 GB, a text is longer than 254 bytes, or two columns
                would have one name.
        """
        names = short_names(columns)
        renamed = {names.get(name, name): values for name, values in columns.items()}
        if len(renamed) < len(columns):
            raise ExportError(
                f"{self._path.name}: in a Shapefile names of columns have {_MAX_NAME} characters, "
                f"and cut to these {', '.join(columns)} are not different any more.",
                remedy=_REMEDY,
            )
        for name, values in columns.items():
            if values.dtype.kind in "OU":
                self._check_text(name, values)
        points = int(shapely.get_num_coordinates(geometry).sum())
        rings = len(shapely.get_rings(geometry))
        self._shape_bytes += 52 * len(geometry) + 4 * rings + 16 * points
        width = sum(
            _MAX_TEXT_BYTES if values.dtype.kind in "OU" else _NUMBER_BYTES
            for values in columns.values()
        )
        self._table_bytes += (width + 1) * len(geometry)
        for kind, size in ((".shp", self._shape_bytes), (".dbf", self._table_bytes)):
            if size > _MAX_FILE_BYTES:
                raise ExportError(
                    f"{self._path.with_suffix(kind).name} would be larger than the 2 GB that a "
                    "Shapefile may have.",
                    remedy=_REMEDY,
                )
        return renamed

    def _check_text(self, name: str, values: NDArray[Any]) -> None:
        for text in set(values.tolist()):
            if text is not None and len(str(text).encode()) > _MAX_TEXT_BYTES:
                raise ExportError(
                    f"{self._path.name}: in a Shapefile a text has {_MAX_TEXT_BYTES} bytes at most;"
                    f" the column {name!r} holds {text[:30]!r}… with {len(str(text).encode())}.",
                    remedy=_REMEDY,
                )
