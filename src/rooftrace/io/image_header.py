"""The header of an image file, and the files beside it, checked before any pixel is read.

`Header` describes a file, and `Orientation` how a camera turned its picture: a phone or a drone
stores the pixels as its sensor reads them, and states that in EXIF. `check_vrt` checks the files of
a VRT mosaic: GDAL notices a missing file only when it reaches it, which may be hours later.
https://gdal.org/en/stable/drivers/raster/vrt.html
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, ulp
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError as RasterioCRSError
from rasterio.errors import RasterioError

from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.text import list_and_count, reason_of
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.files import is_file, read_head


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

    @classmethod
    def from_exif(cls, code: int) -> Orientation:
        """Return the orientation of an EXIF code from 1 to 8; other codes mean upright.

        https://exiftool.org/TagNames/EXIF.html, tag 0x0112.
        """
        return _BY_CODE.get(code, UPRIGHT)

    def shape(self, shape_yx: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of the picture for those stored, or the other way round."""
        height, width = shape_yx
        return (width, height) if self.transpose else shape_yx

    def stored(self, window: Window, shape_yx: tuple[int, int]) -> Window:
        """Return the stored pixels of a window of the picture.

        Args:
            window: Window of the picture.
            shape_yx: Rows and columns of the picture.
        """
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

_BY_CODE = {
    2: Orientation(flip_cols=True),
    3: Orientation(flip_rows=True, flip_cols=True),
    4: Orientation(flip_rows=True),
    5: Orientation(transpose=True),
    6: Orientation(transpose=True, flip_cols=True),
    7: Orientation(transpose=True, flip_rows=True, flip_cols=True),
    8: Orientation(transpose=True, flip_rows=True),
}

_SIDECAR_REMEDY = (
    "Copy the image again with all files beside it, or remove this file if the image is complete "
    "without it."
)

_MIN_PIXEL_ULP = 1024
"""Minimum side of a pixel, in steps between two neighbouring doubles at its coordinates."""

_MOST_COORDINATE = 1e12
"""Largest coordinate of a georeference: no place on the Earth has such a one, in any unit."""

_MAX_BANDS = 4096
"""Maximum number of bands. A damaged header may state many more, which take minutes to read."""

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
"""First bytes of a JP2 file."""

_METADATA_ENDING = ".aux.xml"

_MAX_LISTED = 3
_HEAD_BYTES = 1024
"""Number of bytes in which GDAL looks for the mark of a VRT."""

_VRTS_HELD = 64
"""Number of parsed VRTs that are kept."""


def check_vrt(path: Path) -> None:
    """Check that all source files of a VRT exist, also those of VRTs among them.

    A source must be a local image file. Servers and archives are refused, because a received
    mosaic could otherwise choose which addresses this machine calls. Raw bands are refused,
    because they could show the bytes of any other file. Code in a VRT is never run. A filter needs
    its kernel.

    Args:
        path: File that GDAL opens as a VRT.

    Raises:
        DataError: a source is missing or is not a local image file, or a VRT contains itself.
    """
    _check(path.absolute(), (), set())


def _check(path: Path, above: tuple[Path, ...], sound: set[Path]) -> None:
    if path in above:
        raise DataError(
            f"The VRT {above[0]} contains itself, through {path}.",
            remedy="Build it again from the images themselves: gdalbuildvrt OUT.vrt *.tif",
        )
    missing: list[Path] = []
    nested: dict[Path, None] = {}
    for part in _parts(path):
        if not part.is_file():
            missing.append(part)
        elif part not in sound and _is_vrt(part):
            nested[part] = None
    if missing:
        counted = "1 file that does" if len(missing) == 1 else f"{len(missing)} files that do"
        raise DataError(
            f"The VRT {path} names {counted} not exist: {list_and_count(missing, _MAX_LISTED)}.",
            remedy="Restore these files, or build the VRT again: gdalbuildvrt OUT.vrt *.tif",
        )
    for part in nested:
        _check(part, (*above, path), sound)
    sound.add(path)


class FolderNames:
    """Names of the files in a folder, from one listing, for the companions of many images.

    Asking the file system for each file that an image may have beside it takes ten calls. A listing
    is for one call of a function: files that appear later are not seen.

    Args:
        folder: Folder to list.

    Raises:
        OSError: The folder cannot be listed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = os.path.realpath(folder).rstrip(os.sep) + os.sep
        self._lower: set[str] = set()
        self._links: set[str] = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                self._lower.add(entry.name.lower())
                if entry.is_symlink():
                    self._links.add(entry.name)

    def resolved(self, name: str) -> str:
        """Return the path of a file of the folder without symbolic links."""
        if name in self._links:
            return os.path.realpath(self._folder / name)
        return self._prefix + name

    def may_have(self, name: str) -> bool:
        """Return whether the file system may find a file under a name.

        Some file systems ignore case, and some compare other characters than those of ASCII in
        ways of their own.
        """
        return not name.isascii() or name.lower() in self._lower


def companions(path: Path, names: FolderNames | None = None) -> list[Path]:
    """Return the files without which an image has other pixels or another place.

    These are its mask, its world file and GDAL's `.aux.xml`, and the images of a VRT.

    Args:
        path: Image.
        names: Names of the files in its folder; None to ask the file system for each.
    """
    name = path.name

    def first(candidates: Iterable[str], is_there: Callable[[str], bool]) -> Path | None:
        if names is not None:
            candidates = [one for one in candidates if names.may_have(one)]
        return _first(path, candidates, is_there)

    beside = (
        first(_mask_names(name), os.path.lexists),
        first(_world_names(name, path.suffix), is_file),
        first([name + _METADATA_ENDING], is_file),
    )
    found = [one for one in beside if one is not None]
    if path.suffix.lower() == ".vrt":
        inside: dict[Path, None] = {}
        _collect(path.absolute(), inside)
        found += inside
    return found


def _collect(path: Path, found: dict[Path, None]) -> None:
    """Add the files of a VRT, and of those among them."""
    # A VRT that is damaged, or that names what cannot be a file, is reported when it is opened.
    with suppress(DataError, OSError):
        for part in _parts(path):
            if part in found or not is_file(part):
                continue
            found[part] = None
            if _is_vrt(part):
                _collect(part, found)


def _parts(path: Path) -> tuple[Path, ...]:
    """Return the files that a VRT names.

    Raises:
        DataError: It cannot be read, or it reads other than local image files.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable_vrt(path, error) from error
    return _parsed_parts(path, status.st_mtime_ns, status.st_size)


def _unreadable_vrt(path: Path, error: Exception) -> DataError:
    return DataError(
        f"The VRT {path} cannot be read: {reason_of(error)}.",
        remedy="Build it again: gdalbuildvrt OUT.vrt *.tif",
    )


@lru_cache(maxsize=_VRTS_HELD)
def _parsed_parts(path: Path, mtime_ns: int, size: int) -> tuple[Path, ...]:
    """Return `_parts` of a VRT: a run asks for them to open it and to see whether it changes."""
    try:
        # Python's parser expands no external entities and stops at entity expansion attacks.
        root = ElementTree.parse(path).getroot()  # noqa: S314  # nosec B314
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise _unreadable_vrt(path, error) from error
    if any(band.get("subClass") == "VRTRawRasterBand" for band in root.iter("VRTRasterBand")):
        raise DataError(
            f"The VRT {path} reads raw bytes of a file as pixels (VRTRawRasterBand).",
            remedy="Convert it where it was made: gdal_translate IN.vrt OUT.tif",
        )
    if not all(map(_has_kernel, root.iter("KernelFilteredSource"))):
        # GDAL ends the process when it reads a kernel that is not there.
        raise DataError(
            f"The VRT {path} has a filter without a kernel (KernelFilteredSource).",
            remedy="Build it again: gdalbuildvrt OUT.vrt *.tif",
        )
    # Each band names the same files again.
    named: dict[tuple[str, bool], None] = {}
    for tag in ("SourceFilename", "SourceDataset"):
        for element in root.iter(tag):
            name = (element.text or "").strip()
            relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
            named[name, relative] = None
    for name, _ in named:
        if name.startswith("/vsi") or "://" in name:
            raise DataError(
                f"The VRT {path} is made of {name!r}, which is not a local file.",
                remedy="Copy the images to this machine and build the VRT again: "
                "gdalbuildvrt OUT.vrt *.tif",
            )
    folder = path.parent
    parts = (folder / name if relative else Path(name) for name, relative in named)
    return tuple(dict.fromkeys(part.absolute() for part in parts))


def _has_kernel(source: ElementTree.Element) -> bool:
    size = source.findtext("Kernel/Size", "").strip()
    return size.isdecimal() and int(size) > 0 and bool(source.findtext("Kernel/Coefs", "").strip())


def _is_vrt(path: Path) -> bool:
    """Return whether GDAL opens a file as a VRT; a declaration of XML or a comment may precede."""
    head = read_head(path, _HEAD_BYTES).lstrip()
    return head.startswith(b"<") and b"<VRTDataset" in head


@dataclass(frozen=True)
class BandInfo:
    """Description of a colour band in a file, as plain data.

    Args:
        number: Number of the band in the file, from 1.
        colour: GDAL's name of its colour, such as `red`, or `undefined`.
        description: Description in the file, or "".
        bits: Number of bits of a value if the file states it, such as 1; 0 if not.
    """

    number: int
    colour: str = "undefined"
    description: str = ""
    bits: int = 0


@dataclass(frozen=True)
class Header:
    """Properties of an image file, enough to read it in another process without opening it twice.

    Args:
        grid: Position of the pixels.
        dtype: Type of the colour bands.
        bands: Number of colour bands; 3 if a palette is looked up.
        indexes: GDAL's numbers of the colour bands, from 1.
        alpha: GDAL's number of the alpha band, or None.
        palette: (n, 4) red, green, blue and alpha of each index; None without a palette, or if
            its indices are requested.
        mask: Way in which the file marks nodata, besides alpha.
        nodata: Nodata value of each colour band, or None.
        file_format: GDAL's name of the driver.
        block_yx: Rows and columns of pixels that are decoded at a time.
        note: Information for the user about ignored content; empty if there is none.
        infos: Descriptions of the colour bands; of a palette that is looked up, its colours.
        orientation: Way from the stored pixels to the picture on `grid`.
        is_cmyk: True if the four colour bands are inks, which are read as red, green and blue.
        mask_band: GDAL's number of a band that has the mask, if there is one.
        black: Value of black where the file stores white as 0, which is turned round; else 0.
        has_one_type: True if all bands that are read, with alpha, are stored in one type.
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
    has_one_type: bool = True

    @property
    def read_indexes(self) -> list[int]:
        """Numbers of the bands that are read: the colour bands, then alpha."""
        return [*self.indexes] if self.alpha is None else [*self.indexes, self.alpha]

    @property
    def bytes_per_px(self) -> int:
        """Bytes of a decoded pixel, with alpha or mask."""
        own = self.dtype.itemsize if self.palette is None or len(self.palette) <= 256 else 2
        return own * len(self.read_indexes) + (self.mask == "band")


def _alpha_of(colours: Sequence[Any], descriptions: Sequence[str | None]) -> int | None:
    """Return the number of the alpha band, from 1; None if there is none.

    GDAL calls the fourth band of 8-bit images alpha by default, also if it is near infrared.
    """
    bands = enumerate(zip(colours, descriptions), 1)
    return next(
        (
            number
            for number, (colour, description) in bands
            if colour is ColorInterp.alpha and not _SPECTRAL.search((description or "").lower())
        ),
        None,
    )


def _mask_of(
    per_band: Sequence[Sequence[MaskFlags]], nodata: Sequence[float | None], indexes: Sequence[int]
) -> tuple[Literal["none", "nodata", "band"], int]:
    """Return what marks pixels of the colour bands as nodata, and the band whose mask is read.

    Args:
        per_band: Flags of the mask of each band.
        nodata: Nodata value of each band.
        indexes: Numbers of the colour bands, from 1.
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

    Args:
        dataset: Dataset open for reading.
        name: Name of the image in messages.
        palette: "colours" to look up a palette, "indices" to read it as numbers.

    Raises:
        DataError: the image has no colour band or too many, its coordinate system cannot be read,
            or it is a VRT with missing files.
    """
    if dataset.count > _MAX_BANDS:
        raise DataError(
            f"{name} has {dataset.count:,} bands; at most {_MAX_BANDS:,} are read.",
            remedy="Export the bands that you need: gdal_translate -b 1 -b 2 -b 3 IN OUT.tif",
        )
    if dataset.driver == "VRT" and not name.lower().endswith(".vrt"):
        check_vrt(Path(name))
    colours, dtypes, nodata = dataset.colorinterp, dataset.dtypes, dataset.nodatavals
    alpha = _alpha_of(colours, dataset.descriptions)
    indexes = tuple(i + 1 for i in range(dataset.count) if i + 1 != alpha)
    if not indexes:
        raise DataError(
            f"{name} has no colour band: {len(dataset.subdatasets)} subdatasets, "
            f"{dataset.count} bands.",
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
    grid, note = _grid_of(dataset, name)
    orientation = _orientation_of(dataset, grid)
    if orientation != UPRIGHT:
        grid = GeoGrid(orientation.shape(grid.shape))
        rows, cols = orientation.shape((rows, cols))
    is_cmyk = [colours[i - 1] for i in indexes] == _INKS
    is_rgb = lookup is not None or is_cmyk
    infos = _RGB_INFOS if is_rgb else _infos(dataset, indexes)
    black = 0
    is_white_0 = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
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
        nodata=tuple(nodata[i - 1] for i in indexes),
        file_format=str(dataset.driver),
        block_yx=(int(rows), int(cols)),
        note=note,
        infos=infos,
        orientation=orientation,
        is_cmyk=is_cmyk,
        mask_band=mask_band,
        black=black,
        has_one_type=len({dtypes[i - 1] for i in (*indexes, alpha) if i is not None}) == 1,
    )


_SPECTRAL = re.compile(r"nir|infrared|red.?edge|swir|thermal|^(sr_)?b\d")
"""Descriptions of bands that are not alpha, even if the format says so."""

_RGB_INFOS = tuple(BandInfo(n, colour) for n, colour in enumerate(("red", "green", "blue"), 1))
_INKS = [ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black]


def _orientation_of(dataset: Any, grid: GeoGrid) -> Orientation:
    """Return the orientation of a photograph; a georeference is that of the stored pixels."""
    if dataset.driver != "JPEG" or grid.crs is not None or not grid.transform.is_identity:
        return UPRIGHT
    code = dataset.tags().get("EXIF_Orientation", "1").strip()
    return Orientation.from_exif(int(code) if code.isdecimal() else 1)


def _infos(dataset: Any, indexes: Sequence[int]) -> tuple[BandInfo, ...]:
    colours, descriptions = dataset.colorinterp, dataset.descriptions
    return tuple(
        BandInfo(
            index,
            colours[index - 1].name,
            descriptions[index - 1] or "",
            int(dataset.tags(index, ns="IMAGE_STRUCTURE").get("NBITS", 0)),
        )
        for index in indexes
    )


def _grid_of(dataset: Any, name: str) -> tuple[GeoGrid, str]:
    """Return the grid of an image, and a note about it for the user."""
    shape = (dataset.height, dataset.width)
    transform = Affine(*tuple(dataset.transform)[:6])
    # A CRS with pixel coordinates would put the image at the origin of the map: not known.
    if transform.is_identity or not all(map(isfinite, transform)) or transform.is_degenerate:
        return GeoGrid(shape), _unused_position(dataset, name)
    placed = GeoGrid(shape, transform)
    damage = ""
    if not _has_distinct_pixels(placed):
        damage = "pixels that are too small for the digits of its coordinates"
    elif max(map(abs, placed.bounds_xy)) > _MOST_COORDINATE:
        damage = "coordinates beyond those of any place"
    if damage:
        note = (
            f"{name} has {damage}, so that its georeference is damaged: its results are in pixels."
        )
        return GeoGrid(shape), note
    crs = _crs_of(dataset, name)
    if crs is not None and not _is_of_earth(crs):
        note = (
            f"{name} is in {crs.name!r}, which is no map of the Earth: its results are in pixels."
        )
        return GeoGrid(shape), note
    grid = GeoGrid(shape, transform, crs)
    if crs is not None and crs.is_geographic:
        _check_degrees(grid, crs, name)
    return grid, ""


def _has_distinct_pixels(grid: GeoGrid) -> bool:
    """Return True if double precision distinguishes the pixels of a grid, and positions in them.

    Otherwise the corners of a polygon would be one point.
    """
    transform = grid.transform
    with np.errstate(over="ignore", invalid="ignore"):
        left, bottom, right, top = map(abs, grid.bounds_xy)
    x, y = max(left, right), max(bottom, top)
    for col, row in ((1, 0), (0, 1)):
        step_x, step_y = transform @ (col, row)
        moved = abs(step_x - transform.c) / ulp(x), abs(step_y - transform.f) / ulp(y)
        if max(moved) < _MIN_PIXEL_ULP:
            return False
    return True


def _unused_position(dataset: Any, name: str) -> str:
    """Return a note if the position of an image is known only by points or a camera model."""
    if dataset.gcps[0]:
        known, option = "ground control points", "-tps"
    elif dataset.rpcs:
        known, option = "a camera model (RPC)", "-rpc"
    else:
        return ""
    return (
        f"{name} has {known} instead of a georeference, and its results are in pixels. Rectify it "
        f"first: gdalwarp {option} -t_srs EPSG:CODE IN OUT.tif"
    )


def _check_degrees(grid: GeoGrid, crs: CRS, name: str) -> None:
    """Raise GeoreferenceError if an image lies outside of all longitudes and latitudes."""
    west, south, east, north = grid.bounds_xy
    transform = grid.transform
    # Global grids may begin half a pixel beyond the pole, and at longitude 0 or -180.
    beyond = max(map(abs, (transform.a, transform.b, transform.d, transform.e)))
    degrees = np.degrees(crs.axis_info[0].unit_conversion_factor)
    most = 360 / degrees + beyond, 90 / degrees + beyond
    if max(abs(west), abs(east)) > most[0] or max(abs(south), abs(north)) > most[1]:
        raise GeoreferenceError(
            f"{name} lies at longitude {west:g} to {east:g} and latitude {south:g} to "
            f"{north:g} in {crs.name}; expected -360 to 360 and -90 to 90.",
            remedy="Correct its georeference with gdal_edit -a_srs or -a_ullr.",
        )


def _crs_of(dataset: Any, name: str) -> CRS | None:
    try:
        if not dataset.crs:
            return None
        epsg = dataset.crs.to_epsg()
        return _from_epsg(epsg) if epsg else CRS.from_wkt(dataset.crs.to_wkt())
    except (CRSError, RasterioCRSError, RasterioError) as error:
        raise DataError(
            f"{name} has a coordinate system that cannot be read: {error}.",
            remedy="Assign a coordinate system with gdal_edit -a_srs, or remove it.",
        ) from error


@lru_cache(maxsize=64)
def _from_epsg(code: int) -> CRS:
    return CRS.from_epsg(code)


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


def check_sidecars(path: Path, header: Header) -> None:
    """Check the files beside an image that GDAL ignores silently if they are damaged.

    These are the mask (`.msk`), without which nodata would become ground, the metadata
    (`.aux.xml`), which may hold the georeference and the nodata value, and the world file (such as
    `.tfw`), which holds the georeference. Damaged overviews (`.ovr`) change no pixel.

    Raises:
        DataError: a sidecar is damaged; the message names it.
    """
    metadata = path.with_name(path.name + _METADATA_ENDING)
    if is_file(metadata):
        try:
            # Python's parser expands no external entities and stops at entity expansion attacks.
            text = metadata.read_text("utf-8", "replace")
            ElementTree.fromstring(text)  # noqa: S314  # nosec B314
        except (ElementTree.ParseError, ValueError) as error:
            raise DataError(
                f"{metadata} is damaged: {error}. It holds metadata of {path.name}, such as the "
                "georeference and the nodata value.",
                remedy=_SIDECAR_REMEDY,
            ) from error
    if header.mask == "none" and header.alpha is None and (mask := mask_file(path)):
        raise DataError(
            f"{mask} is damaged, or is not a mask of the size of {path.name}: it cannot be used "
            "to find the pixels that are nodata.",
            remedy=_SIDECAR_REMEDY,
        )
    if header.grid.transform.is_identity and (world := _world_file(path)):
        _check_world_file(world, path)


def check_jpeg2000(path: Path, header: Header) -> None:
    """Raise DataError if a JP2 has another size than its codestream, which GDAL does not compare.

    ISO/IEC 15444-1:2019, I.5.3.1.
    """
    if path.suffix.lower() != ".jp2" or not is_file(path):
        return
    with path.open("rb") as file:
        start = file.read(2**16)
    at = start.find(b"ihdr") + 4
    if not start.startswith(JP2_SIGNATURE) or at < 4 or len(start) < at + 8:
        return
    shape = struct.unpack_from(">II", start, at)
    if shape != header.grid.shape:
        raise DataError(
            f"{path} is damaged: its header gives {shape[0]} rows × {shape[1]} columns, its pixels "
            f"have {header.grid.height} × {header.grid.width}.",
            remedy="Get the file again.",
        )


def _world_file(path: Path) -> Path | None:
    """Return the world file beside an image, under a name that GDAL finds: `.pgw` of `.png`.

    https://gdal.org/en/stable/drivers/raster/wld.html
    """
    return _first(path, _world_names(path.name, path.suffix), is_file)


def _world_names(name: str, suffix: str) -> list[str]:
    ending = suffix.removeprefix(".").lower()
    stem = name.removesuffix(suffix)
    endings = (f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld") if ending else ("wld",)
    names = (f"{stem}.{one}" for low in endings for one in (low, low.upper()))
    return [one for one in names if one != name]


def _first(path: Path, names: Iterable[str], is_there: Callable[[str], bool]) -> Path | None:
    """Return the first file that is there under one of the names beside an image."""
    # Much faster than paths, and most images have no such file.
    folder = str(path)[: -len(path.name)]
    for name in names:
        file = folder + name
        if is_there(file):
            return Path(file)
    return None


def _check_world_file(world: Path, path: Path) -> None:
    """Raise DataError unless a world file holds six numbers that place an image."""
    lines = world.read_text("utf-8", "replace").split()[:6]
    try:
        # GDAL takes decimal commas, too.
        numbers = [float(line.replace(",", ".")) for line in lines]
    except ValueError:
        numbers = []
    if len(numbers) == 6 and all(map(isfinite, numbers)):
        a, d, b, e, _, _ = numbers
        if a * e != b * d:
            return
    shown = " ".join(lines)[:60]
    raise DataError(
        f"{world} is damaged: it holds {shown!r}; expected six finite numbers, of which the first "
        f"four give pixels of {path.name} a size. It holds the georeference of the image.",
        remedy=_SIDECAR_REMEDY,
    )


def mask_file(path: Path) -> Path | None:
    """Return the file beside an image that holds its mask, under a name that GDAL finds."""
    # A broken link counts: the mask that it names is gone.
    return _first(path, _mask_names(path.name), os.path.lexists)


def _mask_names(name: str) -> list[str]:
    return [f"{name}.msk", f"{name}.MSK"]
