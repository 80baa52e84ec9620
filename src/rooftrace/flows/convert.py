"""`rooftrace convert`: labelled data of any kind, written as another."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rooftrace.core.config import expand_path
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import Scene
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.folders import CARD
from rooftrace.data.images import image_name
from rooftrace.data.kinds import KINDS, check_write_options, open_source
from rooftrace.data.shapes import count_vanished
from rooftrace.data.source import Entry, Progress, SceneSet, WriteOptions
from rooftrace.data.split import parse_reference, read_split

__all__ = ["ConvertReport", "run_convert"]

_LISTED = 5


@dataclass(frozen=True)
class ConvertReport:
    """What was written.

    Args:
        path: what `rooftrace` takes as DATA again.
        kind: of what was written.
        read_as: the kind that the data was read as, and how.
        scenes: how many.
        left_out: ids of the images without a label.
        notes: what was assumed, or could not be held.
    """

    path: Path
    kind: str
    read_as: str
    scenes: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "written": str(self.path),
            "kind": self.kind,
            "read_as": self.read_as,
            "scenes": self.scenes,
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }


def run_convert(
    data: SourceConfig,
    to: str,
    out: Path,
    options: WriteOptions | None = None,
    *,
    split: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Write the labelled scenes of `data` as the kind `to`.

    Args:
        data: what is read, and how.
        to: a name in `data.kinds.KINDS`.
        out: the file or folder to write, as the kind has it.
        options: how it is written.
        split: `FILE:PART`, only those scenes.
        overwrite: whether `out` may hold something already. Files of the same name are replaced;
            others stay, and are told.
        progress: called with the scenes that are done and that there are.

    Raises:
        ConfigError: no such kind, an option that it does not have, an `out` that is taken.
        DataError: nothing is left to write, or a scene cannot be read; names the scene.
        ExportError: a file cannot be written.
    """
    options = options or WriteOptions()
    kind = KINDS[to]
    check_write_options(kind, options)
    assert kind.write is not None
    before = _contents(out)
    if before and not overwrite:
        raise ConfigError(
            f"{out} exists and is not empty.",
            remedy="Choose another place with -o, or write over it with --overwrite.",
        )
    source = open_source(data)
    left_out = tuple(entry.id for entry in source.unlabelled)
    notes = list(source.notes)
    if split is not None:
        path, part = parse_reference(split)
        chosen = read_split(path).ids(part, source=str(path))
        if absent := sorted(set(chosen) - set(source.ids)):
            told = f"{_count(absent, 'id')} of {split} not in {data.path}"
            notes.append(f"{told}: {_some(absent)}.")
        source = source.subset(chosen)
    if not len(source):
        raise DataError(
            f"{data.path} has no labelled scene to write"
            + (f" that is in {split}" if split is not None else "")
            + f"; it was read as {source.kind}"
            + (f", with {len(left_out)} images without a label." if left_out else "."),
            remedy="Name the labels, or make the split from this data.",
        )
    _check_names(source)
    _check_apart(out, expand_path(data.path, Path(), key="path"), source)
    tracked = _Tracked(source.open_scene)
    try:
        written = kind.write(replace(source, open_scene=tracked), out, options, progress)
    except DataError as error:
        raise _named(error, tracked.current) from error
    notes += written.notes
    if lost := sum(tracked.vanished.values()):
        notes.append(
            f"{lost} shape{'s are' if lost > 1 else ' is'} too small to colour a pixel of "
            f"{'their images' if lost > 1 else 'its image'}."
        )
    if left_out:
        notes.append(f"{_count(left_out, 'image')} without a label left out: {_some(left_out)}.")
    stale = sorted(path for path, stamp in before.items() if _stamp(path) == stamp)
    if stale:
        notes.append(
            f"{out} still holds {_count(stale, 'file')} from before: "
            f"{_some([path.relative_to(out).as_posix() for path in stale])}."
        )
    if (needed := _needed(source)) and not (written.path / CARD).is_file():
        notes.append(f"{written.path} does not hold the classes; read it with {needed}.")
    read_as = f"{source.kind}: {source.reading}" if source.reading else source.kind
    return ConvertReport(written.path, to, read_as, written.scenes, left_out, tuple(notes))


class _Tracked:
    """Opens scenes, and knows which it was last and what their labels have too small to be seen."""

    def __init__(self, open_scene: Callable[[Entry], Scene]) -> None:
        self._open_scene = open_scene
        self.current: str | None = None
        self.vanished: dict[str, int] = {}

    def __call__(self, entry: Entry) -> Scene:
        self.current = entry.id
        scene = self._open_scene(entry)
        self.vanished[entry.id] = count_vanished(scene.label)
        return scene


def _named(error: DataError, scene_id: str | None) -> DataError:
    if scene_id is None or scene_id in error.message:
        return error
    return type(error)(f"{scene_id}: {error.message}", remedy=error.remedy)


def _contents(out: Path) -> dict[Path, tuple[int, ...]]:
    """The files that are there already, with what tells whether they were written again."""
    if out.is_dir():
        return {path: _stamp(path) for path in out.rglob("*") if not path.is_dir()}
    return {out: _stamp(out)} if out.exists() and out.stat().st_size else {}


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _check_names(source: SceneSet) -> None:
    by_name: dict[str, str] = {}
    for scene_id in source.ids:
        other = by_name.setdefault(image_name(scene_id), scene_id)
        if other != scene_id:
            raise DataError(
                f"The scenes {other} and {scene_id} would both be written as "
                f"{image_name(scene_id)}.",
                remedy="Rename one of them, or convert them apart.",
            )


def _check_apart(out: Path, data: Path, source: SceneSet) -> None:
    """What is read is never written over."""
    top = out.resolve()
    images = (e.image for e in (*source.entries, *source.unlabelled) if e.image is not None)
    for path in (data, *images):
        real = path.resolve()
        if real == top or top in real.parents:
            raise ConfigError(
                f"{out} is, or holds, what is read: {path}.", remedy="Choose another place with -o."
            )


def _needed(source: SceneSet) -> str:
    """What must be said to read the classes again, where they are not the usual two."""
    usual = LabelConfig()
    building = source.classes[source.building_class]
    if (source.classes, building) == (usual.classes, usual.building):
        return ""
    names = ", ".join(f'"{name}"' for name in source.classes)
    return f'labels.classes = [{names}] and labels.building = "{building}"'


def _count(items: Sized, what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
