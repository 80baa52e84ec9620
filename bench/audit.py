"""Speed of the audit compared with that of decoding the same generated tiles, on all cores.

`decode` is the reader that the audit uses, `imread` is `cv2.imread`, which handles no georeference,
no nodata and no errors.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import argument_parser, by_turns, measure_part, rounded, say, start

_SCENES = (301, 302, 303, 304)
_SCENE_PX = 2048
_MANY = 1000
"""Number of tiles below which a run is a trial with small scenes."""

_TILE_PX = 256
_GSD_M = 0.3
_CHUNK = 32


def main() -> dict[str, Any]:
    parser = argument_parser(__doc__)
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = options.work / f"tiles_{options.tiles}"
    if not (folder / "masks").is_dir():
        say(f"making {options.tiles} tiles in {folder}")
        measure_part(__file__, "make", folder=folder, tiles=options.tiles)
    runs = by_turns(
        ("decode", "audit", "imread"), options.repeats,
        lambda row: measure_part(__file__, row, folder=folder).report, "tiles_per_s",
    )  # fmt: skip
    rounds = [
        rounded(audit["tiles_per_s"] / decode["tiles_per_s"])
        for audit, decode in zip(runs["audit"], runs["decode"])
    ]
    rows = {row: max(of, key=lambda run: run["tiles_per_s"]) for row, of in runs.items()}
    rate = {row: report["tiles_per_s"] for row, report in rows.items()}
    cpu = {row: report["cpu_seconds"] for row, report in rows.items()}
    return {
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
    """Write tiles cut at random from generated scenes, each with its own rotation and light."""
    import cv2
    import numpy as np

    from town import generate_scene

    # The folder gets its name at the end, so that an incomplete one is made again.
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
    """Decode every image and mask with the reader of the audit."""
    return _timed(folder, lambda paths: _on_all_cores(_decode, paths))


def imread(folder: str) -> dict[str, Any]:
    """Decode every image and mask with OpenCV."""
    return _timed(folder, lambda paths: _on_all_cores(_imread, paths))


def audit(folder: str) -> dict[str, Any]:
    """Open and measure the set as `rooftrace inspect` does, including the detection of its kind."""
    from rooftrace.audit.measure import measure_set
    from rooftrace.labels.config import SourceConfig
    from rooftrace.labels.kinds import open_source

    def measure(_: Sequence[str]) -> None:
        facts = measure_set(open_source(SourceConfig(path=folder)))
        assert all(f.label is not None for f in facts)

    return _timed(folder, measure)


def _timed(folder: str, work: Callable[[Sequence[str]], None]) -> dict[str, Any]:
    names = sorted(path.name for path in Path(folder, "images").iterdir())
    with _UsageMonitor() as watch:
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


class _UsageMonitor:
    """Monitor of the memory and CPU time of this process and its descendants (Linux only).

    CPU time is more reliable than the clock if other programs use the same processors.
    """

    def __init__(self) -> None:
        self.peak_mb = self.peak_process_mb = 0.0
        self._cpu_s: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu_s.values())

    def __enter__(self) -> _UsageMonitor:
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
    """Return the ids of a process and its descendants, `pid` first (Linux only)."""
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
    """Return CPU seconds and resident memory in 10^6 bytes, including shared pages."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    start(main, make, decode, audit, imread)
