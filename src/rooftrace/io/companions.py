"""Which files are images, and the files that belong to one: those beside it, and parts of a VRT.

GDAL ignores a damaged file beside an image silently, and notices a missing file of a VRT only when
it reaches it, which may be hours later. `with_sidecars` and `check_vrt` look before any pixel is
read. GDAL reads no `.prj` beside an image, and world files only for some formats.
https://gdal.org/en/stable/drivers/raster/vrt.html
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import Any, Literal
from xml.etree import ElementTree

from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

from rooftrace.core.errors import DataError, LayoutError
from rooftrace.core.text import list_and_count, plural, reason_of
from rooftrace.io.files import is_file, metadata_root, read_head, visible_files, xml_root
from rooftrace.io.gdal import is_raster
from rooftrace.io.image_header import Header, checked_grid, known_crs
from rooftrace.io.vector_formats import kml_text

_SIDECAR_REMEDY = (
    "Copy the image again with all files beside it, or remove this file if the image is complete "
    "without it."
)

_METADATA_ENDING = ".aux.xml"
_MASK_ENDINGS = ".msk", ".MSK"
_PRJ_ENDINGS = ".prj", ".PRJ"

RESULT_FILES: Mapping[str, Mapping[str, str]] = {
    "mask": {"_mask.tif": "image/tiff", "_mask.png": "image/png"},
    "polygons": {
        "_buildings.gpkg": "application/geopackage+sqlite3",
        "_buildings.geojson": "application/geo+json",
        "_polygons.gpkg": "application/geopackage+sqlite3",
        "_polygons.geojson": "application/geo+json",
    },
    "preview": {"_preview.png": "image/png"},
    "density": {
        "_density.tif": "image/tiff",
        "_density.gpkg": "application/geopackage+sqlite3",
        "_density.png": "image/png",
    },
}
"""Endings of the files of each output, after the name of the image, and their media types. An image
has one of the files of an output, but all files of the density; see `OutputPaths.of`."""

ITEM_ENDING = "_item.json"
"""Ending of the STAC item that describes the results of an image."""

_RESULT_ENDINGS = (*(end for ends in RESULT_FILES.values() for end in ends), ITEM_ENDING)

POLYGON_STEMS = tuple({end.partition(".")[0] for end in RESULT_FILES["polygons"]})
"""Endings of the names of files of polygons in any format, without suffix."""

WORK_FOLDER = ".rooftrace"
"""Name of the hidden folder for checkpoints and manifest, which a run has until it is finished."""

_HEAD_BYTES = 1024
"""Number of bytes in which GDAL looks for the mark of a VRT."""

_KML_HEAD_BYTES = 1 << 16
"""Number of bytes in which the picture of a KML is looked for; outlines may follow for long."""


def holds_results(folder: Path) -> bool:
    """Return whether a run has written into a folder, or was stopped while it did."""
    return (folder / "run.json").is_file() or (folder / WORK_FOLDER).is_dir()


def is_result(file: Path) -> bool:
    """Return whether a file has the name of a result, which is no input of the next run."""
    return file.name.endswith(_RESULT_ENDINGS)


def predicted_file(path: Path, output: Literal["mask", "polygons"]) -> Path:
    """Return the file of an output in the folder of a prediction; any other path as it is."""
    if not (path.is_dir() and holds_results(path)):
        return path
    files = [file for end in RESULT_FILES[output] for file in sorted(path.glob(f"*{end}"))]
    images = len({file.stem for file in files})
    if images > 1:
        what = "masks" if output == "mask" else "polygons"
        raise DataError(
            f"{path} has the {what} of {images} images; expected those of one.",
            remedy=f"Give the file of one image, such as {files[0]}, or join: rooftrace catalogue",
        )
    return files[0] if files else path


def recorded_files(output: Mapping[str, Any]) -> set[str]:
    """Return the names of the files of an image, from its entry among the `outputs` of run.json."""
    return {Path(str(output[kind])).name for kind in RESULT_FILES if output.get(kind)}


def recorded_runs(folder: Path) -> list[dict[str, Any]]:
    """Return the runs in the run.json of a folder, the newest first; none if it is of no run."""
    try:
        record = json.loads((folder / "run.json").read_bytes())
        runs = [record, *record.pop("earlier", ())]
        # A file of that name may be of another program.
        are_ours = all(isinstance(one["input"], str) for run in runs for one in run["outputs"])
        return runs if are_ours else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def predicted_images(folder: Path, *, mosaics: bool = False) -> dict[str, Path]:
    """Return the image of each result in the folder of a prediction, by name.

    Images that are no longer where they were are left out, and folders that are one scene unless
    `mosaics` is true.
    """
    images = {
        name: Path(one["input"])
        for run in reversed(recorded_runs(folder))
        for one in run["outputs"]
        for name in recorded_files(one)
    }
    return {
        name: image
        for name, image in images.items()
        if is_file(image) or (mosaics and image.is_dir())
    }


def predicted_labels(folder: Path) -> dict[str, Path]:
    """Return the label of each image in the folder of a prediction, by its name without suffix.

    It is its polygons on the ground, which hold single buildings, or else its mask.
    """
    labels: dict[str, Path] = {}
    for end in (*RESULT_FILES["polygons"], *RESULT_FILES["mask"]):
        # A GeoJSON is in pixels, or beside a GeoPackage.
        for file in sorted(folder.glob(f"*{end}")) if not end.endswith(".geojson") else ():
            labels.setdefault(file.name.removesuffix(end), file)
    return labels


def check_vrt(path: Path) -> None:
    """Check that all source files of a VRT exist, also those of VRTs among them.

    A source must be a local image file. Servers and archives are refused, because a received
    mosaic could otherwise choose which addresses this machine calls. Raw bands are refused,
    because they could show the bytes of any other file. Code in a VRT is never run.
    """
    for vrt, parts in _vrts(path):
        missing = [part for part in parts if not part.is_file()]
        if missing:
            counted = plural(len(missing), "file that does", "files that do")
            raise DataError(
                f"The VRT {vrt} names {counted} not exist: {list_and_count(missing)}.",
                remedy="Restore these files, or build the VRT again: gdalbuildvrt OUT.vrt *.tif",
            )


def _vrts(path: Path) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """Yield a VRT and those among its files, each once, with their files."""
    waiting, seen = [path.absolute()], {path.absolute()}
    while waiting:
        vrt = waiting.pop()
        parts = _parts_of(vrt)
        yield vrt, parts
        waiting += [part for part in parts if part not in seen and is_file(part) and _is_vrt(part)]
        seen.update(parts)


def mosaic_parts(path: Path) -> tuple[Path, ...]:
    """Return the files that a VRT shows which is warped or of several files; empty for others."""
    parts = next(_vrts(path))[1] if path.suffix.lower() == ".vrt" else ()
    is_warped = bool(parts) and b'"VRTWarpedDataset"' in read_head(path, _HEAD_BYTES)
    return parts if is_warped or len(parts) > 1 else ()


def is_overlay(path: Path) -> bool:
    """Return whether a file of Google Earth places a picture."""
    return path.suffix.lower() == ".kml" and b"<GroundOverlay>" in read_head(path, _KML_HEAD_BYTES)


def check_links(path: Path, text: bytes) -> None:
    """Raise DataError if the text of a KML has links to other files alone, which are not read."""
    links = re.findall(rb"<NetworkLink>[\s\S]*?<href>\s*([^<]*?)\s*</href>", text)
    # Pyramids of pictures state the region of each link.
    if links and not re.search(rb"<(GroundOverlay|Placemark|Region)\b", text):
        where = links[0].decode("utf-8", "replace")
        raise DataError(
            f"{path} has no picture and no outlines, but {plural(len(links), 'link')}: {where}.",
            remedy="Download what it links to, and give that file.",
        )


def check_overlay(path: Path) -> None:
    """Check that an overlay of Google Earth is an upright picture, or the root of one pyramid.

    Of several linked tiles, as gdal2tiles has them at its coarsest zoom, GDAL (3.10.3) reads the
    first alone, and it leaves out a rotation.
    """
    text = kml_text(path)
    check_links(path, text)
    angle = re.search(rb"<rotation>\s*([-+.\d]+)", text)
    if angle and float(angle[1]):
        raise DataError(
            f"{path} is rotated by {float(angle[1]):g}°; expected an upright picture.",
            remedy="Give the orthophoto from which it was made, or its picture with a world file.",
        )
    links = text.count(b"<NetworkLink>")
    if links > 1 and b"<GroundOverlay>" not in text:
        folder, unpack = path.parent, ""
        if path.suffix.lower() == ".kmz":
            folder = path.with_suffix("")
            unpack = f"unzip {quote(str(path))} -d {quote(str(folder))} && "
        raise DataError(
            f"{path} links to {links} tiles, of which only the first would be read.",
            remedy=f"Predict its tiles: {unpack}rooftrace predict {quote(str(folder))} --mosaic",
        )


def is_sidecar(path: Path) -> bool:
    """Return whether a file is GDAL's overview or validity of an image (TIFFs themselves)."""
    # Names are compared before paths, which take ten times as long.
    if not path.name.lower().endswith((".ovr", ".msk")):
        return False
    return bool(path.suffix) and path.with_suffix("").exists()


class FolderNames(frozenset[str]):
    """The names of the files in a folder in lower case, for `companions` of many images.

    Raises:
        OSError: The folder cannot be listed.
    """

    def __new__(cls, folder: Path) -> FolderNames:
        names = os.listdir(folder)  # noqa: PTH208  # much faster
        return super().__new__(cls, (name.lower() for name in names))

    def __init__(self, folder: Path) -> None:
        self.real = os.path.realpath(folder)
        """Path of the folder without links."""

        self._of_stem = Counter(name.partition(".")[0] for name in self)

    def is_alone(self, name: str) -> bool:
        """Return True if no other file's name begins with that of a file without its suffixes."""
        return name.isascii() and self._of_stem[name.lower().partition(".")[0]] == 1


def companions(path: Path, names: FolderNames | None = None) -> list[Path]:
    """Return the files without which an image has other pixels or another place.

    These are its mask, its world file, `.tab` and `.prj`, GDAL's `.aux.xml`, and images of a VRT.

    Args:
        names: Names in its folder; None to ask the file system for each.
    """
    name = path.name
    if names is not None and names.is_alone(name) and not name.lower().endswith(".vrt"):
        return []
    beside = (
        mask_file(path, names),
        _first(path, _world_names(name, path.suffix), names),
        _first(path, _tab_names(path.stem), names),
        _first(path, [path.stem + one for one in _PRJ_ENDINGS], names),
        _first(path, [name + _METADATA_ENDING], names),
    )
    matches = dict.fromkeys(one for one in beside if one is not None)
    if path.suffix.lower() == ".vrt":
        # A VRT that is damaged, or that names what cannot be a file, is reported when it is opened.
        with suppress(DataError, OSError):
            for _, parts in _vrts(path):
                matches |= dict.fromkeys(filter(is_file, parts))
    return [*matches]


def _parts_of(path: Path) -> tuple[Path, ...]:
    """Return the files that a VRT names."""
    try:
        root = xml_root(path)
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(
            f"The VRT {path} cannot be read: {reason_of(error)}.",
            remedy="Build it again: gdalbuildvrt OUT.vrt *.tif",
        ) from error
    if any(band.get("subClass") == "VRTRawRasterBand" for band in root.iter("VRTRasterBand")):
        raise DataError(
            f"The VRT {path} reads raw bytes of a file as pixels (VRTRawRasterBand).",
            remedy="Convert it where it was made: gdal_translate IN.vrt OUT.tif",
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
                remedy="Copy the images here, and build it again: gdalbuildvrt OUT.vrt *.tif",
            )
    folder = path.parent
    parts = (folder / name if relative else Path(name) for name, relative in named)
    return tuple(dict.fromkeys(part.absolute() for part in parts))


def _is_vrt(path: Path) -> bool:
    """Return whether GDAL opens a file as a VRT; a declaration of XML or a comment may precede."""
    head = read_head(path, _HEAD_BYTES).lstrip()
    return head.startswith(b"<") and b"<VRTDataset" in head


def with_sidecars(path: Path, header: Header, names: FolderNames | None = None) -> Header:
    """Return the header of an image with the georeference that the files beside it add.

    They are checked, since GDAL ignores damaged ones silently: the mask (`.msk`), without which
    nodata would become ground, the metadata (`.aux.xml`), which may hold the georeference and the
    nodata value, the world file (such as `.tfw`) with the position, and the `.prj` with its
    coordinate system. Damaged overviews (`.ovr`) change no pixel.

    Args:
        path, names: See `companions`.
        header: Header by the file itself.
    """
    if metadata := _first(path, [path.name + _METADATA_ENDING], names):
        metadata_root(metadata)
    if header.mask == "none" and header.alpha is None and (mask := mask_file(path, names)):
        raise DataError(
            f"{mask} is damaged, or is not a mask of the size of {path.name}.",
            remedy=_SIDECAR_REMEDY,
        )
    grid = header.grid
    # A note explains why the georeference in the file itself is not used.
    if grid.crs is not None or header.note:
        return header
    world = _first(path, _world_names(path.name, path.suffix), names)
    if grid.transform.is_identity and world:
        grid = replace(grid, transform=_read_world_file(world, path))
    if grid.transform.is_identity:
        points = _first(path, [f"{one}.points" for one in (path.name, path.stem)], names)
        if points is None:
            return header
        note = (
            f"{path} has no georeference, and {points.name} beside it is for QGIS alone: give the "
            "GeoTIFF that its Georeferencer makes."
        )
        return replace(header, note=note)
    if prj := _first(path, [path.stem + one for one in _PRJ_ENDINGS], names):
        grid = replace(grid, crs=_read_prj(prj, path))
    grid, note = checked_grid(grid, str(path))
    return replace(header, grid=grid, note=note)


def _world_names(name: str, suffix: str) -> list[str]:
    """Return the names under which GDAL looks for a world file, such as `.pgw` of `.png`.

    https://gdal.org/en/stable/drivers/raster/wld.html
    """
    ending = suffix.removeprefix(".").lower()
    stem = name.removesuffix(suffix)
    short = f"{ending[:1]}{ending[-1:]}w"
    # ArcGIS adds an x to the ending if the image is turned.
    endings = (short, f"{short}x", f"{ending}w", "wld") if ending else ("wld",)
    names = (f"{stem}.{one}" for low in endings for one in (low, low.upper()))
    return [one for one in names if one != name]


def _tab_names(stem: str) -> list[str]:
    """Return the names of MapInfo's table that places an image, which GDAL reads for some formats.

    https://gdal.org/en/stable/drivers/raster/gtiff.html#georeferencing
    """
    return [f"{stem}.tab", f"{stem}.TAB"]


def _first(
    path: Path,
    candidates: Iterable[str],
    names: FolderNames | None = None,
    is_there: Callable[[str], bool] = is_file,
) -> Path | None:
    """Return the first file that is there under one of the names beside an image."""
    if names is not None:
        # Some file systems compare other characters than those of ASCII in ways of their own.
        candidates = [one for one in candidates if not one.isascii() or one.lower() in names]
    # Much faster than paths, and most images have no such file.
    folder = str(path)[: -len(path.name)]
    for name in candidates:
        file = folder + name
        if is_there(file):
            return Path(file)
    return None


def _read_world_file(world: Path, path: Path) -> Affine:
    """Return the transform of a world file; raise DataError unless it places an image."""
    lines = world.read_text("utf-8", "replace").split()[:6]
    try:
        # GDAL takes decimal commas, too.
        numbers = [float(line.replace(",", ".")) for line in lines]
    except ValueError:
        numbers = []
    if len(numbers) == 6 and all(map(isfinite, numbers)):
        a, d, b, e, x, y = numbers
        if a * e != b * d:
            # It states the centre of the first pixel.
            return Affine(a, b, x, d, e, y) @ Affine.translation(-0.5, -0.5)
    shown = " ".join(lines)[:60]
    raise DataError(
        f"{world} is damaged: it holds {shown!r}; expected six numbers that place {path.name}.",
        remedy=_SIDECAR_REMEDY,
    )


def _read_prj(prj: Path, path: Path) -> CRS:
    """Return the coordinate system of a `.prj`: WKT (also Esri's), PROJ or a code."""
    text = prj.read_text("utf-8-sig", "replace").strip()
    try:
        return known_crs(text)
    except CRSError as error:
        raise DataError(
            f"{prj} of {path.name} is not a coordinate system: {text[:60]!r}; expected WKT.",
            remedy=_SIDECAR_REMEDY,
        ) from error


def mask_file(path: Path, names: FolderNames | None = None) -> Path | None:
    """Return the file beside an image that holds its mask, under a name that GDAL finds."""
    # A broken link counts: the mask that it names is gone.
    candidates = [path.name + one for one in _MASK_ENDINGS]
    return _first(path, candidates, names, is_there=os.path.lexists)


_ORTHOPHOTOS = {
    "odm_orthophoto": ("odm_orthophoto.tif", "odm_orthophoto.tif"),
    "3_dsm_ortho/2_mosaic": ("*.tif", "."),
    "map": ("result.tif", "gsddsm.tif"),
}
"""Folder of the orthophotos in a project of OpenDroneMap, Pix4D and DJI Terra, their names, and a
file that the folder then has."""


def images_under(root: Path, glob: Sequence[str] = ()) -> list[Path]:
    """Return all images in a folder and its subfolders, sorted, without hidden ones."""
    return sorted(_images_below(root, glob))


def has_images_under(root: Path) -> bool:
    """Return whether `images_under` would find an image; stops at the first."""
    return next(_images_below(root, ()), None) is not None


GIVE_IMAGES = "Give the folder that holds the images themselves."


def no_image(path: Path | str, glob: Sequence[str] = (), labels: Path | None = None) -> DataError:
    """Return the error for data without an image, or without one that matches a pattern."""
    matches = f" that matches {' or '.join(glob)}" if glob else ""
    whose = f" for {labels}" if labels else ""
    remedy = GIVE_IMAGES
    if labels:
        remedy = "Give the folder of the images with --images."
    elif glob:
        remedy = "Correct the pattern, or the path."
    error = LayoutError if labels else DataError
    return error(f"There is no image{matches}{whose} in {path}.", remedy=remedy)


def _images_below(root: Path, glob: Sequence[str]) -> Iterator[Path]:
    for folder, names in visible_files(root):
        for path in (folder / name for name in names):
            if path.is_file() and matches_glob(path, glob) and is_image_file(path):
                yield path


def beside_orthophotos(images: Iterable[Path]) -> set[Path]:
    """Return the images of projects of `_ORTHOPHOTOS` that are beside their orthophotos.

    These are photographs, textures, pictures of reports, and the orthophoto once more: in tiles, as
    a picture, or in parts that were processed by themselves.
    """
    images, projects = set(images), dict[Path, Path]()
    for folder in {image.parent for image in images}:
        place = folder.absolute()
        for names, (orthophotos, sign) in _ORTHOPHOTOS.items():
            if place.match(names) and (folder / sign).exists():
                found = images.intersection(folder.glob(orthophotos))
                projects |= dict.fromkeys(found, place.parents[names.count("/")])
    roots = {*projects.values()}
    return {
        image for image in images if roots
        and not (roots - {projects.get(image)}).isdisjoint(image.absolute().parents)
    }  # fmt: skip


def matches_glob(path: Path, glob: Sequence[str]) -> bool:
    """Return whether a file name matches one of the patterns; True without patterns."""
    return not glob or any(fnmatch(path.name, pattern) for pattern in glob)


_IMAGE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".jp2", ".vrt",
}  # fmt: skip


def is_image_file(path: Path) -> bool:
    """Return whether a file is an image: by its suffix, or by its content if that is unknown.

    Opening each of 100,000 files would take minutes; reading a damaged image raises the error.
    """
    return is_named_as_image(path) or (not is_sidecar(path) and is_raster(path))


def is_named_as_image(path: Path) -> bool:
    """Return whether the name of a file is that of an image, without opening the file."""
    return path.suffix.lower() in _IMAGE_SUFFIXES and not is_sidecar(path)


def is_lost_image(path: Path) -> bool:
    """Return whether a file with the name of an image is empty or may not be read.

    It is an image that fails, such as an interrupted download, rather than no image.
    """
    if not is_named_as_image(path):
        return False
    try:
        with path.open("rb") as opened:
            return not opened.read(1)
    except OSError:
        return True


def images_in(folder: Path, glob: Sequence[str] = ()) -> list[Path]:
    """Return the images directly in a folder, sorted; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    # Querying each of 100,000 paths, and sorting them as paths, would take many seconds.
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    paths = (folder / name for name in names)
    return [path for path in paths if matches_glob(path, glob) and is_image_file(path)]
