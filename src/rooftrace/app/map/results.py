"""What is in a results folder: whose files there are, and what `run.json` tells of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["ImageFiles", "Results", "State", "read_results"]

State = Literal["ready", "running", "empty", "missing", "other"]
"""`running`: not finished, whether somebody still works at it or not; `other`: no results."""

_RESULT = re.compile(
    r"(?P<name>.+)_(?:(?P<mask>mask\.(?:tif|png))"
    r"|(?P<polygons>(?:buildings|polygons)\.(?:gpkg|geojson|fgb|parquet))"
    r"|(?P<preview>preview\.png)|(?P<density>density\.tif))"
)
_KINDS = ("mask", "polygons", "preview", "density")
# What rooftrace predict keeps of a run until it is finished.
_BEGUN = ".rooftrace"
_MOST_RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ImageFiles:
    """The results of one image; None where there is no such file.

    Args:
        name: what its files are called after.
        record: what `run.json` tells of it: `input`, `buildings` and so on; empty where nothing.
    """

    name: str
    mask: Path | None = None
    polygons: Path | None = None
    preview: Path | None = None
    density: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """What changes when one of the files does."""
        told = hashlib.sha256(self.name.encode())
        for path in (self.mask, self.polygons, self.preview, self.density):
            if path is not None:
                try:
                    status = path.stat()
                except OSError:
                    continue
                told.update(f"\0{path.name}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        return told.hexdigest()[:16]


@dataclass(frozen=True)
class Results:
    """A folder, as it is now.

    Args:
        path: of the folder.
        state: whether there is something to show.
        message: a sentence or two of what is amiss; "" where nothing is.
        images: by name, in its order.
        run: what `run.json` says of the run; empty where it is missing.
    """

    path: Path
    state: State
    message: str
    images: Mapping[str, ImageFiles]
    run: Mapping[str, Any]


def read_results(path: Path) -> Results:
    """Look at a folder. What is amiss is told, not raised."""

    def told(state: State, message: str) -> Results:
        return Results(path, state, message, {}, {})

    try:
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
        begun = (path / _BEGUN).is_dir()
    except FileNotFoundError:
        return told("missing", f"The folder {path.name} is not there (any more).")
    except (NotADirectoryError, PermissionError) as error:
        return told("missing", f"The folder {path.name} cannot be opened: {error.strerror}.")
    run, damaged = _read_run(path)
    found: dict[str, dict[str, Path]] = {}
    for name in names:
        match = _RESULT.fullmatch(name)
        if match is not None:
            kind = next(kind for kind in _KINDS if match[kind] is not None)
            found.setdefault(match["name"], {})[kind] = path / name
    records = _by_name(run)
    images = {
        name: ImageFiles(name, record=records.get(name, {}), **files)
        for name, files in sorted(found.items())
        # A scene that is itself called x_density has a mask; a density alone is of no image.
        if "mask" in files or "polygons" in files or "preview" in files
    }
    if begun:
        number = f"{len(images)} images are" if len(images) != 1 else "1 image is"
        message = (
            f"The run that writes to {path.name} is not finished: {number} done so far. "
            "Open it again for more; a run that was stopped goes on by the same command."
        )
        return Results(path, "running", message, images, run)
    if images:
        return Results(path, "ready", damaged or _failures(run), images, run)
    if run:
        message = f"The run in {path.name} has no results to show. {_failures(run)}".strip()
        return Results(path, "empty", message, {}, run)
    if not names:
        return told("empty", f"The folder {path.name} is empty.")
    return told(
        "other",
        f"{path.name} is no results folder: it has no file that ends in _mask.tif, "
        "_buildings.gpkg or the like. Name the folder that rooftrace predict wrote with -o.",
    )


def _read_run(path: Path) -> tuple[dict[str, Any], str]:
    """The record of the run, and what is wrong with it."""
    file = path / "run.json"
    try:
        if file.stat().st_size > _MOST_RECORD_BYTES:
            return {}, "run.json is too large to be read: the images cannot be found."
        record = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError):
        return {}, "run.json is damaged: the images cannot be found."
    return (record, "") if isinstance(record, dict) else ({}, "run.json holds no record of a run.")


def _by_name(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was told of each image, by the name of its files."""
    figures = {one.get("input"): one for one in run.get("figures") or () if isinstance(one, dict)}
    records: dict[str, dict[str, Any]] = {}
    for output in run.get("outputs") or ():
        if not isinstance(output, dict):
            continue
        for kind in _KINDS:
            match = _RESULT.fullmatch(Path(str(output.get(kind) or "")).name)
            if match is not None:
                records[match["name"]] = {**figures.get(output.get("input"), {}), **output}
                break
    return records


def _failures(run: Mapping[str, Any]) -> str:
    failed = [one for one in run.get("failed") or () if isinstance(one, dict)]
    if not failed:
        return ""
    first = f"{failed[0].get('message', '')}".strip()
    if len(failed) == 1:
        return f"One image failed: {first}"
    return f"{len(failed)} images failed, the first: {first}"
