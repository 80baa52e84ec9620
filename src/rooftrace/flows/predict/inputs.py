"""Inputs of `rooftrace predict`: images, folders, URLs, and tiles that form one scene."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pyproj import CRS

from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.core.text import list_and_count, plural, without_folders
from rooftrace.core.types import UNKNOWN_PROVENANCE, ResultProvenance
from rooftrace.flows.predict.folder_images import (
    CATALOGUE_SUFFIXES,
    HEIGHTS,
    MASK,
    OTHER_HEIGHTS,
    images_among,
    images_at,
    images_in_subfolders,
    skipped_notes,
    visible_in,
)
from rooftrace.io.area import Area, AreaSource, limit_to_area
from rooftrace.io.companions import GIVE_IMAGES, FolderNames, companions, no_image
from rooftrace.io.elevation import WithHeights, elevation_files, is_elevation
from rooftrace.io.files import is_url
from rooftrace.io.georeferenced import GeoreferencedSource, check_crs, in_crs, innermost
from rooftrace.io.map_service import check_not_arcgis, is_service, plain_url, without_secrets
from rooftrace.io.mosaic import AdjacentImages, Mosaic, TileMosaic
from rooftrace.io.nodata import NodataRule, nodata_to_json
from rooftrace.io.raster import RasterFile, open_image, open_raster
from rooftrace.io.remote import is_object_url, list_objects, url_stem
from rooftrace.io.remote_raster import RemoteRaster
from rooftrace.io.reproject import outline_points
from rooftrace.io.service_options import ServiceOptions
from rooftrace.io.service_raster import ServiceRaster, open_service
from rooftrace.io.web_mercator import TileName, latitude_of

_MIN_LISTED = 10
"""Minimum number of images in a folder to list its files, rather than to ask for each one."""

_HEADER_REQUESTS = 16
"""Number of headers of images on servers that are requested at the same time."""

_COUNTED = 100
"""Number of images on disk from whose sizes that of all of them is estimated."""

_COMPARED = 16
"""Number of images whose places are compared to see whether they adjoin."""

_TIFFS = (".tif", ".tiff")

T = TypeVar("T")


@dataclass(frozen=True)
class SceneInput:
    """One image to predict, or several images that form one scene.

    Args:
        name: First part of the names of its results.
        path: Path of the file or folder; for an image on a server, its name.
        source: Opened image, to be closed after prediction.
        notes: Decisions about the input that the user should know.
        provenance: Origin of the image, where it is known better than from the source.
        opened: Result of `read_stamp` when the image was opened; "" to read it now.
    """

    name: str
    path: Path
    source: (
        RasterFile
        | GeoreferencedSource
        | TileMosaic
        | AdjacentImages
        | AreaSource
        | ServiceRaster
        | WithHeights
    )
    notes: tuple[str, ...] = ()
    provenance: ResultProvenance = UNKNOWN_PROVENANCE
    opened: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        # The version on a server is known when the image is first requested.
        if not (self.opened or self.url):
            object.__setattr__(self, "opened", self.read_stamp())

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A worker opens the image again.
        self.__dict__.update(state, opened="")
        self.__post_init__()

    @cached_property
    def url(self) -> str:
        """URL of the image, without secrets; "" for an image on disk."""
        image = innermost(self.source)
        return self.source.name if isinstance(image, RemoteRaster | ServiceRaster) else ""

    @property
    def stamp(self) -> str:
        """Result of `read_stamp` when the image was opened."""
        if not self.opened:
            object.__setattr__(self, "opened", self.read_stamp())
        return self.opened

    def read_stamp(self) -> str:
        """Return a string that changes when the image changes.

        For a URL it contains the version that the server reports; for a file or the images of
        a folder, names, sizes and times of change.
        """
        image = innermost(self.source)
        if isinstance(image, RemoteRaster | ServiceRaster):
            return f"{self.url} {image.version}"
        if not isinstance(image, Mosaic):
            return _stamp_of(self.path, image.names if isinstance(image, RasterFile) else None)
        # Other files in the folder, such as the results of the run itself, do not matter.
        folders: dict[Path, FolderNames] = {}
        digest = hashlib.sha256()
        for part in map(innermost, image.images):
            assert isinstance(part, RasterFile)
            folder = part.path.parent
            if folder not in folders:
                folders[folder] = FolderNames(folder)
            digest.update(_stamp_of(part.path, folders[folder]).encode())
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Check that the image has not changed since it was opened."""
        if self.read_stamp() != self.stamp:
            raise DataError(
                f"{self.shown} was changed while it was predicted, so that its results would be a "
                "mixture of both versions.",
                remedy="Run the same command again when the image is complete.",
            )

    @property
    def shown(self) -> str:
        """Path or URL, as the user knows it."""
        return self.url or str(self.path)

    def without_folders(self, text: str) -> str:
        """Return a message in which the image has its name alone; `{y}.png` names no service."""
        return text if is_service(self.shown) else without_folders(text, [self.shown])


def _stamp_of(path: Path, names: FolderNames | None = None) -> str:
    """Return a string that changes when a file or the files beside it change, see `companions`."""
    folder = os.path.realpath(path.parent) if names is None else names.real
    digest = hashlib.sha256(os.fsencode(f"{folder}{os.sep}{path.name}"))
    for file in (path, *companions(path, names)):
        with suppress(OSError):
            status = file.stat()
            digest.update(os.fsencode(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
    return digest.hexdigest()


@dataclass(frozen=True)
class PredictInputs:
    """All images of a run.

    Args:
        skipped: Files in the given folders that are not predicted, and subfolders with images, each
            with the reason.
        settings: Settings for reading the images, on which the results depend; plain data for
            `run.json`.
    """

    scenes: Sequence[SceneInput]
    skipped: Mapping[Path, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def services(self) -> tuple[ServiceRaster, ...]:
        """Map services among the images."""
        images = (innermost(scene.source) for scene in self.scenes)
        return tuple(image for image in images if isinstance(image, ServiceRaster))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on skipped files and folders, if there are any."""
        notes = skipped_notes(self.skipped)
        notes += [
            f"{scene.path} holds heights, by name and values, and is predicted as a picture. "
            "To measure buildings by it: rooftrace predict IMAGE -o OUT --surface "
            + shlex.quote(str(scene.path))
            for scene in self.scenes
            if is_elevation(scene.path)
        ]
        return tuple(notes)

    def beside(self, models: Sequence[str]) -> PredictInputs:
        """Return the inputs of a run that reads these surface and terrain models: they are not
        skipped, and no other one is proposed.
        """
        used = {Path(one).resolve() for one in elevation_files(models)}
        skipped = {
            path: OTHER_HEIGHTS if why == HEIGHTS else why
            for path, why in self.skipped.items()
            if why != HEIGHTS or path.resolve() not in used
        }
        return replace(self, skipped=skipped)


def find_inputs(
    inputs: Sequence[Path | str],
    nodata: NodataRule | None = None,
    *,
    mosaic: bool = False,
    zoom: int | None = None,
    tms: bool | None = None,
    area: Area | None = None,
    provenance: ResultProvenance = UNKNOWN_PROVENANCE,
    services: ServiceOptions | None = None,
    crs: CRS | None = None,
    heights: tuple[Sequence[str], Sequence[str]] | None = None,
    trusted: bool = False,
) -> PredictInputs:
    """Find and open all images that the user names.

    Slippy tiles are georeferenced by their names: `OAM-x-y-z.png`, or `z/x/y.png` in a folder of
    zoom levels.

    Args:
        inputs: Images, folders, URLs of GeoTIFFs on a web server or in object storage. A URL in
            object storage that ends with a slash stands for all GeoTIFFs below it.
        nodata: Pixel values that mean nodata, in addition to those that the files declare.
        mosaic: Whether each input is a folder of slippy tiles or of adjacent georeferenced images
            that form one scene.
        zoom: Zoom level of the slippy tiles of a mosaic, where there are several, or of a map
            service.
        tms: Whether the rows of slippy tiles are counted from the south; default: if their
            `tilemapresource.xml` says so, or the area fits only so.
        area: Area to predict; images outside of it are left out.
        provenance: Origin of all images, which replaces what the files state.
        services: Options of map services; None if they are not accepted.
        heights: Surface and terrain models from which images get a band of heights.
        crs: Coordinate system of images that have a position and state none.
        trusted: Whether the images are the user's own, see `open_raster`.

    Raises:
        ConfigError: An input is a catalogue, or a service of ArcGIS in place of its tiles; `crs`
            was given for one image that it cannot place; the tiles of a mosaic have several zoom
            levels; a zoom level was given without tiles; a map service was given without an area.
        DataError: An input does not exist or holds no image; the area misses all images.
    """
    inputs = [plain_url(one) if isinstance(one, str) else one for one in inputs]
    urls = [one for one in inputs if isinstance(one, str) and is_url(one)]
    service_urls = [one for one in urls if is_service(one)]
    images = [one for one in inputs if one not in service_urls]
    if mosaic:
        scenes, skipped = _mosaics(images, zoom, nodata, tms, crs, area)
    elif zoom is not None and images:
        raise ConfigError(
            f"--zoom {zoom} was given, but each image is predicted by itself.",
            remedy="Add --mosaic to predict the tiles of one zoom level as one scene.",
        )
    elif tms is not None and images:
        raise ConfigError(
            "--tms or --xyz was given without --mosaic.",
            remedy="Add --mosaic to predict map tiles as one scene.",
        )
    else:
        scenes, skipped = _images(images, nodata, trusted)
    if crs is not None and not mosaic:
        if len(scenes) == 1:
            check_crs(innermost(scenes[0].source), crs, scenes[0].shown)
        scenes = [replace(scene, source=in_crs(scene.source, crs)) for scene in scenes]
    scenes += [_service(url, zoom, nodata, area, services) for url in service_urls]
    if heights is not None:
        scenes = [replace(scene, source=WithHeights(scene.source, *heights)) for scene in scenes]
    if area is not None:
        limited = limit_to_area([scene.source for scene in scenes], area)
        missed = [scene.shown for scene, source in zip(scenes, limited) if source is None]
        scenes = [replace(scene, source=one) for scene, one in zip(scenes, limited) if one]
        if missed:
            listed = list_and_count(missed)
            note = f"outside of {area.name} and left out: {listed}"
            scenes[0] = replace(scenes[0], notes=(*scenes[0].notes, note))
    if provenance != UNKNOWN_PROVENANCE:
        scenes = [
            replace(scene, provenance=provenance.filled(scene.provenance)) for scene in scenes
        ]
    settings: dict[str, Any] = {
        "nodata": nodata_to_json(nodata),
        "mosaic": mosaic,
        "zoom": zoom,
        "tms": tms,
        "area": None if area is None else [area.name, area.digest],
        "provenance": None if provenance == UNKNOWN_PROVENANCE else asdict(provenance),
        "crs": None if crs is None else crs.to_wkt(),
    }
    if heights is not None:
        settings["heights"] = [
            [_stamp_of(Path(file)) for file in elevation_files(given)] for given in heights
        ]
    return PredictInputs(scenes, skipped, settings)


def adjacent_note(scenes: Sequence[SceneInput]) -> list[str]:
    """Return a note where images of one folder adjoin or overlap, as sheets of one map do.

    Args:
        scenes: Images that were predicted each by itself; the first ones are compared.
    """
    sheets, files, folder, crs = [], [], _scene_folder(scenes[0].path), ""
    for scene in scenes[:_COMPARED]:
        image = innermost(scene.source)
        if isinstance(image, RasterFile) and _scene_folder(scene.path) == folder:
            with suppress(RooftraceError):
                if scene.source.grid.transform.is_identity:
                    continue
                sheets.append(scene.source.grid)
                files.append(scene.source)
                stated = scene.source.grid.crs
                # A tile has its place from its name.
                is_placed = not image.grid.transform.is_identity
                if image.grid.crs is None and stated is not None and is_placed:
                    crs = f" --crs {shlex.quote(stated.to_string())}"
    for one, other in combinations(sheets, 2):
        if one.crs is None or one.crs != other.crs:
            continue
        there = one.to_pixels(outline_points(other, one.crs))[:, ::-1]
        starts, stops = there.min(axis=0), there.max(axis=0)
        common = np.minimum(one.shape, stops) - np.maximum(0, starts)
        least, most = sorted(common / np.minimum(one.shape, stops - starts))
        # Neighbours share a side; photographs of a flight overlap by more than half.
        if -0.001 < least <= 0.9 and most > 0.5:
            counted = "buildings on their common ground are counted in each"
            how = f"Without duplicates: rooftrace catalogue {shlex.quote(str(folder))} -o OUT"
            with suppress(RooftraceError):
                AdjacentImages(files, str(folder))
                named = shlex.quote(str(folder))
                how = f"As one scene: rooftrace predict {named} --mosaic{crs} -o OUT"
            return [f"images in {folder} adjoin or overlap, and {counted}. {how}"]
    return []


def _scene_folder(path: Path) -> Path:
    """Return the folder that --mosaic takes for an image; the tile `z/x/y.png` lies deeper."""
    steps = (path.stem, *path.parts[-3:-1])
    return path.parents[2 if len(steps) == 3 and all(map(str.isdecimal, steps)) else 0]


def of_headers(
    function: Callable[[SceneInput], T], scenes: Sequence[SceneInput], otherwise: T
) -> list[T]:
    """Return the result of a function that opens each image; requests to servers run in parallel.

    Args:
        function: Called with one image; from a thread of its own for an image on a server.
        scenes: Images in the order of the results.
        otherwise: Result for an image that cannot be opened; its error is raised when it is
            predicted.
    """

    def result(scene: SceneInput) -> T:
        try:
            return function(scene)
        except RooftraceError:
            return otherwise

    with ThreadPoolExecutor(_HEADER_REQUESTS, "header") as pool:
        requested = {
            index: pool.submit(result, scene) for index, scene in enumerate(scenes) if scene.url
        }
        return [
            requested[index].result() if scene.url else result(scene)
            for index, scene in enumerate(scenes)
        ]


def sizes_px(scenes: Sequence[SceneInput]) -> dict[str, int]:
    """Return the number of pixels of each image by name; 0 for one that cannot be opened."""
    sizes = of_headers(lambda scene: prod(scene.source.grid.shape), scenes, 0)
    return dict(zip([scene.name for scene in scenes], sizes))


def about_total_px(scenes: Sequence[SceneInput]) -> int:
    """Return the number of pixels of all images, estimated if more than 100 are on disk.

    Opening all small images first would take as long as decoding them; each is opened again, with
    its pixels, when it is predicted.
    """
    on_disk = [scene for scene in scenes if not scene.url]
    remote = [scene for scene in scenes if scene.url]
    counted = on_disk[:: -(-len(on_disk) // _COUNTED) or 1]
    total_px = sum(sizes_px(counted).values()) * len(on_disk) // max(len(counted), 1)
    return total_px + sum(sizes_px(remote).values())


def _images(
    inputs: Sequence[Path | str], nodata: NodataRule | None, trusted: bool
) -> tuple[list[SceneInput], dict[Path, str]]:
    """Return the images of all inputs, each as one scene, and the files that were skipped.

    A URL in object storage that ends with a slash is a folder of GeoTIFFs.
    """
    locations: dict[Path | str, TileName | None] = {}
    skipped: dict[Path, str] = {}
    images: Mapping[Path | str, TileName | None] | None
    for given in inputs:
        if not isinstance(given, str) or not is_url(given):
            images, others = images_at(Path(given))
            skipped |= others
        elif not is_object_url(given) or not given.lower().endswith((*CATALOGUE_SUFFIXES, "/")):
            images = {given: None}
        elif given.endswith("/"):
            images = dict.fromkeys(list_objects(given, _TIFFS))
            if not images:
                raise DataError(
                    f"{given} has no object that ends with {' or '.join(_TIFFS)}.",
                    remedy="Check the URL; only GeoTIFFs are read from object storage.",
                )
        else:
            images = None
        if images is None:
            images, others = images_in_subfolders(str(given))
            skipped |= others
        for location, tile in images.items():
            # A file may be given twice, by itself and by its folder.
            locations.setdefault(location, tile)
    paths = [one for one in locations if isinstance(one, Path)]
    if len(paths) > 1 or (paths and paths[0] != Path(inputs[0])):
        from rooftrace.labels.mask_files import label_masks

        masks = sorted(label_masks(paths))
        if masks and len(masks) == len(locations):
            raise DataError(
                f"{masks[0].parent} has only masks of other images.", remedy=GIVE_IMAGES
            )
        for mask in masks:
            del locations[mask]
        skipped |= dict.fromkeys(masks, MASK)
    names = {}
    for folder, count in Counter(one.parent for one in locations if isinstance(one, Path)).items():
        if count >= _MIN_LISTED:
            # A folder may be searched by those who may not list it.
            with suppress(OSError):
                names[folder] = FolderNames(folder)
    scenes = []
    for location, tile in locations.items():
        name = url_stem(location) if isinstance(location, str) else location.stem
        if tile is not None and name.isdecimal():
            name = str(tile).replace("/", "__")
        source = open_image(location, nodata=nodata, tile=tile, trusted=trusted)
        path = Path(source.name) if isinstance(location, str) else location
        if isinstance(image := innermost(source), RasterFile):
            image.names = names.get(path.parent)
        scenes.append(SceneInput(name, path, source))
    return scenes, skipped


def _service(
    url: str,
    zoom: int | None,
    nodata: NodataRule | None,
    area: Area | None,
    options: ServiceOptions | None,
) -> SceneInput:
    """Return the tiles of a map service in an area as one scene."""
    check_not_arcgis(url)
    name = without_secrets(url.partition("#")[0])
    if options is None:
        raise ConfigError(
            f"{name} is a map service, which only rooftrace predict reads.",
            remedy="Predict it on the command line.",
        )
    if area is None:
        raise ConfigError(
            f"{name} is a map service of any size, and no area was given.",
            remedy="Limit it to a vector file of polygons: --area town.geojson",
        )
    raster = open_service(url, area, options, zoom=zoom, nodata=nodata)
    return SceneInput(raster.service.title, Path(raster.name), raster, raster.service.notes)


def _mosaics(
    inputs: Sequence[Path | str],
    zoom: int | None,
    nodata: NodataRule | None,
    tms: bool | None,
    crs: CRS | None,
    area: Area | None,
) -> tuple[list[SceneInput], dict[Path, str]]:
    from rooftrace.labels.slippy_tiles import find_tiles, open_mosaic

    scenes: list[SceneInput] = []
    skipped: dict[Path, str] = {}
    for given in inputs:
        folder = Path(given)
        if not folder.is_dir():
            raise DataError(
                f"{given} is not a folder; with --mosaic, each input must be a folder of tiles or "
                "images that form one scene.",
                remedy="Give the path of the folder, or leave out --mosaic.",
            )
        name = folder.resolve().name
        if find_tiles(folder).paths:
            tiles = open_mosaic(folder, zoom, nodata, tms)
            notes = tiles.notes
            if area is not None and tms is None and AreaSource(tiles, area).is_missed:
                from_south = open_mosaic(folder, zoom, nodata, tms=True)
                if not AreaSource(from_south, area).is_missed:
                    tiles = from_south
                    why = f"because {area.name} fits only so"
                    notes = (f"{folder}: rows are counted from the south (TMS), {why}.",)
            top = tiles.grid.bounds_xy[3]
            if area is None and tms is None and not notes and top < 0:
                where = f"so the tiles lie at {-latitude_of(top):.2f}° S"
                remedy = "If the place is as far north, add --tms."
                notes = (f"{folder}: rows are counted from the north (XYZ), {where}. {remedy}",)
            scenes.append(SceneInput(name, folder, tiles, notes))
            continue
        if zoom is not None:
            raise ConfigError(
                f"--zoom {zoom} was given, but {folder} has no tiles called OAM-x-y-z.png or "
                "z/x/y.png.",
                remedy="Leave out --zoom, or give the folder that holds the tiles.",
            )
        paths, others = images_among(visible_in(folder, os.DirEntry.is_file))
        if not paths:
            raise no_image(folder)
        skipped |= others
        images = (open_raster(path, nodata=nodata) for path in paths)
        parts = [image if crs is None else in_crs(image, crs) for image in images]
        note = f"{folder}: {plural(len(parts), 'image is', 'images are')} one scene."
        joined = AdjacentImages(parts, str(folder))
        scenes.append(SceneInput(name, folder, joined, (note,)))
    return scenes, skipped
