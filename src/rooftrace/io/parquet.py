"""GeoParquet 1.1: https://geoparquet.org/releases/v1.1.0/"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

__all__ = ["write_parquet"]

_EDGES = ("xmin", "ymin", "xmax", "ymax")

Columns = Mapping[str, NDArray[Any]]


def write_parquet(
    path: Path,
    crs: CRS | None,
    parts: Iterable[tuple[NDArray[np.object_], Columns]],
    *,
    kinds: Sequence[str],
) -> None:
    """Writes parts of a layer, each as a row group, with the bounds of every geometry.

    Args:
        path: of the file.
        crs: of the geometry.
        parts: one or more of geometry (n,) and columns (n,) each. NaN is null.
        kinds: of geometry that there may be.

    Raises:
        ImportError: pyarrow is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # At the head, where readers of Arrow look for it, too: so it cannot tell the whole extent, for
    # which there are the statistics of the bounds.
    told = {"geo": json.dumps(_metadata(crs, kinds))}
    tables = (_table(pa, *part).replace_schema_metadata(told) for part in parts)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            if len(table):
                writer.write_table(table, row_group_size=len(table))


def _table(pa: Any, geometry: NDArray[np.object_], columns: Columns) -> Any:
    bounds = shapely.bounds(geometry).reshape(-1, 4).astype(np.float64)
    made = {
        name: pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else None)
        for name, values in columns.items()
    }
    made["geometry"] = pa.array(shapely.to_wkb(geometry), pa.binary())
    made["bbox"] = pa.StructArray.from_arrays([pa.array(edge) for edge in bounds.T], _EDGES)
    return pa.table(made)


def _metadata(crs: CRS | None, kinds: Sequence[str]) -> dict[str, Any]:
    column = {
        "encoding": "WKB",
        # Without this key readers would take longitude and latitude for granted.
        "crs": None if crs is None else crs.to_json_dict(),
        "geometry_types": list(kinds),
        "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
