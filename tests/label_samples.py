"""Exports of label tools and data sets as downloaded, made true to their formats.

Every maker writes the same scenes: `make(folder)` returns the path that a user would give.
`truth` draws the outlines by a point-in-polygon test of pixel centres, independent of GDAL.
"""

import base64
import csv
import io
import json
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image

from raster_files import write_geotiff

Value = int | tuple[int, int, int]
SHAPE = HEIGHT, WIDTH = (96, 128)
NAMES = ("chip_a", "chip_b", "chip_c", "chip_d")
TRUTH: dict[str, tuple[shapely.Polygon, ...]] = {
    "chip_a": (
        shapely.Polygon([(10.2, 8.3), (52.7, 8.3), (52.7, 41.1), (10.2, 41.1)]),
        shapely.Polygon([(70, 20), (110, 30), (100, 70), (60, 60)]),
    ),
    "chip_b": (
        shapely.Polygon([(5, 50), (45, 50), (45, 70), (25, 70), (25, 90), (5, 90)]),
        shapely.box(80, 5, 120.4, 33.6),
        shapely.box(84, 60, 101, 88),
    ),
    "chip_c": (),
    "chip_d": (shapely.box(30, 30, 78, 66),),
}
"""Outlines of each image in pixels."""


def drawn(outline: shapely.Polygon | shapely.MultiPolygon) -> np.ndarray:
    """Return the mask (y, x) of an outline."""
    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.asarray(shapely.contains_xy(outline, cols, rows))


def truth(name: str) -> np.ndarray:
    """Return the mask (y, x) of an image."""
    return drawn(shapely.MultiPolygon(TRUTH[name]))


def cut_out(outline: shapely.Polygon) -> tuple[int, int, np.ndarray]:
    """Return the left, the top, and the mask of the rectangle around an outline."""
    left, top, right, bottom = (int(v) for v in outline.buffer(1).bounds)
    return left, top, drawn(outline)[top : bottom + 1, left : right + 1]


def picture(name: str) -> np.ndarray:
    rng = np.random.default_rng(NAMES.index(name))
    noise = rng.integers(0, 90, (*SHAPE, 3))
    return (noise + 120 * truth(name)[..., None]).astype(np.uint8)


def corners(outline: shapely.Polygon) -> list[list[float]]:
    return [list(xy) for xy in outline.exterior.coords[:-1]]


def pixel_outline(mask: np.ndarray) -> list[list[int]]:
    """Return the indices [x, y] of the outermost pixels, as cv2 and SDKs trace a mask."""
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return found[0][:, 0].tolist()


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        write_geotiff(path, bands, crs="EPSG:32633", transform=place(path.stem))
    else:
        Image.fromarray(array).save(path)
    return path


def place(name: str) -> Any:
    from affine import Affine

    number = next((n for n, known in enumerate(NAMES) if known in name), 0)
    return Affine(0.5, 0, 500_000 + 100 * number, 0, -0.5, 5_000_000)


def save_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def save_json(path: Path, raw: Any) -> Path:
    return save_text(path, json.dumps(raw))


def images(folder: Path, pattern: str = "{}.png", names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        save(folder / pattern.format(name), picture(name))


def masks(folder: Path, pattern: str, inside: Value = 255, outside: Value = 0) -> None:
    for name in NAMES:
        values = np.where(truth(name)[..., None], inside, outside).astype(np.uint8)
        save(folder / pattern.format(name), values.squeeze())


def yolo_text(name: str, index: int = 0) -> str:
    return "".join(
        f"{index} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners(one)) + "\n"
        for one in TRUTH[name]
    )


def yolo_ultralytics(folder: Path, names: str = "names:\n  0: building\n") -> Path:
    for part, name in zip(("train", "val", "train", "train"), NAMES):
        save(folder / f"images/{part}/{name}.png", picture(name))
        # An image without buildings needs no file.
        if TRUTH[name]:
            save_text(folder / f"labels/{part}/{name}.txt", yolo_text(name))
    return save_text(
        folder / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\n{names}"
    ).parent


def yolo_roboflow(folder: Path) -> Path:
    for part, name in zip(("train", "valid", "test", "train"), NAMES):
        save(folder / f"{part}/images/{name}_png.rf.0a1b2c.png", picture(name))
        save_text(folder / f"{part}/labels/{name}_png.rf.0a1b2c.txt", yolo_text(name))
    save_text(folder / "README.roboflow.txt", "Exported from Roboflow")
    text = "train: ../train/images\nval: ../valid/images\n\nnc: 1\nnames: ['Building']\n"
    return save_text(
        folder / "data.yaml", f"{text}\nroboflow:\n  project: roofs\n  version: 1\n"
    ).parent


def yolo_classes(folder: Path) -> Path:
    images(folder / "images")
    for name in NAMES:
        save_text(folder / f"labels/{name}.txt", yolo_text(name, 1))
    save_text(folder / "classes.txt", "Tree\nBuilding\n")
    return save_json(folder / "notes.json", {"categories": [{"id": 0, "name": "Tree"}]}).parent


def coco_document(names: tuple[str, ...], pattern: str = "{}.png", **extra: Any) -> dict[str, Any]:
    annotations = [
        {"id": 100 * number + index, "image_id": number, "category_id": 1,
         "segmentation": [flat(one)], "area": one.area, "iscrowd": 0, **extra,
         "bbox": [one.bounds[0], one.bounds[1], *np.subtract(one.bounds[2:], one.bounds[:2])]}
        for number, name in enumerate(names, start=1)
        for index, one in enumerate(TRUTH[name])
    ]  # fmt: skip
    pictures = [
        {"id": number, "file_name": pattern.format(name), "height": HEIGHT, "width": WIDTH}
        for number, name in enumerate(names, start=1)
    ]
    categories = [{"id": 0, "name": "buildings"}, {"id": 1, "name": "building"}]
    return {"info": {"year": "2026"}, "licenses": [], "categories": categories,
            "images": pictures, "annotations": annotations}  # fmt: skip


def coco_roboflow(folder: Path, parts: Sequence[str] = ("train", "valid", "test")) -> Path:
    for part, names in zip(parts, (NAMES[::3], NAMES[1:2], NAMES[2:3])):
        images(folder / part, names=names)
        save_json(folder / part / "_annotations.coco.json", coco_document(names))
    return folder


CVAT_COCO = "annotations/instances_default.json"


def coco_cvat(folder: Path) -> Path:
    images(folder / "images")
    return save_json(folder / CVAT_COCO, coco_document(NAMES)).parents[1]


def coco_cvat_brush(folder: Path) -> Path:
    """Write masks as CVAT does: run lengths with iscrowd 1, beside polygons."""
    raw = coco_document(NAMES, attributes={"occluded": False})
    for one in raw["annotations"][:3]:
        number, index = divmod(one["id"], 100)
        counts = runs(drawn(TRUTH[NAMES[number - 1]][index]).T)
        one |= {"iscrowd": 1, "segmentation": {"size": list(SHAPE), "counts": counts}}
    images(folder / "images")
    return save_json(folder / CVAT_COCO, raw).parents[1]


def coco_labelstudio(folder: Path) -> Path:
    images(folder / "images", "0123abcd-{}.png")
    raw = coco_document(NAMES, "images\\0123abcd-{}.png")
    return save_json(folder / "result.json", raw).parent


def coco_crowdai(folder: Path) -> Path:
    images(folder / "train/images")
    raw = coco_document(NAMES, category_id=100)
    raw["categories"] = [{"id": 100, "name": "building", "supercategory": "building"}]
    save_json(folder / "train/annotation.json", raw)
    save_json(folder / "train/annotation-small.json", {**raw, "images": raw["images"][:1]})
    return folder


def runs(mask: np.ndarray) -> list[int]:
    """Return run lengths along rows that begin with zeros."""
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    return [0, *lengths] if flat[0] else lengths


def cvat_xml(folder: Path) -> Path:
    body = ""
    for number, name in enumerate(NAMES):
        body += f'<image id="{number}" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">'
        body += '<polyline label="road" points="1.00,1.00;9.00,9.00" z_order="0"></polyline>'
        for index, one in enumerate(TRUTH[name]):
            if index == 1:
                left, top, part = cut_out(one)
                body += (
                    f'<mask label="building" rle="{", ".join(map(str, runs(part)))}" left="{left}" '
                    f'top="{top}" width="{part.shape[1]}" height="{part.shape[0]}" z_order="0"/>'
                )
                continue
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(one))
            body += f'<polygon label="building" points="{points}" z_order="0"></polygon>'
        body += "</image>"
    images(folder / "images")
    head = (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta></meta>'
    )
    return save_text(folder / "annotations.xml", f"{head}{body}</annotations>").parent


def png_of(array: np.ndarray, alpha: bool = False) -> bytes:
    if alpha:
        array = np.dstack([array.astype(np.uint8) * 255] * 4)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def records(
    folder: Path, labels_at: str, record: Callable[[str], Any], images_at: str = "{}.png"
) -> Path:
    """Write the images, and a JSON file for each, or one of the records of all."""
    images(folder, images_at)
    if "{}" not in labels_at:
        save_json(folder / labels_at, [record(name) for name in NAMES])
    for name in NAMES if "{}" in labels_at else ():
        save_json(folder / labels_at.format(name), record(name))
    return folder


def flat(outline: shapely.Polygon) -> list[float]:
    """Return the corners as x, y, x, y, …"""
    return [value for xy in corners(outline) for value in xy]


def named_xy(outline: shapely.Polygon, sides: tuple[int, int] = (1, 1)) -> list[dict[str, float]]:
    """Return the corners as points with names, in pixels or in shares of the sides."""
    return [{"x": x / sides[0], "y": y / sides[1]} for x, y in corners(outline)]


def labelme(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        shapes = [
            {"label": "house", "points": corners(one), "group_id": None, "description": "",
             "shape_type": "polygon", "flags": {}, "mask": None}
            for one in TRUTH[name]
        ]  # fmt: skip
        return {"version": "5.8.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png",
                "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip

    return records(folder, "{}.json", record)


def via_regions(name: str) -> list[dict[str, Any]]:
    return [
        {"shape_attributes": {"name": "polygon", "all_points_x": flat(one)[::2],
                              "all_points_y": flat(one)[1::2]},
         "region_attributes": {"class": "building"}}
        for one in TRUTH[name]
    ]  # fmt: skip


def via(folder: Path, names: tuple[str, ...] = NAMES, *, project: bool = False) -> Path:
    images(folder, names=names)
    records = {
        f"{name}.png999": {"filename": f"{name}.png", "size": 999, "regions": via_regions(name),
                           "file_attributes": {}}
        for name in names
    }  # fmt: skip
    if not project:
        return save_json(folder / "via_export_json.json", records).parent
    settings = {"_via_settings": {"ui": {}}, "_via_img_metadata": records}
    return save_json(folder / "via_project.json", settings)


def via_3(folder: Path) -> Path:
    images(folder)
    choice = {"aname": "class", "type": 4, "options": {"0": "building", "1": "road"}}
    raw: dict[str, Any] = {"project": {"vid_list": [*"1234"]}, "attribute": {"5": choice},
                           "file": {}, "metadata": {"a": {"vid": "1", "xy": [], "av": {}}},
                           "view": {}}  # fmt: skip
    for view, name in zip("1234", NAMES):
        raw["file"][view] = {"fid": view, "fname": f"{name}.png", "type": 2, "loc": 1, "src": ""}
        raw["view"][view] = {"fid_list": [view]}
        for number, one in enumerate(TRUTH[name]):
            (left, top, right, bottom), xy = one.bounds, [7, *np.ravel(corners(one)).tolist()]
            if view == "4":
                xy = [2, left, top, right - left, bottom - top]
            raw["metadata"][f"{view}_{number}"] = {"vid": view, "xy": xy, "av": {"5": "0"}}
    return save_json(folder / "via_project.json", raw)


def isat(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        shapes = [("building", 1.0, corners(one)) for one in TRUTH[name]]
        if name == "chip_b":
            yard, house = shapely.box(25, 70, 50, 95), shapely.box(5, 50, 45, 90)
            shapes[0] = ("__background__", 2.0, corners(yard))
            shapes.append(("building", 1.0, corners(house)))
        keys = ("category", "layer", "segmentation")
        info = {"description": "ISAT", "name": f"{name}.png", "width": WIDTH, "height": HEIGHT,
                "note": " " * 70_000}  # fmt: skip
        return {"info": info, "objects": [dict(zip(keys, one)) for one in shapes]}

    return records(folder, "{}.json", record)


def via_csv(folder: Path) -> Path:
    images(folder)
    keys = ("region_shape_attributes", "region_attributes")
    rows = [["filename", "file_size", "file_attributes", "region_count", "region_id", *keys]]
    for name in NAMES:
        regions = via_regions(name)
        for number, one in enumerate(
            regions or [{"shape_attributes": {}, "region_attributes": {}}]
        ):
            cells = [json.dumps(one[key]) for key in ("shape_attributes", "region_attributes")]
            rows.append([f"{name}.png", "999", "{}", str(len(regions)), str(number), *cells])
    with (folder / "via_export_csv.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def supervisely(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        objects: list[dict[str, Any]] = []
        for index, one in enumerate(TRUTH[name]):
            points = {"exterior": pixel_outline(drawn(one)), "interior": []}
            shape = {"classTitle": "building", "geometryType": "polygon", "points": points}
            if index == 1:
                left, top, part = cut_out(one)
                data = base64.b64encode(zlib.compress(png_of(part, alpha=True))).decode()
                bitmap = {"data": data, "origin": [left, top]}
                shape |= {"geometryType": "bitmap", "points": {"exterior": []}, "bitmap": bitmap}
            objects.append(shape)
        return {"tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}

    meta = {"classes": [{"title": "building", "shape": "any", "color": "#0F8A12"}], "tags": []}
    save_json(folder / "meta.json", meta)
    return records(folder / "dataset 2026", "ann/{}.png.json", record, "img/{}.png").parent


def encord(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        objects = [
            {"name": "Building", "shape": "polygon", "polygon": {
                str(n): point for n, point in enumerate(named_xy(one, (WIDTH, HEIGHT)))}}
            for one in TRUTH[name]
        ]  # fmt: skip
        unit = {"data_title": f"{name}.png", "width": WIDTH, "height": HEIGHT,
                "labels": {"objects": objects, "classifications": []}}  # fmt: skip
        return {"label_hash": name, "label_status": "LABELLED", "data_units": {name: unit}}

    return records(folder, "labels.json", record)


def superannotate(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        drawn = [{"type": "polygon", "className": "building", "exclude": [], "points": flat(one)}
                 for one in TRUTH[name]]  # fmt: skip
        facts = {"name": f"{name}.png", "width": WIDTH, "height": HEIGHT, "pinned": False}
        return {"comments": [], "instances": drawn, "metadata": facts}

    save_json(folder / "classes/classes.json", [{"id": 1, "name": "building"}])
    return records(folder, "{}.png.json", record)


def kili(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        annotations = [
            {"type": "semantic", "categories": [{"name": "BUILDING"}],
             "boundingPoly": [{"normalizedVertices": named_xy(one, (WIDTH, HEIGHT))}]}
            for one in TRUTH[name]
        ]  # fmt: skip
        jobs = {"JOB_0": {"annotations": annotations}}
        label = {"labelType": "DEFAULT", "createdAt": "2026-11-29", "jsonResponse": jobs}
        return {"id": f"c-{name}", "externalId": name, "labels": [label]}

    return records(folder, "data.json", record)


def scale(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        drawn = [{"type": "polygon", "label": "building", "vertices": named_xy(one), "uuid": "u"}
                 for one in TRUTH[name]]  # fmt: skip
        asked = {"attachment_type": "image", "attachment": f"https://bucket.example/{name}.png"}
        return {"task_id": name, "type": "imageannotation", "status": "completed",
                "params": asked, "response": {"annotations": drawn}}  # fmt: skip

    return records(folder, "tasks.json", record, "images/{}.png")


def hasty(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        labels = []
        for index, one in enumerate(TRUTH[name]):
            left, top, part = cut_out(one)
            height, width = part.shape
            edges = np.cumsum(runs(part))[: len(runs(part)) // 2 * 2].reshape(-1, 2)
            mask = [
                number for start, stop in edges.tolist() for number in (start + 1, stop - start)
            ]
            shape = {"polygon": None, "mask": mask} if index == 1 else {"polygon": corners(one)}
            box = [left, top, left + width, top + height]
            labels.append({"class_name": "building", "bbox": box, "z_index": index, **shape})
        return {"image_name": f"{name}.png", "width": WIDTH, "height": HEIGHT,
                "image_status": "DONE", "labels": labels}  # fmt: skip

    images(folder / "images")
    raw = {"project_name": "roofs", "export_format_version": "1.1",
           "label_classes": [{"class_name": "building", "class_type": "object"}],
           "images": [record(name) for name in NAMES]}  # fmt: skip
    return save_json(folder / "roofs.json", raw).parent


def segments(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        drawn = [{"id": n, "category_id": 1, "type": "polygon", "points": corners(one)}
                 for n, one in enumerate(TRUTH[name], start=1)]  # fmt: skip
        label = {"label_status": "LABELED", "attributes": {"annotations": drawn}}
        return {"name": f"{name}.png", "attributes": {"image": {"url": "https://x.example/1.png"}},
                "labels": {"ground-truth": label}}  # fmt: skip

    images(folder)
    data = {"task_type": "vector", "labelsets": [{"name": "ground-truth"}],
            "task_attributes": {"categories": [{"name": "building", "id": 1}]},
            "samples": [record(name) for name in NAMES]}  # fmt: skip
    return save_json(folder / "roofs-v1.0.json", {"name": "v1.0", "dataset": data}).parent


def voc_roboflow(folder: Path) -> Path:
    images(folder / "train")
    for name in NAMES:
        objects = [
            "<object><name>building</name><bndbox/><polygon>"
            + "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(corners(o), 1))
            + "</polygon></object>"
            for o in TRUTH[name]
        ]
        text = f"<annotation><filename>{name}.png</filename>{''.join(objects)}</annotation>"
        save_text(folder / f"train/{name}.xml", text)
    return folder


def labelme_xml(folder: Path) -> Path:
    images(folder / "Images/train")
    for name in NAMES:
        outlines = [(0, one) for one in TRUTH[name]] + [(1, shapely.box(0, 0, 99, 9))]
        objects = [
            f"<object><name>house</name><deleted>{deleted}</deleted><polygon>"
            + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in corners(one))
            + "<username/></polygon></object>"
            for deleted, one in outlines
        ]
        size = f"<imagesize><nrows>{HEIGHT}</nrows><ncols>{WIDTH}</ncols></imagesize>"
        text = f"<annotation><filename>{name}.png</filename>{size}{''.join(objects)}</annotation>"
        save_text(folder / f"Annotations/train/{name}.xml", text)
    return folder


def labelbox(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        objects = [{"feature_id": "f", "name": "building", "annotation_kind": "ImagePolygon",
                    "polygon": named_xy(one)} for one in TRUTH[name]]  # fmt: skip
        labels = [{"label_kind": "Default", "annotations": {"objects": objects}}]
        return {"data_row": {"id": "cl9", "external_id": f"{name}.png", "row_data": "https://x"},
                "media_attributes": {"height": HEIGHT, "width": WIDTH},
                "projects": {"p1": {"name": "p", "labels": labels}}}  # fmt: skip

    images(folder / "images")
    # What nobody has labelled is no image without buildings.
    open_one = {"data_row": {"id": "cl8", "external_id": "open.png"},
                "projects": {"p1": {"name": "p", "labels": []}}}  # fmt: skip
    rows = [*map(record, NAMES), open_one]
    return save_text(folder / "export.ndjson", "\n".join(map(json.dumps, rows)) + "\n").parent


def darwin_masks(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        number = np.zeros(SHAPE, int)
        for value, one in enumerate(TRUTH[name], start=1):
            number[drawn(one)] = value
        ids = {f"id{value}": value for value in range(1, len(TRUTH[name]) + 1)}
        runs = [value for one in number.ravel().tolist() for value in (one, 1)]
        layer = {"dense_rle": runs, "mask_annotation_ids_mapping": ids}
        found = [{"id": key, "name": "building", "mask": {"sparse_rle": None}} for key in ids]
        found.append({"id": "r", "name": "__raster_layer__", "raster_layer": layer})
        item = {"name": f"{name}.png", "slots": [{"height": HEIGHT, "width": WIDTH}]}
        return {"item": item, "annotations": found}

    return records(folder, "annotations/{}.json", record, "images/{}.png")


def darwin(folder: Path) -> Path:
    def record(name: str) -> dict[str, Any]:
        annotations = [{"id": "x", "name": "building", "slot_names": ["0"],
                        "polygon": {"paths": [named_xy(one)]}} for one in TRUTH[name]]  # fmt: skip
        slot = {"slot_name": "0", "type": "image", "height": HEIGHT, "width": WIDTH}
        item = {"name": f"{name}.png", "path": "/", "slots": [slot]}
        return {"version": "2.0", "item": item, "annotations": annotations}

    return records(folder, "annotations/{}.json", record, "images/{}.png")


def datumaro(folder: Path) -> Path:
    images(folder / "images/default")
    labels = [{"name": "background", "parent": ""}, {"name": "building", "parent": ""}]
    items = []
    for name in NAMES:
        annotations = [
            {"id": index, "type": "polygon", "attributes": {}, "group": 0, "label_id": 1,
             "points": flat(one), "z_order": 0}
            for index, one in enumerate(TRUTH[name])
        ]  # fmt: skip
        image = {"path": f"{name}.png", "size": [HEIGHT, WIDTH]}
        items.append({"id": name, "annotations": annotations, "image": image})
    raw = {"info": {}, "categories": {"label": {"labels": labels, "attributes": []}},
           "items": items}  # fmt: skip
    return save_json(folder / "annotations/default.json", raw).parents[1]


def pairs(
    images_at: str,
    masks_at: str,
    inside: Value = 255,
    extra: dict[str, str] | None = None,
    outside: Value = 0,
) -> Callable[[Path], Path]:
    """Return a maker of images and masks in greys or colours; `extra` are text files by name."""

    def make(folder: Path) -> Path:
        images(folder, images_at)
        masks(folder, masks_at, inside, outside)
        for name, text in (extra or {}).items():
            save_text(folder / name, text)
        return folder

    return make


def npy_masks(folder: Path) -> Path:
    images(folder / "images")
    (folder / "masks").mkdir()
    for name in NAMES:
        np.save(folder / f"masks/{name}.npy", truth(name))
    return folder


def parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    def cells(pictures: list[np.ndarray]) -> list[dict[str, Any]]:
        return [{"bytes": png_of(one), "path": None} for one in pictures]

    columns = {
        "image": cells([picture(name) for name in NAMES]),
        "label": cells([truth(name).astype(np.uint8) for name in NAMES]),
    }
    # JPEG blurs between 0 and 255.
    picture_file = io.BytesIO()
    Image.fromarray(truth(NAMES[0]).astype(np.uint8) * np.uint8(255)).save(picture_file, "JPEG")
    columns["label"][0]["bytes"] = picture_file.getvalue()
    (folder / "data").mkdir(parents=True)
    table = pyarrow.table(columns)
    files.write_table(table, folder / "data/train-00000-of-00001.parquet", row_group_size=2)
    return folder


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbuilding:250,50,83::\n"

TOOLS: dict[str, Callable[[Path], Path]] = {
    "YOLO of Ultralytics": yolo_ultralytics, "YOLO of Roboflow": yolo_roboflow,
    "YOLO with classes.txt": yolo_classes,
    "data.yaml": lambda folder: yolo_ultralytics(folder, 'nc: 1\nnames: ["roof"]\n') / "data.yaml",
    "COCO of Roboflow": coco_roboflow, "COCO of CVAT": coco_cvat,
    "COCO, other parts": partial(coco_roboflow, parts=("Training", "Validation2", "holdout")),
    "COCO of CVAT, brush": coco_cvat_brush,
    "COCO file in annotations": lambda folder: coco_cvat(folder) / CVAT_COCO,
    "COCO of Label Studio": coco_labelstudio, "COCO of CrowdAI": coco_crowdai,
    "CVAT for images": cvat_xml, "LabelMe": labelme, "LabelMe XML": labelme_xml,
    "VIA": via,
    "VIA in parts": lambda folder: [via(folder / "train", NAMES[:2]),
                                    via(folder / "val", NAMES[2:])][0].parent,
    "VIA project": partial(via, project=True),
    "VIA 3": via_3, "VIA CSV": via_csv, "ISAT": isat, "Supervisely": supervisely,
    "Labelbox": labelbox, "Darwin": darwin, "Darwin masks": darwin_masks, "Encord": encord,
    "Kili": kili, "SuperAnnotate": superannotate, "Scale AI": scale, "Hasty": hasty,
    "Segments.ai": segments, "Datumaro": datumaro,
    "Roboflow masks": pairs("train/{}.jpg", "train/{}_mask.png", 1,
                            {"train/_classes.csv": "Pixel Value, Class\n0, background\n1, roof\n"}),
    "CVAT mask": pairs("JPEGImages/{}.png", "SegmentationClass/{}.png", (250, 50, 83),
                       {"labelmap.txt": LABELMAP}, (0, 0, 0)),
    "Pascal VOC of LabelMe": pairs("JPEGImages/{}.png", "SegmentationClass/{}.png", 2,
                                   {"class_names.txt": "_background_\ntree\nbuilding"}),
    "Pascal VOC": pairs("VOC2012/JPEGImages/{}.jpg", "VOC2012/SegmentationClass/{}.png", 1),
    "Pascal VOC of Roboflow": voc_roboflow,
    "masks as npy": npy_masks,
    "Hugging Face Parquet": parquet,
}  # fmt: skip
"""Makers of exports of label tools, by name."""
