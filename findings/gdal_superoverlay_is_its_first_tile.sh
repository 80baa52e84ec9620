#!/usr/bin/env bash
# GDAL opens the doc.kml of a pyramid of tiles as the first of its tiles alone.
#
# Guess before the run: the root of a super-overlay for Google Earth, which links to the tiles of its
# coarsest zoom, is opened as the mosaic of them, or refused; a driver is called after it.
# Seen: with one tile at the coarsest zoom it is right. With two, and with six, the dataset has 256 by
# 256 pixels, and the bounds and values of the first link; the rest of the town is not there. There
# is no message. gdal2tiles -k writes such a root wherever the image crosses an edge of tiles at its
# coarsest zoom.
# Versions: rasterio 1.4.4 with the GDAL 3.10.3 of its wheel. Source: the driver KMLSUPEROVERLAY,
# which follows the first NetworkLink that has a Region.
# Hurt: who is given the folder of an orthophoto "for Google Earth", opens its root, and counts the
# buildings of one tile as those of the town.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4
venv/bin/python -W ignore - <<'PYTHON'
from pathlib import Path

import numpy as np
import rasterio

SIDE = 0.01
KML = (
    '<?xml version="1.0" encoding="UTF-8"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>'
    "<name>town</name>{}</Document></kml>"
)


def edges(col, row):
    west, south = 10 + SIDE * col, 50 + SIDE * row
    return (
        f"<north>{south + SIDE}</north><south>{south}</south>"
        f"<east>{west + SIDE}</east><west>{west}</west>"
    )


def region(col, row):
    return (
        f"<Region><LatLonAltBox>{edges(col, row)}</LatLonAltBox><Lod><minLodPixels>128"
        "</minLodPixels><maxLodPixels>-1</maxLodPixels></Lod></Region>"
    )


def opened(cols, rows):
    links = ""
    for number, (col, row) in enumerate(np.ndindex(cols, rows)):
        tile = Path(f"14/{col}/{row}")
        tile.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            f"{tile}.png", "w", driver="PNG", width=256, height=256, count=3, dtype="uint8"
        ) as picture:
            picture.write(np.full((3, 256, 256), 50 + number, np.uint8))
        overlay = (
            f"<GroundOverlay><drawOrder>14</drawOrder><Icon><href>{row}.png</href></Icon>"
            f"<LatLonBox>{edges(col, row)}</LatLonBox></GroundOverlay>"
        )
        Path(f"{tile}.kml").write_text(KML.format(region(col, row) + overlay))
        links += (
            f"<NetworkLink><name>{tile}.png</name>{region(col, row)}<Link><href>{tile}.kml</href>"
            "<viewRefreshMode>onRegion</viewRefreshMode></Link></NetworkLink>"
        )
    Path("doc.kml").write_text(KML.format(links))
    with rasterio.open("doc.kml") as town:
        bounds = tuple(round(edge, 6) for edge in town.bounds)
        values = np.unique(town.read(1)).tolist()
        print(f"{cols} x {rows} tiles: {town.driver}, {town.shape}, {bounds}, values {values}")
        return town.driver, town.shape, bounds, values


print("GDAL", rasterio.__gdal_version__)
FIRST = ("KMLSUPEROVERLAY", (256, 256), (10.0, 50.0, 10.01, 50.01), [50])
for grid in ((1, 1), (2, 1), (3, 2)):
    assert opened(*grid) == FIRST
PYTHON
