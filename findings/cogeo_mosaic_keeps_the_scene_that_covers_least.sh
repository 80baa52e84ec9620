#!/usr/bin/env bash
# cogeo-mosaic keeps the scene that covers a tile least where it filters and sorts by coverage.
#
# Guess before the run: minimum_tile_cover drops scenes that cover too little of a tile, and
# tile_cover_sort orders the others so that the one that covers most comes first, whether one asks
# for one of both or for both.
# Seen: a sliver covers 5 % of a tile, a second scene all of it and a third half. Each option alone
# does as guessed. Both together put the half before the whole, and with maximum_items_per_tile=1
# the tile keeps the half only: no houses in the rest. After filtering, the coverages of all scenes
# are paired with the numbers of those left, so that each gets the coverage of another. In a grid
# other than Web Mercator minimum_tile_cover drops each scene, and the mosaic is empty: the tile
# is looked up in Web Mercator. There is no message.
# Versions: cogeo-mosaic 9.2.0, morecantile 7.1.0, shapely 2.2.0. Source: cogeo_mosaic/mosaic.py,
# default_filter: zip(int_pcts, indices) after indices were filtered; WEB_MERCATOR_TMS.feature.
# Hurt: who builds a mosaic of overlapping scenes to map a town from: cogeo-mosaic create with
# --min-tile-cover and --tile-cover-sort, or for national grids.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cogeo-mosaic==9.2.0 morecantile==7.1.0 \
  supermorecado==0.2.0 rio-tiler==9.4.12 shapely==2.2.0 numpy==2.4.6 rasterio==1.4.4 \
  pydantic==2.14.4 pyproj==3.7.2
venv/bin/python -W ignore - <<'PYTHON'
import morecantile
from cogeo_mosaic.mosaic import MosaicJSON


def kept(grid, zoom, parts, **options):
    """Return the scenes that a mosaic keeps for the tile in Ghent of which they cover parts."""
    tms = morecantile.tms.get(grid)
    tile = tms.tile(3.72, 51.05, zoom)
    west, south, east, north = tms.bounds(tile)
    scenes = []
    for name, (start, end) in parts.items():
        left, right = (west + (east - west) * part for part in (start, end))
        ring = [[left, south], [right, south], [right, north], [left, north], [left, south]]
        scenes.append({"type": "Feature", "properties": {"path": name},
                       "geometry": {"type": "Polygon", "coordinates": [ring]}})
    mosaic = MosaicJSON.from_features(scenes, zoom, zoom + 2, tilematrixset=tms, **options)
    return mosaic.tiles.get(tms.quadkey(tile), [])


scenes = {"sliver": (0, 0.05), "whole": (0, 1), "half": (0.5, 1)}
seen = {}
for name, options in {
    "neither": {},
    "sorted": {"tile_cover_sort": True},
    "filtered": {"minimum_tile_cover": 0.1},
    "both": {"minimum_tile_cover": 0.1, "tile_cover_sort": True},
    "the first of both": {
        "minimum_tile_cover": 0.1, "tile_cover_sort": True, "maximum_items_per_tile": 1
    },
}.items():
    seen[name] = kept("WebMercatorQuad", 14, scenes, **options)
    print(f"{name}: {seen[name]}")
assert seen == {
    "neither": ["sliver", "whole", "half"],
    "sorted": ["whole", "half", "sliver"],
    "filtered": ["whole", "half"],
    "both": ["half", "whole"],
    "the first of both": ["half"],
}
grid = "EuropeanETRS89_LAEAQuad"
print(grid, kept(grid, 10, scenes), "filtered:", kept(grid, 10, scenes, minimum_tile_cover=0.1))
assert kept(grid, 10, scenes) and not kept(grid, 10, scenes, minimum_tile_cover=0.1)
PYTHON
