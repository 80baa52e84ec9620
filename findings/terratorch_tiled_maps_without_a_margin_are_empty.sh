#!/usr/bin/env bash
# TerraTorch's tiled inference returns a map of 0 x 0 pixels if no margin is cut from the tiles.
#
# Guess before the run: tiled_inference returns a map of the size of the image; delta, the "size of
# the border cropped from each chip", is 0 where nothing is cropped, or where tiles do not overlap.
# Seen: with delta=0 the map of an image of 300 x 260 pixels is 0 x 0, with nothing said. With
# stride equal to crop it is 0 x 0, too, after a warning that delta is reduced to 0. Margins of 1 and
# 8, and padding=False, give 300 x 260. The padding that was added is cut off by [delta:-delta],
# which is empty for 0, and the check that each pixel was predicted passes where there is none.
# Versions: terratorch 1.2.13, torch 2.13.0. Source: terratorch/tasks/tiled_inference.py,
# InMemoryTileSink.finalize and generate_tiled_inference_output.
# Hurt: who maps buildings with tiles edge to edge, or sets the margin to 0 to save time: a run over
# a scene ends well and has no map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6 tqdm==4.67.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps terratorch==1.2.13
venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch

# The package imports all its models; tiled inference needs torch, and imports one name unused.
for name in ("terratorch", "terratorch.models", "terratorch.models.utils"):
    sys.modules[name] = ModuleType(name)
sys.modules["terratorch.models.utils"].pad_images = None
(site,) = [path for path in sys.path if (Path(path) / "terratorch/tasks").is_dir()]
spec = spec_from_file_location("tiled", Path(site) / "terratorch/tasks/tiled_inference.py")
sys.modules["tiled"] = tiled = module_from_spec(spec)
spec.loader.exec_module(tiled)

image = torch.rand(1, 3, 300, 260)


def size(**settings):
    """Return the size of the map of a model that returns the first band."""
    found = tiled.tiled_inference(lambda tiles: tiles[:, :1], image, crop=128, **settings)
    if found.numel():
        assert torch.allclose(found, image[:, :1], atol=1e-5)
    return tuple(found.shape[-2:])


seen = {
    "delta 8": size(stride=96, delta=8),
    "delta 1": size(stride=96, delta=1),
    "delta 0": size(stride=96, delta=0),
    "edge to edge": size(stride=128),
    "delta 0, no padding": size(stride=96, delta=0, padding=False),
}
for name, found in seen.items():
    print(f"{name}: a map of {found[0]} x {found[1]} pixels")
assert seen["delta 8"] == seen["delta 1"] == seen["delta 0, no padding"] == (300, 260)
assert seen["delta 0"] == seen["edge to edge"] == (0, 0)
PYTHON
