"""The process that decodes a stranger's video: `python -m rooftrace.app.page.video_child`.

It reads the request as a JSON object from standard input, and writes messages to standard output,
one line of JSON each. If a video crashes the decoder, this process ends and the server does not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rooftrace.core.errors import RooftraceError
from rooftrace.flows.video import VideoOptions, run_video

_EVERY_S = 0.5


def main() -> None:
    """Process the request."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # Output of a library must not be taken for a message.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    said = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > _EVERY_S:
            said = time.monotonic()
            say({"done": done, "total": total})

    model = request["model"]
    table = request["options"].pop("table")
    try:
        report = run_video(
            request["source"],
            Path(request["out"]),
            None if model is None else Path(model),
            options=VideoOptions(**request["options"], table=Path(table)),
            engine=request["engine"],
            precision=request["precision"],
            progress=progress,
        )
    except RooftraceError as error:
        say({"error": error.to_json()})
        return
    say({"report": report.to_json()})


if __name__ == "__main__":
    main()
