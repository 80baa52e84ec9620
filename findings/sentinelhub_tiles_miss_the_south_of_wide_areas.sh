#!/usr/bin/env bash
# sentinelhub's UtmZoneSplitter leaves the southern edge of a wide area without tiles.
#
# Guess before the run: the boxes of UtmZoneSplitter and UtmGridSplitter cover the area that they
# split; for a box in longitude and latitude within one zone that is each point of the box.
# Seen: of a box of 1 x 0.1 degrees at 50 degrees north all is covered, of one of 3 x 0.1 degrees
# 2.5 percent are in no tile of 1 km, and of one of 5 x 0.1 degrees 14 percent, a strip of up to
# 2 km along the south. The corners of the area alone go to UTM, where the parallel between them
# bends to the south of the straight line; on the north edge there are tiles too many in its place.
# Zones get a point per degree for this reason, areas get none. There is no message.
# Versions: sentinelhub 3.12.0, shapely 2.1.2, pyproj 3.7.2, numpy 2.2.6. Source:
# sentinelhub/areas.py, BaseUtmSplitter._make_split: Geometry(intersection, CRS.WGS84).transform.
# Hurt: who cuts a province or a country given as a box into tiles to map its buildings: whole rows
# of towns along the edge are never asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sentinelhub==3.12.0 shapely==2.1.2 \
  pyproj==3.7.2 numpy==2.2.6
HOME=$folder venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import shapely
from pyproj import Transformer
from sentinelhub import CRS, UtmGridSplitter, UtmZoneSplitter

SOUTH, NORTH = 50, 50.1
to_utm = Transformer.from_crs(4326, 32633, always_xy=True)
seen = {}
for west, east in ((12.2, 13.2), (12.2, 15.2), (12.2, 17.2)):
    longitudes, latitudes = np.meshgrid(np.linspace(west, east, 301)[1:-1],
                                        np.linspace(SOUTH, NORTH, 101)[1:-1])
    for kind in (UtmZoneSplitter, UtmGridSplitter):
        tiles = kind([shapely.box(west, SOUTH, east, NORTH)], CRS.WGS84, bbox_size=1000)
        boxes = tiles.get_bbox_list()
        assert {tile.crs for tile in boxes} == {CRS.UTM_33N}
        covered = shapely.union_all([tile.geometry for tile in boxes])
        shapely.prepare(covered)
        inside = shapely.contains_xy(covered, *to_utm.transform(longitudes, latitudes))
        missed = latitudes[~inside]
        seen[round(east - west), kind.__name__] = round(100 * float(1 - inside.mean()), 1)
        print(kind.__name__, round(east - west), "degrees wide:", len(boxes), "tiles,",
              seen[round(east - west), kind.__name__], "percent in none, up to latitude",
              round(float(missed.max()), 3) if missed.size else None)
        assert not missed.size or missed.max() < SOUTH + 0.025
names = ("UtmZoneSplitter", "UtmGridSplitter")
assert seen == {(width, name): missed for width, missed in ((1, 0), (3, 2.5), (5, 14.1))
                for name in names}
PYTHON
