"""Readers of labels under attack."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from fuzz_target import GRID, HEIGHT, WIDTH, Files, Target, json_bytes, png, read_all, tif
from pyproj import CRS


def _tables() -> tuple[Files, Files]:
    header = "img_id,img_path,mask_rle\n"
    rows = "a,img/a.png,1 3 31 5 100 20\nb,img/b.png,-1\nc,img/c.png,5 1 400 200\n"
    quoted = '"a","img/a.png","1 3 31 5"\r\n"b","img/b.png",""\r\n'
    columns = "ImageId,EncodedPixels\na.png,1 3 21 5\nb.png,1 600\n"
    return {
        "t.csv": (header + rows).encode(), "u.csv": b"\xef\xbb\xbf" + (header + quoted).encode(),
        "v.csv": columns.encode(),
    }, {f"img/{name}.png": png() for name in "abc"}  # fmt: skip


def _coco() -> tuple[Files, Files]:
    from pycocotools import mask as tools

    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 4:12] = 1
    rle = tools.encode(np.asfortranarray(mask))
    counts = [0]
    for before, pixel in zip([0, *mask.T.ravel()], mask.T.ravel()):
        counts += [0] if pixel != before else []
        counts[-1] += 1
    size = [HEIGHT, WIDTH]
    segmentations: list[Any] = [
        [[2, 2, 12.5, 2, 12, 9, 2, 9]], {"size": size, "counts": rle["counts"].decode()},
        {"size": size, "counts": counts}, [[15, 4, 25, 5, 20, 15.5], [1, 15, 5, 15, 5, 19]],
    ]  # fmt: skip
    images = [
        {"id": n + 1, "file_name": f"img/{name}.png", "height": HEIGHT, "width": WIDTH}
        for n, name in enumerate("ab")
    ]
    annotations = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 7, "iscrowd": int(n == 5), "area": 9,
         "bbox": [1, 1, 5, 5], "segmentation": one}
        for n, one in enumerate([*segmentations, *segmentations[:2]])
    ]  # fmt: skip
    categories = [{"id": 7, "name": "building", "supercategory": "a"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return {"coco.json": json_bytes(document)}, {f"img/{name}.png": png() for name in "ab"}


def _labelstudio() -> tuple[Files, Files]:
    from rooftrace.labels.labelstudio_regions import encode_brush

    sizes = {"original_width": WIDTH, "original_height": HEIGHT}
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:9, 3:17] = True
    box = {"x": 10, "y": 20, "width": 40, "height": 30, "rotation": 0,
           "rectanglelabels": ["building"]}  # fmt: skip
    polygon = {"points": [[50, 50], [90, 50], [80.5, 90]], "polygonlabels": ["Building"]}
    brush = {"format": "rle", "rle": list(encode_brush(mask)), "brushlabels": ["building"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 30,
               "ellipselabels": ["building"]}  # fmt: skip
    kinds = {"rectanglelabels": box, "polygonlabels": polygon, "brushlabels": brush,
             "ellipselabels": ellipse}  # fmt: skip
    tasks = []
    for number, names in enumerate((("rectanglelabels", "polygonlabels"), ("brushlabels",),
                                    ("ellipselabels", "rectanglelabels"))):  # fmt: skip
        results = [
            {"id": str(n), "type": kind, "from_name": "label", "to_name": "image",
             "value": kinds[kind], "image_rotation": 0, **sizes}
            for n, kind in enumerate(names)
        ]  # fmt: skip
        annotation = {"id": number, "completed_by": 1, "was_cancelled": False, "result": results}
        data = {"image": f"/data/upload/1/{'abc'[number]}.png"}
        tasks.append({"id": number + 1, "data": data, "annotations": [annotation]})
    return {"export.json": json_bytes(tasks)}, {f"{name}.png": png() for name in "abc"}


def _houses(suffix: str) -> tuple[Files, Files]:
    import geopandas

    shapes = [
        GRID * corner
        for corner in [(5, 5), (11, 5), (11, 9), (5, 9), (20, 20), (32, 22), (30, 34), (19, 31)]
    ]
    hole = [GRID * corner for corner in [(22, 23), (22, 28), (27, 28)]]
    geometry = [shapely.Polygon(shapes[:4]), shapely.Polygon(shapes[4:], [hole])]
    frame = geopandas.GeoDataFrame({"name": ["a", "b"], "id": [1, 2]}, geometry=geometry,
                                   crs=CRS.from_epsg(32736))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"houses.{suffix}")
        frame.to_file(path)
        seeds = {path.name: path.read_bytes()}
    return seeds, {"images/a.tif": tif(), "images/b.tif": tif()}


TARGETS = (
    Target("rle", _tables, read_all),
    Target("coco", _coco, read_all),
    Target("labelstudio", _labelstudio, read_all),
    Target("geojson", lambda: _houses("geojson"), read_all),
    Target("gpkg", lambda: _houses("gpkg"), read_all),
)
