"""Files of density figures: a raster, polygons of cells or zones, tables, and pictures.

A picture is a map of built-up shares: classes of colour, a legend, a scale bar, north up.
"""

import csv
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from rasterio.errors import NotGeoreferencedWarning

from rooftrace.core.config import Config, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import json_kind, reason_of
from rooftrace.core.types import Floats, GeoGrid
from rooftrace.density.cells import DENSITY_COLUMNS, DensityFigures, DensityGrid, ratio
from rooftrace.io.files import write_atomically, write_json
from rooftrace.io.gdal import QUIET, writing_errors
from rooftrace.io.legend import Colour, Grades, graded_style
from rooftrace.io.picture import INK, LARGEST_PX, PAPER, draw_polygon, map_page, write_png
from rooftrace.io.vector_write import free_names, write_polygons

Picture = NDArray[np.uint8]

Share = Annotated[float, Field(ge=0, le=1)]


class ThresholdFit(Config):
    """Quality of a fitted threshold on its examples.

    Args:
        balanced_accuracy: Mean of the two classes' shares that are classified correctly, on the
            examples themselves (Brodersen et al. 2010).
        leave_one_out: Balanced accuracy where each example is classified by a threshold that was
            fitted without it: the accuracy to expect on further images.
        sparse_as_sparse, sparse_as_dense, dense_as_sparse, dense_as_dense: Number of examples by
            true class and assigned class.
    """

    balanced_accuracy: Share
    leave_one_out: Share
    sparse_as_sparse: int
    sparse_as_dense: int
    dense_as_sparse: int
    dense_as_dense: int


class DensityThreshold(Config):
    """The built-up share at which dense begins.

    Args:
        threshold: Smallest built-up share that is dense.
        fit: Quality of the fit; None where the threshold was given.
    """

    threshold: Share
    fit: ThresholdFit | None = None

    def classes(self, share: Floats) -> NDArray[np.object_]:
        """Return the class of each share; None where the share is NaN."""
        known = np.where(share >= self.threshold, "dense", "sparse").astype(np.object_)
        known[np.isnan(share)] = None
        return known

    def counts(self, share: Floats) -> dict[str | None, int]:
        """Return the number of shares by class; None counts those that are NaN."""
        names = self.classes(share.ravel()).tolist()
        return {name: names.count(name) for name in ("dense", "sparse", None)}

    def percent(self, share: float, digits: int) -> str:
        """Return a share as text, with more digits where it would round onto a limit of classes."""
        limits = (self.threshold, *BREAKS)
        while digits < 6 and any(round(share, digits + 2) >= limit > share for limit in limits):
            digits += 1
        return f"{share:.{digits}%}"

    def write(self, path: Path) -> None:
        """Write a file that `read_threshold` reads."""
        write_json(path, self.model_dump())


DEFAULT_THRESHOLD = DensityThreshold(threshold=0.2)
"""Upper end of "sparsely built" among the local climate zones. The building surface fraction is 10
to 20 % there, and at least 20 % in all zones that are built more densely (Stewart & Oke 2012,
Bull. Amer. Meteor. Soc. 93, table 3).
"""


def read_threshold(path: Path) -> DensityThreshold:
    """Return the threshold that a fit has written."""
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The threshold {path} cannot be read: {reason_of(error)}.",
            remedy="Give a share from 0 to 1, or the JSON that density --fit has written.",
        ) from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"The threshold {path} holds {json_kind(raw)}; a JSON object was expected.",
            remedy="Give a share from 0 to 1, or the JSON that density --fit has written.",
        )
    return parse_config(raw, DensityThreshold, source=str(path))


BREAKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
"""Built-up shares at which a new class of colour begins; the first class begins above 0."""

SCALE = np.frombuffer(
    bytes.fromhex("44015444398331688e21918c35b77990d743fde725"), np.uint8
).reshape(-1, 3)
"""Viridis (Smith & van der Walt 2015) in seven even steps. Its lightness rises evenly, also for
dichromats and in grey."""


_EMPTY = (226, 226, 230)
"""Colour of observed places without a building."""


def share_grades(shares: Floats) -> Grades:
    """Return grades of built-up shares: `BREAKS`, or tenths of them if all lie below the first."""
    most = np.nan_to_num(shares).max(initial=0)
    breaks = [share / 10 if 0 < most < BREAKS[0] else share for share in BREAKS]
    percent = [f"{100 * share:.2g}%" for share in breaks]
    labels = [f"up to {percent[0]}", *(f"{low} to {high}" for low, high in pairwise(percent))]
    colours = [(red, green, blue) for red, green, blue in SCALE.tolist()]
    grades = zip([*labels, f"{percent[-1]} and more"], [*breaks, 1.0], colours)
    steps = (("not observed", -1.0, PAPER), ("no building", 0.0, _EMPTY), *grades)
    return Grades("built_up_share", steps)


SHARE_GRADES = share_grades(np.ones(1))
"""Grades of the built-up share of cells, in pictures and in QGIS."""

_LARGEST_CELL_PX = 128


def draw_cells(
    density: DensityGrid, threshold: DensityThreshold, title: str, source: str = ""
) -> Image.Image:
    """Return the picture of a density grid.

    A grid with more cells than the picture has pixels is drawn in larger cells, as its title says.
    """
    cells = density.cells
    together = ceil(max(cells.shape) / LARGEST_PX)
    figures = density.figures
    share = figures.built_up_share if together == 1 else _coarser(figures, together)
    px = max(1, min(LARGEST_PX // max(share.shape), _LARGEST_CELL_PX))
    picture = np.repeat(np.repeat(_coloured(share), px, axis=0), px, axis=1)
    if px >= 4:
        # Lines between dense cells and others, where cells are wide enough to show them.
        padded = np.pad(np.nan_to_num(share, nan=-1.0) >= threshold.threshold, 1)
        width = max(1, min(px // 8, 5))
        for row, col in np.argwhere(padded[:-1, 1:-1] != padded[1:, 1:-1]):
            at = max(row * px - width // 2, 0)
            picture[at : at + width, col * px : (col + 1) * px] = INK
        for row, col in np.argwhere(padded[1:-1, :-1] != padded[1:-1, 1:]):
            at = max(col * px - width // 2, 0)
            picture[row * px : (row + 1) * px, at : at + width] = INK
    subtitle = f"Built-up share in cells of {cells.cell_m * together:g} m"
    metres = cells.cell_m * together / px
    has_north = cells.crs is not None
    entries = _key(threshold)
    return map_page(picture, title, subtitle, entries, metres, source, north=has_north)


def draw_zones(
    geometry: NDArray[np.object_],
    figures: DensityFigures,
    threshold: DensityThreshold,
    title: str,
    names: Sequence[str] = (),
    source: str = "",
) -> Image.Image:
    """Return the picture of zones around those that were observed; smaller zones are drawn on top
    of larger ones.

    Args:
        geometry: (n,) polygons and multipolygons on a plane in metres, y northwards.
        figures: Figures (n,) of the zones.
        threshold: Threshold from which a zone is dense; dense zones get a wide border.
        title: Name of the scene.
        names: (n,) names, which are written with the shares where there is room for both.
        source: Line below the picture, see `picture.source_line`.
    """
    seen = figures.observed_m2 > 0
    left, bottom, right, top = shapely.total_bounds(geometry[seen] if seen.any() else geometry)
    frame = shapely.box(left, bottom, right, top)
    metres = max(right - left, top - bottom) / LARGEST_PX
    shape = ceil((top - bottom) / metres) + 2, ceil((right - left) / metres) + 2
    picture: Picture = np.full((*shape, 3), PAPER, np.uint8)
    share = figures.judged_share
    grades = share_grades(share)
    colours = _coloured(share, grades)
    digits = int(grades != SHARE_GRADES)
    # Half a pixel from the upper left corner.
    corner = left - metres / 2, top + metres / 2
    order = np.argsort(-shapely.area(geometry), kind="stable")
    order = order[shapely.intersects(geometry[order], frame)]
    for zone in order:
        dense = bool(share[zone] >= threshold.threshold)
        fill = tuple(colours[zone].tolist())
        draw_polygon(picture, geometry[zone], corner, metres, fill, INK, 5 if dense else 2)
    labels = []
    for zone in order if len(names) else ():
        value = "" if np.isnan(share[zone]) else threshold.percent(float(share[zone]), digits)
        point = shapely.centroid(geometry[zone])
        if not shapely.contains(geometry[zone], point):
            circle = shapely.maximum_inscribed_circle(geometry[zone], 2 * metres)
            point = shapely.get_point(circle, 0)
        if not frame.intersects(point):
            continue
        width_px = 2 * shapely.distance(shapely.boundary(geometry[zone]), point) / metres
        place = (point.x - corner[0]) / metres, (corner[1] - point.y) / metres
        labels.append((place, width_px, (names[zone], value)))
    subtitle = "Built-up share by zone"
    entries = _key(threshold, grades)
    return map_page(picture, title, subtitle, entries, metres, source, labels=labels)


def _key(
    threshold: DensityThreshold, grades: Grades = SHARE_GRADES
) -> list[tuple[str, Colour | None]]:
    """Return the entries of the legend."""
    dense = f"dense: {threshold.threshold * 100:.3g}% and more"
    unseen, *shares = [(label, colour) for label, _, colour in grades.steps]
    return [*shares, unseen, (dense, None)]


def _coarser(figures: DensityFigures, together: int) -> Floats:
    """Return the built-up shares of squares of several cells."""
    rows, cols = (np.arange(0, n, together) for n in figures.area_m2.shape)
    built, observed = (
        np.add.reduceat(np.add.reduceat(values, rows, axis=0), cols, axis=1)
        for values in (figures.built_m2, figures.observed_m2)
    )
    return np.asarray(np.minimum(ratio(built, observed), 1.0))


def _coloured(share: Floats, grades: Grades = SHARE_GRADES) -> Picture:
    """Return RGB colours along a last axis for shares of any shape."""
    step = np.searchsorted([end for _, end, _ in grades.steps[2:-1]], share, side="right")
    picture = SCALE[np.where(np.isnan(share), 0, step)]
    picture[share == 0] = _EMPTY
    picture[np.isnan(share)] = PAPER
    return picture


def write_cog(path: Path, bands: Mapping[str, NDArray[Any]], grid: GeoGrid) -> None:
    """Write named bands as a cloud-optimised GeoTIFF of float32 with overviews; NaN is nodata.

    https://gdal.org/en/stable/drivers/raster/cog.html

    Args:
        path: File to replace; its folder is created where it is missing.
        bands: (y, x) values of each band by name.
        grid: Grid of the pixels.
    """
    # Written to memory first: on a full disk, the driver may leave a file that is cut off.
    with writing_errors(path), rasterio.MemoryFile() as memory:
        with QUIET, warnings.catch_warnings():
            # A plane in metres without georeference is intended.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(
                driver="COG", dtype="float32", count=len(bands), nodata=np.nan,
                height=grid.height, width=grid.width, transform=grid.transform,
                crs=None if grid.crs is None else grid.crs.to_wkt(),
                compress="deflate", predictor="yes", overview_resampling="average",
            ) as out:  # fmt: skip
                for number, (name, values) in enumerate(bands.items(), 1):
                    out.write(values.astype(np.float32), number)
                    out.set_band_description(number, name)
        write_atomically(path, memory.getbuffer())


SEEN_ASSUMED = "observed_is_assumed"
"""Column that is True where no input says which ground was seen."""

_RESERVED = {
    *DENSITY_COLUMNS, SEEN_ASSUMED, "zone_m2", "built_m2", "buildings", "class", "id", "fid",
    "geom", "geometry",
}  # fmt: skip


def density_files(stem: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the raster, the polygons and the picture that `write_density` writes."""
    return Path(f"{stem}.tif"), Path(f"{stem}.gpkg"), Path(f"{stem}.png")


def write_density(
    stem: Path, density: DensityGrid, threshold: DensityThreshold, title: str, source: str = ""
) -> tuple[Path, ...]:
    """Write STEM.tif with its style STEM.qml, STEM.gpkg and STEM.png.

    The raster has a band for each of `DENSITY_COLUMNS`; QGIS shows the first one. The
    polygons are the observed cells.

    Args:
        stem: Path of the files without their endings; the folder is created where it is missing.
        density: Figures of the cells.
        threshold: Threshold for the column `class` and for the border in the picture.
        title: Title of the picture.
        source: Line below the picture, see `picture.source_line`.

    Returns:
        The paths of the files.
    """
    raster, polygons, picture = density_files(stem)
    cells = density.cells
    write_cog(raster, density.figures.columns(), cells.grid)
    write_atomically(raster.with_suffix(".qml"), graded_style(SHARE_GRADES).encode())
    shown = np.flatnonzero((density.figures.observed_m2 > 0) | (density.figures.buildings > 0))
    columns = density_columns(density.figures, threshold)
    write_polygons(
        polygons,
        cells.polygons(shown),
        {"id": shown + 1} | {name: values[shown] for name, values in columns.items()},
        cells.crs,
        grades=SHARE_GRADES,
    )
    write_png(picture, draw_cells(density, threshold, title, source))
    return raster, polygons, picture


def density_columns(
    figures: DensityFigures,
    threshold: DensityThreshold,
    kept: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the attributes (n,) of cells or zones, row by row; null where nothing was observed.

    Args:
        figures: Figures of the cells or zones.
        threshold: Threshold for the column `class`.
        kept: Existing attributes, which come first. An attribute with a reserved name, or one that
            differs from an earlier one in case alone, is renamed to `zone_NAME`, or
            `zone_zone_NAME` where that name exists. With them come the areas of zones.
    """
    before, areas = {}, {}
    if kept is not None:
        names = free_names([*kept], _RESERVED, "zone_")
        before = {names[name]: values for name, values in kept.items()}
        areas = {"zone_m2": figures.area_m2, "built_m2": figures.known(figures.built_m2)}
    return {
        **before,
        "class": threshold.classes(figures.judged_share.ravel()),
        "buildings": figures.known(figures.buildings).ravel(),
        **{name: values.ravel() for name, values in figures.columns().items()},
        **{name: values.ravel().round(1) for name, values in areas.items()},
    }


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV; None and NaN become empty fields."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    for row in rows:
        table.writerow(["" if value is None or value != value else value for value in row])
    write_atomically(path, text.getvalue().encode())
