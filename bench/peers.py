"""Rows of `bench/predict.py` that run other people's packages, by the Python of their environment.

Nothing of rooftrace is imported: the network is built by segmentation-models-pytorch, and its
weights are those that `predict.py` took out of the bundle. Neither row makes polygons.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import Part, start

if TYPE_CHECKING:
    import torch

__all__ = ["PEERS", "REFERENCE"]

PEERS = {"geoai": "geoai-py", "sahi": "sahi"}
"""Rows, and the packages that they need besides PyTorch."""

REFERENCE = "reference.npz"
"""Beside the weights: `pixels` (1, band, y, x) uint8, and their `probability` (1, 1, y, x)."""

_SLICE_PX = 512
"""Tile size of SAHI's own `predict`."""


def probe(*, name: str, network: str) -> dict[str, Any]:
    """Ability of a row to run, and the difference of its probabilities from the bundle's."""
    import numpy as np
    import torch

    _complete_torchvision()
    try:
        model = _BUILT[name](Path(network))
    except ImportError as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
    with np.load(Path(network, REFERENCE)) as reference, torch.no_grad():
        answer = model(torch.from_numpy(reference["pixels"].astype(np.float32) / 255))
        chances = torch.softmax(answer, 1)[:, 1:] if answer.shape[1] == 2 else torch.sigmoid(answer)
        difference = np.abs(chances.numpy() - reference["probability"]).max()
    return {
        "version": importlib.metadata.version(PEERS[name]),
        "largest_difference": round(float(difference), 6),
    }


def geoai(*, scene: str, network: str, out: str) -> dict[str, Any]:
    """geoai-py's `semantic_inference_on_geotiff` at its defaults, with the bundle's threshold."""
    _complete_torchvision()
    import torch
    from geoai.train import (  # type: ignore[import-not-found]
        semantic_inference_on_geotiff,
    )

    model = _geoai_model(Path(network))
    started = time.perf_counter()
    path = Path(out, "mask.tif")
    semantic_inference_on_geotiff(
        model, scene, str(path), quiet=True, device=torch.device("cpu"),
        probability_threshold=_spec(Path(network))["threshold"],
    )  # fmt: skip
    return _answer(path, started)


def sahi(*, scene: str, network: str, out: str) -> dict[str, Any]:
    """Slices by SAHI with its overlap, one after the other through the network in eager PyTorch."""
    _complete_torchvision()
    import numpy as np
    import rasterio
    import torch
    from sahi.slicing import slice_image  # type: ignore[import-not-found]

    model = _sahi_model(Path(network))
    started = time.perf_counter()
    with rasterio.open(scene) as source:
        image, profile = source.read().transpose(1, 2, 0), source.profile
    total = np.zeros(image.shape[:2], np.float32)
    count = np.zeros(image.shape[:2], np.float32)
    sliced = slice_image(image, slice_height=_SLICE_PX, slice_width=_SLICE_PX)
    with torch.no_grad():
        for pixels, (left, top) in zip(sliced.images, sliced.starting_pixels):
            batch = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
            part = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
            total[part] += torch.sigmoid(model(batch))[0, 0].numpy()
            count[part] += 1
    mask = (total / count >= _spec(Path(network))["threshold"]).astype(np.uint8)
    path = Path(out, "mask.tif")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: profile[name] for name in ("driver", "height", "width", "crs", "transform")}
    with rasterio.open(path, "w", count=1, dtype="uint8", compress="deflate", **kept) as target:
        target.write(mask, 1)
    return _answer(path, started)


def _answer(mask: Path, started: float) -> dict[str, Any]:
    import rasterio

    with rasterio.open(mask) as dataset:
        pixels = dataset.height * dataset.width
    seconds = time.perf_counter() - started
    output = {"mask": str(mask), "buildings": None, "pixels": pixels, "seconds": seconds}
    return {"outputs": [output], "precision": "fp32"}


def _spec(network: Path) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(Path(network, "spec.json").read_text(encoding="utf-8"))
    return spec


def _geoai_model(network: Path) -> torch.nn.Module:
    """Model in geoai's form of two classes: with a logit of 0 softmax equals the sigmoid."""
    import torch
    from geoai.train import get_smp_model, semantic_inference_on_geotiff
    from safetensors.torch import load_file

    assert callable(semantic_inference_on_geotiff)
    spec = _spec(network)
    chosen = spec["training"]["model"]
    net = get_smp_model(
        chosen["architecture"], chosen["encoder"], None, len(spec["bands"]), 2, **chosen["options"]
    )
    weights = load_file(network / "weights.safetensors")
    for name, value in weights.items():
        if name.startswith("segmentation_head."):
            weights[name] = torch.cat([torch.zeros_like(value), value])
    net.load_state_dict(weights)
    return _normalising(net, spec)


def _sahi_model(network: Path) -> torch.nn.Module:
    import segmentation_models_pytorch as smp
    from safetensors.torch import load_file
    from sahi.slicing import slice_image

    assert callable(slice_image)
    spec = _spec(network)
    chosen = spec["training"]["model"]
    net = smp.create_model(
        chosen["architecture"], chosen["encoder"], None, len(spec["bands"]), 1, **chosen["options"]
    )
    net.load_state_dict(load_file(network / "weights.safetensors"))
    return _normalising(net, spec)


def _normalising(net: torch.nn.Module, spec: dict[str, Any]) -> torch.nn.Module:
    """A network of pixels in 0..1, as geoai hands them over."""
    import torch

    mean, std = (torch.tensor(spec[name])[:, None, None] / 255 for name in ("mean", "std"))

    class Normalising(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.net((pixels - mean) / std)
            return answer

    return Normalising().eval()


_BUILT: dict[str, Callable[[Path], torch.nn.Module]] = {
    "geoai": _geoai_model,
    "sahi": _sahi_model,
}


def _complete_torchvision() -> None:
    """Declare the operators that torchvision misses beside a PyTorch of another build.

    Both packages import torchvision, but run nothing of it; see `rooftrace.models._torch`.
    """
    import torch

    with suppress(ImportError):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for kind in ("nms", "qnms"):
                library.define(f"{kind}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(library)


_KEPT: list[Any] = []
"""Declarations live as long as what made them."""


def _quietly(part: Part) -> Part:
    """Redirect what a package prints, so that it does not mix with the answer."""

    @wraps(part)
    def run(**arguments: Any) -> dict[str, Any]:
        with redirect_stdout(sys.stderr):
            return part(**arguments)

    return run


def _main() -> dict[str, Any]:
    raise SystemExit("This is a part of bench/predict.py: --peers-python, see bench/README.md.")


if __name__ == "__main__":
    start(_main, *[_quietly(part) for part in (probe, geoai, sahi)])
