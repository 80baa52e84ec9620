#!/usr/bin/env bash
# geowombat traces blocks without their courtyards, and samples fewer points than asked for.
#
# Guess before the run: array_to_polygon gives a block of 800 m2 around a yard of 100 m2 as such,
# sample(n=100) gives 100 points, and spacing=0.3 with pixels of 10 cm every third pixel.
# Seen: the block has 900 m2, and a pavilion of 16 m2 in its yard lies within it: built ground is
# 916 m2, and the mask has 816. Without mask=, the polygons of a scene of 4,096 m2 add up to
# 5,112: one of ground is the whole scene. Of a scene of 64 by 64 pixels, sample(n=64), (n=100) and
# (n=1000) give 63 points, no two in one row or one column; of 32 by 64 pixels, n=1000 is an error.
# spacing=0.3 takes every second pixel, as 0.2 does. strata={"==,1": 4} gives 3 of 4 pixels, and a
# stratum of two conditions, ">,1;<,5", which the source alone explains, gives all ten classes.
# There is no message.
# Versions: geowombat 2.5.3, rasterio 1.4.4, xarray 2025.6.1. Source: geowombat/core/conversion.py,
# array_to_polygon: Polygon(p[0]['coordinates'][0]); core/sops.py, sample: np.random.choice of rows
# and of columns with replace=False, int(spacing / cellx), and (a > v) & a < w, which is 0 or 1 < w.
# Hurt: who turns masks into footprints: each yard is built over, and what stands in it counts
# twice; and who rates a map by random points, which are as few as the rows of the scene.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 rasterio==1.4.4 geopandas==1.1.1 xarray==2025.6.1 \
  "dask[array,dataframe]==2025.7.0" distributed==2025.7.0 scipy==1.16.3 scikit-learn==1.7.2 \
  matplotlib==3.10.7 tqdm==4.67.1 \
  retry==0.9.2 requests==2.32.5 h5netcdf==1.6.4 h5py==3.14.0 cryptography==46.0.3 joblib==1.5.2 \
  threadpoolctl==3.6.0
$pip --no-deps geowombat==2.5.3
cat > blocks.py <<'PYTHON'
import geowombat as gw
import numpy as np
import rasterio


def write(name, classes, pixel=1.0):
    """Write a map of classes with square pixels of so many metres."""
    height, width = classes.shape
    with rasterio.open(
        name, "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8",
        crs="EPSG:32633", transform=rasterio.Affine(pixel, 0, 500_000, 0, -pixel, 5_500_000),
    ) as dataset:
        dataset.write(classes.astype("uint8"), 1)


np.random.seed(0)
built = np.zeros((64, 64))
built[10:40, 10:40] = 1
built[20:30, 20:30] = 0
built[23:27, 23:27] = 1
write("built.tif", built)
with gw.open("built.tif") as scene:
    houses = gw.array_to_polygon(scene, mask="source")
    all_areas = gw.array_to_polygon(scene).area
    print("houses", sorted(houses.area), "built pixels", built.sum(), "scene", all_areas.sum())
    assert sorted(houses.area) == [16, 900] and built.sum() == 816
    assert not any(shape.interiors for shape in houses.geometry)
    assert houses.geometry[0].within(houses.geometry[1]) and all_areas.sum() == 5112

classes = np.random.default_rng(0).integers(2, 10, (64, 64))
classes[0, :4] = 1
classes[1, :4] = 0
write("classes.tif", classes)
with gw.open("classes.tif") as scene:
    counts = {}
    for number in (10, 63, 64, 100, 1000):
        points = gw.sample(scene, n=number).geometry
        counts[number] = len(points)
        assert points.x.nunique() == points.y.nunique() == len(points)
    one = gw.sample(scene, band=1, n=100, strata={"==,1": 4})
    two = gw.sample(scene, band=1, n=100, strata={">,1;<,5": 1000})
    print("points", counts, "of 4 pixels", len(one), "classes", sorted(two[1].unique()))
    assert counts == {10: 10, 63: 63, 64: 63, 100: 63, 1000: 63} and len(one) == 3
    assert set(one[1]) == {1} and set(two[1]) >= set(range(2, 10))

write("wide.tif", classes[:32])
with gw.open("wide.tif") as scene:
    try:
        gw.sample(scene, n=1000)
    except ValueError as error:
        print("32 by 64:", error)
    else:
        raise AssertionError("sampled")

write("fine.tif", classes, 0.1)
with gw.open("fine.tif") as scene:
    steps = {}
    for spacing in (0.2, 0.3, 0.5):
        points = gw.sample(scene, method="systematic", spacing=spacing).geometry
        steps[spacing] = float(np.diff(np.unique(points.x.round(3)))[0].round(3))
    print("steps", steps)
    assert steps == {0.2: 0.2, 0.3: 0.2, 0.5: 0.5}
PYTHON
venv/bin/python -W ignore blocks.py
