"""Images of bright squares, of which some are buildings, for models of brightness."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PIECES, SIDE = 5, 20
"""Squares along each side of an image, and pixels from one to the next."""


def write_squares(
    folder: Path,
    count: int,
    is_building: Callable[[int, np.random.Generator], bool],
    levels: Sequence[int] = range(140, 250),
    *,
    transparent: bool = False,
) -> Path:
    """Write pairs `images/N.png` and `masks/N.png` of 25 squares of 12 pixels on dark ground.

    Args:
        folder: Folder to write.
        count: Number of images.
        is_building: Function of the brightness of a square and of a generator of random numbers.
        levels: Values that the brightness is drawn from.
        transparent: True to make the right half of every image transparent.
    """
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        image = np.full((PIECES * SIDE, PIECES * SIDE, 3), 10, np.uint8)
        mask = np.zeros(image.shape[:2], np.uint8)
        for row, col in np.ndindex(PIECES, PIECES):
            place = np.s_[row * SIDE + 4 : row * SIDE + 16, col * SIDE + 4 : col * SIDE + 16]
            image[place] = level = int(rng.choice(levels))
            mask[place] = 255 * is_building(level, rng)
        if transparent:
            alpha = np.full(mask.shape, 255, np.uint8)
            alpha[:, mask.shape[1] // 2 :] = 0
            image = np.dstack([image, alpha])
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder
