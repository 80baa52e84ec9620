#!/usr/bin/env bash
# morecantile lists tiles beside a box and misses tiles within it, where the grid is not Mercator.
#
# Guess before the run: TileMatrixSet.tiles(west, south, east, north), "the tiles overlapped by a
# geographic bounding box", holds the tile of each point of the box, in each of its tile matrix
# sets.
# Seen: of the tiles of 25,000 points between 5 W and 25 E, 50 and 60 N, EuropeanETRS89_LAEAQuad
# lacks 58 at zoom 6, an eighth, and CanadianNAD83_LCC 11 of 44 for southern Canada. It projects two
# corners of the box and takes all tiles between them; meridians and parallels of these systems are
# curved or not upright. WebMercatorQuad and WorldCRS84Quad lack none. There is no warning.
# Versions: morecantile 7.1.0, pyproj 3.7.2. Source: morecantile/models.py, TileMatrixSet.tiles.
# Hurt: who fetches or predicts a country by the tiles of its official grid: strips of the country
# have no buildings, and others were paid for in vain. Boxes that are projected with densify_pts
# before are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check morecantile==7.1.0 pyproj==3.7.2 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import morecantile
import numpy as np

NORTH_SEA, CANADA = (-5, 50, 25, 60), (-120, 50, -70, 65)


def missing(name, box, zoom):
    grid = morecantile.tms.get(name)
    west, south, east, north = box
    listed = {(tile.x, tile.y) for tile in grid.tiles(*box, zooms=[zoom])}
    needed = {
        grid.tile(lon, lat, zoom)[:2]
        for lon in np.linspace(west, east, 160) for lat in np.linspace(south, north, 160)
    }
    print(name, box, "listed:", len(listed), "needed:", len(needed), "missing:", len(needed - listed))
    return len(needed - listed) / len(needed)


assert missing("WebMercatorQuad", NORTH_SEA, 8) == missing("WorldCRS84Quad", NORTH_SEA, 8) == 0
assert missing("EuropeanETRS89_LAEAQuad", NORTH_SEA, 6) > 0.1
assert missing("CanadianNAD83_LCC", CANADA, 6) > 0.2
PYTHON
