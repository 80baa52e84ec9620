"""The header of an image file, checked before any pixel is read.

`Header` describes a file, and `Orientation` how a camera turned its picture: a phone or a drone
stores the pixels as its sensor reads them, and states that in EXIF.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product
from math import gcd, isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError as RasterioCRSError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.text import ASSIGN_CRS, PLACE_IMAGE, plural
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.reproject import crs_text, epsg_of


@dataclass(frozen=True)
class Orientation:
    """Way from the stored pixels to the picture: first transposed, then flipped.

    Args:
        transpose: Whether rows and columns are exchanged.
        flip_rows: Whether the picture is then turned upside down.
        flip_cols: Whether left and right are then exchanged.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_cols: bool = False

    def shape(self, shape_yx: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of the picture for those stored, or the other way round."""
        height, width = shape_yx
        return (width, height) if self.transpose else shape_yx

    def stored(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """Return the stored pixels of a window of the picture."""
        row, col, height, width = window.row, window.col, window.height, window.width
        if self.flip_rows:
            row = shape_yx[0] - row - height
        if self.flip_cols:
            col = shape_yx[1] - col - width
        return (
            Window(col, row, width, height) if self.transpose else Window(row, col, height, width)
        )

    def turned(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return stored pixels (…, y, x) as they are in the picture."""
        if self.transpose:
            pixels = np.swapaxes(pixels, -1, -2)
        rows = slice(None, None, -1 if self.flip_rows else 1)
        cols = slice(None, None, -1 if self.flip_cols else 1)
        return np.ascontiguousarray(pixels[..., rows, cols])


UPRIGHT = Orientation()

_BY_EXIF = {
    2: Orientation(flip_cols=True),
    3: Orientation(flip_rows=True, flip_cols=True),
    4: Orientation(flip_rows=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_cols=True),
    7: Orientation(transpose=True, flip_rows=True, flip_cols=True),
    8: Orientation(transpose=True, flip_rows=True),
}
"""Orientation by its EXIF code, https://exiftool.org/TagNames/EXIF.html, tag 0x0112."""

_WITH_ALPHA = ("PNG", "WEBP", "GIF", "MBTiles")
"""Formats whose fourth band is alpha, and cannot be another one."""

_SAMPLED_PX, _SAMPLED_AT = 32, (0.1, 0.5, 0.9)
"""Side of the squares in which a fourth band is looked at, and their places along both axes."""

_MAX_ALPHAS = 16
"""Maximum number of different values, besides 0, that samples of an alpha band have."""


@dataclass(frozen=True)
class BandInfo:
    """Description of a colour band in a file, as plain data.

    Args:
        number: Number of the band in the file, from 1.
        colour: GDAL's name of its colour, such as `red`, or `undefined`.
        description: Description in the file, or "".
        bits: Number of bits of a value if the file states it, such as 1; 0 if not.
        unit: Unit of the values if the file states it, or "".
        scale, offset: Factor and summand that make a quantity of a stored value.
    """

    number: int
    colour: str = "undefined"
    description: str = ""
    bits: int = 0
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Header:
    """Properties of an image file, enough to read it in another process without opening it twice.

    Args:
        bands: Number of colour bands; 3 if a palette is looked up.
        indexes: GDAL's numbers of the colour bands, from 1.
        alpha: GDAL's number of the alpha band, or None.
        palette: (n, 4) red, green, blue and alpha of each index; None without a palette, or if
            its indices are requested.
        mask: Way in which the file marks nodata, besides alpha.
        nodata: Nodata value of each colour band as it is read, see `black`, or None.
        file_format: GDAL's name of the driver.
        block_yx: Rows and columns of pixels that are decoded at a time.
        note: Information for the user about ignored content; empty if there is none.
        infos: Descriptions of the colour bands; of a palette that is looked up, its colours.
        orientation: Way from the stored pixels to the picture on `grid`.
        is_cmyk: True if the four colour bands are inks, which are read as red, green and blue.
        mask_band: GDAL's number of a band that has the mask, if there is one.
        black: Value of black where the file stores white as 0, which is turned round; else 0.
        is_alpha_infrared: True if the file calls a band alpha that holds a picture.
        has_one_type: True if all bands that are read, with alpha, are stored in one type.
        imagery_date: Date on which the image was taken, by its tags, see `imagery_date`.
        is_lossy: True if the compression of 8-bit bands changes values, such as JPEG.
    """

    grid: GeoGrid
    dtype: np.dtype[Any]
    bands: int
    indexes: tuple[int, ...]
    alpha: int | None
    palette: NDArray[np.uint8] | None
    mask: Literal["none", "nodata", "band"]
    nodata: tuple[float | None, ...]
    file_format: str
    block_yx: tuple[int, int]
    note: str
    infos: tuple[BandInfo, ...]
    orientation: Orientation = UPRIGHT
    is_cmyk: bool = False
    mask_band: int = 1
    black: int = 0
    is_alpha_infrared: bool = False
    has_one_type: bool = True
    imagery_date: str | None = None
    is_lossy: bool = False

    @property
    def read_indexes(self) -> list[int]:
        """Numbers of the bands that are read: the colour bands, then alpha."""
        return [*self.indexes] if self.alpha is None else [*self.indexes, self.alpha]

    @property
    def bytes_per_px(self) -> int:
        """Bytes of a decoded pixel, with alpha or mask."""
        per_band = self.dtype.itemsize if self.palette is None or len(self.palette) <= 256 else 2
        return per_band * len(self.read_indexes) + (self.mask == "band")


def _alpha_of(colours: Sequence[Any], descriptions: Sequence[str | None]) -> int | None:
    """Return the number of the alpha band, from 1; None if there is none.

    GDAL calls the fourth band of 8-bit images alpha by default, also if it is near infrared.
    """
    for number, (colour, text) in enumerate(zip(colours, descriptions), 1):
        if colour is ColorInterp.alpha and not _SPECTRAL.search((text or "").lower()):
            return number
    return None


def _holds_picture(dataset: Any, alpha: int) -> bool:
    """Return whether a band that the format calls alpha is near infrared, by samples of it.

    Writers of GeoTIFFs call the last of four bands alpha by default. Of alpha, few values are
    between nothing and everything, as along smooth edges.
    """
    dtype = np.dtype(dataset.dtypes[alpha - 1])
    if (dataset.count, alpha) != (4, 4) or dataset.driver in _WITH_ALPHA or dtype.kind != "u":
        return False
    side, values = _SAMPLED_PX, []
    for share_y, share_x in product(_SAMPLED_AT, repeat=2):
        row, col = (
            int(share * max(length - side, 0))
            for share, length in ((share_y, dataset.height), (share_x, dataset.width))
        )
        window = RasterioWindow(
            col, row, min(side, dataset.width - col), min(side, dataset.height - row)
        )
        values.append(dataset.read(alpha, window=window).ravel())
    seen = np.concatenate(values)
    seen = seen[seen > 0]
    highest = np.iinfo(dtype).max
    return len(np.unique(seen)) > _MAX_ALPHAS and bool((seen < highest).mean() > 0.5)


def _mask_of(
    per_band: Sequence[Sequence[MaskFlags]], nodata: Sequence[float | None], indexes: Sequence[int]
) -> tuple[Literal["none", "nodata", "band"], int]:
    """Return what marks pixels of the colour bands as nodata, and the band whose mask is read.

    Flags of the mask and nodata are those of each band; `indexes`, from 1, are the colour bands.
    """
    flags = {flag for band in indexes for flag in per_band[band - 1]}
    # A damaged .msk may have lost the entry of a band; GDAL reads no mask for that band.
    masked = [band for band in indexes if MaskFlags.per_dataset in per_band[band - 1]]
    mask: Literal["none", "nodata", "band"] = "none"
    # The tag NODATA_VALUES, one value for each band, is known only to GDAL's own mask.
    together = masked and all(nodata[band - 1] is None for band in indexes)
    if MaskFlags.nodata in flags and not together:
        mask = "nodata"
    elif masked and MaskFlags.alpha not in flags:
        mask = "band"
    return mask, next(iter(masked), 1)


def read_header(dataset: Any, name: str, palette: Literal["colours", "indices"]) -> Header:
    """Return the header of an open rasterio dataset.

    Raises:
        DataError: the image has no colour band, or its coordinate system cannot be read.
    """
    colours, dtypes, nodata = dataset.colorinterp, dataset.dtypes, dataset.nodatavals
    alpha = _alpha_of(colours, dataset.descriptions)
    infrared = alpha is not None and _holds_picture(dataset, alpha)
    alpha = None if infrared else alpha
    indexes = tuple(i + 1 for i in range(dataset.count) if i + 1 != alpha)
    if not indexes:
        raise DataError(
            f"{name} has no colour band: {plural(len(dataset.subdatasets), 'subdataset')}.",
            remedy="Export the layer that you need as a GeoTIFF.",
        )
    lookup = None
    if palette == "colours" and colours[0] is ColorInterp.palette and len(indexes) == 1:
        lookup = np.zeros((256 if dtypes[0] == "uint8" else 2**16, 4), dtype=np.uint8)
        for index, rgba in dataset.colormap(1).items():
            lookup[index] = rgba
    mask, mask_band = _mask_of(dataset.mask_flag_enums, nodata, indexes)
    dtype = np.result_type(*{dtypes[i - 1] for i in indexes})
    rows, cols = dataset.block_shapes[0]
    tags = dataset.tags()
    grid, note = grid_of(dataset, name)
    orientation = UPRIGHT
    if dataset.driver == "JPEG" and grid.crs is None and grid.transform.is_identity:
        # A georeference is that of the stored pixels.
        code = tags.get("EXIF_Orientation", "1").strip()
        orientation = _BY_EXIF.get(int(code) if code.isdecimal() else 1, UPRIGHT)
    if orientation != UPRIGHT:
        grid = GeoGrid(orientation.shape(grid.shape))
        rows, cols = orientation.shape((rows, cols))
    is_cmyk = [colours[i - 1] for i in indexes] == _INKS
    is_rgb = lookup is not None or is_cmyk
    infos = _RGB_INFOS if is_rgb else _infos(dataset, indexes)
    black = 0
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    is_white_0 = structure.get("MINISWHITE") == "YES"
    is_lossy = structure.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY")
    is_lossy |= structure.get("COMPRESSION", "").endswith("JPEG")
    # Of one bit, GDAL makes a palette.
    is_grey = palette == "colours" and lookup is None and len(indexes) == 1
    if is_white_0 and is_grey and dtype.kind == "u":
        black = 2 ** (infos[0].bits or 8 * dtype.itemsize) - 1
    return Header(
        grid=grid,
        dtype=np.dtype(np.uint8) if lookup is not None else dtype,
        bands=3 if is_rgb else len(indexes),
        indexes=indexes,
        alpha=alpha,
        palette=lookup,
        mask=mask,
        nodata=tuple(
            black - value if black and value is not None else value
            for value in (nodata[i - 1] for i in indexes)
        ),
        file_format=str(dataset.driver),
        block_yx=(int(rows), int(cols)),
        note=note,
        is_alpha_infrared=infrared,
        infos=infos,
        orientation=orientation,
        is_cmyk=is_cmyk,
        mask_band=mask_band,
        black=black,
        has_one_type=len({dtypes[i - 1] for i in (*indexes, alpha) if i is not None}) == 1,
        # A satellite's metadata files have tags of their own.
        imagery_date=imagery_date({**tags, **dataset.tags(ns="IMAGERY")}, name),
        is_lossy=is_lossy and dtype == np.uint8,
    )


_SPECTRAL = re.compile(r"nir|infrared|red.?edge|swir|thermal|^(sr_)?b\d")
"""Descriptions of bands that are not alpha, even if the format says so."""

_RGB_INFOS = tuple(BandInfo(n, colour) for n, colour in enumerate(("red", "green", "blue"), 1))
_INKS = [ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black]


def _infos(dataset: Any, indexes: Sequence[int]) -> tuple[BandInfo, ...]:
    # Each of these lists is read anew from the file.
    colours, descriptions, units = dataset.colorinterp, dataset.descriptions, dataset.units
    scales, offsets = dataset.scales, dataset.offsets
    if len(colours) > 3 and not any(descriptions):
        # The metadata file of a Maxar product, such as scene.IMD, lists its bands in their order.
        named = (name.partition(".")[0] for name in dataset.tags(ns="IMD"))
        found = list(dict.fromkeys(name for name in named if name.startswith("BAND_")))
        descriptions = found if len(found) == len(colours) else descriptions
    return tuple(
        BandInfo(
            index,
            colours[index - 1].name,
            descriptions[index - 1] or "",
            int(dataset.tags(index, ns="IMAGE_STRUCTURE").get("NBITS", 0)),
            units[index - 1] or "",
            scales[index - 1],
            offsets[index - 1],
        )
        for index in indexes
    )


def grid_of(dataset: Any, name: str) -> tuple[GeoGrid, str]:
    """Return the grid of an image, and a note about it for the user."""
    shape = (dataset.height, dataset.width)
    transform = Affine.from_gdal(*dataset.get_transform())
    # A CRS with pixel coordinates would put the image at the origin of the map: not known. Of the
    # points of a .tab that no transform meets, GDAL gives the nearest one, without a CRS.
    is_known = not transform.is_identity and all(map(isfinite, transform))
    if not is_known or transform.is_degenerate or (not dataset.crs and dataset.gcps[0]):
        return GeoGrid(shape), _unused_position(dataset, name)
    crs = None
    try:
        if dataset.crs:
            crs = known_crs(dataset.crs.to_wkt())
    except (CRSError, RasterioCRSError, RasterioError) as error:
        raise DataError(
            f"{name} has a coordinate system that cannot be read: {error}.",
            remedy=f"Remove it, or assign another one: {ASSIGN_CRS}",
        ) from error
    return checked_grid(GeoGrid(shape, transform, crs), name)


def checked_grid(grid: GeoGrid, name: str) -> tuple[GeoGrid, str]:
    """Return a grid, without its CRS if that is not of the Earth, and a note for the user."""
    crs = grid.crs
    if crs is not None and not _is_of_earth(crs):
        note = (
            f"{name} is in {crs.name!r}, which is not a coordinate system of the Earth. A known "
            "point places a site grid: --crs '+proj=tmerc +lat_0=LATITUDE +lon_0=LONGITUDE "
            "+x_0=EASTING +y_0=NORTHING'."
        )
        return GeoGrid(grid.shape, grid.transform), note
    if crs is not None and crs.is_geographic:
        west, south, east, north = grid.bounds_xy
        transform = grid.transform
        # Global grids may begin half a pixel beyond the pole, and at longitude 0 or -180.
        beyond = max(map(abs, (transform.a, transform.b, transform.d, transform.e)))
        degrees = np.degrees(crs.axis_info[0].unit_conversion_factor)
        most = 360 / degrees + beyond, 90 / degrees + beyond
        if max(abs(west), abs(east)) > most[0] or max(abs(south), abs(north)) > most[1]:
            raise GeoreferenceError(
                f"{name} lies at longitude {west:g} to {east:g} and latitude {south:g} to "
                f"{north:g} in {crs_text(crs)}; expected -360 to 360 and -90 to 90.",
                remedy=f"Correct its georeference: {ASSIGN_CRS}, or {PLACE_IMAGE}",
            )
    return grid, ""


def _unused_position(dataset: Any, name: str) -> str:
    """Return a note if the position of an image is known only by points or a camera model."""
    code = "CODE"
    if dataset.gcps[0]:
        position, option = "ground control points", "-tps"
        crs = dataset.gcps[1]
        code = str(crs.to_epsg() or code) if crs and crs.is_projected else code
    elif dataset.rpcs:
        position, option = "a camera model (RPC)", "-rpc -to RPC_DEM=TERRAIN.tif"
    elif "EXIF_GPSLatitude" in dataset.tags():
        return (
            f"{name} is a photograph with the place of its camera, not an orthophoto: make one of "
            "the flight first, for example with OpenDroneMap."
        )
    else:
        return ""
    return (
        f"{name} has {position} instead of a georeference: cut off a border if there is one, and "
        f"rectify it: gdalwarp {option} -dstalpha -t_srs EPSG:{code} IN OUT.tif"
    )


@lru_cache(maxsize=64)
def known_crs(text: str) -> CRS:
    """Return the coordinate system of WKT, a PROJ string or a code; that of EPSG if it is one."""
    crs = CRS.from_user_input(text)
    epsg = epsg_of(crs)
    return CRS.from_epsg(epsg) if epsg else crs


@lru_cache(maxsize=64)
def _is_of_earth(crs: CRS) -> bool:
    """Return True for a map, whose coordinates can be converted to longitude and latitude."""
    if crs.is_engineering or crs.is_geocentric:
        return False
    try:
        Transformer.from_crs(crs, 4326, always_xy=True)
    except ProjError:
        return False
    return True


_FILE_TAGS = ("EXIF_DateTime", "TIFFTAG_DATETIME")
"""Tags with the date of the file, which of a scan is the day of scanning."""

_DATE_TAGS = ("ACQUISITIONDATETIME", "EXIF_DateTimeOriginal", *_FILE_TAGS)
"""Tags with a date, the most specific first: a satellite's metadata, EXIF, TIFF."""

_NAMED = re.compile(
    r"(?<!\d)(?<!\dx)((?:19|20)\d\d)(?:([-_.]?)(0[1-9]|1[0-2])(?:\2([0-3]\d))?)?(?!x?\d)"
)
"""A year in the name of a file, alone or with a month or date."""

_BESIDE = re.compile(r"(\d+)[-_. ]$"), re.compile(r"^[-_. ](\d+)")

_WRITTEN = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)(?:[ T](\d\d:\d\d:\d\d)(?:\.\d+)?(Z?))?")

_SCAN_DPI = 200
"""Points per inch from which a file is that of a scanner, or of a program that edits pictures."""


def named_dates(name: str) -> list[str]:
    """Return the dates in a name, such as `2019` or `2019-06-12`.

    A number after this year is none, nor a side of `1920x1080`, nor one that shares the side of a
    tile with a number beside it, as corners of tiles do: `2000_1000`.
    """
    dates = []
    for found in _NAMED.finditer(name):
        year, _, month, day = found.groups()
        parts = name[: found.start()], name[found.end() :]
        beside = (one for pattern, part in zip(_BESIDE, parts) for one in pattern.findall(part))
        sides = [gcd(int(year), int(one)) for one in beside]
        is_corner = any(side >= 64 and 0 in (side % 32, side % 40, side % 50) for side in sides)
        if int(year) <= datetime.now().year and (month or not is_corner):
            text = "-".join(filter(None, (year, month, day)))
            dates.append(text if is_date(text) else year)
    return dates


def imagery_date(tags: Mapping[str, str], name: str = "") -> str | None:
    """Return the date in a file's tags in the form of ISO 8601; None if there is none.

    The date of the file itself does not count if the name of the image or of its folder states an
    earlier year, or if the file is that of a scanner and they do not state its year.
    """
    parts = Path(name).parent.name, Path(name).stem
    named = [date[:4] for part in parts for date in named_dates(part)]
    for tag in _DATE_TAGS:
        match = _WRITTEN.fullmatch(tags.get(tag, "").strip().strip('"'))
        if match is None:
            continue
        year, month, day, clock, zone = match.groups()
        last = max((one for one in named if one <= year), default=year)
        if tag in _FILE_TAGS and (last < year or (year not in named and _is_scan(tags))):
            continue
        text = f"{year}-{month}-{day}" + (f"T{clock}{zone}" if clock else "")
        # Cameras and programs without a clock write zeros.
        if is_date(text):
            return text
    return None


def _is_scan(tags: Mapping[str, str]) -> bool:
    """Return True if a file states as many points per inch as a scanner reads."""
    for points, unit in (
        ("TIFFTAG_XRESOLUTION", "TIFFTAG_RESOLUTIONUNIT"),
        ("EXIF_XResolution", "EXIF_ResolutionUnit"),
    ):
        per_unit = re.search(r"\d+(?:\.\d+)?", tags.get(points, ""))
        inches = {"2": 1.0, "3": 2.54}.get(tags.get(unit, "")[:1])
        if per_unit and inches and float(per_unit[0]) * inches >= _SCAN_DPI:
            return True
    return False


YEAR_OR_MONTH = re.compile(r"\d{4}(?:-(?:0[1-9]|1[0-2]))?")
"""A year, or a month of one."""


def is_date(text: str) -> bool:
    """Return True for a year, month or date, or a date with a time, in the form of ISO 8601."""
    if YEAR_OR_MONTH.fullmatch(text):
        return True
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return len(text) >= len("2024-05-17")
