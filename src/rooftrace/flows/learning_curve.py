"""Learning curves: the IoU of a fine-tuned model by the number of labelled images.

`compare_choices` trains on the images that `rooftrace label next` chooses and on random ones.
`images_needed` extends the last step of a curve.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rooftrace.core.errors import ConfigError, DataError, MissingExtraError
from rooftrace.core.text import json_kind, parse_json, plural, reason_of
from rooftrace.flows.label_next import choose_next
from rooftrace.flows.labelled_predictions import labels_for
from rooftrace.flows.split import run_split
from rooftrace.flows.train import locked_run
from rooftrace.io.files import read_file, write_atomically, write_json
from rooftrace.io.html import Axis, Series, compose_svg, draw_chart
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import Split, read_split, write_split
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import AS_FOUND, SceneOptions

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

_TEST_SHARE = 0.35
"""Share of the images that every training is tested on."""

_CHOSEN, _RANDOM = "chosen", "random"
_PLAN = "plan.json"


@dataclass(frozen=True)
class CurvePoint:
    """The result of one training.

    Args:
        rule: `chosen` by `rooftrace label next`, or `random`.
        images: Number of labelled images that were trained on.
        seed: Seed of the training, and of the order of random images.
        iou: Intersection over union on the test images, at the threshold 0.5.
    """

    rule: str
    images: int
    seed: int
    iou: float


@dataclass(frozen=True)
class CurveReport:
    """Comparison of chosen images with random ones.

    Args:
        points: Results of the trainings.
        pool: Number of images to choose from.
        test: Number of images that all trainings are tested on.
        samples: Number of training samples of each training.
        notes: Assumptions that the user should see.
    """

    points: tuple[CurvePoint, ...]
    pool: int
    test: int
    samples: int
    notes: tuple[str, ...] = field(default=())

    def mean(self, rule: str) -> dict[int, float]:
        """Return the mean IoU by the number of images."""
        numbers = sorted({one.images for one in self.points if one.rule == rule})
        return {
            number: statistics.fmean(
                one.iou for one in self.points if (one.rule, one.images) == (rule, number)
            )
            for number in numbers
        }

    @property
    def random_equal(self) -> dict[int, float | None]:
        """Number of random images with the mean IoU of each number of chosen ones.

        It is interpolated along the logarithm of the number; None where the IoU lies beyond the
        means of random images, or where these do not rise.
        """
        known = self.mean(_RANDOM)
        return {number: _number_at(known, iou) for number, iou in self.mean(_CHOSEN).items()}

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            **asdict(self),
            "mean_iou": {rule: self.mean(rule) for rule in (_CHOSEN, _RANDOM)},
            "random_equal": self.random_equal,
        }


def _number_at(known: dict[int, float], iou: float) -> float | None:
    """Return the number of images at which a curve first reaches an IoU."""
    numbers = sorted(known)
    for low, high in itertools.pairwise(numbers):
        if known[low] <= iou <= known[high] and known[low] < known[high]:
            share = (iou - known[low]) / (known[high] - known[low])
            return float(round(low * (high / low) ** share, 1))
    return None


def images_needed(images: int, half_iou: float, iou: float, wanted_iou: float) -> int | None:
    """Return how many labelled images would reach an IoU, if each doubling adds as the last one.

    Args:
        images: Number of images of the last training.
        half_iou: IoU with half of them.
        iou: IoU with all of them.
        wanted_iou: IoU that is wanted.

    Returns:
        Number of images; None if the last doubling has added nothing, or if more than a hundred
        times as many would be needed.
    """
    if wanted_iou <= iou:
        return images
    if iou <= half_iou:
        return None
    doublings = (wanted_iou - iou) / (iou - half_iou)
    return None if doublings > math.log2(100) else math.ceil(images * 2**doublings)


def compare_choices(
    data: SourceConfig,
    out: Path,
    sizes: Sequence[int],
    *,
    model: str = "default",
    minutes: float = 2.0,
    seeds: int = 3,
    images: SceneOptions = AS_FOUND,
    notify: Callable[[str], None] = lambda _: None,
) -> CurveReport:
    """Fine-tune on the images that `rooftrace label next` chooses, and on random ones.

    A third of the images is held out for the test, by the unit that `rooftrace split` finds. The
    choice sees no label. Each training has the same number of samples and trains on all its
    images; its last weights are tested, so nothing is chosen on any image. A comparison that was
    stopped continues with the trainings that it has not done.

    Args:
        data: Labelled images of one place.
        out: Folder for `curve.csv`, `curve.svg`, `curve.json` and the finished trainings.
        sizes: Numbers of images to train on.
        model: Model to start from, see `models.start.read_start`.
        minutes: Approximate time of each training on this machine, without its test.
        seeds: Number of trainings for each number of images.
        images: Bands, stretch and scale with which the choice reads images.
        notify: Function called with a line about each training.

    Raises:
        MissingExtraError: PyTorch or a package that comes with it is not installed.
        ConfigError: The classes differ from those of the model; or the folder holds a comparison
            of other data or settings.
        DataError: There are too few labelled images.
        ExportError: The folder cannot be written, or another command works in it.
    """
    try:
        import rooftrace.train.loop  # noqa: F401  (used once the data is checked)
        from rooftrace.models.start import read_start
    except ImportError as error:
        name = error.name or "torch"
        raise MissingExtraError.of("train", "rooftrace label next --compare", name) from error

    start = read_start(model).bundle
    labels = labels_for(data, start)
    data = data.model_copy(update={"labels": None})
    scenes, numbers = open_labelled(data, labels), sorted(set(sizes))
    trainings = _Trainings(data, labels, scenes, model, start, out)
    with locked_run(out):
        # The test images, the orders and the number of samples stay the same when it continues.
        pool, test = _divided(data, labels, scenes, out, numbers)
        read = {"bands": images.bands, "stretch": images.stretch, "scale": images.scale}
        given = {"data": data.model_dump(mode="json"), "model": model, "minutes": minutes} | read
        plan = _plan(out, given)
        if plan.get("asked", 0) < numbers[-1]:
            # A longer list of chosen images begins with the shorter one.
            path = Path(start.source)
            plan[_CHOSEN] = _chosen(scenes.subset(pool), numbers[-1], path, images)
            plan["asked"] = numbers[-1]
            if "samples" not in plan:
                plan["samples"] = trainings.samples_in(minutes, pool[: numbers[-1]], test)
            write_json(out / _PLAN, plan)
        chosen, samples = plan[_CHOSEN], plan["samples"]
        notes = []
        if len(chosen) < numbers[-1]:
            notes.append(f"Only {plural(len(chosen), 'image')} could be chosen.")
        points = []
        for seed in range(seeds):
            drawn = np.random.default_rng(seed).permutation(pool).tolist()
            for rule, order in ((_CHOSEN, chosen), (_RANDOM, drawn)):
                for number in dict.fromkeys(min(one, len(order)) for one in numbers):
                    kept = out / "trainings" / f"{rule}-{number}-{seed}.json"
                    if kept.exists():
                        iou = float(_read(kept)["iou"])
                    else:
                        iou = trainings.iou(order[:number], test, seed, samples)
                        kept.parent.mkdir(exist_ok=True)
                        write_json(kept, {"iou": iou})
                    points.append(CurvePoint(rule, number, seed, round(iou, 6)))
                    notify(f"{rule}, {plural(number, 'image')}, seed {seed}: IoU {iou:.3f}")
        report = CurveReport(tuple(points), len(pool), len(test), samples, tuple(notes))
        _write(out, report)
        (out / "parts.json").unlink(missing_ok=True)
    return report


@dataclass(frozen=True)
class _Trainings:
    """The trainings of a comparison, which differ in images and seed only.

    Args:
        data: Labelled images.
        labels: Meaning of their labels.
        scenes: The images, opened.
        model: Model to start from.
        start: The same, read.
        out: Folder of the comparison.
    """

    data: SourceConfig
    labels: LabelConfig
    scenes: SceneSet
    model: str
    start: ModelBundle
    out: Path

    def samples_in(self, minutes: float, ids: Sequence[str], test: Sequence[str]) -> int:
        """Return the number of samples that a training takes in some minutes on this machine."""
        from rooftrace.train.finetune import samples_in_minutes

        return samples_in_minutes(self._config(ids, test, seed=0), Path.cwd(), minutes)

    def iou(self, ids: Sequence[str], test: Sequence[str], seed: int, samples: int) -> float:
        """Train on some images, and return the IoU of the last weights on others."""
        from rooftrace.train.loop import fit

        found: list[float] = []
        run = self.out / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        config = self._config(ids, test, seed, "epochs=1", f"samples_per_epoch={samples}")
        fit(config, run, base=Path.cwd(), on_epoch=lambda _, row: found.append(row["val_iou"]))
        shutil.rmtree(run)
        return found[-1]

    def _config(
        self, ids: Sequence[str], test: Sequence[str], seed: int, *settings: str
    ) -> TrainConfig:
        from rooftrace.train.finetune import finetune_config

        split = self.out / "parts.json"
        write_split(split, Split(parts={"train": tuple(ids), "val": tuple(test)}))
        return finetune_config(
            self.model, self.start.spec, self.data, self.scenes.subset(ids), self.labels,
            split.absolute(), minutes=600, seed=seed,
            overrides=["schedule.warmup_steps=5", "watch.panel=0", *settings],
        )  # fmt: skip


def _divided(
    data: SourceConfig, labels: LabelConfig, scenes: SceneSet, out: Path, sizes: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Return the ids of the images to choose from, and of those to test on."""
    path = out / "split.json"
    if not path.exists():
        relabelled = data.model_copy(update={"labels": labels.model_copy(update={"colours": None})})
        run_split(relabelled, path, val=_TEST_SHARE, test=0.0, by="image", seed=0)
    parts = read_split(path).parts
    pool, test = list(parts["train"]), list(parts["val"])
    if len(pool) < sizes[-1]:
        raise DataError(
            f"{data.path} has {plural(len(scenes), 'labelled image')}, of which {len(test)} are "
            f"for the test and {len(pool)} to choose from; expected at least {sizes[-1]}.",
            remedy=f"Give smaller numbers, such as --tiles {max(1, len(pool) // 2)}; or cut large "
            "images with --set chip_px=512.",
        )
    return pool, test


def _chosen(pool: SceneSet, count: int, bundle: Path, images: SceneOptions) -> list[str]:
    """Return the ids that `rooftrace label next` chooses, without a look at a label."""
    report = choose_next(
        pool, frozenset(pool.ids), count, read_models(bundle, tta="none").ready(), images=images
    )
    return [one.id for one in report.chosen]


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file that an earlier command has written.

    Raises:
        DataError: It is damaged.
    """
    try:
        found = parse_json(read_file(path))
        if not isinstance(found, dict):
            raise ValueError(f"it holds {json_kind(found)}")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged: {reason_of(error)}.",
            remedy="Remove the file, and repeat the command.",
        ) from error
    return found


def _plan(out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the plan of the comparison in a folder, which has only `given` at the first time.

    Raises:
        ConfigError: The folder has a comparison of other data or settings.
    """
    path = out / _PLAN
    if not path.exists():
        return {"given": given}
    plan: dict[str, Any] = _read(path)
    if plan.get("given") != given:
        raise ConfigError(
            f"{out} holds a comparison of other data, of another model, with other minutes, or of "
            "images that are read otherwise.",
            remedy="Choose another folder, or continue with the earlier settings.",
        )
    return plan


def _write(out: Path, report: CurveReport) -> None:
    """Write the table, the chart and the figures."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["rule", "images", "seed", "iou"])
    table.writerows([one.rule, one.images, one.seed, one.iou] for one in report.points)
    write_atomically(out / "curve.csv", text.getvalue().encode())
    write_json(out / "curve.json", report.to_json())
    means = {rule: report.mean(rule) for rule in (_CHOSEN, _RANDOM)}
    numbers = sorted({number for known in means.values() for number in known})
    values = [one.iou for one in report.points]
    low, high = min(values), max(values)
    margin = max(0.01, (high - low) / 10)
    ticks = tuple((float(number), str(number)) for number in numbers)
    levels = np.linspace(low, high, 3) if high > low else np.array([low])
    chart = draw_chart(
        [
            Series(rule, list(map(float, known)), list(known.values()), dots=True)
            for rule, known in means.items()
        ],
        Axis("labelled images", numbers[0] * 0.9, numbers[-1] * 1.1, ticks, logarithmic=True),
        Axis(
            "IoU on the test images", low - margin, high + margin,
            tuple((float(one), f"{one:.3f}") for one in levels),
        ),
    )  # fmt: skip
    write_atomically(out / "curve.svg", compose_svg({"IoU": chart}, list(means)).encode())
