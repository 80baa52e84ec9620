#!/usr/bin/env bash
# whitebox-workflows' sieve makes the whole map a building, if the ground of the mask is 0.
#
# Guess before the run: sieve with a threshold of 50 takes a speck of 16 pixels out of a mask and
# fills a hole of 16 pixels in a house of 400: 384 + 16 pixels of building become 400, whatever
# numbers stand for ground and building.
# Seen: with 1 for ground and 2 for building it is so. With 0 and 1 all 3,600 pixels are building
# afterwards: zeros are filled from the nearest other class. With zero_background=True, "zero-out
# background (value 0) cells in output", nothing changes: speck and hole stay. There is no message.
# Versions: whitebox-workflows 2.0.6, rasterio 1.4.4. Source: the help of the package,
# whitebox_workflows/help/sieve.html, speaks of patches below the threshold only; it is compiled.
# Hurt: who cleans predicted masks, which are 0 and 1 or 0 and 255, before counting or outlining
# buildings: the town is one building as large as the map, or as noisy as before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check whitebox-workflows==2.0.6 \
  rasterio==1.4.4 numpy==2.3.5
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
import whitebox_workflows
from rasterio.transform import from_origin

tools = whitebox_workflows.WbEnvironment()
mask = np.zeros((60, 60), bool)
mask[5:9, 5:9] = mask[30:50, 30:50] = True  # a speck and a house
mask[38:42, 38:42] = False
seen = {}
for ground, building in ((1, 2), (0, 1), (0, 255)):
    with rasterio.open(
        "mask.tif", "w", driver="GTiff", width=60, height=60, count=1, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(500_000, 5_500_060, 1, 1),
    ) as file:
        file.write(np.where(mask, building, ground).astype("uint8"), 1)
    for zero_background in (False, True):
        raster = tools.read_raster("mask.tif")
        sieved = tools.raster.sieve(input=raster, threshold=50, zero_background=zero_background)
        tools.write_raster(sieved, "sieved.tif")
        with rasterio.open("sieved.tif") as file:
            buildings = file.read(1) == building
        seen[ground, building, zero_background] = (
            int(buildings.sum()), bool(buildings[6, 6]), bool(buildings[40, 40]))
        print(ground, building, zero_background, "pixels of building, speck and hole are building:",
              *seen[ground, building, zero_background])
assert mask.sum() == 400 and seen == {
    (1, 2, False): (400, False, True), (1, 2, True): (400, False, True),
    (0, 1, False): (3600, True, True), (0, 1, True): (400, True, False),
    (0, 255, False): (3600, True, True), (0, 255, True): (400, True, False),
}
PYTHON
