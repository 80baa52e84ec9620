#!/usr/bin/env bash
# spherely says that houses with a common wall touch, and are disjoint, and do not intersect.
#
# Guess before the run: predicates mean what they do in shapely, on the sphere: what touches
# intersects, and disjoint is the contrary of it. Its documentation says that touches is "True if A
# and B intersect, but their interiors do not", and disjoint that "boundaries and interior" do not
# intersect at all.
# Seen: of two houses that share a wall from corner to corner, and of two that share a corner,
# touches is True, disjoint is True and intersects False, at a distance of 0. Of a house and a shed
# in the middle of its wall, in contrast, intersects is True and touches False. So of a row of five
# houses none intersects the next. Areas, unions and distances are right. There is no message.
# Versions: spherely 0.1.1, shapely 2.2.0, numpy 2.4.6. Source: the predicates of spherely are those
# of S2, whose polygons have half of their boundary unless another model is chosen; touches asks
# with two models.
# Hurt: who finds neighbours, rows or doubles of footprints in longitude and latitude with it:
# houses wall to wall stand alone, and sheds are taken to overlap.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check spherely==0.1.1 shapely==2.2.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import shapely
import spherely

NAMES = ("touches", "intersects", "disjoint")


def house(west, south, width, depth):
    """Return the corners of a house; a unit is about a metre."""
    return [(13 + x * 1e-5, 52 + y * 1e-5)
            for x, y in ((west, south), (west + width, south), (west + width, south + depth),
                          (west, south + depth))]


def predicates(one, other):
    """Return touches, intersects and disjoint by spherely and by shapely."""
    sphere = [spherely.create_polygon(shell=corners) for corners in (one, other)]
    plane = [shapely.Polygon(corners) for corners in (one, other)]
    assert spherely.distance(*sphere) < 1e-6
    return ([bool(getattr(spherely, name)(*sphere)) for name in NAMES],
            [bool(getattr(shapely, name)(*plane)) for name in NAMES])


first = house(0, 0, 20, 20)
seen = {}
for name, other in {"wall": house(20, 0, 20, 20), "corner": house(20, 20, 10, 10),
                    "shed": house(20, 5, 10, 5)}.items():
    seen[name] = predicates(first, other)
    print(f"{name:6} {NAMES} by spherely: {seen[name][0]}, by shapely: {seen[name][1]}")
    assert seen[name][1] == [True, True, False]
assert seen["wall"][0] == seen["corner"][0] == [True, False, True]
assert seen["shed"][0] == [False, True, False]
row = [spherely.create_polygon(shell=house(6 * place, 0, 6, 10)) for place in range(5)]
joined = sum(bool(spherely.intersects(one, next_one)) for one, next_one in zip(row, row[1:]))
print("houses of a row of five that intersect the next:", joined)
assert joined == 0
PYTHON
