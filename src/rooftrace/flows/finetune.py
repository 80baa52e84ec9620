"""`rooftrace finetune`: a model of one's own from a start model and a few labelled images.

`run_finetune` is the whole road: check the data, hold a part out, train within the minutes, and
compare the tuned model with the start model on the part that was held out.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from shutil import rmtree
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
from rooftrace.flows.evaluate.leakage import LeakageReport, check_leakage
from rooftrace.flows.evaluate.predictions import Predictions, of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels, write_evaluation
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    labels_for,
    predict_folds,
    select_part,
)
from rooftrace.flows.split import divide_scenes
from rooftrace.flows.threshold import ThresholdReport, choose_threshold
from rooftrace.flows.train import TrainReport, export_run, locked_run
from rooftrace.io.files import write_json
from rooftrace.labels.config import LabelConfig, SourceConfig, absolute_text
from rooftrace.labels.kinds import cut_into_chips, open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SceneParts, Split, SplitBy, read_split, write_split
from rooftrace.metrics.resampling import Interval, PairedTest
from rooftrace.models.bundle import BUNDLED_MODELS, WEIGHTS_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.model_set import ModelSet, read_models
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
    from rooftrace.models.start import StartModel
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.export_bundle import ChooseThreshold
    from rooftrace.train.loop import FitResult

Verdict = Literal["better", "no different", "worse", "cannot tell"]
"""Comparison of the tuned model with the start model, see `FinetuneReport.verdict`."""

LEAST_SCENES = 4
"""Minimum number of labelled images: one or more are held out, the others are trained on."""

_LEAST_FOR_BLOCKS = 12
"""Minimum number of georeferenced images that are divided by block of ground."""

_FOLD, _FOLDS = "fold", 4
"""Name and number of the folds of ground of a cross-validation."""

LEAST_HELD_OUT = 10
"""Held-out images below which the models are compared by cross-validation instead: each image is
predicted by a model that was not trained on it, and the finished model is the mean of all."""

_SHARES = (0.0, 0.5, 1.0)
"""Shares of the training in a model of few tiles, of which the best is taken."""

_LEAKED = 0.1
"""Share of the compared images, on ground that a model was trained on, that spoils a verdict."""

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
        folds: Number of folds of a cross-validation; 0 if one part was held out.
        share: Share of the training that counts in the weights of the model.
    """

    trained: TrainReport
    evaluation: Evaluation
    split: str
    page: Path
    notes: tuple[str, ...] = ()
    folds: int = 0
    share: float = 1.0

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
        one of the two is clearly better and none clearly worse, and worse in the opposite case. On
        ground that the start model was trained on, nobody can tell.
        """
        if any(len(leak.scenes) > _LEAKED * leak.checked for leak in self.evaluation.leaks):
            return "cannot tell"
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
        if self.verdict == "cannot tell":
            reason = (
                "The start model was trained on this ground, so it looks better than it is "
                "elsewhere: compare the models on images of another place, with --split FILE that "
                "names them as test."
            )
            return (reason,)
        if self.share == 0:
            advice.append(
                "No share of the training was better on images that were held out: the model keeps "
                "the weights of the start model, with a threshold for this place."
            )
        buildings = self.buildings
        if buildings is not None and _sign(buildings.difference) < 0:
            advice.append(
                f"Fewer buildings are found one by one: F1 falls from {buildings.second:.3f} to "
                f"{buildings.first:.3f}. Look in the report for neighbours that are joined."
            )
        if not gap.is_known:
            advice.append(f"There is no interval of the difference: {gap.reason}.")
        advice.append(
            "Label more tiles, above all of the kinds in which the pictures of the report show "
            "errors; check the labels with rooftrace inspect."
        )
        best, epochs = self.trained.best["best_iou"][0], self.trained.epochs
        if not self.folds:
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
            "share": self.share,
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
        minutes: Limit in minutes, to the verdict.
        val: Share of the scenes that is held out; of fewer than `LEAST_HELD_OUT` scenes folds are
            made instead.
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
        from safetensors.torch import load

        from rooftrace.models.start import read_start
        from rooftrace.train.callbacks import LastEpoch
        from rooftrace.train.checkpoint import last_checkpoint
        from rooftrace.train.datamodule import open_data
        from rooftrace.train.finetune import average_results, finetune_config, fit_to_minutes
        from rooftrace.train.loop import fit
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace finetune", error.name or "torch") from error

    began, base = time.monotonic(), Path.cwd()
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
                parts, folds = _parts(scenes, part_file)
                trained_on = parts.ids("train") if not folds else sum(folds[1:], ())
                config = finetune_config(
                    model, start, data, scenes.subset(trained_on), labels,
                    part_file.absolute(), minutes=minutes, seed=seed, overrides=overrides,
                )  # fmt: skip
            # A setting may name another split: what is trained on is not compared on.
            parts, folds = _parts(scenes, Path(config.data.split or part_file))
            splits: list[Path] = [_write_fold(run, folds, one) for one in range(len(folds))]
            configs = [_on(config, one) for one in splits] or [config]
            opened = [open_data(one, base, [scenes]) for one in configs]
            if not resume:
                left_s = 60 * minutes - (time.monotonic() - began)
                left_s = max(min(_TRAINED_SHARE * left_s, left_s - _AFTER_S), 6 * minutes)
                config = fit_to_minutes(
                    _limited(config, left_s / len(opened)), spec, opened[0], overrides
                )
                opened = [one.with_samples(config.samples_per_epoch) for one in opened]
                print_plain(console, _plan(config, parts, len(folds), spec.name, minutes))
        except BaseException:
            # A run that fails before it begins leaves no folder.
            if not resume:
                for folder in run.glob(f"{_FOLD}*"):
                    rmtree(folder)
                if split is None:
                    part_file.unlink(missing_ok=True)
            raise
        with (run / "log.txt").open("a", encoding="utf-8") as stream:
            log = Console(file=stream, width=200)
            if folds:
                if not resume:
                    write_json(run / "config.json", config.relative_to(base))
                results = []
                for number, (one, held_out) in enumerate(zip(splits, opened), 1):
                    print_plain(console, f"fold {number} of {len(folds)}")
                    results.append(
                        fit(
                            _on(config, one), one.parent, base=base, console=console,
                            resume=resume and last_checkpoint(one.parent).exists(),
                            data=held_out, start=start, monitored=LastEpoch("val_iou", 1),
                        )
                    )  # fmt: skip
                scenes = scenes.subset(sum(folds, ()))
                share, members, update = _choose_share(
                    config, results, folds, start, scenes, run, images, log
                )
                choose: ChooseThreshold | None = partial(_fitted, update)
                weights = [load(one.weights) for one in members]
                result = average_results(results, weights, run, config, scenes)
            else:
                result = fit(
                    config, run, base=base, resume=resume, console=console, data=opened[0],
                    start=start,
                )  # fmt: skip
                share, members, choose = 1.0, (), None
                if spec.is_binary:
                    validated = scenes.subset(parts.ids("val"))
                    choose = partial(_choose_threshold, validated, run, spec, images, log)
            trained = export_run(
                config.without_home(base), result, run, resume=resume, console=log,
                names=("best_iou",), choose=choose,
            )  # fmt: skip
        print_plain(console, "comparing with the start model")
        tuned = read_models(trained.best["best_iou"][2]).ready()
        predictions = of_model(tuned, images=images)
        if folds:
            predictions = _of_folds(predictions, members, images)
        before = of_model(ModelSet((start.bundle,)).ready(), images=images)
        report = _compare(
            trained, (predictions, before), data, scenes, parts, len(folds), run, images, notes
        )
        report = replace(report, share=share)
        write_json(run / "verdict.json", report.to_json())
    return report


_TRAINED_SHARE, _AFTER_S = 0.75, 25.0
"""Share of the minutes in which is trained, and the least seconds that the rest takes: the export,
the threshold, the comparison and the page."""


def _limited(config: TrainConfig, seconds: float) -> TrainConfig:
    stop = config.stop.model_copy(update={"minutes": seconds / 60})
    return config.model_copy(update={"stop": stop})


def _on(config: TrainConfig, split: Path) -> TrainConfig:
    """Return the configuration of one fold, whose last epoch counts."""
    data = config.data.model_copy(update={"split": str(split.absolute())})
    stop = config.stop.model_copy(update={"patience": 0})
    return config.model_copy(update={"data": data, "stop": stop})


def _write_fold(run: Path, folds: Sequence[tuple[str, ...]], number: int) -> Path:
    """Write the split file of a fold: what is trained on, and what is held out."""
    others = sum((*folds[:number], *folds[number + 1 :]), ())
    path = run / f"{_FOLD}{number + 1}" / "split.json"
    write_split(path, Split(parts={"train": others, "val": folds[number]}))
    return path


@dataclass(frozen=True)
class _Member:
    """Model of one fold: its weights as safetensors, and the scenes that it was not trained on."""

    weights: bytes
    ids: tuple[str, ...]

    def predictor(self, spec: BundleSpec) -> Predictor:
        """Return the model with the contract of the finished one."""
        from rooftrace.engines.torch import TorchEngine

        bundle = ModelBundle(spec, {WEIGHTS_NAME: self.weights}, spec.name)
        return Predictor(bundle, TorchEngine(spec, self.weights, "fp32", spec.name))


def _choose_share(
    config: TrainConfig, results: Sequence[FitResult], folds: Sequence[tuple[str, ...]],
    start: StartModel, scenes: SceneSet, run: Path, images: SceneOptions, log: Console,
) -> tuple[float, tuple[_Member, ...], dict[str, Any]]:  # fmt: skip
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

    epoch, _, _ = results[0].trained.best[BEST_MONITORED]
    spec = contract_of(config, results[0], run / "best_iou.rooftrace", {"epoch": epoch})
    few = len(scenes) < LEAST_FOR_VERDICT or not spec.is_binary
    tried = []
    for share in (1.0,) if few else _SHARES:
        mixed = [mix_weights(one.trained.best[BEST_MONITORED][2], start, share) for one in results]
        members = tuple(_Member(save(one), ids) for one, ids in zip(mixed, folds))
        predictors = [(one.predictor(spec), one.ids) for one in members]
        if not spec.is_binary:
            return share, members, {}
        chosen, update = choose_threshold(
            predictors[0][0], LabelledSets([scenes], "val", images), run, metric="iou_f1",
            fallback=start.bundle.spec if few else None, near=start.bundle.spec.threshold,
            predict=partial(predict_folds, predictors),
        )  # fmt: skip
        value = dict(zip(chosen.thresholds, chosen.curve)).get(chosen.after, 0.0)
        print_plain(log, f"share {share:g}: mean of IoU and F1 {value:.4f}")
        _log_threshold(log, chosen)
        tried.append((value, share, members, update))
    _, share, members, update = max(tried, key=lambda one: one[:2])
    return share, members, update


def _fitted(update: dict[str, Any], _: ModelBundle) -> dict[str, Any]:
    return update


def _log_threshold(log: Console, chosen: ThresholdReport) -> None:
    for note in (f"threshold {chosen.after:.3f}", *chosen.notes):
        print_plain(log, note)


def _of_folds(tuned: Predictions, members: Sequence[_Member], images: SceneOptions) -> Predictions:
    """Return predictions of each scene by the model that was not trained on it."""
    assert tuned.bundle is not None
    by_scene: dict[str, Predictions] = {}
    for one in members:
        predictions = of_model(one.predictor(tuned.bundle.spec), images=images)
        by_scene |= dict.fromkeys(one.ids, predictions)
    return replace(tuned, predict=lambda scene: by_scene[scene.id].predict(scene))


def _choose_threshold(
    scenes: SceneSet, run: Path, start: BundleSpec, images: SceneOptions, log: Console,
    bundle: ModelBundle,
) -> dict[str, Any]:  # fmt: skip
    """Choose the threshold of the tuned model on whole images that were held out.

    With too few images for a verdict, it stays that of the start model.
    """
    few = len(scenes) < LEAST_FOR_VERDICT
    chosen, update = choose_threshold(
        ModelSet((bundle,)).ready(), LabelledSets([scenes], "val", images), run,
        metric="iou_f1", fallback=start if few else None, near=start.threshold,
    )  # fmt: skip
    _log_threshold(log, chosen)
    return update


def _compare(
    trained: TrainReport, predictions: tuple[Predictions, Predictions], data: SourceConfig,
    scenes: SceneSet, parts: SceneParts, folds: int, run: Path, images: SceneOptions,
    notes: tuple[str, ...],
) -> FinetuneReport:  # fmt: skip
    """Compare the tuned model with the start model, on images that neither was trained on."""
    folder = run / "comparison"
    if folds:
        split, held_out = f"{folds} folds of {parts.path}", scenes
    else:
        split = f"{parts.path}:{'test' if parts.parts.get('test') else 'val'}"
        held_out = select_part(scenes, split, data.path)
    options = EvalOptions(split=split, images=images)
    reports = compare_with_labels(
        predictions, held_out, options,
        context={
            "data": data.path, "part": data.part, "split": split,
            "min_area_m2": options.min_area_m2, "cell_m": options.cell_m,
        },
    )  # fmt: skip
    bundles = [one.bundle for one in predictions if one.bundle is not None]
    if folds:
        # The finished model has seen all images; each was predicted by one that had not seen it.
        leaks = (
            LeakageReport("none", len(held_out), (), ()),
            *check_leakage(bundles[1:], held_out),
        )
    else:
        leaks = check_leakage(bundles, held_out)
    evaluation = Evaluation(tuple(reports), leaks, baseline=1)
    write_evaluation(evaluation, predictions, held_out, folder)
    return FinetuneReport(
        trained, evaluation, split, folder / "report.html",
        notes=(*notes, *evaluation.warnings), folds=folds,
    )  # fmt: skip


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
    if any(run.glob("**/checkpoints/last.ckpt")):
        raise ConfigError(
            f"{run} already holds a run.",
            remedy="Add --resume to continue it, or choose another folder.",
        )


def _divide(
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
        f"{_FOLD}{number}": ids for number, ids in enumerate(held_out, 1)
    }
    if count == 1:
        parts = {"train": held_out[1], "val": held_out[0]}
    write_split(path, split.model_copy(update={"parts": parts, "built_up": {}}))
    return tuple(dict.fromkeys(notes))


def _parts(scenes: SceneSet, path: Path) -> tuple[SceneParts, list[tuple[str, ...]]]:
    """Return the scenes by the parts of a split file, and the folds among the parts.

    Raises:
        ConfigError, DataError: See `labels.split.Split.match` and `SceneParts.ids`; or no scene to
            train on has a label.
    """
    parts = read_split(path).match(scenes.all_ids, path=path.absolute())
    folds = [parts.ids(part) for part in parts.parts if re.fullmatch(_FOLD + r"\d", part)]
    if not folds and not len(scenes.subset(parts.ids("train"))):
        raise DataError(
            f"No image in the part 'train' of {path} has a label.",
            remedy="Name labelled images there, or leave --split out to have a part held out.",
        )
    return parts, folds


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


def _plan(config: TrainConfig, parts: SceneParts, folds: int, start: str, minutes: float) -> str:
    """Return the line that says what will be done."""
    if folds:
        count = sum(len(ids) for part, ids in parts.parts.items() if part.startswith(_FOLD))
        divided = f"{plural(count, 'image')}: {folds} folds, each held out once"
    else:
        train, val = (len(parts.parts.get(part, ())) for part in ("train", "val"))
        divided = f"{plural(train + val, 'image')}: {train} train, {val} held out"
    return f"{divided} · start {start} · at most {minutes_text(minutes)}"
