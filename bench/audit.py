"""How fast a set is audited, against the mere decoding of its files.

    python bench/audit.py > audit.json

20,000 generated tiles of 256 × 256 (an RGB PNG and a mask as PNG each) are decoded on all cores by
the reader that the audit uses, measured by the audit, and decoded once more by `cv2.imread`, which
knows no place, no nodata and no errors. See bench/README.md.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import WORK, machine, measure_part, rounded, say, start

_SCENES = (301, 302, 303, 304)
_SCENE_PX = 2048
_MANY = 1000
"""Fewer tiles than this are a trial, and come of small scenes."""

_TILE_PX = 256
_GSD_M = 0.3
_CHUNK = 32


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=WORK)
    options = parser.parse_args()
    told = machine()
    folder = options.work / f"tiles_{options.tiles}"
    if not (folder / "masks").is_dir():
        say(f"making {options.tiles} tiles in {folder}")
        measure_part(__file__, "make", folder=str(folder), tiles=options.tiles)
    rows: dict[str, dict[str, Any]] = {}
    rounds: list[float] = []
    # In turns, so that whatever else the machine does falls on all.
    for repeat in range(options.repeats):
        turn: dict[str, float] = {}
        for row in ("decode", "audit", "imread"):
            report = measure_part(__file__, row, folder=str(folder)).report
            say(f"{repeat + 1}/{options.repeats} {row}: {report['tiles_per_s']} tiles/s")
            turn[row] = report["tiles_per_s"]
            if turn[row] >= rows.setdefault(row, report)["tiles_per_s"]:
                rows[row] = report
        rounds.append(rounded(turn["audit"] / turn["decode"]))
    rate = {row: report["tiles_per_s"] for row, report in rows.items()}
    cpu = {row: report["cpu_seconds"] for row, report in rows.items()}
    return {
        "benchmark": "audit",
        "machine": told,
        "tiles": options.tiles,
        "rows": rows,
        "audit/decode by round": rounds,
        "ratios": {
            f"audit/{row}": {
                "speed": rounded(rate["audit"] / rate[row]),
                "speed_by_cpu": rounded(cpu[row] / cpu["audit"]),
            }
            for row in ("decode", "imread")
        },
    }


def make(folder: str, tiles: int) -> dict[str, Any]:
    """Tiles cut at random out of a few generated scenes, turned and lit another way each."""
    import cv2
    import numpy as np

    from rooftrace.testing import generate_scene

    # Named at the end, so that what is half made is made anew.
    root, partial = Path(folder), Path(folder + ".partial")
    for part in ("images", "masks"):
        (partial / part).mkdir(parents=True, exist_ok=True)
    side_px = _SCENE_PX if tiles >= _MANY else 2 * _TILE_PX
    scenes = [generate_scene(seed, (side_px, side_px), _GSD_M) for seed in _SCENES]
    pictures = [np.ascontiguousarray(np.moveaxis(s.image, 0, -1)[..., ::-1]) for s in scenes]
    masks = [scene.mask() * np.uint8(255) for scene in scenes]
    generator = np.random.default_rng(0)
    for number in range(tiles):
        index = number % len(scenes)
        row, col = generator.integers(0, side_px - _TILE_PX, 2)
        area = slice(row, row + _TILE_PX), slice(col, col + _TILE_PX)
        turns = int(generator.integers(4))
        light = float(generator.uniform(0.7, 1.0))
        image = cv2.convertScaleAbs(
            np.ascontiguousarray(np.rot90(pictures[index][area], turns)), alpha=light
        )
        name = f"{number:05d}.png"
        cv2.imwrite(str(partial / "images" / name), image)
        cv2.imwrite(str(partial / "masks" / name), np.rot90(masks[index][area], turns))
    partial.rename(root)
    return {}


def decode(folder: str) -> dict[str, Any]:
    """Every image and every mask, by the reader of the audit, and nothing else."""
    return _timed(folder, lambda paths: _on_all_cores(_decode, paths))


def imread(folder: str) -> dict[str, Any]:
    """Every image and every mask by OpenCV."""
    return _timed(folder, lambda paths: _on_all_cores(_imread, paths))


def audit(folder: str) -> dict[str, Any]:
    """What `rooftrace inspect` does to measure a set: found by looking, opened, measured."""
    from rooftrace.data.audit.run import measure_set
    from rooftrace.data.config import SourceConfig
    from rooftrace.data.kinds import open_source

    def measure(_: Sequence[str]) -> None:
        facts = measure_set(open_source(SourceConfig(path=folder)))
        assert all(f.label is not None for f in facts)

    return _timed(folder, measure)


def _timed(folder: str, work: Callable[[Sequence[str]], None]) -> dict[str, Any]:
    names = sorted(path.name for path in Path(folder, "images").iterdir())
    with _Watch() as watch:
        started = time.perf_counter()
        work([f"{folder}/{{}}/{name}" for name in names])
        seconds = time.perf_counter() - started
    return {
        "seconds": rounded(seconds),
        "tiles_per_s": rounded(len(names) / seconds),
        "cpu_seconds": rounded(watch.cpu_seconds),
        "peak_rss_mb": rounded(watch.peak_mb),
        "peak_process_mb": rounded(watch.peak_process_mb),
    }


def _on_all_cores(work: Callable[[Sequence[str]], None], paths: Sequence[str]) -> None:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "rooftrace.io.raster", "cv2"])
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
        for _ in pool.map(work, chunks):
            pass


def _decode(paths: Sequence[str]) -> None:
    from rooftrace.io.raster import open_raster

    for path in paths:
        open_raster(path.format("images")).read()
        open_raster(path.format("masks"), palette="indices").read()


def _imread(paths: Sequence[str]) -> None:
    import cv2

    for path in paths:
        for part in ("images", "masks"):
            assert cv2.imread(path.format(part), cv2.IMREAD_UNCHANGED) is not None


class _Watch:
    """What this process and all that it started use together, looked at often; of Linux.

    The time that processors spend tells more than the clock where others take part of them.
    """

    def __init__(self) -> None:
        self.peak_mb = self.peak_process_mb = 0.0
        self._cpu_s: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu_s.values())

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            used = {pid: _used(pid) for pid in _descendants(os.getpid())}
            held = [megabytes for _, megabytes in used.values()]
            self._cpu_s |= {pid: seconds for pid, (seconds, _) in used.items() if seconds}
            self.peak_mb = max(self.peak_mb, sum(held))
            self.peak_process_mb = max(self.peak_process_mb, *held)


def _descendants(pid: int) -> list[int]:
    """Process ids, `pid` first; of Linux."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found += _descendants(int(child))
    return found


def _used(pid: int) -> tuple[float, float]:
    """Seconds on a processor and resident 10^6 bytes, pages shared with others among them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    start(main, {"make": make, "decode": decode, "audit": audit, "imread": imread})
