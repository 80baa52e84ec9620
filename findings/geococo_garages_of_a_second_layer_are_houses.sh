#!/usr/bin/env bash
# geococo numbers the classes of a second layer from 1 again, and leaves out roofs that are black.
#
# Guess before the run: names of classes that are new get numbers that are free, as the comment says
# ("starting from last known id"), and a roof is in the labels whatever its colour.
# Seen: houses are added by name to a scene, then a layer of garages: the class "house" has number 1
# and the class "garage" too, so that all four annotations have the class 1, and pycocotools reads
# them all as garages. A layer that names a house again beside the garage gives the garage 2. In an
# image without a nodata value, one house is in deep shadow, which is 0 in all bands: it is missing
# from the annotations, and at a brightness of 60 it is there with its 1,024 pixels. No message.
# Versions: geococo 0.7.0 (the latest), rasterio 1.4.4, pycocotools 2.0.11. Source: geococo/
# coco_models.py, add_categories: the largest number is sought among the classes that the new layer
# names, and counting begins at 1 if there are none; coco_processing.py writes each window as JPEG
# with nodata 0 "if src.nodata else 0", and utils.py, mask_label, takes the mask of that file.
# Hurt: who builds a COCO data set from layers of kinds of buildings: kinds are mixed, and roofs in
# shadow are taught as ground.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geococo==0.7.0 numpy==1.26.4 \
  pandas==2.3.3 rasterio==1.4.4 geopandas==1.1.4 pydantic==1.10.27 pandera==0.35.0 \
  pycocotools==2.0.11 opencv-python-headless==4.11.0.86
cat > town.py <<'PYTHON'
import sys
from pathlib import Path

import geococo
import geopandas
import numpy
import rasterio
from pycocotools.coco import COCO
from rasterio.transform import from_origin
from shapely.geometry import box

EAST, NORTH = 500_000, 5_500_000


def layer(**kinds):
    """Return labels of squares, each given as column, row and size in pixels of 1 m."""
    places = [(kind, place) for kind, squares in kinds.items() for place in squares]
    squares = [
        box(EAST + x, NORTH - y - size, EAST + x + size, NORTH - y) for _, (x, y, size) in places
    ]
    names = [kind for kind, _ in places]
    return geopandas.GeoDataFrame({"name": names}, geometry=squares, crs=32633)


def data_set(shade, *layers):
    """Return the COCO data set of the layers on a scene with a shade of grey on one house."""
    scene = numpy.full((3, 256, 256), 120, "uint8")
    scene[:, 32:64, 32:64] = shade
    name = f"scene{len(list(Path().iterdir()))}"
    with rasterio.open(
        f"{name}.tif", "w", driver="GTiff", height=256, width=256, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(EAST, NORTH, 1, 1),
    ) as written:
        written.write(scene)
    images = Path(name)
    images.mkdir()
    data = geococo.create_dataset("town", "someone")
    with rasterio.open(f"{name}.tif") as source:
        for labels in layers:
            data = geococo.append_dataset(
                data, images, source, [(256, 256)], labels, name_attribute="name"
            )
    return data


houses = [(32, 32, 32), (96, 96, 32)]
garages = [(160, 32, 16), (160, 160, 16)]
data = data_set(60, layer(house=houses), layer(garage=garages))
classes = [(kind.name, kind.id) for kind in data.categories]
numbers = [label.category_id for label in data.annotations]
geococo.save_dataset(data, Path("coco.json"))
names = {kind["name"] for kind in COCO("coco.json").cats.values()}
print("classes", classes, "of the annotations", numbers, "read", names)
assert classes == [("house", 1), ("garage", 1)] and numbers == [1, 1, 1, 1]
assert names == {"garage"}
both = data_set(60, layer(house=houses), layer(house=houses[:1], garage=garages))
assert [(kind.name, kind.id) for kind in both.categories] == [("house", 1), ("garage", 2)]

areas = {
    shade: [label.area for label in data_set(shade, layer(house=houses)).annotations]
    for shade in (60, 0)
}
print("areas of two houses of 1,024 m2, one with a brightness of", areas)
assert areas == {60: [1024, 1024], 0: [1024]}
PYTHON
DISABLE_PANDERA_IMPORT_WARNING=True venv/bin/python -W ignore town.py 2> log || { cat log; exit 1; }
