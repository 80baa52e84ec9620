"""What every kind of labelled data is turned into: scenes that are opened one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rooftrace.core.types import Scene
from rooftrace.data.config import LabelConfig, SourceConfig

if TYPE_CHECKING:
    from rooftrace.data.census import Census

__all__ = ["Entry", "Progress", "SceneSet", "SourceKind", "WriteOptions", "Written"]

Progress = Callable[[int, int], None]
"""Called with what is done and what there is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One scene, known before its image is opened.

    Args:
        id: unique within the set; with `/` where it lies in folders.
        image: its file, or None where the image is no file of its own (a chip of a scene).
        group: see `Scene.group`.
        key: what the set's opener needs to find the rest; picklable.
    """

    id: str
    image: Path | None
    group: str = ""
    key: Any = None


@dataclass(frozen=True)
class SceneSet:
    """A `LabelSource`: scenes of one kind of data, opened one at a time.

    Making one reads label files, but no image; iteration opens the header of each image in turn,
    and pixels are read when a scene is. It can be pickled.

    Args:
        name: what reports call it.
        kind: the `SourceKind` that read it.
        classes: names by class index.
        building_class: index of the class whose footprints are drawn.
        entries: the labelled scenes that take part, sorted by id.
        open_scene: from an entry to its scene; a picklable callable.
        share: weight in what training draws, where the person gave one.
        reading: how the data was understood, for people.
        unlabelled: images without a label.
        notes: what was assumed or left out, for people to see.
        census: what its scenes hold, where that was counted.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    building_class: int
    entries: tuple[Entry, ...]
    open_scene: Callable[[Entry], Scene]
    share: float | None = None
    reading: str = ""
    unlabelled: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()
    census: Census | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Scene]:
        return (self.open_scene(entry) for entry in self.entries)

    def subset(self, ids: Sequence[str]) -> SceneSet:
        """Only the scenes of `ids` that this set has."""
        return self.where(frozenset(ids).__contains__)

    def where(self, keep: Callable[[str], bool]) -> SceneSet:
        """Only the scenes whose id `keep` accepts."""
        return replace(self, entries=tuple(entry for entry in self.entries if keep(entry.id)))

    def only_unlabelled(self) -> SceneSet:
        """The images without a label as a set of their own; its scenes have `label` None."""
        return replace(self, entries=self.unlabelled, unlabelled=())

    def with_unlabelled(self) -> SceneSet:
        """All images, those without a label among them, sorted by id."""
        both = sorted((*self.entries, *self.unlabelled), key=lambda entry: entry.id)
        return replace(self, entries=tuple(both), unlabelled=())


@dataclass(frozen=True)
class WriteOptions:
    """How a set is written.

    Args:
        images: `refer`: label files name the images where they lie (relative where possible);
            `copy`: they are copied beside. An image that is no file is always written.
        order: of run lengths, for RLE tables.
        columns: of an RLE table: `img_id,img_path,mask_rle` or `ImageId,EncodedPixels`.
        zoom: of slippy tiles.
    """

    images: Literal["refer", "copy"] = "refer"
    order: Literal["row", "column"] | None = None
    columns: tuple[str, ...] | None = None
    zoom: int | None = None


@dataclass(frozen=True)
class Written:
    """What a writer made.

    Args:
        path: the file or folder; what `rooftrace` takes as DATA again.
        scenes: how many.
        notes: what the format could not hold, for people to see.
    """

    path: Path
    scenes: int
    notes: tuple[str, ...] = field(default=())


Reader = Callable[[Path, SourceConfig, LabelConfig, Path], SceneSet]
Writer = Callable[[SceneSet, Path, WriteOptions, Progress | None], Written]


@dataclass(frozen=True)
class SourceKind:
    """One kind of labelled data.

    Args:
        name: `kind` in a configuration.
        summary: one line for people.
        recognises: whether a path holds it; looks at names and the beginnings of files alone.
        read: (path, config, labels, base) to a set; `base` is where relative paths start.
        write: (set, out, options, progress); None where the kind is only read.
        options: the fields of `SourceConfig` and `WriteOptions` that it takes besides the common
            ones; any other that is given is an error, and never ignored.
    """

    name: str
    summary: str
    recognises: Callable[[Path], bool]
    read: Reader
    write: Writer | None = None
    options: frozenset[str] = frozenset()
