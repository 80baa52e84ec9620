"""How a fine-tuning divides its images and its minutes, and how it trains.

Of fewer than `LEAST_HELD_OUT` held-out images, the models are compared by cross-validation: each
image is predicted by a model that was not trained on it, and the finished model is the mean of all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from rooftrace.core.errors import DataError, SplitError
from rooftrace.core.text import plural, print_plain
from rooftrace.flows.finetune.report import LEAST_FOR_VERDICT
from rooftrace.flows.split import built_up_of, divide_scenes
from rooftrace.io.files import write_json
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, Split, SplitBy, SplitOptions, read_split, write_split
from rooftrace.predict.plan import SceneOptions

if TYPE_CHECKING:
    from rooftrace.models.start import StartModel
    from rooftrace.train.callbacks import Minutes
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.datamodule import TrainingData
    from rooftrace.train.loop import FitResult
    from rooftrace.train.tracking import Tracking

FOLD, _FOLDS, _FOLD_MINUTES = "fold", (2, 4), 2
"""Name of the folds of a cross-validation, their least and largest number, and the minutes for
each: a fold of a few steps shows nothing."""

VAL = 0.2
"""Default share of the images that is held out."""

LEAST_SCENES = 4
"""Minimum number of labelled images: one or more are held out, the others are trained on."""

LEAST_HELD_OUT = 10
"""Held-out images below which the models are compared by cross-validation."""


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
        images: Options with which images are read for the comparison.
        parts: Scenes of each part of the split file.
        trainings: One training, or one for each fold.
    """

    run: Path
    start: StartModel
    scenes: SceneSet
    images: SceneOptions
    config: TrainConfig
    parts: SceneParts
    trainings: tuple[Training, ...]

    @classmethod
    def open(
        cls, run: Path, start: StartModel, scenes: SceneSet, images: SceneOptions,
        config: TrainConfig, split: Path,
    ) -> TuningPlan:  # fmt: skip
        """Open the data of each training, and write the split file of each fold."""
        from rooftrace.train.datamodule import open_data
        from rooftrace.train.finetune import check_bands

        parts, folds = parts_of(scenes, split)
        trainings: list[Training] = []
        for number, held_out in enumerate(folds):
            folder = run / f"{FOLD}{number + 1}"
            others = sum((*folds[:number], *folds[number + 1 :]), ())
            path = folder / "split.json"
            fold_parts = {"train": others, "val": held_out}
            write_split(path, Split(parts=fold_parts, dropped=parts.dropped))
            fold = config.model_copy(
                update={
                    "data": config.data.model_copy(update={"split": str(path.absolute())}),
                    "stop": config.stop.model_copy(update={"patience": 0}),
                }
            )
            data = open_data(fold, Path(), [scenes])
            if trainings:
                # Those of the first fold are printed when it begins.
                known = trainings[0].data.notes
                data = replace(data, notes=tuple(one for one in data.notes if one not in known))
            trainings.append(Training(folder, fold, data, held_out))
        if not folds:
            data = open_data(config, Path(), [scenes])
            trainings = [Training(run, config, data, parts.ids("val"))]
        check_bands(trainings[0].data, start.bundle.spec)
        return cls(run, start, scenes, images, config, parts, tuple(trainings))

    def fitted(self, minutes: Minutes, overrides: Sequence[str]) -> TuningPlan:
        """Return the plan with as many epochs and samples as fit into the minutes."""
        from rooftrace.train.finetune import fit_to_seconds

        seconds = minutes.training_s(len(self.trainings))()
        spec, data = self.start.bundle.spec, self.trainings[0].data
        config = fit_to_seconds(self.config, spec, data, seconds, overrides, is_fold=self.has_folds)
        keys = "batch_size", "samples_per_epoch", "epochs", "schedule"
        length = {key: getattr(config, key) for key in keys}
        stop = {} if self.has_folds else {"stop": config.stop}
        trainings = tuple(
            one._replace(
                config=one.config.model_copy(update=length | stop),
                data=one.data.with_samples(config.samples_per_epoch),
            )
            for one in self.trainings
        )
        return replace(self, config=config, trainings=trainings)

    @property
    def has_folds(self) -> bool:
        """Return whether the models are compared by cross-validation."""
        return self.trainings[0].folder != self.run

    @property
    def held_out(self) -> SceneSet:
        """The scenes on which is chosen what is kept."""
        return self.scenes.subset(sum((one.held_out for one in self.trainings), ()))

    @property
    def is_small(self) -> bool:
        """Return whether too few scenes are held out to choose anything on them."""
        return len(self.held_out) < LEAST_FOR_VERDICT

    @property
    def whole_data(self) -> TrainingData:
        """The data on which the finished model was trained, which has seen those of all folds."""
        from rooftrace.train.datamodule import make_samples

        data = self.trainings[0].data
        if not self.has_folds:
            return data
        samples = make_samples(self.config, [self.held_out])
        return replace(data, train=(self.held_out,), samples=samples)

    @property
    def text(self) -> str:
        """Line that says how the images are divided."""
        if self.has_folds:
            folds = len(self.trainings)
            return f"{plural(len(self.held_out), 'image')}: {folds} folds, each held out once"
        train, val = (len(self.parts.parts.get(part, ())) for part in ("train", "val"))
        return f"{plural(train + val, 'image')}: {train} train, {val} held out"

    def train(
        self, minutes: Minutes, tracking: Tracking, *, resume: bool, console: Console | None
    ) -> list[FitResult]:
        """Train within the minutes; the result of each training."""
        from rooftrace.train.callbacks import Deadline, LastEpoch
        from rooftrace.train.checkpoint import last_checkpoint
        from rooftrace.train.loop import fit

        if self.has_folds and not resume:
            write_json(self.run / "config.json", self.config.relative_to(Path.cwd()))
        is_done = resume and (self.run / "best_iou.rooftrace").exists()
        has_begun = [resume and last_checkpoint(one.folder).exists() for one in self.trainings]
        results = []
        for number, one in enumerate(self.trainings):
            if self.has_folds:
                print_plain(console, f"fold {number + 1} of {len(self.trainings)}")
            is_complete = is_done or any(has_begun[number + 1 :])
            seconds = minutes.training_s(len(self.trainings) - number)
            results.append(
                fit(
                    one.config, one.folder, base=Path(), console=console, data=one.data,
                    callbacks=[tracking.callback(f"{FOLD}{number + 1}/" if self.has_folds else "")],
                    start=self.start, resume=has_begun[number] or (resume and not self.has_folds),
                    deadline=Deadline(minutes, (lambda: 0.0) if is_complete else seconds),
                    monitored=LastEpoch("val_iou", 1) if self.has_folds else None,
                )
            )  # fmt: skip
        return results


def divide(
    scenes: SceneSet, path: Path, *, val: float, unit: SplitBy, seed: int, building: str,
    minutes: float, own: Split | None = None,
) -> tuple[str, ...]:  # fmt: skip
    """Hold a part of the scenes out, or make folds of few; write the split file, return notes.

    Args:
        unit: Unit that is kept together.
        building: Name of the building class, for messages.
        minutes: Minutes of the fine-tuning, which limit the number of folds.
        own: Parts of the data itself to use instead, of which `test` is left alone. Without a
            building in `train` or `val`, their images are divided together.

    Raises:
        DataError: No building is labelled in one of the parts.
    """
    notes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    if own is not None:
        kept, left_alone = own.without_test()
        is_kept = "val" in kept.parts and all(
            map(_has_building, map(scenes.subset, kept.parts.values()))
        )
        of_parts = "val" if is_kept else f"a share of {' and '.join(kept.parts)}"
        notes = (
            own.own_note(
                scenes.name,
                f"{of_parts} is held out{left_alone}. --val {VAL:g} divides all images, whatever "
                "their part.",
            ),
        )
        if is_kept:
            write_split(path, kept)
            return notes
        scenes, dropped = scenes.subset(sum(kept.parts.values(), ())), kept.dropped
        check_count(scenes, f"{scenes.name} without its part test")
    fewest, most = _FOLDS
    folds = min(most, max(fewest, int(minutes / _FOLD_MINUTES)))
    count = folds if val * len(scenes) < LEAST_HELD_OUT else 1
    held_out: list[tuple[str, ...]] = []
    built, rest = [], scenes
    for left in range(min(count, len(scenes) - 1), 1, -1) if count > 1 else (1 / val,):
        try:
            # With few tiles, blocks leave no gap between them; they still do not overlap.
            gap_m = 0.0 if unit == "block" else None
            split = divide_scenes(rest, SplitOptions(val=1 / left, by=unit, gap_m=gap_m, seed=seed))
        except SplitError as error:
            # Of few groups or blocks, there are fewer folds.
            if held_out:
                break
            # The remedies are those of rooftrace split.
            remedy = (
                "Label images of other ground: those that show the same count as one."
                if unit == "image"
                else "Divide by image with --by image; or make a split file with rooftrace split "
                f"--by {unit}, which has more options, and give it with --split FILE."
            )
            raise DataError(error.message, remedy=remedy) from error
        notes += split.notes
        dropped += split.dropped
        held_out.append(split.parts["val"])
        built.append(split.built_up.get("val", 0.0))
        rest = rest.subset(split.parts["train"])
    held_out.append(rest.ids)
    built.append(split.built_up.get("train", 0.0))
    if sum(one > 0 for one in built) < 2:
        count = len(held_out[built.index(0)])
        raise DataError(
            f"{scenes.name}: no pixel is labelled as {building} in {plural(count, 'image')} that "
            "would be held out or trained on.",
            remedy="Check the labels with rooftrace inspect; or divide the images yourself, "
            "with buildings in each part: --split FILE.",
        )
    names = [f"{FOLD}{number}" for number in range(1, len(held_out) + 1)]
    parts = dict(zip(names if count > 1 else ("val", "train"), held_out))
    update = {"parts": parts, "dropped": dropped, "built_up": {}}
    write_split(path, split.model_copy(update=update))
    return tuple(dict.fromkeys(notes))


def _has_building(scenes: SceneSet) -> bool:
    """Return whether a label of a set has a building; reading ends at the first."""
    return any(
        scene.label is not None
        and built_up_of(scene.label, scene.image.grid.shape, scenes.building_class)
        for scene in scenes
    )


def check_count(scenes: SceneSet, name: str) -> None:
    """Raise DataError if data, called `name` in the message, have too few labelled images."""
    if len(scenes) < LEAST_SCENES:
        raise DataError(
            f"{name} has {plural(len(scenes), 'labelled image')}; expected at least "
            f"{LEAST_SCENES}, since some are held out to compare the models.",
            remedy="Label more images; cut a large one into tiles with --set chip_px=512.",
        )


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
