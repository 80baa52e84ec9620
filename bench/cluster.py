"""Scenes on one process and on workers of a cluster, and the work of their driver."""

from __future__ import annotations

import argparse
import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from common import (
    argument_parser,
    by_turns,
    cpu_s,
    load_bundle,
    measure_part,
    measure_rooftrace,
    rounded,
    say,
    start,
    warm,
    write_scene,
)

_CALLS = 300

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def main() -> dict[str, Any]:
    options = _options()
    return {"measured": _measured(options)}


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--side", type=int, default=12_288, help="of the scene, in pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=8, help="of the catalogue")
    parser.add_argument("--scene-side", type=int, default=5000, help="of each of them")
    return parser.parse_args()


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    import cluster_catalogue

    given = {"folder": options.work, "model": options.model}
    scene = Path(measure_part(__file__, "scene", side=options.side, **given).report["scene"])
    warm(scene)
    workers_of = {"alone": 0} | {f"workers_{count}": count for count in options.workers}
    runs = by_turns(
        workers_of, options.repeat, lambda row: _run(scene, options, workers_of[row]), "run_s"
    )
    best = {name: min(made, key=lambda row: row["run_s"]) for name, made in runs.items()}
    small = measure_part(__file__, "scene", side=options.side // 2, **given).report["scene"]
    driver = _per_block(
        *(measure_part(__file__, "driver", scene=one, **given).report for one in (small, scene))
    )
    calls = measure_part(__file__, "calls", payload_bytes=int(driver["part_bytes"])).report
    blocks = int(driver["blocks"])
    one = best[f"workers_{options.workers[0]}"]
    answer = {
        "scene_px": options.side,
        "block_mpx": rounded(options.side**2 / 1e6 / blocks),
        "blocks": blocks,
        **best,
        "driver": driver,
        "calls": calls,
        "blocks_per_minute": {
            name: rounded(60 * blocks / row["run_s"]) for name, row in best.items()
        },
        "worker_block_s": rounded(one["run_s"] / blocks),
    }
    for workers in options.workers[1:]:
        more = best[f"workers_{workers}"]
        answer[f"efficiency_{workers}"] = rounded(one["run_s"] / more["run_s"] / workers)
    answer["catalogue"] = cluster_catalogue.measured(options)
    return answer


def _run(scene: Path, options: argparse.Namespace, workers: int) -> dict[str, Any]:
    out = options.work / "cluster_out"
    shutil.rmtree(out, ignore_errors=True)
    cluster = ["--cluster", "ray", "--workers", str(workers)] if workers else []
    made = measure_rooftrace("predict", scene, "-o", out, *cluster, model=options.model)
    shutil.rmtree(out, ignore_errors=True)
    mpx = options.side**2 / 1e6
    run_s = mpx / made.report["mpx_per_s"]
    return {
        "run_s": rounded(run_s),
        "mpx_per_s": rounded(made.report["mpx_per_s"]),
        "start_s": rounded(made.seconds - run_s),
        "driver_peak_mb": made.peak_rss_mb,
    }


def scene(*, folder: str, side: int, model: str | None) -> dict[str, Any]:
    gsd_m = load_bundle(model).spec.gsd_m or 0.3
    return {"scene": str(write_scene(Path(folder), side, gsd_m, "deflate"))}


def driver(*, scene: str, folder: str, model: str | None) -> dict[str, Any]:
    """The driver's own work: one process makes the blocks, and then takes them twice.

    In the first round it makes the calls of workers, too. In the second they are answered at once
    with the answers of the first, so that only the driver's time is left.
    """
    import pickle

    from rooftrace.io.raster import open_raster
    from rooftrace.predict import pipeline
    from rooftrace.predict.block import Block
    from rooftrace.predict.checkpoint import CheckpointStore
    from rooftrace.predict.outputs import OutputPaths, SceneOutputs
    from rooftrace.predict.pipeline import SceneBlocks
    from rooftrace.predict.plan import SceneOptions, plan_scene
    from rooftrace.predict.predictor import load

    predictor = load(model)
    source = open_raster(scene)
    out = Path(folder) / "cluster_driver"
    plan = plan_scene(source, predictor.bundle.spec, SceneOptions())
    # Blocks of an earlier benchmark of the scene are not predicted again.
    blocks = CheckpointStore(
        Path(folder) / f"cluster_blocks_{Path(scene).stem}", {"scene": scene, "model": model}
    )
    beside = _Beside()
    made = 0.0
    sent: list[bytes] = []
    answer: dict[str, Any] = {}
    for turn in ("calls", "replay"):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        paths = OutputPaths.of(out, "scene", source.grid, predictor.bundle.spec.legend)
        outputs = SceneOutputs(plan, paths, workers=beside)
        if not sent:
            scenes = pipeline.run_scenes([SceneBlocks(plan, blocks)], predictor.engine)
            for block in (block for scene in scenes for block in scene.blocks):
                assert isinstance(block, Block)
                began = time.thread_time()
                sent.append(pickle.dumps(outputs.parts(block)))
                made += time.thread_time() - began
        count = len(sent)
        with outputs:
            say(f"{count} blocks: {turn}")
            began = cpu_s()
            for one in sent:
                # Packed by this program.
                outputs.feed(pickle.loads(one))  # nosec B301
            take_s, take_calls_s = cpu_s() - began, beside.spent()
            wall, own, began = time.perf_counter(), time.thread_time(), cpu_s()
            outputs.finish()
            finish_s, finish_calls_s = cpu_s() - began, beside.spent()
            own, wall = time.thread_time() - own, time.perf_counter() - wall
        if turn == "calls":
            answer = {
                "blocks": count,
                "part_bytes": sum(map(len, sent)) / count,
                "worker_parts_ms": rounded(1e3 * made / count),
                "take_calls_ms": rounded(1e3 * take_calls_s / count),
                "finish_calls_ms": rounded(1e3 * finish_calls_s / count),
            }
            beside.replay()
    shutil.rmtree(out, ignore_errors=True)
    return answer | {
        "take_ms": rounded(1e3 * take_s / count),
        "finish_s": {"cpu": finish_s, "thread": own, "wall": wall},
    }


def _per_block(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """The driver's figures of a scene, with its end divided into a part for each block and a rest.

    Args:
        small, large: Answers of `driver` for two scenes.
    """
    answer = {name: value for name, value in large.items() if name != "finish_s"}
    more = large["blocks"] - small["blocks"]
    for kind, whole_s in large["finish_s"].items():
        block_s = (whole_s - small["finish_s"][kind]) / more
        answer[f"finish_{kind}_ms"] = rounded(1e3 * block_s)
        answer[f"finish_{kind}_fixed_ms"] = rounded(1e3 * (whole_s - large["blocks"] * block_s))
    return answer


class _Beside:
    """Makes the driver's calls at once, and takes their time, which is that of workers."""

    size = 200

    def __init__(self) -> None:
        self._answers: defaultdict[str, deque[bytes]] = defaultdict(deque)
        """Answers by the name of the function; each is called in the same order every time."""

        self._replays = False
        self._seconds: list[float] = []

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        import pickle

        from rooftrace.flows.predict.cluster_worker import packed

        content = packed((work, given))
        answers = self._answers[getattr(work, "func", work).__name__]
        if self._replays:
            answer = answers.popleft()
        else:
            began = time.thread_time()
            work, given = pickle.loads(content)  # nosec B301
            answer = packed(work(*given))
            answers.append(answer)
            self._seconds.append(time.thread_time() - began)
        result: Future[T] = Future()
        result.set_result(pickle.loads(answer))  # nosec B301
        return result

    def replay(self) -> None:
        """Answer the same calls from now on in no time."""
        self._replays = True

    def spent(self) -> float:
        """Seconds of the calls since the last time."""
        seconds = sum(self._seconds)
        self._seconds.clear()
        return seconds


def calls(*, payload_bytes: int) -> dict[str, Any]:
    """Ray's part: tasks that do nothing but return as many bytes as a part has."""
    import ray

    def idle() -> bytes:
        return bytes(payload_bytes)

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    task: Any = ray.remote(num_cpus=1)(idle)
    ray.get(task.remote())
    began, cpu = time.perf_counter(), cpu_s()
    known = [task.remote() for _ in range(4)]
    for _ in range(_CALLS):
        done, known = ray.wait(known, num_returns=1, fetch_local=False)
        ray.get(done[0])
        known.append(task.remote())
    took, cpu = time.perf_counter() - began, cpu_s() - cpu
    ray.shutdown()
    return {
        "call_ms": rounded(1e3 * took / _CALLS),
        "call_cpu_ms": rounded(1e3 * cpu / _CALLS),
        "payload_mb": rounded(payload_bytes / 1e6),
    }


if __name__ == "__main__":
    start(main, scene, driver, calls)
