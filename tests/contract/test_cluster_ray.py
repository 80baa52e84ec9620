"""A real Ray cluster of three nodes, each with processes of its own, of which one is killed.

A cap on one node stands for a processor of another kind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from local_server import wait_until
from raster_files import write_geotiff
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.campaign

pytest.importorskip("ray", reason="the extra ray is not installed")
psutil = pytest.importorskip("psutil")

_SIDE_PX = 10_000

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # A killed node refuses its checks, so that more of them find it sooner. How long a busy node
    # may take to answer is Ray's own limit, as on a cluster of users.
    "RAY_health_check_period_ms": "500",
    # Ray gives its workers niceness 15: beside other work on one machine they would hardly run.
    "RAY_worker_niceness": "0",
}


@dataclass
class Nodes:
    """Nodes of a cluster."""

    folder: Path
    address: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *options: str, **environment: str) -> None:
        """One more."""
        log = self.folder / f"node{len(self.started)}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]

        def start() -> subprocess.Popen[bytes]:
            with log.open("wb") as reported:
                return subprocess.Popen(
                    command, env={**os.environ, **_ENVIRONMENT, **environment}, stdout=reported,
                    stderr=reported, start_new_session=True,
                )  # fmt: skip

        def is_ready() -> bool:
            # Ray gives up a node that takes 30 s to start, as on a busy machine.
            if self.started[-1].poll() is not None:
                self.started[-1] = start()
            return "Ray runtime started" in log.read_text()

        self.started.append(start())
        wait_until(is_ready, "a node does not start")

    def kill(self, number: int) -> None:
        """Kill a node and its children, as a loss of power does."""
        process = self.started[number]
        family = [*psutil.Process(process.pid).children(recursive=True)]
        # First the process that would notify the others.
        for member in [psutil.Process(process.pid), *family]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


@contextmanager
def cluster(*environments: dict[str, str]) -> Iterator[Nodes]:
    """A node with no core, and one node of one core with each of the environments."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The names of Ray's sockets are long, and must not be longer than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rt", dir="/tmp"))
    made = Nodes(folder, f"127.0.0.1:{port}")
    try:
        made.start(
            "--head", f"--port={port}", "--num-cpus=0", f"--temp-dir={folder}",
            "--include-dashboard=false", "--node-ip-address=127.0.0.1",
        )  # fmt: skip
        for one in environments:
            made.start(
                f"--address={made.address}", "--num-cpus=1", "--node-ip-address=127.0.0.1", **one
            )
        yield made
    finally:
        for number in range(len(made.started)):
            if made.started[number].poll() is None:
                made.kill(number)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with cluster({}, {}) as made:
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace", context_px=8)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Houses of 48 pixels and more, a quarter of the scene without any."""
    path = tmp_path_factory.mktemp("town") / "town.tif"
    rng = np.random.default_rng(8)
    cells = _SIDE_PX // 48 + 1
    coarse = rng.integers(0, 256, (3, cells, cells), dtype=np.uint8)
    data = np.kron(coarse, np.ones((1, 48, 48), np.uint8))[:, :_SIDE_PX, :_SIDE_PX]
    return write_geotiff(path, data, nodata=0, tiled=True, compress="deflate")


def predict(
    town: Path, model: Path | None, out: Path, *more: str, command: str = "predict",
    **environment: str,
) -> subprocess.Popen[str]:  # fmt: skip
    """The command as a person gives it."""
    chosen = [] if model is None else ["-m", str(model)]
    line = [
        sys.executable, "-m", "rooftrace", command, str(town), *chosen, "-o", str(out), "--json",
        *more,
    ]  # fmt: skip
    return subprocess.Popen(
        line, env={**os.environ, **_ENVIRONMENT, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> None:
    reported, errors = process.communicate(timeout=500)
    assert process.returncode == 0, reported + errors
    json.loads(reported)


def results(out: Path) -> dict[str, bytes]:
    files = [path for path in out.iterdir() if path.is_file() and path.name != "run.json"]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def alone(town: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone")
    ended(predict(town, model, out))
    return results(out)


def parts_of(out: Path) -> Sequence[Path]:
    # Not those that are being written, whose names begin with a dot.
    return list((out / ".rooftrace" / "town.parts").glob("[0-9]*.part"))


def spread(nodes: Nodes) -> tuple[str, ...]:
    return "--cluster", "ray", "--address", nodes.address, "--workers", "2"


def test_a_node_is_killed_in_mid_run(
    nodes: Nodes, town: Path, model: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    run = predict(town, model, tmp_path, *spread(nodes))
    wait_until(lambda: len(parts_of(tmp_path)) >= 2 or run.poll() is not None, "no block comes")
    nodes.kill(2)
    ended(run)
    assert results(tmp_path) == alone
    reported = json.loads((tmp_path / "run.json").read_text())
    assert reported["cluster"]["lost"] == 1
    assert reported["resumed_blocks"] == 0
    # Nothing is counted twice.
    assert reported["figures"][0]["pixels"] == _SIDE_PX**2
    assert not (tmp_path / ".rooftrace").exists()


@pytest.fixture(scope="module")
def scenes(town: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine scenes that overlap."""
    folder = tmp_path_factory.mktemp("scenes")
    side, step = 3600, 3200
    with rasterio.open(town) as whole:
        for number in range(9):
            window = Window((number % 3) * step, (number // 3) * step, side, side)
            moved = whole.transform @ Affine.translation(window.col_off, window.row_off)
            profile = whole.profile | {"width": side, "height": side, "transform": moved}
            write_geotiff(folder / f"{number}.tif", whole.read(window=window), **profile)
    return folder


def layer(out: Path) -> dict[str, bytes]:
    kept = [*(out / "buildings").rglob("*.parquet"), *(out / "scenes").glob("*.gpkg")]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def noted(out: Path) -> int:
    """Scenes that are done."""
    journal = out / "scenes" / ".rooftrace" / "journal.jsonl"
    # Lines of scenes begin in this way; objects inside of a line may have a name, too.
    return journal.read_bytes().count(b'\n{"name"') if journal.exists() else 0


def test_a_catalogue_loses_a_node_and_then_its_driver(
    nodes: Nodes, scenes: Path, model: Path, tmp_path: Path
) -> None:
    alone, out = tmp_path / "alone", tmp_path / "out"
    ended(predict(scenes, model, alone, command="catalogue"))
    run = predict(scenes, model, out, *spread(nodes), command="catalogue")
    wait_until(lambda: noted(out) >= 1 or run.poll() is not None, "no scene comes")
    nodes.kill(2)
    wait_until(lambda: noted(out) >= 3 or run.poll() is not None, "no scene comes after the loss")
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    kept = noted(out)
    more = ("--cluster", "ray", "--address", nodes.address, "--workers", "1")
    process = predict(scenes, model, out, *more, command="catalogue")
    reported, errors = process.communicate(timeout=500)
    assert process.returncode == 0, reported + errors
    report = json.loads(reported)
    assert report["resumed_scenes"] >= kept >= 3
    assert report["failed"] == []
    assert layer(out) == layer(alone)
    # Of the worker that was lost in mid-scene nothing is left.
    assert not list((out / "scenes").rglob("made.*"))
