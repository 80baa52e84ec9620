"""Define the scene set, into which every kind of labelled data is read, and map over its scenes.

Scenes are opened one at a time. `map_entries` applies a function to all of them on all cores;
`count_classes` counts the pixels of each class in this way.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.parallel import core_count, in_order
from rooftrace.core.processes import Processes
from rooftrace.core.types import Mask, Progress, Scene, Window
from rooftrace.labels.config import LabelConfig, SourceConfig


@dataclass(frozen=True)
class MaskLabel:
    """A `LabelReader` of a label in memory."""

    mask: Mask

    def read(self, window: Window | None = None) -> Mask:
        if window is None:
            return self.mask
        part = window.slices()
        return Mask(self.mask.data[part], self.mask.valid[part], self.mask.grid.crop(window))


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """One scene, known before its image is opened.

    Args:
        id: Name that is unique within the set; contains `/` if the scene lies in folders.
        image: Image file, or None if the image is not a file of its own (a chip of a scene).
        group: See `Scene.group`.
        key: Picklable data that the set's opener needs to find the label.
        gsd_m: Metres per pixel that the label file states; they override the georeference.
    """

    id: str
    image: Path | None
    group: str = ""
    key: Any = None
    gsd_m: float | None = None

    @property
    def uncut(self) -> SceneEntry:
        """Entry of the scene that a chip was cut from; that of any other scene itself."""
        if isinstance(self.key, tuple) and self.key and isinstance(self.key[0], SceneEntry):
            return self.key[0]
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of this scene alone: its image and, if it has one, its mask."""
        scene = self.uncut
        keys = scene.key if isinstance(scene.key, tuple) else (scene.key,)
        return tuple(part for part in (scene.image, *keys) if isinstance(part, Path))


_IMAGE_FOLDERS = frozenset(("image", "images", "img", "imgs"))


def place_of(scene_id: str) -> str:
    """Return the group of a scene: its folders, without those that only say that it is an image."""
    folders = scene_id.split("/")[:-1]
    return "/".join(folder for folder in folders if folder.lower() not in _IMAGE_FOLDERS)


def by_id(entries: Iterable[SceneEntry]) -> tuple[SceneEntry, ...]:
    """Return entries sorted by id."""
    return tuple(sorted(entries, key=attrgetter("id")))


@dataclass(frozen=True)
class SceneSet:
    """Scenes of one kind of data, independent of the tool that made it, opened one at a time.

    Creating a set reads label files, but no image. Iteration opens the header of each image in
    turn; pixels are read when a scene is read. A set can be pickled.

    Args:
        name: Name of the set in reports.
        kind: Name of the `SourceKind` that read it.
        classes: Class names by class index.
        building_class: Index of the class whose footprints are drawn.
        entries: Labelled scenes that are used, sorted by id.
        open_scene: Picklable callable that opens the scene of an entry.
        share: Weight of the set when training samples are drawn, if the user gave one.
        reading: Description of how the data was interpreted.
        unlabelled: Images without a label.
        notes: Assumptions and omissions that the user should see.
        label_file: File that holds the labels of all scenes, if they are not in files of their own.
        label_shift_px: Shift that was applied to all labels, in pixels down and to the right.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    building_class: int
    entries: tuple[SceneEntry, ...]
    open_scene: Callable[[SceneEntry], Scene]
    share: float | None = None
    reading: str = ""
    unlabelled: tuple[SceneEntry, ...] = ()
    notes: tuple[str, ...] = ()
    label_file: Path | None = None
    label_shift_px: tuple[int, int] = (0, 0)

    @classmethod
    def of(
        cls,
        kind: str,
        path: Path,
        config: SourceConfig,
        labels: LabelConfig,
        entries: Iterable[SceneEntry],
        open_scene: Callable[[SceneEntry], Scene],
        *,
        reading: str,
        unlabelled: Iterable[SceneEntry] = (),
        notes: Iterable[str] = (),
        label_file: Path | None = None,
    ) -> SceneSet:
        """Return a set with the classes of its configuration, and its name or that of `path`."""
        name = path.resolve().name if path.is_dir() else path.stem
        return cls(
            config.name or name, kind, labels.classes, labels.building_class,
            by_id(entries), open_scene, config.share, reading, by_id(unlabelled), tuple(notes),
            label_file=label_file,
        )  # fmt: skip

    @property
    def files(self) -> Iterator[Path]:
        """Files that the labelled scenes are read from; those of a chip's scene come repeatedly."""
        if self.label_file is not None:
            yield self.label_file
        for entry in self.entries:
            yield from entry.files

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Ids of the labelled scenes and of the images without a label."""
        return tuple(entry.id for entry in (*self.entries, *self.unlabelled))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Scene]:
        return (self.open_scene(entry) for entry in self.entries)

    def opened(self, progress: Progress | None = None) -> Iterator[tuple[SceneEntry, Scene]]:
        """Yield each entry with its scene, and report progress after each scene."""
        for number, entry in enumerate(self.entries):
            yield entry, self.open_scene(entry)
            if progress is not None:
                progress(number + 1, len(self))

    def subset(self, ids: Sequence[str]) -> SceneSet:
        """Return the set with only those scenes whose id is in `ids`."""
        kept = frozenset(ids)
        return replace(self, entries=tuple(entry for entry in self.entries if entry.id in kept))

    def filtered(self, keep: Callable[[SceneEntry], bool]) -> SceneSet:
        """Return the set with only those images, labelled or not, whose entry `keep` accepts."""
        entries, unlabelled = (
            tuple(filter(keep, some)) for some in (self.entries, self.unlabelled)
        )
        return replace(self, entries=entries, unlabelled=unlabelled)

    def mapped(self, change: Callable[[Scene], Scene]) -> SceneSet:
        """Return the set with scenes that a picklable function changes when they are opened."""
        return replace(self, open_scene=partial(_changed, self.open_scene, change))

    def only_unlabelled(self) -> SceneSet:
        """Return the images without a label as a set; its scenes have the label None."""
        return replace(self, entries=self.unlabelled, unlabelled=())

    def with_unlabelled(self) -> SceneSet:
        """Return labelled and unlabelled images as one set, sorted by id."""
        return replace(self, entries=by_id((*self.entries, *self.unlabelled)), unlabelled=())


def _changed(
    open_scene: Callable[[SceneEntry], Scene], change: Callable[[Scene], Scene], entry: SceneEntry
) -> Scene:
    return change(open_scene(entry))


@dataclass(frozen=True)
class WriteOptions:
    """Options for writing a set.

    Args:
        images: `refer` makes label files name the images where they lie (relative where
            possible); `copy` copies the images beside the labels. An image that is not a file is
            always written.
        order: Pixel order of run lengths in RLE tables.
        columns: Columns of an RLE table: `img_id,img_path,mask_rle` or `ImageId,EncodedPixels`.
        part: Part of the data that the set is: YOLO has a folder for each.
    """

    images: Literal["refer", "copy"] = "refer"
    order: Literal["row", "column"] | None = None
    columns: tuple[str, ...] | None = None
    part: str | None = None


@dataclass(frozen=True)
class WriteResult:
    """Result of writing a set.

    Args:
        path: File or folder that `rooftrace` accepts as DATA again.
        scenes: Number of scenes written.
        notes: Facts that the format could not hold, for the user to see.
        has_gsd: Whether it holds the metres per pixel that were given.
    """

    path: Path
    scenes: int
    notes: tuple[str, ...] = ()
    has_gsd: bool = False


Reader = Callable[[Path, SourceConfig, LabelConfig], SceneSet]
Writer = Callable[[SceneSet, Path, WriteOptions, Progress | None], WriteResult]


@dataclass(frozen=True)
class SourceKind:
    """One kind of labelled data.

    Args:
        name: Value of `kind` in a configuration.
        summary: One-line description.
        recognises: Function that decides whether a path holds this kind of data. It reads only
            names and the beginnings of files.
        read: Function (path, config, labels) that returns a set. Paths in `config` are resolved.
        write: Function (set, out, options, progress); None if the kind cannot be written.
        options: Fields of `SourceConfig` and `WriteOptions` that the kind accepts besides the
            common ones. Any other field that is given is an error; none is ignored.
    """

    name: str
    summary: str
    recognises: Callable[[Path], bool]
    read: Reader
    write: Writer | None = None
    options: frozenset[str] = frozenset()


T = TypeVar("T")

_TRIAL_S = 0.3
"""Seconds of work in this process from which the duration of the rest is estimated."""

_WORTH_S = 4.0
"""Estimated seconds of remaining work from which starting more processes pays off."""

_CHUNK = 32
"""Number of entries that are sent to a process at a time."""

_CHUNKS_AHEAD = 4
"""Number of chunks for each process that wait, which bounds the memory."""


def map_entries(
    source: SceneSet,
    work: Callable[[SceneSet, SceneEntry], T],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[T, ...]:
    """Return `work` applied to every entry of a set; the same on any number of processes.

    A script that calls this function must be guarded by `if __name__ == "__main__":`, as
    `multiprocessing` requires.

    Args:
        work: Function (set without its entries, entry). It must be defined at module level, as
            it is sent to other processes.
        workers: Number of processes; 1 does everything in this process. The default is the number
            of cores if there is enough work, otherwise 1.
        progress: Called with the number of finished entries and the total number.

    Raises:
        PredictError: A process ended unexpectedly, most likely for lack of memory.
    """
    bare = replace(source, entries=(), unlabelled=())
    started = time.monotonic()
    done: list[T] = []
    for entry in source.entries:
        spent = time.monotonic() - started
        left_s = spent / max(len(done), 1) * (len(source) - len(done))
        if workers != 1 and spent > _TRIAL_S and left_s > _WORTH_S:
            break
        done.append(work(bare, entry))
        if progress is not None:
            progress(len(done), len(source))
    rest = source.entries[len(done) :]
    if rest:
        for chunk in _in_processes(bare, rest, work, workers or core_count()):
            done += chunk
            if progress is not None:
                progress(len(done), len(source))
    return tuple(done)


def _in_processes(
    source: SceneSet,
    entries: Sequence[SceneEntry],
    work: Callable[[SceneSet, SceneEntry], T],
    workers: int,
) -> Iterator[list[T]]:
    """Yield the results of all entries in order, a chunk at a time."""
    job = uuid4().hex
    chunks = ((job, entries[i : i + _CHUNK]) for i in range(0, len(entries), _CHUNK))
    begin = partial(_begin, job, source, work)
    try:
        with Processes(workers, [__name__], begin) as processes:
            yield from in_order(_work_on, chunks, processes, _CHUNKS_AHEAD)
    finally:
        _JOBS.pop(job, None)


_JOBS: dict[str, tuple[SceneSet, Callable[[SceneSet, SceneEntry], Any]]] = {}
"""Set and function of a worker process. Labels may be large, so they are sent only once. Threads
that stand in for processes share it with the other jobs of this process."""


def _begin(job: str, source: SceneSet, work: Callable[[SceneSet, SceneEntry], Any]) -> None:
    if multiprocessing.parent_process() is not None:
        cv2.setNumThreads(1)
    _JOBS[job] = source, work


def _work_on(job: str, entries: Sequence[SceneEntry]) -> list[Any]:
    source, work = _JOBS[job]
    return [work(source, entry) for entry in entries]


BLOCK_PX = 256
"""Side in pixels of the squares of a scene that are counted separately."""

_STRIP_PX = 2**24
"""Approximate number of pixels in a strip; larger scenes are read in strips of this size."""


def count_classes(source: SceneSet) -> dict[str, NDArray[np.int32]]:
    """Count the pixels of each class in every labelled scene, several scenes at a time.

    All labels and images are read once; an image says where nodata is.

    Returns:
        Mapping from scene id to (block row, block column, class) int32. Each value is the number of
        pixels of a class that are valid in both image and label, in squares of `BLOCK_PX`. Squares
        at the right and lower edge are cut.

    Raises:
        DataError: An image or a label cannot be read. The error may be of a subclass.
    """
    return dict(zip(source.ids, map_entries(source, _count)))


def _count(source: SceneSet, entry: SceneEntry) -> NDArray[np.int32]:
    scene, classes = source.open_scene(entry), len(source.classes)
    height, width = scene.image.grid.shape
    found = np.zeros((-(-height // BLOCK_PX), -(-width // BLOCK_PX), classes), dtype=np.int32)
    assert scene.label is not None
    rows = max(1, _STRIP_PX // (width * BLOCK_PX)) * BLOCK_PX
    for strip in Window.whole((height, width)).strips(rows):
        mask = scene.label.read(strip)
        known = mask.valid & scene.image.read(strip).valid
        for row in range(0, strip.height, BLOCK_PX):
            for col in range(0, width, BLOCK_PX):
                square = slice(row, row + BLOCK_PX), slice(col, col + BLOCK_PX)
                counts = np.bincount(mask.data[square][known[square]], minlength=classes)
                found[(strip.row + row) // BLOCK_PX, col // BLOCK_PX] = counts
    return found
