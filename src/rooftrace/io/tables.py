"""Tables with polygons as text, and attributes of Shapefiles: their columns and encodings."""

import csv
import io
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from rooftrace.io.files import opened

_WKT = re.compile(r"\s*(?P<extended>SRID=\d+;)?\s*(MULTI|CURVE)?(POLYGON|SURFACE)", re.I)
_HEX_WKB = re.compile(
    r"\s*(\\x)?(01(0[36AC]0000|[EF].0300)|00\w\w00(000[36AC]|03[EF].))[\da-f]{60}", re.I
)
"""Begin of polygons and of surfaces with arcs as hexadecimal WKB, EWKB or the same after `\\x`;
numbers of parcels are shorter."""

_IN_PIXELS = "_pix"
"""Ending of the names of columns of SpaceNet whose polygons are in pixels of images."""

_TABLE_BYTES = 1 << 24
"""Number of bytes of a table that show how its texts are encoded."""


def wkt_column(head: bytes) -> tuple[str, bool] | None:
    """Return the name of the column of a table that holds polygons, and whether they are PostGIS's
    EWKT or hexadecimal (E)WKB in place of WKT.
    """
    text = head.decode("utf-8", "replace")
    first = text.partition("\n")[0]
    separator = max(",;\t|", key=first.count)
    try:
        names, *rows = csv.reader(io.StringIO(text), delimiter=separator)
    except (ValueError, csv.Error):
        return None
    for row in rows:
        for name, value in zip(names, row):
            if name.lower().endswith(_IN_PIXELS):
                continue
            if (wkt := _WKT.match(value)) or _HEX_WKB.match(value):
                return name, wkt is None or bool(wkt["extended"])
    return None


def file_beside(path: Path, suffix: str) -> Path | None:
    """Return the file of a Shapefile with another suffix, in either case, if it is there."""
    names = (path.with_suffix(one) for one in (suffix, suffix.upper()))
    return next((one for one in names if one.exists()), None)


def unstated_encoding(path: Path) -> str | None:
    """Return the encoding of the texts of a Shapefile that does not state it, if there are any.

    GDAL (3.12) would read ISO-8859-1, which lacks the typographic apostrophe and the euro sign.
    """
    # GDAL's own variable names the encoding of all.
    is_stated = os.environ.get("SHAPE_ENCODING") or file_beside(path, ".cpg")
    if is_stated or (table := file_beside(path, ".dbf")) is None:
        return None
    with table.open("rb") as file:
        head = file.read(32)
        fields = file.read(max(int.from_bytes(head[8:10], "little") - 32, 0))
        names = b" ".join(fields[start : start + 11] for start in range(0, len(fields), 32))
        texts = names + file.read(_TABLE_BYTES)
    # The byte 29 names the code page; 0 is none, and GDAL leaves 0x57, that of Windows, open.
    return _encoding_of(texts) if head[29] in (0, 0x57) else None


def _encoding_of(table: bytes) -> str | None:
    """Return the encoding of a table: UTF-8, Windows-1252, or None if it is ASCII or another."""
    texts = b" ".join(re.findall(rb"[\x80-\xff]+", table))
    decoded = texts.decode("utf-8", "replace").replace(" ", "")
    # A field of fixed length may cut a letter of UTF-8; in other encodings, hardly any is valid.
    if decoded.count("\ufffd") * 2 < len(decoded):
        return "UTF-8"
    with suppress(UnicodeDecodeError):
        return "CP1252" if texts.decode("cp1252") else None
    return None


def utf8_copy(path: Path, folder: Path) -> Path | None:
    """Return a copy of a CSV in UTF-8 in a folder, with the CRS (.prj) and types (.csvt) beside it;
    None unless its encoding is Windows-1252, as of tables that Excel writes.
    """
    with opened(path) as table:
        begin = table.read(_TABLE_BYTES)
        # UTF-16 has bytes of 0.
        if b"\0" in begin or _encoding_of(begin) != "CP1252":
            return None
        table.seek(0)
        copy = folder / path.name.removesuffix(".gz")
        with copy.open("wb") as file:
            file.writelines(line.decode("cp1252", "replace").encode() for line in table)
    for beside in filter(Path.is_file, map(path.with_suffix, (".csvt", ".prj"))):
        shutil.copy(beside, folder)
    return copy
