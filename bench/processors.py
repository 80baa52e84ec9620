"""Speed, accuracy and bytes of each precision under each instruction set that the processor has.

Every row runs in processes of its own, because oneDNN reads `ONEDNN_MAX_CPU_ISA` once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import (
    WORK,
    ChildFailed,
    argument_parser,
    load_bundle,
    measure_part,
    measure_rooftrace,
    rounded,
    say,
    start,
    warm,
    write_scene,
)

PRECISIONS = ("int8", "bf16", "fp32")

SETS = ("AVX512_CORE_AMX", "AVX512_CORE_BF16", "AVX512_CORE_VNNI", "AVX512_CORE", "AVX2_VNNI",
        "AVX2", "SSE41")  # fmt: skip

PLACES: dict[str, dict[str, Any]] = {
    "rotterdam": {"part": "[150:]", "gsd_m": 0.5, "label_shift_px": (-4, 1)},
    "jonkoping": {"glob": "*_1[3-9].*", "gsd_m": 0.15},
    "vienna": {"gsd_m": 0.3},
    "massachusetts": {"part": "[15:]", "gsd_m": 1.0, "nodata": (255, 255, 255)},
    "catanduanes": {"path": str(WORK.parent / "default-data" / "catanduanes")},
}
"""Validation places of the default model, and how they are read. They are folders of
$ROOFTRACE_DATA, except Catanduanes, which `python recipes/default_data.py work/default-data` cuts
out."""

_CAP = "ONEDNN_MAX_CPU_ISA"


def main() -> dict[str, Any]:
    options = _options()
    has = measure_part(__file__, "instruction_sets").report["sets"]
    sets = [name for name in SETS if name in has and name in options.sets]
    scene = Path(
        measure_part(
            __file__, "prepare", work=options.work, model=options.model, size_px=options.size
        ).report["scene"]
    )
    rows = {f"{name}/{p}": _Row(name, p) for name in sets for p in options.precisions}
    for _ in range(options.repeats):
        for row in rows.values():
            row.run(scene, options)
    best = max((row.mpx_per_s for row in rows.values()), default=0.0)
    return {
        "scene": {"size_px": options.size},
        "places": options.places,
        "sets": sets,
        "rows": {name: row.to_json(best, options) for name, row in rows.items()},
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("--size", type=int, default=6000, help="side of the scene in pixels")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument(
        "--places", nargs="*", choices=PLACES, default=[*PLACES], help="places to evaluate"
    )
    return parser.parse_args()


class _Row:
    """One precision under one set: its runs, or the reason why there are none."""

    def __init__(self, instruction_set: str, precision: str) -> None:
        self._set, self._precision = instruction_set, precision
        self._cpu_s: list[float] = []
        self._problem = ""
        self._hash = ""
        self.mpx_per_s = 0.0

    def run(self, scene: Path, options: argparse.Namespace) -> None:
        if self._problem:
            return
        out = options.work / "processors"
        warm(scene)
        try:
            with _capped(self._set):
                found = measure_rooftrace(
                    "predict", scene, "-o", out, "--precision", self._precision,
                    model=options.model,
                )  # fmt: skip
        except ChildFailed as error:
            printed = json.loads(error.output)["error"] if error.output else {}
            self._problem = printed.get("message") or f"the process ended with {error.code}"
            say(f"{self._set} {self._precision}: {self._problem}")
            return
        self._cpu_s.append(found.cpu_s)
        # Without the start of the process.
        self.mpx_per_s = max(self.mpx_per_s, found.report["mpx_per_s"])
        record = json.loads((out / "run.json").read_text("utf-8"))
        used = record["processors"][-1]["instruction_set"]
        assert used == self._set, f"asked for {self._set}, ran on {used}"
        self._hash = hashlib.sha256(Path(record["outputs"][0]["mask"]).read_bytes()).hexdigest()
        shutil.rmtree(out)
        say(
            f"{self._set} {self._precision}: {self.mpx_per_s:.2f} Mpx/s, "
            f"{min(self._cpu_s):.1f} s of processor time, mask {self._hash[:8]}"
        )

    def to_json(self, best_mpx_per_s: float, options: argparse.Namespace) -> dict[str, Any]:
        if self._problem:
            return {"unavailable": self._problem}
        with _capped(self._set):
            accuracy = {
                place: measure_part(
                    __file__, "accuracy", place=place, precision=self._precision,
                    model=options.model,
                ).report
                for place in options.places
            }  # fmt: skip
        say(f"{self._set} {self._precision}: {accuracy}")
        return {
            "cpu_s_per_mpx": rounded(min(self._cpu_s) / (options.size**2 / 1e6)),
            "mpx_per_s": rounded(self.mpx_per_s),
            "share_of_fastest": rounded(self.mpx_per_s / best_mpx_per_s),
            "mask_sha256": self._hash,
            "accuracy": accuracy,
        }


@contextmanager
def _capped(name: str) -> Iterator[None]:
    """Let child processes use no set above one."""
    before = os.environ.get(_CAP)
    os.environ[_CAP] = name
    try:
        yield
    finally:
        del os.environ[_CAP]
        if before is not None:
            os.environ[_CAP] = before


def instruction_sets() -> dict[str, Any]:
    from rooftrace.engines.processor import this_processor

    return {"sets": this_processor().sets}


def prepare(work: str, model: str | None, size_px: int) -> dict[str, Any]:
    gsd_m = load_bundle(model).spec.gsd_m or 0.5
    Path(work).mkdir(parents=True, exist_ok=True)
    return {"scene": str(write_scene(Path(work), size_px, gsd_m, "deflate"))}


def accuracy(place: str, precision: str, model: str | None) -> dict[str, Any]:
    """IoU of the buildings' pixels, and F1 of buildings at an IoU of 0.5."""
    from rooftrace.flows.evaluate.run import EvalOptions, run_evaluate
    from rooftrace.labels.config import SourceConfig

    given = {"path": f"{os.environ.get('ROOFTRACE_DATA', '')}/{place}"} | PLACES[place]
    source = SourceConfig(**given)
    options = EvalOptions(precision=precision)
    report = run_evaluate(None if model is None else Path(model), source, None, options).to_json()
    return {"iou": report["pixel"]["iou"], "f1": report["objects"]["f1"]}


if __name__ == "__main__":
    start(main, instruction_sets, prepare, accuracy)
