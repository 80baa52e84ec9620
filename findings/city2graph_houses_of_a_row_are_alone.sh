#!/usr/bin/env bash
# city2graph finds no neighbours among the houses of a row whose walls are not of one length.
#
# Guess before the run: contiguity_graph joins polygons that share "any boundary (edges or vertices)"
# with "queen" and those that share an edge with "rook": of five houses in a row, wall to wall, each
# but the last has the next one as its neighbour.
# Seen: where the houses are 10, 8, 12, 9 and 11 m deep there is no edge at all, by queen and by rook.
# With the same depth there are four. A wall counts only if both outlines have its corners in common;
# shapely's touches finds the four in both rows. There is no message.
# Versions: city2graph 0.4.0, libpysal 4.14.1, geopandas 1.2.0, shapely 2.2.0. Source: city2graph/
# proximity.py, contiguity_graph, and libpysal's Queen and Rook, which look up vertices and edges; its
# documentation speaks of boundaries that are shared.
# Hurt: who makes graphs of buildings for learning or for urban form from traced or surveyed
# footprints: terraces are as many houses that stand alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check city2graph==0.4.0 libpysal==4.14.1 \
  geopandas==1.2.0 shapely==2.2.0
venv/bin/python -W ignore - <<'PYTHON'
import city2graph
import geopandas
import shapely

west, south = 500_000, 5_500_000
seen = {}
for name, depths in {"uneven": (10, 8, 12, 9, 11), "even": (10, 10, 10, 10, 10)}.items():
    row = [shapely.box(west + 6 * place, south - depth / 2, west + 6 * place + 6, south + depth / 2)
           for place, depth in enumerate(depths)]
    houses = geopandas.GeoDataFrame(geometry=row, crs=32633)
    touching = sum(one.touches(other) for one, other in zip(row, row[1:]))
    seen[name] = [len(city2graph.contiguity_graph(houses, contiguity=kind)[1])
                  for kind in ("queen", "rook")]
    print(name, "depth, edges by queen and rook:", seen[name], "walls in common:", touching)
    assert touching == 4
assert seen == {"uneven": [0, 0], "even": [4, 4]}
PYTHON
