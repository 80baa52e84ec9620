"""Results folders: which ones the map shows, which images they hold, and what `run.json` says."""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.text import list_first, plural, reason_of, without_folders
from rooftrace.core.types import ResultProvenance
from rooftrace.flows.predict.run_folder import MANIFEST
from rooftrace.io.companions import RESULT_FILES, WORK_FOLDER, holds_results, recorded_files
from rooftrace.io.georeferenced import date_span, recorded_provenance
from rooftrace.io.partitions import MANIFEST as LAYER_MANIFEST
from rooftrace.rest.problems import ProblemError
from rooftrace.service.job_store import Job, JobStore
from rooftrace.service.review_store import REVIEW_SUFFIX

State = Literal["ready", "running", "empty", "missing", "other"]
"""State of a results folder.

`running`: the run is not finished, whether a process works on it or not. `other`: the folder holds
no results.
"""

_RESULT = re.compile(
    r"(?P<name>.+)_(?:(?P<mask>mask\.(?:tif|png))"
    r"|(?P<polygons>(?:buildings|heights|polygons)\.(?:gpkg|geojson|fgb|parquet))"
    r"|(?P<preview>preview\.png)|(?P<density>density\.tif))"
)
_OF_HEIGHTS = "_heights.city.json", "_heights.png", "_roof_planes.gpkg"
"""Endings of the files of `rooftrace heights` besides its layer."""
_HEIGHTS_RECORD = "_heights.json"

_LAYER = "buildings"
"""Name of the folder of the layer of a catalogue, and of its entry on the map."""

_SCENES = "scenes"
"""Name of the folder of the scenes of a catalogue."""

_MOST_IN_LAYER = 1_000_000
"""Maximum number of buildings of such a layer: all are held in memory."""

_COMPARISON = "compare"
# Layer and record that `rooftrace compare` writes.
_COMPARED, _COMPARE_RECORD = "compare.gpkg", "compare.json"
_SETTLED_NS = 2 * 10**9
"""Age of the last change from which a folder is remembered. File systems round times, so that a
change that follows at once may leave the same time."""


_INSIDE = "--"
"""Mark between the id of a named folder and the name of a folder inside it."""

_JOB = "job-"
"""Beginning of the id of the results of a job."""

_MOST_JOBS = 200
"""Maximum number of jobs in the list; older ones are found by their ids."""


@dataclass(frozen=True)
class ImageFiles:
    """The result files of one image; a file that does not exist is None.

    Args:
        name: Common beginning of the file names.
        record: Entry of the image in `run.json` (`input`, `buildings` and so on), or `compare.json`
            of a comparison; empty if there is none.
        run: Record of the run that wrote the files, which may be one of the earlier runs in
            `run.json`; empty if there is none.
        is_comparison: True for the results of `rooftrace compare`, whose polygons are the buildings
            of both layers.
    """

    name: str
    mask: Path | None = None
    polygons: Path | None = None
    preview: Path | None = None
    density: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    is_comparison: bool = False

    @property
    def title(self) -> str:
        """Name of the image, or of the catalogue whose layer this is."""
        layer = self.polygons
        return layer.parent.name if layer is not None and layer.name == _LAYER else self.name

    @property
    def paths(self) -> list[Path]:
        """Return the files that exist."""
        files = (self.mask, self.polygons, self.preview, self.density)
        return [path for path in files if path is not None]

    @property
    def downloads(self) -> list[Path]:
        """Return the files with the other forms of the density, the review, the city model and the
        roof planes, and for each raster its style in QGIS and the names of its classes.
        """
        folder = self.paths[0].parent
        ends = (*RESULT_FILES["density"], REVIEW_SUFFIX, *_OF_HEIGHTS)
        others = [folder / f"{self.name}{end}" for end in ends]
        files = [*self.paths, *others]
        files += [path.with_suffix(".qml") for path in files]
        files += [path.with_name(f"{path.name}.aux.xml") for path in files]
        return [path for path in dict.fromkeys(files) if path.is_file()]

    @property
    def reviewed(self) -> bool:
        """Whether a person has reviewed the buildings."""
        return self.paths[0].with_name(f"{self.name}{REVIEW_SUFFIX}").is_file()

    @property
    def city_model(self) -> bool:
        """Whether there is the city model of `rooftrace heights`."""
        return self.paths[0].with_name(f"{self.name}{_OF_HEIGHTS[0]}").is_file()

    @property
    def stamp(self) -> str:
        """Hash that changes when one of the files changes."""
        digest = hashlib.sha256(self.name.encode())
        for path in self.paths:
            try:
                # A folder of files keeps its time when these change.
                status = (path.parent / LAYER_MANIFEST if path.name == _LAYER else path).stat()
            except OSError:
                continue
            digest.update(os.fsencode(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}"))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ResultsFolder:
    """A results folder as it is now.

    Args:
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
    try:
        entries = list(os.scandir(path))
    except OSError as error:
        message = f"The folder {path.name} cannot be opened: {reason_of(error)}."
        return ResultsFolder(path, "missing", message, {}, {})
    run, damaged = _read_record(path / "run.json")
    files: dict[str, dict[str, Any]] = {}
    names = sorted(entry.name for entry in entries if entry.is_file())
    for name in names:
        match = _RESULT.fullmatch(name)
        if match is not None:
            files.setdefault(match["name"], {})[match.lastgroup or ""] = path / name
    records = _by_name(run)
    for name in files:
        if name not in records and f"{name}{_HEIGHTS_RECORD}" in names:
            records[name] = {"record": _read_record(path / f"{name}{_HEIGHTS_RECORD}")[0]}
    images = {
        name: ImageFiles(name, **kinds, **records.get(name, {}))
        for name, kinds in sorted(files.items())
        # A scene called x_density has a mask too; a density without other files belongs to no
        # image.
        if kinds.keys() - {"density"}
    }
    if _COMPARED in names:
        compared, _ = _read_record(path / _COMPARE_RECORD)
        images[_COMPARISON] = ImageFiles(
            _COMPARISON, polygons=path / _COMPARED, record=compared, is_comparison=True
        )
    layer = _layer(path) if LAYER_MANIFEST in names else None
    if layer is not None:
        images[_LAYER] = layer
        run = run or dict(layer.run)
    reason = damaged or _failures(run)
    if _is_running(path):
        message = (
            f"The run that writes to {path.name} is not finished: {plural(len(images), 'image')} "
            "done so far. Open it again for more; a run that was stopped resumes by the same "
            "command."
        )
        return ResultsFolder(path, "running", message, images, run)
    if images:
        return ResultsFolder(path, "ready", reason, images, run)
    if run or not entries:
        message = f"{path.name} has no results to show. {reason}".strip()
        return ResultsFolder(path, "empty", message, {}, run)
    message = (
        f"{path.name} is not a results folder: it has no file that ends in _mask.tif, "
        "_buildings.gpkg or the like. Name the folder that rooftrace predict or compare wrote with "
        f"-o. {damaged}"
    ).strip()
    return ResultsFolder(path, "other", message, {}, {})


def _layer(path: Path) -> ImageFiles | None:
    """Return the layer of a catalogue in a folder; None without one that the map can hold."""
    manifest, _ = _read_record(path / LAYER_MANIFEST)
    rows = manifest.get("rows", 0) if (path / _LAYER).is_dir() else 0
    if not 0 < rows <= _MOST_IN_LAYER:
        return None
    run, _ = _read_record(path / _SCENES / "run.json")
    origins = [recorded_provenance(one["record"]) for one in _by_name(run).values()]
    sources = sorted({one.source for one in origins if one.source})
    dates = date_span([one.imagery_date for one in origins])
    origin = ResultProvenance(dates, list_first(sources) or None)
    record = {_LAYER: rows, "provenance": vars(origin)}
    return ImageFiles(_LAYER, polygons=path / _LAYER, record=record, run=run)


def _read_record(file: Path) -> tuple[dict[str, Any], str]:
    """Return the content of a JSON file, and a sentence about what is wrong with it."""
    try:
        record = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"{file.name} cannot be read, so the images are not found: {reason_of(error)}."
    return (record, "") if isinstance(record, dict) else ({}, f"{file.name} is not a record.")


def _by_name(latest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `record` and `run` of each image by the common beginning of its file names."""
    records: dict[str, dict[str, Any]] = {}
    for run in (latest, *(latest.get("earlier") or ())):
        figures = {one.get("input"): one for one in run.get("figures") or ()}
        for output in run.get("outputs") or ():
            for file in recorded_files(output):
                if match := _RESULT.fullmatch(file):
                    record = {**figures.get(output.get("input"), {}), **output}
                    records.setdefault(match["name"], {"record": record, "run": run})
                    break
    return records


def recorded_bands(files: ImageFiles) -> str | None:
    """Return the bands that a prediction has read, as the option `--bands` takes them.

    Returns:
        The numbers of the bands in the file; if they are not recorded, what the user gave.
    """
    if numbers := (files.record.get("values") or {}).get("bands"):
        return ",".join(map(str, numbers))
    option: str | None = (files.run.get("options") or {}).get("bands")
    return option


def _failures(run: Mapping[str, Any]) -> str:
    failed = run.get("failed") or ()
    if not failed:
        return ""
    count = "One image failed" if len(failed) == 1 else f"{len(failed)} images failed, the first"
    return f"{count}: {failed[0].get('message', '')}".strip()


@contextmanager
def hidden_folders(folder: Path, *images: Path | str) -> Iterator[None]:
    """Remove the folders of results and of images from the errors of a block."""
    try:
        yield
    except RooftraceError as error:
        folders = [f"{folder}/", *images]
        error.message = without_folders(error.message, folders)
        error.remedy = without_folders(error.remedy, folders)
        raise


@dataclass(frozen=True)
class ResultsEntry:
    """A results folder that a person can choose.

    Args:
        id: Name in requests. It is looked up and is never part of a path.
        title: Name that people see.
        path: The folder.
    """

    id: str
    title: str
    path: Path


class ResultsCatalogue:
    """Results on the map: folders that a person named, then finished jobs, the newest first.

    Results in folders inside a named one are listed, too. A named folder without results of its own
    is left out if it has such folders: it may hold one for each city.

    Args:
        paths: Results folders; they may be empty, or be created later.
        store: Store of jobs, if the server has jobs.

    Raises:
        ConfigError: A path is a file.
    """

    def __init__(self, paths: Sequence[Path], store: JobStore | None = None) -> None:
        self._store = store
        self._folders: dict[str, Path] = {}
        for path in dict.fromkeys(path.resolve() for path in paths):
            if path.is_file():
                raise ConfigError(
                    f"{path} is a file; a folder of results was expected.",
                    remedy="Name the folder that rooftrace predict wrote with -o.",
                )
            slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-") or "results"
            unique, number = slug, 2
            while unique in self._folders:
                unique, number = f"{slug}-{number}", number + 1
            self._folders[unique] = path

    def entries(self) -> list[ResultsEntry]:
        """Return the current entries."""
        folders: dict[str, Path] = {}
        for name, path in self._folders.items():
            inner = self._inner(path)
            if not inner or _holds_images(path):
                folders[name] = path
            folders |= {f"{name}{_INSIDE}{one.name}": one for one in inner}
        names = [path.name for path in folders.values()]
        named = [
            ResultsEntry(
                key,
                path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}",
                path,
            )
            for key, path in folders.items()
        ]
        jobs = [] if self._store is None else self._store.newest(_MOST_JOBS)
        return named + [entry for job in jobs if (entry := self._entry_of(job)) is not None]

    def find(self, entry_id: str) -> ResultsEntry | None:
        """Return the entry with an id, also of a job that is too old for the list."""
        outer, mark, name = entry_id.partition(_INSIDE)
        path = self._folders.get(outer)
        if path is not None and mark:
            # Each request for a tile asks: the others inside are not looked into.
            path = next(iter(self._inner(path, name)), None)
        if path is not None:
            return ResultsEntry(entry_id, path.name, path)
        if self._store is None or not entry_id.startswith(_JOB):
            return None
        job = self._store.get(entry_id.removeprefix(_JOB))
        return None if job is None else self._entry_of(job)

    def open(self, entry_id: str) -> ResultsEntry:
        """Return the entry with an id.

        Raises:
            ProblemError: There is no such folder.
        """
        entry = self.find(entry_id)
        if entry is None:
            raise ProblemError(
                "not-found", "This server does not show a results folder of that name.",
                remedy="See /map/folders for the folders. The results of a job are removed with "
                "the job.",
            )  # fmt: skip
        return entry

    def image(self, entry_id: str, name: str) -> tuple[ResultsFolder, ImageFiles]:
        """Return a folder and the files of one of its images.

        Raises:
            ProblemError: There is no such folder, or no such image in it.
        """
        results = read_results(self.open(entry_id).path)
        files = results.images.get(name)
        if files is None:
            raise ProblemError(
                "not-found", "The folder has no image of that name.",
                remedy=f"See /map/folders/{quote(entry_id, safe='')} for its images; the image may "
                "have been removed.",
            )  # fmt: skip
        return results, files

    def _entry_of(self, job: Job) -> ResultsEntry | None:
        if self._store is None or job.state != "done":
            return None
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created_s))
        return ResultsEntry(_JOB + job.id, f"{job.name}, {day}", self._store.results(job.id))

    def _inner(self, path: Path, name: str | None = None) -> list[Path]:
        """Return the folders inside a folder that hold results and are not named themselves."""
        try:
            inside = [one for one in path.iterdir() if name in (None, one.name)]
        except OSError:
            return []
        named = self._folders.values()
        return sorted(
            one for one in inside if one.is_dir() and one not in named and _holds_record(one)
        )


def _holds_record(path: Path) -> bool:
    """Return whether a run, comparison, catalogue or measurement of heights wrote into a folder."""
    records = (path / _COMPARED, path / LAYER_MANIFEST)
    return (
        holds_results(path)
        or any(one.is_file() for one in records)
        or any(path.glob("*_heights.gpkg"))
    )


def _is_running(path: Path) -> bool:
    """Return whether the run that writes to a folder has not written its record yet.

    A catalogue keeps its work folder, for scenes that are added.
    """
    work, record = _state(path / WORK_FOLDER / MANIFEST), _state(path / "run.json")
    return (path / WORK_FOLDER).is_dir() and not 0 < work[0] <= record[0]


def _holds_images(path: Path) -> bool:
    return _holds_record(path) or any(_RESULT.fullmatch(one.name) for one in path.iterdir())
