"""Labelled scenes beside what a model makes of them."""

from __future__ import annotations

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from rooftrace.core.errors import BundleError, DataError
from rooftrace.core.types import Footprints, GeoGrid, Mask, Scene, Window
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.data.separation import building_instances, told_instances
from rooftrace.data.source import SceneSet
from rooftrace.data.split import parse_reference, read_split
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.result import Prediction

__all__ = [
    "beside_label",
    "buildings_of",
    "drawn_buildings",
    "labelled_buildings",
    "labels_of",
    "numbered_on",
    "open_labelled",
    "part_of",
]


def open_labelled(predictor: Predictor, folder: SourceConfig, split: str | None) -> SceneSet:
    """The scenes that a model is compared on, their labels read as in its training.

    Args:
        predictor: the bundle's record has the palette, if any.
        folder: the data.
        split: `FILE:PART`, or None for all of it.

    Raises:
        DataError: the split leaves no image of the folder.
        BundleError: the record of the labels cannot be read.
    """
    return part_of(open_source(folder, labels_of(predictor)), split, folder.path)


def part_of(source: SceneSet, split: str | None, data: str) -> SceneSet:
    """The scenes of one part of a split.

    Args:
        split: `FILE:PART`, or None for all of them.
        data: where they lie, for errors.

    Raises:
        ConfigError: there is no such split or part.
        DataError: it has none of the scenes.
    """
    if split is None:
        return source
    path, part = parse_reference(split)
    chosen = source.subset(read_split(path).ids(part, source=str(path)))
    if not len(chosen):
        raise DataError(
            f"None of the ids of {split} is an image of {data}.",
            remedy="Make the split from this data: rooftrace split DATA -o split.json",
        )
    return chosen


def labels_of(predictor: Predictor) -> LabelConfig:
    """What labels mean, as in the training of a model.

    Raises:
        BundleError: the record of it cannot be read.
    """
    spec = predictor.bundle.spec
    recorded = spec.training.get("data", {}).get("labels")
    if recorded is None:
        return LabelConfig(classes=spec.classes, building=spec.classes[spec.building_class])
    try:
        return LabelConfig.model_validate(recorded)
    except ValueError as error:
        raise BundleError(
            f"The bundle {predictor.bundle.source} records labels that cannot be read: {error}.",
            remedy="Export it again with rooftrace train.",
        ) from error


def beside_label(
    predictor: Predictor, scene: Scene, threshold: float | None
) -> tuple[Mask, Prediction]:
    """The label of a scene, and the prediction."""
    assert scene.label is not None
    truth = scene.label.read(Window.whole(scene.image.grid.shape))
    return truth, predictor.predict(scene.image, gsd_m=scene.said_gsd_m, threshold=threshold)


def labelled_buildings(scene: Scene, truth: Mask, building_class: int) -> NDArray[np.int32]:
    """(y, x) the number of the labelled building at each pixel, from 1; else 0."""
    return building_instances(truth.data == building_class, told_instances(scene.label))


def buildings_of(prediction: Prediction, building_class: int) -> Footprints:
    """The footprints of buildings."""
    return prediction.outlines.of_class(building_class)


def drawn_buildings(prediction: Prediction, building_class: int) -> NDArray[np.int32]:
    """(y, x) the number of the footprint of a building at each pixel, from 1; else 0."""
    return numbered_on(prediction.mask.grid, buildings_of(prediction, building_class))


def numbered_on(grid: GeoGrid, buildings: Footprints) -> NDArray[np.int32]:
    """(y, x) of a grid the number of the footprint at each pixel, from 1; else 0."""
    drawn = np.zeros(grid.shape, dtype=np.int32)
    if len(buildings):
        # Without a system footprints are in pixels.
        transform = Affine.identity() if buildings.crs is None else grid.transform
        numbered = zip(buildings.geometry, range(1, len(buildings) + 1))
        rasterize(numbered, out=drawn, transform=transform)
    return drawn
