#!/usr/bin/env bash
# earthpy stacks a picture of three bands as its last band, and leaves the bands after it empty.
#
# Guess before the run: stack writes all bands of its files one after the other, since it makes room
# for the sum of their counts; of red, green, blue and a file of near infrared that is 4 bands.
# Seen: the file has 4 bands. The first is blue, the second near infrared, and the third and fourth
# are 0 everywhere. The array that it returns is the same, and there is no message. With one band
# a file all is right. Without a file to write the same list is an error of numpy.
# Versions: earthpy 1.0.0, rasterio 1.4.4, numpy 2.2.6. Source: earthpy/spatial.py, _stack_bands:
# each band of the source number ii is written to band ii + 1, so that the later ones overwrite it.
# Hurt: who adds near infrared or heights to an aerial photograph for training, or computes an index
# of vegetation from the stack: a model is taught on blue where red was meant, and on two bands
# without anything.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  rasterio==1.4.4 numpy==2.2.6 geopandas==1.1.1 requests==2.32.5 matplotlib==3.10.7 \
  scikit-image==0.25.2 keyring==25.6.0 platformdirs==4.5.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps earthpy==1.0.0
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
from earthpy.spatial import stack

profile = dict(driver="GTiff", height=4, width=5, dtype="uint8", crs="EPSG:25833",
               transform=rasterio.Affine(0.2, 0, 390_000, 0, -0.2, 5_820_000))
for name, values in (("photo", (10, 20, 30)), ("nir", (40,)), ("red", (10,))):
    with rasterio.open(f"{name}.tif", "w", count=len(values), **profile) as file:
        file.write(np.stack([np.full((4, 5), value, np.uint8) for value in values]))


def bands(files):
    array, _ = stack(files, "stack.tif")
    with rasterio.open("stack.tif") as file:
        written = file.read()
    assert np.array_equal(array, written)
    return [int(value) for value in written[:, 0, 0]]


seen = bands(["photo.tif", "nir.tif"])
print("red, green, blue of 10, 20, 30 and near infrared of 40 become", seen)
assert seen == [30, 40, 0, 0]
seen = bands(["red.tif", "nir.tif"])
print("red of 10 and near infrared of 40 become", seen)
assert seen == [10, 40]
try:
    stack(["photo.tif", "nir.tif"])
except ValueError as error:
    print("without a file to write:", str(error)[:60])
else:
    raise SystemExit("no error without a file")
PYTHON
