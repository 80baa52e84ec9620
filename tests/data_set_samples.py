"""Data sets as they are downloaded, with the scenes of `label_samples`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely

from label_samples import (
    HEIGHT,
    NAMES,
    SHAPE,
    TRUTH,
    WIDTH,
    coco_document,
    drawn,
    images,
    pairs,
    picture,
    place,
    save,
    save_json,
    save_text,
    truth,
)


def masks_of_one_building(folder: Path) -> Path:
    for name in NAMES:
        save(folder / f"stage1_train/{name}/images/{name}.png", picture(name))
        for number, one in enumerate([*TRUTH[name], shapely.Polygon()]):
            mask = drawn(one).astype(np.uint8) * np.uint8(255)
            save(folder / f"stage1_train/{name}/masks/{number}.png", mask)
    return folder


def spacenet_csv(folder: Path) -> Path:
    images(folder / "RGB-PanSharpen", "RGB-PanSharpen_{}.tif")
    images(folder / "MUL", "MUL_{}.tif")
    lines = ["ImageId,BuildingId,PolygonWKT_Pix,PolygonWKT_Geo"]
    for name in NAMES:
        for number, one in enumerate(TRUTH[name]):
            ring = ",".join(f"{x} {y} 0" for x, y in one.exterior.coords)
            lines.append(f'{name},{number},"POLYGON (({ring}))","POLYGON EMPTY"')
        if not TRUTH[name]:
            lines.append(f"{name},-1,POLYGON EMPTY,POLYGON EMPTY")
    return save_text(folder / "summaryData_Train_Buildings.csv", "\n".join(lines) + "\n").parent


def xbd(folder: Path) -> Path:
    for name in NAMES:
        lost = {"destroyed": shapely.box(0, 0, 3, 9), "un-classified": shapely.box(0, 0, 1, 1)}
        for when, more in (("pre", {}), ("post", lost)):
            save(folder / f"train/images/{name}_{when}_disaster.png", picture(name))
            states = [("minor-damage", one) for one in TRUTH[name]]
            features = [
                {"properties": {"feature_type": "building", "subtype": state}, "wkt": one.wkt}
                for state, one in (*states, *more.items())
            ]
            for one in (places := [dict(one) for one in features]):
                flat = shapely.from_wkt(one["wkt"])
                one["wkt"] = shapely.transform(flat, lambda xy: xy * (4.5e-6, -4.5e-6)).wkt
            facts = {"height": HEIGHT, "width": WIDTH, "img_name": f"{name}_{when}_disaster.png"}
            raw = {"features": {"lng_lat": places, "xy": features}, "metadata": facts}
            save_json(folder / f"train/labels/{name}_{when}_disaster.json", raw)
            save(folder / f"train/targets/{name}_{when}_disaster_target.png",
                 truth(name).astype(np.uint8))  # fmt: skip
    return folder


def outlines_file(path: Path, name: str) -> None:
    """Write a GeoJSON of the outlines over the GeoTIFF of an image."""
    from pyproj import Transformer

    to_lonlat = Transformer.from_crs(32633, 4326, always_xy=True)
    features = []
    for one in TRUTH[name]:
        world = [place(name) @ xy for xy in one.exterior.coords]
        ring = [list(to_lonlat.transform(x, y)) for x, y in world]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"id": 1}, "geometry": geometry})
    save_json(path, {"type": "FeatureCollection", "features": features})


def vectors(images_at: str, labels_at: str) -> Callable[[Path], Path]:
    """Return a maker of GeoTIFFs with a GeoJSON each."""

    def make(folder: Path) -> Path:
        for name in NAMES:
            save(folder / images_at.format(name), picture(name))
            outlines_file(folder / labels_at.format(name), name)
        return folder

    return make


def spacenet_8(folder: Path) -> Path:
    """Write buildings and roads in one file; one image has roads alone."""
    vectors("PRE-event/10500500C4DD7000_0_{}.tif", "annotations/0_{}.geojson")(folder)
    images(folder / "POST-event", "10500500E6DD3C00_0_{}.tif")
    line = {"type": "LineString", "coordinates": [[15.0, 45.15], [15.001, 45.15]]}
    for file in (folder / "annotations").iterdir():
        raw = json.loads(file.read_text())
        raw["features"].append({"type": "Feature", "properties": {}, "geometry": line})
        save_json(file, raw)
    return folder


def landcover_tiles(folder: Path) -> Path:
    """Write what `split.py` leaves: the sheets, their tiles, and lists of the tiles."""
    sheet = "M-33-20-D-c-4-2"
    save(folder / f"images/{sheet}.tif", picture(NAMES[0]))
    save(folder / f"masks/{sheet}.tif", truth(NAMES[0]).astype(np.uint8))
    for number, name in enumerate(NAMES):
        save(folder / f"output/{sheet}_0_{number}_{name}.jpg", picture(name))
        save(folder / f"output/{sheet}_0_{number}_{name}_m.png", truth(name).astype(np.uint8))
    return folder


def massachusetts(folder: Path) -> Path:
    for kind, suffix in (("tiff", "tif"), ("png", "png")):
        for part, name in zip(("train", "train", "val", "train"), NAMES):
            save(folder / f"{kind}/{part}/{name}.{suffix}", picture(name))
            mask = truth(name).astype(np.uint8) * 255
            save(folder / f"{kind}/{part}_labels/{name}.{suffix}", mask)
    return save_text(folder / "label_class_dict.csv", WHITE["class_dict.csv"]).parent


def inria(folder: Path) -> Path:
    save(folder / "AerialImageDataset/test/images/bellingham1.tif", picture("chip_a"))
    train = "AerialImageDataset/train"
    return pairs(f"{train}/images/{{}}.tif", f"{train}/gt/{{}}.tif")(folder)


def arcgis_instances(folder: Path) -> Path:
    images(folder / "images", "{}.tif")
    for name in NAMES:
        numbered = np.zeros(SHAPE, np.uint8)
        for number, one in enumerate(TRUTH[name], start=1):
            numbered[drawn(one)] = number
        save(folder / f"labels/1/{name}.tif", numbered)
    return folder


def dfc2023(folder: Path) -> Path:
    save_json(folder / "buildings_only_train.json", coco_document(NAMES, "{}.tif"))
    for kind in ("rgb", "sar"):
        images(folder / "train" / kind, "{}.tif")
    return folder


TILES = "1. The two-period image data/2012/splited_images/train"
COLOURS = {"label_colors.txt": "0 0 0 background\n250 50 83\tbuilding\n1 2 3 road\n"}
WHITE = {"class_dict.csv": "name,r,g,b\nland,0,0,0\nbuilding,255,255,255\nroad,9,9,9\n"}

DOWNLOADS: dict[str, Callable[[Path], Path]] = {
    "INRIA": inria,
    "WHU": pairs("train/image/{}.tif", "train/label/{}.tif"),
    "WHU, two dates": pairs("{0}/{0}.tif", "{0}_label/{0}_label.tif", 1),
    "WHU, tiles of two dates": pairs(f"{TILES}/image/{{}}.tif", f"{TILES}/label/{{}}.tif", 1),
    "DFC2023": dfc2023,
    "Massachusetts, Kaggle": massachusetts,
    "Massachusetts": pairs("train/sat/{}.tif", "train/map/{}.tif", (255, 0, 0), WHITE),
    "OpenEarthMap": pairs("OpenEarthMap_wo_xBD/aachen/images/aachen_{}.tif",
                          "OpenEarthMap_wo_xBD/aachen/labels/aachen_{}.tif", 8, outside=1),
    "CamVid": pairs("train/{}.png", "trainannot/{}.png", (250, 50, 83), COLOURS),
    "Cityscapes": pairs("leftImg8bit/train/{}_leftImg8bit.png", "gtFine/train/{}_gtFine_color.png",
                        (250, 50, 83), COLOURS),
    "KITTI": pairs("train/image_2/{}.png", "train/semantic_rgb/{}.png", (250, 50, 83), COLOURS),
    "Data Science Bowl 2018": masks_of_one_building,
    "numbered pairs": pairs("image_{}.png", "mask_{}.png"),
    "a folder for each image": pairs("{}/image.png", "{}/mask.png"),
    "Carvana": pairs("train/{}.jpg", "train_masks/{}_mask.gif", 1),
    "DeepGlobe": pairs("train/{}_sat.jpg", "train/{}_mask.png"),
    "LandCover.ai": pairs("images/M-33-20-D-c-4-{}.tif", "masks/M-33-20-D-c-4-{}.tif", 1),
    "LandCover.ai tiles": landcover_tiles,
    "RoboSat": pairs("images/19/386690/{}.webp", "labels/19/386690/{}.png", 1),
    "LoveDA": pairs("Train/Urban/images_png/{}.png", "Train/Urban/masks_png/{}.png", 2,
                    outside=1),
    "ISPRS Potsdam": pairs("2_Ortho_RGB/{}_RGB.tif", "5_Labels_all/{}_label.tif", (0, 0, 255),
                           outside=(0, 255, 255)),
    "ISPRS Potsdam, RGBIR": pairs(
        "4_Ortho_RGBIR/{}_RGBIR.tif", "5_Labels_all_noBoundary/{}_label_noBoundary.tif",
        (0, 0, 255), outside=(255, 255, 0)),
    "ISPRS Vaihingen": pairs("ISPRS_semantic_labeling_Vaihingen/top/{}.tif",
                             "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/{}.tif",
                             (0, 0, 255), outside=(0, 255, 0)),
    "AIRS": pairs("train/image/{}.tif", "train/label/{}.tif", 1),
    "xBD": xbd,
    "SpaceNet 1": vectors("3band/3band_{}.tif", "geojson/Geo_{}.geojson"),
    "SpaceNet 2": vectors("AOI_2_Vegas_Train/RGB-PanSharpen/RGB-PanSharpen_{}.tif",
                          "AOI_2_Vegas_Train/geojson/buildings/buildings_{}.geojson"),
    "SpaceNet 4": vectors("Atlanta_nadir7_x/Pan-Sharpen/Pan-Sharpen_Atlanta_nadir7_x_{}.tif",
                          "geojson/spacenet-buildings/spacenet-buildings_{}.geojson"),
    "SpaceNet 6": vectors("AOI_11/PS-RGB/SN6_Train_AOI_11_PS-RGB_{}.tif",
                          "AOI_11/geojson_buildings/SN6_Train_AOI_11_Buildings_{}.geojson"),
    "SpaceNet 7": vectors("train/L15-0331E/images_masked/{}.tif",
                          "train/L15-0331E/labels_match/{}_Buildings.geojson"),
    "SpaceNet 8": spacenet_8,
    "SpaceNet CSV": spacenet_csv,
    "FLAIR": pairs("flair_aerial_train/D004_2021/Z1_NN/img/IMG_{}.tif",
                   "flair_labels_train/D004_2021/Z1_NN/msk/MSK_{}.tif", 1, outside=19),
    "RAMP": vectors("source/{}.tif", "labels/{}.geojson"),
    "Open Cities": vectors("train_tier_1/acc/{0}/{0}.tif",
                           "train_tier_1/acc/{0}-labels/{0}.geojson"),
    "ArcGIS Pro classified tiles": pairs(
        "images/{}.tif", "labels/{}.tif", 7,
        {"esri_model_definition.emd": '{"Classes": [{"Value": 7, "Name": "Building"}]}'}),
    "ArcGIS Pro RCNN masks": arcgis_instances,
    "MMSegmentation": pairs("img_dir/train/{}.png", "ann_dir/train/{}.png", 1),
    "nnU-Net": pairs("Dataset001/imagesTr/{}_0000.png", "Dataset001/labelsTr/{}.png", 1,
                     {"Dataset001/dataset.json": '{"labels": {"background": 0, "building": 1}}'}),
}  # fmt: skip
"""Makers of data sets as they are downloaded, by name."""
