#!/usr/bin/env bash
# cjdb's ground geometry of a block with a courtyard is the courtyard, and wings replace each other.
#
# Guess before the run: the column ground_geometry of an imported CityJSON holds the footprint of
# each building: the ground surfaces of its lowest LoD, merged, without courtyards.
# Seen: a block of 40 x 40 m with a courtyard of 20 x 20 m has 1,200 m2 of ground. As an LoD 1.2
# solid it has 400: the courtyard, and nothing else. As LoD 0 it has 1,600. Of a
# building with two wings of 100 m2 on the same ground, one is left; with half a metre between
# their heights both are. Rings of holes are taken as surfaces, and surfaces are kept by their mean
# height, so that the last of a height replaces the others. There is no message.
# Versions: cjdb 2.3.0, cjio 0.9.0, shapely 2.1.2, numpy 1.26.4. Source: cjdb/modules/geometric.py,
# get_flattened_polygons_from_boundaries (each ring a Polygon), get_ground_surfaces
# (ground_surfaces[z] = ...).
# Hurt: who loads a city model into PostgreSQL and sums or joins buildings by that column, which is
# the one with a spatial index: areas, plots and neighbours are those of other shapes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 shapely==2.1.2 pyproj==3.7.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps cjdb==2.3.0 cjio==0.9.0
venv/bin/python -W ignore - <<'PYTHON'
from cjdb.modules.geometric import get_ground_geometry, resolve_geometry_vertices
from shapely import Polygon

vertices = []


def ring(corners, height):
    """Return the numbers of new vertices at these corners."""
    start = len(vertices)
    vertices.extend([float(x), float(y), float(height)] for x, y in corners)
    return list(range(start, len(vertices)))


def prism(outline, low, high, *yards):
    """Return the surfaces of a block of LoD 1: ground, roof and walls."""
    grounds, roofs = ([ring(corners, z) for corners in (outline, *yards)] for z in (low, high))
    walls = [
        [[ground[number - 1], ground[number], roof[number], roof[number - 1]]]
        for ground, roof in zip(grounds, roofs)
        for number in range(len(ground))
    ]
    return [[corners[::-1] for corners in grounds], roofs, *walls]


def ground(lod, surfaces):
    """Return the area of the footprint that an import of this building stores."""
    geometry = {"type": "Solid", "lod": lod, "boundaries": [surfaces]}
    if lod == "0":
        geometry = {"type": "MultiSurface", "lod": lod, "boundaries": surfaces[:1]}
    resolved = resolve_geometry_vertices([geometry], vertices, None, None)
    return get_ground_geometry(resolved, "building")


block = [(0, 0), (40, 0), (40, 40), (0, 40)]
yard = [(10, 10), (10, 30), (30, 30), (30, 10)]
west = [(0, 0), (10, 0), (10, 10), (0, 10)]
east = [(20, 0), (30, 0), (30, 10), (20, 10)]
found = {
    "block without a courtyard": ground("1.2", prism(block, 0, 9)),
    "block with one, LoD 1.2": ground("1.2", prism(block, 0, 9, yard)),
    "block with one, LoD 0": ground("0", prism(block, 0, 9, yard)),
    "two wings on one height": ground("1.2", prism(west, 0, 9) + prism(east, 0, 9)),
    "two wings on two heights": ground("1.2", prism(west, 0, 9) + prism(east, 0.5, 9)),
}
right = dict(zip(found, (1600, 1200, 1200, 200, 200)))
for name, shape in found.items():
    print(f"{name}: {shape.area:.0f} m2, right {right[name]}")
assert [round(shape.area) for shape in found.values()] == [1600, 400, 1600, 100, 200]
assert found["block with one, LoD 1.2"].equals(Polygon(yard))
PYTHON
