"""Attributes of polygons: the values of GDAL and of pyarrow, with the types of their fields."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray


def text_column(column: NDArray[Any]) -> NDArray[np.object_]:
    """Return values as text: null becomes "", and 3.0 (a 3 beside nulls) becomes "3"."""
    return object_array([_text(value) for value in column.tolist()])


def typed_column(column: NDArray[Any]) -> NDArray[Any]:
    """Return integers of 64 bits, floats, booleans and times, and other values as texts or None."""
    if column.dtype.kind in "fbM":
        return column
    if column.dtype.kind in "iu":
        return column.astype(np.int64)
    return object_array([None if _is_null(value) else _text(value) for value in column.tolist()])


def declared_column(column: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return the values of GDAL with the type of their field.

    GDAL's reader returns integers and booleans as floats where some are null, and times as texts.

    Args:
        column: (n,) values as they were read.
        kind: Type of the field, such as "int32", "bool", "datetime64[ms]" or "list(int32)".
    """
    if kind.startswith(("int", "uint", "bool")) and column.dtype.kind == "f":
        missing = np.isnan(column)
        return np.ma.masked_array(np.where(missing, 0, column).astype(kind), missing)
    if kind.startswith("datetime64") and column.dtype.kind == "O":
        with suppress(ValueError, OverflowError):
            return np.array([_moment(text) for text in column.tolist()], kind)
    return column


def _moment(text: str | None) -> datetime | None:
    """Return the time of an ISO 8601 text, without its offset: that of UTC where it states one."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def arrow_column(column: Any) -> NDArray[Any]:
    """Return the values of a column of pyarrow; see `VectorFile.read` for their types."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind):
        # The numbers of a timestamp with a zone are those of UTC.
        return np.asarray(column.cast(pa.timestamp("ms", kind.tz), safe=False)).astype("M8[ms]")
    if pa.types.is_date(kind):
        return np.asarray(column.cast(pa.date32())).astype("M8[D]")
    if pa.types.is_floating(kind):
        return np.asarray(column)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        missing = np.asarray(column.is_null())
        filled = column.fill_null(pa.scalar(0).cast(kind))
        values = np.asarray(filled).astype(kind.to_pandas_dtype())
        return np.ma.masked_array(values, missing) if missing.any() else values
    return np.asarray(column.to_pandas().to_numpy(dtype=object))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        # A list in a GeoJSON.
        return str(value.tolist())
    if _is_null(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_null(value: Any) -> bool:
    return value is None or (not isinstance(value, np.ndarray) and bool(value != value))


def object_array(items: Any) -> NDArray[np.object_]:
    """Return (n,) objects as they are: numpy would turn lists of one length into a table."""
    made = np.empty(len(items), np.object_)
    made[:] = items
    return made
