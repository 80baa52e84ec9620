"""Read catalogues of scenes: folder trees, text lists, STAC items, and GeoParquet tables.

A catalogue is read without opening the images that it names, and without network access for them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely

from rooftrace.core.errors import ConfigError, DataError, MissingExtraError
from rooftrace.flows.catalogue.scenes import (
    Bounds,
    Catalogue,
    CatalogueFile,
    CatalogueScene,
    with_unique_ids,
)
from rooftrace.flows.catalogue.stac_scenes import read_stac
from rooftrace.flows.predict.inputs import CATALOGUE_SUFFIXES
from rooftrace.io.gdal import is_raster
from rooftrace.io.remote import (
    ObjectAddress,
    is_object_url,
    list_objects,
    read_object,
    url_stem,
)
from rooftrace.labels.image_files import is_sidecar

__all__ = ["read_catalogue"]

_PATH_COLUMNS = ("path", "location", "href", "url", "image", "filename", "file")
_MAX_ROWS = 5_000_000


def _table(file: CatalogueFile, path_column: str | None) -> Catalogue:
    """Return the scenes of a GeoParquet. The column `id` gives their ids, if it exists."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("parquet", "A GeoParquet catalogue", "pyarrow") from error
    frame = _frame(file)
    if len(frame) > _MAX_ROWS:
        raise DataError(
            f"{file.name} has {len(frame):,} rows; expected up to {_MAX_ROWS:,}.",
            remedy="Split it into several catalogues.",
        )
    columns = [str(name) for name in frame.columns]
    wanted = (path_column,) if path_column is not None else _PATH_COLUMNS
    column = next((name for name in wanted if name in columns), None)
    if column is None:
        raise DataError(
            f"{file.name} has no column {' or '.join(wanted)}; it has {', '.join(columns[:20])}.",
            remedy="Give the column with paths or addresses with --path-column.",
        )
    bounds = _bounds_table(frame)
    scenes = []
    for number, entry in enumerate(frame[column].tolist()):
        if not isinstance(entry, str) or not entry.strip() or "\0" in entry:
            raise DataError(
                f"{file.name}, row {number + 1}: {column} is {entry!r}; expected a path or an "
                "address.",
                remedy="Remove the row, or fill it in.",
            )
        location = file.located(entry.strip())
        own = frame["id"].iloc[number] if "id" in columns else None
        name = str(own) if own is not None and own == own else Path(location).stem
        scenes.append(CatalogueScene(name, location, bounds[number]))
    return Catalogue(file.name, "GeoParquet", with_unique_ids(scenes, file.name))


def _frame(file: CatalogueFile) -> Any:
    import geopandas
    import pandas as pd

    try:
        try:
            return geopandas.read_parquet(file.path)
        except ValueError:
            # A table of paths without geometry.
            return pd.read_parquet(file.path)
    except Exception as error:  # pyarrow, geopandas and shapely raise errors of many types
        reason = " ".join(str(error).split())[:200].removesuffix(".")
        raise DataError(
            f"{file.name} cannot be read as GeoParquet: {reason}.",
            remedy="Write it with geopandas, DuckDB or GDAL.",
        ) from error


def _bounds_table(frame: Any) -> list[Bounds | None]:
    geometry = getattr(frame, "geometry", None)
    if geometry is None:
        return [None] * len(frame)
    if geometry.crs is not None and not geometry.crs.is_geographic:
        geometry = geometry.to_crs(4326)
    found = np.asarray(shapely.bounds(geometry.to_numpy()), float).reshape(-1, 4)
    return [
        (float(w), float(s), float(e), float(n)) if math.isfinite(w + s + e + n) else None
        for w, s, e, n in found.tolist()
    ]


_MAX_BYTES = 512 * 2**20
_MAX_LINE_LENGTH = 8192
_TIFFS = (".tif", ".tiff")


def read_catalogue(
    path: Path | str, *, asset: str | None = None, path_column: str | None = None
) -> Catalogue:
    """Read the scenes of a catalogue.

    Args:
        path: Path of a folder or a file. All images of a folder and of its subfolders are scenes. A
            file is a text with a path or an address on each line, STAC items as JSON, or a
            GeoParquet with a column of paths or addresses. Both may be in object storage:
            `s3://BUCKET/KEY`, with a slash at the end of a folder.
        asset: Key of the STAC asset that is the image; default: see `read_stac`.
        path_column: Column of a GeoParquet with paths or addresses. Default: the first existing
            column of `path`, `location`, `href`, `url`, `image`, `filename` and `file`.

    Raises:
        DataError: The catalogue does not exist, has an unknown format, is damaged, or names no
            scene.
        ConfigError: An option belongs to another format.
        MissingExtraError: pyarrow is missing for GeoParquet, or obstore for object storage.
    """
    given = str(path)
    remote = is_object_url(given)
    is_folder = given.endswith("/") if remote else Path(path).is_dir()
    suffix = Path(given).suffix.lower()
    stac, table = suffix in (".json", ".geojson"), suffix in (".parquet", ".geoparquet")
    if asset is not None and (is_folder or not stac):
        raise ConfigError(
            f"--asset {asset} is for STAC items, but {path} holds none.",
            remedy="Leave out --asset.",
        )
    if path_column is not None and (is_folder or not table):
        raise ConfigError(
            f"--path-column {path_column} is for GeoParquet, but {path} is not one.",
            remedy="Leave out --path-column.",
        )
    if is_folder:
        return _objects(given) if remote else _tree(Path(path))
    if suffix not in CATALOGUE_SUFFIXES and (remote or Path(path).is_file()):
        raise DataError(
            f"{path} has the ending {suffix!r}; expected a folder, or a file with one of the "
            f"endings {', '.join(CATALOGUE_SUFFIXES)}.",
            remedy="Rename the file to the ending of its format.",
        )
    with _fetched(given) if remote else _here(Path(path)) as file:
        if stac:
            return read_stac(file, asset)
        return _table(file, path_column) if table else _list(file)


@contextmanager
def _here(path: Path) -> Iterator[CatalogueFile]:
    if not path.is_file():
        raise DataError(f"There is no catalogue at {path}.", remedy="Check the path.")
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; expected up to "
            f"{_MAX_BYTES / 1e6:.0f} MB.",
            remedy="Split the catalogue, or write it as a GeoParquet.",
        )
    yield CatalogueFile(str(path), path, str(path.parent))


@contextmanager
def _fetched(url: str) -> Iterator[CatalogueFile]:
    with tempfile.TemporaryDirectory(prefix="rooftrace.") as folder:
        path = Path(folder) / f"catalogue{Path(url).suffix.lower()}"
        path.write_bytes(read_object(url, most_bytes=_MAX_BYTES))
        yield CatalogueFile(url, path, url.rpartition("/")[0] + "/")


def _objects(url: str) -> Catalogue:
    found = list_objects(url, _TIFFS)
    if not found:
        raise DataError(f"There is no GeoTIFF at {url}.", remedy="Check the address.")
    # The listed addresses are in normal form; bring the folder into the same form.
    folder = str(ObjectAddress.parse(url))
    scenes = [
        CatalogueScene("_".join(PurePosixPath(one[len(folder) :]).with_suffix("").parts), one)
        for one in found
    ]
    return Catalogue(url, "folder", with_unique_ids(scenes, url))


def _tree(folder: Path) -> Catalogue:
    scenes, skipped = [], []
    for where, folders, files in os.walk(folder):
        # `os.walk` does not follow links, so no link leads to an endless loop.
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
            f"There is no image in {folder} or its subfolders.",
            remedy="Give the folder that holds the images.",
        )
    found = with_unique_ids(scenes, str(folder))
    return Catalogue(str(folder), "folder", found, tuple(skipped))


def _list(file: CatalogueFile) -> Catalogue:
    try:
        text = file.path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file.name} cannot be read as text: {error}.", remedy="Save it as UTF-8."
        ) from error
    scenes = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if len(entry) > _MAX_LINE_LENGTH or "\0" in entry:
            raise DataError(
                f"{file.name}, line {number}: {entry[:60]!r}… is not a path or an address.",
                remedy="Write one path or address on each line.",
            )
        location = file.located(entry)
        stem = url_stem(location) if "://" in location else Path(location).stem
        scenes.append(CatalogueScene(stem, location))
    return Catalogue(file.name, "text list", with_unique_ids(scenes, file.name))
