"""A catalogue of scenes on one process and on workers of a cluster; a part of bench/cluster.py.

Measured are scenes through workers that each process whole scenes, the driver's time for a scene,
and the time until the buildings of all scenes are one layer.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from common import (
    argument_parser,
    by_turns,
    cpu_s,
    measure_part,
    measure_rooftrace,
    rounded,
    start,
    write_scene,
)

_OVERLAP = 0.1
_TAKEN = 200


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--scene-side", type=int, default=5000)
    return measured(parser.parse_args())


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Runs of a catalogue in turns, and the driver's part in them."""
    folder = options.work / "cluster_catalogue"
    measure_part(
        __file__, "tiles", folder=folder, work=options.work, scenes=options.scenes,
        side=options.scene_side,
    )  # fmt: skip
    out = options.work / "cluster_out"
    workers_of = {"alone": 0} | {f"workers_{count}": count for count in options.workers}
    runs = by_turns(
        workers_of, options.repeat, lambda row: _run(folder, out, workers_of[row]), "mpx_per_s"
    )
    best = {name: max(made, key=lambda row: row["mpx_per_s"]) for name, made in runs.items()}
    one = best[f"workers_{options.workers[0]}"]
    answer = {
        "scenes": options.scenes,
        "scene_mpx": rounded(options.scene_side**2 / 1e6),
        **best,
        "driver": measure_part(__file__, "driver", scene=next(folder.glob("*.tif")),
                               folder=options.work / "cluster_driver").report,
    }  # fmt: skip
    for workers in options.workers[1:]:
        gain = best[f"workers_{workers}"]["mpx_per_s"] / one["mpx_per_s"]
        answer[f"efficiency_{workers}"] = rounded(gain / workers)
    shutil.rmtree(out, ignore_errors=True)
    return answer


def _run(folder: Path, out: Path, workers: int) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    cluster = ["--cluster", "ray", "--workers", str(workers)] if workers else []
    made = measure_rooftrace("catalogue", folder, "-o", out, *cluster)
    return {
        "mpx_per_s": rounded(made.report["mpx_per_s"]),
        "seconds": rounded(made.seconds),
        "driver_peak_mb": made.peak_rss_mb,
        "buildings": made.report["buildings"],
        "found": made.report["found"],
    }


def tiles(*, folder: str, work: str, scenes: int, side: int) -> dict[str, Any]:
    """Write copies of one town, each a bit further east."""
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


def driver(*, scene: str, folder: str) -> dict[str, Any]:
    """Cost of a scene for the driver: to assign it, move its files, record it and merge it."""
    import pickle
    from dataclasses import replace

    from rooftrace.flows.catalogue.run import run_catalogue
    from rooftrace.flows.catalogue.sources import read_catalogue
    from rooftrace.flows.predict.cluster import SceneTasks, SceneWorker
    from rooftrace.flows.predict.executor import executing
    from rooftrace.flows.predict.image_run import PredictRun
    from rooftrace.flows.predict.inputs import find_inputs
    from rooftrace.flows.predict.run_folder import RunFolder
    from rooftrace.predict.model_set import read_models
    from rooftrace.predict.plan import SceneOptions

    out = Path(folder)
    shutil.rmtree(out, ignore_errors=True)
    models = read_models(None)
    options = SceneOptions(outputs=("polygons",), outline=True)
    worker = SceneWorker(models, None, Path.cwd())
    (job,) = find_inputs([Path(scene)]).scenes
    jobs = [replace(job, name=f"{number}") for number in range(_TAKEN)]
    with RunFolder(out, {}) as run_folder:
        run = PredictRun(worker.predictor, out, options, run_folder)
        wholes = SceneTasks(run)
        began = cpu_s()
        tasks = [pickle.dumps(task) for task in wholes.tasks(jobs)]
        handed_out_s = cpu_s() - began
        # Pickled above.
        made = worker.scene(pickle.loads(tasks[0]).given)  # nosec B301
        (image,) = made.images.values()
        files = {path.name: path.read_bytes() for path in made.folder.iterdir()}
        took_s = 0.0
        for number in range(_TAKEN):
            copy = made.folder.with_name(f"{made.folder.name}{number}")
            copy.mkdir()
            for name, content in files.items():
                (copy / name).write_bytes(content)
            moved = replace(made, folder=copy, images={f"{number}": image})
            answer = pickle.dumps(moved)
            began = cpu_s()
            wholes.done(number, pickle.loads(answer))  # nosec B301
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
    start(main, tiles, driver)
