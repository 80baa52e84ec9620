"""Run mutated files through the readers: `make fuzz MINUTES=60 ONLY=coco`.

Every try must end in an answer or in an error of `core/errors.py`, within limits of time and
memory. A worker process makes many tries; one that crashes or hangs is a finding, and is replaced.
Findings are kept in `build/fuzz/READER/HASH/`: the smallest input, its traceback, and the line that
repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import json
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_targets import TARGETS, Target, WrongAnswer

from rooftrace.core.errors import RooftraceError

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "fuzz"
SOURCE = str(ROOT / "src" / "rooftrace")

MEMORY_BYTES = 3 * 2**30
"""Memory that the tries of a worker may take in addition to what the libraries occupy."""

COUNTS = OUT / "counts.jsonl"
"""File that gets a line for each reader and run, so that the minutes of runs can be added up."""

START_S = 300.0
"""Maximum number of seconds in which a worker is ready."""

STEP_S = 0.5
"""Seconds between two ticks of the clock."""


class Clock:
    """Seconds since its start in which this process was not stopped (by SIGSTOP, for example).

    A thread adds the time between ticks, and no more than two ticks at once.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(STEP_S)
            now = time.monotonic()
            self.seconds += min(now - last, 2 * STEP_S)
            last = now


def attempt(target: Target, folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """Read one input in an empty folder; return how it ended, with a finding's data."""
    place = Path(tempfile.mkdtemp(dir=folder))
    started = time.monotonic()
    try:
        for fixed, content in target.fixed.items():
            _write(place / fixed, content)
        _write(place / name, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(place / name)
    except RooftraceError as error:
        if not str(error).strip():
            return _finding("EmptyMessage", type(error).__name__, traceback.format_exc())
        return {"end": "refused"}
    except WrongAnswer as error:
        return _finding("WrongAnswer", str(error), traceback.format_exc())
    except (Exception, SystemExit) as error:
        where = "outside of rooftrace"
        for frame, _ in traceback.walk_tb(error.__traceback__):
            code = frame.f_code
            if code.co_filename.startswith(SOURCE):
                where = f"{code.co_filename[len(SOURCE) + 1 :]}:{code.co_qualname}"
        return _finding(type(error).__name__, where, traceback.format_exc())
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {"end": "accepted", "seconds": time.monotonic() - started}


def mutant(target: Target, seed: int, number: int) -> tuple[str, bytes]:
    """Return the name and content of the input of one try."""
    rng = np.random.default_rng([seed, number])
    seeds = list(target.seeds.items())
    name, data = seeds[int(rng.integers(0, len(seeds)))]
    return name, target.mutate(rng, name, data, [other for _, other in seeds])


def work(reader: str, seed: int, number: int) -> None:
    """Make tries until the process is ended; write one line for each to the standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    faulthandler.enable()
    target = TARGETS[reader]
    with tempfile.TemporaryDirectory(prefix="rooftrace-fuzz-") as scratch:
        folder = Path(scratch)
        for name, data in target.seeds.items():
            outcome = attempt(target, folder, name, data)
            if outcome["end"] != "accepted":
                answers.write(json.dumps({"seed": name, **outcome}) + "\n")
                return
        # Counted in addition to the present size: the libraries reserve much more than they use.
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
        answers.write(json.dumps({"ready": True, "folder": scratch}) + "\n")
        while True:
            name, data = mutant(target, seed, number)
            outcome = attempt(target, folder, name, data)
            answers.write(json.dumps({"number": number, **outcome}) + "\n")
            number += 1


class NoStartError(Exception):
    """A reader refuses its own valid files, or its process does not start."""


class Worker:
    """A process that makes tries, and the lines that it writes."""

    def __init__(self, reader: str, seed: int, number: int, clock: Clock) -> None:
        self.clock = clock
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", reader, "--seed", str(seed),
             "--number", str(number)],
            stdout=subprocess.PIPE, stderr=self.log, start_new_session=True,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )  # fmt: skip
        self._selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._buffer = b""
        self.folder = ""
        first = self.answer(START_S)
        if first is None or "ready" not in first:
            self.end()
            raise NoStartError(f"The reader {reader} does not start: {first}\n{self.tail()}")
        self.folder = first["folder"]

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """Return the next line; None if there is none in this time, or the process has ended."""
        end = self.clock.seconds + seconds
        while b"\n" not in self._buffer:
            if not self._selector.select(STEP_S):
                if self.clock.seconds >= end:
                    return None
                continue
            assert self.process.stdout is not None
            more = os.read(self.process.stdout.fileno(), 2**16)
            if not more:
                self.process.wait()
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> int | None:
        """End the process and those that it started; return its code if it had ended by itself."""
        code = self.process.poll()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        return code

    def tail(self) -> str:
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 6000))
        return self.log.read().decode(errors="replace")


def campaign(reader: str, seconds: float, seed: int, clock: Clock) -> Counter[str]:
    """Make tries for some seconds; return how many ended in which way, and keep the findings."""
    target, counts, number = TARGETS[reader], Counter[str](), 0
    worker = Worker(reader, seed, number, clock)
    end = clock.seconds + seconds
    while clock.seconds < end:
        outcome = worker.answer(target.seconds)
        counts["tries"] += 1
        if outcome is None:
            hung = worker.process.poll() is None
            if hung:
                # The signal makes the worker write its stack before it ends.
                worker.process.send_signal(signal.SIGABRT)
                time.sleep(0.5)
            code = worker.end()
            text = worker.tail()
            frames = [line.strip() for line in text.splitlines() if SOURCE in line]
            where = frames[0].partition(SOURCE + "/")[2] if frames else f"signal {code}"
            outcome = _finding("Hang" if hung else "Crash", where, text)
        else:
            number = outcome["number"]
        counts[outcome["end"]] += 1
        if outcome["end"] == "finding" and keep(target, seed, number, outcome):
            counts["kinds"] += 1
            sys.stderr.write(f"{reader} #{number}: {outcome['type']} in {outcome['where']}\n")
        number += 1
        if worker.process.poll() is not None:
            worker.end()
            worker = Worker(reader, seed, number, clock)
    worker.end()
    row = {"reader": reader, "seed": seed, "minutes": round(seconds / 60, 2), **counts}
    COUNTS.parent.mkdir(parents=True, exist_ok=True)
    with COUNTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return counts


def keep(target: Target, seed: int, number: int, finding: dict[str, Any]) -> bool:
    """Write a finding unless a smaller input of its kind is there; return if it is a new kind."""
    kind = f"{finding['type']} in {finding['where']}"
    folder = OUT / target.name / hashlib.sha256(kind.encode()).hexdigest()[:12]
    name, data = mutant(target, seed, number)
    old = [path for path in (folder / "input").rglob("*") if path.is_file()]
    if old and old[0].stat().st_size <= len(data):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    _write(folder / "input" / name, data)
    line = f"python tests/fuzz/fuzz_run.py --replay {(folder / 'input' / name).relative_to(ROOT)}"
    text = f"{kind}\nseed {seed}, try {number}\nrepeat: {line}\n\n{finding['traceback']}"
    _write(folder / "finding.txt", text.encode("utf-8", "backslashreplace"))
    return not old


def replay(path: Path) -> dict[str, Any]:
    """Read one kept input, whose reader is the third folder above `input`."""
    parts = path.absolute().parts
    at = parts.index("input")
    target, name = TARGETS[parts[at - 2]], "/".join(parts[at + 1 :])
    with tempfile.TemporaryDirectory(prefix="rooftrace-fuzz-") as folder:
        return attempt(target, Path(folder), name, path.read_bytes())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _finding(kind: str, where: str, text: str) -> dict[str, Any]:
    return {"end": "finding", "type": kind, "where": where[:200], "traceback": text}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes for each reader")
    parser.add_argument("--only", default="", help=f"readers: verbs, {', '.join(TARGETS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="readers at a time")
    parser.add_argument("--replay", type=Path, help="kept input to read once")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.seed, given.number)
        return 0
    if given.replay:
        outcome = replay(given.replay)
        sys.stdout.write(outcome.pop("traceback", "") + json.dumps(outcome) + "\n")
        return int(outcome["end"] == "finding")
    readers = given.only.replace(",", " ").split()
    verbs = [one for one in TARGETS if one.startswith("v-")]
    if not readers:
        readers = [one for one in TARGETS if one not in verbs]
    elif readers == ["verbs"]:
        readers = verbs
    if unknown := set(readers) - set(TARGETS):
        parser.error(f"unknown readers {sorted(unknown)}; known: {', '.join(TARGETS)}")
    # Each reader is a process of its own; the threads wait for its answers.
    rows: dict[str, Counter[str]] = {}
    clock, seconds = Clock(), given.minutes * 60
    with ThreadPoolExecutor(given.jobs) as pool:
        runs = {one: pool.submit(campaign, one, seconds, given.seed, clock) for one in readers}
        for one, run in runs.items():
            try:
                rows[one] = run.result()
            except NoStartError as error:
                sys.stderr.write(f"{error}\n")
    columns = ("tries", "accepted", "refused", "finding", "kinds")
    lines = [f"{'reader':<14}" + "".join(f"{name:>10}" for name in columns)]
    lines += [f"{one:<14}" + "".join(f"{row[c]:>10}" for c in columns) for one, row in rows.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(len(rows) < len(runs) or any(row["finding"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
