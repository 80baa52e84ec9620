#!/usr/bin/env bash
# OTB cuts equal tiles of a scene to different sizes, and rasterizes towns without their edges.
#
# Guess before the run: ExtractROI -mode fit with a vector of 100 by 100 m on the lines of pixels of
# 1 m gives 100 by 100 pixels, as with an image there; "the dimension of the extracted region will
# be the same as the extent of the reference". Rasterization covers the extent of the vector.
# Seen: of 24 tiles that divide a scene of 600 by 400 m, 10 have 100 by 100 pixels; the others have
# a row or a column of a neighbour too, and one lacks a column. With an image as reference all are
# right. A town of 60.9 by 50.9 m is 60 by 50 pixels of 1 m: 25 m2 of house at its north-eastern
# corner are 20 pixels with -spy -1, and 16 with -spy 1, as in the example of the manual, which
# gives rows from south to north. There is no message.
# Versions: OTB 8.1.1 (Debian 12, otb-bin 8.1.1+dfsg-1, with the libraries that it depends on),
# rasterio 1.4.4, geopandas 1.1.1. Source: the output of otbcli_ExtractROI -help, quoted above, and
# otbcli_Rasterization -help. The corners of a vector are between two pixels, whose centres OTB
# counts from, and are rounded to either side; the size of a raster is cut to whole pixels.
# Hurt: who cuts a scene and its labels by a grid: chips cannot be stacked, or share houses with
# the next; and who makes masks from footprints: the outermost houses are too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" LC_ALL=C
mkdir -p packages/partial root
apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
  --no-replaces --no-enhances otb-bin | grep -E "^(otb-bin|libotb)" | sort -u \
  | sed 's/$/=8.1.1+dfsg-1/' > names.txt
xargs apt-get -qq -o Debug::NoLocking=true -o APT::Sandbox::User=root \
  -o Dir::Cache::archives="$folder/packages" install --reinstall --download-only --yes \
  --no-install-recommends < names.txt > apt.log
for package in packages/*.deb; do dpkg-deb --extract "$package" root; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 geopandas==1.1.1 \
  shapely==2.1.2 numpy==2.3.5 pandas==2.3.3
cat > tiles.py <<'PYTHON'
import os
import subprocess
from collections import Counter
from pathlib import Path

import geopandas
import numpy
import rasterio
from rasterio.transform import from_origin
from shapely import box

LIBRARIES = Path("root/usr/lib").resolve() / f"{os.uname().machine}-linux-gnu"
SETTINGS = {"LD_LIBRARY_PATH": str(LIBRARIES),
            "OTB_APPLICATION_PATH": str(LIBRARIES / "otb/applications")}
WEST, SOUTH = 500_000, 5_500_000


def otb(*words):
    """Run an application of OTB; its log may hold no warning and no error."""
    done = subprocess.run(
        ["root/usr/bin/otbApplicationLauncherCommandLine", *words], env=os.environ | SETTINGS,
        check=True, capture_output=True, text=True,
    )
    log = done.stdout + done.stderr
    assert "WARN" not in log and "ERROR" not in log, log


def image(name, width, height, west=WEST, south=SOUTH):
    """Write an image with pixels of 1 m."""
    with rasterio.open(
        name, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(west, south + height, 1, 1),
    ) as dataset:
        dataset.write(numpy.ones((1, height, width), "uint8"))


def vector(name, *shapes):
    """Write polygons."""
    geopandas.GeoDataFrame({"DN": 1}, index=range(len(shapes)), geometry=list(shapes),
                           crs=32633).to_file(name)


def size(name):
    """Return the size of an image as width and height."""
    with rasterio.open(name) as dataset:
        return dataset.width, dataset.height


image("scene.tif", 600, 400)
found = {"vect": Counter(), "im": Counter()}
for east in range(0, 600, 100):
    for north in range(0, 400, 100):
        west, south = WEST + east, SOUTH + north
        vector("tile.shp", box(west, south, west + 100, south + 100))
        image("tile.tif", 100, 100, west, south)
        for kind, reference in {"vect": "tile.shp", "im": "tile.tif"}.items():
            otb("ExtractROI", "-in", "scene.tif", "-out", "cut.tif", "uint8", "-mode", "fit",
                f"-mode.fit.{kind}", reference)
            found[kind][size("cut.tif")] += 1
print("tiles by vector", dict(found["vect"]), "by image", dict(found["im"]))
assert found["im"] == {(100, 100): 24}
assert found["vect"][100, 100] < 16 and len(found["vect"]) > 2

corner = box(WEST + 55.9, SOUTH + 45.9, WEST + 60.9, SOUTH + 50.9)
vector("town.shp", box(WEST, SOUTH, WEST + 30, SOUTH + 25), corner)
for step, expected in {"-1": 20, "1": 16}.items():
    otb("Rasterization", "-in", "town.shp", "-out", "mask.tif", "uint8", "-spx", "1", "-spy", step,
        "-mode", "binary", "-mode.binary.foreground", "1")
    with rasterio.open("mask.tif") as dataset:
        mask, transform = dataset.read(1), dataset.transform
    house = int(mask[:, 40:].sum())
    print("spy", step, size("mask.tif"), "step", transform.e, "house", house, "of 25 m2")
    assert size("mask.tif") == (60, 50) and house == expected and transform.e == float(step)
PYTHON
venv/bin/python -W ignore tiles.py
