"""Learning curve: IoU after fine-tuning on tiles of `rooftrace label next`, and on random tiles.

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

from common import argument_parser, measure_part, measure_rooftrace, rounded, say, start

RULES = ("next", "uncertainty", "k-centre")
"""Rules of choice: that of `rooftrace label next`, and its two parts alone."""


def main() -> dict[str, Any]:
    options = _options()
    pool, test = _divide(options)
    _link_pool(options, pool)
    fixed = {rule: _order(options, rule) for rule in options.rules}
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for seed in range(options.repeats):
        for name in (*options.rules, "random"):
            order = fixed[name] if name in fixed else _shuffled(pool, seed)
            for size in options.random_sizes if name == "random" else options.sizes:
                made = _run(options, name, order[:size], test, seed)
                runs.setdefault(name, {}).setdefault(size, []).append(made)
    return {
        "data": str(options.data), "pool": len(pool), "test": len(test),
        "samples": options.samples, "orders": fixed, "runs": runs,
        "iou": {
            name: {size: _summary([one["iou"] for one in made]) for size, made in sizes.items()}
            for name, sizes in runs.items()
        },
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder with images/ and masks/ of one place")
    parser.add_argument("--gsd", type=float, required=True, help="metres per pixel of the images")
    parser.add_argument("--glob", nargs="+", default=["*"], help="images to use, by name")
    parser.add_argument("--test", type=float, default=0.35, help="share of tiles to test on")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES[:1])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 40])
    parser.add_argument("--random-sizes", type=int, nargs="+", default=[20, 40, 60])
    parser.add_argument("--repeats", type=int, default=3, help="random orders, and trainings")
    parser.add_argument("--samples", type=int, default=960, help="training samples of each run")
    options = parser.parse_args()
    options.data = options.data.resolve()
    options.work = options.work / "label_next" / options.data.name
    return options


def _divide(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return the tiles to choose from and those to test on."""
    folder = options.data / "images"
    names = {path.stem for pattern in options.glob for path in folder.glob(pattern)}
    ids = _shuffled(sorted(names), 0)
    tests = round(options.test * len(ids))
    return sorted(ids[tests:]), sorted(ids[:tests])


def _shuffled(ids: list[str], seed: int) -> list[str]:
    order = list(ids)
    random.Random(seed).shuffle(order)
    return order


def _link_pool(options: argparse.Namespace, pool: list[str]) -> None:
    shutil.rmtree(options.work / "pool", ignore_errors=True)
    (options.work / "pool").mkdir(parents=True)
    for image in (options.data / "images").iterdir():
        if image.stem in pool:
            (options.work / "pool" / image.name).symlink_to(image.resolve())


def _order(options: argparse.Namespace, rule: str) -> list[str]:
    """Return the tiles in the order of a rule, which sees no label."""
    folder, count = options.work / "pool", max(options.sizes)
    if rule != "next":
        given = {"folder": folder, "gsd": options.gsd, "rule": rule, "count": count}
        return list(measure_part(__file__, "part_of_rule", **given).report["order"])
    made = measure_rooftrace("label", "next", folder, "-n", str(count), "--gsd", str(options.gsd))
    return [one["id"] for one in made.report["chosen"]]


def _run(
    options: argparse.Namespace, name: str, ids: list[str], test: list[str], seed: int
) -> dict[str, Any]:
    """Return the figures of one run, from an earlier one with the same tiles if there was one."""
    given = {"ids": ids, "test": test, "seed": seed, "samples": options.samples}
    kept = options.work / f"{name}-{len(ids)}-{seed}.json"
    if kept.exists():
        earlier = json.loads(kept.read_text("utf-8"))
        if earlier["given"] == given:
            return dict(earlier["figures"])
    made = measure_part(
        __file__, "tune", data=options.data, gsd=options.gsd, run=options.work / "run", **given
    )
    figures = {**made.report, "seconds": rounded(made.seconds)}
    say(f"{name}, {len(ids)} tiles, {seed}: IoU {figures['iou']:.3f}, {made.seconds:.0f} s")
    kept.write_text(json.dumps({"given": given, "figures": figures}), "utf-8")
    return figures


def _summary(values: list[float]) -> dict[str, Any]:
    if not values:
        return {}
    mean = rounded(statistics.fmean(values))
    return {"mean": mean, "from": min(values), "to": max(values), "runs": len(values)}


def tune(
    data: str, gsd: float, ids: list[str], test: list[str], seed: int, samples: int, run: str
) -> dict[str, Any]:
    """Fine-tune the bundled model on some tiles with the settings of `rooftrace finetune`.

    All tiles are trained on, for a fixed number of samples, and the last weights are tested at the
    threshold 0.5: nothing is chosen on any tile.
    """
    from rooftrace.flows.labelled_predictions import training_labels
    from rooftrace.labels.config import SourceConfig
    from rooftrace.labels.kinds import open_source
    from rooftrace.labels.source import count_classes
    from rooftrace.models.start import read_start
    from rooftrace.train.finetune import finetune_config
    from rooftrace.train.loop import fit

    model = read_start("default")
    labels, source = training_labels(model.bundle), SourceConfig(path=data, gsd_m=gsd)
    scenes = open_source(source, labels).subset(ids)
    shutil.rmtree(run, ignore_errors=True)
    Path(run).mkdir(parents=True)
    split = Path(run) / "parts.json"
    split.write_text(json.dumps({"train": ids, "val": test}), "utf-8")
    settings = ("epochs=1", f"samples_per_epoch={samples}", "schedule.warmup_steps=5",
                "workers=0")  # fmt: skip
    config = finetune_config(
        "default", model, source, scenes, labels, split,
        seed=seed, overrides=settings,
    )  # fmt: skip
    found: list[dict[str, float]] = []
    fit(config, Path(run), base=Path(), on_epoch=lambda _, figures: found.append(dict(figures)))
    counts = [each.sum(axis=(0, 1)) for each in count_classes(scenes).values()]
    built_up = statistics.fmean(px[scenes.building_class] / px.sum() for px in counts if px.any())
    return {"iou": rounded(found[-1]["val_iou"]), "built_up": rounded(built_up)}


def part_of_rule(folder: str, gsd: float, rule: str, count: int) -> dict[str, Any]:
    """Return the order of one part of the rule: the uncertainty, or the k-centre."""
    import numpy as np

    from rooftrace.flows.label_next import weighted_k_centre
    from rooftrace.io.raster import open_raster
    from rooftrace.predict.plan import SceneOptions
    from rooftrace.predict.predictor import load
    from rooftrace.predict.uncertainty import measure_uncertainty

    predictor = load()
    images = sorted(Path(folder).iterdir())
    found = [
        measure_uncertainty(predictor, open_raster(one), SceneOptions(gsd_m=gsd)) for one in images
    ]
    weights = np.array([one.total for one in found])
    order = np.argsort(-weights, kind="stable")[:count]
    if rule == "k-centre":
        features = np.stack([one.features for one in found if one.features is not None])
        order, _ = weighted_k_centre(features, np.ones(len(found)), count, features[:0])
    return {"order": [images[n].stem for n in order.tolist()]}


if __name__ == "__main__":
    start(main, tune, part_of_rule)
