"""Reads catalogues: folder trees, text lists, STAC item collections, GeoParquet.

Nothing that a catalogue names is opened here, and nobody is asked for anything.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.catalogue.entry import Catalogue, CatalogueFile, CatalogueScene, named
from rooftrace.data.catalogue.stac import read_stac
from rooftrace.data.catalogue.table import read_table
from rooftrace.data.layout import is_sidecar
from rooftrace.io.objects import ObjectAddress, is_object_url, list_objects, read_object
from rooftrace.io.raster import is_raster
from rooftrace.io.remote import url_stem

__all__ = ["SUFFIXES", "is_catalogue", "read_catalogue"]

_MOST_BYTES = 512 * 2**20
_LONGEST_LINE = 8192
_TIFFS = (".tif", ".tiff")

SUFFIXES = (".txt", ".lst", ".json", ".geojson", ".parquet", ".geoparquet")


def is_catalogue(given: Path | str) -> bool:
    """Whether a path can only be meant as a catalogue: a file of scenes, or a folder that has its
    images in folders. Of addresses those of a file are, in object storage.
    """
    if "://" in str(given):
        return is_object_url(str(given)) and str(given).lower().endswith(SUFFIXES)
    path = Path(given)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return True
    if not path.is_dir():
        return False
    inside = [one for one in path.iterdir() if not one.name.startswith(".")]
    if any(one.is_file() and not is_sidecar(one) and is_raster(one) for one in inside):
        return False
    # A folder of zooms holds the tiles of a map, each an image by itself.
    folders = [one for one in inside if one.is_dir()]
    return bool(folders) and not all(one.name.isdecimal() for one in folders)


def read_catalogue(
    path: Path | str, *, asset: str | None = None, path_column: str | None = None
) -> Catalogue:
    """The scenes of a catalogue.

    Args:
        path: a folder, of which all images are scenes, those in its folders included; or a file: a
            text with a path or an address on each line; STAC items as JSON; a GeoParquet with a
            column of paths or addresses. Either may be in object storage: `s3://BUCKET/KEY`, of a
            folder with a slash at its end.
        asset: of STAC items, which one is the image; default the one that says so.
        path_column: of a GeoParquet; default the one that is called so.

    Raises:
        DataError: it is not there, is of no known form, is damaged, or names no scene.
        ConfigError: an option that belongs to another form.
        MissingExtraError: GeoParquet without pyarrow, object storage without obstore.
    """
    given = str(path)
    remote = is_object_url(given)
    is_folder = given.endswith("/") if remote else Path(path).is_dir()
    suffix = Path(given).suffix.lower()
    stac, table = suffix in (".json", ".geojson"), suffix in (".parquet", ".geoparquet")
    if asset is not None and (is_folder or not stac):
        raise ConfigError(f"--asset {asset} is for STAC items, and {path} holds none.")
    if path_column is not None and (is_folder or not table):
        raise ConfigError(f"--path-column {path_column} is for GeoParquet, and {path} is none.")
    if is_folder:
        return _objects(given) if remote else _tree(Path(path))
    if suffix not in SUFFIXES and (remote or Path(path).is_file()):
        raise DataError(
            f"{path} is no catalogue that is known by its ending {suffix!r}; expected a folder or "
            f"one of {', '.join(SUFFIXES)}.",
            remedy="Give the file the ending of what it holds.",
        )
    with _fetched(given) if remote else _here(Path(path)) as file:
        if stac:
            return read_stac(file, asset)
        return read_table(file, path_column) if table else _list(file)


@contextmanager
def _here(path: Path) -> Iterator[CatalogueFile]:
    if not path.is_file():
        raise DataError(f"There is no catalogue at {path}.", remedy="Check the path.")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; a catalogue has up to "
            f"{_MOST_BYTES / 1e6:.0f}.",
            remedy="Split it, or make it a GeoParquet.",
        )
    yield CatalogueFile(str(path), path, str(path.parent))


@contextmanager
def _fetched(url: str) -> Iterator[CatalogueFile]:
    with tempfile.TemporaryDirectory(prefix="rooftrace.") as folder:
        path = Path(folder) / f"catalogue{Path(url).suffix.lower()}"
        path.write_bytes(read_object(url, most_bytes=_MOST_BYTES))
        yield CatalogueFile(url, path, url.rpartition("/")[0] + "/")


def _objects(url: str) -> Catalogue:
    found = list_objects(url, _TIFFS)
    if not found:
        raise DataError(f"There is no GeoTIFF at {url}.", remedy="Check the address.")
    # Listed as they are called, whatever way the folder was written.
    folder = str(ObjectAddress.parse(url))
    scenes = [
        CatalogueScene("_".join(PurePosixPath(one[len(folder) :]).with_suffix("").parts), one)
        for one in found
    ]
    return Catalogue(url, "folder", named(scenes, url))


def _tree(folder: Path) -> Catalogue:
    scenes, skipped = [], []
    for where, folders, files in os.walk(folder):
        # Links are not followed, so that none leads in a circle.
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in sorted(files):
            path = Path(where) / name
            if name.startswith(".") or is_sidecar(path):
                continue
            if not is_raster(path):
                skipped.append(str(path))
                continue
            relative = path.relative_to(folder).with_suffix("")
            scenes.append(CatalogueScene("_".join(relative.parts), str(path)))
    if not scenes:
        raise DataError(
            f"There is no image in {folder}, nor in its folders.",
            remedy="Name the folder that holds them.",
        )
    found = named(scenes, str(folder))
    return Catalogue(str(folder), "folder", found, tuple(skipped))


def _list(file: CatalogueFile) -> Catalogue:
    try:
        text = file.path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file.name} cannot be read as a text: {error}.", remedy="Save it as UTF-8."
        ) from error
    scenes = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if len(entry) > _LONGEST_LINE or "\0" in entry:
            raise DataError(
                f"{file.name}, line {number}: {entry[:60]!r}… is no path or address.",
                remedy="Write one path or address on each line.",
            )
        location = file.located(entry)
        stem = url_stem(location) if "://" in location else Path(location).stem
        scenes.append(CatalogueScene(stem, location))
    return Catalogue(file.name, "text list", named(scenes, file.name))
