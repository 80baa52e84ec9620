"""Images that a brightness model sees buildings in, and results of them."""

from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.app.viewer import Result
from rooftrace.core.types import GeoGrid
from rooftrace.engines.base import ConstantEngine, Engine, PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.io.georeferenced import ArraySource
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scores import KeptPrediction, predict_keeping

SHAPE = (80, 100)
UTM = CRS.from_epsg(32737)


def roofs() -> NDArray[np.uint8]:
    """(band, y, x) a sure building, one that is half as bright, and dark ground."""
    image = np.full((3, *SHAPE), 20, dtype=np.uint8)
    image[:, 10:30, 10:40] = 250
    image[:, 50:70, 60:80] = 140
    return image


def predictor_of(engine: Engine | None = None, **changes: Any) -> Predictor:
    bundle = tiny_bundle()
    spec = bundle.spec.model_copy(update=changes)
    return Predictor(ModelBundle(spec, bundle.parts, bundle.source), engine or PointwiseEngine())


def kept_of(name: str = "town.tif", *, placed: bool = True, valid: Any = None) -> KeptPrediction:
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 9_000_000)
    grid = GeoGrid(SHAPE, transform, UTM) if placed else None
    options = SceneOptions(outputs=("mask", "polygons", "preview"))
    source = ArraySource(roofs(), grid, valid, name)
    return predict_keeping(predictor_of(gsd_m=0.5), source, options=options)


def classes_of() -> KeptPrediction:
    """Return a prediction by a model of three classes that always predicts the last one."""
    predictor = predictor_of(LastOfThree(), classes=("background", "building", "water"))
    options = SceneOptions(outputs=("mask", "polygons", "preview"))
    return predict_keeping(predictor, ArraySource(roofs(), name="lake.png"), options=options)


class LastOfThree(ConstantEngine):
    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        n, _, height, width = batch.shape
        answer = np.full((n, 3, height, width), 0.1, dtype=np.float32)
        answer[:, 2] = 0.8
        return answer


def result_of(name: str = "town.tif", **how: Any) -> Result:
    return Result(name, kept_of(name, **how))
