"""Scenes of many classes are reproducible, and their masks agree with the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from landcover import landcover_legend, write_landcover
from rooftrace.io.raster import open_raster


def test_image_and_mask_agree(tmp_path: Path) -> None:
    assert write_landcover(tmp_path / "a", [3], classes=20, shape_yx=(100, 130)) == [
        "landcover_00003"
    ]
    legend = landcover_legend(20)
    image = open_raster(tmp_path / "a/images/landcover_00003.tif").read().data.astype(int)
    with Image.open(tmp_path / "a/masks/landcover_00003.png") as opened:
        mask = np.asarray(opened)
    assert mask.shape == (100, 130)
    assert len(np.unique(mask)) > 10
    assert mask.max() < 20
    colours = np.moveaxis(legend.table[mask, :3].astype(int), -1, 0)
    assert np.abs(image - colours).max() <= 6
    assert (image != colours).any()


def test_the_same_seed_gives_the_same_scene(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_landcover(tmp_path / folder, [5], shape_yx=(64, 64))
    write_landcover(tmp_path / "b", [6], shape_yx=(64, 64))
    masks = {
        name: (tmp_path / name).read_bytes()
        for name in (
            "a/masks/landcover_00005.png",
            "b/masks/landcover_00005.png",
            "b/masks/landcover_00006.png",
        )
    }
    one, same, other = masks.values()
    assert one == same != other
