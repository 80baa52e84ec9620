#!/usr/bin/env bash
# GDAL's OpenStreetMap driver reads closed building parts and tanks as lines, not as polygons.
#
# Guess before the run: a closed way is a polygon where its tags mean an area: building, building:part
# (Simple 3D Buildings), man_made=storage_tank.
# Seen: building=yes is a polygon. The same way with building:part=yes, or with
# man_made=storage_tank, is in the layer "lines", where nobody looks for houses; a relation around
# such a way brings it back as a polygon. building=no is a polygon like any house.
# Versions: pyogrio 0.12.1 with the GDAL 3.11.4 of its wheel. Source: closed_ways_are_polygons in
# osmconf.ini, a list of keys in which neither stands.
# Hurt: who takes heights or roof shapes from OpenStreetMap: in towns mapped in 3D these stand on the
# parts. GDAL users can list the keys in an osmconf.ini of their own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 geopandas==1.1.1
venv/bin/python - <<'PYTHON'
import pyogrio

print("GDAL", pyogrio.__gdal_version__)
CORNERS = ((50.0, 10.0), (50.0, 10.001), (50.001, 10.001), (50.001, 10.0))


def layers(tags, relation=None):
    def written(pairs):
        return "".join(f'<tag k="{key}" v="{value}"/>' for key, value in pairs.items())

    nodes = "".join(
        f'<node id="{number}" version="1" lat="{lat}" lon="{lon}"/>'
        for number, (lat, lon) in enumerate(CORNERS, start=1)
    )
    refs = "".join(f'<nd ref="{number}"/>' for number in (1, 2, 3, 4, 1))
    way = f'<way id="10" version="1">{refs}{written(tags)}</way>'
    around = ""
    if relation:
        around = ('<relation id="20" version="1"><member type="way" ref="10" role="outer"/>'
                  f'{written({"type": "multipolygon"} | relation)}</relation>')
    with open("town.osm", "w") as file:
        file.write(f'<osm version="0.6">{nodes}{way}{around}</osm>')
    counts = {
        layer: len(pyogrio.read_dataframe("town.osm", layer=layer))
        for layer in ("lines", "multipolygons")
    }
    print(tags, relation, counts)
    return counts["lines"], counts["multipolygons"]


assert layers({"building": "yes"}) == (0, 1)
assert layers({"building:part": "yes", "height": "12"}) == (1, 0)
assert layers({"man_made": "storage_tank"}) == (1, 0)
assert layers({}, {"building:part": "yes"}) == (0, 1)
assert layers({"building": "no"}) == (0, 1)
PYTHON
