r"""Add the probabilities of a teacher to the packed images, for trainings that learn from them.

    python recipes/gpu_teach.py work/packs work/taught --scales 1 1.5 \
        --teacher work/packs/default.safetensors recipes/weights/start.safetensors

writes the files of `gpu_pack.py` again, with the mean probability of the teacher's networks on each
training image, itself and mirrored, at each scale (1 is that of the default model), as PNG of
8 bits. `gpu_train.py` mixes them with the labels, and takes no longer than without a teacher. At
places without a building and in generated scenes, the labels themselves stand for probabilities.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from gpu_atlas import FIRST, NODATA, UNLABELLED, Array, decode
from gpu_train import network_of, on_device, predicted, scale_of
from safetensors.torch import load_file
from torch import nn

CERTAIN = (
    "generated", "ucm-empty", "cyl-farms", "naip-california", "drone-empty", "dubai-coast-empty"
)  # fmt: skip
"""Places whose labels a teacher could only spoil."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", type=Path, help="Folder of gpu_pack.py")
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="SCALE")
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    device = torch.device(given.device)
    nets = [on_device(network_of(load_file(file)), device).eval() for file in given.teacher]
    given.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(given.packs.glob("*.zip")):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(given.out / path.name, "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
            for entry in json.loads(old.read("index.json")):
                if entry["part"] == "train":
                    key = entry["key"]
                    image = decode(old.read(f"{key}.jpg"), old.read(f"{key}.png"), None)
                    probability = taught(entry, *image, nets, given.scales, device)
                    _, png = cv2.imencode(".png", np.rint(255 * probability).astype(np.uint8))
                    new.writestr(f"{key}.taught.png", png.tobytes())
        print(given.out / path.name, flush=True)


@torch.no_grad()
def taught(
    entry: dict[str, object], pixels: Array, numbers: Array, nets: Sequence[nn.Module],
    scales: list[float], device: torch.device,
) -> Array:  # fmt: skip
    """Return the probability of building (y, x) in 0..1 that a student learns."""
    labels = (numbers >= FIRST).astype(np.float32)
    is_known = (numbers != UNLABELLED) & (entry["place"] in CERTAIN)
    if is_known.all():
        return labels
    image = np.where((numbers == NODATA)[..., None], 0, pixels)
    gsd_m = float(str(entry["gsd_m"]))
    found = [
        predicted(net, np.ascontiguousarray(image[:, ::step]), scale_of(gsd_m) * scale, device)[
            :, ::step
        ]
        for net in nets
        for scale in scales
        for step in (1, -1)
    ]
    return np.where(is_known, labels, np.mean(found, axis=0))


if __name__ == "__main__":
    main()
