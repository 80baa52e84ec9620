"""rooftrace makes building maps from overhead imagery.

>>> import rooftrace
>>> model = rooftrace.load()                        # doctest: +SKIP
>>> result = model.predict("scene.tif")             # doctest: +SKIP
>>> result.footprints, result.mask, result.summary  # doctest: +SKIP
>>> result.save("out")                              # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from rooftrace.core.errors import RooftraceError
    from rooftrace.core.types import Footprints, GeoGrid, Mask, Raster, RasterSource, Window
    from rooftrace.io.georeferenced import ArraySource
    from rooftrace.predict.options import SceneOptions
    from rooftrace.predict.outputs import Prediction
    from rooftrace.predict.predictor import Predictor, load

__all__ = [
    "ArraySource",
    "Footprints",
    "GeoGrid",
    "Mask",
    "Prediction",
    "Predictor",
    "Raster",
    "RasterSource",
    "RooftraceError",
    "SceneOptions",
    "Window",
    "load",
]

_MODULES = {
    "core.errors": ("RooftraceError",),
    "io.georeferenced": ("ArraySource",),
    "core.types": ("Footprints", "GeoGrid", "Mask", "Raster", "RasterSource", "Window"),
    "predict.options": ("SceneOptions",),
    "predict.predictor": ("Predictor", "load"),
    "predict.outputs": ("Prediction",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    # Imported on first use: the command line begins before these modules, which take a second.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", *(one for one in globals() if one.startswith("__"))])
