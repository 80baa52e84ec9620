"""Which files of a folder are images to predict, and why the others are not."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import list_and_count, plural
from rooftrace.io.companions import (
    beside_orthophotos,
    holds_results,
    is_image_file,
    is_lost_image,
    is_named_as_image,
    is_overlay,
    is_result,
    is_sidecar,
    mosaic_parts,
    no_image,
)
from rooftrace.io.elevation import is_elevation
from rooftrace.io.files import check_exists, visible_files
from rooftrace.io.gdal import conversion_of, is_raster
from rooftrace.io.raster import open_image, open_raster
from rooftrace.io.web_mercator import TileName

CATALOGUE_SUFFIXES = (".txt", ".lst", ".json", ".geojson")
"""Suffixes of files that `rooftrace catalogue` reads; none of them is an image."""

_MAX_SKIPPED_LISTED = 10
"""Maximum number of skipped files that a note lists."""

NOT_IMAGE, MASK, HEIGHTS = "not an image", "masks of other images", "heights"
_PROJECT, _RESULT = "other images of the project of the orthophoto", "results of a run"
_MOSAIC = "mosaics or warped copies of these images"
_FOLDER = "images in subfolders are not predicted"
_OVERLAY, OTHER_HEIGHTS = "places a picture", "heights that were not named"
_REASONS = NOT_IMAGE, _OVERLAY, MASK, _PROJECT, _RESULT, HEIGHTS, OTHER_HEIGHTS, _MOSAIC, _FOLDER
"""Reasons for which files and folders are not predicted."""

_UNUSABLE = re.compile(r"_udm2?(_clip)?$", re.IGNORECASE)
"""Ending of the names of Planet's masks of unusable data (UDM), without suffix."""

_BESIDE = re.compile(r"\.(prj|tab|wld|[a-z\d]{2,4}wx?|(aux\.)?xml)$", re.IGNORECASE)
"""Endings of files that place or describe an image."""


def skipped_notes(skipped: Mapping[Path, str]) -> list[str]:
    """Return a note for each reason for which files and folders were skipped."""
    notes = []
    for reason in _REASONS:
        if paths := sorted(path for path, why in skipped.items() if why == reason):
            counted = plural(len(paths), "folder" if reason == _FOLDER else "file")
            listed = list_and_count([path.name for path in paths], _MAX_SKIPPED_LISTED)
            named = paths[0].with_name(re.sub(r"\d+", "*", paths[0].name))
            if reason != HEIGHTS or sum(path.match(named.name) for path in paths) < 2:
                named = paths[0]
            first = shlex.quote(str(named))
            how = f": measure buildings with --surface {first}" * (reason == HEIGHTS)
            how += f": rooftrace predict {first} -o OUT" * (reason in (_OVERLAY, _MOSAIC))
            notes.append(f"skipped {counted} ({reason}{how}): {listed}")
    return notes


def images_in_subfolders(given: str) -> tuple[dict[Path | str, TileName | None], dict[Path, str]]:
    """Return the images of a folder that are all in subfolders: one, or without a georeference; and
    what the folder has besides, if it is the project of an orthophoto.

    Raises:
        ConfigError: It is a catalogue or labelled data.
        DataError: No image was found.
    """
    # Imported only here: the modules of labels take a twentieth of a command on one tile.
    from rooftrace.labels.folders import find_pairs

    path = Path(given)
    pairs = find_pairs(path) if path.is_dir() else ()
    if pairs:
        with_masks = sorted({str(pair.image.parent) for pair in pairs if pair.image is not None})
        raise ConfigError(
            f"{given} is labelled data: images with their masks.",
            remedy=f"Predict the images alone: rooftrace predict {shlex.join(with_masks)} -o OUT",
        )
    files = (folder / name for folder, names in visible_files(path) for name in names)
    images, others = images_among(files)
    skipped = {file: reason for file, reason in others.items() if reason != NOT_IMAGE}
    if path.is_dir() and not images:
        raise no_image(given)
    # A catalogue is one layer, in which scenes without a georeference have no place.
    if len(images) == 1 or (images and open_image(images[0]).grid.crs is None):
        return dict.fromkeys(images), skipped
    raise ConfigError(
        f"{given} is a catalogue of scenes, not an image or a folder of images.",
        remedy=f"Predict its scenes as one layer: rooftrace catalogue {shlex.quote(given)} -o OUT",
    )


def images_at(path: Path) -> tuple[Mapping[Path | str, TileName | None] | None, dict[Path, str]]:
    """Return an image, or the images in a folder with their tiles, and the other files there.

    The images are None for a catalogue: a file that lists scenes, or a folder whose images are all
    in subfolders.
    """
    if not path.is_dir() or conversion_of(path):
        if path.suffix.lower() in CATALOGUE_SUFFIXES and path.is_file():
            return None, {}
        check_exists(path)
        return {path: None}, {}
    images, others = images_among(visible_in(path, os.DirEntry.is_file))
    if images:
        for folder in visible_in(path, os.DirEntry.is_dir):
            if not holds_results(folder) and any(map(is_named_as_image, folder.iterdir())):
                others[folder] = _FOLDER
        return dict.fromkeys(images), others
    folders = [one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")]
    # A folder of zoom levels holds the tiles of a map, each of which is an image by itself.
    if not all(one.name.isdecimal() for one in folders):
        return None, {}
    from rooftrace.labels.slippy_tiles import find_tiles

    tiles = {} if any(map(is_image_file, others)) else find_tiles(path).paths
    if not tiles:
        raise no_image(path)
    return {file: tile for tile, file in tiles.items()}, {}


def images_among(files: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the images to predict among files, and the reason not to predict each other one.

    Heights, results of a run, mosaics of other images, and what is beside the orthophoto of a
    project are others. What belongs to an image, such as its mask or world file, is neither.
    """
    images: list[Path] = []
    others: dict[Path, str] = {}
    for file in files:
        if is_sidecar(file):
            continue
        if not (is_raster(file) or is_lost_image(file)):
            others[file] = _OVERLAY if is_overlay(file) else NOT_IMAGE
        elif is_elevation(file):
            others[file] = HEIGHTS
        elif _UNUSABLE.search(file.stem):
            others[file] = MASK
        elif is_result(file) and holds_results(file.parent):
            others[file] = _RESULT
        else:
            images.append(file)
    listed = [*images, *(one for one, reason in others.items() if reason != NOT_IMAGE)]
    names = {*listed, *(image.with_suffix("") for image in listed)}
    for file in [one for one in others if _BESIDE.search(one.name)]:
        if Path(_BESIDE.sub("", str(file))) in names:
            del others[file]
    others |= dict.fromkeys(sorted(beside_orthophotos(images)), _PROJECT)
    others |= dict.fromkeys(_mosaic_files(images), _MOSAIC)
    return [image for image in images if image not in others], others


def _mosaic_files(images: Sequence[Path]) -> Iterator[Path]:
    """Yield the VRTs that show these images a second time, with the same bands: several of them,
    or one that gdalwarp has moved to another CRS.
    """
    parts_of = {image: parts for image in images if (parts := mosaic_parts(image))}
    absolute = {image.absolute() for image in images} if parts_of else set()
    for image, parts in parts_of.items():
        if not absolute.issuperset(parts):
            continue
        part = open_raster(parts[0])
        # One that stacks bands is the image, and they are its parts; so is one that places a part.
        is_placed = len(parts) > 1 or part.grid.crs is not None
        if is_placed and open_raster(image).bands == part.bands:
            yield image


def visible_in(folder: Path, is_kind: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
    """Return the files or the folders directly in a folder, sorted, without hidden ones."""
    # Querying each of 100,000 paths, and sorting them as paths, would take many seconds.
    with os.scandir(folder) as entries:
        visible = (entry for entry in entries if not entry.name.startswith("."))
        names = sorted(entry.name for entry in visible if is_kind(entry))
    return [folder / name for name in names]
