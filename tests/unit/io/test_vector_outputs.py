"""Each format that is written has the polygons, and opens as people expect."""

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from affine import Affine
from pyproj import CRS
from shapely.geometry import box

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.core.types import Footprints, GeoGrid, Window
from rooftrace.io import vector_exports
from rooftrace.io.files import check_outputs
from rooftrace.io.legend import Grades, Legend
from rooftrace.io.masks import mask_sink
from rooftrace.io.reproject import CRS84
from rooftrace.io.vector_read import VectorFile
from rooftrace.io.vector_write import (
    READABLE_SUFFIXES,
    WRITERS,
    write_footprints,
    write_layer,
    write_polygons,
)
from rooftrace.io.vector_writers import LayerChunk, LayerSettings
from vector_samples import TOWN, differing_m2

SHAPES = np.asarray(TOWN.geometry.to_numpy(), object)
FOOTPRINTS = Footprints(
    SHAPES, np.linspace(0.5, 1, 12).astype(np.float32), TOWN.area.to_numpy(), TOWN.crs
)
FEET = """PROJCS["in feet",GEOGCS["WGS 84",
DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],
PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],
PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],
PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",1640416.66666667],
PARAMETER["false_northing",0],UNIT["US survey foot",0.304800609601219]]"""
SYSTEMS = {
    "metres": CRS.from_epsg(32633),
    "feet, WKT": CRS.from_wkt(FEET),
    "feet, PROJ": CRS.from_user_input("+proj=utm +zone=33 +datum=WGS84 +units=us-ft +no_defs"),
    "degrees": CRS.from_epsg(4326),
    "shifted": CRS.from_user_input("+proj=utm +zone=33 +ellps=bessel +towgs84=600,70,420 +units=m"),
}


@pytest.mark.parametrize(
    ("suffix", "system"),
    [
        *((suffix, system) for suffix in READABLE_SUFFIXES for system in ("metres", "degrees")),
        *((suffix, "feet, WKT") for suffix in (".gpkg", ".shp", ".fgb", ".parquet", ".geojson")),
        *((suffix, one) for suffix in (".gpkg", ".shp") for one in ("feet, PROJ", "shifted")),
    ],
)
def test_each_format_has_the_polygons_where_they_were(
    suffix: str, system: str, tmp_path: Path
) -> None:
    crs = SYSTEMS[system]
    path = tmp_path / f"town{suffix}"
    shapes = np.asarray(TOWN.to_crs(crs).geometry.to_numpy(), object)
    notes = write_polygons(path, shapes, {"id": np.arange(12), "score": np.ones(12)}, crs)
    if (suffix, system) == (".shp", "shifted"):
        assert "towgs84" in notes[0]
        return
    layer = VectorFile(path).read(["score"])
    assert len(layer) == 12
    assert set(map(float, layer.values["score"])) == {1}
    assert differing_m2(layer.geometry, layer.crs) < 1.5
    # What other software opens.
    if suffix not in (".parquet", ".geoparquet", ".csv"):
        other = gpd.read_file(path)
        assert differing_m2(other.geometry, other.crs) < 1.5
        if suffix in (".kml", ".kmz"):
            assert pyogrio.list_layers(path)[:, 0].tolist() == ["town"]
            assert other["Name"].tolist() == [str(number) for number in range(12)]


def test_a_kml_has_the_colour_of_each_status(tmp_path: Path) -> None:
    path = tmp_path / "town.kml"
    values = np.array(["gone", "new", "only found", "A & B", None, "same"] + ["A < B"] * 6, object)
    write_polygons(path, SHAPES, {"status": values}, TOWN.crs)
    text = path.read_text()
    lines = dict(re.findall(r'<Style id="([^"]+)"><LineStyle><color>(\w+)<', text))
    drawn = [lines[name] for name in re.findall("<styleUrl>#([^<]+)<", text)]
    assert drawn[:3] == ["ff005ed5", "ff739e00", "ff739e00"]
    assert [*map(len, (drawn, {*drawn}))] == [12, 6]


@pytest.mark.parametrize("suffix", [one for one in WRITERS if not one.startswith(".gdb")])
def test_the_same_polygons_give_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"town{suffix}"
    twice = {(write_footprints(path, [FOOTPRINTS]), path.read_bytes()) for _ in range(2)}
    assert len(twice) == 1


@pytest.mark.parametrize("suffix", [".gdb", ".gdb.zip"])
def test_a_geodatabase_has_the_attributes_and_replaces_only_its_own(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"my-town.2{suffix}"
    columns = {
        "OBJECTID": np.arange(12), "osm_id": np.arange(12) + 2**40, "shape": np.ones(12),
        "geocode": np.arange(12) + 10**17,
        "day": np.array(["2024-05-17"] * 12, "M8[D]"), "cut": np.ones(12, bool),
        "addr:street": np.array(["Öffnungsgasse", None] * 6, object),
    }  # fmt: skip
    for count in (3, 12):
        first = {name: values[:count] for name, values in columns.items()}
        (note,) = write_polygons(path, SHAPES[:count], first, TOWN.crs)
    assert note.endswith("a geodatabase has other column names: addr:street is addr_street.")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    found = pyogrio.read_dataframe(path)
    assert found["addr_street"].isna().tolist() == [False, True] * 6
    assert found["OBJECTID"].dtype == np.int32
    assert found["day"].dt.strftime("%F").unique().tolist() == ["2024-05-17"]
    assert found["osm_id"].tolist() == columns["osm_id"].tolist()
    assert found["geocode"].tolist() == [*map(str, columns["geocode"])]
    check_outputs([path], [])
    if suffix == ".gdb":
        TOWN.to_file(path, driver="OpenFileGDB", layer="roads")
        with pytest.raises(ConfigError, match="replace other data: roads"):
            check_outputs([path], [])
        (tmp_path / "photos.gdb").mkdir()
        (tmp_path / "photos.gdb/keep.txt").touch()
        with pytest.raises(ConfigError, match=r"other data: keep\.txt"):
            check_outputs([tmp_path / "photos.gdb"], [])


def test_a_table_of_excel_has_the_attributes_and_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "town.xlsx"
    columns = {
        "Straße": np.array(["Öffnungsgasse", None] * 6, object),
        "code": np.array(["00180"] * 12, object),
        "geocode": np.ma.masked_equal(np.arange(12) + 10**15 - 1, 10**15),
        "area_m2": TOWN.area.to_numpy(),
    }
    write_polygons(path, SHAPES, columns, TOWN.crs)
    table = pyogrio.read_dataframe(path)
    assert list(table.columns) == [*columns, "longitude", "latitude"]
    assert set(table["code"]) == {"00180"}
    assert table["geocode"][[0, 11]].tolist() == ["999999999999999", "1000000000000010"]
    assert table["geocode"].isna().tolist() == [False, True] + [False] * 10
    assert table["Straße"].isna().tolist() == [False, True] * 6
    np.testing.assert_allclose(table["area_m2"], columns["area_m2"])
    write_polygons(tmp_path / "town.csv", SHAPES, columns, TOWN.crs)
    for one in (table, pd.read_csv(tmp_path / "town.csv")):
        places = gpd.points_from_xy(one.longitude, one.latitude, crs=4326).to_crs(TOWN.crs)
        assert shapely.contains(SHAPES, np.asarray(places, object)).all()
    monkeypatch.setattr(vector_exports, "_XLSX_ROWS", len(SHAPES) - 1)
    with pytest.raises(ExportError, match="over 11 rows"):
        write_polygons(path, SHAPES, columns, TOWN.crs)


SITE_GRID = (
    "+proj=tmerc +lat_0=45.51 +lon_0=15 +k_0=0.9996 +x_0=1000 +y_0=2000 +datum=WGS84 +units=m"
)


@pytest.mark.parametrize(
    ("crs", "named"),
    [*((crs, "EPSG:32633 (WGS 84 / UTM zone 33N)") for crs in (32633, 4326, 3857)),
     (CRS(SITE_GRID).to_wkt(), "+lat_0=45.51 +lon_0=15")],
)  # fmt: skip
def test_a_drawing_has_closed_outlines(crs: int | str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "town.dxf"
    shapes = SHAPES.copy()
    shapes[0] = shapes[0].buffer(5) - shapes[0]
    metres, town = shapely.length(shapes).sum(), gpd.GeoSeries(shapes, crs=TOWN.crs).to_crs(crs)
    # The ring and its courtyard are in one layer of the drawing.
    columns = {"class": np.array(["road" if crs == 3857 else "road:1"] + ["a"] * 11, object)}
    if crs == 3857:
        columns = {f"compare_{name}": columns["class"] for name in ("layer", "status")}
    notes = write_polygons(path, np.asarray(town, object), columns, town.crs)
    assert named in notes[0]
    whole = LayerChunk(np.asarray(town, object), columns)
    first = LayerChunk(whole.geometry[:0], {name: one[:0] for name, one in columns.items()})
    write_layer(path, LayerSettings(town.crs, multi=True), [first, whole])
    lines = gpd.read_file(path)
    names = ["road_road", "a_a"] if crs == 3857 else ["road_1", "a"]
    assert lines["Layer"].tolist() == [names[0]] * 2 + [names[1]] * 11
    assert lines.length.sum() == pytest.approx(metres, rel=1e-6)
    assert shapely.is_closed(lines.geometry.to_numpy()).all()
    # Without attributes, a CAD still knows an outline from a line by its flag.
    assert path.read_text().count("AcDbPolyline\n 70\n1\n") == 13
    assert "$INSUNITS\n 70\n6\n" in path.read_text()  # metres
    with pytest.raises(ExportError, match="no georeference"):
        write_polygons(tmp_path / "town.kml", SHAPES, {"id": np.arange(12)}, None)


def test_josm_gets_buildings_that_share_their_corners(tmp_path: Path) -> None:
    path = tmp_path / "town.osm"
    shapes = np.array([box(0, 0, 1, 1), box(1, 0, 2, 1), box(5, 5, 9, 9) - box(6, 6, 7, 7)], object)
    columns = {
        "class": np.array(["building", "building", "road"], object), "class_id": np.ones(3),
        "building": np.array(["<hut>", None, None], object), "height": np.array([7.04, -1, 3]),
        "roof_height": np.array([2.5, 0, 1]),
        "roof_shape": np.array(["gabled", "complex", None], object),
    }  # fmt: skip
    (note,) = write_polygons(path, shapes, columns, CRS84)
    assert "town.osm: 2 buildings, with the tags building and height and roof:height" in note
    root = ElementTree.fromstring(path.read_text())
    assert [len(root.findall(kind)) for kind in ("node", "way", "relation")] == [6, 2, 0]
    assert [one.attrib for one in root.iter("tag")] == [
        {"k": "building", "v": "<hut>"}, {"k": "height", "v": "7"},
        {"k": "roof:height", "v": "2.5"},
        {"k": "roof:shape", "v": "gabled"}, {"k": "building", "v": "yes"},
    ]  # fmt: skip
    status = {"compare_status": np.array(["same", "new", "gone"], object)}
    assert "1 new building, with" in write_polygons(path, shapes, status, CRS84)[0]
    assert shapely.bounds(VectorFile(path).read().geometry).tolist() == [[1, 0, 2, 1]]
    assert "building=yes" in write_polygons(path, shapes, {"id": np.arange(3)}, CRS84)[0]
    assert sorted(shapely.area(VectorFile(path).read().geometry).round(6)) == [1, 1, 15]
    # A corner on another's wall is a node of both, although rounding moved it into the house.
    shapes = np.array([box(0, 0, 1, 1), box(0.9999999, 0.4, 2, 0.6)], object)
    write_polygons(path, shapes, {"id": np.arange(2)}, CRS84)
    ways = [len(way.findall("nd")) for way in ElementTree.fromstring(path.read_text()).iter("way")]
    assert ways == [7, 5]
    assert shapely.touches(*VectorFile(path).read().geometry)
    # What covers another is no error of rounding.
    write_polygons(path, np.array([box(0, 0, 4, 4), box(1, 1, 2, 2)]), {"id": np.arange(2)}, CRS84)
    assert sorted(shapely.area(VectorFile(path).read().geometry)) == [1, 16]
    write_polygons(path, shapes[:0], {"id": np.arange(0)}, CRS84)
    assert "<way" not in path.read_text()
    round_ones = [shapely.Point(0.1 * n, 0).buffer(1, n) for n in (499, 500)]
    _, long = write_polygons(path, np.array(round_ones, object), {"id": np.arange(2)}, CRS84)
    assert long.startswith("town.osm: 1 outline has over 2,000 nodes")


def test_josm_gets_the_same_town_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    corner = rng.integers(0, 40, (60, 2)) * 1e-7
    town = shapely.box(*corner.T, *(corner + rng.integers(2, 12, (60, 2)) * 1e-7).T)
    whole, parts = tmp_path / "whole.osm", tmp_path / "parts.osm"
    for path in (whole, parts):
        write_polygons(path, town, {"id": np.arange(60)}, CRS84)
        monkeypatch.setattr(vector_exports, "_AT_ONCE", 3)
    assert whole.read_bytes() == parts.read_bytes()


def _renderer(path: Path) -> ElementTree.Element:
    with closing(sqlite3.connect(path)) as file:
        rows = file.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
    ((layer, geometry, default, text),) = rows
    assert (layer, geometry, default) == (path.stem, "geom", 1)
    return next(ElementTree.fromstring(text).iter("renderer-v2"))


def _drawn(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the colour of each category of the style."""
    renderer, colours = _renderer(path), {}
    for one in renderer.iter("category"):
        symbol = renderer.find(f"symbols/symbol[@name='{one.attrib['symbol']}']")
        assert symbol is not None
        shown = {prop.attrib["k"]: prop.attrib["v"] for prop in symbol.iter("prop")}
        colours[one.attrib["value"]] = tuple(map(int, shown["outline_color"].split(",")[:3]))
    return colours


def test_a_geopackage_carries_its_style(tmp_path: Path) -> None:
    path = tmp_path / "town.gpkg"
    write_footprints(path, [FOOTPRINTS])
    ends = [float(one.attrib["upper"]) for one in _renderer(path).iter("range")]
    assert ends == [-1, 0.4, 0.55, 0.75, 0.9, 1]
    write_polygons(path, SHAPES, {"score": np.full(len(SHAPES), np.nan)}, TOWN.crs)
    assert _renderer(path).attrib["type"] == "singleSymbol"
    assert pyogrio.list_layers(path).tolist() == [["town", "Polygon"], ["layer_styles", None]]

    status = np.array(["new", "gone", *["same <&>"] * 10], object)
    settings = LayerSettings(TOWN.crs, colours={"new": "#009e73"})
    write_layer(path, settings, [LayerChunk(SHAPES, {"status": status})])
    assert _renderer(path).attrib["attr"] == "status"
    drawn = _drawn(path)
    assert set(drawn) == {"new", "gone", "same <&>"}
    assert drawn["new"] == (0, 158, 115)
    # A review is filled later.
    write_layer(path, settings, [LayerChunk(SHAPES[:0], {"status": status[:0]})])
    assert _drawn(path) == {"new": (0, 158, 115)}

    # Classes have the colours of the mask, whatever the order of their names.
    legend = Legend(("ground", "road", "building"))
    classes = {"class_id": np.arange(12, dtype=np.uint8) % 2 + 1, "classes": legend.names}
    write_footprints(path, replace(FOOTPRINTS, **classes), legend=legend)
    assert _drawn(path) == {"road": legend.rgb(1), "building": legend.rgb(2)}

    steps = (("not known", -1.0, (9, 9, 9)), ("up to 3", 3.0, (0, 0, 0)), ("more", 9.0, (1, 2, 3)))
    write_polygons(path, SHAPES, {"h": np.ones(12)}, TOWN.crs, grades=Grades("h", steps))
    renderer = _renderer(path)
    assert renderer.attrib["attr"] == 'coalesce("h", -1)'
    ranges = [(one.attrib["lower"], one.attrib["upper"]) for one in renderer.iter("range")]
    assert ranges == [("-1.0", "-1.0"), ("-1.0", "3.0"), ("3.0", "9.0")]

    # Other layers have no buildings.
    write_polygons(path, SHAPES, {"zone": np.ones(12)}, TOWN.crs)
    assert pyogrio.list_layers(path).tolist() == [["town", "Polygon"]]


@pytest.mark.parametrize(
    ("crs", "shape"),
    [
        (4326, box(179.9, -17, 180.1, -16.9)),
        (4326, box(180.2, -17, 180.3, -16.9)),
        (32760, box(818_000, 8_138_000, 822_000, 8_139_000)),
        (
            32760,
            box(819_990, 8_138_000, 820_000, 8_139_000) | box(818_000, 8e6, 822_000, 8_001_000),
        ),
        (3832, box(3_338_584, -1_900_000, 3_340_584, -1_899_000)),
    ],
)
@pytest.mark.parametrize("suffix", [".geojson", ".kml", ".csv"])
def test_what_lies_across_the_antimeridian_is_divided(
    crs: int, shape: shapely.Geometry, suffix: str, tmp_path: Path
) -> None:
    """RFC 7946, section 3.1.9: valid, within ±180, and of the same area."""
    path = tmp_path / f"a{suffix}"
    near = box(*(np.array(shape.bounds) - 0.001 * abs(shape.bounds[0])))
    shapes = np.array([shape, near], object)
    write_polygons(path, shapes, {"id": np.arange(2)}, CRS.from_epsg(crs))
    layer = VectorFile(path).read()
    assert (len(layer), layer.counts.repaired) == (2, 0)
    assert np.abs(shapely.get_coordinates(layer.geometry)[:, 0]).max() <= 180
    to_metres = CRS.from_epsg(32760)
    back = gpd.GeoSeries(list(layer.geometry), crs=4326).to_crs(to_metres).area
    wanted = gpd.GeoSeries(list(shapes), crs=crs).to_crs(to_metres).area
    if (crs, shape.bounds[0]) != (4326, 180.2):
        np.testing.assert_allclose(back, wanted, rtol=1e-3)


def test_a_mask_has_a_style_beside_it(tmp_path: Path) -> None:
    grid = GeoGrid((4, 4), Affine(1, 0, 0, 0, -1, 0), TOWN.crs)
    legend = Legend(("ground", "roof & yard"), ("#000000", "#0a141e"))
    with mask_sink(tmp_path / "a_mask.tif", grid, legend, {"ROOFTRACE": "{}"}) as sink:
        sink.write(Window.whole((4, 4)), np.ones((4, 4), np.uint8))
    root = ElementTree.fromstring((tmp_path / "a_mask.qml").read_text())
    entries = [one.attrib for one in root.iter("paletteEntry")]
    assert [(one["value"], one["alpha"]) for one in entries] == [("0", "0"), ("1", "255")]
    assert (entries[1]["label"], entries[1]["color"]) == ("roof & yard", "#0a141e")
