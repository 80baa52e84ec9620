"""From overhead imagery to a building map.

>>> import rooftrace
>>> model = rooftrace.load()                        # doctest: +SKIP
>>> result = model.predict("scene.tif")             # doctest: +SKIP
>>> result.footprints, result.mask, result.summary  # doctest: +SKIP
>>> result.save("out")                              # doctest: +SKIP
"""

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import Footprints, GeoGrid, Mask, Raster, RasterSource, Window
from rooftrace.predict.predictor import Predictor, load
from rooftrace.predict.result import Prediction

__all__ = [
    "Footprints",
    "GeoGrid",
    "Mask",
    "Prediction",
    "Predictor",
    "Raster",
    "RasterSource",
    "RooftraceError",
    "Window",
    "load",
]
