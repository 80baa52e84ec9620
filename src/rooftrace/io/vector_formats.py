"""Formats of vector data, told by suffix and content, and what GDAL opens for each.

GDAL reads most of them as they are. The others are written again in a temporary folder, in the next
form that it reads:

- archives: their files;
- OpenStreetMap with coordinates inside of its ways (`out geom`), as JSON of the Overpass API
  (https://wiki.openstreetmap.org/wiki/Overpass_API), or with deletions of JOSM: GeoJSON;
- lines of FeatureCollections, as in some files of Microsoft: lines of Features;
- a Shapefile without its index (.shx): with a new index;
- CityGML and CityJSON, as of national surveys: the outlines of their buildings as GeoJSON;
- compressed GML and OSM XML (.gml.gz, .osm.gz): the file inside;
- KML with several courtyards in one boundary, as simplekml (1.3.6) writes it: with one for each,
  since GDAL (3.12.4) reads the last courtyard of a boundary alone.
"""

import gzip
import json
import mmap
import re
import shlex
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import shapely
import shapely.geometry

from rooftrace.core.errors import DataError
from rooftrace.core.text import plural
from rooftrace.io.city_models import CityModel, read_city_gml, read_city_json
from rooftrace.io.files import opened
from rooftrace.io.geojson import RECORD, first_line, stated_crs
from rooftrace.io.tables import file_beside, unstated_encoding, utf8_copy, wkt_column

KML_PREFIX = "placemark_"
"""Beginning of the names of columns that hold parts of placemarks, not attributes."""

KML_ID = f"{KML_PREFIX}id"
"""Column in which placemarks of KML have their ids."""

KML_FIELDS = {
    f"LIBKML_{part}_FIELD": KML_PREFIX + part.lower()
    for part in (
        "ID", "ALTITUDEMODE", "TESSELLATE", "EXTRUDE", "VISIBILITY", "DRAWORDER", "ICON",
        "SNIPPET", "MODEL", "HEADING", "TILT", "ROLL",
    )
}  # fmt: skip
"""Otherwise GDAL (3.12) loses columns called `id` or `model`: it means parts of placemarks."""

PARQUET = (".parquet", ".geoparquet")
VECTOR_SUFFIXES = (
    ".gpkg", ".fgb", ".shp", ".kml", ".kmz", ".gml", ".gml.gz", ".tab", ".mif", ".dxf", ".geojson",
    ".geojsonl", ".geojsons", ".esrijson", ".topojson", ".osm", ".osm.gz", ".pbf", *PARQUET,
)  # fmt: skip
"""Suffixes of vector data alone."""

_BY_CONTENT = (
    ".json", ".xml", ".csv", ".csv.gz", ".zip", ".sqlite", ".db", ".spatialite",
    ".geojson.gz", ".geojsonl.gz", ".json.gz", ".city.jsonl",
)  # fmt: skip
_DATABASES = (".sqlite", ".db", ".spatialite")

_HEAD_BYTES = 1 << 16
_OVERPASS = re.compile(rb'"elements"\s*:|"osm3s"')
_VECTOR_JSON = re.compile(rb'"FeatureCollection"|"esriGeometry\w+"|"Topology"|"Feature"')
_CITY_JSON = re.compile(rb'"type"\s*:\s*"CityJSON(Feature)?"|"CityObjects"\s*:')
_GML = re.compile(rb"FeatureCollection|CityModel|FGD_GMLSchema")
"""Elements of GML, also where it ends in .xml: cadastres of Germany (NAS), Poland and Japan."""

_CHANGED_OSM = re.compile(rb"""<nd\s[^>]*lat=|<[^>]*action=['"]delete""")
_SIDECARS = (".shp", ".dbf", ".prj", ".cpg")


def is_vector_file(path: Path) -> bool:
    """Return whether a path is vector data: a file, a geodatabase, or a folder of GeoParquet.

    Formats whose suffix says too little (.json, .csv, .zip, …) are told by their beginning.
    """
    if path.is_dir():
        return _is_geodatabase(path) or _is_partitioned(path)
    name = path.name.lower()
    if not path.is_file():
        return False
    return name.endswith(VECTOR_SUFFIXES) or (name.endswith(_BY_CONTENT) and _has_polygons(path))


def _has_polygons(path: Path) -> bool:
    name = path.name.lower()
    try:
        if name.endswith(".zip"):
            return zipfile.is_zipfile(path) and bool(_members(path))
        head = _head(path)
    except (OSError, EOFError, zlib.error, RuntimeError):
        # What needs the file reports the error.
        return False
    if name.endswith(_DATABASES):
        return head.startswith(b"SQLite format 3") and b"geometry_columns" in head
    if name.endswith(".xml"):
        return _is_xml_of_polygons(head)
    if name.endswith((".csv", ".csv.gz")):
        return b'"Feature' in head if head.startswith(b"{") else wkt_column(head) is not None
    return bool(_VECTOR_JSON.search(head) or _CITY_JSON.search(head) or _is_overpass(head))


def _is_xml_of_polygons(head: bytes) -> bool:
    return b"<osm" in head or bool(_GML.search(head))


UNREAD = {".dwg": "DWG", ".ifc": "IFC", ".itf": "INTERLIS", ".xtf": "INTERLIS"}
"""Name of each format of buildings that is not read, by suffix."""


def check_city_model(path: Path) -> None:
    """Raise DataError if the buildings of a file are in a format that is not read."""
    if form := UNREAD.get(path.suffix.lower()):
        raise DataError(
            f"{path} is {form}, which is not read.",
            remedy="Give the outlines of its buildings in another format, such as a GeoPackage.",
        )


def _head(path: Path) -> bytes:
    with opened(path) as file:
        return file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()


def _is_overpass(head: bytes) -> bool:
    return bool(_OVERPASS.search(head)) and bool(
        re.search(rb'"osm3s"|"type"\s*:\s*"(node|way|relation)"', head)
    )


def _is_geodatabase(path: Path) -> bool:
    return path.suffix.lower() == ".gdb" and any(path.glob("*.gdbtable"))


def _is_partitioned(path: Path) -> bool:
    """Return whether a folder, or what it holds, is named like those of Hive: `theme=buildings`."""
    inner = [path, *(one for one in path.iterdir() if one.is_dir())]
    inner += [one for folder in inner[1:] for one in folder.iterdir() if one.is_dir()]
    return any("=" in one.name for one in inner) and bool(parquet_files(path))


def parquet_files(folder: Path) -> list[Path]:
    """Return the files of GeoParquet below a folder, without hidden ones and parts of buildings."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PARQUET)
    steps = {path: path.relative_to(folder).parts for path in found}
    # Temporary files of a run that was killed are hidden. Overture's parts lie inside of buildings.
    return [
        path
        for path in found
        if not any(step.startswith(".") or step == "type=building_part" for step in steps[path])
    ]


def ogr2ogr_input(path: Path) -> str:
    """Return the words with which ogr2ogr reads the polygons of a file."""
    suffix = path.suffix.lower()
    if suffix == ".dxf":
        return f"-nlt POLYGON {shlex.quote(str(path))}"
    if suffix == ".csv" and (column := wkt_column(_head(path))):
        named = f"GEOM_POSSIBLE_NAMES={shlex.quote(column[0])} -oo KEEP_GEOM_COLUMNS=NO"
        return f"-oo {named} {shlex.quote(str(path))}"
    return shlex.quote(f"/vsizip/{path}" if suffix == ".zip" else str(path))


def kml_text(path: Path) -> bytes:
    """Return the text of a KML, or of the first one in a KMZ."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        root = next((name for name in archive.namelist() if name.lower().endswith(".kml")), None)
        return b"" if root is None else archive.read(root)


def _members(path: Path) -> list[str]:
    """Return the names of the vector files in an archive."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
        plain = [n for n in names if n.lower().endswith((*VECTOR_SUFFIXES, ".csv", ".json"))]
        packed: list[str] = []
        # Beside other data, they are descriptions of it.
        for name in (n for n in names if n.lower().endswith(".xml") and not plain):
            with archive.open(name) as file:
                packed += [name] * _is_xml_of_polygons(file.read(_HEAD_BYTES))
    plain += packed
    databases = {match[0] for name in names if (match := re.match(r"(.*?\.gdb)(?=/)", name, re.I))}
    return [*sorted(databases), *(n for n in plain if not n.startswith(tuple(databases) or "\0"))]


class VectorInput(NamedTuple):
    """One file that is opened.

    Args:
        path: The file of GeoParquet, or what GDAL opens.
        options: Options of GDAL's driver for opening it.
        config: Settings of GDAL while it is read.
        where: Condition of the rows that are read; None for all.
        notes: Assumptions and repairs for the user.
        ewkb: Column of a table with EWKT or hexadecimal (E)WKB, see `geometry_of_ewkb`.
        epsg: Code of the CRS where the file states it in a way that GDAL does not know.
        crs: CRS that the file states, also where GDAL finds another.
        beside: GDAL's layers of OpenStreetMap, beside that of areas, that may have buildings.
    """

    path: Path | str
    options: Mapping[str, str] = {}
    config: Mapping[str, str] = {}
    where: str | None = None
    notes: tuple[str, ...] = ()
    ewkb: str | None = None
    epsg: int | None = None
    crs: str | None = None
    beside: tuple[str, ...] = ()


_NO_PROPERTIES = {"CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO"}
"""Otherwise GDAL writes a file .properties beside one that is compressed."""

_OSM_CONFIG = {"OSM_USE_CUSTOM_INDEXING": "NO"}
"""Ids of nodes that are not on the server yet are negative and in any order."""

_OSM_BUILDINGS = "building IS NOT NULL AND building <> 'no'"
"""Without this filter, GDAL (3.12.4) drops a building that is the outer ring of another area, as of
a school (findings/gdal_osm_filter_adds_buildings.sh)."""

_OSM_BESIDE = {
    "points": re.compile(rb"""<node[^>]*[^/]>\s*(?:<tag[^>]*>\s*)*?<tag k=["']building["']"""),
    "other_relations": re.compile(rb"""k=["']type["']\s+v=["']building["']"""),
}
"""What OSM XML has if a layer may have buildings; reading one takes as long as reading the areas.
PBF is compressed, and its layers are read in a third of that time."""


def surrounded(lines: Iterable[shapely.LineString]) -> Any:
    """Return the area in the closed ones of some lines, and in rings that others form together."""
    areas, chains = [], []
    for line in lines:
        if line.is_closed and shapely.get_num_coordinates(line) > 3:
            areas.append(shapely.make_valid(shapely.Polygon(line)))
        else:
            chains.append(line)
    return shapely.union_all([*areas, shapely.polygonize(chains)])


def building_nodes_note(name: str, count: int) -> str:
    """Return the note on buildings that OpenStreetMap has as nodes."""
    nodes = plural(count, "building mapped as a node", "buildings mapped as nodes")
    return f"{name}: {nodes} left out: no outline."


_OsmElement = Mapping[str, Any]
"""Node, way or relation as JSON of the Overpass API has it."""


def _xml_elements(path: Path) -> Iterator[_OsmElement]:
    # Python's parser expands no external entities and stops at entity expansion attacks.
    for _, one in ElementTree.iterparse(path):  # noqa: S314  # nosec B314
        if one.tag not in ("node", "way", "relation"):
            continue
        if one.get("action") != "delete" and one.get("visible") != "false":
            yield {
                **one.attrib,
                "type": one.tag,
                "tags": {tag.get("k"): tag.get("v") for tag in one.findall("tag")},
                "nodes": [node.get("ref") for node in one.findall("nd")],
                "geometry": [node.attrib for node in one.findall("nd")],
                "members": [
                    {**each.attrib, "geometry": [node.attrib for node in each.findall("nd")]}
                    for each in one.findall("member")
                ],
            }
        one.clear()


_OSM_ABOUT = {"type", "source", "note", "created_by"}
"""Keys of relations that say nothing of what an area is."""

_OSM_LINES = {"highway", "barrier", "railway", "waterway"}
"""Keys of closed ways that are no areas, see https://wiki.openstreetmap.org/wiki/Area."""


_EPSG = re.compile(rb"EPSG[^0-9]*(?:[\d.]+[:/])?(\d{4,6})", re.I)
_SRS_NAME = re.compile(rb"""srsName=["']([^"']*)""")
_SRS_IN_FULL = re.compile(rb"""srsName=["'](urn:ogc|http)""")
_ADV = re.compile(rb"crs:(?:ETRS89_UTM(3[1-3])|DE_DHDN_3GK([2-5]))")


def epsg_of(head: bytes) -> int | None:
    """Return the code of the horizontal CRS that the first `srsName` of a GML states, if it does.

    Names of the German surveys are those of the GeoInfoDok, such as urn:adv:crs:ETRS89_UTM32.
    """
    for name in _SRS_NAME.findall(head):
        if found := _ADV.search(name):
            return 25800 + int(found[1]) if found[1] else 31464 + int(found[2])
        if found := _EPSG.search(name):
            return int(found[1])
    return None


@dataclass(frozen=True)
class InputFinder:
    """Finds what is opened for the paths of vector data.

    Args:
        scratch: Function that makes an empty folder, if files have to be made for GDAL.
        areas: Whether all areas of OpenStreetMap count, such as boundaries, not buildings alone.
    """

    scratch: Callable[[], Path]
    areas: bool = False

    def inputs(self, path: Path) -> list[VectorInput]:
        """Return what is opened for a path, several for an archive or a folder of GeoParquet.

        Raises:
            DataError: The path holds no vector data, or no coordinates.
            OSError, ValueError: The file cannot be read.
        """
        name = path.name.lower()
        if path.is_dir():
            if _is_geodatabase(path):
                return [VectorInput(path)]
            files = parquet_files(path)
            if not files and not (path / "manifest.json").is_file():
                raise DataError(
                    f"The folder {path} has no GeoParquet and no polygons of rooftrace predict.",
                    remedy="Give a file, or a folder that rooftrace predict or catalogue wrote.",
                )
            return [VectorInput(file) for file in files]
        if name.endswith(".zip"):
            return self._unpacked(path)
        if name.endswith((".osc", ".osc.gz")):
            raise DataError(
                f"{path} has the changes to a map alone, without the nodes that did not change.",
                remedy=f"Apply them: osmium apply-changes MAP.osm.pbf {path.name} -o NEW.osm.pbf",
            )
        if name.endswith((".osm", ".pbf")) or (name.endswith(".xml") and b"<osm" in _head(path)):
            return [self._osm(path)]
        if name.endswith((*PARQUET, *_DATABASES, ".gpkg", ".fgb")):
            return [VectorInput(path)]
        if name.endswith((".kml", ".kmz")):
            return [VectorInput(self._kml(path), config=KML_FIELDS)]
        if name.endswith(".shp"):
            return [self._shapefile(path)]
        if name.endswith((".gml.gz", ".xml.gz", ".osm.gz")):
            plain = self.scratch() / path.stem
            with gzip.open(path) as packed, plain.open("wb") as file:
                shutil.copyfileobj(packed, file)
            inner = self.scratch() / "inner"
            inner.mkdir()
            return replace(self, scratch=lambda: inner).inputs(plain)
        if name.endswith((".gml", ".xml")):
            head = _head(path)
            if b"CityModel" in head:
                is_urn = _SRS_IN_FULL.search(head) is not None
                return [self._city_model(path, read_city_gml(path, epsg_of(head), is_urn=is_urn))]
            # GDAL writes a description (.gfs) beside what it opens.
            return [VectorInput(self._linked(path, (".gml", ".xml", ".xsd")), epsg=epsg_of(head))]
        if name.endswith(".dxf"):
            return [VectorInput(path, config={"DXF_CLOSED_LINE_AS_POLYGON": "TRUE"})]
        if name.endswith(("json", "jsonl", "jsons", ".csv", ".gz")):
            return [self._text(path)]
        check_city_model(path)
        return [VectorInput(path)]

    def _unpacked(self, path: Path) -> list[VectorInput]:
        members = _members(path)
        if not members:
            raise DataError(
                f"{path} holds no vector data.", remedy="Unpack it, and give what is inside."
            )
        folder = self.scratch() / "unpacked"
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        inputs = []
        for number, member in enumerate(members):
            inner = self.scratch() / f"made{number}"
            inner.mkdir()
            made = replace(self, scratch=inner.absolute).inputs(folder / member)
            notes = (tuple(f"{path.name}: {note}" for note in one.notes) for one in made)
            inputs += [one._replace(notes=said) for one, said in zip(made, notes)]
        return inputs

    def _kml(self, path: Path) -> Path:
        text = kml_text(path)
        between = b"</LinearRing></innerBoundaryIs><innerBoundaryIs><LinearRing"
        apart = re.sub(
            rb"<innerBoundaryIs>.*?</innerBoundaryIs>",
            lambda rings: re.sub(rb"</LinearRing>\s*<LinearRing\b", between, rings[0]),
            text,
            flags=re.DOTALL,
        )
        if apart == text:
            return path
        made = self.scratch() / f"{path.stem}.kml"
        made.write_bytes(apart)
        return made

    def _shapefile(self, path: Path) -> VectorInput:
        encoding = unstated_encoding(path)
        options = {"ENCODING": encoding} if encoding else {}
        notes = [f"{path.name} states no encoding (.cpg): read as {encoding}."] if encoding else []
        if file_beside(path, ".shx"):
            return VectorInput(path, options, notes=tuple(notes))
        notes.append(f"{path.name} has no index (.shx); it is made anew from the .shp.")
        linked = self._linked(path, _SIDECARS)
        config = {"SHAPE_RESTORE_SHX": "YES"}
        return VectorInput(linked, options, config, notes=tuple(notes))

    def _linked(self, path: Path, suffixes: Sequence[str]) -> Path:
        """Return a link to a file in a folder of its own, with links to those of its name."""
        folder = self.scratch()
        for file in path.parent.iterdir():
            if file.stem == path.stem and file.suffix.lower() in suffixes:
                (folder / file.name).symlink_to(file.absolute())
        return folder / path.name

    def _city_json(self, path: Path) -> VectorInput:
        with opened(path) as file:
            text = file.read()
        is_whole = first_line(path, text) is None
        models = [json.loads(one) for one in ([text] if is_whole else text.splitlines()) if one]
        if "CityObjects" not in models[0]:
            # The service of 3DBAG sends one feature, or several.
            first = models[0]
            models = [first["metadata"], *first.get("features", [first.get("feature")])]
        stated = str(models[0].get("metadata", {}).get("referenceSystem")).encode()
        found = _EPSG.search(stated)
        epsg = int(found[1]) if found else None
        return self._city_model(path, read_city_json(path, models, epsg))

    def _city_model(self, path: Path, model: CityModel) -> VectorInput:
        """Write the outlines of the buildings of a city model as GeoJSON."""
        features = [
            {
                "type": "Feature", "properties": plain,
                "geometry": None if outline is None else shapely.geometry.mapping(outline),
            }
            for plain, outline in model.buildings
        ]  # fmt: skip
        crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{model.epsg}"}}
        whole = {"type": "FeatureCollection", "crs": crs, "features": features}
        return VectorInput(self._as_geojson(path, whole), notes=model.notes)

    def _as_geojson(self, path: Path, content: Mapping[str, Any]) -> Path:
        """Return a GeoJSON with other content that is called like a file."""
        made = self.scratch() / f"{path.stem}.geojson"
        made.write_text(json.dumps(content))
        return made

    def _text(self, path: Path) -> VectorInput:
        """Return what is opened for a file of GeoJSON in any form, of Overpass, or for a table."""
        head = _head(path)
        if _CITY_JSON.search(head):
            return self._city_json(path)
        if _is_overpass(head):
            return self._osm_areas(path, json.loads(path.read_bytes())["elements"])
        crs = stated_crs(path) if head.startswith((b"{", RECORD)) else None
        packed = path.suffix.lower() == ".gz"
        place = f"{'/vsigzip/' if packed else ''}{path.absolute().as_posix()}"
        if (line := first_line(path, head)) is not None:
            if b'"FeatureCollection"' in line:
                made = self.scratch() / "lines.geojsonl"
                # The features of each collection, a line each.
                with opened(path) as lines, made.open("w", encoding="utf-8") as file:
                    for one in lines:
                        if one.strip():
                            found = json.loads(one.removeprefix(RECORD))
                            for feature in found.get("features", [found]):
                                file.write(json.dumps(feature) + "\n")
                place = str(made)
            return VectorInput(f"GeoJSONSeq:{place}", config=_NO_PROPERTIES, crs=crs)
        if path.name.lower().endswith((".csv", ".csv.gz")):
            notes: tuple[str, ...] = ()
            if copy := utf8_copy(path, self.scratch()):
                place, head = str(copy), _head(copy)
                notes = (f"{path.name} is not UTF-8: read as CP1252.",)
            column, is_ewkb = wkt_column(head) or ("geometry", False)
            options = {} if is_ewkb else {"GEOM_POSSIBLE_NAMES": column, "KEEP_GEOM_COLUMNS": "NO"}
            ewkb = column if is_ewkb else None
            return VectorInput(f"CSV:{place}", options, _NO_PROPERTIES, ewkb=ewkb, notes=notes)
        return VectorInput(place if packed else path, config=_NO_PROPERTIES, crs=crs)

    def _osm(self, path: Path) -> VectorInput:
        where = None if self.areas else _OSM_BUILDINGS
        if path.suffix.lower() == ".pbf":
            return VectorInput(path, where=where, beside=() if self.areas else (*_OSM_BESIDE,))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # GDAL leaves out closed ways without tags, as JOSM draws an area.
            if not (self.areas or _CHANGED_OSM.search(data)):
                beside = tuple(name for name, sign in _OSM_BESIDE.items() if sign.search(data))
                return VectorInput(path, config=_OSM_CONFIG, where=where, beside=beside)
        return self._osm_areas(path, _xml_elements(path))

    def _osm_areas(self, path: Path, elements: Iterable[_OsmElement]) -> VectorInput:
        """Write the buildings among elements, or all areas, as GeoJSON with the ids of GDAL."""
        kept = {(one["type"], str(one["id"])): one for one in elements}

        def line(one: _OsmElement) -> list[tuple[float, float]]:
            """Return the coordinates of a way, or of a member of a relation."""
            points = one.get("geometry", [])
            if not any(point and "lat" in point for point in points):
                way = kept.get(("way", str(one["ref"])), {}) if "ref" in one else one
                if way is not one:
                    return line(way) if way else []
                points = [kept.get(("node", str(ref)), {}) for ref in one.get("nodes", ())]
            return [(float(p["lon"]), float(p["lat"])) for p in points if p and "lat" in p]

        def area(members: Iterable[_OsmElement], *, inner: bool) -> Any:
            ways = [line(one) for one in members if (one.get("role") == "inner") == inner]
            return surrounded([shapely.LineString(way) for way in ways if len(way) > 1])

        def tags_of(one: _OsmElement) -> dict[str, str]:
            """Return an element's tags; of a multipolygon without any, those of an outer way."""
            tags: dict[str, str] = one.get("tags", {})
            if tags.get("type") != "multipolygon" or tags.keys() - _OSM_ABOUT:
                return tags
            outer = [each for each in one.get("members", ()) if each.get("role") != "inner"]
            rings = (kept.get((each["type"], str(each["ref"])), {}).get("tags") for each in outer)
            return tags | next(filter(None, rings), {})

        features = []
        ways = [one for (kind, _), one in kept.items() if kind == "way"]
        if ways and not any(map(line, ways)):
            raise DataError(
                f"{path} has no coordinates.", remedy="Ask the Overpass API with: out geom;"
            )
        bounds: set[str] = set()
        nodes = 0
        # Relations come first: a way around one of a building is the same building.
        for (kind, ref), one in sorted(kept.items(), key=lambda item: item[0][0]):
            tags = tags_of(one)
            is_area = tags.get("type") in ("multipolygon", "boundary")
            if kind == "way":
                is_area = tags.get("area") == "yes" or _OSM_LINES.isdisjoint(tags)
            is_wanted = is_area if self.areas else tags.get("building", "no") != "no"
            nodes += is_wanted and kind == "node"
            if kind == "node" or not is_wanted or (kind == "way" and ref in bounds):
                continue
            points = line(one) if kind == "way" else []
            if len(points) > 3 and points[0] == points[-1]:
                shape = shapely.Polygon(points)
            elif kind == "relation":
                members = [*one.get("members", ())]
                outlines = [
                    kept.get(("relation", str(each["ref"])), {}) for each in members
                    if (each["type"], each.get("role")) == ("relation", "outline")
                ]  # fmt: skip
                if any("building" in tags_of(each) for each in outlines):
                    continue
                members += [each for outline in outlines for each in outline.get("members", ())]
                members = [each for each in members if each["type"] == "way"]
                shape = area(members, inner=False) - area(members, inner=True)
                if not shape.is_empty:
                    bounds |= {
                        str(each["ref"]) for each in members
                        if each.get("role") in ("outer", "outline")
                        or not kept.get(("way", str(each["ref"])), {}).get("tags")
                    }  # fmt: skip
            else:
                continue
            ids = {
                "osm_way_id": ref if kind == "way" else None,
                "osm_id": ref if not points else None,
            }
            geometry = shapely.geometry.mapping(shape)
            properties = {**(tags if self.areas else {"building": tags["building"]}), **ids}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
        made = self._as_geojson(path, {"type": "FeatureCollection", "features": features})
        said = nodes and not self.areas
        return VectorInput(made, notes=(building_nodes_note(path.name, nodes),) if said else ())
