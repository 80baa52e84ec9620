"""`rooftrace evaluate`: how well models, or files of other tools, agree with labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.ahead import Ahead
from rooftrace.core.config import expand_path
from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError
from rooftrace.core.types import Scene, Window
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.runs import Order
from rooftrace.data.source import SceneSet
from rooftrace.data.truth import Truth
from rooftrace.flows.candidates import Answer, Candidate, ModelCandidate
from rooftrace.flows.evaluation import Evaluation
from rooftrace.flows.gallery import draw_pictures
from rooftrace.flows.labelled import labels_of, part_of
from rooftrace.flows.leaks import check_each
from rooftrace.flows.peer.candidate import FilesCandidate, Reading, open_predictions
from rooftrace.flows.peer.found import Found, find_predictions
from rooftrace.flows.peer.truth import has_imagery, open_truth
from rooftrace.flows.report_page import render
from rooftrace.io.atomic import replacing, write_atomically
from rooftrace.metrics.coco import CocoCollector
from rooftrace.metrics.confusion import confusion_csv, draw_confusion
from rooftrace.metrics.curves import ThresholdCurve
from rooftrace.metrics.report import EvalReport
from rooftrace.metrics.scene import ImageScore, ScenePair, drawn, score_scene
from rooftrace.predict.ensemble import Combine
from rooftrace.predict.model_set import Models, load_models
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
            own, of files half.
        engine, precision: default what `rooftrace predict` would take.
        pictures: at most so many side-by-side pictures of the first model, spread from the worst
            image to the best.
        ensemble: how several bundles are combined into one that is judged; None: each is judged,
            side by side.
        weights: of the ensemble `weighted`.
        tta: each model also sees mirrored tiles, see `Tta`.
        min_area_m2: smaller buildings are not judged.
        cell_m: side of the cells of the built-up share.
        pixels_only: nothing is counted of buildings one by one, and of polygons.
        order: of run lengths that are judged; None: found by looking.
        size_yx: rows and columns of the images of a table of labels, where there are no images.
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
    pixels_only: bool = False
    order: Order | None = None
    size_yx: tuple[int, int] | None = None


def run_evaluate(
    bundles: Models,
    folder: SourceConfig,
    out: Path | None,
    options: EvalOptions,
    *,
    predictions: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every labelled image of a folder as `rooftrace predict` would, and count; of a
    refined bundle also what its segmenter alone would answer. What is predicted already is judged
    beside.

    Args:
        bundles: one, several, an empty list for none, or None for the one that comes with
            rooftrace.
        folder: the data, see `SourceConfig`; held against `predictions` alone, it may be labels
            without imagery, see `open_truth`.
        out: where report.html, report.json, confusion.csv, confusion.png and pictures/ go; None
            writes nothing.
        predictions: files and folders of what other tools, or `rooftrace predict`, have made of
            the same scenes; each is judged by itself.
        progress: called with the images that are done and that there are.

    Raises:
        ConfigError: nothing to judge; no such engine or precision; a threshold for more than two
            classes; a model is to be shown labels without imagery.
        DataError: the split leaves no image of the folder; files cannot be read, or predictions
            do not fit the labels.
        BundleError: a bundle cannot be read, or classes cannot be compared.
    """
    found = [find_predictions(path) for path in predictions]
    models, coarse = _models(bundles, options)
    source, files = _opened(models, found, folder, options)
    candidates: list[Candidate] = [*models, *files]
    judged: list[Candidate] = [*candidates, *coarse]
    reports = judge(judged, source, options, progress=progress)
    reports = [
        replace(
            report,
            context={
                "data": folder.path,
                "part": folder.part,
                "split": options.split,
                "min_area_m2": options.min_area_m2,
                "cell_m": options.cell_m,
            }
            | report.context,
        )
        for report in reports
    ]
    for beside in reports[len(candidates) :]:
        at = {"threshold": beside.context["threshold"]}
        reports[0] = replace(reports[0], coarse=replace(beside, context=at))
    leaks = check_each([model.predictor.bundle for model in models], source, folder)
    evaluation = Evaluation(tuple(reports[: len(candidates)]), leaks)
    if out is not None:
        write_evaluation(evaluation, judged, source, out, options)
    return evaluation


def _opened(
    models: Sequence[ModelCandidate],
    found: Sequence[Found],
    folder: SourceConfig,
    options: EvalOptions,
) -> tuple[SceneSet, list[FilesCandidate]]:
    """The labelled scenes, and the files that are held against them."""
    if not (models or found):
        raise ConfigError(
            "There is nothing to judge.",
            remedy="Name a bundle before DATA (default is the one that comes with rooftrace), or "
            "files with --predictions.",
        )
    labels = labels_of(models[0].predictor) if models else None
    source = open_truth(folder, labels, found, options.size_yx)
    source = part_of(source, options.split, folder.path)
    if models and not has_imagery(source):
        raise ConfigError(
            f"{folder.path} is labels without imagery, and {models[0].name} needs to be shown "
            "images.",
            remedy="Judge --predictions alone, or say where the images lie with --images.",
        )
    reading = Reading(
        options.threshold, options.order,
        chosen=bool(options.split or folder.part or folder.glob),
        objects=not options.pixels_only,
    )  # fmt: skip
    data = expand_path(folder.path, Path(), key="path")
    meant = folder.labels or labels or LabelConfig()
    return source, open_predictions(found, source, meant, data, reading)


def _models(
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
        return ModelCandidate(predictor, options.threshold, options.tta, options.pixels_only)

    if options.ensemble is not None and paths:
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
    cocos, missing = _coco_collectors(len(candidates), wanted=not options.pixels_only)
    with Ahead(_answered(candidates, source, options), 1, "answers") as answered:
        for number, (scene, answers) in enumerate(answered):
            for index, (answer, pair) in enumerate(answers):
                scores[index].append(
                    score_scene(
                        pair, scene_id=scene.id, classes=len(first.classes),
                        building_class=first.building_class, min_area_m2=options.min_area_m2,
                        cell_m=options.cell_m, dense_from=DEFAULT_THRESHOLD.threshold,
                        group=scene.group, pixels_only=options.pixels_only,
                    )
                )  # fmt: skip
                if (coco := cocos[index]) is not None and answer.score is not None:
                    coco.add(scene.id, pair.instances, pair.buildings, answer.score, pair.valid)
                if answer.probability is not None:
                    curve = curves[index] = curves[index] or ThresholdCurve()
                    is_building = pair.truth == first.building_class
                    curve.add(is_building, answer.probability, pair.valid)
            if progress is not None:
                progress(number + 1, len(source))
    return [
        EvalReport(
            tuple(each), first.classes, first.building_class, candidate.context,
            notes=(*source.notes, *candidate.notes, *missing), name=candidate.name, curve=curve,
            coco=coco.figures() if coco is not None and len(coco) else None,
        )
        for candidate, each, curve, coco in zip(candidates, scores, curves, cocos)
    ]  # fmt: skip


def _coco_collectors(
    count: int, *, wanted: bool
) -> tuple[list[CocoCollector | None], tuple[str, ...]]:
    """One for each candidate, or none and a note that says why."""
    if not wanted:
        return [None] * count, ("Only pixels were judged, not buildings one by one.",)
    try:
        return [CocoCollector() for _ in range(count)], ()
    except MissingExtraError as error:
        return [None] * count, (f"without COCO's AP and AR: {error.message} {error.remedy}",)


def _answered(
    candidates: Sequence[Candidate], source: SceneSet, options: EvalOptions
) -> Iterator[tuple[Scene, list[tuple[Answer, ScenePair]]]]:
    """Each scene with what is said of it, laid beside its label.

    All that reads or draws is done here, in one thread: GDAL's bindings silence warnings in a way
    that another thread would undo.
    """
    for scene in source:
        if options.pixels_only:
            truth = _pixels_of(scene)
        else:
            truth = Truth.of(scene, candidates[0].building_class)
        drawn_truth = drawn(truth.outlines, truth.instances.shape)
        answers = [candidate.answer(scene) for candidate in candidates]
        yield scene, [(one, _paired(scene, truth, drawn_truth, one)) for one in answers]


def _pixels_of(scene: Scene) -> Truth:
    """The label of a scene without its buildings."""
    assert scene.label is not None
    mask = scene.label.read(Window.whole(scene.image.grid.shape))
    return Truth(mask, np.zeros(mask.data.shape, np.int32), np.zeros(0, np.object_), False)


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
        found=answer.instances,
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
    page = render(evaluation, candidates[: len(evaluation.reports)], source)
    write_atomically(out / "report.html", page.encode())
    draw_pictures(candidates[0], source, report, out / "pictures", options.pictures)
