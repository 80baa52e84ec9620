"""Run commands of rooftrace in child processes, each hit by a fault at a chosen moment.

The program reads cases as JSON from its standard input, and prints their results as JSON. It is a
process of its own that starts no thread, so that it can fork: a case costs no import.
"""

import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Faults:
    """Audit hook that counts writes below a folder and causes a fault at one of them.

    Args:
        case: `watch` is the folder; `at` the number of the write from 1, 0 for never; `fault` is
            kill, interrupt, vanish or change; `input` the file that vanishes or changes into
            `other`.
    """

    def __init__(self, case: dict[str, Any]) -> None:
        self._case = case
        self._watch = os.path.realpath(case["watch"])
        self._pid = os.getpid()
        self.count = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.mkdir", "os.remove") or not arguments:
            return
        if event == "open" and not (arguments[2] or 0) & _WRITING:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike) or self._pid != os.getpid():
            return
        if not os.fsdecode(path).startswith(self._watch):
            return
        self.count += 1
        if self.count == self._case["at"]:
            self._cause()

    def _cause(self) -> None:
        fault, given = self._case["fault"], self._case.get("input", "")
        if fault == "kill":
            os.kill(self._pid, signal.SIGKILL)
        elif fault == "interrupt":
            os.kill(self._pid, signal.SIGINT)
        elif fault == "vanish":
            Path(given).rename(given + ".gone")
        elif fault == "change":
            Path(given).write_bytes(Path(self._case["other"]).read_bytes())


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """Run one command in a child; return its exit code (negative: signal), texts and writes."""
    # Pipes, because a limit on the size of files would hold for standard output, too.
    pipes = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if not pid:
        _child(case, [end for _, end in pipes])
    texts = []
    for _, end in pipes:
        os.close(end)
    for start, _ in pipes:
        with os.fdopen(start, encoding="utf-8") as pipe:
            texts.append(pipe.read())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"code": code, "out": texts[0], "err": texts[1], "writes": int(texts[2] or 0)}


def _child(case: dict[str, Any], ends: list[int]) -> None:
    from rooftrace.cli import main

    code: object = 70
    faults = Faults(case)
    try:
        os.dup2(ends[0], 1)
        os.dup2(ends[1], 2)
        if size := case.get("most_bytes"):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        sys.addaudithook(faults)
        main([*case["arguments"], "--json"])
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(ends[2], str(faults.count).encode())
    os._exit(code if isinstance(code, int) else 0)


def _prepare() -> None:
    """Import what commands need, without a thread, and make blocks small."""
    import rooftrace.flows.catalogue.run
    import rooftrace.flows.density.run
    import rooftrace.flows.predict.run
    import rooftrace.flows.vectorize  # noqa: F401
    from rooftrace.predict import pipeline, plan

    plan.TILE_PX, plan.BLOCK_PX, pipeline.BATCH_PX = 256, 300, 1


if __name__ == "__main__":
    _prepare()
    print(json.dumps([run_case(case) for case in json.load(sys.stdin)]))  # noqa: T201
