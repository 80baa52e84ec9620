#!/usr/bin/env bash
# pandana hooks houses to streets 50 km away, and in the north to a node up to twice as far as need.
#
# Guess before the run: get_node_ids of a network in longitude and latitude, as its loader for
# OpenStreetMap makes it, gives each house the nearest node, and none beyond mapping_distance,
# "usually a distance unit in meters"; edges are in metres.
# Seen: near 60 degrees north a house with a node 60 m to the east goes to one 110 m to the north;
# with mapping_distance=150 a house 50 km from all nodes keeps its node, and with 0.0007 the one
# 110 m away is dropped. In UTM the nearest node is right. Of 2,000 houses among 400 nodes, spread by
# chance over 2 x 2 km, 25 % have another node in degrees than in UTM. There is no message.
# Versions: pandana 0.8 (the latest), numpy 2.2.6, pandas 2.3.3, scikit-learn 1.7.2. Source:
# pandana/network.py, get_node_ids: a KDTree of the x and y as they are, and its distances, in
# degrees, are compared with mapping_distance.
# Hurt: who sums people or floor area of buildings along streets: buildings outside the network are
# added to its edge, where the town seems densest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pandana==0.8 numpy==2.2.6 \
  pandas==2.3.3 scikit-learn==1.7.2 scipy==1.15.3 tables==3.10.2 requests==2.32.5 \
  pyproj==3.7.2 2> pip.log
cat > streets.py <<'PYTHON'
import numpy as np
import pandana
import pandas as pd
from pyproj import Transformer

ORIGIN = np.array([385_000, 6_672_000])
to_degrees = Transformer.from_crs(32635, 4326, always_xy=True)


def hook(nodes, houses, degrees, limit=None):
    """Return the node of each house, both in metres from a place near Helsinki."""
    places = [np.asarray(one, dtype=float) + ORIGIN for one in (nodes, houses)]
    if degrees:
        places = [np.stack(to_degrees.transform(*one.T), axis=1) for one in places]
    ends = pd.Series(range(len(nodes) - 1))
    lengths = np.linalg.norm(np.diff(np.asarray(nodes, dtype=float), axis=0), axis=1)
    network = pandana.Network(
        pd.Series(places[0][:, 0]), pd.Series(places[0][:, 1]), ends, ends + 1,
        pd.DataFrame({"metres": lengths}),
    )
    found = network.get_node_ids(
        pd.Series(places[1][:, 0]), pd.Series(places[1][:, 1]), mapping_distance=limit)
    return {house: int(node) for house, node in found.items()}


nodes = [(60, 0), (0, 110), (1000, 0)]
near = hook(nodes, [(0, 0), (51_000, 0)], False, 150)
assert near == {0: 0}
seen = hook(nodes, [(0, 0), (51_000, 0)], True, 150)
print("in UTM", near, "in degrees", seen, "with 0.0007", hook(nodes, [(0, 0)], True, 0.0007))
assert seen == {0: 1, 1: 2}
assert hook(nodes, [(0, 0)], True, 0.0007) == {}
dice = np.random.default_rng(1)
grid, houses = dice.uniform(0, 2000, (400, 2)), dice.uniform(0, 2000, (2000, 2))
utm, degrees = (hook(grid, houses, way) for way in (False, True))
other = np.mean([utm[house] != degrees[house] for house in utm])
print(f"{other:.1%} of the houses have another node in degrees")
assert 0.2 < other < 0.3
PYTHON
venv/bin/python -W ignore streets.py > log 2>&1 || { cat log; exit 1; }
grep -o "in UTM.*\|[0-9.]*% of the houses.*" log
