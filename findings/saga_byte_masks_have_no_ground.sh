#!/usr/bin/env bash
# SAGA takes the ground of a mask of bytes for missing data, so that half a house is whole.
#
# Guess before the run: a GeoTIFF with no nodata value has no missing cells; the mean of a mask of 0
# and 1 over a house is the share of it that is mapped, and a dilation grows houses.
# Seen: the same mask of two houses of 10 x 10 m, of which the second is half mapped, gives as uint8
# a mean of 1.0 over both and a producer's accuracy of 100 %, and a dilation by 2 cells changes
# nothing; as int16 0.5 over the second, 75 %, and larger houses. Cells of a byte grid that are 0
# count as missing, those of all other types do not; the log says nothing.
# Versions: SAGA 8.5.0 (Debian 12, saga 8.5.0+dfsg-2), rasterio 1.4.4, geopandas 1.2.0. Source:
# CSG_Grid::_Set_Properties in saga_core/saga_api/grid.cpp gives each type a nodata value, bytes 0,
# and keeps it if the file has none.
# Hurt: who rates a map, or measures its cover, by "Grid Statistics for Polygons", "Confusion Matrix
# (Polygons / Grid)" or the filters: masks are bytes nearly always, and the score is the best one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" LC_ALL=C
mkdir -p packages/partial root
apt-get -qq -o Debug::NoLocking=true -o APT::Sandbox::User=root \
  -o Dir::Cache::archives="$folder/packages" install --reinstall --download-only --yes \
  --no-install-recommends saga=8.5.0+dfsg-2 libsaga-api8=8.5.0+dfsg-2 > apt.log
for package in packages/*.deb; do dpkg-deb --extract "$package" root; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 geopandas==1.2.0 \
  shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
cat > masks.py <<'PYTHON'
import os
import subprocess
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from shapely import box

LIBRARIES = Path("root/usr/lib").resolve() / f"{os.uname().machine}-linux-gnu"
EAST, NORTH = 500_000, 5_500_000


def saga(*words):
    """Run a tool of SAGA and return its log."""
    settings = os.environ | {"LD_LIBRARY_PATH": str(LIBRARIES), "SAGA_TLB": str(LIBRARIES / "saga")}
    done = subprocess.run(
        ["root/usr/bin/saga_cmd", *words], env=settings, capture_output=True, text=True, check=True
    )
    return done.stdout


assert "SAGA Version: 8.5.0" in saga("--version")
houses = [box(EAST + west, NORTH + 25, EAST + west + 10, NORTH + 35) for west in (5, 20)]
geopandas.GeoDataFrame({"class": [1, 1]}, geometry=houses, crs=32633).to_file("houses.shp")
mask = np.zeros((40, 40))
mask[5:15, 5:15] = mask[5:10, 20:30] = 1
seen = {}
for kind in ("uint8", "int16"):
    with rasterio.open(
        f"{kind}.tif", "w", driver="GTiff", width=40, height=40, count=1, dtype=kind, crs=32633,
        transform=rasterio.Affine(1, 0, EAST, 0, -1, NORTH + 40),
    ) as dataset:
        dataset.write(mask.astype(kind), 1)
        assert dataset.nodata is None
    log = saga("shapes_grid", "2", "-GRIDS", f"{kind}.tif", "-POLYGONS", "houses.shp",
               "-NAMING", "0", "-RESULT", "cover.shp")
    cover = geopandas.read_file("cover.shp")
    means = cover[next(name for name in cover if "MEAN" in name)].tolist()
    log += saga("imagery_classification", "6", "-GRID", f"{kind}.tif", "-GRID_VALUES", "0",
                "-POLYGONS", "houses.shp", "-FIELD", "class", "-CONFUSION", "confusion.txt")
    lines = [line.split("\t") for line in Path("confusion.txt").read_text().splitlines()]
    accuracy = float(next(line[1] for line in lines if line[0] == '"AccProd"'))
    log += saga("grid_filter", "8", "-INPUT", f"{kind}.tif", "-RESULT", "grown.tif", "-METHOD", "0",
                "-KERNEL_TYPE", "0", "-KERNEL_RADIUS", "2")
    with rasterio.open("grown.tif") as dataset:
        grown = int((dataset.read(1) == 1).sum())
    assert not any(word in log.lower() for word in ("warning", "error"))
    seen[kind] = means, accuracy, grown
    print(f"{kind}: means over the houses {means}, producer's accuracy {accuracy} %,",
          f"cells of houses {int(mask.sum())}, after a dilation {grown}")
assert seen["uint8"] == ([1, 1], 100, 150)
assert seen["int16"] == ([1, 0.5], 75, 14 * 14 + 14 * 9)
PYTHON
venv/bin/python -W ignore masks.py
