"""`rooftrace finetune`: a model of one's own from a start model and a few labelled images.

`run_finetune` is the whole road: check the data, hold a part out, train within the minutes, and
compare the tuned model with the start model on the part that was held out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

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
from rooftrace.core.system import sleep_while_waiting
from rooftrace.core.text import plural, print_plain, reason_of
from rooftrace.flows.evaluate.evaluation import Evaluation
from rooftrace.flows.evaluate.leakage import LeakageReport, check_leakage
from rooftrace.flows.evaluate.predictions import of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels, write_evaluation
from rooftrace.flows.finetune.choice import Candidate, Choice
from rooftrace.flows.finetune.plan import FOLD, TuningPlan, divide, parts_of
from rooftrace.flows.finetune.report import FinetuneReport
from rooftrace.flows.labelled_predictions import (
    SetProbabilities,
    labels_for,
    level_of,
    select_part,
)
from rooftrace.flows.train import TrainReport, export_run, locked_run
from rooftrace.io.files import write_json
from rooftrace.labels.config import LabelConfig, SourceConfig, absolute_text
from rooftrace.labels.kinds import open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SplitBy
from rooftrace.models.bundle import BUNDLED_MODELS, ModelBundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.plan import AS_FOUND, SceneOptions

if TYPE_CHECKING:
    from rooftrace.train.config import TrainConfig

LEAST_SCENES = 4
"""Minimum number of labelled images: one or more are held out, the others are trained on."""

_LEAST_FOR_BLOCKS = 12
"""Minimum number of georeferenced images that are divided by block of ground."""

_DENSE, _LEAST_INVERSE = 0.3, 0.3
"""Built-up share from which labels may be inverted, and the IoU of a model with their inverse."""


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
        minutes: Limit in minutes, to the verdict; of a resumed run, from then on.
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
    # The minutes include the import of PyTorch.
    began_s, base = time.monotonic(), Path.cwd()
    sleep_while_waiting()
    try:
        from rooftrace.models.start import read_start
        from rooftrace.train.deadline import Minutes
        from rooftrace.train.finetune import finetune_config
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace finetune", error.name or "torch") from error

    clock = Minutes(minutes, began_s)
    model, data = _placed(model), data.absolute()
    start = read_start(model)
    name = start.bundle.spec.name
    labels = labels_for(data, start.bundle)
    data, scenes, notes = _open(data, labels, start.bundle)
    with locked_run(run), TemporaryDirectory(prefix="rooftrace-") as folder:
        scratch = Path(folder)
        if resume:
            config = _recorded(run, data, model)
            part_file = Path(config.data.split or run / "split.json")
            plan = TuningPlan.open(run, start, scenes, images, config, part_file)
            choice = Choice(plan, clock, scratch)
        else:
            has_crs = _open_images(scenes, needs_metres=start.bundle.spec.gsd_m is not None)
            _check_labels(scenes)
            _check_new(run)
            part_file = split or run / "split.json"
            try:
                if split is None:
                    unit = by or _unit(scenes, has_crs=has_crs)
                    notes += divide(
                        scenes, part_file, val=val, unit=unit, seed=seed, building=labels.building,
                        minutes=minutes,
                    )  # fmt: skip
                parts, folds = parts_of(scenes, part_file)
                trained_on = sum(folds[1:], ()) if folds else parts.ids("train")
                config = finetune_config(
                    model, start, data, scenes.subset(trained_on), labels,
                    part_file.absolute(), seed=seed, overrides=overrides,
                )  # fmt: skip
                # A setting may name another split: what is trained on is not compared on.
                part_file = Path(config.data.split or part_file)
                plan = TuningPlan.open(run, start, scenes, images, config, part_file)
                print_plain(console, f"{plan.text} · start {name} · at most {minutes:g} min")
                choice = Choice(plan, clock, scratch)
                if choice.start.scored is not None:
                    check_inverse(choice.start.scored, start.bundle.spec)
                plan = plan.fitted(clock, overrides)
            except BaseException:
                # A run that fails before it begins leaves no folder.
                for fold in run.glob(f"{FOLD}*"):
                    rmtree(fold)
                if split is None:
                    (run / "split.json").unlink(missing_ok=True)
                raise
        results = plan.train(clock, resume=resume, console=console)
        recorded = plan.config.without_home(base)
        with (run / "log.txt").open("a", encoding="utf-8") as stream:
            log = Console(file=stream, width=200)
            chosen, result, contract = choice.choose(plan, results, recorded, log)
            trained = export_run(
                recorded, result, run, resume=resume, console=log, names=("best_iou",),
                contract=contract, start=start.bundle,
            )  # fmt: skip
        print_plain(console, "comparing with the start model")
        report = _compare(plan, chosen, choice.start, trained, data, notes)
        write_json(run / "verdict.json", report.to_json())
    return report


def _compare(
    plan: TuningPlan, chosen: Candidate, before: Candidate, trained: TrainReport,
    data: SourceConfig, notes: tuple[str, ...],
) -> FinetuneReport:  # fmt: skip
    """Compare the tuned model with the start model, on images that neither was trained on."""
    bundle, parts = read_model(trained.best["best_iou"][2]), plan.parts
    if plan.has_folds:
        split, held_out = f"{len(plan.trainings)} folds of {parts.path}", plan.held_out
    else:
        split = f"{parts.path}:{'test' if parts.parts.get('test') else 'val'}"
        held_out = select_part(plan.scenes, split, data.path)
    if held_out.ids == plan.held_out.ids:
        compared = (chosen, bundle), (before, plan.start.bundle)
        predictions = [one.predictions(contract, plan) for one, contract in compared]
    else:
        predictors = ModelSet((bundle,)).ready(), before.members[0][0]
        predictions = [of_model(one, images=plan.images) for one in predictors]
    options = EvalOptions(split=split, images=plan.images)
    reports = compare_with_labels(
        predictions, held_out, options,
        context={
            "data": data.path, "part": data.part, "split": split,
            "min_area_m2": options.min_area_m2, "cell_m": options.cell_m,
        },
    )  # fmt: skip
    # The model of folds has seen all images; each was predicted by one that had not seen it.
    bundles = [plan.start.bundle] if plan.has_folds else [bundle, plan.start.bundle]
    leaks = check_leakage(bundles, held_out)
    if plan.has_folds:
        leaks = LeakageReport("none", len(held_out), (), ()), *leaks
    evaluation = Evaluation(tuple(reports), leaks, baseline=1)
    folder = plan.run / "comparison"
    write_evaluation(evaluation, predictions, held_out, folder)
    return FinetuneReport(
        trained, evaluation, split, folder / "report.html", notes=(*notes, *evaluation.warnings),
        folds=len(plan.trainings) if plan.has_folds else 0, share=chosen.share,
    )  # fmt: skip


def _open(
    data: SourceConfig, labels: LabelConfig, start: ModelBundle
) -> tuple[SourceConfig, SceneSet, tuple[str, ...]]:
    """Open the labelled images; return where they lie, and notes."""
    data = data.model_copy(update={"labels": None})
    scenes, gsd_m = open_labelled(data, labels), start.spec.gsd_m
    if len(scenes) < LEAST_SCENES:
        raise DataError(
            f"{data.path} has {plural(len(scenes), 'labelled image')}; expected at least "
            f"{LEAST_SCENES}, since some are held out to compare the models.",
            remedy="Label more images; cut a large one into tiles with --set chip_px=512.",
        )
    if gsd_m is None or any(scene.gsd_m is not None for scene in scenes):
        return data, scenes, ()
    note = (
        f"No image states its metres per pixel: {gsd_m:g} is assumed, as of the start model. If "
        "that is wrong, state them with --gsd."
    )
    data = data.model_copy(update={"gsd_m": gsd_m})
    return data, open_labelled(data, labels), (note,)


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


def check_inverse(scored: SetProbabilities, start: BundleSpec) -> None:
    """Raise LabelError if the start model agrees with the inverse of labels of a dense place.

    Args:
        scored: Its probabilities.
        start: Its contract.
    """
    count: NDArray[np.int64] = np.zeros(4, np.int64)
    for scene in scored:
        found = (scene.score >= level_of(start.threshold))[scene.evaluated]
        count += np.bincount(2 * scene.truth[scene.evaluated] + found, minlength=4)
    neither, only_model, only_labels, both = count.tolist()
    iou = both / max(only_model + only_labels + both, 1)
    inverse = only_model / max(neither + only_model + both, 1)
    is_dense = only_labels + both >= _DENSE * count.sum()
    if is_dense and inverse > max(_LEAST_INVERSE, 3 * iou):
        raise LabelError(
            f"{scored.source.name}: {start.name} agrees with the inverse of the labels (IoU "
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
    before = {"model": _placed(config.model.start or ""), **dict(began.absolute())}
    for name, now in {"model": model, **dict(data)}.items():
        if now != before[name]:
            raise ConfigError(
                f"The run in {run} began with {name} {before[name]}; {now} was given.",
                remedy="Resume with the DATA, its options and the model that the run began with.",
            )
    return config


def _placed(model: str) -> str:
    """Return the name of a bundled model, or the absolute path of another one."""
    return model if model in BUNDLED_MODELS else absolute_text(model)
