"""A catalogue of scenes on one process and on workers of a cluster; a part of bench/cluster.py.

python bench/cluster_catalogue.py         # by itself

What is measured: scenes through workers that each do all of one, the driver's time for a scene, and
the time until the buildings of all of them are one layer.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from common import WORK, cpu_s, measure, measure_part, rounded, say, start, write_scene

_OVERLAP = 0.1
_TAKEN = 200


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--scene-side", type=int, default=5000)
    options = parser.parse_args()
    return measured(options)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Runs of a catalogue in turns, and the driver's part in them."""
    folder = options.work / "cluster_catalogue"
    measure_part(
        __file__, "tiles", folder=str(folder), work=str(options.work), scenes=options.scenes,
        side=options.scene_side,
    )  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.repeat):
        for workers in [0, *options.workers]:
            name = f"workers_{workers}" if workers else "alone"
            rows.setdefault(name, []).append(_run(folder, options.work / "cluster_out", workers))
            say(f"catalogue, {name}: {rows[name][-1]}")
    best = {name: max(made, key=lambda row: row["mpx_per_s"]) for name, made in rows.items()}
    one = best[f"workers_{options.workers[0]}"]
    answer = {
        "scenes": options.scenes,
        "scene_mpx": rounded(options.scene_side**2 / 1e6),
        **best,
        "driver": measure_part(__file__, "driver", scene=str(next(folder.glob("*.tif"))),
                               folder=str(options.work / "cluster_driver")).report,
    }  # fmt: skip
    for workers in options.workers[1:]:
        gain = best[f"workers_{workers}"]["mpx_per_s"] / one["mpx_per_s"]
        answer[f"efficiency_{workers}"] = rounded(gain / workers)
    shutil.rmtree(options.work / "cluster_out", ignore_errors=True)
    return answer


def _run(folder: Path, out: Path, workers: int) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "rooftrace", "predict", str(folder), "-o", str(out)]
    command += ["--catalogue", "--json"]
    if workers:
        command += ["--cluster", "ray", "--workers", str(workers)]
    made = measure(command)
    return {
        "mpx_per_s": rounded(made.report["mpx_per_s"]),
        "seconds": rounded(made.seconds),
        "driver_peak_mb": made.peak_rss_mb,
        "buildings": made.report["buildings"],
        "found": made.report["found"],
    }


def _part_tiles(*, folder: str, work: str, scenes: int, side: int) -> dict[str, Any]:
    """The same town, over and over, each a bit further east."""
    import rasterio
    from affine import Affine

    town = write_scene(Path(work), side, 0.3, "deflate")
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    for number in range(scenes):
        path = Path(folder) / f"{number:03d}.tif"
        shutil.copyfile(town, path)
        with rasterio.open(path, "r+") as image:
            image.transform @= Affine.translation(number * side * (1 - _OVERLAP), 0)
    return {}


def _part_driver(*, scene: str, folder: str) -> dict[str, Any]:
    """What a scene costs the driver: handed out, its files moved, noted, put into one layer."""
    import pickle
    from dataclasses import replace

    from rooftrace.data.catalogue.read import read_catalogue
    from rooftrace.flows.catalogue import run_catalogue
    from rooftrace.flows.executor import executing
    from rooftrace.flows.inputs import find_jobs
    from rooftrace.flows.runfolder import RunFolder
    from rooftrace.flows.scene_run import SceneRun
    from rooftrace.flows.whole import SceneWorker, Wholes
    from rooftrace.predict.model_set import read_models
    from rooftrace.predict.options import SceneOptions

    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    models = read_models(None)
    options = SceneOptions(outputs=("polygons",), outline=True)
    worker = SceneWorker(models, None, Path.cwd())
    ((job,), _) = find_jobs([Path(scene)])
    jobs = [replace(job, name=f"{number}") for number in range(_TAKEN)]
    with RunFolder(out, {}) as run_folder:
        run = SceneRun(worker.predictor, out, options, run_folder, None, None)
        wholes = Wholes(run, run_folder, {one.name: 1 for one in jobs}, strict=False)
        began = cpu_s()
        tasks = [pickle.dumps(task) for task in wholes.tasks(jobs)]
        handed_out_s = cpu_s() - began
        made = worker.scene(pickle.loads(tasks[0]).given)
        files = {path.name: path.read_bytes() for path in made.folder.iterdir()}
        took_s = 0.0
        for number in range(_TAKEN):
            copy = made.folder.with_name(f"{made.folder.name}{number}")
            copy.mkdir()
            for name, content in files.items():
                (copy / name).write_bytes(content)
            answer = pickle.dumps(replace(made, folder=copy))
            began = cpu_s()
            wholes.done(number, pickle.loads(answer))
            took_s += cpu_s() - began
    shutil.rmtree(out, ignore_errors=True)
    # When all scenes are done, what is left is to find that out, and to make one layer of them.
    scenes, quiet = read_catalogue(Path(scene).parent), SceneOptions(outputs=("polygons",))
    with executing(models) as executor:
        run_catalogue(scenes, executor, out, quiet)
        began = cpu_s()
        report = run_catalogue(scenes, executor, out, quiet)
        layer_s = cpu_s() - began
    assert report.predicted.resumed_images == report.scenes
    shutil.rmtree(out, ignore_errors=True)
    return {
        "hand_out_ms": rounded(1e3 * handed_out_s / _TAKEN),
        "take_ms": rounded(1e3 * took_s / _TAKEN),
        "answer_bytes": len(pickle.dumps(made)),
        "layer_ms_per_1000_buildings": rounded(1e6 * layer_s / report.found),
    }


if __name__ == "__main__":
    start(main, {"tiles": _part_tiles, "driver": _part_driver})
