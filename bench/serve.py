"""Images a second of `rooftrace serve`, the batch engine and a plain FastAPI handler.

Servers, clients and the batch engine are separate processes. 24 images of 256, 512 and 1,024 px are
sent again and again by `--clients`, each with one connection, for `--seconds` after a warm-up.
`batch` is `rooftrace predict` over the folder in one process, `plain` an `async def` handler that
runs eager PyTorch, `plain_threads` the same as a `def`. `ratios` has which part of the batch
engine's rate the server keeps, and how many times faster than the handler it is. `--load MINUTES`
measures the server under the load of `serve_load` instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import argument_parser, load_bundle, measure_part, peak_mb, rounded, say, start
from serve_load import show

_LOAD = str(Path(__file__).with_name("serve_load.py"))
_HANDLER = str(Path(__file__).with_name("plain_server.py"))

SERVERS = {
    "ours": ["-m", "rooftrace", "serve", "--port", "0", "--json", "--queue", "64"],
    "load": ["-m", "rooftrace", "serve", "--port", "0", "--json"],
    "plain": [_HANDLER],
    "plain_threads": [_HANDLER, "--threads"],
}
"""Command that starts each server."""

PATHS = {"ours": "/v1/predict?format=png", "plain": "/predict", "plain_threads": "/predict"}
_SIDES_PX = (256, 512, 1024)
_WARM_SECONDS = 3.0
_STOP_SECONDS = 20.0
_SEEDS = (101, 102, 103, 104)


def main() -> dict[str, Any]:
    options = _options()
    # `timeout` ends this program by SIGTERM; its servers would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    if options.load:
        return {"load": _loaded(options)}
    say("preparing the images and the handler's network")
    prepared = measure_part(
        __file__, "prepare", work=options.work, model=options.model, sides_px=options.sides,
        count=options.images,
    ).report  # fmt: skip
    turns = [
        {"batch": _batch(prepared, options), **_served(prepared, options)}
        for _ in range(options.repeats)
    ]
    rows = {name: max((turn[name] for turn in turns), key=_speed) for name in turns[0]}
    return {
        "images": {"count": options.images, "sides_px": options.sides, "mpx": prepared["mpx"]},
        "model": prepared["model"],
        "repeats": options.repeats,
        "rows": rows,
        "agreement": _agreement(rows),
        "ratios": [_ratios(turn) for turn in turns],
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of clients")
    parser.add_argument("--images", type=int, default=24, help="different ones, asked in turn")
    parser.add_argument("--sides", type=int, nargs="+", default=list(_SIDES_PX), help="in pixels")
    parser.add_argument("--rows", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument("--repeats", type=int, default=1, help="of everything, in turn")
    parser.add_argument("--load", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--slow", type=int, default=40, help="clients that send a byte a second")
    parser.add_argument("--broken", type=int, default=4, help="clients that send malformed bodies")
    parser.add_argument("--warm", type=float, default=60.0, help="seconds until memory is level")
    options = parser.parse_args()
    if min(options.clients) < 1 or options.repeats < 1 or options.images < len(options.sides):
        parser.error("one client, one repeat, and an image of each side")
    return options


def _batch(prepared: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    say("batch: rooftrace predict over the folder")
    done = measure_part(
        __file__, "batch", folder=prepared["folder"], out=options.work / "out" / "serve",
        model=options.model, seconds=options.seconds,
    )  # fmt: skip
    say(f"batch: {done.report['images_per_s']:.1f} images/s")
    return done.row


def _served(prepared: dict[str, Any], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the rows of the servers, each with its figures by number of clients."""
    rows = {}
    for name in options.rows:
        with _server(name, prepared, options) as (url, row):
            by_clients = {}
            for clients in options.clients:
                figures = measure_part(
                    __file__, "load_server", url=url, path=PATHS[name], folder=prepared["folder"],
                    clients=clients, seconds=options.seconds,
                    masks=options.work / f"serve-masks-{name}.npy",
                ).report  # fmt: skip
                by_clients[str(clients)] = figures
                say(
                    f"{name}, {clients} clients: {figures['images_per_s']:.1f} images/s, "
                    f"p50 {figures['p50_ms']:.0f} ms, p99 {figures['p99_ms']:.0f} ms"
                )
            row["clients"] = by_clients
        rows[name] = row
    return rows


def _loaded(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the load: the largest number of clients, slow and broken ones."""
    say("load: preparing the images")
    folder = measure_part(_LOAD, "prepare_mixed", work=options.work).report["folder"]
    arguments = {
        "clients": max(options.clients), "slow": options.slow, "broken": options.broken,
        "seconds": 60 * options.load, "warm_s": min(options.warm, 30 * options.load),
    }  # fmt: skip
    with _server("load", {}, options) as (url, row):
        found = measure_part(_LOAD, "load_mixed", url=url, folder=folder, **arguments).report
    show(found)
    return arguments | found | row


@contextmanager
def _server(
    name: str, prepared: dict[str, Any], options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the address of a server that is ready, and a row that gets its memory at the end."""
    command = [sys.executable, *SERVERS[name]]
    if name in ("ours", "load"):
        command += ["--jobs", options.work / "serve-jobs"]
        command += ["-m", options.model] if options.model else []
    else:
        command.append(prepared["network"])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    row: dict[str, Any] = {}
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{name}: the server did not start")
        url = json.loads(line)["url"]
        _wait_until_ready(url)
        yield url, row
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        # A server waits for its last answers, which may never come.
        killer = threading.Timer(_STOP_SECONDS, process.kill)
        killer.start()
        _, _, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = -signal.SIGTERM
        row["peak_rss_mb"] = peak_mb(usage)


def _wait_until_ready(url: str) -> None:
    from urllib.error import URLError
    from urllib.request import urlopen

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            # The server that this program has started.
            with urlopen(f"{url}/readyz", timeout=10):  # nosec B310
                return
        except (URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit(f"{url} did not become ready")


def _speed(row: dict[str, Any]) -> float:
    if "clients" not in row:
        return float(row["images_per_s"])
    return max(float(figures["images_per_s"]) for figures in row["clients"].values())


def _ratios(rows: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the speed of ours relative to the others, by number of clients, in one turn."""
    if "ours" not in rows:
        return {}
    found = {}
    for name, row in rows.items():
        if name == "ours":
            continue
        found[f"ours/{name}"] = {
            clients: rounded(
                figures["images_per_s"]
                / (row["clients"][clients] if "clients" in row else row)["images_per_s"]
            )
            for clients, figures in rows["ours"]["clients"].items()
        }
    return found


def _agreement(rows: dict[str, Any]) -> dict[str, float]:
    """Return the share of pixels in which the masks of the others equal ours."""
    import numpy as np

    def mask(row: dict[str, Any]) -> Any:
        return np.load(next(iter(row["clients"].values()))["masks"])

    if "ours" not in rows:
        return {}
    ours = mask(rows["ours"])
    return {
        name: round(float((mask(row) == ours).mean()), 5)
        for name, row in rows.items()
        if "clients" in row and name != "ours"
    }


# The functions below run in separate processes.


def prepare(*, work: str, model: str | None, sides_px: list[int], count: int) -> dict[str, Any]:
    """Write the images, and the handler's network with the bundle's weights."""
    import cv2
    import numpy as np

    from plain_loop import write_network
    from town import generate_scene

    bundle = load_bundle(model)
    spec = bundle.spec
    gsd_m = spec.gsd_m or 0.3
    folder = Path(work) / "serve-images"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    largest = max(sides_px)
    towns = [generate_scene(seed, (largest, largest), gsd_m) for seed in _SEEDS]
    pixels = 0
    for number in range(count):
        side = sides_px[number % len(sides_px)]
        town = np.moveaxis(towns[number % len(towns)].image, 0, -1)
        row, col = (step * 64 % (largest - side + 1) for step in (number, 3 * number))
        turned = np.rot90(town[row : row + side, col : col + side], number // len(towns))
        cv2.imwrite(str(folder / f"{number:03}.png"), np.ascontiguousarray(turned[..., ::-1]))
        pixels += side * side
    scene = towns[0].write(Path(work), "serve-town")[0]
    tile_px = spec.input_px or min(sides_px) // spec.input_multiple_px * spec.input_multiple_px
    network = Path(work) / "network"
    difference = write_network(bundle, scene, tile_px, network)
    return {
        "folder": str(folder),
        "network": str(network),
        "mpx": round(pixels / 1e6, 3),
        "model": {"name": spec.name, "sha256": bundle.sha256, "largest_difference": difference},
    }


def batch(*, folder: str, out: str, model: str | None, seconds: float) -> dict[str, Any]:
    """Repeat `rooftrace predict` over the folder, with masks only; the first run is not counted.

    The time to read the model is not counted, as for the servers.
    """
    from rooftrace.flows.predict.image_run import RunOptions
    from rooftrace.flows.predict.inputs import find_inputs
    from rooftrace.flows.predict.run import LocalExecutor, predict_inputs
    from rooftrace.predict.plan import SceneOptions
    from rooftrace.predict.predictor import load

    executor = LocalExecutor(load(model))
    options = SceneOptions(outputs=("mask",))
    images = mpx = spent = 0.0
    rounds = 0
    while spent < seconds or rounds < 2:
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        inputs = find_inputs([folder])
        report = predict_inputs(inputs, executor, Path(out), options, RunOptions())
        if rounds:
            spent += time.perf_counter() - started
            images += len(report.outputs)
            mpx += sum(output.pixels for output in report.outputs) / 1e6
        rounds += 1
    return {
        "rounds": rounds - 1,
        "images_per_s": rounded(images / spent),
        "mpx_per_s": rounded(mpx / spent),
    }


def load_server(
    *, url: str, path: str, folder: str, clients: int, seconds: float, masks: str
) -> dict[str, Any]:
    """Run clients that each request the mask of the next image after they receive the last.

    Answers count that end within `seconds`, whenever they were asked for. At least one round over
    the images, and three seconds, are not counted: networks are compiled for each shape of a batch.
    """
    import cv2
    import numpy as np

    files = sorted(Path(folder).iterdir())
    bodies = [_form(file) for file in files]
    mpx = [cv2.imread(str(file), 0).size / 1e6 for file in files]  # type: ignore[union-attr]
    before = _metrics(url)
    latencies: list[tuple[float, float, float]] = []
    found: dict[int, Any] = {}
    failures: list[str] = []
    turn = iter(range(10**9))
    lock = threading.Lock()
    started = time.perf_counter()
    began: list[float] = []

    def run() -> None:
        client = _Client(url, path)
        while not failures:
            with lock:
                number = next(turn)
                now = time.perf_counter()
                if not began and number >= len(bodies) and now - started > _WARM_SECONDS:
                    began.append(now)
            if began and now - began[0] > seconds:
                return
            which = number % len(bodies)
            try:
                answer = client.ask(bodies[which])
            except (OSError, ValueError) as error:
                failures.append(str(error))
                return
            ended = time.perf_counter()
            if began and ended - began[0] <= seconds:
                latencies.append((ended, ended - now, mpx[which]))
            if which not in found:
                decoded = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_UNCHANGED)
                found[which] = _is_building(decoded)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{url}: {failures[0]}")
    after = _metrics(url)
    waits = np.array([wait for _, wait, _ in latencies]) * 1000
    np.save(masks, np.concatenate([found[which].ravel() for which in sorted(found)]))
    batches = after.get("batches", 0) - before.get("batches", 0)
    return {
        "images": len(latencies),
        "images_per_s": rounded(len(latencies) / seconds),
        "mpx_per_s": rounded(sum(area for _, _, area in latencies) / seconds),
        "p50_ms": rounded(float(np.percentile(waits, 50))),
        "p99_ms": rounded(float(np.percentile(waits, 99))),
        "tiles_per_batch": rounded((after["tiles"] - before["tiles"]) / batches)
        if batches
        else None,
        "masks": masks,
    }


class _Client:
    """A persistent connection."""

    def __init__(self, url: str, path: str) -> None:
        from http.client import HTTPConnection

        self._connection = HTTPConnection(url.removeprefix("http://"), timeout=300)
        self._path = path

    def ask(self, body: bytes) -> bytes:
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        self._connection.request("POST", self._path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise ValueError(f"answered {answer.status}: {data[:300]!r}")
        return data


_BOUNDARY = "a-boundary-that-no-image-has"


def _form(file: Path) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"'
    kind = "\r\nContent-Type: image/png\r\n\r\n"
    return f"{head}{kind}".encode() + file.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _is_building(mask: Any) -> Any:
    """Return a mask as (y, x) bool; the handler's is 0 and 255, ours has a coloured palette."""
    if mask.ndim == 2:
        return mask > 127
    blue, _, red = (mask[..., band].astype(int) for band in range(3))
    return red - blue > 60


def _metrics(url: str) -> dict[str, float]:
    """Return the batches and tiles of our network so far; empty for other servers."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        # The server that this program has started.
        with urlopen(f"{url}/metrics") as answer:  # nosec B310
            lines = answer.read().decode().splitlines()
    except HTTPError:
        return {}
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {
        name: float(values[f"rooftrace_engine_{name}_total"])
        for name in ("batches", "tiles")
        if f"rooftrace_engine_{name}_total" in values
    }


if __name__ == "__main__":
    start(main, prepare, batch, load_server)
