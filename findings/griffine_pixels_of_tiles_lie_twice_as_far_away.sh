#!/usr/bin/env bash
# griffine puts each pixel of a tile twice as far from the corner of the scene as its tile is.
#
# Guess before the run: the pixel (2, 5) of tile (3, 4) of a grid cut into tiles of 10 x 10 pixels
# is pixel (32, 45) of the grid, and has its place: 45 m east and 32 m south of the corner of the
# scene.
# Seen: row and column are 32 and 45, and its corner lies 85 m east and 62 m south. In the first
# tile pixels are right; in tile (9, 9) they lie outside the scene. The point in the middle of the
# tile gives, by point_to_cell, a pixel whose middle is 40 m east and 30 m south of that point.
# The tiles themselves and the grid are right. There is no message.
# Versions: griffine 0.2.0, affine 2.4.0. Source: griffine/grid.py, AffineGridTile._get_cell makes
# row and column those of the grid, and TiledAffineGridCell moves by them from the corner of the
# tile.
# Hurt: who finds pixels of chips by coordinates, or writes places of pixels of chips to a file:
# all but those of the first tile stand elsewhere in the town, by the offset of their tile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check griffine==0.2.0 affine==2.4.0 \
  pyproj==3.7.2
venv/bin/python - <<'PYTHON'
from affine import Affine
from griffine import Grid

WEST, NORTH = 500_000, 5_000_100
scene = Grid(100, 100).add_transform(Affine(1, 0, WEST, 0, -1, NORTH), 32633)
tiles = scene.tile_via(Grid(10, 10))


def offsets(thing):
    """Return metres to the east and to the south of the corner of the scene."""
    return thing.origin.x - WEST, NORTH - thing.origin.y


tile = tiles[3, 4]
pixel = tile[2, 5]
print("tile (3, 4) east and south:", offsets(tile))
print("its pixel (2, 5), in the scene", (pixel.row, pixel.col), "east and south:", offsets(pixel))
print("the same pixel of the scene:", offsets(scene[32, 45]))
assert offsets(tile) == (40, 30) and (pixel.row, pixel.col) == (32, 45)
assert offsets(scene[32, 45]) == (45, 32) and offsets(pixel) == (85, 62)
assert offsets(tiles[0, 0][2, 5]) == (5, 2)
assert offsets(tiles[9, 9][5, 5]) == (185, 185)

middle = tile.centroid
for name, cells in {"grid": scene, "tiles": tiles}.items():
    place = cells.point_to_cell(middle).centroid
    print(f"pixel of the {name} at the middle of the tile: {place.x - middle.x:g} m east and",
          f"{middle.y - place.y:g} m south of it")
assert (place.x - middle.x, middle.y - place.y) == (40.5, 30.5)
PYTHON
