"""Mpx/s from a GeoTIFF to mask and polygons on disk, against a plain PyTorch loop.

    python bench/predict.py                  # 10,000 x 10,000 pixels; see bench/README.md

Prints one JSON object. Every row is a process of its own, measured from its start to its end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import (
    WORK,
    ChildFailed,
    Measured,
    load_bundle,
    machine,
    measure,
    measure_part,
    rounded,
    say,
    start,
    warm,
    write_scene,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from rooftrace.models.bundle import ModelBundle
    from rooftrace.models.spec import BundleSpec

OURS = {"ours": None, "ours_bf16": "bf16", "ours_fp32": "fp32"}
"""Rows of `rooftrace predict`, with the precision that is asked for."""

LOOPS = {"plain": False, "tuned": True}
"""Rows of the loop, and whether it has what makes PyTorch fast on a CPU."""

ROWS = (*OURS, *LOOPS)
LARGEST_DIFFERENCE = 0.01
"""Between the probabilities of the loop's network and of the bundle's: beyond it they differ by
more than rounding."""

SMALLEST_PX = 9
"""Specks below this many pixels are no buildings, as in `rooftrace predict`."""

_UNAVAILABLE = 2
"""Exit code of `rooftrace predict` where a precision cannot be had."""


def main() -> dict[str, Any]:
    options = _options()
    before = machine()
    say("preparing the scene and the loop's network")
    prepared = measure_part(
        __file__, "prepare", work=str(options.work), model=options.model, size_px=options.size,
        baseline_size_px=options.baseline_size, compress=options.compress,
        tile_px=options.tile, overlap_px=options.overlap,
    ).report  # fmt: skip
    runs: dict[str, list[Measured]] = {}
    unavailable: dict[str, str] = {}
    for turn in range(options.repeats):
        for name in options.rows:
            if name in unavailable:
                continue
            scene = Path(prepared["plain_scene" if name == "plain" else "scene"])
            warm(scene)
            try:
                run = _run(name, scene, prepared, options)
            except ChildFailed as error:
                if OURS.get(name) is None or error.code != _UNAVAILABLE:
                    raise SystemExit(f"{name}: {error}") from error
                unavailable[name] = json.loads(error.told)["error"]["message"]
                continue
            runs.setdefault(name, []).append(run)
            say(
                f"{turn + 1}/{options.repeats} {name}: {run.seconds:.1f} s, "
                f"{run.peak_rss_mb:.0f} MB"
            )
    rows = {name: _row(name, of, prepared) for name, of in runs.items()}
    _compare(rows, runs)
    return {
        "benchmark": "predict",
        "machine": before,
        "scene": {
            "size_px": options.size,
            "gsd_m": prepared["gsd_m"],
            "compress": options.compress,
            "file_mb": round(Path(prepared["scene"]).stat().st_size / 1e6, 1),
        },
        "model": prepared["model"],
        "loop": {"tile_px": prepared["tile_px"], "overlap_px": prepared["overlap_px"]},
        "repeats": options.repeats,
        "rows": rows,
        "unavailable": unavailable,
        "ratios": _ratios(rows),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10_000, help="side of the scene, in pixels")
    parser.add_argument(
        "--baseline-size", type=int, help="side of the crop for the row `plain`; default: --size"
    )
    parser.add_argument("--model", help="a .rooftrace file; default: the bundled model")
    parser.add_argument("--tile", type=int, default=512, help="side of the loop's tiles")
    parser.add_argument("--overlap", type=int, help="of the loop's tiles; default: as rooftrace's")
    parser.add_argument("--compress", choices=("deflate", "jpeg"), default="deflate")
    parser.add_argument("--repeats", type=int, default=1, help="rows take turns, so many times")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for scenes and results")
    options = parser.parse_args()
    if options.baseline_size is None:
        options.baseline_size = options.size
    if not 64 <= options.baseline_size <= options.size or options.repeats < 1:
        parser.error("sizes of 64 pixels and more, a crop no larger than the scene, one repeat")
    return options


def _run(name: str, scene: Path, prepared: dict[str, Any], options: argparse.Namespace) -> Measured:
    out = options.work / "out" / name
    if name in LOOPS:
        return measure_part(
            __file__, "loop", scene=str(scene), network=prepared["network"], out=str(out),
            tile_px=prepared["tile_px"], overlap_px=prepared["overlap_px"], tuned=LOOPS[name],
        )  # fmt: skip
    command = [sys.executable, "-m", "rooftrace", "predict", str(scene), "-o", str(out), "--json"]
    if options.model is not None:
        command += ["-m", options.model]
    precision = OURS[name]
    return measure(command if precision is None else [*command, "--precision", precision])


def _row(name: str, runs: list[Measured], prepared: dict[str, Any]) -> dict[str, Any]:
    """The figures of one row over its repeats; rates are those of the fastest."""
    output = runs[-1].report["outputs"][0]
    mpx = output["pixels"] / 1e6
    seconds = [run.seconds for run in runs]
    return {
        "pixels": output["pixels"],
        "on_crop": name == "plain" and prepared["plain_scene"] != prepared["scene"],
        "precision": _precision(output["mask"]) if name in OURS else runs[-1].report["precision"],
        "seconds_min": round(min(seconds), 3),
        "seconds_median": round(statistics.median(seconds), 3),
        # Without the start of the process: imports, and reading the model.
        "seconds_inside": round(min(run.report["outputs"][0]["seconds"] for run in runs), 3),
        "mpx_per_s": rounded(mpx / min(seconds)),
        "mpx_per_s_median": rounded(mpx / statistics.median(seconds)),
        "peak_rss_mb": max(run.peak_rss_mb for run in runs),
        "buildings": output["buildings"],
    }


def _precision(mask: str) -> str:
    """What `rooftrace predict` chose, from the record that it leaves beside its results."""
    record = json.loads(Path(mask).with_name("run.json").read_text(encoding="utf-8"))
    return str(record["engine"]["precision"])


def _ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """How many times faster, and which part of the memory, each row is of each of the loops."""
    found: dict[str, dict[str, float | None]] = {}
    for loop in LOOPS:
        for name in rows:
            if loop not in rows or name == loop:
                continue
            mine, other = rows[name], rows[loop]
            # A loop's memory grows with the image: that of a crop says nothing of the whole.
            alike = mine["pixels"] == other["pixels"]
            found[f"{name}/{loop}"] = {
                "speed": rounded(mine["mpx_per_s"] / other["mpx_per_s"]),
                "memory": rounded(mine["peak_rss_mb"] / other["peak_rss_mb"]) if alike else None,
            }
    return found


def _compare(rows: dict[str, dict[str, Any]], runs: dict[str, list[Measured]]) -> None:
    """Note in each row how far its mask is that of the plain loop: the same job was done."""
    if "plain" not in rows:
        return
    masks = {name: of[-1].report["outputs"][0]["mask"] for name, of in runs.items()}
    for name, path in masks.items():
        if name != "plain":
            rows[name] |= _agreement(Path(path), Path(masks["plain"]))


def _agreement(path: Path, reference: Path) -> dict[str, float]:
    """Of two masks that start at the same corner, where both have pixels."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    both = either = same = total = 0
    with rasterio.open(path) as one, rasterio.open(reference) as other:
        height, width = min(one.height, other.height), min(one.width, other.width)
        for top in range(0, height, 512):
            window = Window(0, top, width, min(512, height - top))
            mine, theirs = (dataset.read(1, window=window) == 1 for dataset in (one, other))
            both += int(np.count_nonzero(mine & theirs))
            either += int(np.count_nonzero(mine | theirs))
            same += int(np.count_nonzero(mine == theirs))
            total += mine.size
    return {
        "mask_iou_with_plain": round(both / either, 5) if either else 1.0,
        "mask_agreement_with_plain": round(same / total, 5),
    }


# What follows runs in processes of its own.


def prepare(
    *,
    work: str,
    model: str | None,
    size_px: int,
    baseline_size_px: int,
    compress: str,
    tile_px: int,
    overlap_px: int | None,
) -> dict[str, Any]:
    """Write the scene, its crop, and the loop's network with the bundle's weights."""
    from safetensors.torch import save_file

    from rooftrace.predict.scene import OVERLAP_PX

    bundle = load_bundle(model)
    spec = bundle.spec
    if not spec.is_binary or len(spec.bands) != 3:
        raise SystemExit(f"{bundle.source}: the loop is for three bands and two classes.")
    gsd_m = spec.gsd_m or 0.3
    scene = write_scene(Path(work), size_px, gsd_m, compress)
    crop = scene if baseline_size_px == size_px else _crop(scene, baseline_size_px)
    multiple = spec.input_multiple_px
    tile_px = spec.input_px or min(tile_px, baseline_size_px) // multiple * multiple
    overlap_px = min(OVERLAP_PX if overlap_px is None else overlap_px, tile_px // 2)
    net = _restore(bundle)
    difference = _check_same(bundle, net, scene, tile_px)
    network = Path(work) / "network"
    network.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), network / "weights.safetensors")
    (network / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    return {
        "scene": str(scene),
        "plain_scene": str(crop),
        "gsd_m": gsd_m,
        "network": str(network),
        "tile_px": tile_px,
        "overlap_px": overlap_px,
        "model": {
            "name": spec.name,
            "sha256": bundle.sha256,
            **spec.training["model"],
            "threshold": spec.threshold,
            "largest_difference": difference,
        },
    }


def _crop(scene: Path, size_px: int) -> Path:
    """The upper left corner of a scene, as a file like it."""
    import rasterio
    from rasterio.windows import Window

    from rooftrace.io.atomic import replacing

    path = scene.with_name(f"{scene.stem}_crop{size_px}px.tif")
    with rasterio.open(scene) as source, replacing(path) as partial:
        profile = {**source.profile, "height": size_px, "width": size_px}
        with rasterio.open(partial, "w", **profile) as target:
            target.write(source.read(window=Window(0, 0, size_px, size_px)))
    return path


def _build(spec: BundleSpec) -> torch.nn.Module:
    from rooftrace.models.zoo import ModelConfig, build_model

    if "model" not in spec.training:
        raise SystemExit(f"The bundle {spec.name} does not say which network it was trained as.")
    config = ModelConfig.model_validate({**spec.training["model"], "encoder_weights": "none"})
    return build_model(config, bands=len(spec.bands), channels=spec.channels).eval()


def _restore(bundle: ModelBundle) -> torch.nn.Module:
    """The PyTorch network of a bundle, from the weights in its graph.

    The graph runs convolutions and normalisations in the order in which the network runs them, but
    most normalisations are folded into the convolution before them. Such a kernel goes into the
    network's convolution, and its bias into the normalisation, which is otherwise made neutral: so
    the loop has every layer that people run.
    """
    import torch
    from torch import nn

    from rooftrace.models.bundle import GRAPH_NAME

    net = _build(bundle.spec)
    order: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: order.append(module))
        for module in net.modules()
        if not any(True for _ in module.children()) and any(True for _ in module.parameters())
    ]
    side = bundle.spec.input_px or 4 * bundle.spec.input_multiple_px
    with torch.no_grad():
        net(torch.zeros(1, len(bundle.spec.bands), side, side))
    for hook in hooks:
        hook.remove()
    layers = list(_layers(bundle.part(GRAPH_NAME)))
    folded: torch.Tensor | None = None
    try:
        for module in order:
            if isinstance(module, nn.Conv2d):
                kind, values, _ = layers.pop(0)
                _require(kind == "Conv", kind)
                _set(module.weight, values[0])
                folded = values[1] if len(values) > 1 else torch.zeros(len(values[0]))
                if module.bias is not None:
                    _set(module.bias, folded)
            elif isinstance(module, nn.BatchNorm2d):
                if layers and layers[0][0] == "BatchNormalization":
                    _, values, module.eps = layers.pop(0)
                else:
                    _require(folded is not None, "a normalisation before any convolution")
                    assert folded is not None
                    ones = torch.ones_like(folded)
                    values = [ones, folded, torch.zeros_like(folded), ones - module.eps]
                for tensor, value in zip(
                    (module.weight, module.bias, module.running_mean, module.running_var), values
                ):
                    assert tensor is not None
                    _set(tensor, value)
            else:
                _require(False, f"a {type(module).__name__}")
        _require(not layers, f"{len(layers)} layers more")
    except (IndexError, ValueError) as error:
        raise SystemExit(f"{bundle.source}: its graph is not its network's: {error}") from error
    return net


def _require(fits: bool, found: str) -> None:
    if not fits:
        raise ValueError(f"it has {found}")


def _set(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if tensor.shape != value.shape:
        raise ValueError(f"a tensor of shape {tuple(value.shape)}, not {tuple(tensor.shape)}")
    tensor.data.copy_(value)


def _layers(graph: bytes) -> Iterator[tuple[str, list[torch.Tensor], float]]:
    """Convolutions and normalisations of a graph in order: kind, weights in fp32, epsilon."""
    import onnx
    import torch
    from onnx import numpy_helper

    model = onnx.load_from_string(graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        elif node.op_type in ("Conv", "BatchNormalization"):
            values = [
                torch.from_numpy(numpy_helper.to_array(weights[name]).astype("float32"))
                for name in node.input[1:]
            ]
            epsilon = [a.f for a in node.attribute if a.name == "epsilon"]
            yield node.op_type, values, epsilon[0] if epsilon else 1e-5


def _check_same(bundle: ModelBundle, net: torch.nn.Module, scene: Path, tile_px: int) -> float:
    """The largest difference of probabilities between the network and the bundle in fp32."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    from rooftrace.engines.select import load_engine
    from rooftrace.models.export import WholeModel

    with rasterio.open(scene) as source:
        batch = source.read(window=Window(0, 0, tile_px, tile_px))[None]
    theirs = WholeModel(net, bundle.spec.mean, bundle.spec.std).eval().run(batch)
    ours = load_engine(bundle, engine="openvino", precision="fp32").run(batch)
    difference = float(np.abs(theirs - ours).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise SystemExit(
            f"{bundle.source}: the loop's network answers otherwise than the bundle: "
            f"probabilities differ by up to {difference:.4f}, expected {LARGEST_DIFFERENCE}."
        )
    return round(difference, 6)


def loop(
    *, scene: str, network: str, out: str, tile_px: int, overlap_px: int, tuned: bool
) -> dict[str, Any]:
    """The plain loop, as people write it: everything in memory, tile after tile.

    Args:
        tuned: with an allocator that keeps memory, channels-last, and bf16 where the processor
            computes in it.
    """
    import numpy as np
    import rasterio
    import torch
    from safetensors.torch import load_file

    from rooftrace.models.spec import BundleSpec
    from rooftrace.train.device import choose_precision, tune_allocator

    started = time.perf_counter()
    spec = BundleSpec.model_validate_json(Path(network, "spec.json").read_text(encoding="utf-8"))
    net = _build(spec)
    net.load_state_dict(load_file(Path(network, "weights.safetensors")))
    bf16 = tuned and choose_precision("auto", "cpu") == "bf16-mixed"
    if tuned:
        tune_allocator()
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (spec.mean, spec.std))

    with rasterio.open(scene) as source:
        image = source.read()
        crs, transform = source.crs, source.transform
    height, width = image.shape[1:]
    total = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.float32)
    with (
        torch.inference_mode() if tuned else torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext(),
    ):
        for row in _starts(height, tile_px, overlap_px):
            for col in _starts(width, tile_px, overlap_px):
                part = slice(row, row + tile_px), slice(col, col + tile_px)
                pixels = (image[:, part[0], part[1]].astype(np.float32) - mean) / std
                batch = torch.from_numpy(pixels)[None]
                if tuned:
                    batch = batch.contiguous(memory_format=torch.channels_last)
                total[part] += torch.sigmoid(net(batch))[0, 0].float().numpy()
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
    """Where tiles start along an axis; the last one is moved back to end with the image."""
    return [
        *range(0, length - tile_px, tile_px - overlap_px),
        length - tile_px,
    ]


def _write(out: Path, mask: NDArray[np.uint8], crs: Any, transform: Any) -> tuple[Path, int]:
    import geopandas as gpd
    import rasterio
    from rasterio.features import shapes
    from shapely.geometry import shape

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
    frame = frame[frame.area >= SMALLEST_PX * abs(transform.determinant)]
    frame.to_file(out / "buildings.gpkg", driver="GPKG")
    return path, len(frame)


if __name__ == "__main__":
    start(main, {"prepare": prepare, "loop": loop})
