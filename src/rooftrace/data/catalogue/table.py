"""A GeoParquet of footprints and paths as a catalogue."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from rooftrace.core.errors import DataError, MissingExtraError
from rooftrace.data.catalogue.entry import Bounds, Catalogue, CatalogueFile, CatalogueScene, named

__all__ = ["read_table"]

_COLUMNS = ("path", "location", "href", "url", "image", "filename", "file")
_MOST_ROWS = 5_000_000


def read_table(file: CatalogueFile, path_column: str | None) -> Catalogue:
    """The rows of a GeoParquet; `id` is taken where it is there.

    Args:
        file: the table.
        path_column: which names the images; default the first of `path`, `location`, `href`, `url`,
            `image`, `filename` and `file` that there is.

    Raises:
        DataError: it cannot be read, has no such column, or a row names no image.
        MissingExtraError: pyarrow is missing.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("parquet", "A GeoParquet catalogue", "pyarrow") from error
    frame = _frame(file)
    if len(frame) > _MOST_ROWS:
        raise DataError(f"{file.name} has {len(frame):,} rows; expected up to {_MOST_ROWS:,}.")
    columns = [str(name) for name in frame.columns]
    wanted = (path_column,) if path_column is not None else _COLUMNS
    column = next((name for name in wanted if name in columns), None)
    if column is None:
        raise DataError(
            f"{file.name} has no column {' or '.join(wanted)}; it has {', '.join(columns[:20])}.",
            remedy="Name the column of paths with --path-column.",
        )
    bounds = _bounds(frame)
    scenes = []
    for number, entry in enumerate(frame[column].tolist()):
        if not isinstance(entry, str) or not entry.strip() or "\0" in entry:
            raise DataError(
                f"{file.name}, row {number + 1}: {column} is {entry!r}; expected a path or an "
                "address.",
                remedy="Leave the row out, or fill it in.",
            )
        location = file.located(entry.strip())
        own = frame["id"].iloc[number] if "id" in columns else None
        name = str(own) if own is not None and own == own else Path(location).stem
        scenes.append(CatalogueScene(name, location, bounds[number]))
    return Catalogue(file.name, "GeoParquet", named(scenes, file.name))


def _frame(file: CatalogueFile) -> Any:
    import geopandas
    import pandas as pd

    try:
        try:
            return geopandas.read_parquet(file.path)
        except ValueError:
            # Without a geometry it is a table of paths.
            return pd.read_parquet(file.path)
    except Exception as error:  # of many kinds: pyarrow's, geopandas', shapely's
        reason = " ".join(str(error).split())[:200].removesuffix(".")
        raise DataError(
            f"{file.name} cannot be read as GeoParquet: {reason}.",
            remedy="Write it with geopandas, DuckDB or GDAL.",
        ) from error


def _bounds(frame: Any) -> list[Bounds | None]:
    geometry = getattr(frame, "geometry", None)
    if geometry is None:
        return [None] * len(frame)
    if geometry.crs is not None and not geometry.crs.is_geographic:
        geometry = geometry.to_crs(4326)
    found = np.asarray(shapely.bounds(geometry.to_numpy()), float).reshape(-1, 4)
    return [
        (float(w), float(s), float(e), float(n)) if math.isfinite(w + s + e + n) else None
        for w, s, e, n in found.tolist()
    ]
