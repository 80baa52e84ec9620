"""Fine-tuning: figures of the start model and of the tuned one, by number of labelled tiles.

A benchmark that was stopped resumes with the runs that it has not measured.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
from pathlib import Path
from typing import Any

from common import argument_parser, measure_rooftrace, rounded, say, start

_EPOCHS = 12
"""Epochs of a run with a fixed number of samples."""

_NO_LIMIT = 600.0
"""Minutes that no run with a fixed number of samples takes."""

FIGURES = {
    "IoU": ("pixel", "iou"), "precision": ("pixel", "precision"), "recall": ("pixel", "recall"),
    "F1 of buildings": ("objects", "f1"),
}  # fmt: skip
"""Figures, and the keys under which an evaluation has them."""


def main() -> dict[str, Any]:
    options = _options()
    pool, test = _divide(options)
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        order = list(pool)
        random.Random(seed).shuffle(order)
        for size in options.sizes:
            if size <= len(pool):
                runs.setdefault(str(size), []).append(_run(options, order[:size], test, seed))
    return {
        "data": str(options.data), "pool": len(pool), "test": len(test),
        "minutes": options.minutes, "samples": options.samples, "settings": options.settings,
        "model": options.model or "default", "runs": runs,
        "mean": {size: _means(made) for size, made in runs.items()},
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__, model=True)
    parser.add_argument("data", type=Path, help="labelled data of one place, of any kind")
    parser.add_argument("--gsd", type=float, help="metres per pixel, where the files have none")
    parser.add_argument("--set", nargs="+", default=[], help="data card, such as chip_px=256")
    parser.add_argument("--test", type=float, default=0.4, help="share of tiles to test on")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--seeds", type=int, default=3, help="random tiles, and trainings")
    parser.add_argument("--minutes", type=float, default=10.0, help="limit of each training")
    parser.add_argument(
        "--samples",
        type=int,
        help="training samples of each run in place of --minutes, so that "
        "the figures do not depend on the machine's speed",
    )
    parser.add_argument("--config", nargs="+", default=[], help="settings, as the command has them")
    parser.add_argument("--name", help="name of the results; default: of the data")
    options = parser.parse_args()
    options.data = options.data.resolve()
    options.work = options.work / "finetune" / (options.name or options.data.name)
    options.work.mkdir(parents=True, exist_ok=True)
    options.read = [word for value in options.set for word in ("--set", value)]
    options.settings = list(options.config)
    if options.samples is not None:
        options.minutes = _NO_LIMIT
        options.settings += [
            f"epochs={_EPOCHS}", f"samples_per_epoch={options.samples // _EPOCHS}"
        ]  # fmt: skip
    if options.gsd is not None:
        options.read += ["--gsd", str(options.gsd)]
    return options


def _divide(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the tiles to draw from and those to test on; near-duplicates are in one part."""
    made = options.work / "parts.json"
    measure_rooftrace(
        "split", options.data, *options.read, "-o", made, "--val", "0", "--test", str(options.test)
    )
    parts = json.loads(made.read_text("utf-8"))["parts"]
    return sorted(parts["train"]), sorted(parts["test"])


def _run(options: argparse.Namespace, ids: list[str], test: list[str], seed: int) -> dict[str, Any]:
    """Return the figures of one run, from an earlier one with the same tiles if there was one.

    The tiles are two folds, as the command itself makes them; the other tiles are the truth of its
    verdict.
    """
    given = {
        "ids": ids, "test": test, "seed": seed, "minutes": options.minutes,
        "model": options.model, "settings": options.settings,
    }  # fmt: skip
    kept = options.work / f"{len(ids)}-{seed}.json"
    if kept.exists():
        earlier = json.loads(kept.read_text("utf-8"))
        if earlier["given"] == given:
            return dict(earlier["figures"])
    run, parts = options.work / "run", options.work / "run-parts.json"
    shutil.rmtree(run, ignore_errors=True)
    folds = {"fold1": ids[::2], "fold2": ids[1::2], "test": test}
    parts.write_text(json.dumps(folds), "utf-8")
    made = measure_rooftrace(
        "finetune", options.data, *options.read, "-o", run, "--split", parts,
        "--minutes", str(options.minutes), "--seed", str(seed),
        *(word for setting in options.settings for word in ("--config", setting)),
        model=options.model,
    )  # fmt: skip
    bundle = made.report["best_iou"]["bundle"]
    truth = measure_rooftrace(
        "evaluate", bundle, options.model or "default", options.data, *options.read,
        "--split", f"{parts}:test", "-o", options.work / "truth",
    ).report["reports"]  # fmt: skip
    figures: dict[str, Any] = {
        "verdict": made.report["verdict"], "share": made.report["share"],
        "epochs": made.report["epochs"], "seconds": rounded(made.seconds),
    }  # fmt: skip
    for name, (group, key) in FIGURES.items():
        after, before = (one[group].get(key) for one in truth)
        figures[name] = {"said": made.report["figures"][name], "start": before, "tuned": after}
    line = ", ".join(
        f"{name} {one['start']:.3f} → {one['tuned']:.3f} (said {one['said']['start']:.3f} → "
        f"{one['said']['tuned']:.3f})"
        for name, one in ((name, figures[name]) for name in ("IoU", "F1 of buildings"))
    )
    say(f"{len(ids)} tiles, {seed}: {line}, {figures['verdict']}, {made.seconds:.0f} s")
    kept.write_text(json.dumps({"given": given, "figures": figures}), "utf-8")
    return figures


def _means(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure over runs, without those that a run could not measure."""
    means: dict[str, Any] = {}
    for name in FIGURES:
        for side in ("start", "tuned"):
            found = [one[name][side] for one in runs if one[name][side] is not None]
            mean = rounded(statistics.fmean(found)) if found else None
            means.setdefault(name, {})[side] = mean
    return means


if __name__ == "__main__":
    start(main)
