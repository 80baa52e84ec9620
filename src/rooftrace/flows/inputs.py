"""What `rooftrace predict` is given: images, folders of them, addresses, and tiles of one scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.ground.tiles import find_tiles, open_mosaic
from rooftrace.data.images import image_name, open_image
from rooftrace.data.layout import is_image_file, is_sidecar
from rooftrace.data.tilenames import TileName
from rooftrace.io.adjacent import AdjacentTiles
from rooftrace.io.area import Area, AreaSource
from rooftrace.io.mosaic import TileMosaic
from rooftrace.io.objects import is_object_url, list_objects
from rooftrace.io.placed import PlacedSource
from rooftrace.io.raster import NodataRule, RasterFile, is_raster, open_raster
from rooftrace.io.remote import is_url, open_source, url_stem

__all__ = ["Job", "find_images", "find_jobs"]

_MOST_LISTED = 3
_TIFFS = (".tif", ".tiff")


@dataclass(frozen=True)
class Job:
    """One image to predict.

    Args:
        name: what its results are called after.
        path: of the file or folder; of an address, one that is as good a name.
        source: to be closed when it is done.
        url: where it is fetched from, as it may be shown; "" for what lies on disk.
        notes: what was made of the input, for the person to see.
    """

    name: str
    path: Path
    source: RasterFile | PlacedSource | TileMosaic | AdjacentTiles | AreaSource
    url: str = ""
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """What the person knows it by."""
        return self.url or str(self.path)


def find_jobs(
    inputs: Sequence[Path | str],
    nodata: NodataRule | None = None,
    *,
    mosaic: bool = False,
    zoom: int | None = None,
    area: Area | None = None,
) -> tuple[list[Job], list[Path]]:
    """What is to be predicted, each by itself, and what was skipped in the folders.

    Slippy tiles lie where their names say: `OAM-x-y-z.png`, and `z/x/y.png` in a folder of zooms.

    Args:
        inputs: images, folders, addresses of GeoTIFFs on a web server or in object storage, and
            there of folders of them, which end with a slash.
        nodata: what is nodata in the images besides what they say themselves.
        mosaic: whether each input is a folder that is one scene: of slippy tiles, or of
            georeferenced images side by side.
        zoom: of the slippy tiles of a mosaic, where there are several.
        area: to which all of it is limited; of several images those are left out that it misses.

    Raises:
        ConfigError: a mosaic of several zooms, or a zoom without a mosaic of tiles.
        DataError: an input that does not exist, or holds nothing to predict; an area that misses
            all of it.
    """
    if mosaic:
        jobs, skipped = _mosaics(inputs, zoom, nodata)
    elif zoom is not None:
        raise ConfigError(
            f"--zoom {zoom} was given, but each image is predicted by itself.",
            remedy="Add --mosaic to predict the tiles of one zoom as one scene.",
        )
    else:
        jobs, skipped = _images(inputs, nodata)
    return (jobs if area is None else _limited(jobs, area)), skipped


def _images(
    inputs: Sequence[Path | str], nodata: NodataRule | None
) -> tuple[list[Job], list[Path]]:
    jobs: dict[Path | str, Job] = {}
    skipped: list[Path] = []
    for given in inputs:
        if isinstance(given, str) and is_url(given):
            for url in _objects(given):
                source = open_source(url, nodata=nodata)
                jobs.setdefault(url, Job(url_stem(url), Path(source.name), source, source.name))
            continue
        given = Path(given)
        tiles = _pyramid(given)
        images, others = (list(tiles), []) if tiles else find_images([given])
        skipped += others
        for path in images:
            tile = tiles.get(path)
            name = image_name(str(tile)) if tile and path.stem.isdecimal() else path.stem
            # A file may be named twice, by itself and by its folder.
            jobs.setdefault(path, Job(name, path, open_image(path, nodata=nodata, tile=tile)))
    return list(jobs.values()), skipped


def _objects(url: str) -> list[str]:
    """The GeoTIFFs below an address of object storage that ends with a slash; else the address."""
    if not (is_object_url(url) and url.endswith("/")):
        return [url]
    found = list_objects(url, _TIFFS)
    if not found:
        raise DataError(
            f"{url} has no object that ends with {' or '.join(_TIFFS)}.",
            remedy="Check the address; only GeoTIFFs are read from object storage.",
        )
    return found


def _mosaics(
    inputs: Sequence[Path | str], zoom: int | None, nodata: NodataRule | None
) -> tuple[list[Job], list[Path]]:
    jobs: list[Job] = []
    skipped: list[Path] = []
    for given in inputs:
        folder = Path(given)
        if not folder.is_dir():
            raise DataError(
                f"{given} is no folder; with --mosaic each input is one, of tiles or images that "
                "are one scene.",
                remedy="Name the folder, or leave out --mosaic.",
            )
        name = folder.resolve().name
        if find_tiles(folder).paths:
            jobs.append(Job(name, folder, open_mosaic(folder, zoom, nodata)))
            continue
        if zoom is not None:
            raise ConfigError(
                f"--zoom {zoom} was given, but {folder} has no tiles called OAM-x-y-z.png or "
                "z/x/y.png.",
                remedy="Leave out --zoom, or name the folder that holds the tiles.",
            )
        paths, others = find_images([folder])
        tiles = [open_raster(path, nodata=nodata) for path in paths]
        # A mosaic beside the images that it is made of shows them once more.
        parts = [tile for tile in tiles if tile.file_format != "VRT"]
        skipped += others + [tile.path for tile in tiles if tile.file_format == "VRT"]
        note = f"{folder}: {len(parts)} images are one scene."
        jobs.append(Job(name, folder, AdjacentTiles(parts, str(folder)), notes=(note,)))
    return jobs, skipped


def _limited(jobs: Sequence[Job], area: Area) -> list[Job]:
    """The jobs inside of an area; the first of them says which were left out."""
    limited = [(job, AreaSource(job.source, area)) for job in jobs]
    missed = [job.shown for job, source in limited if _is_missed(source)]
    if len(missed) == len(limited):
        limited[0][1].check()
    found = [replace(job, source=source) for job, source in limited if not _is_missed(source)]
    if missed:
        listed = ", ".join(missed[:_MOST_LISTED])
        more = f" and {len(missed) - _MOST_LISTED} more" if len(missed) > _MOST_LISTED else ""
        note = f"outside of {area.name} and left out: {listed}{more}"
        found[0] = replace(found[0], notes=(*found[0].notes, note))
    return found


def _is_missed(source: AreaSource) -> bool:
    try:
        return source.is_missed
    except DataError:
        # Raised again, and told, when it is its turn.
        return False


def find_images(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The images that are named, and what was skipped in the folders among them.

    Raises:
        DataError: an input that does not exist, or a folder without an image.
    """
    images: list[Path] = []
    skipped: list[Path] = []
    for given in inputs:
        if not given.is_dir():
            if not given.exists():
                raise DataError(f"There is no image at {given}.", remedy="Check the path.")
            images.append(given)
            continue
        files = [
            file
            for file in sorted(given.iterdir())
            if file.is_file() and not file.name.startswith(".") and not is_sidecar(file)
        ]
        found = [file for file in files if is_raster(file)]
        if not found:
            raise DataError(
                f"The folder {given} has no image among its {len(files)} files.",
                remedy="Name the folder that holds the images themselves.",
            )
        images += found
        skipped += sorted(set(files) - set(found))
    return list(dict.fromkeys(images)), skipped


def _pyramid(folder: Path) -> dict[Path, TileName]:
    """The tiles in a folder's folders, which are called by zoom and column."""
    if not folder.is_dir() or any(p.is_file() and is_image_file(p) for p in folder.iterdir()):
        return {}
    return {path: tile for tile, path in find_tiles(folder).paths.items()}
