"""Replay against forgetting: images of other places on which fine-tuning keeps the predictions of
the start model.

Its own masks of these images are the targets of a share of the training samples. That needs no
label, and the model forgets less of what it could do elsewhere (Li & Hoiem 2016, "Learning without
Forgetting"). Some of the images are not trained on, and show afterwards what was forgotten.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import (
    ConfigError,
    DataError,
    GeoreferenceError,
    LayoutError,
)
from rooftrace.core.text import plural, reason_of
from rooftrace.core.types import Scene
from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.evaluate.predictions import of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import select_part
from rooftrace.flows.split import run_split
from rooftrace.io.files import write_json
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.folders import FOLDER
from rooftrace.labels.kinds import open_source
from rooftrace.labels.source import MaskLabel, SceneEntry, SceneSet, WriteOptions
from rooftrace.labels.split import SplitBy, write_split
from rooftrace.metrics.report import EvalReport
from rooftrace.metrics.resampling import Interval, PairedTest
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor

REPLAY_SHARE = 0.25
"""Share of the training samples that come from replay images."""

_HELD_OUT = 0.2
"""Share of the replay images that are not trained on."""

_LEAST_IMAGES, _MOST_IMAGES = 5, 100
"""Limits of the number of replay images; of more images as many are drawn at random."""

_CHIP = r"@\d+_\d+$"
"""End of the id of a chip, after the id of its image."""

_CHIP_PX = 512
"""Side in pixels of the squares into which larger images are cut."""


@dataclass(frozen=True)
class ReplaySet:
    """Replay images with the answers of the start model, in the folder of a run.

    Args:
        given: Images as the user named them, cut into chips.
        folder: Folder with `train/` and `held_out/`, which are labelled data, with `split.json`,
            which has the ids of the images, and `source.json`, which has `given`.
    """

    given: SourceConfig
    folder: Path

    @classmethod
    def of(cls, given: SourceConfig, run: Path) -> ReplaySet:
        """Return the set of a run, which need not exist yet."""
        chips = given if given.chip_px else given.model_copy(update={"chip_px": _CHIP_PX})
        return cls(chips.absolute(), (run / "replay").absolute())

    @property
    def train(self) -> SourceConfig:
        """Images to train on, with the share of the samples."""
        return SourceConfig(path=str(self.folder / "train"), name="replay", share=REPLAY_SHARE)

    @property
    def held_out(self) -> SourceConfig:
        """Images that are not trained on."""
        return SourceConfig(path=str(self.folder / "held_out"), name="replay")

    def check_recorded(self, labels: LabelConfig) -> None:
        """Check that the folder was made from these images, and that they are still there.

        Raises:
            ConfigError: It was made from other images.
            DataError: There are no images.
        """
        path = self.folder / "source.json"
        try:
            same = json.loads(path.read_bytes()) == self.record
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The replay images of the run cannot be resumed: {path} cannot be read "
                f"({reason_of(error)}).",
                remedy="Start a new run in another folder.",
            ) from error
        if not same:
            raise ConfigError(
                f"The replay images of the run in {self.folder.parent} are not those given.",
                remedy="Resume with the --replay and its settings that the run began with.",
            )
        open_source(self.given, labels)

    @property
    def record(self) -> dict[str, Any]:
        """Content of `source.json`."""
        return self.given.model_dump(mode="json")


def prepare_replay(
    replay: ReplaySet, labels: LabelConfig, start: Predictor, *, seed: int
) -> tuple[str, ...]:
    """Predict the replay images with the start model, and write them as labelled data.

    A fifth of the images is held out: whole folders where there are five or more, else single
    images, with all chips and near-duplicates of an image. Labels of the images are not used.

    Args:
        replay: Images, and the folder to write, which is replaced if it exists.
        labels: Meaning of labels.
        start: The start model.
        seed: Seed of the division and of the choice among many images.

    Returns:
        Notes for the user.

    Raises:
        LayoutError, DataError: There are no or too few images; their metres per pixel differ and
            are not those of georeferences; or an image or a label of those that are held out cannot
            be read.
        GeoreferenceError: The metres per pixel of an image are needed and not known.
        BandMismatch, GsdMismatch, PredictError: The start model cannot predict an image.
        ExportError: The folder cannot be written.
    """
    try:
        source = open_source(replay.given, labels)
    except LayoutError as error:
        raise LayoutError(
            f"The images to replay cannot be read. {error.message}",
            remedy="Give a folder of images of other places, or leave out --replay.",
        ) from error
    notes = list(source.notes)
    if source.entries and source.unlabelled:
        notes.append(
            f"{plural(len(source.unlabelled), 'replay image')} without a label not used, since "
            "others have one."
        )
    images = source if source.entries else source.only_unlabelled()
    if len(images) < _LEAST_IMAGES:
        raise DataError(
            f"{replay.given.path} has {plural(len(images), 'image')} to replay; expected at least "
            f"{_LEAST_IMAGES}, since some are held out.",
            remedy="Give a folder with more images of other places, or leave out --replay.",
        )
    shutil.rmtree(replay.folder, ignore_errors=True)
    replay.folder.mkdir(parents=True)
    split_file = replay.folder / "split.json"
    by, pattern = _unit(images, notes)
    split = run_split(
        replay.given.model_copy(update={"labels": labels.model_copy(update={"colours": None})}),
        split_file, val=_HELD_OUT, test=0.0, stratify=False, seed=seed,
        by=by, group_pattern=pattern,
    )  # fmt: skip
    parts = _limited(split.parts, seed)
    if (used := sum(map(len, parts.values()))) < len(images):
        notes.append(f"replay: {used} of {len(images)} images (or chips of them) are used.")
    write_split(split_file, split.model_copy(update={"parts": parts}))
    if start.bundle.spec.gsd_m is not None:
        _check_scale(images.subset([*parts["train"], *parts["val"]]), replay.given.path)
    # A label that cannot be read is an error now, and not in the comparison after the training.
    for scene in images.subset(parts["val"]):
        if scene.label is not None:
            scene.label.read()
    answered = replace(images, open_scene=_PredictedLabels(images.open_scene, start))
    for part, name in (("train", "train"), ("val", "held_out")):
        assert FOLDER.write is not None
        FOLDER.write(answered.subset(parts[part]), replay.folder / name, WriteOptions(), None)
    write_json(replay.folder / "source.json", replay.record)
    return tuple(notes)


def _check_scale(images: SceneSet, path: str) -> None:
    """Check that the folder of the answers can hold the metres per pixel of its images.

    Raises:
        DataError: Several values were given, and a folder has one for all of its images.
    """
    stated = {scene.stated_gsd_m for scene in images if scene.gsd_m is not None}
    if len(stated) > 1:
        listed = ", ".join(f"{value:g}" for value in sorted(filter(None, stated)))
        others = " and those of georeferences" if None in stated else ""
        raise DataError(
            f"The replay images of {path} have different metres per pixel, which their labels "
            f"state: {listed}{others}. One value is expected for all.",
            remedy="Replay only the images of one value, or leave out --replay.",
        )


def _unit(images: SceneSet, notes: list[str]) -> tuple[SplitBy, str | None]:
    """Return the unit that stays in one part, and the pattern of its name in an id."""
    if len({entry.group for entry in images.entries}) >= _LEAST_IMAGES:
        return "group", None
    if len({re.sub(_CHIP, "", name) for name in images.ids}) > 1:
        # All chips of an image show one ground.
        return "group", f"^(.+?)(?:{_CHIP})?$"
    notes.append(
        "The replay images are chips of one image, so those that are held out are beside others "
        "that are trained on."
    )
    return "image", None


def _limited(parts: dict[str, tuple[str, ...]], seed: int) -> dict[str, tuple[str, ...]]:
    """Return as many ids of each part as are used, drawn at random."""
    limits = {"train": 1 - _HELD_OUT, "val": _HELD_OUT}
    rng = np.random.default_rng(seed)
    chosen = {}
    for part, share in limits.items():
        drawn = rng.permutation(parts[part])[: round(_MOST_IMAGES * share)]
        chosen[part] = tuple(sorted(drawn.tolist()))
    return chosen


@dataclass(frozen=True)
class _PredictedLabels:
    """Opens scenes with the mask of a model in place of their label."""

    open_scene: Callable[[SceneEntry], Scene]
    model: Predictor

    def __call__(self, entry: SceneEntry) -> Scene:
        scene = self.open_scene(entry)
        if scene.gsd_m is None and self.model.bundle.spec.gsd_m is not None:
            raise GeoreferenceError(
                f"The metres per pixel of the replay image {scene.image.name} are needed, but it "
                "has no CRS.",
                remedy="Give them, such as --replay-set gsd_m=0.5.",
            )
        mask, _ = self.model.predict_mask(scene.image, gsd_m=scene.stated_gsd_m)
        return replace(scene, label=MaskLabel(mask))


@dataclass(frozen=True)
class ReplayReport:
    """Comparison of a tuned model with its start model on replay images that are held out.

    Args:
        data: Path of the replay images.
        agreed: Comparison of the tuned model with the masks of the start model.
        labelled: Tuned model and start model on the labels of the images; None without labels.
    """

    data: str
    agreed: EvalReport
    labelled: Evaluation | None

    @property
    def agreement(self) -> Interval:
        """IoU of the tuned model's masks and the start model's, with its 95 % interval."""
        return self.agreed.intervals["pixel.iou"]

    @property
    def iou(self) -> PairedTest | None:
        """IoU of the tuned and the start model with the labels; None without labels."""
        if self.labelled is None:
            return None
        return self.labelled.comparisons[0].figures[self.labelled.headline]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "data": self.data,
            "images": len(self.agreed.images),
            "agreement": self.agreement.to_json(),
            "iou": None if self.iou is None else self.iou.to_json(),
        }


def compare_on_replay(
    replay: ReplaySet,
    labels: LabelConfig,
    tuned: Predictor,
    start: Predictor,
    images: SceneOptions = AS_FOUND,
) -> ReplayReport:
    """Compare both models on the replay images that were held out.

    Args:
        replay: The replay images of the run.
        labels: Meaning of labels.
        tuned, start: The models.
        images: Bands, stretch and scale with which images are read.

    Raises:
        DataError: An image or a label cannot be read.
    """
    options = EvalOptions(pixels_only=True, images=images)

    def compare(models: list[Predictor], scenes: SceneSet) -> list[EvalReport]:
        sources = [of_model(one, pixels_only=True, images=images) for one in models]
        return compare_with_labels(sources, scenes, options)

    (agreed,) = compare([tuned], open_source(replay.held_out, labels))
    given = open_source(replay.given, labels)
    labelled = None
    if given.entries:
        held_out = select_part(given, f"{replay.folder / 'split.json'}:val", replay.given.path)
        labelled = Evaluation(tuple(compare([tuned, start], held_out)), baseline=1)
    return ReplayReport(replay.given.path, agreed, labelled)
