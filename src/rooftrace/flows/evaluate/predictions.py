"""Predictions to evaluate: those of a model, or those that another tool has written to files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.machine import installed_versions
from rooftrace.core.types import Footprints, GeoGrid, Mask, Scene
from rooftrace.io.legend import Legend
from rooftrace.io.make_valid import valid_polygons
from rooftrace.predict.block import Block
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice, applied_tta

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


class PredictionSource(Protocol):
    """Predictions of one model or tool for all scenes."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class index, the background first."""
        ...

    @property
    def building_class(self) -> int:
        """Class index of buildings."""
        ...

    @property
    def legend(self) -> Legend:
        """Colours of the classes."""
        ...

    @property
    def threshold(self) -> float | None:
        """Threshold on the building's probability; None where there is none."""
        ...

    @property
    def threshold_from(self) -> str:
        """Origin of the threshold, in words."""
        ...

    @property
    def context(self) -> dict[str, Any]:
        """Entries for the report: what was evaluated, and how."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions, for the user."""
        ...

    def predict(self, scene: Scene) -> ScenePrediction:
        """Return the prediction for a scene.

        Raises:
            RooftraceError: The scene cannot be predicted, or its files cannot be read.
        """
        ...


@dataclass(frozen=True)
class ModelPredictions:
    """Predictions of a model at one threshold.

    Args:
        predictor: The model.
        chosen: Threshold that the user gave; None for the model's own.
        tta: Test-time augmentation that the predictor was loaded with, see `applied_tta`.
        pixels_only: True makes no polygons.
        images: Bands, stretch and scale with which images are read.
    """

    predictor: Predictor
    chosen: float | None = None
    tta: TtaChoice | None = None
    pixels_only: bool = False
    images: SceneOptions = AS_FOUND

    def __post_init__(self) -> None:
        # Fail before the first prediction if the model cannot have this threshold.
        self.predictor.threshold_for(self.chosen)

    @property
    def name(self) -> str:
        return self.predictor.bundle.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.predictor.bundle.spec.classes

    @property
    def building_class(self) -> int:
        return self.predictor.bundle.spec.building_class

    @property
    def legend(self) -> Legend:
        return self.predictor.bundle.spec.legend

    @property
    def threshold(self) -> float | None:
        return self.predictor.threshold_for(self.chosen)

    @property
    def threshold_from(self) -> str:
        if self.threshold is None:
            return "none: the most probable class is taken"
        return "the bundle" if self.chosen is None else "given on the command line"

    @property
    def context(self) -> dict[str, Any]:
        bundle, engine = self.predictor.bundle, self.predictor.engine
        return {
            "bundle": {"name": bundle.spec.name, "sha256": bundle.sha256},
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "gsd_m": bundle.spec.gsd_m,
            "images_read": {
                "bands": self.images.bands,
                "stretch": self.images.stretch,
                "scale": self.images.scale,
            },
            "engine": {
                "name": engine.name,
                "precision": engine.precision,
                "settings": getattr(engine, "settings", {}),
            },
            "tta": applied_tta(bundle, self.tta),
            "versions": installed_versions(_RECORDED),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(getattr(self.predictor.engine, "notes", ()))

    def predict(self, scene: Scene) -> ScenePrediction:
        spec, grid = self.predictor.bundle.spec, scene.image.grid
        probability = np.zeros(grid.shape, np.uint8) if spec.is_binary else None

        def keep(block: Block) -> None:
            if probability is not None:
                probability[block.window.slices()] = block.score

        options = replace(
            self.images,
            gsd_m=scene.stated_gsd_m,
            threshold=self.chosen,
            outputs=("mask",) if self.pixels_only else ("mask", "polygons"),
        )
        prediction = self.predictor.predict(scene.image, options=options, on_block=keep)
        buildings = prediction.outlines.of_class(spec.building_class)
        return ScenePrediction(
            prediction.mask, in_pixels(buildings, grid), buildings.score, probability
        )


def in_pixels(buildings: Footprints, grid: GeoGrid) -> NDArray[np.object_]:
    """Return the (n,) polygons in pixels of a grid that has their CRS."""
    # Footprints without a CRS are in pixels.
    if buildings.crs is None or not len(buildings):
        return buildings.geometry
    moved = np.asarray(shapely.transform(buildings.geometry, grid.to_pixels), np.object_)
    # Rounding can make the sides of a narrow part cross.
    return valid_polygons(moved)
