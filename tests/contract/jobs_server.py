"""A server of jobs alone, in a thread or as a process: `python jobs_server.py FOLDER MODEL`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import rasterio
import uvicorn
from affine import Affine
from fastapi import FastAPI

from rooftrace.engines.selftest import tiny_bundle
from rooftrace.models.bundle import write_bundle
from rooftrace.predict.predictor import load
from rooftrace.rest.jobs import jobs_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.admit import CHILD
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.limits import Limits

__all__ = ["SLOW_CHILD", "jobs_app", "serving", "write_model", "write_town"]

SLOW_CHILD = """
import sys, time
from rooftrace.predict import scene, stream
scene.TILE_PX, scene.BLOCK_PX, stream.BATCH_PX = 256, 300, 1
from rooftrace.engines.openvino import OpenVinoEngine
run = OpenVinoEngine.run_quantised
def slowly(self, batch):
    time.sleep(float(sys.argv[1]))
    return run(self, batch)
OpenVinoEngine.run_quantised = slowly
from rooftrace.service.jobs import child
child._TELL_EVERY_S = 0.0
child.main()
"""
"""A child with small blocks that takes its time over each tile."""


def write_model(folder: Path) -> Path:
    """A model of pixels' brightness, of half a metre, whose scenes have many tiles."""
    tiny = tiny_bundle()
    told = {"input_multiple_px": 32, "context_px": 8, "gsd_m": 0.5}
    write_bundle(folder / "tiny.rooftrace", tiny.spec.model_copy(update=told), tiny.parts)
    return folder / "tiny.rooftrace"


def write_town(path: Path, side: int) -> Path:
    """A GeoTIFF of half a metre with roofs of 10 m, some of them bright."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (3, side // 20, side // 20), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", tiled=True,
        crs="EPSG:32737", transform=Affine(0.5, 0, 5e5, 0, -0.5, 9e6), compress="deflate",
    ) as out:  # fmt: skip
        out.write(np.kron(coarse, np.ones((1, 20, 20), np.uint8)))
    return path


def jobs_app(
    folder: Path,
    model: Path,
    limits: Limits | None = None,
    *,
    workers: int = 1,
    command: Sequence[str] = CHILD,
) -> FastAPI:
    """An app with the routes of jobs, whose runner lives as long as it does."""
    limits = limits or Limits()
    store = JobStore(folder, jobs_waiting=limits.jobs_waiting)
    runner = JobRunner(store, model, workers, command=command)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        runner.stop()
        store.close()

    app = FastAPI(lifespan=lifespan)
    app.state.store = store
    install_problems(app)
    app.include_router(jobs_router(runner, load(model), limits))
    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """An address at which the app answers meanwhile."""
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    command = (sys.executable, "-c", SLOW_CHILD, sys.argv[4])
    served = jobs_app(Path(sys.argv[1]), Path(sys.argv[2]), command=command)
    uvicorn.run(served, port=int(sys.argv[3]), log_level="warning")
