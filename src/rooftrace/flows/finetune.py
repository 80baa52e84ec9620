"""`rooftrace finetune`: a model of one's own from a start model and a few labelled images.

`run_finetune` is the whole road: check the data, hold a part out, train within the minutes, and
compare the tuned model with the start model on the part that was held out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rooftrace.audit.checks import swapped_or_missing
from rooftrace.core.config import parse_config
from rooftrace.core.errors import (
    ConfigError,
    DataError,
    GeoreferenceError,
    LabelError,
    MissingExtraError,
)
from rooftrace.core.text import minutes_text, plural, print_plain, reason_of
from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.evaluate.leakage import check_leakage
from rooftrace.flows.evaluate.predictions import of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels, write_evaluation
from rooftrace.flows.labelled_predictions import LabelledSets, labels_for, select_part
from rooftrace.flows.split import divide_scenes
from rooftrace.flows.threshold import choose_threshold
from rooftrace.flows.train import TrainReport, export_run, locked_run
from rooftrace.io.files import write_json
from rooftrace.labels.config import LabelConfig, SourceConfig, absolute_text
from rooftrace.labels.kinds import cut_into_chips, open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, SplitBy, read_split, write_split
from rooftrace.metrics.resampling import Interval, PairedTest
from rooftrace.models.bundle import BUNDLED_MODELS, ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.model_set import ModelSet, read_models
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

Verdict = Literal["better", "no different", "worse"]
"""Comparison of the tuned model with the start model, see `FinetuneReport.verdict`."""

LEAST_SCENES = 4
"""Minimum number of labelled images: one or more are held out, the others are trained on."""

_LEAST_FOR_BLOCKS = 12
"""Minimum number of georeferenced images that are divided by block of ground."""

_LATE_SHARE = 0.25
"""Share of the epochs at the end of a run; if the best one is among them, a longer run may help."""

LEAST_FOR_VERDICT = 6
"""Minimum number of held-out images for a verdict to rely on.

With fewer, a sign test finds no difference at 5 %, even if all images have the same sign: 2 / 2^5.
"""

_JUDGED, _JUDGED_PX = 6, 1024
"""Maximum number of parts of scenes on which inverted labels are looked for, and their side."""

_DENSE, _LEAST_INVERSE = 0.3, 0.3
"""Built-up share from which labels may be inverted, and the IoU of a model with their inverse."""

_FIGURES = (
    ("IoU", "pixel", "iou"),
    ("precision", "pixel", "precision"),
    ("recall", "pixel", "recall"),
    ("F1 of buildings", "objects", "f1"),
    ("expected calibration error", "calibration", "ece"),
)
"""Figures of the comparison: name, and the keys under which a report has it."""


@dataclass(frozen=True)
class FinetuneReport:
    """Result of a fine-tuning run.

    Args:
        trained: Result of the training.
        evaluation: Tuned model and start model on the scenes that were held out; the tuned model is
            the first.
        split: `FILE:PART` of these scenes.
        page: Report with pictures.
        notes: Notes on how the data was divided, and on held-out images that show ground on which
            one of the models was trained.
    """

    trained: TrainReport
    evaluation: Evaluation
    split: str
    page: Path
    notes: tuple[str, ...] = ()

    @property
    def bundle(self) -> Path:
        """The tuned model."""
        return self.trained.best["best_iou"][2]

    @cached_property
    def tests(self) -> dict[str, PairedTest]:
        """Paired comparison of each figure; a difference is positive where the tuned model is
        better.
        """
        return self.evaluation.comparisons[0].figures

    @property
    def buildings(self) -> PairedTest | None:
        """Paired comparison of F1 of buildings; None with more than two classes."""
        return self.tests.get("objects.f1")

    @property
    def verdict(self) -> Verdict:
        """Result of the comparison of IoU and F1 of buildings.

        A difference is clear if 0 lies outside of its 95 % interval. The tuned model is better if
        one of the two is clearly better and none clearly worse, and worse in the opposite case.
        """
        judged = self.tests[self.evaluation.headline], self.buildings
        signs = {_sign(test.difference) for test in judged if test is not None}
        if 1 in signs and -1 not in signs:
            return "better"
        return "worse" if -1 in signs and 1 not in signs else "no different"

    @property
    def figures(self) -> dict[str, tuple[float | None, float | None]]:
        """Figures of the start model and of the tuned model; None where one is not defined."""
        tuned, base = (report.to_json() for report in self.evaluation.reports)

        def value(report: dict[str, Any], group: str, key: str) -> float | None:
            return (report[group] or {}).get(key)

        return {
            name: (value(base, group, key), value(tuned, group, key))
            for name, group, key in _FIGURES
        }

    @property
    def limits(self) -> dict[str, str]:
        """95 % intervals of the tuned model as text, by the names of `figures` that have one."""
        known = self.evaluation.first.intervals
        named = {name: known.get(f"{group}.{key}") for name, group, key in _FIGURES}
        return {
            name: f"{one.low:.3f} … {one.high:.3f}"
            for name, one in named.items()
            if one is not None and one.is_known
        }

    @property
    def advice(self) -> tuple[str, ...]:
        """Sentences on what would help, where the tuned model is not clearly better."""
        test = self.tests[self.evaluation.headline]
        gap, advice = test.difference, []
        if self.verdict != "no different" and test.scenes < LEAST_FOR_VERDICT:
            advice.append(
                f"This verdict is from {plural(test.scenes, 'image')} only: do not rely on it with "
                f"fewer than {LEAST_FOR_VERDICT}. Label more, or raise --val."
            )
        if self.verdict == "better":
            return tuple(advice)
        iou_sign, buildings = _sign(gap), self.buildings
        if buildings is not None and _sign(buildings.difference) < 0:
            advice.append(
                f"Fewer buildings are found one by one: F1 falls from {buildings.second:.3f} to "
                f"{buildings.first:.3f}. Look in the report for neighbours that are joined."
            )
        if not iou_sign and gap.is_known and gap.value > 0:
            # The side of the interval that reaches 0 decides; the other may be much shorter.
            reach = gap.value - gap.low
            needed = math.ceil(test.scenes * (reach / gap.value) ** 2)
            advice.append(
                f"The difference may be due to the choice of {plural(test.scenes, 'scene')}: with "
                f"about {needed} held-out scenes, a difference of this size would be clear."
            )
        elif not gap.is_known:
            advice.append(f"There is no interval of the difference: {gap.reason}.")
        advice.append(
            "Label more tiles, above all of the kinds in which the pictures of the report show "
            "errors; check the labels with rooftrace inspect."
        )
        best, epochs = self.trained.best["best_iou"][0], self.trained.epochs
        is_late = best > (1 - _LATE_SHARE) * epochs
        advice.append(
            f"The best epoch was {best} of {epochs}: more --minutes "
            f"{'may help' if is_late else 'are unlikely to help'}."
        )
        if self.verdict == "worse":
            advice.append("Keep the start model, or lower the rates: --config optimizer.lr=1e-4.")
        return tuple(advice)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            **self.trained.to_json(),
            "verdict": self.verdict,
            "held_out": self.split,
            "scenes": self.tests[self.evaluation.headline].scenes,
            "figures": {
                name: {"start": base, "tuned": tuned}
                for name, (base, tuned) in self.figures.items()
            },
            "intervals": {
                name: {key: one.to_json() for key, one in report.intervals.items()}
                for name, report in zip(("tuned", "start"), self.evaluation.reports)
            },
            "differences": {name: test.to_json() for name, test in self.tests.items()},
            "report": str(self.page),
            "advice": list(self.advice),
            "notes": list(self.notes),
        }


def _sign(gap: Interval) -> int:
    """Return 1 or -1 if a difference is clearly above or below 0, and otherwise 0."""
    return 0 if not gap.is_known else int(gap.low > 0) - int(gap.high < 0)


def run_finetune(
    data: SourceConfig,
    run: Path,
    *,
    model: str = "default",
    minutes: float = 10.0,
    val: float = 0.2,
    by: SplitBy | None = None,
    split: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    resume: bool = False,
    images: SceneOptions = AS_FOUND,
    console: Console | None = None,
) -> FinetuneReport:
    """Train a start model on labelled images, and compare both on images that were held out.

    The folder of the run is that of `rooftrace train`, with `split.json`, `verdict.json` and
    `comparison/report.html`.

    Args:
        data: Labelled data.
        run: Folder of the run.
        model: Model to start from, see `models.start.read_start`.
        minutes: Limit of the training in minutes, with its validation.
        val: Share of the scenes that is held out.
        by: Unit that is kept together; default blocks of ground where all images have a
            georeference, else groups where there are enough, else images.
        split: Split file with the parts `train` and `val`; default: a split is made. If it has a
            part `test`, the models are compared there.
        overrides: `key.path=value` settings of the training configuration.
        seed: Seed of the split and of all random draws.
        resume: Continue the run that is in the folder, with its settings.
        images: Bands, stretch and scale with which images are read for the comparison.
        console: Console for progress; None prints nothing.

    Raises:
        MissingExtraError: PyTorch or a package that comes with it is not installed.
        ConfigError: The start model cannot be used, its classes are others, or a setting is wrong.
        DataError: There are too few labelled images.
        LabelError: Labels show no building, or building nearly everywhere (swapped classes).
        ConfigError, DataError, ExportError: See `train.loop` and `train.export_bundle`.
    """
    try:
        from rooftrace.models.start import read_start
        from rooftrace.train.datamodule import open_data
        from rooftrace.train.finetune import finetune_config, fit_to_minutes
        from rooftrace.train.loop import fit
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace finetune", error.name or "torch") from error

    base = Path.cwd()
    model, data = _placed(model), data.absolute()
    start = read_start(model)
    spec = start.bundle.spec
    labels = labels_for(data, start.bundle)
    data = data.model_copy(update={"labels": None})
    scenes = _open(data, labels)
    notes: tuple[str, ...] = ()
    if spec.gsd_m is not None and all(scene.gsd_m is None for scene in scenes):
        note = (
            f"No image states its metres per pixel: {spec.gsd_m:g} is assumed, as of the start "
            "model. If that is wrong, state them with --gsd."
        )
        notes = (note,)
        data = data.model_copy(update={"gsd_m": spec.gsd_m})
        scenes = _open(data, labels)
    has_crs = _open_images(scenes, needs_metres=spec.gsd_m is not None)
    if not resume:
        _check_labels(scenes)
        if spec.is_binary:
            check_inverse(scenes, start.bundle, images)
    part_file = run / "split.json" if split is None else split
    if resume:
        config = _recorded(run, data, model)
    else:
        _check_new(run)
    with locked_run(run):
        if not resume and split is None:
            notes += _divide(
                scenes, part_file, val=val, unit=by or _unit(scenes, has_crs=has_crs), seed=seed,
                building=labels.building,
            )  # fmt: skip
        try:
            if not resume:
                parts = _parts(scenes, part_file)
                config = finetune_config(
                    model, start, data, scenes.subset(parts.ids("train")), labels,
                    part_file.absolute(), minutes=minutes, seed=seed, overrides=overrides,
                )  # fmt: skip
            # A setting may name another split: what is trained on is not compared on.
            parts = _parts(scenes, Path(config.data.split or part_file))
            opened = open_data(config, base, [scenes])
            if not resume:
                config = fit_to_minutes(config, spec, opened, overrides)
                opened = opened.with_samples(config.samples_per_epoch)
                print_plain(console, _plan(config))
        except BaseException:
            # A run that fails before it begins leaves no folder.
            if not resume and split is None:
                part_file.unlink(missing_ok=True)
            raise
        result = fit(
            config, run, base=base, resume=resume, console=console, data=opened, start=start
        )
        choose = None
        if spec.is_binary:
            choose = partial(
                _choose_threshold, scenes.subset(parts.ids("val")), run, spec, images, console
            )
        trained = export_run(
            config.without_home(base), result, run, resume=resume, console=console,
            names=("best_iou",), choose=choose,
        )  # fmt: skip
        tuned = read_models(trained.best["best_iou"][2]).ready()
        before = ModelSet((start.bundle,)).ready()
        report = _compare(
            trained, (tuned, before), data, scenes, parts, run, images, notes, console
        )
        write_json(run / "verdict.json", report.to_json())
    return report


def _choose_threshold(
    scenes: SceneSet, run: Path, start: BundleSpec, images: SceneOptions, console: Console | None,
    bundle: ModelBundle,
) -> dict[str, Any]:  # fmt: skip
    """Choose the threshold of the tuned model on whole images that were held out.

    With too few images for a verdict, it stays that of the start model.
    """
    few = len(scenes) < LEAST_FOR_VERDICT
    chosen, update = choose_threshold(
        ModelSet((bundle,)).ready(), LabelledSets([scenes], "val", images), run,
        fallback=start if few else None,
    )  # fmt: skip
    reason = "that of the start model" if few else "on whole images"
    for note in (f"threshold {chosen.after:.3f}, {reason}", *chosen.notes):
        print_plain(console, note)
    return update


def _compare(
    trained: TrainReport, models: tuple[Predictor, Predictor], data: SourceConfig,
    scenes: SceneSet, parts: SceneParts, run: Path, images: SceneOptions, notes: tuple[str, ...],
    console: Console | None,
) -> FinetuneReport:  # fmt: skip
    """Compare the tuned model with the start model, on images that neither was trained on."""
    folder = run / "comparison"
    split = f"{parts.path}:{'test' if parts.parts.get('test') else 'val'}"
    print_plain(console, f"comparing with the start model on {split}")
    held_out = select_part(scenes, split, data.path)
    options = EvalOptions(split=split, images=images)
    predictions = [of_model(one, images=images) for one in models]
    reports = compare_with_labels(
        predictions, held_out, options,
        context={
            "data": data.path, "part": data.part, "split": split,
            "min_area_m2": options.min_area_m2, "cell_m": options.cell_m,
        },
    )  # fmt: skip
    leaks = check_leakage([one.bundle for one in models], held_out)
    evaluation = Evaluation(tuple(reports), leaks, baseline=1)
    write_evaluation(evaluation, predictions, held_out, folder)
    return FinetuneReport(
        trained, evaluation, split, folder / "report.html", notes=(*notes, *evaluation.warnings)
    )


def _open(data: SourceConfig, labels: LabelConfig) -> SceneSet:
    scenes = open_labelled(data, labels)
    if len(scenes) < LEAST_SCENES:
        raise DataError(
            f"{data.path} has {plural(len(scenes), 'labelled image')}; expected at least "
            f"{LEAST_SCENES}, since some are held out to compare the models.",
            remedy="Label more images; cut a large one into tiles with --set chip_px=512.",
        )
    return scenes


def _open_images(scenes: SceneSet, *, needs_metres: bool) -> bool:
    """Open each image once, and return whether all have a coordinate system.

    Raises:
        GeoreferenceError: Metres per pixel are needed, and those of an image are not known.
    """
    has_crs = True
    for scene in scenes:
        has_crs = has_crs and scene.image.grid.crs is not None
        if needs_metres and scene.gsd_m is None:
            raise GeoreferenceError(
                f"The metres per pixel of {scene.image.name} are needed, but it has no "
                "georeference.",
                remedy="State them, such as --gsd 0.3.",
            )
    return has_crs


def _check_labels(scenes: SceneSet) -> None:
    """Raise LabelError if labels show no building, or are building nearly everywhere."""
    finding = swapped_or_missing(scenes)
    if finding is not None:
        raise LabelError(
            f"{scenes.name}: {finding.title}. {finding.detail}".rstrip(),
            remedy=f"{finding.remedy} Values of [labels] are given by --set, such as --set "
            "labels.values.building=0. If the labels are right, use rooftrace train.",
        )


def check_inverse(scenes: SceneSet, start: ModelBundle, images: SceneOptions) -> None:
    """Raise LabelError if the start model agrees with the inverse of labels of a dense place."""
    few = scenes.subset(scenes.ids[:: -(-len(scenes) // _JUDGED)])
    chips = cut_into_chips(few, _JUDGED_PX)
    chips = chips.subset(chips.ids[:: -(-len(chips) // _JUDGED)])
    drawn = [(scene, scene.label.read()) for scene in chips if scene.label is not None]
    built = sum(int((label.data[label.valid] == 1).sum()) for _, label in drawn)
    if built < _DENSE * sum(int(label.valid.sum()) for _, label in drawn):
        return
    predict = of_model(ModelSet((start,)).ready(), images=images, pixels_only=True).predict
    count: NDArray[np.int64] = np.zeros(4, np.int64)
    for scene, label in drawn:
        found = predict(scene).mask
        known = label.valid & found.valid
        count += np.bincount(2 * (label.data[known] == 1) + (found.data[known] == 1), minlength=4)
    neither, only_model, only_labels, both = count.tolist()
    iou = both / max(only_model + only_labels + both, 1)
    inverse = only_model / max(neither + only_model + both, 1)
    if inverse > max(_LEAST_INVERSE, 3 * iou):
        raise LabelError(
            f"{scenes.name}: {start.spec.name} agrees with the inverse of the labels (IoU "
            f"{inverse:.2f}), not with the labels (IoU {iou:.2f}): building and background seem "
            "swapped.",
            remedy="Look at some labels. If they are swapped: --set labels.values.building=0 "
            "--set labels.values.background=255. If they are right, use rooftrace train.",
        )


def _check_new(run: Path) -> None:
    if (run / "checkpoints" / "last.ckpt").exists():
        raise ConfigError(
            f"{run} already holds a run.",
            remedy="Add --resume to continue it, or choose another folder.",
        )


def _divide(
    scenes: SceneSet, path: Path, *, val: float, unit: SplitBy, seed: int, building: str
) -> tuple[str, ...]:
    """Hold a part of the scenes out, write the split file, and return notes.

    Raises:
        DataError: No building is labelled in one of the parts.
    """
    # With few tiles, blocks leave no gap between them; they still do not overlap.
    split = divide_scenes(
        scenes, val=val, test=0.0, by=unit, gap_m=0.0 if unit == "block" else None, seed=seed
    )
    for part, purpose in (("train", "train on"), ("val", "compare the models on")):
        if not split.built_up.get(part, 0.0) > 0:
            raise DataError(
                f"{scenes.name}: no pixel is labelled as {building} in the "
                f"{plural(len(split.parts[part]), 'image')} to {purpose}.",
                remedy="Check the labels with rooftrace inspect; or divide the images yourself, "
                "with buildings in each part: --split FILE.",
            )
    write_split(path, split)
    return split.notes


def _parts(scenes: SceneSet, path: Path) -> SceneParts:
    """Return the scenes by the parts of a split file.

    Raises:
        ConfigError, DataError: See `labels.split.Split.match` and `SceneParts.ids`; or no scene to
            train on has a label.
    """
    parts = read_split(path).match(scenes.all_ids, path=path.absolute())
    if not len(scenes.subset(parts.ids("train"))):
        raise DataError(
            f"No image in the part 'train' of {path} has a label.",
            remedy="Name labelled images there, or leave --split out to have a part held out.",
        )
    return parts


def _unit(scenes: SceneSet, *, has_crs: bool) -> SplitBy:
    """Return the unit that is kept together, by what is known of the scenes."""
    if has_crs and len(scenes) >= _LEAST_FOR_BLOCKS:
        return "block"
    groups = {entry.group for entry in scenes.entries}
    return "group" if len(groups) >= LEAST_SCENES else "image"


def _recorded(run: Path, data: SourceConfig, model: str) -> TrainConfig:
    """Return the configuration of a run to resume.

    Raises:
        ConfigError: There is nothing to resume; or the run has other data or another start model.
    """
    from rooftrace.train.config import TrainConfig

    path = run / "config.json"
    try:
        raw = json.loads(path.read_bytes())
        raw.pop("base", None)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"There is nothing to resume in {run}: {path} cannot be read ({reason_of(error)}).",
            remedy="Start without --resume; the first checkpoint is written after an epoch.",
        ) from error
    config = parse_config(raw, TrainConfig, source=str(path))
    (began,) = config.data.train
    changed = {
        name: (before, now)
        for name, before, now in (
            ("model", _placed(config.model.start or ""), model),
            *((name, was, getattr(data, name)) for name, was in began.absolute()),
        )
        if now != before
    }
    if changed:
        name, (before, now) = next(iter(changed.items()))
        raise ConfigError(
            f"The run in {run} began with {name} {before}; {now} was given.",
            remedy="Resume with the DATA, its options and the model that the run began with.",
        )
    return config


def _placed(model: str) -> str:
    """Return the name of a bundled model, or the absolute path of another one."""
    return model if model in BUNDLED_MODELS else absolute_text(model)


def _plan(config: TrainConfig) -> str:
    assert config.stop.minutes is not None
    return (
        f"up to {plural(config.epochs, 'epoch')} of {config.samples_per_epoch} samples of "
        f"{config.crop_px} px within {minutes_text(config.stop.minutes)}"
    )
