"""How a fine-tuning divides its images: a part that is held out, or folds of few images.

Of fewer than `LEAST_HELD_OUT` held-out images, the models are compared by cross-validation: each
image is predicted by a model that was not trained on it, and the finished model is the mean of all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rooftrace.core.errors import DataError
from rooftrace.core.text import plural, print_plain
from rooftrace.flows.evaluate.predictions import Predictions, of_model
from rooftrace.flows.finetune.report import LEAST_FOR_VERDICT
from rooftrace.flows.labelled_predictions import LabelledSets, predict_folds, predict_set
from rooftrace.flows.split import divide_scenes
from rooftrace.flows.threshold import PredictSet, ThresholdReport, choose_threshold
from rooftrace.io.files import write_json
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, Split, SplitBy, read_split, write_split
from rooftrace.models.bundle import WEIGHTS_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
    from rooftrace.models.start import StartModel
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.datamodule import TrainingData
    from rooftrace.train.export_bundle import ChooseThreshold
    from rooftrace.train.loop import FitResult

FOLD, _FOLDS = "fold", 4
"""Name and number of the folds of ground of a cross-validation."""

LEAST_HELD_OUT = 10
"""Held-out images below which the models are compared by cross-validation."""

_SHARES = (0.0, 0.5, 1.0)
"""Shares of the training in a model of few tiles, of which the best is taken."""


@dataclass(frozen=True)
class Tuning:
    """What all steps of a fine-tuning share.

    Args:
        run: Folder of the run.
        base: Folder from which relative paths start.
        start: The start model.
        scenes: The labelled scenes.
        images: Options with which images are read for the comparison.
        resume: True to continue the run that is in the folder.
        console: Console for progress; None prints nothing.
    """

    run: Path
    base: Path
    start: StartModel
    scenes: SceneSet
    images: SceneOptions
    resume: bool
    console: Console | None


@dataclass(frozen=True)
class TuningPlan:
    """What is trained on, and what is held out.

    Args:
        config: Configuration of the training.
        parts: Scenes of each part of the split file.
        folds: Scenes of each fold; empty where one part is held out.
        splits: Split file of each fold.
        data: Opened data of each training: one, or one of each fold.
    """

    config: TrainConfig
    parts: SceneParts
    folds: tuple[tuple[str, ...], ...]
    splits: tuple[Path, ...]
    data: tuple[TrainingData, ...]

    @classmethod
    def open(cls, tuning: Tuning, config: TrainConfig, split: Path) -> TuningPlan:
        """Open the data of each training, and write the split file of each fold."""
        from rooftrace.train.datamodule import open_data

        parts, folds = parts_of(tuning.scenes, split)
        splits = tuple(_write_fold(tuning.run, folds, one) for one in range(len(folds)))
        configs = [_on(config, one) for one in splits] or [config]
        data = tuple(open_data(one, tuning.base, [tuning.scenes]) for one in configs)
        return cls(config, parts, folds, splits, data)

    @property
    def text(self) -> str:
        """Line that says how the images are divided."""
        if self.folds:
            count = sum(map(len, self.folds))
            return f"{plural(count, 'image')}: {len(self.folds)} folds, each held out once"
        train, val = (len(self.parts.parts.get(part, ())) for part in ("train", "val"))
        return f"{plural(train + val, 'image')}: {train} train, {val} held out"


@dataclass(frozen=True)
class Tuned:
    """A trained model before its export.

    Args:
        result: The trained network.
        choose: Function that chooses the threshold; None for a model of several classes.
        share: Share of the training that counts in the weights.
        members: Models of a cross-validation.
    """

    result: FitResult
    choose: ChooseThreshold | None
    share: float = 1.0
    members: tuple[FoldModel, ...] = ()


def divide(
    scenes: SceneSet, path: Path, *, val: float, unit: SplitBy, seed: int, building: str
) -> tuple[str, ...]:
    """Hold a part of the scenes out, or make folds of few; write the split file, return notes.

    Raises:
        DataError: No building is labelled in one of the parts.
    """
    count = _FOLDS if val * len(scenes) < LEAST_HELD_OUT else 1
    held_out: list[tuple[str, ...]] = []
    built, rest = [], scenes
    notes: tuple[str, ...] = ()
    for left in range(min(count, len(scenes) - 1), 1, -1) if count > 1 else (1 / val,):
        try:
            # With few tiles, blocks leave no gap between them; they still do not overlap.
            split = divide_scenes(
                rest, val=1 / left, test=0.0, by=unit, gap_m=0.0 if unit == "block" else None,
                seed=seed,
            )  # fmt: skip
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


def _on(config: TrainConfig, split: Path) -> TrainConfig:
    """Return the configuration of one fold, whose last epoch counts."""
    data = config.data.model_copy(update={"split": str(split.absolute())})
    stop = config.stop.model_copy(update={"patience": 0})
    return config.model_copy(update={"data": data, "stop": stop})


def _write_fold(run: Path, folds: Sequence[tuple[str, ...]], number: int) -> Path:
    """Write the split file of a fold: what is trained on, and what is held out."""
    others = sum((*folds[:number], *folds[number + 1 :]), ())
    path = run / f"{FOLD}{number + 1}" / "split.json"
    write_split(path, Split(parts={"train": others, "val": folds[number]}))
    return path


@dataclass(frozen=True)
class FoldModel:
    """Model of one fold: its weights as safetensors, and the scenes that it was not trained on."""

    weights: bytes
    ids: tuple[str, ...]

    def predictor(self, spec: BundleSpec) -> Predictor:
        """Return the model with the contract of the finished one."""
        from rooftrace.engines.torch import TorchEngine

        bundle = ModelBundle(spec, {WEIGHTS_NAME: self.weights}, spec.name)
        return Predictor(bundle, TorchEngine(spec, self.weights, "fp32", spec.name))


def train_folds(tuning: Tuning, plan: TuningPlan, log: Console) -> Tuned:
    """Train a model for each fold on the others, and return their mean."""
    from safetensors.torch import load

    from rooftrace.train.callbacks import LastEpoch
    from rooftrace.train.checkpoint import last_checkpoint
    from rooftrace.train.finetune import average_results
    from rooftrace.train.loop import fit

    if not tuning.resume:
        write_json(tuning.run / "config.json", plan.config.relative_to(tuning.base))
    results = []
    for number, (split, data) in enumerate(zip(plan.splits, plan.data), 1):
        print_plain(tuning.console, f"fold {number} of {len(plan.folds)}")
        resume = tuning.resume and last_checkpoint(split.parent).exists()
        results.append(
            fit(
                _on(plan.config, split), split.parent, base=tuning.base, console=tuning.console,
                resume=resume, data=data, start=tuning.start, monitored=LastEpoch("val_iou", 1),
            )
        )  # fmt: skip
    scenes = tuning.scenes.subset(sum(plan.folds, ()))
    share, members, update = _choose_share(tuning, plan, results, scenes, log)
    weights = [load(one.weights) for one in members]
    mean = average_results(results, weights, tuning.run, plan.config, scenes)
    return Tuned(mean, lambda _: update, share, members)


def _choose_share(
    tuning: Tuning, plan: TuningPlan, results: Sequence[FitResult], scenes: SceneSet, log: Console
) -> tuple[float, tuple[FoldModel, ...], dict[str, Any]]:
    """Choose how much of the training counts, and the threshold with it, on what was held out.

    Where the ground is little, all of the training may be too much (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models"). What is maximised is the mean of IoU and F1 of buildings, so
    that neither pays for the other.

    Returns:
        The share, the models of the folds with it, and the changes of the contract.
    """
    from safetensors.torch import save

    from rooftrace.train.callbacks import BEST_MONITORED
    from rooftrace.train.export_bundle import contract_of
    from rooftrace.train.finetune import mix_weights

    def members_with(share: float) -> tuple[FoldModel, ...]:
        weights = (one.trained.best[BEST_MONITORED][2] for one in results)
        mixed = (save(mix_weights(path, tuning.start, share)) for path in weights)
        return tuple(map(FoldModel, mixed, plan.folds))

    epoch, _, _ = results[0].trained.best[BEST_MONITORED]
    spec = contract_of(plan.config, results[0], tuning.run / "best_iou.rooftrace", {"epoch": epoch})
    if not spec.is_binary:
        return 1.0, members_with(1.0), {}
    tried = []
    for share in (1.0,) if len(scenes) < LEAST_FOR_VERDICT else _SHARES:
        members = members_with(share)
        predictors = [(one.predictor(spec), one.ids) for one in members]
        report, update = tuned_threshold(
            predictors[0][0], tuning, scenes, log, predict=partial(predict_folds, predictors)
        )
        print_plain(log, f"share {share:g}: mean of IoU and F1 {report.value:.4f}")
        tried.append((report.value, share, members, update))
    _, share, members, update = max(tried, key=lambda one: one[:2])
    return share, members, update


def tuned_threshold(
    predictor: Predictor, tuning: Tuning, scenes: SceneSet, log: Console,
    predict: PredictSet = predict_set,
) -> tuple[ThresholdReport, dict[str, Any]]:  # fmt: skip
    """Choose the threshold of a tuned model on whole images that were held out.

    With too few images for a verdict, it stays that of the start model; see `choose_threshold`.
    """
    start, few = tuning.start.bundle.spec, len(scenes) < LEAST_FOR_VERDICT
    report, update = choose_threshold(
        predictor, LabelledSets([scenes], "val", tuning.images), tuning.run, metric="iou_f1",
        fallback=start if few else None, near=start.threshold, predict=predict,
    )  # fmt: skip
    for note in (f"threshold {report.after:.3f}", *report.notes):
        print_plain(log, note)
    return report, update


def of_folds(tuned: Predictions, members: Sequence[FoldModel], images: SceneOptions) -> Predictions:
    """Return predictions of each scene by the model that was not trained on it."""
    assert tuned.bundle is not None
    by_scene: dict[str, Predictions] = {}
    for one in members:
        predictions = of_model(one.predictor(tuned.bundle.spec), images=images)
        by_scene |= dict.fromkeys(one.ids, predictions)
    return replace(tuned, predict=lambda scene: by_scene[scene.id].predict(scene))
