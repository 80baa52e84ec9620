#!/usr/bin/env bash
# aeronet-raster adds the nodata value to every pixel of a map that it blends from windows.
#
# Guess before the run: with bound_mode="weight" windows are blended, so that a network that gives
# 0.5 everywhere makes a map of 0.5, whatever value stands for no data; with "drop" it does. Samples
# of other places don't fit into one collection, as its text says ("resolution, shape and CRS").
# Seen: with dst_nodata 0 the map is 0.5. With -1 it is -0.5 in all 4,096 pixels, with -9999 it is
# -9998.5, and with 255 in a byte map of 100 everything is 255, which is no data: an empty map. With
# bound_mode="drop" each is right. A sample of pixels of 10 m that lies 141 km away is "the same" as
# one of pixels of 1 m, also if it has another shape, and a collection takes both and stacks them.
# There is no message.
# Versions: aeronet-raster 0.2.5 (the latest), rasterio 1.4.4. Source: aeronet_raster/
# collectionprocessor.py, SampleWindowWriter.write: weighted values are added to what the file gives
# before anything is written, which is nodata; band/bandsample.py, same: self.transform is compared
# with self.transform, and height and width likewise.
# Hurt: who maps buildings of a large scene with this library of Geoalert: scores are shifted, so
# that a threshold finds all or nothing, and bands of other tiles pass as one image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check aeronet-raster==0.2.5 numpy==2.2.6 \
  rasterio==1.4.4 opencv-python-headless==4.12.0.88
cat > town.py <<'PYTHON'
import numpy
import rasterio
from aeronet_raster import BandCollection, BandCollectionSample, BandSample
from aeronet_raster.collectionprocessor import CollectionProcessor
from rasterio.transform import from_origin

PLACE = from_origin(500_000, 5_500_000, 1, 1)
with rasterio.open(
    "RED.tif", "w", driver="GTiff", height=64, width=64, count=1, dtype="uint8",
    crs="EPSG:32633", transform=PLACE,
) as scene:
    scene.write(numpy.full((64, 64), 7, "uint8"), 1)


def blend(score, dtype, nodata, mode="weight"):
    """Return the values of the map of a network that gives this score everywhere."""
    processor = CollectionProcessor(
        ["RED"], ["HOUSES"], lambda sample: numpy.full(sample.shape, score, dtype),
        sample_size=(32, 32), bound=8, dst_nodata=nodata, dst_dtype=dtype, bound_mode=mode,
        verbose=False,
    )
    processor.process(BandCollection(["RED.tif"]), "map")
    with rasterio.open("map/HOUSES.tif") as written:
        values = numpy.unique(written.read(1).round(3)).tolist()
    print(f"{mode}: score {score} with nodata {nodata} becomes", values)
    return values


assert blend(0.5, "float32", 0) == [0.5]
assert blend(0.5, "float32", -1) == [-0.5]
assert blend(0.5, "float32", -9999) == [-9998.5]
assert blend(100, "uint8", 255) == [255]
assert blend(0.5, "float32", -1, "drop") == [0.5]
assert blend(100, "uint8", 255, "drop") == [100]

red = BandSample("RED", numpy.zeros((4, 4)), "EPSG:32633", PLACE)
away = from_origin(600_000, 5_600_000, 10, 10)
near, wide = (
    BandSample("NIR", numpy.ones(shape), "EPSG:32633", away) for shape in ((4, 4), (6, 9))
)
stacked = BandCollectionSample([red, near]).numpy().shape
print("the same:", red.same(near), red.same(wide), "stacked", stacked)
assert red.same(near) and red.same(wide) and stacked == (2, 4, 4)
PYTHON
venv/bin/python -W ignore town.py
