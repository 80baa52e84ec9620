#!/usr/bin/env bash
# pyrsgis turns the reflectances of an image into a table of zeros.
#
# Guess before the run: array_to_table makes a row of each pixel and a column of each band, with the
# values of the raster, in its type or a wider one.
# Seen: of an image of three bands with reflectances of 0 to 1 every value is 0, and heights of 7.8
# and -2.6 m are 7 and -2: the table of a raster with several bands is one of 64-bit integers, to
# which values are cut. One band alone keeps its values, which hides it, and table_to_array returns
# 64-bit floats. changeDimension, its former name, does the same, and so does reading chosen bands,
# read(file, bands=[1, 3]). There is no message.
# Versions: pyrsgis 0.4.1, numpy 2.2.6. Source: pyrsgis/convert/__init__.py, array_to_table, and
# pyrsgis/raster/__init__.py, _extract_bands: np.random.randint(1, size=...) makes the empty table.
# Hurt: who trains a network on pixels of scaled imagery, to which the library's tutorials on
# built-up area lead: it learns from nothing, or from heights in whole metres.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 pandas==2.3.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pyrsgis==0.4.1
venv/bin/python -W ignore - <<'PYTHON'
import sys
from unittest.mock import MagicMock

import numpy as np

# GDAL's bindings, which pip cannot build here, and plots are only imported; no file is needed.
for name in ("osgeo", "matplotlib", "matplotlib.pyplot", "matplotlib.cm"):
    sys.modules[name] = MagicMock()
from pyrsgis import convert, raster

image = np.linspace(0.02, 0.98, 60, dtype=np.float32).reshape(3, 4, 5)
heights = np.array([[[7.8, -2.6]], [[3.5, 9.9]]])
for convert_image in (convert.array_to_table, convert.changeDimension):
    table = convert_image(image)
    print(f"{convert_image.__name__}: {table.shape} of {table.dtype}, from {table.min()} to",
          table.max())
    assert table.dtype == np.int64 and not table.any()
whole, one = convert.array_to_table(heights), convert.array_to_table(heights[0])
print("heights of two bands:", *whole[:, 0], "and of one:", *one)
assert list(whole[:, 0]) == [7, -2] and list(one) == [7.8, -2.6]
assert convert.table_to_array(convert.array_to_table(image), 4, 5).dtype == np.float64


class Band:
    """A band of a file, as GDAL has it."""

    DataType = 6

    def __init__(self, values):
        self.ReadAsArray = lambda: values


file = MagicMock(RasterCount=3, RasterYSize=4, RasterXSize=5)
file.GetRasterBand = lambda number: Band(image[number - 1])
file.GetGeoTransform = lambda: (400000.0, 1.0, 0.0, 5800040.0, 0.0, -1.0)
file.ReadAsArray = lambda: image
raster.gdal.Open = lambda name: file
chosen, all_bands = (raster.read("image.tif", bands)[1] for bands in ([1, 3], "all"))
print("bands 1 and 3 reach", chosen.max(), "and all bands", all_bands.max())
assert not chosen.any() and all_bands.max() > 0.97
PYTHON
