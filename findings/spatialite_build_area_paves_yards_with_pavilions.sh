#!/usr/bin/env bash
# SpatiaLite's BuildArea paves a courtyard if a pavilion stands in it, and removes the pavilion.
#
# Guess before the run: of the walls of a block of 10 x 10 m with a yard of 6 x 6 m BuildArea makes
# 64 m2, and with a pavilion of 2 x 2 m in the yard 68 m2, as ST_BuildArea of PostGIS does.
# Seen: 64 m2 for the block and its yard, also beside other houses; with the pavilion 96 m2: the
# yard is a building, and the pavilion is the hole in it. The multipolygon is not valid, as the two
# share all of the yard's wall. A second way round, by LinesFromRings of the right multipolygon,
# ends at the same 96: a town that goes through its walls comes back with other houses. No error.
# Versions: SpatiaLite 5.0.1 (Debian 12, spatialite-bin 5.0.1-2 and libspatialite7 5.0.1-3).
# By its results (its source was not at hand), all faces between walls are kept but those that fill
# a hole exactly; a yard with a hole of its own is not one of these.
# Hurt: who builds footprints from walls (drawings, outlines of masks, line layers) in SQLite.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" LC_ALL=C
mkdir -p packages/partial root
apt-get -qq -o Debug::NoLocking=true -o APT::Sandbox::User=root \
  -o Dir::Cache::archives="$folder/packages" install --reinstall --download-only --yes \
  --no-install-recommends spatialite-bin=5.0.1-2 libspatialite7=5.0.1-3 > apt.log
for package in packages/*.deb; do dpkg-deb --extract "$package" root; done
cat > build.py <<'PYTHON'
import os
import subprocess
from pathlib import Path

LIBRARIES = Path("root/usr/lib").resolve() / f"{os.uname().machine}-linux-gnu"


def square(west, south, side):
    """Return the closed wall of a square, in metres."""
    corners = [(0, 0), (side, 0), (side, side), (0, side), (0, 0)]
    return "(" + ",".join(f"{west + x} {south + y}" for x, y in corners) + ")"


def ask(query):
    """Return the values of the one row that SpatiaLite answers, as text."""
    settings = os.environ | {"LD_LIBRARY_PATH": str(LIBRARIES)}
    done = subprocess.run(
        ["root/usr/bin/spatialite", "-silent", ":memory:", query], env=settings,
        capture_output=True, text=True, check=True,
    )
    return done.stdout.strip().split("|")


def areas(walls):
    """Return the area of what BuildArea makes, whether it is valid, and two points of it."""
    row = ask(
        "SELECT ST_Area(g), ST_IsValid(g), ST_Intersects(g, MakePoint(3, 3, 32633)),"
        f" ST_Intersects(g, MakePoint(5, 5, 32633)) FROM (SELECT ST_BuildArea({walls}) AS g)"
    )
    return float(row[0]), *(bool(int(value)) for value in row[1:])


BLOCK, YARD, PAVILION = square(0, 0, 10), square(2, 2, 6), square(4, 4, 2)
ELSEWHERE = square(20, 0, 5)
assert ask("SELECT spatialite_version()") == ["5.0.1"]
for name, rings, right, expected in (
    ("a block with a yard", [BLOCK, YARD], 64, (64, True, False, False)),
    ("with a house elsewhere", [BLOCK, YARD, ELSEWHERE], 89, (89, True, False, False)),
    ("with a pavilion in the yard", [BLOCK, YARD, PAVILION], 68, (96, False, True, False)),
    ("with the pavilion and the house", [BLOCK, YARD, PAVILION, ELSEWHERE], 93,
     (121, False, True, False)),
):
    seen = areas(f"GeomFromText('MULTILINESTRING({','.join(rings)})', 32633)")
    print(f"{name}: {right} m2, BuildArea {seen[0]} m2, valid {seen[1]},",
          f"the yard is built {seen[2]}, the pavilion is built {seen[3]}")
    assert seen == expected
town = f"GeomFromText('MULTIPOLYGON(({BLOCK},{YARD}),({PAVILION}))', 32633)"
assert ask(f"SELECT ST_Area({town}), ST_IsValid({town})") == ["68.0", "1"]
assert areas(f"ST_LinesFromRings({town})") == (96, False, True, False)
PYTHON
python3 build.py
