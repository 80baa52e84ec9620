"""`rooftrace evaluate`: how well models agree with labels that they have not seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.ahead import Ahead
from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError
from rooftrace.core.types import Scene
from rooftrace.data.config import SourceConfig
from rooftrace.data.source import SceneSet
from rooftrace.data.truth import Truth
from rooftrace.flows.candidates import Answer, Candidate, ModelCandidate
from rooftrace.flows.evaluation import Evaluation
from rooftrace.flows.gallery import draw_pictures
from rooftrace.flows.labelled import open_labelled
from rooftrace.flows.leaks import check_leaks
from rooftrace.io.atomic import replacing, write_atomically
from rooftrace.metrics.coco import CocoCollector
from rooftrace.metrics.confusion import confusion_csv, draw_confusion
from rooftrace.metrics.curves import ThresholdCurve
from rooftrace.metrics.report import EvalReport
from rooftrace.metrics.scene import ImageScore, ScenePair, drawn, score_scene
from rooftrace.predict.ensemble import Combine, Models, load_models
from rooftrace.predict.tta import Tta
from rooftrace.vector.density_threshold import DEFAULT_THRESHOLD

__all__ = ["EvalOptions", "run_evaluate"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EvalOptions:
    """How an evaluation is done.

    Args:
        split: `FILE:PART`, or None for all of the data.
        threshold: on the building's probability, where there are two classes; default the bundle's
            own.
        engine, precision: default what `rooftrace predict` would take.
        pictures: at most so many side-by-side pictures of the first model, spread from the worst
            image to the best.
        ensemble: how several bundles are combined into one that is judged; None: each is judged,
            side by side.
        weights: of the ensemble `weighted`.
        tta: each model also sees mirrored tiles, see `Tta`.
        min_area_m2: smaller buildings are not judged.
        cell_m: side of the cells of the built-up share.
    """

    split: str | None = None
    threshold: float | None = None
    engine: str | None = None
    precision: str | None = None
    pictures: int = 24
    ensemble: Combine | None = None
    weights: tuple[float, ...] | None = None
    tta: Tta | None = None
    min_area_m2: float = 0.0
    cell_m: float = 100.0


def run_evaluate(
    bundles: Models,
    folder: SourceConfig,
    out: Path | None,
    options: EvalOptions,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every labelled image of a folder as `rooftrace predict` would, and count; of a
    refined bundle also what its segmenter alone would answer.

    Args:
        bundles: one, several, or None for the one that comes with rooftrace.
        folder: the data, see `SourceConfig`.
        out: where report.html, report.json, confusion.csv, confusion.png and pictures/ go; None
            writes nothing.
        progress: called with the images that are done and that there are.

    Raises:
        ConfigError: no such engine or precision; a threshold for more than two classes.
        DataError: the split leaves no image of the folder; files cannot be read.
        BundleError: a bundle cannot be read, or classes cannot be compared.
    """
    candidates, coarse = _candidates(bundles, options)
    source = open_labelled(candidates[0].predictor, folder, options.split)
    judged: list[Candidate] = [*candidates, *coarse]
    reports = judge(judged, source, options, progress=progress)
    reports = [
        replace(report, context={"data": folder.path, "split": options.split} | report.context)
        for report in reports
    ]
    for beside in reports[len(candidates) :]:
        at = {"threshold": beside.context["threshold"]}
        reports[0] = replace(reports[0], coarse=replace(beside, context=at))
    leaks = [
        check_leaks(bundle.members or bundle, source, folder)
        for bundle in (candidate.predictor.bundle for candidate in candidates)
    ]
    evaluation = Evaluation(tuple(reports[: len(candidates)]), tuple(leaks))
    if out is not None:
        write_evaluation(evaluation, judged, source, out, options)
    return evaluation


def _candidates(
    bundles: Models, options: EvalOptions
) -> tuple[list[ModelCandidate], list[ModelCandidate]]:
    """What is judged, and the segmenter alone of one that is refined."""
    paths = [bundles] if bundles is None or isinstance(bundles, Path) else list(bundles)
    if options.ensemble is None and options.weights is not None:
        raise ConfigError(
            "Weights were given, but the models are judged side by side.",
            remedy="Add --ensemble weighted.",
        )

    def loaded(models: Models, **more: str) -> ModelCandidate:
        how, weights = options.ensemble or "average", options.weights
        predictor = load_models(
            models, how, weights=weights, tta=options.tta, engine=options.engine,
            precision=options.precision, **more,  # type: ignore[arg-type]
        )  # fmt: skip
        return ModelCandidate(predictor, options.threshold, options.tta)

    if options.ensemble is not None:
        return [loaded(paths)], []
    made = [loaded(path) for path in paths]
    if len(made) == 1 and made[0].predictor.bundle.spec.is_refined:
        return made, [loaded(paths, output="coarse")]
    return made, []


def judge(
    candidates: Sequence[Candidate],
    source: SceneSet,
    options: EvalOptions,
    *,
    progress: Progress | None = None,
) -> list[EvalReport]:
    """Hold each candidate against the labels of a set.

    The scenes are gone through once; while one is judged, the next is answered.

    Args:
        candidates: of equal classes.
        source: labelled scenes.

    Returns:
        A report of each.

    Raises:
        BundleError: classes differ.
    """
    first = candidates[0]
    for other in candidates[1:]:
        if (other.classes, other.building_class) != (first.classes, first.building_class):
            raise BundleError(
                f"{other.name} tells {', '.join(other.classes)} apart, but {first.name} "
                f"{', '.join(first.classes)}.",
                remedy="Evaluate models of the same classes side by side.",
            )
    scores: list[list[ImageScore]] = [[] for _ in candidates]
    curves: list[ThresholdCurve | None] = [None] * len(candidates)
    cocos, missing = _coco_collectors(len(candidates))
    with Ahead(_answered(candidates, source), 1, "answers") as answered:
        for number, (scene, answers) in enumerate(answered):
            for index, (answer, pair) in enumerate(answers):
                scores[index].append(
                    score_scene(
                        pair, scene_id=scene.id, classes=len(first.classes),
                        building_class=first.building_class, min_area_m2=options.min_area_m2,
                        cell_m=options.cell_m, dense_from=DEFAULT_THRESHOLD.threshold,
                        group=scene.group,
                    )
                )  # fmt: skip
                if (coco := cocos[index]) is not None and answer.score is not None:
                    coco.add(scene.id, pair.instances, pair.numbers, answer.score, pair.valid)
                if answer.probability is not None:
                    curve = curves[index] = curves[index] or ThresholdCurve()
                    is_building = pair.truth == first.building_class
                    curve.add(is_building, answer.probability, pair.valid)
            if progress is not None:
                progress(number + 1, len(source))
    return [
        EvalReport(
            tuple(each), first.classes, first.building_class, candidate.context,
            notes=(*candidate.notes, *missing), name=candidate.name, curve=curve,
            coco=coco.figures() if coco is not None and len(coco) else None,
        )
        for candidate, each, curve, coco in zip(candidates, scores, curves, cocos)
    ]  # fmt: skip


def _coco_collectors(count: int) -> tuple[list[CocoCollector | None], tuple[str, ...]]:
    """One for each candidate, or none and a note that says why."""
    try:
        return [CocoCollector() for _ in range(count)], ()
    except MissingExtraError as error:
        return [None] * count, (f"without COCO's AP and AR: {error.message} {error.remedy}",)


def _answered(
    candidates: Sequence[Candidate], source: SceneSet
) -> Iterator[tuple[Scene, list[tuple[Answer, ScenePair]]]]:
    """Each scene with what is said of it, laid beside its label.

    All that reads or draws is done here, in one thread: GDAL's bindings silence warnings in a way
    that another thread would undo.
    """
    for scene in source:
        truth = Truth.of(scene, candidates[0].building_class)
        drawn_truth = drawn(truth.outlines, truth.instances.shape)
        answers = [candidate.answer(scene) for candidate in candidates]
        yield scene, [(one, _paired(scene, truth, drawn_truth, one)) for one in answers]


def _paired(
    scene: Scene, truth: Truth, drawn_truth: NDArray[np.int32], answer: Answer
) -> ScenePair:
    return ScenePair(
        truth=truth.mask.data,
        predicted=answer.mask.data,
        valid=truth.mask.valid & answer.mask.valid,
        instances=truth.instances,
        truth_outlines=truth.outlines,
        outlines=answer.outlines,
        truth_numbers=drawn_truth,
        numbers=drawn(answer.outlines, truth.instances.shape),
        score=answer.score,
        gsd_m=scene.gsd_m or scene.image.grid.gsd_m,
    )


def write_evaluation(
    evaluation: Evaluation,
    candidates: Sequence[Candidate],
    source: SceneSet,
    out: Path,
    options: EvalOptions,
) -> None:
    """report.json, report.html, the first one's confusion matrix and pictures."""
    report = evaluation.first
    of_images: dict[str, object] = {"by_image": report.by_image()}
    if len(evaluation.reports) > 1:
        of_images = {"by_image": [one.by_image() for one in evaluation.reports]}
    text = json.dumps(evaluation.to_json() | of_images, indent=1)
    write_atomically(out / "report.json", (text + "\n").encode())
    write_atomically(out / "confusion.csv", confusion_csv(report.pooled, report.classes).encode())
    with replacing(out / "confusion.png") as partial:
        draw_confusion(report.pooled, report.classes).save(partial, format="PNG")
    draw_pictures(candidates[0], source, report, out / "pictures", options.pictures)
