"""Reads catalogues: folder trees, text lists, STAC item collections, GeoParquet.

Nothing that a catalogue names is opened here, and nobody is asked for anything.
"""

from __future__ import annotations

import os
from pathlib import Path

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.catalogue.entry import Catalogue, CatalogueScene, located, named
from rooftrace.data.catalogue.stac import read_stac
from rooftrace.data.catalogue.table import read_table
from rooftrace.data.layout import is_sidecar
from rooftrace.io.raster import is_raster
from rooftrace.io.remote import url_stem

__all__ = ["SUFFIXES", "is_catalogue", "read_catalogue"]

_MOST_BYTES = 512 * 2**20
_LONGEST_LINE = 8192

SUFFIXES = (".txt", ".lst", ".json", ".geojson", ".parquet", ".geoparquet")


def is_catalogue(path: Path) -> bool:
    """Whether a path can only be meant as a catalogue: a file of scenes, or a folder that has its
    images in folders.
    """
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
    path: Path, *, asset: str | None = None, path_column: str | None = None
) -> Catalogue:
    """The scenes of a catalogue.

    Args:
        path: a folder, of which all images are scenes, those in its folders included; or a file: a
            text with a path or an address on each line; STAC items as JSON; a GeoParquet with a
            column of paths or addresses.
        asset: of STAC items, which one is the image; default the one that says so.
        path_column: of a GeoParquet; default the one that is called so.

    Raises:
        DataError: it is not there, is of no known form, is damaged, or names no scene.
        ConfigError: an option that belongs to another form.
        MissingExtraError: GeoParquet without pyarrow.
    """
    suffix = path.suffix.lower()
    stac, table = suffix in (".json", ".geojson"), suffix in (".parquet", ".geoparquet")
    if asset is not None and (path.is_dir() or not stac):
        raise ConfigError(f"--asset {asset} is for STAC items, and {path} holds none.")
    if path_column is not None and (path.is_dir() or not table):
        raise ConfigError(f"--path-column {path_column} is for GeoParquet, and {path} is none.")
    if path.is_dir():
        return _tree(path)
    if not path.is_file():
        raise DataError(f"There is no catalogue at {path}.", remedy="Check the path.")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; a catalogue has up to "
            f"{_MOST_BYTES / 1e6:.0f}.",
            remedy="Split it, or make it a GeoParquet.",
        )
    if stac:
        return read_stac(path, asset)
    if table:
        return read_table(path, path_column)
    if suffix in (".txt", ".lst"):
        return _list(path)
    raise DataError(
        f"{path} is no catalogue that is known by its ending {suffix!r}; expected a folder or one "
        f"of {', '.join(SUFFIXES)}.",
        remedy="Give the file the ending of what it holds.",
    )


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


def _list(path: Path) -> Catalogue:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a text: {error}.", remedy="Save it as UTF-8."
        ) from error
    scenes = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if len(entry) > _LONGEST_LINE or "\0" in entry:
            raise DataError(
                f"{path}, line {number}: {entry[:60]!r}… is no path or address.",
                remedy="Write one path or address on each line.",
            )
        location = located(entry, path.parent)
        stem = url_stem(location) if "://" in location else Path(location).stem
        scenes.append(CatalogueScene(stem, location))
    return Catalogue(str(path), "text list", named(scenes, str(path)))
