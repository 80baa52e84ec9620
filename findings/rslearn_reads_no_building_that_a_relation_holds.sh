#!/usr/bin/env bash
# rslearn reads no building of OpenStreetMap that a relation holds, though it offers relations.
#
# Guess before the run: a layer of OpenStreetMap with a filter for building, feature_types WAY and
# RELATION and to_geometry Polygon has the houses that are ways and the blocks that are relations,
# with their courtyards: match_relation joins rings and takes out holes.
# Seen: of a house that is a way and a block with a courtyard that is a relation the house is read.
# With feature_types RELATION alone nothing is. osmium's own areas are both, the block with its
# hole. There is no message.
# Versions: rslearn 0.1.19, osmium 4.2.0, shapely 2.1.2. Source:
# rslearn/data_sources/openstreetmap.py, OsmHandler: osmium calls node, way and relation of a
# handler; the third is named match_relation here, and nothing calls it.
# Hurt: who makes labels of buildings, water or fields from OpenStreetMap by it: what has holes or
# more than one outline, the largest of them, is taught as background.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 rasterio==1.4.4 shapely==2.1.2 pyproj==3.7.2 pillow==11.3.0 einops==0.8.1 \
  fsspec==2025.10.0 universal-pathlib==0.3.4 pydantic==2.12.4 "jsonargparse[signatures]==4.50.0" \
  pytimeparse==1.1.8 python-dateutil==2.9.0.post0 tqdm==4.67.1 osmium==4.2.0
$pip --no-deps rslearn==0.1.19
cat > town.osm <<'XML'
<osm version="0.6">
<node id="1" version="1" lon="0" lat="0"/><node id="2" version="1" lon="0.0006" lat="0"/>
<node id="3" version="1" lon="0.0006" lat="0.0006"/><node id="4" version="1" lon="0" lat="0.0006"/>
<node id="5" version="1" lon="0.0002" lat="0.0002"/>
<node id="6" version="1" lon="0.0004" lat="0.0002"/>
<node id="7" version="1" lon="0.0004" lat="0.0004"/>
<node id="8" version="1" lon="0.0002" lat="0.0004"/>
<node id="9" version="1" lon="0.001" lat="0"/><node id="10" version="1" lon="0.0011" lat="0"/>
<node id="11" version="1" lon="0.0011" lat="0.0001"/>
<way id="20" version="1"><nd ref="1"/><nd ref="2"/><nd ref="3"/><nd ref="4"/><nd ref="1"/></way>
<way id="21" version="1"><nd ref="5"/><nd ref="6"/><nd ref="7"/><nd ref="8"/><nd ref="5"/></way>
<way id="22" version="1"><nd ref="9"/><nd ref="10"/><nd ref="11"/><nd ref="9"/>
<tag k="building" v="house"/></way>
<relation id="30" version="1"><member type="way" ref="20" role="outer"/>
<member type="way" ref="21" role="inner"/><tag k="type" v="multipolygon"/>
<tag k="building" v="block"/></relation>
</osm>
XML
cat > read.py <<'PYTHON'
import osmium
import shapely
from rslearn.const import WGS84_PROJECTION
from rslearn.data_sources.openstreetmap import FeatureType, Filter, OsmHandler
from rslearn.utils import STGeometry

town = STGeometry(WGS84_PROJECTION, shapely.box(-0.01, -0.01, 0.01, 0.01), None)
seen = []
for kinds in ([FeatureType.WAY, FeatureType.RELATION], [FeatureType.RELATION], None):
    buildings = Filter(feature_types=kinds, tag_conditions={"building": []},
                       tag_properties={"building": "kind"}, to_geometry="Polygon")
    handler = OsmHandler({"building": buildings}, [town])
    handler.apply_file("town.osm")
    seen.append([feature.properties["kind"] for feature in handler.features])
    print(kinds and [kind.value for kind in kinds], seen[-1])
assert seen == [["house"], [], ["house"]]


class Areas(osmium.SimpleHandler):
    def __init__(self):
        super().__init__()
        self.kinds = {}

    def area(self, area):
        self.kinds[area.tags["building"]] = area.num_rings()


areas = Areas()
areas.apply_file("town.osm", locations=True)
print("areas of osmium, with outer and inner rings:", areas.kinds)
assert areas.kinds == {"house": (1, 0), "block": (1, 1)}
PYTHON
venv/bin/python -W ignore read.py
