#!/usr/bin/env bash
# GMT's spatial -Q gives courtyards as built areas of their own, though the file says holes.
#
# Guess before the run: spatial -Q measures a block of 400 m2 with a courtyard of 100 m2 as 300 m2,
# since select and grdmask of the same GMT leave the courtyard of the same file out.
# Seen: the block is 400 m2, and its courtyard is one more row of 100 m2 without a sign, like the
# house beside it: the sum of a town of 400 m2 is 600. With -Q+h+c0/150, houses up to 150 m2, the
# courtyard is among the houses (its header says -Ph); with +c150 its block has none. grdmask
# marks 400 pixels of 1 m2, and select finds no point in the courtyard. There is no message.
# Versions: GMT 6.4.0 (Debian 12, gmt 6.4.0+dfsg-2, with the libraries that it depends on). Source:
# gmtspatial.rst says "area of all polygons" of -Q and nothing of holes, which the format OGR/GMT
# marks with @H; pull request 971 of GenericMappingTools/gmt brought holes to select only.
# Hurt: who sums footprints or leaves out sheds by area: the built area grows with each courtyard.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" LC_ALL=C
mkdir -p packages/partial root
apt-get -qq -o Debug::NoLocking=true -o APT::Sandbox::User=root \
  -o Dir::Cache::archives="$folder/packages" install --reinstall --download-only --yes \
  --no-install-recommends gmt=6.4.0+dfsg-2 gmt-common=6.4.0+dfsg-2 libgmt6=6.4.0+dfsg-2 > apt.log
for package in packages/*.deb; do dpkg-deb --extract "$package" root; done
cat > town.py <<'PYTHON'
import os
import subprocess
from pathlib import Path

LIBRARIES = Path("root/usr/lib").resolve() / f"{os.uname().machine}-linux-gnu"
SHARE = Path("root/usr/share/gmt").resolve()
SETTINGS = {"LD_LIBRARY_PATH": str(LIBRARIES), "GMT_SHAREDIR": str(SHARE)}


def gmt(*words, given=None):
    """Run a module of GMT and return the lines that it writes; it may say nothing else."""
    done = subprocess.run(
        ["root/usr/bin/gmt", *words], env=os.environ | SETTINGS, input=given, check=True,
        capture_output=True, text=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def ring(west, south, east, north):
    """Return the positions of a rectangle as lines."""
    corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    return [f"{x} {y}" for x, y in corners]


lines = ["# @VGMT1.0 @GPOLYGON", "# FEATURE_DATA", ">", "# @P", *ring(10, 10, 30, 30)]
lines += [">", "# @H", *ring(15, 15, 25, 25)[::-1], ">", "# @P", *ring(40, 10, 50, 20)]
Path("town.gmt").write_text("\n".join(lines) + "\n")
assert gmt("--version") == ["6.4.0"]


def areas(lines):
    """Return the areas in rows of -Q."""
    return [float(line.split()[2]) for line in lines]


all_areas = areas(gmt("spatial", "-Q", "town.gmt"))
small = [line for line in gmt("spatial", "-Q+h+c0/150", "town.gmt") if line[0] == ">"]
large = [line for line in gmt("spatial", "-Q+h+c150", "town.gmt") if line[0] == ">"]
print("areas", all_areas, "sum", sum(all_areas), small, large)
assert all_areas == [400, 100, 100] and len(small) == 2 and len(large) == 1

gmt("grdmask", "town.gmt", "-R0/60/0/40", "-I1", "-r", "-NNaN/1/1", "-Gmask.nc")
built = len(gmt("grd2xyz", "mask.nc", "-s"))
found = gmt("select", "-Ftown.gmt", given="20 20\n12 12\n45 15\n")
print("pixels", built, "points in houses", found)
assert built == 400 and [line.split() for line in found] == [["12", "12"], ["45", "15"]]
PYTHON
python3 town.py
