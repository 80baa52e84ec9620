"""Draw the tiles of docs/finetune.md: 10, 20 and 40 of a place to label, and others to test on.

    python recipes/finetune_data.py work/finetune

makes accra10, accra20, accra40, accra_rest and the same of jonkoping, with links to the images and
masks in $ROOFTRACE_DATA. The 10 and the 20 tiles are among the 40. Of Jönköping only the columns 0
to 12 are used: the others choose the epoch of the bundled model.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

TILES = (10, 20, 40)
LAST_COLUMN = 12


def main(out: Path) -> None:
    data = Path(os.environ["ROOFTRACE_DATA"])
    for place in ("accra", "jonkoping"):
        images = sorted((data / place / "images").iterdir())
        if place == "jonkoping":
            images = [one for one in images if int(one.stem.rpartition("_")[2]) <= LAST_COLUMN]
        random.Random(0).shuffle(images)
        parts = {str(count): images[:count] for count in TILES}
        for name, chosen in {**parts, "_rest": images[TILES[-1] :]}.items():
            link_pairs(chosen, data / place / "masks", out / f"{place}{name}")
            print(f"{out / (place + name)}: {len(chosen)} tiles")


def link_pairs(images: list[Path], masks: Path, folder: Path) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for image in images:
        (mask,) = masks.glob(f"{image.stem}.*")
        (folder / "images" / image.name).symlink_to(image.resolve())
        (folder / "masks" / mask.name).symlink_to(mask.resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
