#!/usr/bin/env bash
# plateaukit's exports keep the options of earlier exports, so that a town comes in other places.
#
# Guess before the run: to_cityjson and to_geojson of a dataset do what their own arguments say,
# whatever was exported before in the same session.
# Seen: GeoJSON of a house in Tokyo has degrees in a new session. After CityJSON in the plane
# coordinates of EPSG:6677 it has metres, which are no degrees, and so has CityJSON without a CRS.
# CityJSON with lod_mode="all" has LOD 0, 1 and 2 in a new session and, after an export with the
# default, LOD 2 only. The list of steps is a default argument of the class, which all exports
# share and add to. There is no message.
# Versions: plateaukit 0.20.0, lxml 6.1.1, pyproj 3.7.2, geojson 3.2.0. Source:
# plateaukit/readers/citygml/reader.py, Readable.__init__(transformers=[]) and split(), which hands
# no steps on and works only because of that list.
# Hurt: who exports a town of PLATEAU twice in one notebook or service, such as plane coordinates
# for a model and GeoJSON for a map: which footprints come depends on the order of the cells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder XDG_CONFIG_HOME=$folder/config XDG_DATA_HOME=$folder/data
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check lxml==6.1.1 bidict==0.23.1 \
  geojson==3.2.0 pyproj==3.7.2 pydantic==2.12.5 platformdirs==4.5.0 loguru==0.7.3 rich==14.2.0 \
  fsspec==2026.7.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps plateaukit==0.20.0
cat > town.py <<'PYTHON'
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

# The package imports maps for notebooks; these modules of it need none of them.
for name in ("plateaukit", "plateaukit.core", "plateaukit.core.dataset"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
from plateaukit.config import Config
from plateaukit.core.dataset._to_cityjson import to_cityjson
from plateaukit.core.dataset._to_geojson import to_geojson

RING = "35.6 139.7 {0} 35.6 139.7001 {0} 35.6001 139.7001 {0} 35.6001 139.7 {0} 35.6 139.7 {0}"
SURFACE = ("<gml:surfaceMember><gml:Polygon><gml:exterior><gml:LinearRing><gml:posList>{}"
           "</gml:posList></gml:LinearRing></gml:exterior></gml:Polygon></gml:surfaceMember>")


def surfaces(*heights):
    """Return surfaces of a house at these heights in GML."""
    return "".join(SURFACE.format(RING.format(height)) for height in heights)


def write_town():
    """Write a house with LOD 0, 1 and 2, as the datasets of PLATEAU are, and register it."""
    Path("config").mkdir()
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<core:CityModel xmlns:core="http://www.opengis.net/citygml/2.0"
 xmlns:gml="http://www.opengis.net/gml" xmlns:bldg="http://www.opengis.net/citygml/building/2.0"
 xmlns:uro="https://www.geospatial.jp/iur/uro/3.0" xmlns:gen="http://www.opengis.net/citygml/generics/2.0">
<gml:boundedBy><gml:Envelope srsName="http://www.opengis.net/def/crs/EPSG/0/6697" srsDimension="3">
<gml:lowerCorner>35.6 139.7 0</gml:lowerCorner><gml:upperCorner>35.6001 139.7001 9</gml:upperCorner>
</gml:Envelope></gml:boundedBy>
<core:cityObjectMember><bldg:Building gml:id="house">
<bldg:measuredHeight uom="m">6</bldg:measuredHeight>
<bldg:lod0RoofEdge><gml:MultiSurface>{surfaces(0)}</gml:MultiSurface></bldg:lod0RoofEdge>
<bldg:lod1Solid><gml:Solid><gml:exterior><gml:CompositeSurface>{surfaces(3, 9)}
</gml:CompositeSurface></gml:exterior></gml:Solid></bldg:lod1Solid>
<bldg:boundedBy><bldg:RoofSurface><bldg:lod2MultiSurface><gml:MultiSurface>{surfaces(9)}
</gml:MultiSurface></bldg:lod2MultiSurface></bldg:RoofSurface></bldg:boundedBy>
</bldg:Building></core:cityObjectMember></core:CityModel>"""
    with zipfile.ZipFile("town.zip", "w") as archive:
        archive.writestr("udx/bldg/53393599_bldg_6697_op.gml", text)
        archive.writestr("codelists/none.xml", '<gml:Dictionary '
                         'xmlns:gml="http://www.opengis.net/gml" gml:id="none"></gml:Dictionary>')
    config = Config()
    config.datasets["town"] = {"citygml": "town.zip"}
    config.save()


def cityjson(**options):
    """Return LODs, first corner and CRS of the house as CityJSON."""
    to_cityjson(SimpleNamespace(dataset_id="town"), "town.city.json", **options)
    town = json.loads(Path("town.city.json").read_text())
    lods = [geometry["lod"] for geometry in town["CityObjects"]["house"]["geometry"]]
    crs = town["metadata"]["referenceSystem"].split("/")[-1]
    return lods, [round(value, 1) for value in town["vertices"][0][:2]], crs


def geojson():
    """Return the first corner of the house as GeoJSON."""
    to_geojson(SimpleNamespace(dataset_id="town"), "town.geojson")
    geometry = json.loads(Path("town.geojson").read_text())["features"][0]["geometry"]
    return [round(value, 1) for value in geometry["coordinates"][0][0][:2]]


if not Path("town.zip").exists():
    write_town()
for call in sys.argv[1:]:
    print("=", call, eval(call))
PYTHON
run() {
  echo "one session:" | tee -a seen
  venv/bin/python -W ignore town.py "$@" 2>&1 | grep -o '= .*' | tee -a seen
}
run 'geojson()'
run 'cityjson(lod_mode="all")'
run 'cityjson(target_epsg=6677)' 'geojson()' 'cityjson(lod_mode="all")'
cat > expected <<'TEXT'
one session:
= geojson() [139.7, 35.6]
one session:
= cityjson(lod_mode="all") (['0', '1', '2'], [35.6, 139.7], '4326')
one session:
= cityjson(target_epsg=6677) (['2'], [-44369.5, -12081.0], '6677')
= geojson() [-12081.0, -44369.5]
= cityjson(lod_mode="all") (['2'], [-44369.5, -12081.0], '6677')
TEXT
diff expected seen
