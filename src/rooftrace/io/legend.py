"""Names and colours of classes, the same in masks, pictures and reports.

`read_categories` reads the names that GDAL stores beside a raster:
https://gdal.org/en/stable/user/raster_data_model.html#raster-band

QGIS opens results in these colours: it applies a style that is marked as default in the table
`layer_styles` of a GeoPackage, and the file of a raster's name that ends in .qml.
https://docs.qgis.org/latest/en/docs/user_manual/working_with_vector/vector_properties.html
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from rooftrace.io.files import metadata_root

NODATA = 255
"""Class index of a pixel whose class is not known."""

BUILDING_NAMES = (
    "building", "buildings", "gebaeude", "gebäude", "batiment", "bâtiment", "edificio",
)  # fmt: skip
"""Names of the class of buildings, in lower case; also those of land cover of a cadastre."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""

# Paul Tol's "bright" scheme, which dichromats can distinguish; the background is nearly black.
_BRIGHT = "141418ee667766ccee228833ccbb444477aaaa3377bbbbbb"

# Each colour is the one with the largest distance in CIELAB from all before it. The distance is the
# smallest of normal vision, deuteranopia and protanopia (Machado et al. 2009), after the method of
# Glasbey et al. 2007. Three hexadecimal digits each, since the candidates were multiples of 17.
_FURTHER = (
    "00f57fbf0afa70a353c000af05fca6717a8aaf7cdb76c50cf70810444485ee53593a8fdf5d8f0589ca4681205c"
    "8bfeb0f13378bd7e897268bcb7d8dd76180e90c4fdaa4ad309f9159a1c1a695842a63e0756fd591ff9c948cc6e"
    "8aca34cd5fdd91956420d793be2debc60588bcbb9aebfeb8545d97fb6c4ae662689f874b51bfba95d25d917158"
    "967442833f1b70963b9a9c9e666da5bd9696f7434668baf9484e93814575d0e746c9b33dea2b52859ba83486d6"
    "689b9debc04a9209a5d2cd32c88fdccceeaafd675a6dce9a497e5d567bad67ba9469bcd824f42f1bb8cd83d75b"
    "fc466e6c5876b8ecdeb641d78fe3dfc5d672731869818be948eea7a1cfa622dbea62b755eae9dab89853c96997"
    "75145572a44e0fcd18be7939a866eba7a8f6a856779824569145cb0c798cf28647c7fee89e4db986aa92b1864a"
    "cac40e7fbdc296b67cc953472e7f5f09d52ce04becbdf65275d975bc5bbefe4813dcdcafcc4439ea3a592606a4"
    "7b865fc5ef3497445b8c4"
)  # fmt: skip


@dataclass(frozen=True)
class Legend:
    """Names and colours of classes.

    Args:
        names: Name of each class by index.
        colours: Colour `#RRGGBB` of each class; empty for the fixed table of `class_colours`.
    """

    names: tuple[str, ...]
    colours: tuple[str, ...] = ()

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """RGBA (256, 4) of every class index, see `class_colours`."""
        return class_colours(self.colours)

    def rgb(self, index: int) -> Colour:
        """Return the colour of a class."""
        red, green, blue = self.table[index, :3].tolist()
        return red, green, blue

    @property
    def by_name(self) -> dict[str, str]:
        """Colour `#rrggbb` of each class by its name."""
        return {
            name: "#{:02x}{:02x}{:02x}".format(*self.rgb(n % NODATA))
            for n, name in enumerate(self.names)
        }


@dataclass(frozen=True)
class Grades:
    """Colours of the values of an attribute.

    Args:
        field: Attribute without negative values.
        steps: Label, upper end and colour of each grade, ascending; first that of rows without a
            value, whose end is -1.
    """

    field: str
    steps: tuple[tuple[str, float, Colour], ...]


CONFIDENCE = ("#f03b20", "#feb24c", "#ffdf3a", "#41b6e4", "#2166ff")
"""Colours of the confidence from `LOW_SCORE` to 1: red to blue, distinct for dichromats too."""

LOW_SCORE = 0.3


def _score_grades() -> Grades:
    labels = ("0 – 0.4 (doubtful)", "0.4 – 0.55", "0.55 – 0.75", "0.75 – 0.9", "0.9 – 1 (sure)")
    colours = np.array([list(bytes.fromhex(text[1:])) for text in CONFIDENCE]).tolist()
    scores = zip(labels, (0.4, 0.55, 0.75, 0.9, 1.0), map(tuple, colours))
    return Grades("score", (("no score", -1.0, (154, 160, 166)), *scores))


SCORE_GRADES = _score_grades()
"""Grades of the score of buildings, those of the QGIS plugin."""


def class_colours(colours: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Return RGBA (256, 4) of every class index; nodata is transparent.

    Args:
        colours: Colour `#RRGGBB` of the first classes; further classes use the fixed table.
    """
    table = np.full((256, 4), 255, dtype=np.uint8)
    table[:NODATA, :3] = _default_table()
    table[NODATA] = 0
    if colours:
        table[: len(colours), :3] = [list(bytes.fromhex(text[1:])) for text in colours]
    return table


def filled_colours(known: Mapping[int, str], count: int) -> tuple[str, ...]:
    """Return `#RRGGBB` of `count` classes: the known colours, else those of the fixed table.

    A colour of the table that another class already has is replaced by a later one.

    Args:
        known: Class index to `#RRGGBB`.
        count: Number of classes, at most 255.
    """
    taken = {text.upper() for text in known.values()}
    table = ["#{:02X}{:02X}{:02X}".format(*rgb) for rgb in _default_table().tolist()]
    spare = (text for text in table[count:] + table[:count] if text not in taken)
    own = (next(spare) if text in taken else text for text in table)
    return tuple(known[i].upper() if i in known else text for i, text in zip(range(count), own))


@cache
def _default_table() -> NDArray[np.uint8]:
    """Return RGB (255, 3) of the fixed colours; the array is read-only."""
    bright = np.frombuffer(bytes.fromhex(_BRIGHT), dtype=np.uint8)
    further = np.array([int(digit, 16) * 17 for digit in _FURTHER], dtype=np.uint8)
    table = np.concatenate([bright, further]).reshape(NODATA, 3)
    table.flags.writeable = False
    return table


def read_categories(path: Path) -> tuple[str, ...]:
    """Return the names of the values 0, 1, 2, … of a raster's first band; empty if there are none.

    Args:
        path: Raster; the names are stored in `PATH.aux.xml`.

    Raises:
        DataError: the file of names exists, but cannot be read.
    """
    beside = path.with_name(f"{path.name}.aux.xml")
    if not beside.is_file():
        return ()
    names = metadata_root(beside).findall("./PAMRasterBand[@band='1']/CategoryNames/Category")
    return tuple((name.text or "").strip() for name in names)


_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_BUILDING = "#e6194b"
_FILL_OPACITY, _GRADE_OPACITY = 70, 180
_FIELDS = ("compare_status", "status", "class")
"""Attributes whose values get a colour each."""

STATUS_COLOURS = {
    "same": "#8d939c", "changed": "#e69f00", "moved": "#cc79a7", "split": "#0072b2",
    "merged": "#56b4e9", "new": "#009e73", "gone": "#d55e00", "outside": "#c9cdd2",
    "only found": "#009e73", "only in the map": "#d55e00",
}  # fmt: skip
"""Colour of each status of a comparison (Okabe and Ito 2008), which colour-blind readers can
distinguish."""

_TABLE = """
CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
  styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
  owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP)"""


def coloured_field(columns: Iterable[str]) -> str | None:
    """Return the attribute whose values get a colour each; None in layers without one."""
    names = {*columns}
    return next((name for name in _FIELDS if name in names), None)


def value_colours(values: Sequence[str], colours: Mapping[str, str]) -> dict[str, str]:
    """Return `#RRGGBB` of each value: of `colours`, of a status, or of the fixed table."""
    known = STATUS_COLOURS | dict(colours)
    further = Legend(("", *values)).by_name
    return {value: known.get(value, further[value]) for value in values}


def _polygon_style(field: str | None, colours: Mapping[str, str], grades: Grades | None) -> str:
    """Return the QML of polygons: transparent, with an outline."""
    opacity = _FILL_OPACITY
    if grades is not None:
        opacity = _FILL_OPACITY if grades is SCORE_GRADES else _GRADE_OPACITY
        colours = {label: "#{:02x}{:02x}{:02x}".format(*rgb) for label, _, rgb in grades.steps}
        ends = [end for _, end, _ in grades.steps]
        ranges = "".join(
            f'<range symbol="{n}" lower="{low}" upper="{high}" label={quoteattr(label)} '
            'render="true"/>'
            for n, (label, low, high) in enumerate(zip(colours, ends[:1] + ends, ends))
        )
        value = quoteattr(f'coalesce("{grades.field}", -1)')
        head = f'"graduatedSymbol" graduatedMethod="GraduatedColor" attr={value}>'
        head += f"<ranges>{ranges}</ranges>"
    elif field is None:
        head, colours = '"singleSymbol">', {"": _BUILDING}
    else:
        categories = "".join(
            f'<category symbol="{n}" value={quoteattr(value)} label={quoteattr(value)}/>'
            for n, value in enumerate(colours)
        )
        head = f'"categorizedSymbol" attr="{field}"><categories>{categories}</categories>'
    symbols = ""
    for n, colour in enumerate(colours.values()):
        rgb = ",".join(map(str, bytes.fromhex(colour.removeprefix("#"))))
        symbols += (
            f'<symbol type="fill" name="{n}" alpha="1"><layer class="SimpleFill" enabled="1">'
            f'<prop k="color" v="{rgb},{opacity}"/>'
            f'<prop k="outline_color" v="{rgb},255"/>'
            '<prop k="outline_width" v="0.4"/><prop k="outline_width_unit" v="MM"/>'
            '<prop k="style" v="solid"/></layer></symbol>'
        )
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
    return _raster_style("paletted", f"<colorPalette>{entries}</colorPalette>")


def graded_style(grades: Grades) -> str:
    """Return the QML of a raster whose first band has the values; nodata is transparent."""
    items = "".join(
        f'<item label={quoteattr(label)} value="{end}" alpha="255" '
        'color="#{:02x}{:02x}{:02x}"/>'.format(*rgb)
        for label, end, rgb in grades.steps[1:]
    )
    shader = f'<colorrampshader colorRampType="DISCRETE" clip="0">{items}</colorrampshader>'
    return _raster_style("singlebandpseudocolor", f"<rastershader>{shader}</rastershader>")


def _raster_style(kind: str, colours: str) -> str:
    return (
        f'{_HEAD}<qgis version="3.28" styleCategories="Symbology"><pipe><rasterrenderer '
        f'type="{kind}" band="1" opacity="0.6" alphaBand="-1">{colours}</rasterrenderer></pipe>'
        "</qgis>\n"
    )


def add_style(
    path: Path, columns: Iterable[str], colours: Mapping[str, str], grades: Grades | None, date: str
) -> None:
    """Add the default style of the only layer of a GeoPackage, if it has grades or buildings.

    Args:
        path: The GeoPackage; its layer has the name of the file.
        columns: Attributes of the layer.
        colours: `#RRGGBB` of the values of `status` or `class`; others get one of a fixed table. A
            layer without rows gets all of them.
        grades: Colours of a number, in place of those. Without either, scores have theirs.
        date: Date of the last change.

    Raises:
        sqlite3.Error: The file cannot be written.
    """
    import sqlite3

    names = {*columns}
    if grades is None and names.isdisjoint(("score", *_FIELDS)):
        return
    field = None if grades else coloured_field(names)
    table = path.stem.replace('"', '""')
    with closing(sqlite3.connect(path)) as file, file:
        # As for GDAL: the file gets its name when it is complete.
        file.execute("PRAGMA synchronous = OFF")
        if field is not None:
            query = f'SELECT DISTINCT "{field}" FROM "{table}" ORDER BY 1'  # noqa: S608  # nosec B608
            values = [str(value) for (value,) in file.execute(query) if value is not None]
            # A layer that is filled later, such as a review.
            values = values or [*colours]
            colours = value_colours(values, colours)
            field = field if values else None
        if grades is None and field is None and "score" in names:
            query = f'SELECT count("score") FROM "{table}"'  # noqa: S608  # nosec B608
            grades = SCORE_GRADES if file.execute(query).fetchone()[0] else None
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
            (path.stem, _polygon_style(field, colours, grades), date),
        )
