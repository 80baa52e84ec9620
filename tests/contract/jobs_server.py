"""A server of jobs alone, in a thread or as a process: `python jobs_server.py FOLDER MODEL`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from rooftrace.predict.predictor import load
from rooftrace.rest.jobs import jobs_router
from rooftrace.rest.problems import install_problems
from rooftrace.service.jobs.admit import CHILD
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.limits import Limits

__all__ = ["SLOW_CHILD", "jobs_app", "serving"]

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


def jobs_app(
    folder: Path,
    model: Path | None,
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
