"""Readers of labels under attack, each compared with a second, simple reader."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from fuzz_target import (
    GRID,
    HEIGHT,
    WIDTH,
    Files,
    Target,
    agrees_with,
    check,
    json_bytes,
    masks_of,
    open_labels,
    png,
    second_reader,
    tif,
)
from pyproj import CRS

__all__ = ["TARGETS", "compare_coco", "compare_table"]


def _tables() -> tuple[Files, Files]:
    header = "img_id,img_path,mask_rle\n"
    rows = "a,img/a.png,1 3 31 5 100 20\nb,img/b.png,-1\nc,img/c.png,5 1 400 200\n"
    quoted = '"a","img/a.png","1 3 31 5"\r\n"b","img/b.png",""\r\n'
    columns = "ImageId,EncodedPixels\na.png,1 3 21 5\nb.png,1 600\n"
    return {
        "t.csv": (header + rows).encode(), "u.csv": b"\xef\xbb\xbf" + (header + quoted).encode(),
        "v.csv": columns.encode(),
    }, {f"img/{name}.png": png() for name in "abc"}  # fmt: skip


def _read_table(path: Path) -> None:
    source = open_labels(path)
    masks = dict(masks_of(source))
    with second_reader():
        compare_table(path, masks)


def compare_table(path: Path, masks: dict[str, np.ndarray]) -> None:
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    if not rows or list(rows[0]) != ["img_id", "img_path", "mask_rle"]:
        return
    drawn = {name: np.zeros(HEIGHT * WIDTH, bool) for name in masks}
    for row in rows:
        numbers = (row["mask_rle"] or "").split()
        if len(numbers) % 2 or not all(one.isdigit() for one in numbers):
            continue
        for start, length in zip(numbers[::2], numbers[1::2]):
            name = Path(row["img_path"].replace("\\", "/")).name
            if name in drawn:
                drawn[name][int(start) - 1 : int(start) - 1 + int(length)] = True
    for name, mask in masks.items():
        check(bool((drawn[name].reshape(HEIGHT, WIDTH) == (mask == 1)).all()), "other pixels")


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


def _read_coco(path: Path) -> None:
    masks = dict(masks_of(open_labels(path)))
    with second_reader():
        compare_coco(path, masks)


def compare_coco(path: Path, masks: dict[str, np.ndarray]) -> None:
    from pycocotools import mask as tools

    raw = json.loads(path.read_bytes())
    for image in raw["images"]:
        name, shape = Path(image["file_name"]).name, (image["height"], image["width"])
        if name not in masks or sum(Path(o["file_name"]).name == name for o in raw["images"]) > 1:
            continue
        drawn = np.zeros(shape, np.uint8)
        mine = [one for one in raw["annotations"] if one["image_id"] == image["id"]]
        for one in sorted(mine, key=lambda one: one.get("iscrowd") not in (1, True)):
            given = one["segmentation"]
            parts = [p for p in given if len(p) > 5] if isinstance(given, list) else given
            if not parts:
                continue
            if isinstance(parts, dict):
                parts = {"size": list(shape), **parts}
            rle = tools.frPyObjects(parts, *shape) if not _compressed(parts) else parts
            merged = tools.merge(rle) if isinstance(rle, list) else rle
            drawn[tools.decode(merged) > 0] = 255 if one.get("iscrowd") in (1, True) else 1
        check(bool((drawn == masks[name]).all()), "pycocotools draws other pixels")


def _compressed(segmentation: Any) -> bool:
    return isinstance(segmentation, dict) and isinstance(segmentation["counts"], str)


def _labelstudio() -> tuple[Files, Files]:
    from rooftrace.labels.labelstudio.regions import encode_brush

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


def _read_labelstudio(path: Path) -> None:
    masks = dict(masks_of(open_labels(path)))
    with second_reader():
        _compare_tasks(path, masks)


def _compare_tasks(path: Path, masks: dict[str, np.ndarray]) -> None:
    raw = json.loads(path.read_bytes())
    names = [str(task["data"].get("image")) for task in raw]
    for task, name in zip(raw, names):
        mask = masks.get(Path(name).name)
        votes = [one for one in task["annotations"] if not one.get("was_cancelled")]
        if (
            mask is None
            or len(votes) != 1
            or sum(Path(n).name == Path(name).name for n in names) > 1
        ):
            continue
        outlines = [_outline(one) for one in votes[0]["result"]]
        if all(outline is not None for outline in outlines):
            agrees_with(mask, outlines, "shapely draws other pixels of a Label Studio task")


def _outline(result: dict[str, Any]) -> Any:
    """Return a rectangle or polygon in pixels, or None for any other result."""
    value, scale = result["value"], np.array([WIDTH, HEIGHT]) / 100
    if result["type"] == "rectanglelabels" and not value.get("rotation"):
        low = np.array([value["x"], value["y"]]) * scale
        return shapely.box(*low, *(low + np.array([value["width"], value["height"]]) * scale))
    if result["type"] == "polygonlabels" and len(value["points"]) > 2:
        return shapely.Polygon(np.array(value["points"], float) * scale)
    return None


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


def _read_houses(path: Path) -> None:
    masks = dict(masks_of(open_labels(path)))
    with second_reader():
        _compare_houses(path, masks)


def _compare_houses(path: Path, masks: dict[str, np.ndarray]) -> None:
    polygons = _geojson_polygons(path) if path.suffix == ".geojson" else _sqlite_polygons(path)
    if polygons is None or "a.tif" not in masks:
        return
    if any(np.abs(shapely.get_coordinates(one)).max(initial=0) > 1e8 for one in polygons):
        # Numbers of this size have no fractions of a pixel.
        return
    inverse = ~GRID
    # One with a coordinate that is no number is left out, with a note.
    moved = [
        shapely.transform(one, lambda xy: np.column_stack(inverse * (xy[:, 0], xy[:, 1])))
        for one in polygons
        if np.isfinite(shapely.get_coordinates(one)).all()
    ]
    agrees_with(masks["a.tif"], moved, "shapely draws other footprints")


def _geojson_polygons(path: Path) -> list[Any] | None:
    """Return the polygons, or None if the file's CRS was mutated or it is of another shape."""
    # GDAL takes names in any case.
    raw = json.loads(path.read_bytes(), object_pairs_hook=_in_lower_case)
    if "32736" not in json.dumps(raw.get("crs")) or raw.get("type") != "FeatureCollection":
        return None
    found = [feature["geometry"] for feature in raw["features"] if feature.get("geometry")]
    return [shapely.from_geojson(json.dumps(one)) for one in found]


def _in_lower_case(members: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name.lower(): value for name, value in members}


def _sqlite_polygons(path: Path) -> list[Any] | None:
    """Return the polygons of a GeoPackage's table, or None if sqlite finds it damaged."""
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
            crs = base.execute("select srs_id from gpkg_geometry_columns").fetchall()
            blobs = [row[0] for row in base.execute("select geom from houses") if row[0]]
        if crs != [(32736,)]:
            return None
        if any(blob[:2] != b"GP" for blob in blobs):
            # GDAL reads no outline from them, and the labels are without them, with a note.
            return None
        # The header of 8 bytes is followed by an envelope whose size its flags state.
        sizes = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}
        return [shapely.from_wkb(blob[8 + sizes[blob[3] >> 1 & 7] :]) for blob in blobs]
    except (sqlite3.Error, KeyError, shapely.GEOSException, UnicodeDecodeError):
        return None


TARGETS = (
    Target("rle", _tables, _read_table),
    Target("coco", _coco, _read_coco),
    Target("labelstudio", _labelstudio, _read_labelstudio),
    Target("geojson", lambda: _houses("geojson"), _read_houses),
    Target("gpkg", lambda: _houses("gpkg"), _read_houses),
)
