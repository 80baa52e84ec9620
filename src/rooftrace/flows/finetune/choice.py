"""What is kept of a fine-tuning: the share of the training, and the threshold.

Each model predicts once what it has not seen. Both choices and the verdict use these predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from rooftrace.core.text import print_plain
from rooftrace.core.types import Mask, Scene
from rooftrace.flows.evaluate.predictions import Predictions, ScenePrediction, in_pixels, of_model
from rooftrace.flows.finetune.plan import Minutes, TuningPlan
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    SetProbabilities,
    footprints_at,
    level_of,
    predict_folds,
    protocol_of,
)
from rooftrace.flows.threshold import ThresholdReport, choose_threshold
from rooftrace.models.bundle import WEIGHTS_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
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

    @classmethod
    def of(
        cls, share: float, members: Members, plan: TuningPlan, minutes: Minutes, scratch: Path,
        log: Console | None = None, least_f1: float | None = None,
    ) -> Candidate:  # fmt: skip
        """Predict what was held out, and choose the threshold.

        Args:
            share, members: See above.
            plan: The fine-tuning.
            minutes: Its minutes.
            scratch: Folder for the predictions.
            log: Console for the threshold and notes.
            least_f1: F1 of the start model; None for that model itself.
        """
        start, predictor = plan.start.bundle.spec, members[0][0]
        if not start.is_binary:
            return cls(share, members)
        data = LabelledSets([plan.held_out], "val", plan.images)
        with minutes.search():
            scored = predict_folds(members, plan.held_out, scratch / f"{share:g}", data)
            report = choose_threshold(
                predictor.bundle.spec, [scored], data, plan.run, protocol=protocol_of(predictor),
                metric="iou_f1", start=start, least_f1=least_f1, is_small=plan.is_small,
            )  # fmt: skip
        for note in (f"share {share:g}: threshold {report.after:.3f}", *report.notes):
            print_plain(log, note)
        return cls(share, members, scored, report)

    def predictions(self, bundle: ModelBundle, plan: TuningPlan) -> Predictions:
        """Return the predictions of what was held out, by the contract of a bundle."""
        by_scene: dict[str, Predictions] = {}
        for member, ids in self.members:
            made = of_model(Predictor(bundle, member.engine), images=plan.images)
            by_scene |= dict.fromkeys(ids, made)
        first = next(iter(by_scene.values()))
        if self.scored is None:
            return replace(first, predict=lambda scene: by_scene[scene.id].predict(scene))
        stored = dict(zip(self.scored.source.ids, self.scored))
        level = level_of(bundle.spec.threshold)

        def predict(scene: Scene) -> ScenePrediction:
            scored, grid = stored[scene.id], scene.image.grid
            score = np.asarray(scored.score)
            mask = Mask((score >= level).view(np.uint8), np.asarray(scored.known), grid)
            found = footprints_at(bundle.spec, scene, scored, level, plan.images)
            return ScenePrediction(mask, in_pixels(found, grid), found.score, score)

        return replace(first, predict=predict)


def start_candidate(plan: TuningPlan, minutes: Minutes, scratch: Path) -> Candidate:
    """Return the start model with its predictions of what is held out.

    They tell what the tuned model must not fall below, and how fast this machine is now.
    """
    predictor = ModelSet((plan.start.bundle,)).ready()
    return Candidate.of(0.0, [(predictor, plan.held_out.ids)], plan, minutes, scratch)


def choose(
    plan: TuningPlan, results: Sequence[FitResult], start: Candidate, minutes: Minutes,
    scratch: Path, config: TrainConfig, log: Console,
) -> tuple[Candidate, FitResult, BundleSpec | None]:  # fmt: skip
    """Choose how much of the training counts, and the threshold with it, on what was held out.

    Where the ground is little, all of the training may be too much (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models"). What is maximised is the mean of IoU and F1 of buildings
    among models whose F1 is not below that of the start model.

    Args:
        config: Configuration, as the bundle records it.

    Returns:
        What is kept, the network with its weights in the folder of the run, and its contract; None
        where the export has to measure it.
    """
    from safetensors.torch import save

    from rooftrace.train.callbacks import BEST_MONITORED
    from rooftrace.train.export_bundle import contract_of
    from rooftrace.train.finetune import average_results, mix_weights, write_mean

    path = plan.run / "checkpoints/tuned.safetensors"
    name = BEST_MONITORED if plan.has_folds else "best_iou"
    ends = [one.trained.best[name][2] for one in results]
    result = average_results(results, name, path, plan.whole_data)
    epoch = {"epoch": result.trained.best["best_iou"][0]}
    spec = contract_of(config, result, plan.run / "best_iou.rooftrace", epoch)
    before = plan.start.bundle.spec
    if before.separation == spec.separation:
        threshold = {"separation_threshold": before.separation_threshold}
        spec = spec.model_copy(update=threshold)
    is_chosen = start.report is not None and not plan.is_small
    least_f1 = None if start.report is None else start.report.figures_before[0]["f1"]
    candidates: list[Candidate] = []
    for share in SHARES if is_chosen else SHARES[:1]:
        if candidates and minutes.left_s < minutes.end_s(1):
            print_plain(log, f"share {share:g} was not tried: the minutes are over")
            break
        members = []
        for end, one in zip(ends, plan.trainings):
            weights = save(mix_weights(end, plan.start, share))
            bundle = ModelBundle(spec, {WEIGHTS_NAME: weights}, spec.name)
            members.append((ModelSet((bundle,), engine="torch").ready(), one.held_out))
        candidates.append(Candidate.of(share, members, plan, minutes, scratch, log, least_f1))

    def rank(one: Candidate) -> tuple[bool, float, float]:
        assert one.report is not None
        assert least_f1 is not None
        value = one.report.value
        print_plain(log, f"share {one.share:g}: mean of IoU and F1 {value:.4f}")
        return one.report.figures_after[0]["f1"] >= least_f1, value, one.share

    best = max([*candidates, start], key=rank) if is_chosen else candidates[0]
    write_mean(path, [mix_weights(end, plan.start, best.share) for end in ends])
    if best.report is not None:
        return best, result, spec.model_copy(update=best.report.update)
    return best, result, spec if plan.has_folds else None
