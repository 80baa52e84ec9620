"""What a raster calls its values, where GDAL looks for it.

https://gdal.org/en/stable/user/raster_data_model.html#raster-band
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from rooftrace.core.errors import DataError

__all__ = ["read_categories"]


def read_categories(path: Path) -> tuple[str, ...]:
    """The names of the values 0, 1, 2, … of a raster's first band; empty where there are none.

    Args:
        path: of the raster; names lie in `PATH.aux.xml`.

    Raises:
        DataError: that file is there, and cannot be read.
    """
    beside = path.with_name(f"{path.name}.aux.xml")
    if not beside.is_file():
        return ()
    try:
        # Expat, from 2.4.1 on, stops at entities that blow up, and fetches none.
        root = ElementTree.parse(beside).getroot()  # noqa: S314
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(
            f"{beside} cannot be read: {error}.",
            remedy="Remove it, if the names of the classes do not matter.",
        ) from error
    names = root.findall("./PAMRasterBand[@band='1']/CategoryNames/Category")
    return tuple((name.text or "").strip() for name in names)
