"""Load on `rooftrace serve`: many clients with images of mixed sizes, slow and broken ones.

Each client has its own address of the loopback network, which Linux offers without configuration.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter, defaultdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from common import rounded, say, start

__all__ = ["load_mixed", "prepare_mixed", "show"]

SIDES_PX = (224, 256, 320, 400, 512, 640, 768, 1000, 1024, 1280, 1600, 2000)
_SEEDS = (101, 102)
_SLOW_ADDRESS, _BROKEN_ADDRESS = "127.0.2.1", "127.0.2.2"
_SAMPLE_S = 0.5
_LEVEL_S = 10.0
"""Duration over which a level of memory is averaged."""

_SETTLE_S = 5.0
"""Time between the last answer and the measurement of the memory at the end."""


def prepare_mixed(*, work: str) -> dict[str, Any]:
    """Write images of generated town, of two seeds and all sizes."""
    import cv2
    import numpy as np

    from town import generate_scene

    folder = Path(work) / "serve-mixed"
    folder.mkdir(parents=True, exist_ok=True)
    largest = max(SIDES_PX)
    for seed in _SEEDS:
        town = np.moveaxis(generate_scene(seed, (largest, largest), 0.3).image, 0, -1)
        for side in SIDES_PX:
            cv2.imwrite(
                str(folder / f"{side:04}-{seed}.png"), np.ascontiguousarray(town[:side, :side])
            )
    return {"folder": str(folder)}


def load_mixed(
    *, url: str, folder: str, clients: int, slow: int, broken: int, seconds: float, warm_s: float
) -> dict[str, Any]:
    """Run the load for `seconds` and return what the clients saw and the server's memory."""
    load = _Load(url, folder, clients, time.monotonic() + seconds)
    threads = [threading.Thread(target=load.ask, args=(number,)) for number in range(clients)]
    threads += [threading.Thread(target=load.ask_slowly) for _ in range(slow)]
    threads += [threading.Thread(target=load.ask_wrongly, args=(n,)) for n in range(broken)]
    memory: list[tuple[float, float]] = []
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        now = time.monotonic()
        if now < load.until:
            memory.append((now - started, _resident_mb(url)))
        # Reading the server's memory more often would take time from it.
        time.sleep(_SAMPLE_S)
    # The requests that were cut off end, and the server frees what they held.
    time.sleep(_SETTLE_S)
    return load.report() | _memory(memory, warm_s, seconds) | {"end_mb": rounded(_resident_mb(url))}


class _Load:
    """The clients of one run, and what they saw."""

    def __init__(self, url: str, folder: str, clients: int, until: float) -> None:
        self.until = until
        self._clients = clients
        self._host = url.removeprefix("http://")
        self._images = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
        self._lock = threading.Lock()
        self._statuses: Counter[str] = Counter()
        self._disturbing: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._answers: defaultdict[int, set[str]] = defaultdict(set)
        self._by_client: Counter[int] = Counter()
        self._refused: Counter[int] = Counter()
        self._without_time = 0

    def ask(self, number: int) -> None:
        """Send one image after the other; wait as long as the server says where it refuses."""
        chosen = random.Random(number)
        connection = self._connect(f"127.0.1.{number + 1}")
        while time.monotonic() < self.until:
            which = chosen.randrange(len(self._images))
            began = time.monotonic()
            try:
                status, retry_s, body = _send(connection, self._images[which])
            except (OSError, HTTPException) as error:
                connection.close()
                with self._lock:
                    self._statuses[type(error).__name__] += 1
                continue
            with self._lock:
                self._statuses[str(status)] += 1
                if status == 200:
                    self._latencies.append(time.monotonic() - began)
                    self._answers[which].add(hashlib.sha256(body).hexdigest())
                    self._by_client[number] += 1
                elif status == 429:
                    self._refused[number] += 1
                    self._without_time += retry_s is None
            if status != 200:
                # The server closes connections that are not used for some seconds.
                connection.close()
                # A client that keeps to the protocol waits as long as Retry-After says.
                time.sleep(float(retry_s or 1))
        connection.close()

    def ask_slowly(self) -> None:
        """Send a body a byte a second, and come back when the server ends it."""
        while time.monotonic() < self.until:
            connection = self._connect(_SLOW_ADDRESS)
            try:
                connection.putrequest("POST", "/v1/predict")
                connection.putheader("Content-Type", "image/png")
                connection.putheader("Content-Length", "100000")
                connection.endheaders()
                connection.sock.settimeout(0.0)
                while time.monotonic() < self.until and not _has_answer(connection):
                    connection.sock.send(b"x")
                    # The slowness itself: a byte a second.
                    time.sleep(1)
                if time.monotonic() < self.until:
                    connection.sock.settimeout(30)
                    self._note(str(connection.getresponse().status))
                    # A slow client does not come back at once.
                    time.sleep(1)
            except (OSError, HTTPException) as error:
                self._note(type(error).__name__)
                # Without a pause, a refused connection would be asked for in a busy loop.
                time.sleep(1)
            finally:
                connection.close()

    def ask_wrongly(self, number: int) -> None:
        """Send uploads that are cut off, and bodies that are malformed."""
        chosen = random.Random(1000 + number)
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        while time.monotonic() < self.until:
            image = self._images[chosen.randrange(len(self._images))]
            half = image[: len(image) // 2]
            path, headers, body = chosen.choice([
                ("/v1/predict", {"Content-Type": "image/png"}, half),
                ("/v1/predict", {"Content-Type": "image/png"}, chosen.randbytes(3000)),
                ("/v1/predict", {"Content-Type": "image/png"}, b""),
                ("/v1/predict?gsd=-1", {"Content-Type": "image/png"}, image),
                ("/v1/predict", form, b"--x\r\n" + half),
                ("/v1/jobs", form, b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n"),
            ])  # fmt: skip
            connection = self._connect(_BROKEN_ADDRESS)
            try:
                if chosen.random() < 0.5:
                    connection.request("POST", path, body, headers)
                    self._note(str(connection.getresponse().status))
                else:
                    # Announced as whole, and cut off.
                    length = {"Content-Length": str(len(body) + 1000)}
                    connection.request("POST", path, body, headers | length)
            except (OSError, HTTPException) as error:
                self._note(type(error).__name__)
            finally:
                connection.close()
            # Five wrong requests a second disturb the others without being all of the load.
            time.sleep(0.2)

    def report(self) -> dict[str, Any]:
        """Return what the clients saw."""
        import numpy as np

        waits = np.array(self._latencies or [0.0]) * 1000
        counts = [self._by_client[number] for number in range(self._clients)]
        statuses = self._statuses + self._disturbing
        return {
            "answers": len(self._latencies),
            "statuses": dict(sorted(self._statuses.items())),
            "disturbing": dict(sorted(self._disturbing.items())),
            "server_errors": sum(count for status, count in statuses.items() if status[0] == "5"),
            "images_that_differ": sum(len(found) > 1 for found in self._answers.values()),
            "refused": self._refused.total(),
            "refused_without_retry_after": self._without_time,
            "answers_by_client": {"fewest": min(counts, default=0), "most": max(counts, default=0)},
            # 1 where all clients have equally many answers: https://arxiv.org/abs/cs/9809099.
            "fairness": rounded(sum(counts) ** 2 / (len(counts) * sum(n * n for n in counts)))
            if any(counts)
            else 0.0,
            **{f"p{at}_ms": rounded(float(np.percentile(waits, at))) for at in (50, 90, 99)},
            "max_ms": rounded(float(waits.max())),
        }

    def _note(self, what: str) -> None:
        with self._lock:
            self._disturbing[what] += 1

    def _connect(self, address: str) -> HTTPConnection:
        return HTTPConnection(self._host, timeout=300, source_address=(address, 0))


def _send(connection: HTTPConnection, image: bytes) -> tuple[int, str | None, bytes]:
    """Return status, Retry-After and body of the answer for an image."""
    connection.request("POST", "/v1/predict?gsd=0.3", image, {"Content-Type": "image/png"})
    answer = connection.getresponse()
    return answer.status, answer.getheader("Retry-After"), answer.read()


def _has_answer(connection: HTTPConnection) -> bool:
    import select

    return bool(select.select([connection.sock], [], [], 0)[0])


def _memory(samples: list[tuple[float, float]], warm_s: float, seconds: float) -> dict[str, float]:
    def level(begin: float, end: float) -> float:
        found = [mb for at, mb in samples if begin <= at < end]
        return rounded(sum(found) / max(len(found), 1))

    return {
        "warm_mb": level(warm_s - _LEVEL_S, warm_s),
        "peak_mb": rounded(max(mb for _, mb in samples)),
        "last_mb": level(seconds - _LEVEL_S, seconds),
    }


def _resident_mb(url: str) -> float:
    """Return the memory of the server's process in 10^6 bytes, by its own metrics."""
    from urllib.request import urlopen

    # The address is that of the server that this benchmark has started.
    with urlopen(f"{url}/metrics", timeout=60) as answer:  # nosec B310
        lines = answer.read().decode().splitlines()
    [found] = [line for line in lines if line.startswith("process_resident_memory_bytes ")]
    return float(found.split()[1]) / 1e6


def show(found: dict[str, Any]) -> None:
    """Show the figures as progress."""
    say(
        f"load: {found['answers']} answers, {found['server_errors']} of 5xx, "
        f"{found['images_that_differ']} images differ, {found['refused']} refused "
        f"({found['refused_without_retry_after']} without a time), fairness {found['fairness']}, "
        f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms, memory {found['warm_mb']} MB "
        f"after warm-up, {found['peak_mb']} at most, {found['end_mb']} at the end"
    )


if __name__ == "__main__":
    start(dict, prepare_mixed, load_mixed)
