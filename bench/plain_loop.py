"""Network of a bundle in a plain PyTorch loop, the baseline of `bench/predict.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import REFERENCE

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from rooftrace.models.bundle import ModelBundle
    from rooftrace.models.spec import BundleSpec

__all__ = ["LARGEST_DIFFERENCE", "loop", "restore", "write_network"]

LARGEST_DIFFERENCE = 0.01
"""Between the probabilities of the loop's network and of the bundle's: beyond it they differ by
more than rounding."""


def _build(spec: BundleSpec) -> torch.nn.Module:
    from rooftrace.models.zoo import ModelConfig, build_model

    if "model" not in spec.training:
        raise SystemExit(f"The bundle {spec.name} does not say which network it was trained as.")
    config = ModelConfig.model_validate({**spec.training["model"], "encoder_weights": "none"})
    return build_model(config, bands=len(spec.bands), channels=spec.channels).eval()


def restore(bundle: ModelBundle) -> torch.nn.Module:
    """The PyTorch network of a bundle, with the weights of its graph.

    The graph runs convolutions and normalisations in the order in which the network runs them. A
    normalisation may have been folded into the convolution before it: then that kernel goes into
    the network's convolution, and its bias into the normalisation, which is otherwise made
    neutral. So the loop has every layer that people run.
    """
    import torch

    from rooftrace.models.bundle import GRAPH_NAME

    net = _build(bundle.spec)
    order: list[torch.nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: order.append(module))
        for module in net.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    side = bundle.spec.input_px or 4 * bundle.spec.input_multiple_px
    with torch.no_grad():
        net(torch.zeros(1, len(bundle.spec.bands), side, side))
        for hook in hooks:
            hook.remove()
        try:
            _fill(order, list(_layers(bundle.part(GRAPH_NAME))))
        except ValueError as error:
            raise SystemExit(f"{bundle.source}: its graph is not its network's: {error}") from error
    return net


def _fill(order: Sequence[torch.nn.Module], layers: list[_Layer]) -> None:
    """Raises ValueError where the layers of a graph are not those of a network."""
    import torch
    from torch import nn

    folded, own_bias = torch.empty(0), None
    for module in order:
        following = layers[0] if layers else None
        if isinstance(module, nn.Conv2d) and following and following.kind == "Conv":
            kernel, *rest = layers.pop(0).values
            folded = rest[0] if rest else torch.zeros(len(kernel))
            own_bias = module.bias
            _set(module.weight, kernel)
            if own_bias is not None:
                _set(own_bias, folded)
        elif isinstance(module, nn.BatchNorm2d):
            if following and following.kind == "BatchNormalization":
                values, module.eps = following.values, following.epsilon
                del layers[0]
            else:
                ones = torch.ones_like(folded)
                values = [ones, folded, torch.zeros_like(folded), ones - module.eps]
                if own_bias is not None:
                    own_bias.zero_()
            tensors = module.weight, module.bias, module.running_mean, module.running_var
            for tensor, value in zip(tensors, values, strict=True):
                assert tensor is not None
                _set(tensor, value)
        else:
            expected = following.kind if following else "nothing more"
            raise ValueError(f"it has {expected} where the network has {type(module).__name__}")
    if layers:
        raise ValueError(f"it has {len(layers)} layers more than the network")


def _set(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if tensor.shape != value.shape:
        raise ValueError(f"a tensor of shape {tuple(value.shape)}, not {tuple(tensor.shape)}")
    tensor.copy_(value)


@dataclass(frozen=True)
class _Layer:
    kind: str
    values: list[torch.Tensor]
    epsilon: float


def _layers(graph: bytes) -> Iterator[_Layer]:
    """The convolutions and normalisations of a graph in order, their weights in fp32."""
    import onnx
    import torch
    from onnx import numpy_helper

    model = onnx.load_from_string(graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        elif node.op_type in ("Conv", "BatchNormalization"):
            # The computed value is a bias of zeros; otherwise the answers would differ.
            values = [
                torch.from_numpy(numpy_helper.to_array(weights[name]).astype("float32"))
                for name in node.input[1:]
                if name in weights
            ]
            epsilon = [a.f for a in node.attribute if a.name == "epsilon"]
            yield _Layer(node.op_type, values, epsilon[0] if epsilon else 1e-5)


def write_network(bundle: ModelBundle, scene: Path, tile_px: int, folder: Path) -> float:
    """Write the network of a bundle for the loops, and check it on a tile of a scene.

    Returns:
        Largest difference between the probabilities of the network and of the bundle in fp32.
    """
    import numpy as np
    import rasterio
    from rasterio.windows import Window
    from safetensors.torch import save_file

    from rooftrace.engines.select import load_engine
    from rooftrace.models.export import ExportableModel

    spec = bundle.spec
    if not spec.is_binary or len(spec.bands) != 3:
        raise SystemExit(f"{bundle.source}: the loops are for three bands and two classes.")
    net = restore(bundle)
    with rasterio.open(scene) as source:
        batch = source.read(window=Window(0, 0, tile_px, tile_px))[None]
    theirs = ExportableModel(net, spec.mean, spec.std).eval().run(batch)
    ours = load_engine(bundle, engine="openvino", precision="fp32").run(batch)
    difference = float(np.abs(theirs - ours).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(
            f"{bundle.source}: the loop's network answers otherwise than the bundle: "
            f"probabilities differ by up to {difference:.4f}, expected {LARGEST_DIFFERENCE}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / REFERENCE, pixels=batch, probability=ours)
    save_file(net.state_dict(), folder / "weights.safetensors")
    (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    return round(difference, 6)


def loop(
    *, scene: str, network: str, out: str, tile_px: int, overlap_px: int, tuned: bool, device: str
) -> dict[str, Any]:
    """The plain loop, as people write it: everything in memory, tile after tile.

    Args:
        tuned: with an allocator that keeps memory, channels-last, and bf16 where the device
            computes in it.
        device: `cpu`, or `cuda` for an NVIDIA GPU.
    """
    import numpy as np
    import rasterio
    import torch
    from safetensors.torch import load_file

    from rooftrace.core.system import keep_freed_memory
    from rooftrace.models.spec import BundleSpec
    from rooftrace.train.loop import choose_precision

    spec = BundleSpec.model_validate_json(Path(network, "spec.json").read_text(encoding="utf-8"))
    net = _build(spec)
    net.load_state_dict(load_file(Path(network, "weights.safetensors")))
    bf16 = tuned and choose_precision("auto", device) == "bf16-mixed"
    net = net.to(device)
    if tuned:
        keep_freed_memory()
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))

    started = time.perf_counter()
    with rasterio.open(scene) as source:
        image = source.read()
        crs, transform = source.crs, source.transform
    height, width = image.shape[1:]
    total = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.float32)
    with (
        torch.inference_mode() if tuned else torch.no_grad(),
        torch.autocast(device, torch.bfloat16) if bf16 else nullcontext(),
    ):
        for row in _starts(height, tile_px, overlap_px):
            for col in _starts(width, tile_px, overlap_px):
                part = slice(row, row + tile_px), slice(col, col + tile_px)
                pixels = (image[:, part[0], part[1]].astype(np.float32) - mean) / std
                batch = torch.from_numpy(pixels)[None].to(device)
                if tuned:
                    batch = batch.contiguous(memory_format=torch.channels_last)
                total[part] += torch.sigmoid(net(batch))[0, 0].float().cpu().numpy()
                count[part] += 1
    mask = (total / count >= spec.threshold).astype(np.uint8)
    path, buildings = _write(Path(out), mask, crs, transform)
    return {
        "outputs": [
            {
                "mask": str(path),
                "buildings": buildings,
                "pixels": height * width,
                "seconds": time.perf_counter() - started,
            }
        ],
        "precision": "bf16" if bf16 else "fp32",
    }


def _starts(length: int, tile_px: int, overlap_px: int) -> list[int]:
    """Return the starts of tiles along an axis; the last tile ends with the image."""
    return [*range(0, length - tile_px, tile_px - overlap_px), length - tile_px]


def _write(out: Path, mask: NDArray[np.uint8], crs: Any, transform: Any) -> tuple[Path, int]:
    import geopandas as gpd
    import rasterio
    from rasterio.features import shapes
    from shapely.geometry import shape

    from rooftrace.vector.prepare import MIN_BUILDING_PX

    out.mkdir(parents=True, exist_ok=True)
    path = out / "mask.tif"
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "height": mask.shape[0],
        "width": mask.shape[1], "crs": crs, "transform": transform, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(mask, 1)
    traced = shapes(mask, mask=mask == 1, transform=transform)
    frame = gpd.GeoDataFrame(geometry=[shape(geometry) for geometry, _ in traced], crs=crs)
    frame = frame[frame.area >= MIN_BUILDING_PX * abs(transform.determinant)]
    frame.to_file(out / "buildings.gpkg", driver="GPKG")
    return path, len(frame)
