"""`rooftrace evaluate`: agreement of models, or of predictions of other tools, with labels.

`run_evaluate` is the whole road: open the predictions and the labels, predict scene by scene,
count, and write the report. Predictions of other tools may be compared with labels that have no
imagery.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import expand_path
from rooftrace.core.errors import BundleError, ConfigError, DataError, LayoutError
from rooftrace.core.parallel import prefetched
from rooftrace.core.text import distinct, plural
from rooftrace.core.types import GeoGrid, LabelReader, Progress, Scene, Window
from rooftrace.density.files import DEFAULT_THRESHOLD, write_table
from rooftrace.flows.evaluate.evaluation import Evaluation, check_leakage, evaluation_page
from rooftrace.flows.evaluate.label_doubts import LabelDoubts
from rooftrace.flows.evaluate.prediction_files import open_predictions
from rooftrace.flows.evaluate.prediction_names import PredictionFiles, find_predictions, plain_name
from rooftrace.flows.evaluate.predictions import Predictions, ScenePrediction, of_model
from rooftrace.flows.labelled_predictions import ScaleCounts, select_part, training_labels
from rooftrace.io.area import Area, read_area
from rooftrace.io.files import write_atomically, write_json
from rooftrace.io.gdal import number_polygons
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.raster import open_image
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.derived import GroundTruth, check_background, limit_label
from rooftrace.labels.folders import IMAGES, select
from rooftrace.labels.kinds import open_source
from rooftrace.labels.mask_source import LabelFile
from rooftrace.labels.rle import Order, RleTable, is_table
from rooftrace.labels.rle_source import RunsLabel, deduce_order
from rooftrace.labels.source import SceneEntry, SceneSet, by_id, place_of
from rooftrace.labels.split import group_by_pattern
from rooftrace.metrics.image_counts import ImageCounts, ScenePair, score_scene
from rooftrace.metrics.objects import CocoCollector
from rooftrace.metrics.pixel import ThresholdCurve
from rooftrace.metrics.report import EvalReport
from rooftrace.models.spec import Output
from rooftrace.predict.model_set import Combine, Models, model_paths, read_models
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import TtaChoice


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation.

    Args:
        split: `FILE:PART` to choose scenes; None for all.
        threshold: Threshold on the building's probability, for two classes. Default: that of the
            bundle; for files 0.5.
        engine, precision: Engine and precision; default as in `rooftrace predict`.
        ensemble: Method that combines several bundles into one model. None: each is evaluated by
            itself, and they are compared.
        tta: Test-time augmentation of each model; default that of its contract.
        min_area_m2: Area below which buildings are ignored.
        cell_m: Side in metres of the cells of the built-up share.
        order: Order of run lengths in predictions; None to deduce it.
        size_yx: Rows and columns of the images of a label table that has no images.
        images: Bands, stretch and scale with which models read images.
        group_pattern: Regular expression whose first group, in the id of a scene, is its place;
            None for the folder.
    """

    split: str | None = None
    threshold: float | None = None
    engine: str | None = None
    precision: str | None = None
    ensemble: Combine | None = None
    weights: tuple[float, ...] | None = None
    tta: TtaChoice | None = None
    min_area_m2: float = 0.0
    cell_m: float = 100.0
    pixels_only: bool = False
    order: Order | None = None
    size_yx: tuple[int, int] | None = None
    images: SceneOptions = AS_FOUND
    group_pattern: str | None = None


def run_evaluate(
    bundles: Models,
    folder: SourceConfig,
    out: Path | None,
    options: EvalOptions,
    *,
    predictions: Sequence[Path] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every labelled image as `rooftrace predict` does, and compare with the labels.

    With a single refined bundle, its segmenter alone is another model. Predictions that exist as
    files are evaluated in the same way.

    Args:
        bundles: One bundle, several, an empty list for none, or None for the default model.
        folder: The labelled data, see `SourceConfig`; for `predictions` without a bundle it may be
            labels without imagery, see `open_truth`.
        out: Folder for the report, see `write_evaluation`; None writes nothing.
        predictions: Files and folders with predictions of the same scenes by other tools or by
            `rooftrace predict`; each is evaluated by itself.

    Raises:
        ConfigError: There is nothing to evaluate; the engine or precision does not exist; a
            threshold is given for more than two classes; a model needs images, and the labels have
            none.
        DataError: No image is labelled, the split contains no image of the folder, files cannot be
            read, or predictions do not fit the labels.
        BundleError: A bundle cannot be read, or classes cannot be compared.
    """
    files = [find_predictions(path) for path in predictions]
    models = _load_models(bundles, options)
    scenes = _open_scenes(models, files, folder, options)
    meaning = folder.labels or _labels_of(models) or LabelConfig()
    external = open_predictions(files, scenes, meaning, options, folder)
    evaluated = [*models, *external]

    reports = compare_with_labels(evaluated, scenes, options, data=folder, progress=progress)
    leaks = check_leakage([one.bundle for one in models if one.bundle is not None], scenes)
    evaluation = Evaluation(tuple(reports), leaks)

    if out is not None:
        write_evaluation(evaluation, evaluated, scenes, out)
    return evaluation


def _load_models(bundles: Models, options: EvalOptions) -> list[Predictions]:
    """Return the models; behind a single refined one its segmenter alone."""
    paths = model_paths(bundles)
    if options.ensemble is None and options.weights is not None:
        raise ConfigError(
            "Weights were given, but the models are not combined.",
            remedy="Add --ensemble weighted.",
        )

    def load(models: Models, output: Output = "probabilities") -> Predictions:
        how, weights = options.ensemble or "average", options.weights
        predictor = read_models(
            models, how, weights=weights, tta=options.tta, engine=options.engine,
            precision=options.precision, output=output,
        ).ready()  # fmt: skip
        return of_model(
            predictor, options.threshold, options.tta,
            pixels_only=options.pixels_only, images=options.images,
        )  # fmt: skip

    if options.ensemble is not None and paths:
        return [load(paths)]
    models = [load(path) for path in paths]
    bundle = models[0].bundle if len(models) == 1 else None
    if bundle is not None and bundle.spec.is_refined:
        segmenter = load(paths, output="coarse")
        # It was trained on the same ground, which one check finds.
        models.append(replace(segmenter, name=f"{segmenter.name}, segmenter alone", bundle=None))
    return models


def _open_scenes(
    models: Sequence[Predictions],
    files: Sequence[PredictionFiles],
    folder: SourceConfig,
    options: EvalOptions,
) -> SceneSet:
    """Open the labelled scenes."""
    if not (models or files):
        raise ConfigError(
            "There is nothing to evaluate.",
            remedy="Name a bundle before DATA (default is the one that comes with rooftrace), or "
            "files with --predictions.",
        )
    labels, data = _labels_of(models), expand_path(folder.path, Path(), key="path")
    if any(one.vectors for one in files) and not (folder.area or is_vector_file(data)):
        # The layer is one of the predictions.
        folder = folder.model_copy(update={"layer": None})
    scenes = open_truth(folder, labels, accept_labels_alone=bool(files), size_yx=options.size_yx)
    scenes = select_part(scenes, options.split, folder.path)
    if options.group_pattern is not None:
        places = group_by_pattern(scenes.ids, options.group_pattern)
        pairs = zip(scenes.entries, places, strict=True)
        entries = tuple(replace(entry, group=place) for entry, place in pairs)
        scenes = replace(scenes, entries=entries)
    if not len(scenes):
        count = plural(len(scenes.with_unlabelled()), "image")
        raise DataError(
            f"{folder.path} has {count} and no label for any; expected labelled images.",
            remedy=" ".join(scenes.notes)
            or "Put the masks beside the images, or name their layout with --layout; or give "
            "a label file, such as footprints, with --truth FILE.",
        )
    if models and isinstance(scenes.open_scene, _OpenWithoutImage):
        raise ConfigError(
            f"{folder.path} is labels without imagery, but {models[0].name} needs images.",
            remedy="Evaluate --predictions alone, or give the images with --images.",
        )
    check_background(scenes)
    return scenes


def _labels_of(models: Sequence[Predictions]) -> LabelConfig | None:
    """Return the meaning of labels in the training of the first model; None without a model."""
    bundle = models[0].bundle if models else None
    return None if bundle is None else training_labels(bundle)


def compare_with_labels(
    predictions: Sequence[Predictions],
    scenes: SceneSet,
    options: EvalOptions,
    *,
    data: SourceConfig | None = None,
    progress: Progress | None = None,
) -> list[EvalReport]:
    """Compare predictions of several models or tools with the labels of a set.

    Every scene is read once. While one scene is counted, the next is predicted.

    Args:
        data: Where the scenes are from, for the record of the conditions; None for no record.

    Returns:
        One report for each of `predictions`.

    Raises:
        BundleError: The classes differ.
    """
    _check_classes(predictions)
    counters = [_Counter(one, options) for one in predictions]
    masks, pairs_of_scenes = 0, _predict_scenes(predictions, scenes, options)
    doubts, building_class = LabelDoubts(), predictions[0].building_class
    with closing(prefetched(pairs_of_scenes, 1, "predictions")) as predicted:
        for number, (scene, truth, pairs) in enumerate(predicted):
            masks += truth.is_mask and len(truth.outlines) > 0
            first = pairs[0][1]
            doubts.add(
                first.truth == building_class, first.predicted == building_class, first.valid
            )
            for counter, (prediction, pair) in zip(counters, pairs):
                counter.add(scene, prediction, pair)
            if progress is not None:
                progress(number + 1, len(scenes))
    notes = (*doubts.notes(), *scenes.notes, *note_on_masks(masks, len(scenes)))
    context = {} if data is None else {
        "data": data.path, "imagery": data.images, "part": data.part, "split": options.split,
        "min_area_m2": options.min_area_m2, "cell_m": options.cell_m,
    }  # fmt: skip
    return [counter.report(notes, context) for counter in counters]


def _check_classes(predictions: Sequence[Predictions]) -> None:
    first = predictions[0]
    for other in predictions[1:]:
        if (other.classes, other.building_class) != (first.classes, first.building_class):
            raise BundleError(
                f"The classes of {other.name} are {', '.join(other.classes)}, but those of "
                f"{first.name} are {', '.join(first.classes)}.",
                remedy="Compare models with the same classes.",
            )


def _predict_scenes(
    predictions: Sequence[Predictions], scenes: SceneSet, options: EvalOptions
) -> Generator[tuple[Scene, GroundTruth, list[tuple[ScenePrediction, ScenePair]]], None, None]:
    """Yield each scene with its label and its predictions, each paired with the label.

    All reading and drawing happens here, in one thread: GDAL's bindings silence warnings in a way
    that another thread would undo.
    """
    for scene in scenes:
        if options.pixels_only:
            truth = _pixel_truth(scene)
        else:
            truth = GroundTruth.of(scene, predictions[0].building_class)
        numbers = number_polygons(truth.outlines, Window.whole(truth.instances.shape))
        predicted = [one.predict(scene) for one in predictions]
        yield scene, truth, [(one, _pair(scene, truth, numbers, one)) for one in predicted]


def _pixel_truth(scene: Scene) -> GroundTruth:
    """Return the label of a scene without its buildings."""
    assert scene.label is not None
    mask = scene.label.read(Window.whole(scene.image.grid.shape))
    return GroundTruth(mask, np.zeros(mask.data.shape, np.int32), np.zeros(0, np.object_))


def _pair(
    scene: Scene, truth: GroundTruth, truth_numbers: NDArray[np.int32], predicted: ScenePrediction
) -> ScenePair:
    return ScenePair(
        truth=truth.mask.data,
        predicted=predicted.mask.data,
        valid=truth.mask.valid & predicted.mask.valid,
        instances=truth.instances,
        truth_outlines=truth.outlines,
        outlines=predicted.outlines,
        truth_numbers=truth_numbers,
        numbers=number_polygons(predicted.outlines, Window.whole(truth.instances.shape)),
        score=predicted.score,
        gsd_m=scene.gsd_m or scene.image.grid.gsd_m,
        predicted_instances=predicted.instances,
    )


class _Counter:
    """Counts of one model or tool, scene after scene."""

    def __init__(self, predictions: Predictions, options: EvalOptions) -> None:
        self._predictions = predictions
        self._options = options
        self._images: list[ImageCounts] = []
        self._curve: ThresholdCurve | None = None
        self._coco = None if options.pixels_only else CocoCollector()
        self._scales = ScaleCounts()
        self._without_metres = 0

    def add(self, scene: Scene, prediction: ScenePrediction, pair: ScenePair) -> None:
        """Count one scene."""
        building_class, options = self._predictions.building_class, self._options
        self._scales.add(scene)
        self._without_metres += pair.gsd_m is None
        self._images.append(
            score_scene(
                pair, scene_id=scene.id, classes=len(self._predictions.classes),
                building_class=building_class, min_area_m2=options.min_area_m2,
                cell_m=options.cell_m, dense_from=DEFAULT_THRESHOLD.threshold,
                group=scene.group, pixels_only=options.pixels_only,
            )
        )  # fmt: skip
        if self._coco is not None and prediction.score is not None:
            self._coco.add(scene.id, pair.instances, pair.buildings, prediction.score, pair.valid)
        if prediction.probability is not None:
            self._curve = self._curve or ThresholdCurve()
            self._curve.add(pair.truth == building_class, prediction.probability, pair.valid)

    def report(self, notes: tuple[str, ...], context: Mapping[str, Any]) -> EvalReport:
        """Return the report over all scenes."""
        predictions, coco = self._predictions, self._coco
        own_notes: list[str] = []
        model_gsd_m = predictions.context.get("gsd_m")
        if model_gsd_m is not None:
            own_notes += self._scales.notes(model_gsd_m, self._options.images)
        if self._options.pixels_only:
            own_notes.append("Only pixels were compared, not single buildings.")
        if self._without_metres and self._options.min_area_m2:
            count = plural(self._without_metres, "image")
            own_notes.append(
                f"--min-area was not applied to {count} without metres per pixel; state them, such "
                "as --set gsd_m=0.3."
            )
        return EvalReport(
            tuple(self._images), predictions.classes, predictions.building_class,
            {**context, **predictions.context},
            notes=(*notes, *predictions.notes_so_far(), *own_notes), name=predictions.name,
            curve=self._curve, coco=coco.figures() if coco is not None and len(coco) else None,
        )  # fmt: skip


def write_evaluation(
    evaluation: Evaluation,
    predictions: Sequence[Predictions],
    scenes: SceneSet,
    out: Path,
    verdict: str = "",
) -> None:
    """Write report.json, report.html and the tables figures.csv, places.csv and images.csv.

    Args:
        verdict: See `evaluation_page`.
    """
    document = evaluation.to_json()
    rows: dict[str, list[dict[str, Any]]] = {"figures": [], "places": [], "images": []}
    models = distinct([report.name for report in evaluation.reports])
    for model, report, plain in zip(
        models, evaluation.reports, document.get("reports", [document]), strict=True
    ):
        plain["by_image"] = report.by_image()
        rows["figures"] += ({"model": model, **row} for row in report.figure_rows())
        rows["places"] += ({"model": model, **row} for row in report.by_place())
        for row in plain["by_image"]:
            rows["images"].append({"model": model, **row})
    write_json(out / "report.json", document)
    for name, table in rows.items():
        write_table(out / f"{name}.csv", list(table[0]), [list(row.values()) for row in table])
    page = evaluation_page(evaluation, predictions, scenes, verdict)
    write_atomically(out / "report.html", page.encode())


def note_on_masks(masks: int, scenes: int) -> tuple[str, ...]:
    """Return the note that buildings in masks are not divided."""
    if not masks:
        return ()
    which = "The labels" if masks == scenes else f"The labels of {plural(masks, 'image')}"
    return (f"{which} are masks of pixels: touching buildings count as one.",)


_NO_IMAGERY = (
    "glob", "chip_px", "label_shift_px", "nodata", "part", "order",
    "field", "layer", "layout", "annotator", "zoom", "area",
)  # fmt: skip
"""Fields of `SourceConfig` that may have no meaning where there is no imagery."""


def open_truth(
    config: SourceConfig,
    labels: LabelConfig | None,
    *,
    accept_labels_alone: bool,
    size_yx: tuple[int, int] | None = None,
) -> SceneSet:
    """Open labels with their imagery as `open_source` does, or without imagery.

    Without imagery, a mask has its own size, and the masks of a table have `size_yx`.

    Args:
        config: Location of the labels, and how they are read.
        labels: Meaning of the labels, unless `config` gives it; None: buildings, unless a card of
            the data gives it.
        accept_labels_alone: False if labels need imagery.
        size_yx: Rows and columns of the images of a table of run lengths that has no images.

    Raises:
        ConfigError: An option has no use for such labels.
        DataError and its kinds: See `open_source`; or the grid of the labels is unknown.
    """
    path = expand_path(config.path, Path(), key="path")
    meaning = config.labels or labels or LabelConfig()
    if size_yx is not None:
        if not (path.is_file() and is_table(path)):
            raise ConfigError(
                f"--size was given, but {path} is not a table of run lengths.",
                remedy="Leave it out; other labels have their own size.",
            )
        return _table(path, config, meaning, size_yx)
    try:
        source = open_source(config, labels)
    except DataError as error:
        if not accept_labels_alone or type(error) not in (DataError, LayoutError):
            raise
        if path.is_file() and is_table(path):
            remedy = (
                "Give the images with --images or, if there are none, their size with "
                "--size ROWSxCOLUMNS."
            )
        elif is_vector_file(path) and config.images is None:
            remedy = (
                "Give the images with --images; a predicted mask serves, too. Two layers of "
                "polygons without imagery: rooftrace compare NEW --reference MAP"
            )
        else:
            raise
        raise DataError(error.message, remedy=remedy) from error
    if source.kind == IMAGES.name and not source.entries and accept_labels_alone:
        return _masks(source, config, meaning)
    return source


@dataclass(frozen=True)
class _OpenWithoutImage:
    """Function that opens an entry as a scene on a blank image.

    Args:
        label_of: Function that returns the label of an entry on a grid.
        gsd_m: Metres per pixel; None for those of the grid.
        area: Area outside which labels are unknown; None for none.
    """

    grid_of: Callable[[SceneEntry], GeoGrid]
    label_of: Callable[[SceneEntry, GeoGrid], LabelReader]
    gsd_m: float | None = None
    area: Area | None = None

    def __call__(self, entry: SceneEntry) -> Scene:
        grid = self.grid_of(entry)
        image = BlankSource(grid, entry.id)
        label = self.label_of(entry, grid)
        scene = Scene(entry.id, image, label, entry.group, self.gsd_m or grid.gsd_m)
        return scene if self.area is None else limit_label(scene, self.area)


def _masks(source: SceneSet, config: SourceConfig, labels: LabelConfig) -> SceneSet:
    """Open images without labels as labels."""
    _check_options(config, "glob", "part", "area", *(("layer",) if config.area else ()))
    area = None
    if config.area is not None:
        area = read_area(expand_path(config.area, Path(), key="area"), config.layer)
    entries = tuple(replace(entry, image=None, key=entry.image) for entry in source.unlabelled)
    note = f"{config.path} holds no labels beside images: its {len(entries)} rasters are labels."
    rule = labels.rule()
    opener = _OpenWithoutImage(
        lambda entry: open_image(entry.key).grid,
        lambda entry, grid: LabelFile(entry.key, rule, grid, entry.id),
        config.gsd_m,
        area,
    )
    return replace(
        source, kind="masks", entries=entries, unlabelled=(), reading="masks without images",
        open_scene=opener, notes=(*source.notes, note),
    )  # fmt: skip


def _table(
    path: Path, config: SourceConfig, labels: LabelConfig, size_yx: tuple[int, int]
) -> SceneSet:
    """Open a table of run lengths."""
    _check_options(config, "part", "order")
    table = RleTable.read(path)
    ids = {name: plain_name(name) for name in table.cells()}
    if len(set(ids.values())) < len(ids):
        ids = {name: name for name in ids}
    entries = [
        SceneEntry(ids[name], None, place_of(ids[name]), cells)
        for name, cells in table.cells().items()
    ]
    kept = select(by_id(entries), config.part)

    def opener(order: Order) -> _OpenWithoutImage:
        return _OpenWithoutImage(
            lambda _: GeoGrid(size_yx),
            lambda entry, grid: RunsLabel(entry.key, order, labels.building_class, grid),
            config.gsd_m,
        )

    order, note = config.order, ""
    if order is None:
        remedy = "Give it with --set order=row or --set order=column."
        cells = {entry.id: entry.key for entry in kept}
        order, note = deduce_order(table, cells, kept, opener("row"), remedy)
    return SceneSet(
        name=config.name or path.stem,
        kind="rle",
        classes=labels.classes,
        building_class=labels.building_class,
        entries=kept,
        open_scene=opener(order),
        reading=f"{len(table.rows)} rows without images",
        notes=(note,) if note else (),
    )


def _check_options(config: SourceConfig, *used: str) -> None:
    """Raise an error for options that would be ignored."""
    for name in _NO_IMAGERY:
        default = SourceConfig.model_fields[name].default
        if name not in used and getattr(config, name) != default:
            raise ConfigError(
                f"The option {name} was given, but {config.path} is labels without imagery, "
                "which do not use it.",
                remedy="Leave it out, or give the images with --images.",
            )
