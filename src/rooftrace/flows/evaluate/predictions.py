"""Predictions to evaluate: those of a model, or those that another tool has written to files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.system import installed_versions
from rooftrace.core.types import Footprints, GeoGrid, Mask, Scene
from rooftrace.flows.labelled_predictions import SetProbabilities, footprints_at, level_of
from rooftrace.io.legend import Legend
from rooftrace.io.make_valid import valid_polygons
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.block import Block
from rooftrace.predict.plan import AS_FOUND, SceneOptions, threshold_for
from rooftrace.predict.predictor import Predictor, TtaChoice, applied_tta

_RECORDED = ("rooftrace", "openvino", "onnxruntime", "numpy", "rasterio", "shapely")


@dataclass(frozen=True)
class ScenePrediction:
    """Prediction for one scene.

    Args:
        mask: Class indices on the scene's grid; invalid pixels have no prediction.
        outlines: (n,) polygons of the buildings in pixels of the image, x right and y down.
        score: (n,) float32 score of each building in 0..1; None where there are no scores.
        probability: (y, x) uint8 probability of the building in 255ths; None where it is not known.
        instances: (y, x) int32 number of the building at each pixel, from 1; 0 for none. It is
            given for predictions that were not polygons originally: traced outlines would cover
            other pixels, and `score` follows these numbers. None: the buildings are those that
            `outlines` cover.
    """

    mask: Mask
    outlines: NDArray[np.object_]
    score: NDArray[np.float32] | None = None
    probability: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model or tool for all scenes.

    Args:
        classes: Names by class index, the background first.
        context: Entries for the report: what was evaluated, and how; `threshold` on the building's
            probability, None where there is none, and its origin in words, `threshold_from`.
        predict: Function that returns the prediction for a scene. It raises RooftraceError if the
            scene cannot be predicted, or its files cannot be read.
        notes_so_far: Function that returns assumptions, for the user.
        bundle: The model; None for predictions in files.
    """

    name: str
    classes: tuple[str, ...]
    building_class: int
    legend: Legend
    context: dict[str, Any]
    predict: Callable[[Scene], ScenePrediction]
    notes_so_far: Callable[[], tuple[str, ...]] = tuple
    bundle: ModelBundle | None = None


def of_model(
    predictor: Predictor,
    chosen: float | None = None,
    tta: TtaChoice | None = None,
    *,
    pixels_only: bool = False,
    images: SceneOptions = AS_FOUND,
) -> Predictions:
    """Return the predictions of a model at one threshold.

    Args:
        chosen: Threshold that the user gave; None for the model's own.
        tta: Test-time augmentation that the predictor was loaded with, see `applied_tta`.
        images: Bands, stretch and scale with which images are read.

    Raises:
        ConfigError: The model cannot have this threshold.
    """
    bundle, engine = predictor.bundle, predictor.engine
    spec = bundle.spec
    threshold = threshold_for(spec, chosen)
    origin = "the bundle" if chosen is None else "given on the command line"
    if threshold is None:
        origin = "none: the most probable class is taken"

    def predict(scene: Scene) -> ScenePrediction:
        grid = scene.image.grid
        probability = np.zeros(grid.shape, np.uint8) if spec.is_binary else None

        def keep(block: Block) -> None:
            if probability is not None:
                probability[block.window.slices()] = block.score

        outputs = ("mask",) if pixels_only else ("mask", "polygons")
        options = images.model_copy(
            update={"gsd_m": scene.stated_gsd_m, "threshold": chosen, "outputs": outputs}
        )
        prediction = predictor.predict(scene.image, options=options, on_block=keep)
        buildings = prediction.outlines.of_class(spec.building_class)
        outlines = in_pixels(buildings, grid)
        return ScenePrediction(prediction.mask, outlines, buildings.score, probability)

    return Predictions(
        name=spec.name, classes=spec.classes, building_class=spec.building_class,
        legend=spec.legend,
        context={
            "bundle": {"name": spec.name, "sha256": bundle.sha256},
            "threshold": threshold,
            "threshold_from": origin,
            "gsd_m": spec.gsd_m,
            "images_read": {
                "bands": images.bands, "stretch": images.stretch, "scale": images.scale,
            },
            "engine": {
                "name": engine.name, "precision": engine.precision,
                "settings": engine.settings,
            },
            "tta": applied_tta(bundle, tta),
            "versions": installed_versions(_RECORDED),
        },
        predict=predict,
        notes_so_far=lambda: tuple(engine.notes),
        bundle=bundle,
    )  # fmt: skip


def of_stored(
    predictor: Predictor, scored: SetProbabilities, *, pixels_only: bool = False
) -> Predictions:
    """Return the predictions of a model with two classes from its stored probabilities.

    Args:
        predictor: The model; its network does not run.
        scored: What it predicts for the scenes that are asked for.
    """
    stored, spec = dict(zip(scored.source.ids, scored)), predictor.bundle.spec
    level = level_of(spec.threshold)

    def predict(scene: Scene) -> ScenePrediction:
        one, grid = stored[scene.id], scene.image.grid
        score = np.asarray(one.score)
        mask = Mask((score >= level).view(np.uint8), np.asarray(one.known), grid)
        if pixels_only:
            return ScenePrediction(mask, np.zeros(0, np.object_), probability=score)
        found = footprints_at(spec, scene, one, level, scored.images)
        return ScenePrediction(mask, in_pixels(found, grid), found.score, score)

    return replace(of_model(predictor, images=scored.images), predict=predict)


def in_pixels(buildings: Footprints, grid: GeoGrid) -> NDArray[np.object_]:
    """Return the (n,) polygons in pixels of a grid that has their CRS."""
    # Footprints without a CRS are in pixels.
    if buildings.crs is None or not len(buildings):
        return buildings.geometry
    moved = np.asarray(shapely.transform(buildings.geometry, grid.to_pixels), np.object_)
    # Rounding can make the sides of a narrow part cross.
    return valid_polygons(moved)
