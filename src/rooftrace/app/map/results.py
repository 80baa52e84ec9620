"""Read results folders: which images they hold and what `run.json` records of them.

A `ResultsCatalogue` knows which folders the map shows.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from rooftrace.core.config import invalid_values
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import parse_json, reason_of
from rooftrace.flows.predict.inputs import WORK_FOLDER, holds_results
from rooftrace.io.files import is_listed_file, read_file

State = Literal["ready", "running", "empty", "missing", "other"]
"""State of a results folder.

`running`: the run is not finished, whether a process works on it or not. `other`: the folder holds
no results.
"""

_RESULT = re.compile(
    r"(?P<name>.+)_(?:(?P<mask>mask\.(?:tif|png))"
    r"|(?P<polygons>(?:buildings|polygons)\.(?:gpkg|geojson|fgb|parquet))"
    r"|(?P<preview>preview\.png)|(?P<density>density\.tif))"
)
_KINDS = ("mask", "polygons", "preview", "density")
_COMPARISON = "compare"
# Layer and record that `rooftrace compare` writes.
_COMPARED, _COMPARE_RECORD = "compare.gpkg", "compare.json"
_MOST_RECORD_BYTES = 64 * 2**20
_SETTLED_NS = 2 * 10**9
"""Age of the last change from which a folder is remembered. File systems round times, so that a
change that follows at once may leave the same time."""


class _Part(BaseModel):
    """Part of a record of a run; only what the map reads is checked."""

    model_config = ConfigDict(extra="allow", strict=True)


class _ClassRecord(_Part):
    name: str


class _ImageRecord(_Part):
    input: str | None = None
    gsd_m: float | None = None
    buildings: int | None = None
    values: dict[str, Any] | None = None
    classes: list[_ClassRecord] | None = None


class _Options(_Part):
    threshold: float | None = None
    zoom: int | None = None


class _RunRecord(_Part):
    created: str | None = None
    bundle: dict[str, Any] | None = None
    options: _Options | None = None
    outputs: list[_ImageRecord] | None = None
    figures: list[_ImageRecord] | None = None
    failed: list[dict[str, Any]] | None = None


_INSIDE = "--"
"""Mark between the id of a named folder and the name of a folder inside it."""


@dataclass(frozen=True)
class ImageFiles:
    """The result files of one image; a file that does not exist is None.

    Args:
        name: Common beginning of the file names.
        record: Entry of the image in `run.json` (`input`, `buildings` and so on), or `compare.json`
            of a comparison; empty if there is none.
        is_comparison: True for the results of `rooftrace compare`, whose polygons are the buildings
            of both layers.
    """

    name: str
    mask: Path | None = None
    polygons: Path | None = None
    preview: Path | None = None
    density: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    is_comparison: bool = False

    @property
    def stamp(self) -> str:
        """Hash that changes when one of the files changes."""
        digest = hashlib.sha256(self.name.encode())
        for path in (self.mask, self.polygons, self.preview, self.density):
            if path is not None:
                try:
                    status = path.stat()
                except OSError:
                    continue
                digest.update(os.fsencode(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}"))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ResultsFolder:
    """A results folder as it is now.

    Args:
        path: Path of the folder.
        state: Whether there is something to show.
        message: One or two sentences about a problem, or "".
        images: Result files by image name, in the order of the names.
        run: Content of `run.json`, or empty if it is missing.
    """

    path: Path
    state: State
    message: str
    images: Mapping[str, ImageFiles]
    run: Mapping[str, Any]


def read_results(path: Path) -> ResultsFolder:
    """Return what a folder holds. Problems are described in the result, not raised.

    A folder is read again when its entries or its records have changed. With 100,000 images that
    takes seconds, and each tile of the map asks for it.
    """
    state = tuple(_state(one) for one in (path, path / "run.json", path / _COMPARE_RECORD))
    changed_ns = max(mtime_ns for mtime_ns, _, _ in state)
    is_settled = 0 < changed_ns < time.time_ns() - _SETTLED_NS
    return _read_settled(path, state) if is_settled else _read(path)


def _state(path: Path) -> tuple[int, int, int]:
    """Return the time of the last change of a file or folder, and two more marks; zeros if none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino


# A comparison asks for two folders by turns. Each may take hundreds of megabytes.
@lru_cache(maxsize=2)
def _read_settled(path: Path, _state: tuple[tuple[int, int, int], ...]) -> ResultsFolder:
    """Return what a folder holds, as it was read first in this state."""
    return _read(path)


def _read(path: Path) -> ResultsFolder:
    def without_images(state: State, message: str) -> ResultsFolder:
        return ResultsFolder(path, state, message, {}, {})

    try:
        entries = list(os.scandir(path))
        names = sorted(entry.name for entry in entries if is_listed_file(entry))
        begun = (path / WORK_FOLDER).is_dir()
    except FileNotFoundError:
        return without_images("missing", f"The folder {path.name} is not there (any more).")
    except (NotADirectoryError, PermissionError) as error:
        return without_images(
            "missing", f"The folder {path.name} cannot be opened: {reason_of(error)}."
        )
    run, damaged = _read_run(path / "run.json")
    found: dict[str, dict[str, Path]] = {}
    for name in names:
        match = _RESULT.fullmatch(name)
        if match is not None:
            kind = next(kind for kind in _KINDS if match[kind] is not None)
            found.setdefault(match["name"], {})[kind] = path / name
    records = _by_name(run)
    images = {
        name: ImageFiles(
            name,
            files.get("mask"),
            files.get("polygons"),
            files.get("preview"),
            files.get("density"),
            records.get(name, {}),
        )
        for name, files in sorted(found.items())
        # A scene called x_density has a mask too; a density without other files belongs to no
        # image.
        if "mask" in files or "polygons" in files or "preview" in files
    }
    if _COMPARED in names:
        compared, _ = _read_record(path / _COMPARE_RECORD)
        images[_COMPARISON] = ImageFiles(
            _COMPARISON, polygons=path / _COMPARED, record=compared, is_comparison=True
        )
    if begun:
        number = f"{len(images)} images are" if len(images) != 1 else "1 image is"
        message = (
            f"The run that writes to {path.name} is not finished: {number} done so far. "
            "Open it again for more; a run that was stopped goes on by the same command."
        )
        return ResultsFolder(path, "running", message, images, run)
    if images:
        return ResultsFolder(path, "ready", damaged or _failures(run), images, run)
    if run:
        reason = damaged or _failures(run)
        message = f"The run in {path.name} has no results to show. {reason}".strip()
        return ResultsFolder(path, "empty", message, {}, run)
    if not entries:
        return without_images("empty", f"The folder {path.name} is empty.")
    return without_images(
        "other",
        f"{path.name} is no results folder: it has no file that ends in _mask.tif, "
        "_buildings.gpkg or the like. Name the folder that rooftrace predict or compare wrote with "
        f"-o. {damaged}".strip(),
    )


def _read_record(file: Path) -> tuple[dict[str, Any], str]:
    """Return the content of a JSON file and a sentence about what is wrong with it."""
    try:
        record = parse_json(read_file(file, _MOST_RECORD_BYTES))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        return {}, f"{file.name} cannot be read, so the images are not found: {reason}."
    if not isinstance(record, dict):
        return {}, f"{file.name} holds no record of a run."
    return record, ""


def _read_run(file: Path) -> tuple[Mapping[str, Any], str]:
    """Return what is sound in the record of a run and a sentence about what is not."""
    run, damaged = _read_record(file)
    try:
        _RunRecord.model_validate(run)
    except ValidationError as error:
        # Places of wrong values: an entry of a list, or else the whole value.
        wrong: dict[int | str, set[int | str | None]] = {}
        for problem in error.errors(include_url=False, include_context=False):
            key, *inside = problem["loc"]
            is_entry = bool(inside) and isinstance(run[str(key)], list)
            wrong.setdefault(key, set()).add(inside[0] if is_entry else None)
        run = {
            key: [one for at, one in enumerate(value) if at not in wrong[key]]
            if key in wrong
            else value
            for key, value in run.items()
            if None not in wrong.get(key, ())
        }
        damaged = f"run.json is damaged: {invalid_values(error, _RunRecord, 1)}."
    return run, damaged


def _by_name(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the record of each image by the common beginning of its file names."""
    figures = {one.get("input"): one for one in run.get("figures") or ()}
    records: dict[str, dict[str, Any]] = {}
    for output in run.get("outputs") or ():
        for kind in _KINDS:
            match = _RESULT.fullmatch(Path(str(output.get(kind) or "")).name)
            if match is not None:
                records[match["name"]] = {**figures.get(output.get("input"), {}), **output}
                break
    return records


def recorded_bands(record: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
    """Return the bands that a prediction has read, as the option `--bands` takes them.

    Args:
        record: Entry of the image, see `ImageFiles`.
        run: Content of `run.json`.

    Returns:
        The numbers of the bands in the file; if they are not recorded, what the user gave.
    """
    values = record.get("values")
    numbers = values.get("bands") if isinstance(values, dict) else None
    if isinstance(numbers, list) and numbers and all(type(one) is int for one in numbers):
        return ",".join(map(str, numbers))
    given = (run.get("options") or {}).get("bands")
    return given if isinstance(given, str) else None


def _failures(run: Mapping[str, Any]) -> str:
    failed = run.get("failed") or ()
    if not failed:
        return ""
    first = f"{failed[0].get('message', '')}".strip()
    if len(failed) == 1:
        return f"One image failed: {first}"
    return f"{len(failed)} images failed, the first: {first}"


def without_folders(text: str, folder: Path, image: str | None = None) -> str:
    """Remove folders from a text: clients need not know where files of the server lie.

    Args:
        text: Message about the files of a results folder.
        folder: Results folder.
        image: Path of the image, which may lie anywhere.
    """
    if image is not None:
        text = text.replace(image, Path(image).name)
    return text.replace(f"{folder}/", "")


@contextmanager
def hidden_folders(folder: Path, image: str | None = None) -> Iterator[None]:
    """Remove folders from the errors of a block, see `without_folders`.

    Raises:
        DataError: The block raised it.
    """
    try:
        yield
    except DataError as error:
        message = without_folders(error.message, folder, image)
        raise type(error)(message, remedy=error.remedy) from error


@dataclass(frozen=True)
class ResultsEntry:
    """A results folder that a person can choose.

    Args:
        id: Name in requests. It is looked up and is never part of a path.
        title: Name that people see.
    """

    id: str
    title: str


class ResultsCatalogue(Protocol):
    """A list of results folders with ids. Threads use it at the same time."""

    def entries(self) -> Sequence[ResultsEntry]:
        """Return the current entries in the order in which they are shown."""
        ...

    def entry(self, id: str) -> ResultsEntry | None:  # noqa: A002
        """Return the entry with an id, also one that is too old for the list; None if unknown."""
        ...

    def folder(self, id: str) -> Path | None:  # noqa: A002
        """Return the folder of an entry; None if the id is unknown."""
        ...


class FolderCatalogue:
    """The folders that a person named, and the results in folders inside them.

    A folder without results of its own is left out if it has such folders: it may hold one for each
    city.

    Args:
        paths: Results folders; they may be empty, or be created later.

    Raises:
        ConfigError: A path is a file.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._folders: dict[str, Path] = {}
        for path in dict.fromkeys(path.resolve() for path in paths):
            if path.is_file():
                raise ConfigError(
                    f"{path} is a file; a folder of results was expected.",
                    remedy="Name the folder that rooftrace predict wrote with -o.",
                )
            slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-") or "results"
            number = 2
            unique = slug
            while unique in self._folders:
                unique, number = f"{slug}-{number}", number + 1
            self._folders[unique] = path

    def entries(self) -> Sequence[ResultsEntry]:
        folders = self._with_inner()
        names = [path.name for path in folders.values()]

        def title(path: Path) -> str:
            return path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}"

        return [ResultsEntry(name, title(path)) for name, path in folders.items()]

    def entry(self, id: str) -> ResultsEntry | None:  # noqa: A002
        return next((one for one in self.entries() if one.id == id), None)

    def folder(self, id: str) -> Path | None:  # noqa: A002
        outer, mark, name = id.partition(_INSIDE)
        path = self._folders.get(outer)
        if path is None or not mark:
            return path
        # Each request for a tile asks: the others inside are not looked into.
        return next(iter(self._inner(path, name)), None)

    def _with_inner(self) -> dict[str, Path]:
        """Return the folders by their ids, each before those with results inside it."""
        found: dict[str, Path] = {}
        for name, path in self._folders.items():
            inner = self._inner(path)
            if not inner or _is_shown(path):
                found[name] = path
            found |= {f"{name}{_INSIDE}{one.name}": one for one in inner}
        return found

    def _inner(self, path: Path, name: str | None = None) -> list[Path]:
        """Return the folders inside a folder that hold results and are not named themselves.

        Args:
            path: Folder, which may be missing.
            name: Name of the only folder to look into.
        """
        try:
            with os.scandir(path) as entries:
                inside = [
                    Path(entry.path)
                    for entry in entries
                    if name in (None, entry.name) and Path(entry.path).is_dir()
                ]
        except OSError:
            return []
        named = self._folders.values()
        return sorted(one for one in inside if one not in named and _holds_record(one))


def _holds_record(path: Path) -> bool:
    """Return whether a run or a comparison has written into a folder."""
    return holds_results(path) or (path / _COMPARED).is_file()


def _is_shown(path: Path) -> bool:
    """Return whether a folder holds results itself."""
    if _holds_record(path):
        return True
    with os.scandir(path) as entries:
        return any(_RESULT.fullmatch(entry.name) for entry in entries)
