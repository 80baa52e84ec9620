"""Whatever is judged: a model, or what some other tool has made of the same scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.types import Footprints, GeoGrid, Mask, Scene
from rooftrace.core.versions import installed
from rooftrace.data.shapes import mended_polygons
from rooftrace.io.legend import Legend
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor

__all__ = ["Answer", "Candidate", "ModelCandidate", "in_pixels"]

_RECORDED = ("rooftrace", "openvino", "onnxruntime", "numpy", "rasterio", "shapely")


@dataclass(frozen=True)
class Answer:
    """What is said of one scene.

    Args:
        mask: class indices on the scene's grid; not valid where nothing is said.
        outlines: (n,) polygons of the buildings in pixels of the image, x right and y down.
        score: (n,) float32 in 0..1 of each; None where there is none.
        probability: (y, x) uint8, of the building in 255ths; None where it is not known.
        instances: (y, x) int32, the number of the building at each pixel, from 1; else 0. Of what
            was no polygon at first: outlines that follow pixels would draw other pixels, and
            `score` is by these numbers. None: those that `outlines` draw.
    """

    mask: Mask
    outlines: NDArray[np.object_]
    score: NDArray[np.float32] | None = None
    probability: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None


class Candidate(Protocol):
    """What is judged."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def building_class(self) -> int: ...
    @property
    def legend(self) -> Legend: ...
    @property
    def threshold(self) -> float | None:
        """On the building's probability; None where there is none."""
        ...

    @property
    def threshold_from(self) -> str:
        """Where the threshold comes from, in words."""
        ...

    @property
    def context(self) -> dict[str, Any]:
        """What the report says of it."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, for the person to see."""
        ...

    def answer(self, scene: Scene) -> Answer:
        """What it says of a scene.

        Raises:
            RooftraceError: as its kind gives cause.
        """
        ...


@dataclass(frozen=True)
class ModelCandidate:
    """A model, at one threshold.

    Args:
        predictor: the model.
        chosen: the threshold that the person gave; None for the model's own.
        tta: how tiles are mirrored, for the record.
        pixels_only: no polygons are made.
    """

    predictor: Predictor
    chosen: float | None = None
    tta: str | None = None
    pixels_only: bool = False

    def __post_init__(self) -> None:
        # Refuses a threshold that the model cannot have before anything is predicted.
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
            "engine": {
                "name": engine.name,
                "precision": engine.precision,
                "settings": getattr(engine, "settings", {}),
            },
            "tta": self.tta,
            "versions": installed(_RECORDED),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(getattr(self.predictor.engine, "notes", ()))

    def answer(self, scene: Scene) -> Answer:
        spec, grid = self.predictor.bundle.spec, scene.image.grid
        probability = np.zeros(grid.shape, np.uint8) if spec.is_binary else None

        def keep(block: Block) -> None:
            if probability is not None:
                probability[block.window.slices()] = block.score

        options = SceneOptions(
            gsd_m=scene.said_gsd_m,
            threshold=self.chosen,
            outputs=("mask",) if self.pixels_only else ("mask", "polygons"),
        )
        prediction = self.predictor.predict(scene.image, options=options, on_block=keep)
        buildings = prediction.outlines.of_class(spec.building_class)
        return Answer(prediction.mask, in_pixels(buildings, grid), buildings.score, probability)


def in_pixels(buildings: Footprints, grid: GeoGrid) -> NDArray[np.object_]:
    """(n,) the polygons on the pixels of a grid in whose CRS they are."""
    # Without a system footprints are in pixels.
    if buildings.crs is None or not len(buildings):
        return buildings.geometry
    back = ~grid.transform

    def place(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(back @ xy.T, axis=1)

    moved = np.asarray(shapely.transform(buildings.geometry, place), np.object_)
    # Rounding may make the sides of a narrow place cross.
    return mended_polygons(moved)
