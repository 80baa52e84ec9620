"""Results folder of a run: locked during the run, with a manifest of the finished images."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.companions import WORK_FOLDER
from rooftrace.io.files import exporting, is_file, locked
from rooftrace.io.gdal import is_raster
from rooftrace.predict.checkpoint import CheckpointStore
from rooftrace.predict.plan import RESULT_FILES, ScenePlan

MANIFEST = "journal.jsonl"
"""Name of the file with what results depend on, and the finished images."""

_KINDS = "|".join({Path(end).stem for ends in RESULT_FILES.values() for end in ends})
_LEFT_OVER = re.compile(rf"\.(.+({_KINDS})(\..+)?|run)\.(\d+\.part(\..+)?|[a-z0-9_]{{8}})")
"""Names of half-written results of a killed run, see `io.files.replacing` and
`io.vector_write`. Other hidden files in the folder are not touched."""


def mask_beside(path: Path) -> Path | None:
    """Return the mask of the prediction that wrote the polygons, if it lies beside them."""
    for ending in RESULT_FILES["polygons"]:
        # The polygons may have been converted to another format.
        kind = Path(ending).stem
        if path.stem.endswith(kind):
            name = path.stem.removesuffix(kind)
            masks = (path.with_name(f"{name}{end}") for end in RESULT_FILES["mask"])
            return next((mask for mask in masks if mask.is_file() and is_raster(mask)), None)
    return None


class RunFolder:
    """Results folder to which one run writes.

    A hidden folder inside keeps finished blocks and the list of finished images after the process
    ends. A run with the same model and options resumes from there, also on another processor; any
    other run starts from the beginning.

    Args:
        out: Results folder, created if missing.
        made_with: Everything except the images on which results depend, as plain data.
        results: Function that returns the results of the run that lie in the folder. The hidden
            folder stays beside them until run.json also tells the next run whose they are.

    Raises:
        ExportError: Another run writes to the folder, or it is not writable.
    """

    def __init__(
        self, out: Path, made_with: Mapping[str, Any], results: Callable[[], Iterable[Any]] = tuple
    ) -> None:
        self._out = out
        self._results = results
        self._work = out / WORK_FOLDER
        self.made_with: Mapping[str, Any] = dict(made_with)
        """Everything except the images on which results depend."""

        self.spill = self._work
        """Folder for polygons that do not fit into memory."""

        self._open = ExitStack()
        # Offset of each image's line in the file; the lines themselves would need too much memory.
        self._offsets: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        # One thread reads the manifest while another one adds to it.
        self._lock = Lock()
        self.notes: list[str] = []
        """Notes on the work of an earlier run that was removed, or resumed on another processor."""

    def __enter__(self) -> RunFolder:
        with self._open:
            self._open.enter_context(locked(self._out / f"{WORK_FOLDER}.lock", str(self._out)))
            with exporting(self._out):
                # Half-written files of a killed run; the lock excludes other runs.
                for path in self._out.iterdir():
                    if _LEFT_OVER.fullmatch(path.name):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                self._work.mkdir(exist_ok=True)
                self._open_manifest()
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        has_work = self._offsets or any(self._work.glob("*.parts/*.part"))
        if not has_work and ((self._out / "run.json").exists() or not any(self._results())):
            self.discard()
        self._open.close()

    def finished(self, scene: SceneInput) -> dict[str, Any] | None:
        """Return the record of an image that an earlier run finished; None if there is none.

        There is none for an image that has changed since, or whose results are missing.
        """
        if scene.name not in self._offsets:
            return None
        entry = self.entry(scene)
        is_current = entry["stamp"] == scene.stamp and all(map(is_file, entry["files"]))
        return dict(entry["record"]) if is_current else None

    def entry(self, scene: SceneInput) -> dict[str, Any]:
        """Return the entry of a finished image: `name`, `stamp`, `files` and `record`."""
        assert self._file is not None
        with self._lock:
            self._file.seek(self._offsets[scene.name])
            line: dict[str, Any] = json.loads(self._file.readline())
        return line

    def add(self, scene: SceneInput, made: FinishedImage) -> None:
        """Add a finished image to the manifest, and remove its checkpoints."""
        line = {"name": scene.name, "stamp": scene.stamp, **vars(made)}
        assert self._file is not None
        # Of a line that was written in part, the rest is written before the next one.
        with self._lock, exporting(self._work):
            offset = self._file.seek(0, 2)
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            self._offsets[scene.name] = offset
        shutil.rmtree(self._work / f"{scene.name}.parts", ignore_errors=True)

    def checkpoints(self, scene: SceneInput, plan: ScenePlan) -> CheckpointStore:
        """Return the store of an image's checkpoints; those of another plan are removed."""
        grid = plan.source.grid
        placed = {
            "shape": list(grid.shape),
            "transform": [*grid.transform][:6],
            "crs": None if grid.crs is None else grid.crs.to_wkt(),
            "rows": list(plan.rows.edges),
            "cols": list(plan.cols.edges),
            "tile": list(plan.tiles.tile_shape_yx),
        }
        # Everything on which checkpoints depend.
        key = {**self.made_with, "image": scene.stamp, "grid": placed}
        store = CheckpointStore(self._work / f"{scene.name}.parts", key)
        if store.replaced:
            self._note_replaced()
        return store

    def _note_replaced(self) -> None:
        note = (
            f"An earlier run in {self._out} used another model, image, option or version of a "
            "package. It cannot be resumed, so this run starts from the beginning."
        )
        if note not in self.notes:
            self.notes.append(note)

    def discard(self) -> None:
        """Remove checkpoints and manifest; nothing is left to resume."""
        self._close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _close(self) -> None:
        # The disk may be full; an image whose line is missing is predicted again.
        with suppress(OSError):
            if self._file is not None:
                self._file.close()

    def _open_manifest(self) -> None:
        """Read the manifest of the same settings, or replace that of other settings."""
        path = self._work / MANIFEST
        begun = path.exists()
        self._file = path.open("r+b" if begun else "w+b")
        first = self._file.readline()
        earlier = _parsed(first)
        if earlier is not None and _differ_in_processor(earlier, self.made_with):
            before, now = (
                f"{model['engine']['name']} in {model['engine']['precision']} on "
                f"{model['instruction_set'] or 'a GPU'}"
                for model in (earlier["with"], self.made_with["with"])
            )
            self.notes.append(
                f"The run in {self._out} began with {before} and is resumed with {now}; a few "
                "pixels may differ from those of a run on one processor."
            )
            self.made_with = earlier
        head = json.dumps(self.made_with, sort_keys=True).encode() + b"\n"
        end = 0
        if first == head:
            end = len(head)
            for line in self._file:
                # It and all later lines are overwritten: their images are predicted again.
                if (content := _parsed(line)) is None:
                    break
                self._offsets[content["name"]] = end
                end += len(line)
        elif begun:
            self._note_replaced()
        self._file.seek(end)
        self._file.truncate()
        if not end:
            self._file.write(head)
        self._file.flush()


@dataclass(frozen=True)
class FinishedImage:
    """Finished image: paths of its results, and its record for run.json; picklable."""

    files: list[str]
    record: dict[str, Any]


class WorkerStore:
    """Finished images of a worker, whose run keeps manifest and checkpoints; see `RunFolder`.

    Args:
        spill: Folder for polygons that do not fit into memory; None for the system's folder for
            temporary files.
    """

    def __init__(self, spill: Path | None = None) -> None:
        self.spill = spill
        self.made: dict[str, FinishedImage] = {}
        """Finished images by name."""

    def finished(self, scene: SceneInput) -> None:
        """Return None: the run has already looked up the image."""

    def checkpoints(self, scene: SceneInput, plan: ScenePlan) -> None:
        """Return None: an image that a worker has not finished begins again."""

    def add(self, scene: SceneInput, made: FinishedImage) -> None:
        self.made[scene.name] = made


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line of a manifest; None if it is incomplete, as after a power failure."""
    content: dict[str, Any] | None = None
    with suppress(ValueError):
        content = json.loads(line) if line.endswith(b"\n") else None
    return content


_BY_PROCESSOR = ("instruction_set", "engine")
"""Properties of the engine that may follow from the processor."""


def _differ_in_processor(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two runs differ by the instruction set, and otherwise only by the engine."""
    models, others = zip(*((one["with"], {**one, "with": None}) for one in (earlier, now)))
    rest = [{k: v for k, v in model.items() if k not in _BY_PROCESSOR} for model in models]
    is_other = models[0]["instruction_set"] != models[1]["instruction_set"]
    return is_other and json.dumps([rest[0], others[0]], sort_keys=True) == json.dumps(
        [rest[1], others[1]], sort_keys=True
    )
