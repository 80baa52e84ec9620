"""Mpx/s from a GeoTIFF to mask and polygons on disk, compared with a plain PyTorch loop.

Every row is a process, measured from its start to its end.

- `ours`, `ours_bf16`, `ours_fp32`, `ours_accurate`, `ours_16bit`: `rooftrace predict` with the
  precision that it chooses, with `--precision`, with `-m accurate`, and on the scene in 16 bits.
- `plain`: the same network in eager PyTorch, fp32, batch 1, a sliding window of `--tile` 512 that
  overlaps by `--overlap` 64, everything in memory; `rasterio.features.shapes`, GeoPandas,
  GeoPackage. `tuned`: the same with channels-last, bf16 and glibc set to keep freed memory.
- `geoai`, `sahi`: these packages at their defaults with the same weights; they stop at the mask.
- `ours_cuda`, `ours_cuda_fp32`, `plain_cuda`, `tuned_cuda`: with `--gpu`.

`--against PATH` runs `rooftrace predict` of this source tree and of another one in turns instead,
on `--scene` or a generated one. It prints how many times less processor time, time by the clock and
memory this one takes. Processor time says most on a machine that does other work.

`--baseline-size N` runs the slow rows on the upper left N × N pixels, and their rate stands for the
whole. The loop neither straightens outlines nor measures areas and scores, and is not charged for
it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

from common import (
    PART,
    ChildFailed,
    Measured,
    argument_parser,
    by_turns,
    load_bundle,
    measure,
    measure_part,
    measure_rooftrace,
    rounded,
    say,
    start,
    warm,
    write_scene,
)
from peers import PEERS
from plain_loop import LARGEST_DIFFERENCE, loop, write_network

DEEP = "ours_16bit"
"""Row of `rooftrace predict` on the same scene in 16 bits, with a near-infrared band."""

ACCURATE = "ours_accurate"
"""Row of `rooftrace predict -m accurate` on the same scene."""

OURS_ON_CPU: dict[str, list[str]] = {
    "ours": [],
    DEEP: [],
    "ours_bf16": ["--precision", "bf16"],
    "ours_fp32": ["--precision", "fp32"],
    ACCURATE: [],
}
"""Rows of `rooftrace predict`, with the engine and precision that are asked for."""

LOOPS_ON_CPU = {"plain": (False, "cpu"), "tuned": (True, "cpu")}
"""Rows of the loop: whether it has what makes PyTorch fast, and its device."""

OURS_ON_GPU: dict[str, list[str]] = {
    "ours_cuda": ["--engine", "onnxruntime-cuda", "--precision", "fp16"],
    "ours_cuda_fp32": ["--engine", "onnxruntime-cuda", "--precision", "fp32"],
    "ours_torch": ["--engine", "torch", "--precision", "bf16"],
}
"""Rows of `rooftrace predict` on an NVIDIA GPU."""

LOOPS_ON_GPU = {"plain_cuda": (False, "cuda"), "tuned_cuda": (True, "cuda")}

ON_CPU = (*OURS_ON_CPU, *LOOPS_ON_CPU)
ON_GPU = (*OURS_ON_GPU, *LOOPS_ON_GPU)
OURS = OURS_ON_CPU | OURS_ON_GPU
LOOPS = LOOPS_ON_CPU | LOOPS_ON_GPU
ROWS = (*ON_CPU, *ON_GPU, *PEERS)
_ON_CROP = ("plain", *PEERS)
"""Rows that are slow, and run on the crop where there is one."""

_UNAVAILABLE = 2
"""Exit code of `rooftrace predict` where a precision cannot be had."""


def main() -> dict[str, Any]:
    options = _options()
    if options.against is not None:
        return _against(options)
    say("preparing the scene and the loop's network")
    prepared = measure_part(
        __file__, "prepare", work=options.work, model=options.model, size_px=options.size,
        baseline_size_px=options.baseline_size, compress=options.compress,
        deep=DEEP in options.rows, on_gpu=any(name in ON_GPU for name in options.rows),
        tile_px=options.tile, overlap_px=options.overlap,
        has_loops=any(name in LOOPS or name in PEERS for name in options.rows),
    ).report  # fmt: skip
    runs: dict[str, list[Measured]] = {}
    peers, unavailable = _probed(prepared, options)
    for turn in range(options.repeats):
        for name in options.rows:
            if name in unavailable:
                continue
            scene = Path(prepared[_scene_of(name)])
            warm(scene)
            try:
                run = _run(name, scene, prepared, options)
            except ChildFailed as error:
                if not OURS.get(name) or error.code != _UNAVAILABLE:
                    raise SystemExit(f"{name}: {error}") from error
                unavailable[name] = json.loads(error.output)["error"]["message"]
                continue
            runs.setdefault(name, []).append(run)
            say(
                f"{turn + 1}/{options.repeats} {name}: {run.seconds:.1f} s, "
                f"{run.peak_rss_mb:.0f} MB"
            )
    rows = {name: _row(name, of, prepared, options.size**2) for name, of in runs.items()}
    _compare(rows, runs)
    return {
        "scene": {
            "size_px": options.size,
            "gsd_m": prepared["gsd_m"],
            "compress": options.compress,
            "file_mb": round(Path(prepared["scene"]).stat().st_size / 1e6, 1),
        },
        "model": prepared["model"],
        "loop": {"tile_px": prepared["tile_px"], "overlap_px": prepared["overlap_px"]},
        "peers": peers,
        "repeats": options.repeats,
        "rows": rows,
        "unavailable": unavailable,
        "ratios": _ratios(rows),
    }


_COSTS = ("cpu_s", "seconds", "peak_rss_mb")


def _against(options: argparse.Namespace) -> dict[str, Any]:
    """Run `rooftrace predict` of two source trees in turns; each has its own default model."""
    scene = options.scene or Path(
        measure_part(
            __file__, "generate", work=options.work, size_px=options.size,
            compress=options.compress,
        ).report["scene"]
    )  # fmt: skip
    trees = {"this": Path(__file__).resolve().parents[1], "other": options.against.resolve()}
    warm(scene)

    def run(name: str) -> dict[str, Any]:
        if not (trees[name] / "src" / "rooftrace").is_dir():
            raise SystemExit(f"{trees[name]} is not a checkout of rooftrace: no src/rooftrace")
        out = options.work / "out" / f"against_{name}"
        shutil.rmtree(out, ignore_errors=True)
        os.environ["PYTHONPATH"] = str(trees[name] / "src")
        run = measure_rooftrace("predict", scene, "-o", out, model=options.model)
        output = run.report["outputs"][0]
        costs = {cost: getattr(run, cost) for cost in _COSTS}
        return {**costs, "buildings": output["buildings"], "pixels": output["pixels"]}

    rows = {
        name: {**runs[-1], **{cost: min(one[cost] for one in runs) for cost in _COSTS}}
        for name, runs in by_turns(trees, options.repeats, run, *_COSTS).items()
    }
    ratios = {cost: rounded(rows["other"][cost] / rows["this"][cost]) for cost in _COSTS}
    return {"scene": scene.name, "repeats": options.repeats, "rows": rows, "ratios": ratios}


def _scene_of(name: str) -> str:
    """Return the key of a row's scene among those prepared."""
    if name == DEEP:
        return "deep_scene"
    return "plain_scene" if name in _ON_CROP else "scene"


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--size", type=int, default=10_000, help="side of the scene, in pixels")
    parser.add_argument(
        "--baseline-size", type=int, help="side of the crop for slow rows; default: --size"
    )
    parser.add_argument("--tile", type=int, default=512, help="side of the loop's tiles")
    # An eighth, as people have it; with the 128 px of rooftrace the loop would be slower.
    parser.add_argument("--overlap", type=int, default=64, help="of the loop's tiles, in pixels")
    parser.add_argument("--compress", choices=("deflate", "jpeg"), default="deflate")
    parser.add_argument("--repeats", type=int, default=1, help="number of rounds over all rows")
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, help="default: all on the processor; with --gpu on both"
    )
    parser.add_argument("--gpu", action="store_true", help="add the rows on an NVIDIA GPU")
    parser.add_argument("--against", type=Path, help="root of another checkout of rooftrace")
    parser.add_argument("--scene", type=Path, help="image for --against; default: a generated one")
    parser.add_argument(
        "--peers-python", help="of an environment with geoai-py and sahi, for their rows"
    )
    options = parser.parse_args()
    if options.baseline_size is None:
        options.baseline_size = options.size
    if not 64 <= options.baseline_size <= options.size or options.repeats < 1:
        parser.error("sizes of 64 pixels and more, a crop no larger than the scene, one repeat")
    if options.rows is None:
        peers = PEERS if options.peers_python else ()
        options.rows = (*ON_CPU, *(ON_GPU if options.gpu else ()), *peers)
    if not options.peers_python and {*PEERS} & {*options.rows}:
        parser.error(f"the rows {', '.join(PEERS)} need --peers-python")
    return options


def _probed(
    prepared: dict[str, Any], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the facts about the peers that can run, and why others cannot."""
    found, unavailable = {}, {}
    for name in PEERS:
        if name in options.rows:
            said = _peer(options, "probe", name=name, network=prepared["network"]).report
            if "unavailable" in said:
                unavailable[name] = said["unavailable"]
            elif not said["largest_difference"] <= LARGEST_DIFFERENCE:
                raise SystemExit(f"{name}: another network than the bundle's, {said}")
            else:
                found[name] = said
    return found, unavailable


def _peer(options: argparse.Namespace, part: str, **arguments: Any) -> Measured:
    script = str(Path(__file__).with_name("peers.py"))
    return measure([options.peers_python, script, PART, part, json.dumps(arguments, default=str)])


def _run(name: str, scene: Path, prepared: dict[str, Any], options: argparse.Namespace) -> Measured:
    out = options.work / "out" / name
    if name in LOOPS:
        return measure_part(
            __file__, "loop", scene=scene, network=prepared["network"], out=out,
            tile_px=prepared["tile_px"], overlap_px=prepared["overlap_px"],
            tuned=LOOPS[name][0], device=LOOPS[name][1],
        )  # fmt: skip
    if name in PEERS:
        return _peer(options, name, scene=scene, network=prepared["network"], out=out)
    # An earlier run in this folder must not be resumed.
    shutil.rmtree(out, ignore_errors=True)
    model = "accurate" if name == ACCURATE else options.model
    if name == "ours_cuda":
        model = prepared["fp16"]
    return measure_rooftrace("predict", scene, "-o", out, *OURS[name], model=model)


def _row(
    name: str, runs: list[Measured], prepared: dict[str, Any], whole_px: int
) -> dict[str, Any]:
    """The figures of one row over its repeats; rates are those of the fastest."""
    output = runs[-1].report["outputs"][0]
    seconds = [run.seconds for run in runs]
    # On a crop the start of the process, imports and all, is charged once, as for the whole.
    share = output["pixels"] / whole_px
    inside = [run.report["outputs"][0]["seconds"] for run in runs]
    of_whole = [all_ - within + within / share for all_, within in zip(seconds, inside)]
    return {
        "pixels": output["pixels"],
        "on_crop": name in _ON_CROP and prepared["plain_scene"] != prepared["scene"],
        "precision": _precision(output["mask"]) if name in OURS else runs[-1].report["precision"],
        "seconds_min": round(min(seconds), 3),
        "seconds_median": round(statistics.median(seconds), 3),
        # Without the start of the process: imports, and reading the model.
        "seconds_inside": round(min(inside), 3),
        "mpx_per_s": rounded(whole_px / 1e6 / min(of_whole)),
        "mpx_per_s_median": rounded(whole_px / 1e6 / statistics.median(of_whole)),
        "peak_rss_mb": max(run.peak_rss_mb for run in runs),
        "buildings": output["buildings"],
    }


def _precision(mask: str) -> str:
    """Return the choices of `rooftrace predict`, from the record beside its results."""
    record = json.loads(Path(mask).with_name("run.json").read_text(encoding="utf-8"))
    return str(record["engine"]["precision"])


def _ratios(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return the speed and memory of each row relative to each other row."""
    found: dict[str, dict[str, float | None]] = {}
    for base in (*LOOPS, *PEERS, "ours"):
        for name in rows:
            if base not in rows or name == base or name in PEERS:
                continue
            if base == "ours" and name not in (DEEP, ACCURATE):
                continue
            mine, other = rows[name], rows[base]
            # A loop's memory grows with the image: that of a crop says nothing of the whole.
            alike = mine["pixels"] == other["pixels"]
            found[f"{name}/{base}"] = {
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
    """Return the overlap of two masks that start at the same corner."""
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


def generate(*, work: str, size_px: int, compress: str) -> dict[str, str]:
    """Write the scene for `--against`."""
    return {"scene": str(write_scene(Path(work), size_px, 0.3, compress))}


def prepare(
    *, work: str, model: str | None, size_px: int, baseline_size_px: int, compress: str,
    deep: bool, on_gpu: bool, tile_px: int, overlap_px: int, has_loops: bool,
) -> dict[str, Any]:  # fmt: skip
    """Write the scene, its crop, the loop's network with the bundle's weights, and the model in
    fp16 for a GPU.
    """
    bundle = load_bundle(model)
    spec = bundle.spec
    gsd_m = spec.gsd_m or 0.3
    scene = write_scene(Path(work), size_px, gsd_m, compress)
    crop = scene if baseline_size_px == size_px else _crop(scene, baseline_size_px)
    multiple = spec.input_multiple_px
    tile_px = spec.input_px or min(tile_px, baseline_size_px) // multiple * multiple
    overlap_px = min(overlap_px, tile_px // 2)
    network = Path(work) / "network"
    difference = write_network(bundle, scene, tile_px, network) if has_loops else None
    return {
        "scene": str(scene),
        "plain_scene": str(crop),
        "deep_scene": str(_deep(scene)) if deep else "",
        "fp16": str(_in_fp16(Path(work), model, bundle.sha256)) if on_gpu else "",
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

    from rooftrace.io.files import replacing

    path = scene.with_name(f"{scene.stem}_crop{size_px}px.tif")
    with rasterio.open(scene) as source, replacing(path) as partial:
        profile = {**source.profile, "height": size_px, "width": size_px}
        with rasterio.open(partial, "w", **profile) as target:
            target.write(source.read(window=Window(0, 0, size_px, size_px)))
    return path


def _in_fp16(work: Path, model: str | None, sha256: str) -> Path:
    """The model in fp16, which GPUs compute faster; exported, unless it is there already."""
    from rooftrace.flows.export.run import run_export

    path = work / f"fp16_{sha256[:12]}.onnx"
    if not path.exists():
        run_export(None if model is None else Path(model), "onnx", path, precision="fp16")
    return path


def _deep(scene: Path) -> Path:
    """The scene as 12 of 16 bits, with a near-infrared band, as a file like it."""
    import numpy as np
    import rasterio

    from rooftrace.io.files import replacing

    path = scene.with_name(f"{scene.stem}_16bit.tif")
    if path.exists():
        return path
    with rasterio.open(scene) as source, replacing(path) as partial:
        profile = {**source.profile, "count": 4, "dtype": "uint16", "photometric": "minisblack"}
        profile |= {"compress": "deflate", "predictor": 2}
        with rasterio.open(partial, "w", **profile) as target:
            for _, window in source.block_windows(1):
                data = source.read(window=window)
                both = np.concatenate([data, 255 - data[:1]])
                target.write((both * 15.5 + 100).astype(np.uint16), window=window)
    return path


if __name__ == "__main__":
    start(main, generate, prepare, loop)
