import gzip
import json
import re
import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from rooftrace.core.errors import DataError, GeoreferenceError, MissingExtraError
from rooftrace.io.area import read_area
from rooftrace.io.reproject import crs_units, reprojected
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.io.vector_read import VectorFile, VectorLockedError
from rooftrace.io.vector_write import write_polygons
from vector_samples import MAIN_SUFFIXES

UTM = CRS.from_epsg(32633)
LONLAT = CRS.from_epsg(4326)
BOWTIE = Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])


def geojson(path: Path, *shapes: object, **more: object) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"n": n},
            "geometry": None if shape is None else shapely.geometry.mapping(shape),
        }
        for n, shape in enumerate(shapes)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def array(*shapes: object) -> np.ndarray:
    made = np.empty(len(shapes), object)
    made[:] = shapes
    return made


def test_the_folder_of_a_prediction_is_its_polygons(tmp_path: Path) -> None:
    written = geojson(tmp_path / "town_buildings.geojson", box(0, 0, 1, 1))
    with pytest.raises(DataError, match="no GeoParquet and no polygons of rooftrace predict"):
        VectorFile(tmp_path).read()
    (tmp_path / "run.json").write_text("{}")
    file = VectorFile(tmp_path)
    assert (file.path, len(file.read())) == (written, 1)
    other = geojson(tmp_path / "field_buildings.geojson", box(0, 0, 1, 1))
    with pytest.raises(DataError, match="has the polygons of 2 images") as caught:
        VectorFile(tmp_path)
    assert str(other) in caught.value.remedy


@pytest.mark.parametrize("suffix", MAIN_SUFFIXES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    holed = box(500_000, 5_000_000, 500_020, 5_000_010) - box(
        500_005, 5_000_002, 500_009, 5_000_004
    )
    two = MultiPolygon(
        [box(500_100, 5_000_000, 500_101, 5_000_009), box(500_110, 5_000_000, 500_111, 5_000_009)]
    )
    columns = {
        "id": np.array([1, 2]),
        "class": array("bâtiment", None),
        "scene": array("a b/ü", ""),
    }
    path = tmp_path / f"a ü{suffix}"
    write_polygons(path, array(holed, two), columns, UTM)
    file = VectorFile(path)
    assert is_vector_file(path)
    assert {"id", "class", "scene"} <= set(file.fields)
    layer = file.read(["scene", "class", "id"])
    order = np.argsort(layer.values["id"].astype(int))  # FlatGeobuf has its own
    assert layer.values["class"][order].tolist() == ["bâtiment", ""]
    assert layer.values["scene"][order].tolist() == ["a b/ü", ""]
    assert (layer.counts.repaired, layer.counts.without_outline) == (0, 0)
    back = reprojected(layer.geometry[order], layer.crs, UTM, 1e-3)
    far = shapely.hausdorff_distance(back, array(holed, two))
    assert far.max() < (1e-2 if suffix == ".geojson" else 1e-9)
    assert shapely.get_num_geometries(back).tolist() == [1, 2]


def test_what_is_invalid_is_mended_and_counted(tmp_path: Path) -> None:
    mixed = GeometryCollection([box(5, 5, 6, 6), LineString([(0, 0), (1, 1)])])
    flat = Polygon([(0, 0), (1, 1), (2, 2), (0, 0)])
    path = geojson(tmp_path / "a.geojson", BOWTIE, None, box(3, 0, 4, 1), mixed, Polygon(), flat)
    layer = VectorFile(path).read(["n"])
    assert (layer.counts.repaired, layer.counts.without_outline) == (1, 3)
    assert layer.values["n"].tolist() == ["0", "2", "3"]
    assert shapely.is_valid(layer.geometry).all()
    assert shapely.area(layer.geometry).tolist() == [2, 1, 1]


def test_rings_that_are_not_closed_are_closed_and_counted(tmp_path: Path) -> None:
    # GDAL passes them on as they are, and GEOS takes only closed ones.
    path = geojson(tmp_path / "a.geojson", box(0, 0, 4, 1), shapely.MultiPolygon([box(5, 5, 6, 6)]))
    written = json.loads(path.read_text())
    single, several = (one["geometry"]["coordinates"] for one in written["features"])
    del single[0][-1], several[0][0][-1]
    path.write_text(json.dumps(written))
    layer = VectorFile(path).read(["n"])
    assert (layer.counts.repaired, layer.counts.without_outline) == (2, 0)
    assert shapely.area(layer.geometry).tolist() == [4, 1]


def test_each_courtyard_of_a_boundary_of_a_kml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.kml"
    yards = shapely.union_all([box(x, 1, x + 1, 2) for x in (1, 3, 5)])
    write_polygons(path, array(box(0, 0, 7, 3) - yards), {}, LONLAT)
    path.write_text(re.sub(r"</innerBoundaryIs>\s*<innerBoundaryIs>", "\n", path.read_text()))
    assert path.read_text().count("<innerBoundaryIs>") == 1
    assert VectorFile(path).read().geometry[0].area == pytest.approx(18)


@pytest.mark.parametrize(("srs", "west"), [("urn:ogc:def:crs:EPSG::2180", 5e5), ("EPSG:2180", 6e5)])
def test_a_urn_has_northing_first_where_the_place_allows_both(
    tmp_path: Path, srs: str, west: float
) -> None:
    ring = "600000 500000 9 600000 500010 9 600010 500010 9 600000 500000 9"
    polygon = f"<Polygon><LinearRing><posList>{ring}</posList></LinearRing></Polygon>"
    building = f"<Building><lod0FootPrint>{polygon}</lod0FootPrint></Building>"
    (tmp_path / "town.gml").write_text(f"<CityModel srsName='{srs}'>{building}</CityModel>")
    assert VectorFile(tmp_path / "town.gml").read([]).bounds_xy[0] == west


def test_what_is_no_polygon_is_reported(tmp_path: Path) -> None:
    others = Point(1, 2), LineString([(0, 0), (1, 1)])
    layer = VectorFile(geojson(tmp_path / "m.geojson", *others, box(0, 0, 1, 1))).read(["n"])
    assert (layer.values["n"].tolist(), layer.counts.not_polygons) == (["2"], 2)
    assert layer.counts.notes("a") == ("a: 2 points and lines left out.",)
    with pytest.raises(DataError, match=r"has no polygon \(1 Linestring, 1 Point\).*join\.md"):
        VectorFile(geojson(tmp_path / "a.geojson", *others)).read()


def test_the_one_layer_with_polygons_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    points = geopandas.GeoDataFrame(geometry=[Point(0, 0)], crs=UTM)
    houses = geopandas.GeoDataFrame({"kind": ["x"]}, geometry=[box(0, 0, 1, 1)], crs=UTM)
    points.to_file(path, layer="trees")
    with pytest.raises(DataError, match=r"no layers of polygons.*trees \(Point\)") as none:
        VectorFile(path).read()
    assert re.search("with polygons.*join.md", none.value.remedy)
    houses.to_file(path, layer="houses")
    assert VectorFile(path).fields == ("kind",)
    # A layer that could hold anything holds points.
    pyogrio.write_dataframe(points, path, layer="any", geometry_type="Unknown", append=True)
    assert len(VectorFile(path).read()) == 1
    houses.to_file(path, layer="sheds")
    with pytest.raises(DataError, match="2 layers of polygons") as caught:
        VectorFile(path).read()
    assert f"ogr2ogr OUT.gpkg {path} " in caught.value.remedy


def test_pixels_are_no_degrees(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write_polygons(path, array(box(0, 0, 500, 500)), {"id": np.array([1])}, None)
    with pytest.raises(GeoreferenceError, match="is in pixels of an image") as caught:
        VectorFile(path).read()
    assert "gdal_translate" in caught.value.remedy
    assert VectorFile(path).columns()[1] is None
    document = json.loads(path.read_text())
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32737"}}
    path.write_text(json.dumps({"type": document["type"], "crs": crs, **document}))
    assert VectorFile(path).read().crs.to_epsg() == 32737
    # GDAL takes what it does not know for degrees, and fetches links.
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::99999999"}}
    link = {"properties": {"href": "http://127.0.0.1:9/"}, "Type": "Link"}
    feature = document["features"][0]
    packed, lines = tmp_path / "a.geojson.gz", tmp_path / "a.geojsonl"
    for unknown in ("EPSG:4267", named, link, link | {"type": "url"}):
        path.write_text(json.dumps({"crs": unknown, **document}))
        packed.write_bytes(gzip.compress(json.dumps(feature | {"crs": unknown}).encode()))
        lines.write_text(json.dumps(feature | {"geometry": feature["geometry"] | {"crs": unknown}}))
        for one in (path, packed, lines):
            with pytest.raises(GeoreferenceError, match=r"unknown crs: .*(EPSG:|127)"):
                VectorFile(one).read()
    lines.write_text("".join(json.dumps(feature | {"crs": crs}) + "\n" for _ in "ab"))
    assert VectorFile(lines).read().crs.to_epsg() == 32737
    # An attribute is none, nor is what another member says; the file's comes before a feature's.
    feature |= {"properties": {"crs": "EPSG:32737"}, "crs": crs}
    members = document | {"description": "", "metadata": {"crs": "EPSG:32737"}}
    for known in ("WGS 84", {"type": "name", "properties": {"name": "OGC:1.3:CRS84"}}, None):
        if known is None:
            del feature["crs"]
        for whole in ({"crs": known} | members, members | {"crs": known, "bbox": [1, 2]}):
            path.write_text(json.dumps(whole))
            assert VectorFile(path).columns()[1] == CRS.from_epsg(4326)
    with pytest.raises(GeoreferenceError, match="not degrees") as zones:
        VectorFile(path, areas=True).read()
    assert zones.value.remedy.startswith("Give degrees, name the crs in the GeoJSON, or assign")


def test_a_parquet_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(DataError, match="no geometry"):
        VectorFile(path).read()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        VectorFile(path).read()


@given(*(st.floats(*ends) for ends in ((-70, 70), (10, 20), (1, 5000), (0, np.pi), (0.01, 1))))
def test_a_long_edge_stays_where_it_was(
    lat: float, lon: float, length_m: float, turn: float, tolerance: float
) -> None:
    """All along the edge, and not only at its ends."""
    x, y = Transformer.from_crs(LONLAT, UTM, always_xy=True).transform(lon, lat)
    strip = shapely.affinity.rotate(box(x, y, x + length_m, y + 10), turn, use_radians=True)
    moved = reprojected(array(strip), UTM, LONLAT, tolerance / 111_000)
    assert shapely.is_valid(moved).all()
    along = shapely.line_interpolate_point(strip.exterior, np.linspace(0, 1, 97), normalized=True)
    places = reprojected(along, UTM, LONLAT, np.inf)
    off = shapely.distance(moved[0].exterior, places) * 111_000
    assert off.max() <= tolerance * 1.01 + 1e-6


def test_a_length_in_the_units_of_a_system_and_the_same_system_changes_no_bit() -> None:
    given_ = array(box(0.1, 0.2, 0.3, 0.7))
    assert reprojected(given_, LONLAT, CRS.from_user_input("OGC:CRS84"), 1e-9) is given_
    feet = CRS.from_epsg(2263)
    assert [crs_units(0.3048, crs) for crs in (UTM, feet)] == pytest.approx([0.3048, 1], rel=1e-5)
    assert crs_units(111_320, LONLAT) == 1


def in_utc(values: list[object]) -> list[object]:
    return [
        value.astimezone(UTC).replace(tzinfo=None) if getattr(value, "tzinfo", None) else value
        for value in values
    ]


@pytest.mark.parametrize("suffix", [".geojson", ".parquet"])
def test_types_and_nulls_survive_reading_and_writing(suffix: str, tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=2))
    columns: dict[str, list[object]] = {
        "n": [2**40, None, 3], "large": [2**60 + 1, None, 2**62 + 3], "whole": [1, 2, 3],
        "x": [0.5, None, 3.0], "flag": [True, None, False], "text": ["a", None, ""],
        "day": [date(2024, 1, 31), None, date(1969, 12, 31)],
        "time": [datetime(2024, 1, 31, 10, 11, 12, 500_000), None, datetime(2024, 2, 1)],
        "zoned": [datetime(2024, 1, 31, 1, tzinfo=zone), None, datetime(2024, 2, 1, tzinfo=zone)],
    }  # fmt: skip
    shapes = [box(2 * number, 0, 2 * number + 1, 1) for number in range(3)]
    path = tmp_path / f"typed{suffix}"
    if suffix == ".geojson":
        features = [
            {"type": "Feature", "geometry": shape.__geo_interface__, "properties": {
                name: value.isoformat() if isinstance(value, date) else value
                for name, value in zip(columns, row)
            }}
            for shape, row in zip(shapes, zip(*columns.values()))
        ]  # fmt: skip
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    else:
        nullable = {"n": "Int64", "large": "Int64", "flag": "boolean"}
        frame = {name: pd.array(columns[name], nullable.get(name, "object")) for name in columns}
        with warnings.catch_warnings():
            # Pandas warns of its own way of reading times with a zone.
            warnings.simplefilter("ignore")
            geopandas.GeoDataFrame(frame, geometry=shapes, crs=4326).to_parquet(path)
    file = VectorFile(path)
    assert set(file.fields) == set(columns)
    layer = file.read(list(columns), typed=True)
    kinds = {"n": "i", "large": "i", "whole": "i", "x": "f", "flag": "b", "text": "O"}
    for made in (".gpkg", ".parquet"):
        write_polygons(tmp_path / f"made{made}", layer.geometry, layer.values, layer.crs)
        again = VectorFile(tmp_path / f"made{made}").read(list(columns), typed=True)
        (chunk,) = VectorFile(tmp_path / f"made{made}").chunks(list(columns))
        for values in (layer.values, again.values, chunk.values):
            for name, expected in columns.items():
                found = [None if one != one else one for one in values[name].tolist()]
                assert found == in_utc(expected), name
                assert values[name].dtype.kind == kinds.get(name, "M")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latitude,longitude\n1,2\n", "no column geometry"),
        ('geometry\n"POLYGON((0 0,500 0,1 1,0 0))"\n', "no coordinate system"),
    ],
)
def test_a_table_of_no_buildings_is_explained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        VectorFile(path).read()
    packed = tmp_path / "damaged.csv.gz"
    packed.write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be read"):
        VectorFile(packed).read()


def test_columns_of_a_table_are_numbers_where_that_loses_nothing(tmp_path: Path) -> None:
    shape = '"POLYGON((0 0,0 1,1 1,0 0))"'
    rows = f"id,lot,floors,area,geometry\n01,4.1,2,45.2,{shape}\n2,4.10,,110.0,{shape}\n"
    (tmp_path / "a.csv").write_text(rows)
    read = VectorFile(tmp_path / "a.csv").read(["id", "lot", "floors", "area"], typed=True).values
    values = [column.tolist() for column in read.values()]
    assert values == [["01", "2"], ["4.1", "4.10"], [2, None], [45.2, 110.0]]
    (tmp_path / "a.csvt").write_text("Integer,Real,Integer,Real,WKT\n")
    typed = VectorFile(tmp_path / "a.csv").read(["id", "floors"], typed=True).values
    assert [column.tolist() for column in typed.values()] == [[1, 2], [2, None]]
    (tmp_path / "a.csvt").write_text("String,String,String,Real,WKT\n")
    texts = VectorFile(tmp_path / "a.csv").read(["floors"], typed=True).values["floors"]
    assert texts.tolist() == ["2", ""]


def test_an_extract_of_openstreetmap_with_ids_in_any_order_has_its_buildings(
    tmp_path: Path,
) -> None:
    def tags(text: str) -> str:
        said = (one.split("=") for one in text.split(",") if one)
        return "".join(f"<tag k='{key}' v='{value}'/>" for key, value in said)

    places = [(0, 0), (1, 0), (1, 1), (0, 1), (3, 0), (3, 1), (3, 0.5), (1, 0.5)]
    ways = ["building=yes", "building=no", "name=Ward 3", "highway=path", "", "", "building:part=x"]
    rings = [*[(1, 2, 3, 4, 1)] * 5, (2, 5, 6, 3, 2), (2, 5, 7, 8, 2)]
    church = "type=building,building=church"
    # Of the two churches, one has a tag on its outline, too, and one a part inside.
    relations = [("type=multipolygon,amenity=school", [10]), (church, [10]), (church, [15, 16])]
    body = "".join(f"<node id='{-n}' lat='{y}' lon='{x}'/>" for n, (x, y) in enumerate(places, 1))
    body += f"<node id='-9' lat='2' lon='2'>{tags('name=x,building=hut')}</node>"
    for n, (ring, text) in enumerate(zip(rings, ways), 10):
        refs = "".join(f"<nd ref='{-ref}'/>" for ref in ring)
        body += f"<way id='{-n}'>{refs}{tags(text)}</way>"
    for n, (text, held) in enumerate(relations, 20):
        refs = "".join(f"<member type='way' ref='{-ref}' role='outer'/>" for ref in held)
        body += f"<relation id='{-n}'>{refs}{tags(text)}</relation>"
    path, packed = tmp_path / "map.osm", tmp_path / "map.osm.gz"
    path.write_text(f"<osm version='0.6'>{body}</osm>")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for each in (path, packed):
        assert is_vector_file(each)
        file = VectorFile(each)
        layer = file.read(["osm_way_id", "osm_id", "building"], buildings=True)
        assert layer.values["osm_way_id"].tolist() == ["-10", ""]
        assert layer.values["osm_id"].tolist() == ["", "-22"]
        assert layer.values["building"].tolist() == ["yes", "church"]
        assert layer.crs.to_epsg() == 4326
        assert shapely.area(layer.geometry).tolist() == [1.0, 2.0]
        (note,) = file.notes(layer.counts)
        assert note == "map.osm: 1 building mapped as a node left out: no outline."
    # As zones and as --area all areas count: boundaries, and what JOSM draws without a tag.
    zones = VectorFile(path, areas=True).read(["osm_way_id", "osm_id", "name"])
    assert {"-11", "-12", "-14", ""} < set(zones.values["osm_way_id"])
    assert ("-20" in zones.values["osm_id"]) & ("Ward 3" in zones.values["name"])
    assert len(read_area(path).geometry) == 6


@pytest.mark.parametrize("kind", ["multipolygon", "building", "tagged way"])
def test_a_building_and_the_relation_around_it_are_one_building(kind: str, tmp_path: Path) -> None:
    def ways(*outlines: tuple[int, float, dict[str, str], str]) -> list[dict[str, Any]]:
        return [
            {"type": "way", "id": ref, "tags": tags, "role": role, "geometry": [
                {"lon": x, "lat": y} for x, y in shapely.box(0, 0, side, 10).exterior.coords
            ]}
            for ref, side, tags, role in outlines
        ]  # fmt: skip

    outline, part = ("outline", "part") if kind == "building" else ("outer", "inner")
    tags = {"type": kind, "building": "yes"}
    if kind == "tagged way":
        tags = {"type": "multipolygon"}
    members = ways((1, 10, {"building": "yes"}, outline), (2, 4, {"building:part": "yes"}, part))
    relation = {
        "type": "relation", "id": 7, "tags": tags,
        "members": [one | {"ref": one["id"]} for one in members],
    }  # fmt: skip
    path = tmp_path / "town.json"
    whole = 100.0 if kind == "building" else 60.0
    # Members have coordinates, or are named by their number, which the data may lack.
    for held, areas in (
        (relation["members"], [whole]),
        ([{"type": "way", "ref": 1, "role": outline}], [100.0]),
        ([{"type": "way", "ref": 99, "role": outline}], [100.0]),
    ):
        node = {"type": "node", "id": 5, "lat": 1, "lon": 1, "tags": {"building": "hut"}}
        elements = [*members, relation | {"members": held}, node]
        path.write_text(json.dumps({"version": 0.6, "osm3s": {}, "elements": elements}))
        layer = (file := VectorFile(path)).read()
        assert shapely.area(layer.geometry).tolist() == areas
        assert "1 building mapped as a node left out" in file.notes(layer.counts)[0]
    # A relation is the outline of a building.
    members[0]["tags"].clear()
    member = {"type": "relation", "ref": 7, "role": "outline"}
    building = {"id": 8, "type": "relation", "tags": {"type": "building", "building": "yes"}}
    elements = [*members, relation, building | {"members": [member]}]
    path.write_text(json.dumps({"version": 0.6, "osm3s": {}, "elements": elements}))
    assert shapely.area(VectorFile(path).read().geometry).tolist() == [whole]


def test_the_reason_of_gdal_is_recognised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    town = tmp_path / "town.gpkg"
    town.touch()
    monkeypatch.setattr(pyogrio, "list_layers", failing := Mock())
    # The words of GDAL, which waits five seconds before it says them.
    failing.side_effect = RuntimeError("sqlite3_prepare_v2(SELECT 1) failed: database is locked")
    with pytest.raises(VectorLockedError, match=r"town\.gpkg is held by another program") as caught:
        VectorFile(town).read()
    assert "Close the file" in caught.value.remedy
    town.with_suffix(".json").write_text('{"features": {"xy": []}}')
    with pytest.raises(DataError, match=r"has no GeoJSON; expected polygons with") as caught:
        VectorFile(town.with_suffix(".json")).read()
    assert "xBD" in caught.value.remedy
    failing.side_effect = Exception("Geometry type is not supported: 1016")
    with pytest.raises(DataError) as caught:
        VectorFile(town).read()
    assert caught.value.remedy == f"Copy it: ogr2ogr -nlt MULTIPOLYGON OUT.gpkg {town}"


def test_classes_need_no_pass_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, path = {"class": array("building", "road", None)}, tmp_path / "a.geojson"
    write_polygons(path, array(*[box(0, 0, 9, 9)] * 3), kinds, UTM)
    monkeypatch.delattr("rooftrace.io.vector_layers.GdalLayer.distinct")
    (chunk,) = VectorFile(path).chunks(buildings=True)
    assert chunk.counts == VectorFile(path).read(buildings=True).counts
    assert chunk.counts.not_buildings == 2
