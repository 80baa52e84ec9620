"""Styles with which QGIS opens results: in a GeoPackage, and beside a mask.

QGIS applies a style that is marked as default in the table `layer_styles` of a GeoPackage, and the
file of a raster's name that ends in .qml.
https://docs.qgis.org/latest/en/docs/user_manual/working_with_vector/vector_properties.html
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from xml.sax.saxutils import quoteattr

from rooftrace.io.legend import Legend

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_BUILDING = "#e6194b"
_OPACITY = {"fill": 70, "line": 255}
_FIELDS = ("status", "class")
"""Attributes whose values get a colour each."""

_TABLE = """
CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
  styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
  owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP)"""


def _symbol(name: str, colour: str) -> str:
    rgb = ",".join(map(str, bytes.fromhex(colour.removeprefix("#"))))
    return (
        f'<symbol type="fill" name="{name}" alpha="1"><layer class="SimpleFill" enabled="1">'
        f'<prop k="color" v="{rgb},{_OPACITY["fill"]}"/>'
        f'<prop k="outline_color" v="{rgb},{_OPACITY["line"]}"/>'
        '<prop k="outline_width" v="0.4"/><prop k="outline_width_unit" v="MM"/>'
        '<prop k="style" v="solid"/></layer></symbol>'
    )


def polygon_style(field: str | None, colours: Mapping[str, str]) -> str:
    """Return the QML of polygons: transparent, with an outline.

    Args:
        field: Attribute that is drawn in colours; None for one colour.
        colours: `#RRGGBB` of each of its values.
    """
    if field is None:
        head, colours = '"singleSymbol">', {"": _BUILDING}
    else:
        categories = "".join(
            f'<category symbol="{n}" value={quoteattr(value)} label={quoteattr(value)}/>'
            for n, value in enumerate(colours)
        )
        head = f'"categorizedSymbol" attr="{field}"><categories>{categories}</categories>'
    symbols = "".join(_symbol(str(n), colour) for n, colour in enumerate(colours.values()))
    return (
        f'{_HEAD}<qgis version="3.28" styleCategories="Symbology"><renderer-v2 type={head}'
        f"<symbols>{symbols}</symbols></renderer-v2></qgis>"
    )


def mask_style(legend: Legend) -> str:
    """Return the QML of a mask of class indices: the background is transparent."""
    entries = "".join(
        f'<paletteEntry value="{n}" label={quoteattr(name)} alpha="{0 if n == 0 else 255}" '
        'color="#{:02x}{:02x}{:02x}"/>'.format(*legend.rgb(n))
        for n, name in enumerate(legend.names)
    )
    return (
        f'{_HEAD}<qgis version="3.28" styleCategories="Symbology"><pipe><rasterrenderer '
        'type="paletted" band="1" opacity="0.6" alphaBand="-1"><colorPalette>'
        f"{entries}</colorPalette></rasterrenderer></pipe></qgis>\n"
    )


def add_style(path: Path, columns: Iterable[str], colours: Mapping[str, str], date: str) -> None:
    """Add the default style of the only layer of a GeoPackage, if it has buildings.

    Args:
        path: The GeoPackage; its layer has the name of the file.
        columns: Attributes of the layer.
        colours: `#RRGGBB` of the values of `status` or `class`; others get one of a fixed table.
        date: Date of the last change.

    Raises:
        sqlite3.Error: The file cannot be written.
    """
    names = {*columns}
    if names.isdisjoint(("score", *_FIELDS)):
        return
    field = next((name for name in _FIELDS if name in names), None)
    with closing(sqlite3.connect(path)) as file, file:
        if field is not None:
            table = path.stem.replace('"', '""')
            query = f'SELECT DISTINCT "{field}" FROM "{table}" ORDER BY 1'  # noqa: S608  # nosec B608
            values = [str(value) for (value,) in file.execute(query) if value is not None]
            legend = Legend(("", *values))
            further = {
                value: "#{:02x}{:02x}{:02x}".format(*legend.rgb(n % 255))
                for n, value in enumerate(values, 1)
            }
            colours = {value: colours.get(value, further[value]) for value in values}
            field = field if values else None
        file.execute(_TABLE)
        file.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
            "last_change) VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?)",
            (date,),
        )
        file.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
            "update_time) VALUES ('', '', ?, 'geom', 'rooftrace', ?, '', 1, '', '', ?)",
            (path.stem, polygon_style(field, colours), date),
        )
