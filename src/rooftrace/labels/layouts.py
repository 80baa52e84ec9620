"""Table of the known layouts of images and their label files in a folder.

A row of `LAYOUTS` is one way in which tools and downloads lay out files. A new one is a new row.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Layout:
    """One way to lay out images and their labels below a base folder.

    Fields in braces stand for parts of names; `{id}` names the scene, and `{part}` goes before it
    in its id. `.*` is any suffix of an image or of a label; `*` is a folder of masks, each of one
    building.

    Args:
        name: Tool or data set; layouts of one name exclude one another, the first wins.
        labels: Fields of `LabelConfig` for masks whose values are not class indices.
        unlabelled: Pattern of images that have no label.
        skip: Pattern of files that are neither images nor labels of the set.
        missing: What an image without a label file is; default an error for masks and vector
            files, empty for YOLO, unlabelled for JSON.
        holds: Bytes that occur near the beginning of each label file.
    """

    image: str
    label: str
    name: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: str = ""
    skip: str = ""
    missing: str = ""
    holds: bytes = b""

    @property
    def reading(self) -> str:
        """Description of the layout for the user."""
        shown = f"{self.image} + {self.label}".replace("{id}", "NAME").replace(".*", ".ext")
        shown = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), shown)
        return f"{self.name}: {shown}" if self.name else shown


def _values(**values: Any) -> dict[str, Any]:
    return {"values": values}


FIELDS = {"sheet": r"[MN]-3\d-\d+-[A-D]-[a-d]-\d-\d", "zoom": r"\d\d"}
"""Regular expressions of fields that are not any name, such as the map sheets of Poland."""

_ISPRS = {
    "palette": {
        "building": "#0000FF",
        "background": ("#FFFFFF", "#00FFFF", "#00FF00", "#FFFF00", "#FF0000"),
    },
    "ignore": ("#000000",),
}
_LOVEDA = _values(building=2, background=(1, 3, 4, 5, 6, 7)) | {"ignore": (0,)}
_LANDCOVER = _values(building=1, background=(0, 2, 3, 4))

MASK_NAMES = (
    "label", "labels", "mask", "masks", "annotation", "segmentation", "semantic_mask", "gt",
)  # fmt: skip
"""Names of columns, and of folders, of masks."""

LAYOUTS = (
    # Its split.py leaves the sheets beside the tiles that it cuts from them.
    Layout("output/{id}.jpg", "output/{id}_m.png", "LandCover.ai", _LANDCOVER),
    Layout("images/{sheet}.tif", "masks/{sheet}.tif", "LandCover.ai", _LANDCOVER),
    Layout("images/{id}_pre_disaster.*", "labels/{id}_pre_disaster.json", "xBD",
           skip="images/{id}_post_disaster.*"),
    *(Layout(f"{images}/{{id}}.*", f"{masks}/{{id}}.*")
      for images in ("images", "image", "imgs", "img") for masks in ("masks", "mask")),
    Layout("train/images/img_{id}.*", "train/masks/mask_{id}.*", unlabelled="test/{id}.*"),
    Layout("images/images/{id}.*", "label/label/{id}_label.*"),
    Layout("images/{part}/{id}.*", "labels/{part}/{id}.txt", "YOLO"),
    Layout("images/{part}/{id}.*", "masks/{part}/{id}.*"),
    Layout("images/{zoom}/{part}/{id}.*", "labels/{zoom}/{part}/{id}.*", "RoboSat"),
    Layout("images/{zoom}/{part}/{id}.*", "masks/{zoom}/{part}/{id}.*", "map tiles"),
    Layout("images/{id}.*", "labels/{id}.*"),
    Layout("images/{id}.*", "gt/{id}.*", "INRIA"),
    Layout("image/{id}.*", "label/{id}.*", "WHU, AIRS", skip="label/{id}_vis.*"),
    Layout("{id}/{id}.*", "{id}_label/{id}_label.*", "WHU, two dates", missing="unlabelled"),
    Layout("tiff/{part}/{id}.*", "tiff/{part}_labels/{id}.*", "Massachusetts"),
    Layout("png/{part}/{id}.*", "png/{part}_labels/{id}.*", "Massachusetts"),
    Layout("{part}/{id}.*", "{part}_labels/{id}.*", "Massachusetts"),
    Layout("sat/{id}.*", "map/{id}.*", "Massachusetts"),
    Layout("{part}/{id}.*", "{part}annot/{id}.*", "CamVid", missing="unlabelled"),
    Layout("leftImg8bit/{part}/{id}_leftImg8bit.*", "gtFine/{part}/{id}_gtFine_color.*",
           "Cityscapes", missing="unlabelled", skip="gtFine/{part}/{id}_gtFine_{of}Ids.*"),
    Layout("{part}/image_2/{id}.*", "{part}/semantic_rgb/{id}.*", "KITTI", missing="unlabelled"),
    Layout("{part}/{id}.*", "{part}_masks/{id}_mask.*", "Carvana", missing="unlabelled"),
    Layout("image_{id}.*", "mask_{id}.*", "numbered pairs", missing="unlabelled"),
    Layout("{id}/image.*", "{id}/mask.*", "a folder for each image", missing="unlabelled"),
    Layout("{id}/images/{id}.*", "{id}/masks/*", "Data Science Bowl 2018", missing="unlabelled"),
    Layout("{id}_sat.jpg", "{id}_mask.png", "DeepGlobe", missing="unlabelled"),
    Layout("images_png/{id}.png", "masks_png/{id}.png", "LoveDA", _LOVEDA),
    Layout("OpenEarthMap_wo_xBD/{part}/images/{id}.tif",
           "OpenEarthMap_wo_xBD/{part}/labels/{id}.tif", "OpenEarthMap",
           _values(building=8, background=tuple(range(1, 8))) | {"ignore": (0,)},
           missing="unlabelled"),
    # All that have red, green and blue go before those that have infrared in their place.
    *(Layout(f"{images}/{{id}}_{{bands}}.tif", f"5_Labels_{labels}.tif", "ISPRS Potsdam", _ISPRS,
             missing="unlabelled")
      for images in ("2_Ortho_{bands}", "4_Ortho_{bands}", "3_Ortho_{bands}")
      for labels in ("all/{id}_label", "for_participants/{id}_label",
                     "all_noBoundary/{id}_label_noBoundary")),
    *(Layout(f"{base}top/{{id}}.tif", labels, "ISPRS Vaihingen", _ISPRS, missing="unlabelled")
      for base in ("", "ISPRS_semantic_labeling_Vaihingen/")
      for labels in (f"{base}gts_for_participants/{{id}}.tif",
                     "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/{id}.tif")),
    Layout("img_dir/{part}/{id}.*", "ann_dir/{part}/{id}.*", "MMSegmentation"),
    Layout("imagesTr/{id}_0000.*", "labelsTr/{id}.*", "nnU-Net", unlabelled="imagesTs/{id}.*"),
    Layout("JPEGImages/{id}.*", "SegmentationClass/{id}.*", "Pascal VOC",
           _values(building=1, background=0) | {"ignore": (255,)}, missing="unlabelled"),
    Layout("{id}.*", "{id}_mask.*", "Roboflow masks", missing="unlabelled"),
    Layout("images/{id}.*", "labels/1/{id}.*", "ArcGIS Pro RCNN masks", {"instances": True}),
    Layout("{id}.*", "{id}.json", "LabelMe", holds=b'"shapes"'),
    Layout("{id}.*", "{id}.json", "ISAT", holds=b'"ISAT"'),
    Layout("{id}.*", "{id}.xml", "Pascal VOC XML", missing="unlabelled", holds=b"<annotation>"),
    Layout("JPEGImages/{id}.*", "Annotations/{id}.xml", "Pascal VOC XML", missing="unlabelled",
           holds=b"<annotation>"),
    Layout("Images/{part}/{id}.*", "Annotations/{part}/{id}.xml", "LabelMe XML",
           missing="unlabelled", holds=b"<annotation>"),
    Layout("img/{file}", "ann/{file}.json", "Supervisely"),
    Layout("images/{id}.*", "annotations/{id}.json", "Darwin"),
    Layout("images/{id}.*", "releases/latest/annotations/{id}.json", "Darwin"),
    Layout("images/{id}_pre_disaster.*", "targets/{id}_pre_disaster_target.*", "xBD",
           skip="images/{id}_post_disaster.*"),
    Layout("3band/3band_{id}.tif", "geojson/Geo_{id}.geojson", "SpaceNet 1"),
    Layout("3band/3band_{id}.tif", "vectordata/geojson/Geo_{id}.geojson", "SpaceNet 1"),
    Layout("RGB-PanSharpen/RGB-PanSharpen_{id}.tif", "geojson/buildings/buildings_{id}.geojson",
           "SpaceNet 2"),
    Layout("PS-RGB/{set}_PS-RGB_{id}.tif",
           "geojson_buildings/{set}_geojson_buildings_{id}.geojson", "SpaceNet 2"),
    Layout("{part}/Pan-Sharpen/Pan-Sharpen_{part}_{id}.tif",
           "geojson/spacenet-buildings/spacenet-buildings_{id}.geojson", "SpaceNet 4"),
    Layout("PS-RGB/{set}_PS-RGB_{id}.tif", "geojson_buildings/{set}_Buildings_{id}.geojson",
           "SpaceNet 6"),
    Layout("images_masked/{id}.tif", "labels_match/{id}_Buildings.geojson", "SpaceNet 7"),
    Layout("PRE-event/{scene}_{id}.tif", "annotations/{id}.geojson", "SpaceNet 8"),
    Layout("source/{id}.tif", "labels/{id}.geojson", "RAMP"),
    Layout("flair_aerial_train/{part}/{zone}/img/IMG_{id}.tif",
           "flair_labels_train/{part}/{zone}/msk/MSK_{id}.tif", "FLAIR",
           _values(building=1, background=tuple(range(2, 20)))),
    Layout("{id}/{id}.tif", "{id}-labels/{id}.geojson", "Open Cities"),
)  # fmt: skip
"""Known layouts; of two that fit the same files, the first counts."""
