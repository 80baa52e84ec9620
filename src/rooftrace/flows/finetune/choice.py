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
from rooftrace.flows.finetune.plan import TuningPlan
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
    from rooftrace.train.deadline import Minutes
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


class Choice:
    """What may be kept of a fine-tuning, each with its predictions of what was held out.

    Those of the start model come first: they tell what the tuned model must not fall below, and
    how fast this machine is now.

    Args:
        plan: The fine-tuning.
        minutes: Its minutes.
        scratch: Folder for the predictions.
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

        Args:
            trained: The plan as it was trained.
            results: Result of each of its trainings.
            config: Configuration, as the bundle records it.
            log: Console for what was tried.

        Returns:
            What is kept, the network with its weights in the folder of the run, and its contract;
            None where the export has to measure it.
        """
        from safetensors.torch import save

        from rooftrace.train.callbacks import BEST_MONITORED
        from rooftrace.train.finetune import average_results, mix_weights, write_mean

        plan, start = self._plan, self._plan.start
        path = plan.run / "checkpoints/tuned.safetensors"
        name = BEST_MONITORED if plan.has_folds else "best_iou"
        ends = [one.trained.best[name][2] for one in results]
        result = average_results(results, name, path, trained.whole_data)
        spec = _contract(config, result, plan)
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


def _contract(config: TrainConfig, result: FitResult, plan: TuningPlan) -> BundleSpec:
    """Return the contract of the tuned model, with the separation of a start model of its kind."""
    from rooftrace.train.export_bundle import contract_of

    epoch = {"epoch": result.trained.best["best_iou"][0]}
    spec = contract_of(config, result, plan.run / "best_iou.rooftrace", epoch)
    start = plan.start.bundle.spec
    if start.separation != spec.separation:
        return spec
    return spec.model_copy(update={"separation_threshold": start.separation_threshold})
