"""Synthetic overhead scenes with the truth that belongs to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize
from shapely import affinity, box, clip_by_rect
from shapely.geometry import Polygon

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid
from rooftrace.testing._canvas import polygons_of
from rooftrace.testing._layout import DISTRICTS, draw_town, lay_out

__all__ = ["SyntheticScene", "generate_scene", "write_pairs"]

# A scene of a few metres may fall between houses: then it is laid out anew, this often.
_ATTEMPTS = 12
_LEAST_SHARE = 0.04


@dataclass(frozen=True)
class SyntheticScene:
    """A drawn scene and its truth.

    Args:
        image: (3, y, x) uint8, red, green, blue.
        grid: where its pixels lie.
        buildings: footprints in the grid's CRS, cut at the edge of the image; none overlaps
            another by more than rounding, houses of a row touch.
        seed: what it was made from.
    """

    image: NDArray[np.uint8]
    grid: GeoGrid
    buildings: tuple[Polygon, ...]
    seed: int

    @cached_property
    def _mask(self) -> NDArray[np.uint8]:
        if not self.buildings:
            return np.zeros(self.grid.shape, np.uint8)
        return np.asarray(
            rasterize(self.buildings, self.grid.shape, transform=self.grid.transform, dtype="uint8")
        )

    def mask(self) -> NDArray[np.uint8]:
        """(y, x) uint8, 1 where the centre of the pixel lies in a building, else 0."""
        return self._mask.copy()

    def write(
        self, folder: Path, name: str, *, jpeg_quality: int | None = None
    ) -> tuple[Path, Path]:
        """Write `NAME.tif` (tiled GeoTIFF) and `NAME_truth.gpkg` (layer `buildings`).

        Args:
            folder: made where it is missing.
            name: stem of both files.
            jpeg_quality: 1..100 for JPEG (YCbCr) inside the GeoTIFF; default deflate, lossless.

        Returns:
            The paths of the image and of the truth.
        """
        folder.mkdir(parents=True, exist_ok=True)
        image, truth = folder / f"{name}.tif", folder / f"{name}_truth.gpkg"
        write_tif(image, self.image, self.grid, jpeg_quality)
        truth.unlink(missing_ok=True)
        frame = gpd.GeoDataFrame(
            {"id": np.arange(1, len(self.buildings) + 1)},
            geometry=list(self.buildings),
            crs=self.grid.crs,
        )
        frame.to_file(truth, layer="buildings", driver="GPKG", engine="pyogrio")
        return image, truth


def write_tif(
    path: Path, data: NDArray[np.uint8], grid: GeoGrid, jpeg_quality: int | None = None
) -> None:
    """Write (band, y, x) as a tiled GeoTIFF."""
    profile: dict[str, object] = {"compress": "deflate", "predictor": 2}
    if jpeg_quality is not None:
        profile = {"compress": "jpeg", "photometric": "YCBCR", "jpeg_quality": jpeg_quality}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=data.shape[0],
        height=grid.height,
        width=grid.width,
        dtype="uint8",
        crs=grid.crs,
        transform=grid.transform,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        **profile,
    ) as target:
        target.write(data)


def generate_scene(
    seed: int,
    shape_yx: tuple[int, int] = (2048, 2048),
    gsd_m: float = 0.3,
    crs: CRS | str | int = 32736,
    origin_xy: tuple[float, float] = (524_000.0, 9_318_000.0),
    districts: Sequence[str] = (),
) -> SyntheticScene:
    """Draw a scene: districts of several kinds, their buildings, and the truth.

    The same arguments give the same scene.

    Args:
        seed: 0 or more.
        shape_yx: pixels, 64 or more each way.
        gsd_m: metres per pixel, 0.05 to 2.
        crs: of the scene, with metres as its unit.
        origin_xy: of the upper left corner in `crs`.
        districts: names of `DISTRICTS` to choose from, such as `rows` of touching houses alone;
            default all that fit a scene of this size.

    Raises:
        DataError: an argument is out of range, there is no such district, or `crs` is not in
            metres.
    """
    if unknown := set(districts) - set(DISTRICTS):
        raise DataError(
            f"Synthetic scene: received the districts {sorted(unknown)}; expected some of "
            f"{sorted(DISTRICTS)}.",
            remedy="Correct their names.",
        )
    crs = CRS.from_user_input(crs)
    if seed < 0 or min(shape_yx) < 64 or not 0.05 <= gsd_m <= 2:
        raise DataError(
            f"Synthetic scene: received seed {seed}, shape {shape_yx} and {gsd_m} m per pixel; "
            "expected seed >= 0, 64 pixels or more each way, and 0.05 to 2 m per pixel.",
            remedy="Change the argument that is out of range.",
        )
    if not crs.is_projected or crs.axis_info[0].unit_conversion_factor != 1.0:
        raise DataError(
            f"Synthetic scene: received the CRS {crs.to_string()!r}, expected one in metres.",
            remedy="Use a UTM zone, for example EPSG:32736.",
        )
    height_m, width_m = shape_yx[0] * gsd_m, shape_yx[1] * gsd_m
    for attempt in range(_ATTEMPTS):
        chosen = [DISTRICTS[name] for name in districts]
        town, light = lay_out(seed, shape_yx, gsd_m, attempt, chosen)
        built = sum(clip_by_rect(o, 0, 0, width_m, height_m).area for o in town.outlines)
        if built > _LEAST_SHARE * height_m * width_m:
            break
    image, outlines = draw_town(town, light, seed)
    frame = box(0, 0, width_m, height_m)
    parts = [part for outline in outlines for part in polygons_of(outline.intersection(frame))]
    # A sliver that no pixel's centre can lie in is no building to anybody.
    seen = [part for part in parts if part.area >= gsd_m * gsd_m / 16]
    buildings = [affinity.affine_transform(part, [1, 0, 0, -1, *origin_xy]) for part in seen]
    transform = Affine(gsd_m, 0.0, origin_xy[0], 0.0, -gsd_m, origin_xy[1])
    return SyntheticScene(image, GeoGrid(shape_yx, transform, crs), tuple(buildings), seed)


def write_pairs(
    folder: Path,
    seeds: Iterable[int],
    *,
    shape_yx: tuple[int, int] = (512, 512),
    gsd_m: float = 0.3,
    prefix: str = "synthetic",
) -> list[str]:
    """Write a training folder: `images/NAME.tif` and `masks/NAME.tif` (0 and 255).

    Args:
        folder: made where it is missing.
        seeds: one scene each, named `PREFIX_SEED`.
        shape_yx, gsd_m: as in `generate_scene`.
        prefix: of the names.

    Returns:
        The names, in the order of the seeds.
    """
    names = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene = generate_scene(seed, shape_yx, gsd_m)
        name = f"{prefix}_{seed:05d}"
        write_tif(folder / "images" / f"{name}.tif", scene.image, scene.grid)
        write_tif(folder / "masks" / f"{name}.tif", scene.mask()[None] * np.uint8(255), scene.grid)
        names.append(name)
    return names
