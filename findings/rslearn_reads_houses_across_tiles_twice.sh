#!/usr/bin/env bash
# rslearn reads a house that lies in two tiles of its vector format twice, in four tiles four times.
#
# Guess before the run: TileVectorFormat gives back the houses that it wrote, once each, as it
# stores a number in each "so when reading we can de-duplicate", and of a window those that
# intersect it, as its docstring says.
# Seen: of three houses, one within a tile of 512 pixels, one on the edge of two and one on the
# corner of four, it reads seven. Of a window of 100 x 100 pixels in which there is no house it
# reads three. GeojsonVectorFormat, the other format, gives three and none. There is no message.
# Versions: rslearn 0.1.19, shapely 2.1.2, rasterio 1.4.4. Source: rslearn/utils/vector_format.py,
# TileVectorFormat.decode_vector appends all features of each tile that the bounds touch, and does
# not look at tvf_index or at the bounds.
# Hurt: who counts buildings from such layers or teaches detectors with them: houses on edges have
# two boxes, of which one is missed by whatever is predicted, and their areas count twice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 rasterio==1.4.4 shapely==2.1.2 fsspec==2025.10.0 universal-pathlib==0.3.4 \
  pyproj==3.7.2
$pip --no-deps rslearn==0.1.19
venv/bin/python -W ignore - <<'PYTHON'
import shapely
from rasterio.crs import CRS
from rslearn.utils import Feature, Projection, STGeometry
from rslearn.utils.vector_format import GeojsonVectorFormat, TileVectorFormat
from upath import UPath

projection = Projection(CRS.from_epsg(25833), 0.5, -0.5)
houses = [
    Feature(STGeometry(projection, shapely.box(x, y, x + 20, y + 20), None), {"name": name})
    for name, x, y in [("within", 200, 200), ("edge", 502, 300), ("corner", 502, 502)]
]
seen = {}
for kind in (TileVectorFormat, GeojsonVectorFormat):
    layer, path = kind(), UPath(kind.__name__)
    path.mkdir()
    layer.encode_vector(path, houses)
    town = layer.decode_vector(path, projection, (0, 0, 1024, 1024))
    empty = layer.decode_vector(path, projection, (0, 0, 100, 100))
    names = sorted(feature.properties["name"] for feature in town)
    seen[kind.__name__] = len(town), len(empty)
    print(kind.__name__, names, "and", len(empty), "in a window without houses")
    area = sum(feature.geometry.shp.area for feature in town) / 4
    print("  area in square metres", area, "of", 3 * 20 * 20 / 4)
assert seen == {"TileVectorFormat": (7, 3), "GeojsonVectorFormat": (3, 0)}
PYTHON
