"""What `rooftrace density` is given: a mask, polygons of buildings, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError, LabelError
from rooftrace.core.types import GeoGrid, Window
from rooftrace.data.config import LabelConfig
from rooftrace.data.labels import LabelFile, LabelRule
from rooftrace.io.legend import NODATA
from rooftrace.io.raster import open_raster
from rooftrace.io.vector_read import VectorFile, is_vector_file
from rooftrace.vector.blocks import BlockPolygonizer

__all__ = ["Buildings", "MaskFile", "Progress", "read_buildings", "sort_inputs", "stem_of", "trace"]

Mask8 = NDArray[np.uint8]
Polygons = NDArray[np.object_]
Progress = Callable[[int, int], None]

_BLOCK_PX = 2**24
_BAND_PX = 512
"""Rows of a block are a multiple of it, so that no tile of a GeoTIFF is read twice."""

_ENDINGS = (".tif", ".gpkg", ".png", ".csv", ".json")
_NO_MASK = (
    "A mask holds class indices with 1 for buildings, or 0 and 255. Where it has more classes, or "
    "its 255 is nodata, say which class is buildings: --building 1"
)


@dataclass(frozen=True)
class MaskFile:
    """A mask read by blocks of whole rows: 1 is building, 0 is not, NODATA is not known.

    Args:
        path: of the mask.
        label: reads its classes.
        building_class: the index of buildings among these.
    """

    path: Path
    label: LabelFile
    building_class: int

    @classmethod
    def of(cls, path: Path, building: str | None = None) -> MaskFile:
        """The mask of a file.

        Args:
            building: the class index of buildings; default 1, or 255 where the mask has no 1.

        Raises:
            DataError: the file cannot be read.
            ConfigError: `building` is no class index.
        """
        file = open_raster(path, palette="indices")
        rule, index = LabelConfig().rule(), 1
        if building is None and file.nodata[0] == NODATA and open_raster(path).bands > 1:
            # Class indices with a colour table, as rooftrace writes them: without a building in it
            # the file has no 1, and its 255 is none either.
            rule = LabelRule(rule.classes, values=((0, 0), (1, 1)))
        elif building is not None:
            if not building.isdecimal() or not 0 < int(building) < NODATA:
                raise ConfigError(
                    f"--building received {building!r}; of a mask the index of a class was "
                    f"expected, 1 to {NODATA - 1}.",
                    remedy="Look at the mask's values, for instance: gdalinfo -hist MASK",
                )
            rule, index = LabelRule(tuple(map(str, range(NODATA)))), int(building)
        return cls(path, LabelFile(path, rule, file.grid, path.name), index)

    @property
    def grid(self) -> GeoGrid:
        return self.label.grid

    def blocks(self, progress: Progress | None = None) -> Iterator[tuple[Window, Mask8]]:
        """Windows that partition the mask, from top to bottom, with their values.

        Args:
            progress: called with the pixels that are done and that there are.

        Raises:
            DataError: the file cannot be read.
            LabelError: a value is no class.
        """
        whole = Window.whole(self.grid.shape)
        rows = max(_BLOCK_PX // self.grid.width // _BAND_PX, 1) * _BAND_PX
        for window in whole.strips(rows):
            try:
                mask = self.label.read(window)
            except LabelError as error:
                raise LabelError(error.message, remedy=_NO_MASK) from error
            built = (mask.data == self.building_class).view(np.uint8)
            yield window, np.where(mask.valid, built, np.uint8(NODATA))
            if progress is not None:
                progress(window.row_stop * window.width, whole.area_px)


def trace(shape_yx: tuple[int, int], blocks: Iterable[tuple[Window, Mask8]]) -> Iterator[Polygons]:
    """The regions of what is not 0, in pixels, as they are complete.

    Args:
        blocks: (y, x) masks of windows that partition the scene.
    """
    polygonizer = BlockPolygonizer(shape_yx)
    for window, mask in blocks:
        polygonizer.feed(window, mask, None)
        if polygonizer.ripe:
            polygonizer.join()
        yield polygonizer.take().polygons
    yield polygonizer.finish().polygons


@dataclass(frozen=True)
class Buildings:
    """Polygons of buildings.

    Args:
        path: that they come from.
        geometry: (n,) valid polygons and multipolygons.
        crs: of the geometry.
        notes: what a person should know of them.
    """

    path: Path
    geometry: Polygons
    crs: CRS
    notes: tuple[str, ...]

    @property
    def bounds_xy(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of all of them."""
        left, bottom, right, top = shapely.total_bounds(self.geometry).tolist()
        return left, bottom, right, top


def read_buildings(path: Path, building: str | None = None) -> Buildings:
    """The buildings of a vector file.

    Args:
        building: the class of buildings, by the attribute `class`, where there are several.

    Raises:
        DataError: the file cannot be read, or holds no building.
        ConfigError: it has several classes, and which one is buildings is not said; or it has none
            and that is.
    """
    file = VectorFile(path)
    has_class = "class" in file.fields
    layer = file.read(["class"] if has_class else [])
    geometry = layer.geometry
    names = sorted(set(layer.values["class"])) if has_class else []
    if building is not None or len(names) > 1:
        if building not in names:
            raise ConfigError(
                f"{path} has the classes {names}; --building received {building!r}."
                if names
                else f"{path} has no classes, and --building {building} was given.",
                remedy=f"Say which one is buildings: --building {names[-1]}"
                if names
                else "Leave --building out.",
            )
        geometry = geometry[layer.values["class"] == building]
    if not len(geometry):
        raise DataError(
            f"{path} holds no building, so that there is no place to count them in.",
            remedy="Give the mask beside it: rooftrace density MASK BUILDINGS -o OUT",
        )
    notes = [f"{layer.mended} buildings had invalid outlines, which were mended"]
    return Buildings(path, geometry, layer.crs, tuple(notes if layer.mended else ()))


def sort_inputs(inputs: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """Which of the inputs is a mask and which is polygons.

    Raises:
        DataError: one does not exist.
        ConfigError: two of a kind, or a folder.
    """
    kinds: dict[bool, list[Path]] = {True: [], False: []}
    for path in inputs:
        if not path.exists():
            raise DataError(f"There is nothing at {path}.", remedy="Check the path.")
        if path.is_dir():
            raise ConfigError(
                f"{path} is a folder; a mask or a file of polygons was expected.",
                remedy="Add --by-image for the built-up share of each mask in it.",
            )
        kinds[is_vector_file(path)].append(path)
    for vector, kind in ((False, "masks"), (True, "files of polygons")):
        if len(kinds[vector]) > 1:
            raise ConfigError(
                f"{len(kinds[vector])} {kind} were given: {', '.join(map(str, kinds[vector]))}.",
                remedy="Give one scene at a time; the grids of neighbours fit together.",
            )
    mask, polygons = (next(iter(kinds[vector]), None) for vector in (False, True))
    return mask, polygons


def stem_of(out: Path, name: str) -> Path:
    """The path of the results without their endings: in a folder that exists, NAME_density.

    Raises:
        ConfigError: it has the ending of a result.
    """
    if out.is_dir():
        return out / f"{name}_density"
    if out.suffix.lower() in _ENDINGS:
        raise ConfigError(
            f"-o received {out}, which has the ending of one of several results.",
            remedy=f"Leave it out: -o {out.with_suffix('')}",
        )
    return out
