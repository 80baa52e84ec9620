"""Fine-tuning on a few tiles of a place: the verdict, and the truth on the other tiles.

A draw is PLACE:SEED. Its tiles, which have buildings, are shuffled by the seed; the first ones are
tuned on, and up to 32 others tell whether the verdict was right. Needs the real imagery, in
ROOFTRACE_DATA. A series that was stopped resumes with the draws that it has not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from common import argument_parser, measure_rooftrace, rounded, say, start


class Place(NamedTuple):
    """Labelled tiles that the bundled model was not trained on.

    Args:
        folder: Their folder, with `images` and `masks`.
        ending: Ending of their names.
        gsd_m: Metres per pixel.
    """

    folder: str
    ending: str
    gsd_m: float


PLACES = {
    "jonkoping": Place("jonkoping", "", 0.15),
    "kampala": Place("oam/kampala", "-20", 0.15),
    "catanduanes": Place("oam/catanduanes", "-21", 0.073),
}

DRAWS = (
    *(f"jonkoping:{seed}" for seed in range(7)), "kampala:0", "kampala:1", "catanduanes:0",
)  # fmt: skip

_LEAST_BUILT, _MOST_REST = 0.01, 32

_HARDLY = 0.005
"""Gain of the mean of IoU and F1 below which "no different" is right."""

FIGURES = {"IoU": ("pixel", "iou"), "F1 of buildings": ("objects", "f1")}
"""Figures, and the keys under which an evaluation has them."""


def main() -> dict[str, Any]:
    options = _options()
    runs = {draw: _run(draw, options) for draw in options.draws}
    right = sum(one["right"] for one in runs.values())
    say(f"the verdict's sign is right in {right} of {len(runs)} draws")
    return {"tiles": options.tiles, "minutes": options.minutes, "right": right, "draws": runs}


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("draws", nargs="*", default=list(DRAWS), help="PLACE:SEED; default: ten")
    parser.add_argument("--tiles", type=int, default=16, help="tiles to tune on")
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes of each fine-tuning")
    options = parser.parse_args()
    options.data = Path(os.environ["ROOFTRACE_DATA"])
    return options


def _run(draw: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one draw, from an earlier run if there was one."""
    name, seed = draw.split(":")
    minutes = f"{options.minutes:g}"
    folder = options.work / "finetune" / f"{name}-{seed}-{options.tiles}-{minutes}"
    kept = folder / "figures.json"
    if kept.exists():
        return dict(json.loads(kept.read_text("utf-8")))
    shutil.rmtree(folder, ignore_errors=True)
    place, run = PLACES[name], folder / "run"
    scale = "--gsd", str(place.gsd_m)
    _draw(options.data / place.folder, place.ending, int(seed), options.tiles, folder)
    made = measure_rooftrace(
        "finetune", folder / "few", *scale, "-o", run, "--minutes", minutes, "--seed", seed
    )
    truth = measure_rooftrace(
        "evaluate", run / "best_iou.rooftrace", "default", folder / "rest", *scale,
        "-o", folder / "truth",
    ).report["reports"]  # fmt: skip
    figures: dict[str, Any] = {
        "verdict": made.report["verdict"], "share": made.report["share"],
        "late_s": rounded(made.seconds - 60 * options.minutes), "seconds": rounded(made.seconds),
    }  # fmt: skip
    gain = 0.0
    for figure, (group, key) in FIGURES.items():
        tuned, before = (one[group][key] for one in truth)
        gain += (tuned - before) / len(FIGURES)
        figures[figure] = {"said": made.report["figures"][figure], "start": before, "tuned": tuned}
    sign = (gain > 0) - (gain < 0)
    expected = {"better": 1, "probably better": 1, "worse": -1, "probably worse": -1}
    said = expected.get(figures["verdict"], 0)
    figures |= {"gain": rounded(gain), "right": said == sign or (not said and abs(gain) < _HARDLY)}
    shown = ", ".join(
        f"{figure} {one['start']:.3f} → {one['tuned']:.3f} (said {one['said']['start']:.3f} → "
        f"{one['said']['tuned']:.3f})"
        for figure, one in ((figure, figures[figure]) for figure in FIGURES)
    )
    say(f"{draw}: {figures['verdict']}, {shown}, {made.seconds:.0f} s")
    kept.write_text(json.dumps(figures), "utf-8")
    return figures


def _draw(data: Path, ending: str, seed: int, tiles: int, folder: Path) -> None:
    """Link the tiles of a draw into the folders `few` and `rest`."""
    import cv2

    pairs = []
    for image in sorted((data / "images").iterdir()):
        mask = next((data / "masks").glob(f"{image.stem}.*"))
        labels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        assert labels is not None
        if image.stem.endswith(ending) and (labels > 0).mean() > _LEAST_BUILT:
            pairs.append((image, mask))
    random.Random(seed).shuffle(pairs)
    for part, chosen in (("few", pairs[:tiles]), ("rest", pairs[tiles : tiles + _MOST_REST])):
        for kind, paths in zip(("images", "masks"), zip(*chosen, strict=True), strict=True):
            (folder / part / kind).mkdir(parents=True)
            for path in paths:
                (folder / part / kind / path.name).symlink_to(path)


if __name__ == "__main__":
    start(main)
