"""Buildings in every form in which people have vector files, made true to the format.

Each function of `SAMPLES` writes the same `TOWN` into a folder, often beside what is not a
building, and returns the path that a person would give.
"""

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from shapely.geometry import LineString, Point, box, mapping

from rooftrace.io.vector_write import write_polygons

MAIN_SUFFIXES = (".gpkg", ".geojson", ".fgb", ".parquet", ".shp")
"""Suffixes of the formats that other software reads back with all attributes and types."""

UTM = 32633
WEST, NORTH = 500_000.0, 5_000_000.0
_PLACES = [(10 + 12 * (n % 4), 10 + 14 * (n // 4)) for n in range(12)]
TOWN = gpd.GeoDataFrame(
    {"height": np.arange(12) + 3.5},
    geometry=[
        box(WEST + x, NORTH - y - 8, WEST + x + 9, NORTH - y) - box(WEST + x, NORTH - y - 3, WEST
        + x + 3, NORTH - y) for x, y in _PLACES
    ],
    crs=UTM,
)  # fmt: skip
"""Twelve L-shaped buildings within 64 m east and south of (WEST, NORTH)."""

DEGREES = TOWN.to_crs(4326)
FIELD = box(WEST, NORTH - 60, WEST + 60, NORTH)

Sample = Callable[[Path], Path]


def _file(
    name: str, driver: str | None = None, town: gpd.GeoDataFrame = TOWN, **options: Any
) -> Any:
    def write(folder: Path) -> Path:
        town.to_file(folder / name, driver=driver, **options)
        return folder / name

    return write


def _zipped(inner: Sample, name: str, below: str = "") -> Sample:
    def write(folder: Path) -> Path:
        made = folder / "made"
        made.mkdir()
        inner(made)
        with zipfile.ZipFile(folder / name, "w") as archive:
            for file in sorted(made.rglob("*")):
                archive.write(file, f"{below}{file.relative_to(made)}")
        shutil.rmtree(made)
        return folder / name

    return write


def _text(name: str, text: Callable[[], str]) -> Sample:
    def write(folder: Path) -> Path:
        data = text().encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return folder / name

    return write


def features(**properties: list[object]) -> list[dict[str, Any]]:
    """Return the town as features of GeoJSON."""
    return [
        {"type": "Feature", "properties": {}, "geometry": mapping(geometry)}
        for geometry in DEGREES.geometry
    ]


def collection(*more: dict[str, Any], tags: dict[str, Any] | None = None) -> str:
    """Return a GeoJSON of the town, whose features have some properties, and of other features."""
    town = [{**one, "properties": tags or {}} for one in features()]
    return json.dumps({"type": "FeatureCollection", "features": [*more, *town]})


def other(shape: Any, **properties: Any) -> dict[str, Any]:
    """Return a feature that is not a building."""
    in_degrees = gpd.GeoSeries([shape], crs=UTM).to_crs(4326)[0]
    return {"type": "Feature", "properties": properties, "geometry": mapping(in_degrees)}


def _no_index(folder: Path) -> Path:
    TOWN.to_file(folder / "town.shp")
    (folder / "town.shx").unlink()
    return folder / "town.shp"


def _with_others(name: str, driver: str) -> Sample:
    """Write two layers of polygons: half of the town in each, as folders of Google Earth."""

    def write(folder: Path) -> Path:
        path = folder / name
        for layer, rows in (("north", DEGREES[:6]), ("south", DEGREES[6:])):
            rows.to_file(path, driver=driver, layer=layer)
        return path

    return write


def _esri() -> str:
    return json.dumps(
        {
            "geometryType": "esriGeometryPolygon",
            "spatialReference": {"wkid": UTM},
            "fields": [{"name": "OBJECTID", "type": "esriFieldTypeOID"}],
            "features": [
                {
                    "attributes": {"OBJECTID": number, "crs": f"EPSG:{UTM - 1}"},
                    "geometry": {"rings": [list(shape.exterior.coords)[::-1]]},
                }
                for number, shape in enumerate(TOWN.geometry)
            ],
        }
    )


def _google() -> str:
    table = pd.DataFrame(
        {
            "latitude": DEGREES.geometry.bounds.miny,
            "longitude": DEGREES.geometry.bounds.minx,
            "area_in_meters": TOWN.area,
            "confidence": 0.8,
            "geometry": DEGREES.geometry.to_wkt(rounding_precision=9),
            "full_plus_code": "x",
        }
    )
    return table.to_csv(index=False)


def _overture(folder: Path) -> Path:
    """Write two files of buildings and one of building parts, with Overture's classes."""
    for number, rows in enumerate((DEGREES[:5], DEGREES[5:])):
        place = folder / "theme=buildings" / "type=building" / f"part-{number}.zstd.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        rows.assign(id="x", subtype="residential", **{"class": "house"}).to_parquet(place)
    place = folder / "theme=buildings" / "type=building_part" / "part.parquet"
    place.parent.mkdir()
    DEGREES[:3].assign(id="x", subtype=None, **{"class": None}).to_parquet(place)
    return folder / "theme=buildings"


_OTHER_TAGS = ({"building": "no"}, {"landuse": "farmland"}, {"building:part": "yes"})


def _ways() -> list[tuple[int, dict[str, str], Any]]:
    """Return id, tags and outline in degrees of ways: the town, and what is not a building."""
    shapes = [*TOWN.geometry, *([FIELD] * len(_OTHER_TAGS))]
    tags = [*([{"building": "yes"}] * len(TOWN)), *_OTHER_TAGS]
    in_degrees = gpd.GeoSeries(shapes, crs=UTM).to_crs(4326)
    return [(100 + n, tags[n], shape) for n, shape in enumerate(in_degrees)]


def _overpass(form: str) -> Callable[[], str]:
    """Return an answer of the Overpass API, with coordinates in nodes or in ways."""

    def text() -> str:
        nodes: list[dict[str, Any]] = []
        ways: list[dict[str, Any]] = []
        for ref, tags, shape in _ways():
            points = [{"lat": y, "lon": x} for x, y in list(shape.exterior.coords)[:-1]]
            ids = [ref * 100 + number for number in range(len(points))]
            nodes += [{"type": "node", "id": i, **point} for i, point in zip(ids, points)]
            way = {"type": "way", "id": ref, "nodes": [*ids, ids[0]], "tags": tags}
            ways.append(way | ({"geometry": [*points, points[0]]} if form == "geom" else {}))
        # One building is a relation of two ways, as those with courtyards are.
        first = ways.pop(0)
        half = len(first["nodes"]) // 2
        members = []
        for number, part in enumerate((slice(0, half + 1), slice(half, None))):
            member = {"type": "way", "ref": number + 1, "role": "outer"}
            if form == "geom":
                members.append(member | {"geometry": first["geometry"][part]})
            else:
                members.append(member)
                ways.append({"type": "way", "id": number + 1, "nodes": first["nodes"][part]})
        tags = {"type": "multipolygon", "building": "yes"}
        relation = {"type": "relation", "id": 7, "members": members, "tags": tags}
        elements = [*ways, relation] if form == "geom" else [relation, *ways, *nodes]
        head = {"version": 0.6, "generator": "Overpass API 0.7.62", "osm3s": {"copyright": "…"}}
        return json.dumps(head | {"elements": elements})

    return text


def _osm_xml(*, geometry: bool, deleted: bool = False) -> Callable[[], str]:
    """Return OSM XML with the coordinates in ways (`out geom`), or with a deletion of JOSM."""

    def text() -> str:
        nodes, ways = [], []
        for ref, tags, shape in _ways():
            points = list(shape.exterior.coords)
            ids = [-(ref * 100 + number % (len(points) - 1)) for number in range(len(points))]
            nodes += [f"<node id='{i}' lon='{x!r}' lat='{y!r}'/>" for i, (x, y) in zip(ids, points)]
            place = [f"lon='{x!r}' lat='{y!r}'" if geometry else "" for x, y in points]
            inner = "".join(f"<nd ref='{i}' {where}/>" for i, where in zip(ids, place))
            inner += "".join(f"<tag k='{k}' v='{v}'/>" for k, v in tags.items())
            ways.append(f"<way id='{ref}'>{inner}</way>")
            if deleted and ref == 100:
                gone = inner.replace(
                    "<tag k='building'", "<tag k='source' v='x'/><tag k='building'"
                )
                ways.append(f"<way id='99' action='delete' visible='true'>{gone}</way>")
        body = "".join([*([] if geometry else dict.fromkeys(nodes)), *ways])
        return f"<?xml version='1.0' encoding='UTF-8'?><osm version='0.6'>{body}</osm>"

    return text


def _topojson() -> str:
    arcs = [[list(point) for point in shape.exterior.coords] for shape in DEGREES.geometry]
    shapes = [{"type": "Polygon", "arcs": [[n]], "properties": {}} for n in range(len(arcs))]
    objects = {"town": {"type": "GeometryCollection", "geometries": shapes}}
    return json.dumps({"type": "Topology", "arcs": arcs, "objects": objects})


def _lines(form: str) -> Callable[[], str]:
    def text() -> str:
        found: list[Any] = [
            {**one, "properties": {"height": -1.0, "confidence": -1.0}} for one in features()
        ]
        if form == "FeatureCollection":
            found = [{"type": form, "features": [one]} for one in found]
        return "".join(json.dumps(one) + "\n" for one in found)

    return text


def _fgdb(folder: Path) -> Path:
    TOWN.to_file(folder / "town.gdb", driver="OpenFileGDB")
    return folder / "town.gdb"


def _gml(srs: str, member: str, town: gpd.GeoDataFrame = TOWN, last: str = " 7.5") -> Sample:
    """Return a function that writes GML; `outline` and its `core` in `member`, beside a `wall`."""
    kind = "CityModel" if last else "FeatureCollection"
    gml = f'{kind} xmlns:gml="http://www.opengis.net/gml/3.2"'

    def polygon(shape: Any) -> str:
        xy = [point[:: -1 if town is DEGREES else 1] for point in shape.exterior.coords]
        flat = " srsDimension='2'" if town is DEGREES else ""
        posts = " ".join(f"{a!r} {b!r}{'' if flat else last}" for a, b in xy)
        ring = f"<gml:LinearRing><gml:posList{flat}>{posts}</gml:posList></gml:LinearRing>"
        return f"<gml:Polygon srsName='{srs}'><gml:exterior>{ring}</gml:exterior></gml:Polygon>"

    def text() -> str:
        filled = "".join(
            member.replace("outline", polygon(one)).replace("core", polygon(one.centroid.buffer(1)))
            for one in town.geometry
        )
        return f"<?xml version='1.0'?><{gml}>{filled}</{kind}>".replace("wall", polygon(FIELD))

    name = "town.gml.gz" if town is TOWN else "town.gml"
    return _text(name if last else "nas.xml", text)


_AX = "<gml:featureMember><AX_Gebaeude><x>outline</x></AX_Gebaeude></gml:featureMember>"
_NAS = _gml("urn:adv:crs:ETRS89_UTM33", _AX, last="")
_LOD2 = (
    "<cityObjectMember><Building gml:id='b'><BuildingPart><RoofSurface>wall</RoofSurface>"
    "<GroundSurface>core</GroundSurface></BuildingPart><BuildingPart><lod1Solid>outline</lod1Solid>"
    "</BuildingPart></Building></cityObjectMember>"
)
_LOD0 = _LOD2.replace("'b'>", "'b'><lod0RoofEdge>outline</lod0RoofEdge>")


def _city_json(code: int, town: gpd.GeoDataFrame = TOWN, scale: float = 0.001) -> Sample:
    """Return a function that writes CityJSON: solids of parts, or the ground in degrees (LoD0)."""
    step = -1 if town is DEGREES else 1  # PLATEAU keeps latitudes first
    model: dict[str, Any] = {
        "type": "CityJSON",
        "transform": {"scale": [scale] * 3},
        "vertices": [],
    }
    model["metadata"] = {"referenceSystem": f"https://www.opengis.net/def/crs/EPSG/0/{code}"}
    model["transform"]["translate"], points, things = [5, 6, 7], model["vertices"], {}
    for name, shape in enumerate(town.geometry):
        faces = []
        for each in (shape, shape.buffer(3 / 10 ** (5 * (step < 0)))):
            xy = (each.exterior.coords[:-1] - np.array([5, 6][::step])) / scale
            faces.append([[*range(len(points), len(points) + len(xy))]])
            points += [[*map(round, one[::step]), 9] for one in xy.tolist()]
        kinds = {"surfaces": [{"type": "GroundSurface"}, {"type": "RoofSurface"}]}
        solid = {"type": "Solid", "boundaries": [faces], "semantics": {**kinds, "values": [[0, 1]]}}
        ground = {"type": "MultiSurface", "lod": "0", "boundaries": faces[:1]}
        things[f"{name}-0"] = {"type": "BuildingPart", "geometry": [solid]}
        own = [ground] * (step < 0)
        things[str(name)] = {"type": "Building", "children": [f"{name}-0"], "geometry": own}
    whole: dict[str, Any] = {**model, "CityObjects": things}
    if step < 0:  # as the service of 3DBAG sends them
        feature = {"type": "CityJSONFeature", "CityObjects": things, "vertices": points}
        whole = {"features": [feature], "metadata": model | {"CityObjects": {}, "vertices": []}}
    return _text("town.city.json", lambda: json.dumps(whole))


def _multipatch(folder: Path) -> Path:
    """Write a shapefile of roofs that are triangles, of which GDAL makes TINs."""
    flat = [shapely.get_parts(shapely.constrained_delaunay_triangles(x)) for x in TOWN.geometry]
    roofs = [
        shapely.to_wkb(shapely.force_3d(shapely.multipolygons(x), 9), flavor="iso") for x in flat
    ]
    wkb = [x.replace(b"\xeb\3", b"\xf9\3").replace(b"\xee\3", b"\xf8\3") for x in roofs]
    kind = {"driver": "ESRI Shapefile", "geometry_type": "Unknown", "SHPT": "MULTIPATCH"}
    pyogrio.raw.write(folder / "town.shp", np.array(wkb, object), [], [], crs="EPSG:32633", **kind)
    return folder / "town.shp"


_SHAPE = _file("town.shp")
_STREET = other(LineString([(WEST, NORTH), (WEST + 60, NORTH - 60)]), highway="path")
_TREE = other(Point(WEST + 1, NORTH - 1), natural="tree")

SAMPLES: dict[str, Sample] = {
    "Shapefile": _SHAPE,
    "Shapefile without .shx": _no_index,
    "Shapefile, zipped": _zipped(_SHAPE, "town.zip"),
    "Shapefile, zipped in a folder": _zipped(_SHAPE, "town.shp.zip", "deep/down/"),
    "GeoPackage": _file("town.gpkg"),
    "FlatGeobuf": _file("town.fgb"),
    "GeoJSON": _text("town.geojson", collection),
    "GeoJSON, zipped": _zipped(_text("town.geojson", collection), "town.zip"),
    "GeoJSON, .json": _text("town.json", collection),
    "GeoJSON lines": _text("town.geojsonl", _lines("Feature")),
    "KML": _file("town.kml", "LIBKML", DEGREES),
    "KMZ": _file("town.kmz", "LIBKML", DEGREES),
    "GML": _file("town.gml", "GML", XSISCHEMA="OFF"),
    "GML of a cadastre, .xml": _NAS,
    "CityGML, .gml.gz": _gml("urn:ogc:def:crs,crs:EPSG::3045,crs:EPSG::5783", _LOD2),
    "CityGML in degrees": _gml("http://www.opengis.net/def/crs/EPSG/0/7423", _LOD0, DEGREES),
    "CityJSON": _city_json(32633),
    "CityJSON in degrees": _city_json(4937, DEGREES, 1e-9),
    "GML of a cadastre, zipped": _zipped(_NAS, "town.zip"),
    "Shapefile of multipatches": _multipatch,
    "MapInfo TAB": _file("town.tab", "MapInfo File"),
    "MapInfo MIF": _file("town.mif", "MapInfo File"),
    "SpatiaLite": _file("town.sqlite", "SQLite", spatialite=True),
    "File geodatabase": _fgdb,
    "File geodatabase, zipped": _zipped(_fgdb, "town.gdb.zip"),
    "Esri JSON": _text("town.json", _esri),
    "GeoParquet": lambda folder: _parquet(folder / "town.parquet"),
    "GeoParquet, .geoparquet": lambda folder: _parquet(folder / "town.geoparquet"),
    "Google Open Buildings": _text("town.csv", _google),
    "Google Open Buildings, .csv.gz": _text("town.csv.gz", _google),
    "Microsoft, .csv.gz": _text("part-00152.csv.gz", _lines("Feature")),
    "Microsoft, .csv": _text("part-00152.csv", _lines("Feature")),
    "Microsoft, FeatureCollections": _text("kenya.geojsonl", _lines("FeatureCollection")),
    "Overture": _overture,
    "Overpass JSON": _text("export.json", _overpass("body")),
    "Overpass JSON, out geom": _text("export.json", _overpass("geom")),
    "Overpass XML, out geom": _text("export.osm", _osm_xml(geometry=True)),
    "OpenStreetMap XML": _text("town.osm", _osm_xml(geometry=False)),
    "JOSM with deletions": _text("town.osm", _osm_xml(geometry=False, deleted=True)),
    "overpass-turbo GeoJSON": _text(
        "export.geojson",
        lambda: collection(
            _STREET, _TREE, other(FIELD, landuse="farmland"), other(FIELD, building="no"),
            other(FIELD, **{"building:part": "yes"}), tags={"@id": "way/1", "building": "house"},
        ),
    ),
    **{
        f"GeoJSON with {field.lower()}": _text("classes.geojson", partial(
            collection, other(FIELD, **{field: ground}), tags={field: building}
        ))
        for field, building, ground in (
            ("class", "Building", "shed"), ("Type", "building", "Road"),
            ("theme", "Buildings", "Land"), ("Art", "Gebaeude", "befestigt.Strasse_Weg"),
        )
    },
    "CSV with WKT": _text("town.csv", lambda: "\n".join(
        ["id;wkt", *(f'1;"CURVE{w}"' for w in DEGREES.geometry.to_wkt(rounding_precision=9))]
    )),
    "CSV with EWKT": _text(
        "town.csv",
        lambda: "geom,id\n"
        + "".join(f'"SRID={UTM};{wkt}",1\n' for wkt in TOWN.geometry.to_wkt())
        + ",2\n",
    ),
    "CSV with hex EWKB": _text(
        "town.csv",
        lambda: "id,geom\n" + "".join(f"1,{one}\n" for one in shapely.to_wkb(
            shapely.set_srid(shapely.force_3d(TOWN.geometry.to_numpy()), UTM), hex=True,
            include_srid=True,
        )),
    ),
    "CSV with hex WKB": _text("town.csv", lambda: "\n".join(
        ["id\tgeom", *(f"1\t\\x{one.lower()}" for one in DEGREES.geometry.to_wkb(hex=True))]
    )),
    "GeoJSON of kinds of buildings": _text("kinds.geojson", lambda: collection(
        tags={"type": "building"}
    ).replace('"building"', '"water_tower"', 1)),
}  # fmt: skip
"""What is read without an option, by the name that `docs/formats.md` has."""

LAYERED: dict[str, Sample] = {
    "KML with two folders": _with_others("town.kml", "LIBKML"),
    "GeoPackage with two layers": _with_others("town.gpkg", "GPKG"),
}
"""What is read with `--layer '*'`."""

UNPLACED: dict[str, Sample] = {
    "DXF": _file("town.dxf", "DXF", TOWN.boundary.to_frame("geometry").assign(Layer=[*"AB"] * 6)),
    "TopoJSON": _text("town.topojson", _topojson),
    "Shapefile without .prj": lambda folder: _unplaced(folder / "town.shp"),
    "Shapefile without .prj, zipped": lambda folder: _zipped(
        lambda made: _unplaced(made / "town.shp"), "town.zip")(folder),
    "CSV with WKT in metres": _text("town.csv", lambda: "id,geom\n" + "".join(
        f'1,"{wkt}"\n' for wkt in TOWN.geometry.to_wkt(rounding_precision=9)
    )),
}  # fmt: skip
"""What is recognised, but states no coordinate system: the error says how to assign it."""


def _parquet(path: Path) -> Path:
    TOWN.to_parquet(path)
    return path


def _unplaced(path: Path) -> Path:
    shapes = np.asarray(TOWN.geometry.to_numpy(), object)
    write_polygons(path, shapes, {"id": np.arange(12)}, None)
    return path


def differing_m2(geometry: Any, crs: Any) -> float:
    """Return the area that only one of some buildings and the town covers."""
    found = gpd.GeoSeries(list(geometry), crs=crs).to_crs(UTM)
    return float(shapely.symmetric_difference(found.union_all(), TOWN.union_all()).area)
