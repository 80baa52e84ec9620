"""How a fine-tuning divides its images, trains on them and chooses what is kept.

Of fewer than `LEAST_HELD_OUT` held-out images, the models are compared by cross-validation: each
image is predicted by a model that was not trained on it, and the finished model is the mean of all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from rooftrace.core.errors import DataError
from rooftrace.core.text import plural, print_plain
from rooftrace.flows.finetune.report import LEAST_FOR_VERDICT
from rooftrace.flows.labelled_predictions import LabelledSets, predict_folds, predict_set
from rooftrace.flows.split import divide_scenes
from rooftrace.flows.threshold import ThresholdReport, choose_threshold
from rooftrace.io.files import write_json
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, Split, SplitBy, SplitOptions, read_split, write_split
from rooftrace.models.bundle import WEIGHTS_NAME, ModelBundle
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
    from rooftrace.models.start import StartModel
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.datamodule import TrainingData
    from rooftrace.train.loop import FitResult

FOLD, _FOLDS, _FOLD_MINUTES = "fold", (2, 4), 2
"""Name of the folds of a cross-validation, their least and largest number, and the minutes for
each: a fold of a few steps shows nothing."""

LEAST_HELD_OUT = 10
"""Held-out images below which the models are compared by cross-validation."""

_SHARES = (1.0, 0.5)
"""Shares of the training in the weights that are tried, beside none of it."""

_END_SEARCHES, _EXPORT_S, _LEAST_SHARE = 2.5, 8.0, 0.1
"""What follows the training: seconds in searches of a threshold, processor seconds of the export;
and the share of the minutes that is trained at least."""


class Minutes:
    """The minutes of a fine-tuning, of which the end gets as much as it needs on this machine.

    Args:
        minutes: Minutes to the verdict.
        clock, processor: Functions that return seconds, and processor seconds of this process.
    """

    def __init__(
        self, minutes: float, clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.process_time,
    ) -> None:  # fmt: skip
        self._clock, self._processor, self._all_s = clock, processor, 60 * minutes
        self._began = clock(), processor()
        self.search_s = 0.0
        """Seconds of the last search of a threshold."""

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self._all_s - (self._clock() - self._began[0])

    @property
    def end_s(self) -> float:
        """Seconds that export and comparison take, at the speed that this process has had."""
        spent_s, used_s = self._clock() - self._began[0], self._processor() - self._began[1]
        return _END_SEARCHES * self.search_s + _EXPORT_S * max(1, spent_s / max(used_s, 1e-9))

    @property
    def has_search(self) -> bool:
        """Return whether one more search of a threshold leaves enough for the end."""
        return self.left_s > self.end_s + self.search_s

    def training_s(self, trainings: int) -> float:
        """Return the seconds of the next of so many trainings."""
        spare_s = self.left_s - self.end_s - len(_SHARES) * self.search_s
        return max(spare_s, _LEAST_SHARE * self._all_s) / trainings

    @contextmanager
    def search(self) -> Iterator[None]:
        """Measure the seconds of a search of a threshold."""
        began = self._clock()
        yield
        self.search_s = self._clock() - began


class Training(NamedTuple):
    """One training: its folder, configuration and data, and the scenes that it does not see."""

    folder: Path
    config: TrainConfig
    data: TrainingData
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class TuningPlan:
    """A fine-tuning: what is trained on, and what is held out.

    Args:
        run: Folder of the run.
        base: Folder from which relative paths start.
        start: The start model.
        scenes: The labelled scenes.
        images: Options with which images are read for the comparison.
        config: Configuration of the training.
        parts: Scenes of each part of the split file.
        folds: Scenes of each fold; empty where one part is held out.
        trainings: One training, or one for each fold.
    """

    run: Path
    base: Path
    start: StartModel
    scenes: SceneSet
    images: SceneOptions
    config: TrainConfig
    parts: SceneParts
    folds: tuple[tuple[str, ...], ...]
    trainings: tuple[Training, ...]

    @classmethod
    def open(
        cls, run: Path, base: Path, start: StartModel, scenes: SceneSet, images: SceneOptions,
        config: TrainConfig, split: Path,
    ) -> TuningPlan:  # fmt: skip
        """Open the data of each training, and write the split file of each fold."""
        from rooftrace.train.datamodule import open_data
        from rooftrace.train.finetune import check_bands

        parts, folds = parts_of(scenes, split)
        trainings = []
        for number, held_out in enumerate(folds):
            folder = run / f"{FOLD}{number + 1}"
            others = sum((*folds[:number], *folds[number + 1 :]), ())
            path = folder / "split.json"
            write_split(path, Split(parts={"train": others, "val": held_out}))
            fold = config.model_copy(
                update={
                    "data": config.data.model_copy(update={"split": str(path.absolute())}),
                    "stop": config.stop.model_copy(update={"patience": 0}),
                    "watch": config.watch.model_copy(update={"panel": 0}),
                }
            )
            trainings.append(Training(folder, fold, open_data(fold, base, [scenes]), held_out))
        if not folds:
            data = open_data(config, base, [scenes])
            trainings = [Training(run, config, data, parts.ids("val"))]
        check_bands(trainings[0].data, start.bundle.spec)
        return cls(run, base, start, scenes, images, config, parts, folds, tuple(trainings))

    def fitted(self, minutes: Minutes, overrides: Sequence[str]) -> TuningPlan:
        """Return the plan with as many epochs and samples as fit into the minutes."""
        from rooftrace.train.finetune import fit_to_seconds

        seconds = minutes.training_s(len(self.trainings))
        spec, data = self.start.bundle.spec, self.trainings[0].data
        config = fit_to_seconds(self.config, spec, data, seconds, overrides)
        keys = "batch_size", "samples_per_epoch", "epochs", "schedule"
        length = {key: getattr(config, key) for key in keys}
        stop = {"stop": config.stop} if not self.folds else {}
        trainings = tuple(
            one._replace(
                config=one.config.model_copy(update=length | stop),
                data=one.data.with_samples(config.samples_per_epoch),
            )
            for one in self.trainings
        )
        return replace(self, config=config, trainings=trainings)

    @property
    def text(self) -> str:
        """Line that says how the images are divided."""
        if self.folds:
            count = sum(map(len, self.folds))
            return f"{plural(count, 'image')}: {len(self.folds)} folds, each held out once"
        train, val = (len(self.parts.parts.get(part, ())) for part in ("train", "val"))
        return f"{plural(train + val, 'image')}: {train} train, {val} held out"

    @property
    def held_out(self) -> SceneSet:
        """The scenes on which is chosen what is kept."""
        return self.scenes.subset(sum((one.held_out for one in self.trainings), ()))


def divide(
    scenes: SceneSet, path: Path, *, val: float, unit: SplitBy, seed: int, building: str,
    minutes: float,
) -> tuple[str, ...]:  # fmt: skip
    """Hold a part of the scenes out, or make folds of few; write the split file, return notes.

    Raises:
        DataError: No building is labelled in one of the parts.
    """
    fewest, most = _FOLDS
    folds = min(most, max(fewest, int(minutes / _FOLD_MINUTES)))
    count = folds if val * len(scenes) < LEAST_HELD_OUT else 1
    held_out: list[tuple[str, ...]] = []
    built, rest = [], scenes
    notes: tuple[str, ...] = ()
    for left in range(min(count, len(scenes) - 1), 1, -1) if count > 1 else (1 / val,):
        try:
            # With few tiles, blocks leave no gap between them; they still do not overlap.
            gap_m = 0.0 if unit == "block" else None
            split = divide_scenes(rest, SplitOptions(val=1 / left, by=unit, gap_m=gap_m, seed=seed))
        except DataError:
            # Of few groups or blocks, there are fewer folds.
            if not held_out:
                raise
            break
        notes += split.notes
        held_out.append(split.parts["val"])
        built.append(split.built_up.get("val", 0.0))
        rest = rest.subset(split.parts["train"])
    held_out.append(rest.ids)
    built.append(split.built_up.get("train", 0.0))
    for some, ids, purpose in (
        (sum(one > 0 for one in built) > 1, held_out[-1], "train on"),
        (count > 1 or built[0] > 0, held_out[0], "compare the models on"),
    ):
        if not some:
            raise DataError(
                f"{scenes.name}: no pixel is labelled as {building} in the "
                f"{plural(len(ids), 'image')} to {purpose}.",
                remedy="Check the labels with rooftrace inspect; or divide the images yourself, "
                "with buildings in each part: --split FILE.",
            )
    parts: dict[str, tuple[str, ...]] = {
        f"{FOLD}{number}": ids for number, ids in enumerate(held_out, 1)
    }
    if count == 1:
        parts = {"train": held_out[1], "val": held_out[0]}
    write_split(path, split.model_copy(update={"parts": parts, "built_up": {}}))
    return tuple(dict.fromkeys(notes))


def parts_of(scenes: SceneSet, path: Path) -> tuple[SceneParts, tuple[tuple[str, ...], ...]]:
    """Return the scenes by the parts of a split file, and the folds among the parts.

    Raises:
        ConfigError, DataError: See `labels.split.Split.match` and `SceneParts.ids`; or no scene to
            train on has a label.
    """
    parts = read_split(path).match(scenes.all_ids, path=path.absolute())
    names = (part for part in parts.parts if re.fullmatch(FOLD + r"\d", part))
    folds = tuple(parts.ids(part) for part in names)
    if not folds and not len(scenes.subset(parts.ids("train"))):
        raise DataError(
            f"No image in the part 'train' of {path} has a label.",
            remedy="Name labelled images there, or leave --split out to have a part held out.",
        )
    return parts, folds


Members = Sequence[tuple[Predictor, tuple[str, ...]]]
"""Models, each with the scenes that it has not seen."""


Searched = tuple[ThresholdReport, dict[str, Any]]
"""Result of `choose_threshold`."""


@dataclass(frozen=True)
class Tuned:
    """A trained model before its export.

    Args:
        result: The trained network.
        measured: Values of its contract; None where the export measures them.
        share: Share of the training that counts in the weights.
        members: The models of the trainings.
    """

    result: FitResult
    measured: Mapping[str, Any] | None
    share: float
    members: Members


def search_start(plan: TuningPlan, minutes: Minutes) -> Searched | None:
    """Return figures of the start model on what is held out; None for more than two classes.

    They are what the tuned model must not fall below, and tell how fast this machine is now.
    """
    if not plan.start.bundle.spec.is_binary:
        return None
    with minutes.search():
        return _search(ModelSet((plan.start.bundle,)).ready(), plan, None)


def train(
    plan: TuningPlan, before: Searched | None, minutes: Minutes, log: Console, *, resume: bool,
    console: Console | None,
) -> Tuned:  # fmt: skip
    """Train within the minutes, and choose what is kept on the scenes that were held out.

    Args:
        before: See `search_start`.
    """
    from rooftrace.train.callbacks import Deadline, LastEpoch
    from rooftrace.train.checkpoint import last_checkpoint
    from rooftrace.train.loop import fit

    if plan.folds and not resume:
        write_json(plan.run / "config.json", plan.config.relative_to(plan.base))
    is_done = resume and (plan.run / "best_iou.rooftrace").exists()
    has_begun = [resume and last_checkpoint(one.folder).exists() for one in plan.trainings]
    results = []
    for number, one in enumerate(plan.trainings):
        if plan.folds:
            print_plain(console, f"fold {number + 1} of {len(plan.folds)}")
        is_complete = is_done or any(has_begun[number + 1 :])
        seconds = minutes.training_s(len(plan.trainings) - number)
        results.append(
            fit(
                one.config, one.folder, base=plan.base, console=console, data=one.data,
                start=plan.start, resume=has_begun[number] or (resume and not plan.folds),
                deadline=Deadline(0.0 if is_complete else seconds),
                monitored=LastEpoch("val_iou", 1) if plan.folds else None,
            )
        )  # fmt: skip
    return _choose_share(plan, results, before, minutes, log)


def _choose_share(
    plan: TuningPlan, results: Sequence[FitResult], before: Searched | None,
    minutes: Minutes, log: Console,
) -> Tuned:  # fmt: skip
    """Choose how much of the training counts, and the threshold with it, on what was held out.

    Where the ground is little, all of the training may be too much (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models"). What is maximised is the mean of IoU and F1 of buildings
    among models whose F1 is not below that of the start model.
    """
    from safetensors.torch import load, save

    from rooftrace.engines.torch import TorchEngine
    from rooftrace.train.callbacks import BEST_MONITORED
    from rooftrace.train.export_bundle import contract_of
    from rooftrace.train.finetune import average_results, mix_weights

    name = BEST_MONITORED if plan.folds else "best_iou"
    ends = [one.trained.best[name] for one in results]
    spec = contract_of(
        plan.config, results[0], plan.run / "best_iou.rooftrace", {"epoch": ends[0][0]}
    )
    start, kept = plan.start.bundle.spec, dict[str, Any]()
    if start.separation == spec.separation:
        kept["separation_threshold"] = start.separation_threshold
    spec = spec.model_copy(update=kept)

    def members_with(share: float) -> Members:
        members = []
        for (_, _, path), one in zip(ends, plan.trainings):
            weights = save(mix_weights(path, plan.start, share))
            bundle = ModelBundle(spec, {WEIGHTS_NAME: weights}, spec.name)
            engine = TorchEngine(spec, weights, "fp32", spec.name)
            members.append((Predictor(bundle, engine), one.held_out))
        return members

    share, members = 1.0, members_with(1.0)
    measured: dict[str, Any] | None = {} if plan.folds else None
    if before is not None:
        report, update = before
        least_f1 = report.figures_before[0]["f1"]
        few = len(plan.held_out) < LEAST_FOR_VERDICT
        tried = [] if few else [(True, report.value, 0.0, update)]
        for share in (1.0,) if few else _SHARES:
            if share < 1 and not minutes.has_search:
                print_plain(log, f"share {share:g} was not tried: the minutes are over")
                continue
            with minutes.search():
                report, update = _search(members[0][0], plan, log, members_with(share), least_f1)
            is_allowed = report.figures_after[0]["f1"] >= least_f1
            tried.append((is_allowed, report.value, share, update))
            print_plain(log, f"share {share:g}: mean of IoU and F1 {report.value:.4f}")
        *_, share, update = max(tried, key=lambda one: one[:3])
        members, measured = members_with(share), update | kept
    weights = [load(one.bundle.parts[WEIGHTS_NAME]) for one, _ in members]
    scenes = plan.held_out if plan.folds else None
    mean = average_results(results, name, weights, plan.run, plan.config, scenes)
    return Tuned(mean, measured, share, members)


def _search(
    predictor: Predictor, plan: TuningPlan, log: Console | None, members: Members = (),
    least_f1: float | None = None,
) -> Searched:  # fmt: skip
    """Choose the threshold of a model, or of members, on whole images that were held out.

    With too few images for a verdict, it stays that of the start model; see `choose_threshold`.
    """
    start, few = plan.start.bundle.spec, len(plan.held_out) < LEAST_FOR_VERDICT
    report, update = choose_threshold(
        predictor, LabelledSets([plan.held_out], "val", plan.images), plan.run, metric="iou_f1",
        fallback=start if few else None, near=start.threshold, least_f1=least_f1,
        predict=partial(predict_folds, members) if members else predict_set,
    )  # fmt: skip
    for note in (f"threshold {report.after:.3f}", *report.notes):
        print_plain(log, note)
    return report, update
