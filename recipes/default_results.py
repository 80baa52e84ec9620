"""Judge the bundled model on each held-out place, as it is and with mirrored tiles.

    python recipes/default_data.py work/default-data
    PYTHONPATH=tests python -m town work/demo
    python recipes/default_results.py

prints the tables of docs/results.md, in int8. A row of the first two is also what
`rooftrace evaluate default PLACE --precision int8` says; the third holds `--tta d4` against it, on
the same scenes.
"""

from __future__ import annotations

import math
from pathlib import Path

from rooftrace.core.config import expand_path, load_config
from rooftrace.flows.evaluate.predictions import of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import open_labelled
from rooftrace.labels.config import SourceConfig
from rooftrace.metrics.report import EvalReport
from rooftrace.metrics.resampling import Interval, PairedTest
from rooftrace.predict.model_set import read_models
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
BESIDE = (
    SourceConfig(path="../work/default-data/kampala"),
    SourceConfig(path="../work/demo"),
)
PIXELS = ("place", "scenes", "IoU", "95 %", "precision", "recall", "Dice", "boundary IoU")
BUILDINGS = (
    "place", "labelled", "predicted", "F1 at 0.5", "95 %", "mean F1, 0.5–0.95", "AP50", "PoLiS, m",
    "ECE", "built-up share: error", "too high by",
)  # fmt: skip
MIRRORED = ("place", "figure", "without", "d4", "difference", "95 %", "p", "better : worse")
COMPARED = {"IoU": "pixel.iou", "boundary IoU": "boundary.boundary_iou", "F1": "objects.f1"}


def main() -> None:
    plain_model = read_models(None, precision="int8").ready()
    models = [
        of_model(plain_model),
        of_model(read_models(None, precision="int8", tta="d4").ready(), tta="d4"),
    ]
    tables: dict[tuple[str, ...], list[tuple[str, ...]]] = {PIXELS: [], BUILDINGS: [], MIRRORED: []}
    for given in (*load_config(RECIPES / "default.toml", TrainConfig).data.val, *BESIDE):
        path = str(expand_path(given.path, RECIPES, key="path"))
        place = given.model_copy(update={"path": path})
        source = open_labelled(plain_model, place, None)
        plain, mirrored = compare_with_labels(models, source, EvalOptions())
        name = Path(path).name
        tables[PIXELS].append((name, *of_pixels(plain)))
        tables[BUILDINGS].append((name, *of_buildings(plain)))
        tests = mirrored.scene_counts.against(plain.scene_counts, list(COMPARED.values()))
        for figure, key in COMPARED.items():
            tables[MIRRORED].append((name, figure, *of_test(tests[key])))
    for head, rows in tables.items():
        print(*(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), sep="\n")
        print()
    context = models[0].context
    print(context["bundle"], context["engine"], context["versions"])


def of_pixels(report: EvalReport) -> tuple[str, ...]:
    counts, index = report.pooled, report.building_class
    figures = (
        counts.precision(index), counts.recall(index), counts.dice(index), report.outlines.iou
    )  # fmt: skip
    iou = report.intervals["pixel.iou"]
    return (str(len(report.images)), f"{iou.value:.3f}", limits(iou), *map(shown, figures))


def of_buildings(report: EvalReport) -> tuple[str, ...]:
    objects, built_up = report.objects.figures(), report.built_up
    scores, coco = report.reliability, report.coco or {}
    share = {} if built_up is None else built_up.to_json()
    f1 = report.intervals["objects.f1"]
    return (
        str(objects["labelled"]), str(objects["predicted"]), shown(f1.value), limits(f1),
        shown(objects["mean_f1"]), shown(coco.get("ap50")),
        shown(report.polygons.figures().get("polis_m")),
        shown(None if scores is None else scores.ece),
        shown(share.get("share_mae")), shown(share.get("share_bias"), sign="+"),
    )  # fmt: skip


def of_test(test: PairedTest) -> tuple[str, ...]:
    gap = test.difference
    return (
        shown(test.first - gap.value), shown(test.first), shown(gap.value, sign="+"),
        limits(gap, sign="+"), shown(test.p_value), f"{test.better} : {test.worse}",
    )  # fmt: skip


def limits(interval: Interval, sign: str = "") -> str:
    if not interval.is_known:
        return "–"
    return f"{shown(interval.low, sign)} – {shown(interval.high, sign)}"


def shown(value: float | None, sign: str = "") -> str:
    return "–" if value is None or math.isnan(value) else f"{value:{sign}.3f}"


if __name__ == "__main__":
    main()
