"""Generated land cover in the 20 classes of recipes/pix2pix-20class.toml.

    python recipes/landcover_data.py work/landcover

writes `OUT/images/NAME.png` (RGB, 256²), `OUT/masks/NAME.png`, whose values are the classes in the
order of the recipe, and the card of the folder, which names them. Patches of ground have crooked
borders; buildings are turned rectangles, and roads and water run through the scene. Several classes
share a colour and differ in texture alone, such as vineyard, brushwood and clear cut. Light, blur
and noise change from scene to scene, so that borders are not sharp: what a refiner could mend.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 256
PATCHES = 22
RECIPE = Path(__file__).with_name("pix2pix-20class.toml")


class Surface(NamedTuple):
    """Colour of a class, and its texture.

    Args:
        rgb: Mean colour.
        grain: Standard deviation of the texture, in grey values.
        grain_px: Sigma of the texture's blur: small for grass, large for trees.
        rows_px: Distance between parallel rows, such as those of vines; 0 for none.
    """

    rgb: tuple[int, int, int]
    grain: float
    grain_px: float
    rows_px: float = 0.0


SURFACES = {
    "background": Surface((120, 110, 100), 12, 4.0),
    "building": Surface((165, 100, 85), 6, 1.0),
    "pervious surface": Surface((170, 160, 140), 10, 0.8),
    "impervious surface": Surface((130, 130, 132), 4, 1.5),
    "bare soil": Surface((160, 130, 100), 8, 2.0),
    "water": Surface((50, 75, 90), 2, 6.0),
    "coniferous": Surface((40, 70, 45), 16, 1.5),
    "deciduous": Surface((65, 100, 50), 16, 3.5),
    "brushwood": Surface((100, 115, 70), 18, 2.5),
    "vineyard": Surface((105, 118, 72), 4, 1.0, 6.0),
    "herbaceous vegetation": Surface((115, 140, 80), 5, 1.0),
    "agricultural land": Surface((150, 155, 90), 4, 3.0, 11.0),
    "plowed land": Surface((140, 112, 88), 4, 1.0, 4.0),
    "swimming pool": Surface((90, 190, 205), 2, 2.0),
    "snow": Surface((235, 238, 242), 3, 3.0),
    "clear cut": Surface((112, 108, 78), 20, 1.2),
    "mixed": Surface((55, 88, 48), 18, 2.2),
    "ligneous": Surface((80, 95, 55), 12, 5.0),
    "greenhouse": Surface((205, 212, 215), 3, 1.0, 8.0),
    "other": Surface((95, 85, 110), 10, 2.0),
}
BUILT = ("building", "swimming pool", "greenhouse")
LINES = ("impervious surface", "water")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=240)
    options = parser.parse_args()
    classes = tomllib.loads(RECIPE.read_text(encoding="utf-8"))["data"]["labels"]["classes"]
    for part in ("images", "masks"):
        (options.out / part).mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(len(classes), np.int64)
    for number in range(options.scenes):
        rng = np.random.default_rng([20, number])
        mask = drawn_mask(rng, classes)
        pixels += np.bincount(mask.ravel(), minlength=len(classes))
        image = photographed(rng, mask, classes)
        cv2.imwrite(str(options.out / "images" / f"land_{number:03d}.png"), image[..., ::-1])
        cv2.imwrite(str(options.out / "masks" / f"land_{number:03d}.png"), mask)
    card = f'path = "."\nkind = "folder"\n\n[labels]\nclasses = {json.dumps(classes)}\n'
    (options.out / "rooftrace.toml").write_text(card, encoding="utf-8")
    shares = {name: round(float(n / pixels.sum()), 4) for name, n in zip(classes, pixels)}
    print(json.dumps({"scenes": options.scenes, "shares": shares}, indent=1))


def drawn_mask(rng: np.random.Generator, classes: list[str]) -> NDArray[np.uint8]:
    """Return (y, x) classes: patches, then lines, then small built things on top."""
    ground = [n for n, name in enumerate(classes) if name not in (*BUILT, *LINES)]
    rows, cols = np.mgrid[:SIDE_PX, :SIDE_PX] + 6 * np.stack([smooth(rng, 8), smooth(rng, 8)])
    places = rng.random((PATCHES, 2)) * SIDE_PX
    distance = (rows[..., None] - places[:, 0]) ** 2 + (cols[..., None] - places[:, 1]) ** 2
    classes_of_patches = rng.choice(ground, PATCHES).astype(np.uint8)
    mask: NDArray[np.uint8] = classes_of_patches[distance.argmin(axis=-1)]
    for name in LINES:
        if rng.random() < 0.7:
            along = rng.random((4, 2)) * SIDE_PX
            along[[0, -1], rng.integers(2)] = (-10, SIDE_PX + 10)
            width = int(rng.integers(4, 12))
            cv2.polylines(mask, [along.astype(np.int32)], False, classes.index(name), width)
    for name in BUILT:
        longest = 10 if name == "swimming pool" else 40
        for _ in range(rng.integers(2, 9)):
            size = rng.uniform(longest / 3, longest, 2)
            box = (rng.random(2) * SIDE_PX, size, float(rng.uniform(0, 90)))
            corners = cv2.boxPoints((tuple(box[0]), tuple(box[1]), box[2]))
            cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], classes.index(name))
    return mask


def photographed(
    rng: np.random.Generator, mask: NDArray[np.uint8], classes: list[str]
) -> NDArray[np.uint8]:
    """Return the (y, x, RGB) image of (y, x) classes."""
    image = np.empty((*mask.shape, 3))
    rows, cols = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for index, name in enumerate(classes):
        surface = SURFACES[name]
        texture = surface.grain * smooth(rng, surface.grain_px)
        if surface.rows_px:
            angle = rng.uniform(0, math.pi)
            across = rows * math.sin(angle) + cols * math.cos(angle)
            texture += 14 * np.sin(2 * math.pi * across / surface.rows_px)
        at = mask == index
        image[at] = (np.array(surface.rgb) + rng.normal(0, 6, 3) + texture[..., None])[at]
    light = rng.uniform(0.75, 1.2) * (1 + 0.08 * smooth(rng, 40))[..., None]
    image = cv2.GaussianBlur(image * light, (0, 0), rng.uniform(0.8, 1.8))
    return (image + rng.normal(0, 5, image.shape)).clip(0, 255).astype(np.uint8)


def smooth(rng: np.random.Generator, sigma_px: float) -> NDArray[np.float64]:
    """Return (y, x) noise of mean 0 and standard deviation 1, blurred."""
    noise = cv2.GaussianBlur(rng.normal(size=(SIDE_PX, SIDE_PX)), (0, 0), sigma_px)
    return np.asarray((noise - noise.mean()) / noise.std())


if __name__ == "__main__":
    main()
