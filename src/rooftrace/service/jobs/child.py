"""The process of one job: `python -m rooftrace.service.jobs.child`.

An order comes as a line of JSON on its standard input, which then stays open: when it ends, the
server has gone, and so does this. Progress and the answer are lines of JSON on the standard output.
A run that was killed is gone on with by the next process, see `rooftrace.flows.predict`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rooftrace.core.errors import ExportError, PredictError, RooftraceError, TooLargeError
from rooftrace.flows.predict import run_predict
from rooftrace.io.atomic import write_atomically
from rooftrace.io.lock import locked
from rooftrace.service.decode_child import UploadFile, ending_of, limit_memory
from rooftrace.service.jobs.job import options_from_json

__all__ = ["ANSWER", "main"]

ANSWER = "answer.json"
"""What came of a job whose process ended before anybody had read it."""

_TELL_EVERY_S = 0.25

_WAIT_S = 30.0
"""For the process of a server that has gone: it ends at its next breath."""

_NICE = 5
"""Those who wait for an answer come before jobs."""

_FIRST_TO_DIE = "500"
"""Of 1000: where memory ends, the system is to take a job and not the server."""

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do what the standard input says."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not be taken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = json.loads(sys.stdin.buffer.readline())
    say = _speaker(answers)
    try:
        if order["task"] == "look":
            say(_look(order))
        else:
            _predict(order, say)
    except RooftraceError as error:
        say({"error": error.to_json()})
    except MemoryError:
        short = PredictError("The memory was not enough.", remedy="Send the scene in parts.")
        say({"error": short.to_json()})


def _speaker(answers: BinaryIO) -> Say:
    def say(told: dict[str, Any]) -> None:
        answers.write(json.dumps(told).encode() + b"\n")
        answers.flush()

    return say


def _look(order: dict[str, Any]) -> dict[str, Any]:
    """What the header of an upload says, and the ending that its content has."""
    limit_memory(order["memory_bytes"])
    path = Path(order["path"])
    source = UploadFile(path, order["name"])
    try:
        source.check(order["pixels"])
    except TooLargeError as error:
        raise TooLargeError(error.message, remedy="Send the scene in parts.") from error
    except RooftraceError as error:
        # GDAL says where the file lies here, which is nobody's business.
        told = error.message.replace(str(path), order["name"])
        raise type(error)(told, remedy=error.remedy) from error
    grid = source.grid
    with path.open("rb") as file:
        ending = ending_of(file.read(16))
    return {
        "ending": ending,
        "bands": source.bands,
        "dtype": source.dtype.str,
        "shape": grid.shape,
        "transform": [*grid.transform][:6],
        "crs": None if grid.crs is None else grid.crs.to_wkt(),
    }


def _predict(order: dict[str, Any], say: Say) -> None:
    threading.Thread(target=_end_with_server, daemon=True).start()
    _step_back()
    folder = Path(order["folder"])
    told_s = 0.0

    def progress(done_px: int, total_px: int, buildings: int) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s >= _TELL_EVERY_S or done_px == total_px:
            told_s = now_s
            say({"progress": [done_px, total_px, buildings]})

    with _alone(folder):
        done = folder / ANSWER
        if not done.exists():
            report = run_predict(
                [folder / order["upload"]],
                None if order["model"] is None else Path(order["model"]),
                folder / "results",
                options_from_json(order["options"]),
                engine=order["engine"],
                precision=order["precision"],
                progress=progress,
            )
            answer = {
                "figures": {
                    **report.to_json()["outputs"][0],
                    "mpx_per_s": report.mpx_per_s,
                    "resumed_blocks": report.resumed_blocks,
                    "notes": report.notes,
                },
            }
            write_atomically(done, json.dumps(answer).encode())
        say(json.loads(done.read_bytes()))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a job, when the process of a server that has gone has let go of it."""
    until_s = time.monotonic() + _WAIT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(folder / ".lock", str(folder)))
                break
            except ExportError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)
        yield


def _end_with_server() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            pass
    # What was finished is kept, and nothing else has to be put in order.
    os._exit(1)


def _step_back() -> None:
    """Leave the processor, and the last of the memory, to others."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE)


if __name__ == "__main__":
    main()
