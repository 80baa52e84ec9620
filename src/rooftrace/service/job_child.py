"""Process of one job: `python -m rooftrace.service.job_child`.

It reads its order as a line of JSON from standard input, which then stays open. When the input
ends, the server has ended, and the process ends too. It writes progress and the answer as lines of
JSON to standard output. The next process resumes a run that was killed, see
`rooftrace.flows.predict.run`.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ExportError, OutOfMemoryError, RooftraceError, is_out_of_memory
from rooftrace.core.system import lower_priority
from rooftrace.flows.predict.inputs import PredictInputs, find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.io.files import locked, write_atomically
from rooftrace.io.nodata import nodata_from_json
from rooftrace.io.raster import open_image
from rooftrace.predict.model_set import read_models
from rooftrace.service.job_store import OPTIONS_JSON
from rooftrace.service.tiff_blocks import check_deflate_blocks_of

ANSWER = "answer.json"
"""File with the answer of a job, for the case that the server ended before it read the answer."""

_PROGRESS_EVERY_S = 0.25

_LOCK_TIMEOUT_S = 30.0
"""Time for the process of a previous server to end; it ends soon after that server."""

_NICE = 5
"""Priority of jobs, below that of requests whose clients wait."""

_OOM_SCORE = 500
"""Score of at most 1000, so that Linux ends a job before the server when memory is short."""

_MAX_STEM_BYTES = 120

Send = Callable[[dict[str, Any]], None]
"""Function that sends a message to the server."""


def main() -> None:
    """Execute the order on standard input."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not reach the pipe of the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = json.loads(sys.stdin.buffer.readline())

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    try:
        _predict(order, send)
    except ExportError as error:
        # Its own remedy is one of the command line: another folder.
        full = ExportError(error.message, remedy="Ask the operator of the server to make room.")
        send({"error": full.to_json()})
    except RooftraceError as error:
        send({"error": error.to_json()})
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        no_memory = OutOfMemoryError(
            "The memory was not enough.", remedy="Send the scene in parts."
        )
        send({"error": no_memory.to_json()})


def _predict(order: dict[str, Any], send: Send) -> None:
    threading.Thread(target=_end_with_server, daemon=True).start()
    lower_priority(_NICE, _OOM_SCORE)
    folder = Path(order["folder"])
    sent_s = 0.0

    def progress(done_px: int, total_px: int, buildings: int, _images: int) -> None:
        nonlocal sent_s
        now_s = time.monotonic()
        if now_s - sent_s >= _PROGRESS_EVERY_S or done_px == total_px:
            sent_s = now_s
            send({"progress": [done_px, total_px, buildings]})

    with _locked(folder):
        done = folder / ANSWER
        if not done.exists():
            # The map shows parts of the image later, from the process of the server.
            with (folder / order["upload"]).open("rb") as image:
                check_deflate_blocks_of(image, order["name"])
            report = run_predict(
                _inputs(order, folder / order["upload"]),
                read_models(
                    None if order["model"] is None else Path(order["model"]),
                    engine=order["engine"],
                    precision=order["precision"],
                ),
                folder / "results",
                OPTIONS_JSON.validate_python(order["options"]),
                progress=progress,
            )
            result = {
                "figures": {
                    **report.to_json()["outputs"][0],
                    "mpx_per_s": report.mpx_per_s,
                    "resumed_blocks": report.resumed_blocks,
                    "notes": report.notes,
                },
            }
            write_atomically(done, json.dumps(result).encode())
        send(json.loads(done.read_bytes()))


def _inputs(order: dict[str, Any], upload: Path) -> PredictInputs:
    """Return the upload as an image that has the name that the client gave, as its results have.

    Bands of some sensors and the position of a slippy map tile are known by this name.
    """
    nodata = nodata_from_json(order.get("nodata"))
    inputs = find_inputs([upload], nodata)
    source = open_image(upload, nodata=nodata, shown=order["name"])
    # The server has replaced special characters; a whole name of a file may have 255 bytes.
    stem = Path(order["name"]).stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    return replace(inputs, scenes=[replace(inputs.scenes[0], name=stem, source=source)])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a job; wait while a process of a previous server still holds it."""
    deadline_s = time.monotonic() + _LOCK_TIMEOUT_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder / ".lock", str(folder)))
                break
            except ExportError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
        yield


def _end_with_server() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            pass
    # Finished blocks are on disk, and nothing else needs to be cleaned up.
    os._exit(1)


if __name__ == "__main__":
    main()
