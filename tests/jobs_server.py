"""A server that has only jobs, in a thread or as `python jobs_server.py FOLDER MODEL PORT`."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI

from local_server import wait_until
from raster_files import write_geotiff
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import write_bundle
from rooftrace.predict.predictor import load
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.decode import Limits
from rooftrace.service.job_runner import CHILD, JobRunner
from rooftrace.service.job_store import JobStore

GATED_CHILD = """
import time
from pathlib import Path
from rooftrace.predict import plan, pipeline
plan.TILE_PX, plan.BLOCK_PX, pipeline.BATCH_PX = 256, 300, 1
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.service import job_child as child
child._PROGRESS_EVERY_S = 0.0
predict, run, folder, started = child._predict, OpenVinoEngine.run_quantised, None, 0
def predict_in(order, send):
    global folder
    folder = Path(order["folder"])
    predict(order, send)
def run_at_gate(self, batch):
    global started
    while not (gate := folder / "gate").exists() or started >= int(gate.read_text()):
        time.sleep(0.01)
    started += 1
    (folder / "started").write_text(str(started))
    return run(self, batch)
child._predict, OpenVinoEngine.run_quantised = predict_in, run_at_gate
child.main()
"""
"""A child with small blocks that runs only as many tiles as the gate of its job allows."""


class JobGate:
    """Control over the tiles that a `GATED_CHILD` runs.

    Args:
        folder: Folder of the job.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tiles = 0

    def open(self, tiles: int = 10**9) -> None:
        """Let the process of the job run this many tiles in all; by default every tile."""
        self._tiles = tiles
        written = self._folder / "gate.new"
        written.write_text(str(tiles))
        written.replace(self._folder / "gate")

    def step_until(self, condition: Callable[[], bool], what: str) -> None:
        """Let the process run tile after tile until a condition holds."""
        while not condition():
            self.open(self._tiles + 1)
            wait_until(lambda: self._started() >= self._tiles, f"tile {self._tiles}, {what}")
            # The block of the tile is finished by another thread of the process.
            time.sleep(0.1)

    def _started(self) -> int:
        path = self._folder / "started"
        return int(path.read_text() or 0) if path.exists() else 0


def write_model(folder: Path) -> Path:
    """Write a model of pixel brightness at 0.5 m per pixel, whose scenes have many tiles."""
    tiny = tiny_bundle()
    changes = {"input_multiple_px": 32, "context_px": 8, "gsd_m": 0.5}
    write_bundle(folder / "tiny.rooftrace", tiny.spec.model_copy(update=changes), tiny.parts)
    return folder / "tiny.rooftrace"


def write_town(path: Path, side: int) -> Path:
    """Write a GeoTIFF at 0.5 m per pixel with roofs of 10 m, some of them bright."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (3, side // 20, side // 20), dtype=np.uint8)
    return write_geotiff(
        path, np.kron(coarse, np.ones((1, 20, 20), np.uint8)), tiled=True, compress="deflate"
    )


def jobs_app(
    folder: Path, model: Path, limits: Limits | None = None, *, command: Sequence[str] = CHILD
) -> FastAPI:
    """Return an app with the routes of jobs; its lifespan starts and stops the runner."""
    limits = limits or Limits()
    store = JobStore(folder, jobs_waiting=limits.jobs_waiting)
    runner = JobRunner(store, model, 1, command=command)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        runner.stop()

    app = FastAPI(lifespan=lifespan)
    app.state.store = store
    install_problems(app)
    app.include_router(jobs_router(JobIntake(runner, load(model), limits)))
    return app


if __name__ == "__main__":
    command = (sys.executable, "-c", GATED_CHILD)
    served = jobs_app(Path(sys.argv[1]), Path(sys.argv[2]), command=command)
    uvicorn.run(served, port=int(sys.argv[3]), log_level="warning")
