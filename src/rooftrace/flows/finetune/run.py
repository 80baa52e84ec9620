"""`rooftrace finetune`: a model of one's own from a start model and a few labelled images.

`run_finetune` is the whole road: check the data, hold a part out, train within the minutes, and
compare the tuned model with the start model on the part that was held out. `Choice` keeps the share
of the training and the threshold; each model predicts once what it has not seen, and both choices
and the verdict use these predictions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from rooftrace.audit.checks import first_findings
from rooftrace.core.config import apply_override, differences, parse_config
from rooftrace.core.errors import ConfigError, GeoreferenceError, LabelError, MissingExtraError
from rooftrace.core.system import sleep_while_waiting
from rooftrace.core.text import print_plain, reason_of
from rooftrace.flows.evaluate.evaluation import Evaluation, LeakageReport, check_leakage
from rooftrace.flows.evaluate.label_doubts import doubts_of
from rooftrace.flows.evaluate.predictions import Predictions, of_model, of_stored
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels, write_evaluation
from rooftrace.flows.finetune.plan import (
    FOLD,
    LEAST_SCENES,
    VAL,
    TuningPlan,
    check_count,
    divide,
    parts_of,
)
from rooftrace.flows.finetune.report import FinetuneReport
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    SetProbabilities,
    labels_for,
    level_of,
    predict_folds,
    protocol_of,
    select_part,
)
from rooftrace.flows.threshold import ThresholdReport, choose_threshold
from rooftrace.flows.train import TrainReport, export_run
from rooftrace.io.files import locked, write_json
from rooftrace.labels.config import LabelConfig, SourceConfig, absolute_text
from rooftrace.labels.kinds import open_labelled
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import SplitBy, own_split
from rooftrace.models.bundle import BUNDLED_MODELS, WEIGHTS_NAME, ModelBundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
    from rooftrace.train.callbacks import Minutes
    from rooftrace.train.config import TrainConfig
    from rooftrace.train.loop import FitResult


SHARES = (1.0, 0.5)
"""Shares of the training in the weights that are tried, beside none of it."""

Members = Sequence[tuple[Predictor, tuple[str, ...]]]
"""Models, each with the ids of the scenes that it has not seen."""


@dataclass(frozen=True)
class Candidate:
    """A model that may be kept.

    Args:
        share: Share of the training in its weights; 0 is the start model.
        members: The model, or one for each fold.
        scored: What they predict for what was held out; None for more than two classes.
        report: The best threshold for it, likewise.
    """

    share: float
    members: Members
    scored: SetProbabilities | None = None
    report: ThresholdReport | None = None

    def predictions(self, bundle: ModelBundle, plan: TuningPlan) -> Predictions:
        """Return the predictions of what was held out, by the contract of a bundle."""
        if self.scored is not None:
            return of_stored(Predictor(bundle, self.members[0][0].engine), self.scored)
        by_scene: dict[str, Predictions] = {}
        for member, ids in self.members:
            made = of_model(Predictor(bundle, member.engine), images=plan.images)
            by_scene |= dict.fromkeys(ids, made)
        first = next(iter(by_scene.values()))
        return replace(first, predict=lambda scene: by_scene[scene.id].predict(scene))


class Choice:
    """What may be kept of a fine-tuning, each with its predictions of what was held out.

    Those of the start model come first: they tell what the tuned model must not fall below, and
    how fast this machine is now.
    """

    def __init__(self, plan: TuningPlan, minutes: Minutes, scratch: Path) -> None:
        self._plan, self._minutes, self._scratch = plan, minutes, scratch
        self._least_f1: float | None = None
        predictor = ModelSet((plan.start.bundle,)).ready()
        self.start = self._candidate(0.0, [(predictor, plan.held_out.ids)])
        if self.start.report is not None:
            self._least_f1 = self.start.report.figures_before[0]["f1"]

    def _candidate(self, share: float, members: Members, log: Console | None = None) -> Candidate:
        """Predict what was held out, and choose the threshold."""
        plan, predictor = self._plan, members[0][0]
        if not plan.start.bundle.spec.is_binary:
            return Candidate(share, members)
        data = LabelledSets([plan.held_out], "val", plan.images)
        with self._minutes.search():
            scored = predict_folds(members, plan.held_out, self._scratch / f"{share:g}", data)
            report = choose_threshold(
                predictor.bundle.spec, [scored], data, plan.run, protocol=protocol_of(predictor),
                metric="iou_f1", start=plan.start.bundle.spec, least_f1=self._least_f1,
                is_small=plan.is_small,
            )  # fmt: skip
        for note in (f"share {share:g}: threshold {report.after:.3f}", *report.notes):
            print_plain(log, note)
        return Candidate(share, members, scored, report)

    def choose(
        self, trained: TuningPlan, results: Sequence[FitResult], config: TrainConfig, log: Console
    ) -> tuple[Candidate, FitResult, BundleSpec | None]:
        """Choose how much of the training counts, and the threshold with it.

        Where the ground is little, all of the training may be too much (Wortsman et al. 2022,
        "Robust fine-tuning of zero-shot models"). What is maximised is the mean of IoU and F1 of
        buildings among models whose F1 is not below that of the start model.

        Returns:
            What is kept, the network with its weights in the folder of the run, and its contract;
            None where the export has to measure it.
        """
        from safetensors.torch import save

        from rooftrace.train.callbacks import BEST_MONITORED
        from rooftrace.train.export_bundle import contract_of
        from rooftrace.train.finetune import average_results, mix_weights, write_mean

        plan, start = self._plan, self._plan.start
        path = plan.run / "checkpoints/tuned.safetensors"
        name = BEST_MONITORED if plan.has_folds else "best_iou"
        ends = [one.trained.best[name][2] for one in results]
        result = average_results(results, name, path, trained.whole_data)
        epoch = {"epoch": result.trained.best["best_iou"][0]}
        spec = contract_of(config, result, plan.run / "best_iou.rooftrace", epoch)
        is_chosen = self._least_f1 is not None and not plan.is_small
        candidates: list[Candidate] = []
        for share in SHARES if is_chosen else SHARES[:1]:
            if candidates and self._minutes.left_s < self._minutes.end_s(1):
                print_plain(log, f"share {share:g} was not tried: the minutes are over")
                break
            members = []
            for end, training in zip(ends, plan.trainings):
                weights = {WEIGHTS_NAME: save(mix_weights(end, start, share))}
                models = ModelSet((ModelBundle(spec, weights, spec.name),), engine="torch")
                members.append((models.ready(), training.held_out))
            candidates.append(self._candidate(share, members, log))
        best = max([*candidates, self.start], key=self._rank) if is_chosen else candidates[0]
        for one in (*candidates, self.start) if is_chosen else ():
            print_plain(log, f"share {one.share:g}: mean of IoU and F1 {self._rank(one)[1]:.4f}")
        write_mean(path, [mix_weights(end, start, best.share) for end in ends])
        if best.report is not None:
            return best, result, spec.model_copy(update=best.report.update)
        return best, result, spec if plan.has_folds else None

    def _rank(self, one: Candidate) -> tuple[bool, float, float]:
        assert one.report is not None
        assert self._least_f1 is not None
        is_allowed = one.report.figures_after[0]["f1"] >= self._least_f1
        return is_allowed, one.report.value, one.share


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
    val: float | None = None,
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
        model: Model to start from, see `models.start.read_start`.
        minutes: Limit in minutes, to the verdict; of a resumed run, from then on.
        val: Share of the scenes that is held out; of fewer than `LEAST_HELD_OUT` scenes folds are
            made instead. Default: the part `val` of the data itself, see `labels.split.own_split`,
            or `VAL`.
        by: Unit that is kept together; default blocks of ground where all images have a
            georeference, else groups where there are enough, else images.
        split: Split file with the parts `train` and `val`; default: a split is made. If it has a
            part `test`, the models are compared there.
        overrides: `key.path=value` settings of the training configuration.
        seed: Seed of the split and of all random draws.
        resume: Continue the run that is in the folder, with its settings.
        images: Bands, stretch and scale with which images are read for the comparison.

    Raises:
        MissingExtraError: PyTorch or a package that comes with it is not installed.
        ConfigError: The start model cannot be used, its classes are others, or a setting is wrong.
        DataError: There are too few labelled images.
        LabelError: Labels show no building, or building nearly everywhere (swapped classes).
        ConfigError, DataError, ExportError: See `train.loop` and `flows.measure`.
    """
    # The minutes include the import of PyTorch.
    began_s, base = time.monotonic(), Path.cwd()
    sleep_while_waiting()
    with MissingExtraError.on_import("train", "rooftrace finetune", "torch"):
        from rooftrace.models.start import read_start
        from rooftrace.train.callbacks import Minutes
        from rooftrace.train.finetune import finetune_config
        from rooftrace.train.tracking import Tracking, check_trackers

    clock = Minutes(minutes, began_s)
    model, data = _placed(model), data.absolute()
    start = read_start(model)
    name = start.bundle.spec.name
    labels = labels_for(data, start.bundle)
    data, scenes, notes = _open(data, labels, start.bundle)
    _tell(notes, console)  # before the minutes are spent
    with (
        locked(run / ".rooftrace.lock", str(run)),
        TemporaryDirectory(prefix="rooftrace-") as folder,
    ):
        scratch = Path(folder)
        if resume:
            config = _recorded(run, data, model, overrides)
            part_file = Path(config.data.split or run / "split.json")
            plan = TuningPlan.open(run, start, scenes, images, config, part_file)
            choice = Choice(plan, clock, scratch)
        else:
            has_crs = _open_images(scenes, needs_metres=start.bundle.spec.gsd_m is not None)
            notes += _tell(_check_labels(scenes), console)
            if any(run.glob("**/checkpoints/last.ckpt")):
                raise ConfigError(
                    f"{run} already holds a run.",
                    remedy="Add --resume to continue it, or choose another folder.",
                )
            part_file = split or run / "split.json"
            try:
                if split is None:
                    unit = by or _unit(scenes, has_crs=has_crs)
                    own = own_split(scenes.ids)
                    if own is not None and (val is not None or by is not None):
                        again = own.own_note(scenes.name, "all images are divided again.")
                        notes += _tell((again,), console)
                        own = None
                    divided = divide(
                        scenes, part_file, val=val or VAL, unit=unit, seed=seed,
                        building=labels.building, minutes=minutes,
                        own=own,
                    )  # fmt: skip
                    notes += _tell(divided, console)
                parts, folds = parts_of(scenes, part_file)
                trained_on = sum(folds[1:], ()) if folds else parts.ids("train")
                config = finetune_config(
                    model, start, data, scenes.subset(trained_on), labels,
                    part_file.absolute(), seed=seed, overrides=overrides,
                )  # fmt: skip
                check_trackers(config)
                # A setting may name another split: what is trained on is not compared on.
                part_file = Path(config.data.split or part_file)
                plan = TuningPlan.open(run, start, scenes, images, config, part_file)
                print_plain(console, f"{plan.text} · start {name} · at most {minutes:g} min")
                choice = Choice(plan, clock, scratch)
                if choice.start.scored is not None:
                    check_inverse(choice.start.scored, start.bundle.spec)
                    doubts = doubts_of(choice.start.scored, start.bundle.spec.threshold)
                    notes += _tell(doubts, console)
                if clock.late_s > 0:
                    whole, end = minutes + clock.late_s / 60, clock.end_s() / 60
                    busy = (
                        f"The verdict takes about {whole:.1f} min: thresholds, export and "
                        f"comparison alone take {end:.1f} min on this machine, busy as it is."
                    )
                    notes += _tell((busy,), console)
                plan = plan.fitted(clock, overrides)
            except BaseException:
                # A run that fails before it begins leaves no folder.
                for fold in run.glob(f"{FOLD}*"):
                    rmtree(fold)
                if split is None:
                    (run / "split.json").unlink(missing_ok=True)
                raise
        with Tracking(plan.config, run, partial(print_plain, console)) as tracking:
            results = plan.train(clock, tracking, resume=resume, console=console)
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
            _tell(
                tuple(one for one in report.evaluation.warnings if one not in report.advice),
                console,
            )
            write_json(run / "verdict.json", report.to_json())
            tracking.finish(
                {
                    f"{model}/{name}": figure
                    for name, pair in report.figures.items()
                    for model, figure in zip(("start", "tuned"), pair)
                    if figure is not None
                },
                trained.epochs,
            )
    return report


def _tell(notes: tuple[str, ...], console: Console | None) -> tuple[str, ...]:
    """Print notes when they are known, and return them."""
    for note in notes:
        print_plain(console, f"note: {note}")
    return notes


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
    reports = compare_with_labels(predictions, held_out, options, data=data)
    # The model of folds has seen all images; each was predicted by one that had not seen it.
    # What was held out chose epoch and threshold, as the verdict says.
    own = {"fitted_fingerprint": None, "start_fingerprints": ()}
    tuned = replace(bundle, spec=bundle.spec.model_copy(update=own))
    bundles = [plan.start.bundle] if plan.has_folds else [tuned, plan.start.bundle]
    leaks = check_leakage(bundles, held_out)
    if plan.has_folds:
        leaks = LeakageReport("none", len(held_out), (), ()), *leaks
    evaluation = Evaluation(tuple(reports), leaks, baseline=1)
    folder = plan.run / "comparison"
    report = FinetuneReport(
        trained, evaluation, split, folder / "report.html", notes=(*notes, *evaluation.warnings),
        folds=len(plan.trainings) if plan.has_folds else 0, share=chosen.share,
    )  # fmt: skip
    verdict = f"{reports[0].name}: {report.verdict_text}"
    write_evaluation(evaluation, predictions, held_out, folder, verdict)
    return report


def _open(
    data: SourceConfig, labels: LabelConfig, start: ModelBundle
) -> tuple[SourceConfig, SceneSet, tuple[str, ...]]:
    """Open the labelled images; return where they lie, and notes."""
    data = data.model_copy(update={"labels": None})
    scenes, gsd_m = open_labelled(data, labels), start.spec.gsd_m
    check_count(scenes, data.path)
    if gsd_m is None or any(scene.gsd_m is not None for scene in scenes):
        return data, scenes, ()
    note = (
        f"No image states its metres per pixel: {gsd_m:g} is assumed, as of the start model. If "
        "that is wrong, state them with --gsd."
    )
    data = data.model_copy(update={"gsd_m": gsd_m})
    return data, open_labelled(data, labels), (note,)


def _open_images(scenes: SceneSet, *, needs_metres: bool) -> bool:
    """Open each image once, and return whether all have a coordinate system."""
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


def _check_labels(scenes: SceneSet) -> tuple[str, ...]:
    """Return notes on images that may be infrared, and on labels that are shifted."""
    finding, others = first_findings(scenes)
    if finding is not None:
        raise LabelError(
            f"{scenes.name}: {finding.title}. {finding.detail}".rstrip(),
            remedy=f"{finding.remedy} If the labels are right, use rooftrace train.",
        )
    return tuple(f"{scenes.name}: {other.title}. {other.remedy}" for other in others)


def check_inverse(scored: SetProbabilities, start: BundleSpec) -> None:
    """Raise LabelError if the start model agrees with the inverse of labels of a dense place."""
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


def _unit(scenes: SceneSet, *, has_crs: bool) -> SplitBy:
    """Return the unit that is kept together, by what is known of the scenes."""
    if has_crs and len(scenes) >= _LEAST_FOR_BLOCKS:
        return "block"
    groups = {entry.group for entry in scenes.entries}
    return "group" if len(groups) >= LEAST_SCENES else "image"


def _recorded(run: Path, data: SourceConfig, model: str, overrides: Sequence[str]) -> TrainConfig:
    """Return the configuration of a run to resume; of its settings, `track` alone may change."""
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
    for override in overrides:
        apply_override(raw, override)
    wanted = parse_config(raw, TrainConfig, source=str(path))
    if changes := differences(
        config.model_dump(mode="json"), wanted.model_dump(mode="json"), free=("track",)
    ):
        raise ConfigError(
            f"The run in {run} began with other settings: {changes}.",
            remedy="Leave out --config, or start another run.",
        )
    return wanted


def _placed(model: str) -> str:
    """Return the name of a bundled model, or the absolute path of another one."""
    return model if model in BUNDLED_MODELS else absolute_text(model)
