"""Find the label files of a folder, and the images that a label file names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rooftrace.core.errors import LayoutError
from rooftrace.io.files import is_file
from rooftrace.labels.image_files import images_under, listed_image
from rooftrace.labels.source import SceneEntry, SceneSet

_PARTS = ("train", "valid", "val", "test", "training", "validation", "testing")
_INNER = ("annotations", "labels", "train", "val", "test")
"""Folders for label files of whole sets, beside the folders of the images."""

_SUFFIXES = (".json", ".xml", ".ndjson", ".csv")
_SMALL = re.compile(r"(.+)[-_]small")


def label_files(path: Path, is_label_file: Callable[[Path], bool]) -> list[Path]:
    """Return the label files at a path: the file itself, or those of a folder, sorted.

    They lie in the folder, in `annotations` there, or in the folders of parts such as `train`.
    """
    if not path.is_dir():
        return [path] if is_label_file(path) else []
    places = [path, path / "annotations", *(path / part for part in _PARTS)]
    places += [path / part / "annotations" for part in _PARTS]
    found = [
        file
        for place in places if place.is_dir()
        for file in sorted(place.iterdir())
        if file.suffix.lower() in _SUFFIXES and file.name[0] != "." and is_label_file(file)
    ]  # fmt: skip
    names = {(file.parent, file.stem) for file in found}

    def is_sample(file: Path) -> bool:
        small = _SMALL.fullmatch(file.stem)
        return small is not None and (file.parent, small[1]) in names

    return [file for file in found if not is_sample(file)]


class NamedImages:
    """Finds the images that a label file names.

    Args:
        label_file: File that names them.
        given: Folder of the images, or one image, that the user gave; or None.
        root: Folder that was given as the data, which is searched; or None.
    """

    def __init__(self, label_file: Path, given: Path | None, root: Path | None = None) -> None:
        self._file, self._given = label_file, given
        here = label_file.parent
        around = [here]
        if here.name.casefold() in _INNER:
            around.append(here.parent)
        self._folders = [folder for one in around for folder in (one, one / "images")]
        self._searched = given or root

    def find(self, name: str) -> Path | None:
        """Return the image of a name, or of a name that ends in it; None if there is none.

        Raises:
            LayoutError: Several images fit equally well.
        """
        if self._given is not None and self._given.is_file():
            return self._given if self._given.stem == Path(name).stem else None
        relative = name.replace("\\", "/")
        exact = [listed_image(name, self._file, self._given)]
        if self._given is None:
            plain = [part for part in relative.split("/") if part not in ("", ".", "..")]
            exact += [folder / "/".join(plain) for folder in self._folders]
            exact += [folder / plain[-1] for folder in self._folders if plain]
        there = next(filter(is_file, exact), None)
        return there or self._search(relative)

    def expected(self, name: str) -> Path:
        """Return the path at which an image of this name was expected."""
        return listed_image(name, self._file, self._given)

    def _search(self, name: str) -> Path | None:
        last = Path(name)
        for by, key in ((self._by_name, last.name), (self._by_stem, last.stem),
                        (self._by_stem, last.name)):  # fmt: skip
            if found := by.get(key, []):
                return _nearest(found, name, self._file)
        tail = f"_{last.name}"
        ends = [path for stem, paths in self._by_stem.items() if stem.endswith(tail)
                for path in paths]  # fmt: skip
        colours = [path for path in ends if re.search("RGB|3band", path.name)]
        return _nearest(colours or ends, name, self._file) if ends else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        for path in self._files:
            named.setdefault(path.name, []).append(path)
        return named

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        for path in self._files:
            named.setdefault(path.stem, []).append(path)
        return named

    @cached_property
    def _files(self) -> list[Path]:
        if self._searched is not None:
            return images_under(self._searched)
        # The folder of a file may be large, so only folders for images are searched.
        return [path for folder in self._folders if folder.name == "images" and folder.is_dir()
                for path in images_under(folder)]  # fmt: skip


def _nearest(found: Sequence[Path], name: str, label_file: Path) -> Path:
    """Return the path that shares the most folders with a name, or else with the label file."""

    def shared(path: Path, other: Path) -> int:
        pairs = zip(reversed(path.parts), reversed(other.parts))
        return next((n for n, (a, b) in enumerate(pairs) if a != b), len(path.parts))

    def common(path: Path) -> int:
        pairs = zip(path.parts, label_file.parts)
        return next((n for n, (a, b) in enumerate(pairs) if a != b), 0)

    scores = [(shared(path, Path(name)), common(path)) for path in found]
    best = [path for path, score in zip(found, scores) if score == max(scores)]
    if len(best) > 1:
        raise LayoutError(
            f"{label_file} names the image {name!r}, which may be {best[0]} or {best[1]}.",
            remedy="Give the folder of the right one with --images.",
        )
    return best[0]


def read_each(
    path: Path, files: Sequence[Path], read: Callable[[Path, Path | None], SceneSet]
) -> SceneSet:
    """Read the label files at a path as one set; the ids of several begin with their part.

    Args:
        path: Path that was given as the data.
        files: Its label files, at least one.
        read: Function (file, root) whose sets have equal openers.

    Raises:
        LayoutError: Two files have the same images.
    """
    root = path if path.is_dir() else None
    sets = [read(file, root) for file in files]
    if root is None or not root.name:
        return sets[0]
    name = root.resolve().name if sets[0].name == files[0].stem else sets[0].name
    if len(sets) == 1:
        return replace(sets[0], name=name)
    parts = _part_names(files, root)
    images: dict[Path, Path] = {}
    for file, one in zip(files, sets):
        for entry in (*one.entries, *one.unlabelled):
            if entry.image is not None and images.setdefault(entry.image, file) != file:
                raise LayoutError(
                    f"{images[entry.image]} and {file} both have labels of {entry.image}.",
                    remedy="Give one of these files as DATA.",
                )
    return replace(
        sets[0],
        name=name,
        entries=_together((part, one.entries) for part, one in zip(parts, sets)),
        unlabelled=_together((part, one.unlabelled) for part, one in zip(parts, sets)),
        reading="; ".join(f"{part}: {one.reading}" for part, one in zip(parts, sets)),
        notes=tuple(dict.fromkeys(note for one in sets for note in one.notes)),
    )


def _part_names(files: Sequence[Path], root: Path) -> list[str]:
    """Return a name for each file: its folder, or its own name among files of one folder."""
    folders = [file.parent.relative_to(root).as_posix() for file in files]
    if len(set(folders)) == len(folders) and "." not in folders:
        return [folder.removesuffix("/annotations") for folder in folders]
    return [file.stem for file in files]


def _together(sets: Iterator[tuple[str, Sequence[SceneEntry]]]) -> tuple[SceneEntry, ...]:
    entries = [
        replace(entry, id=f"{part}/{entry.id}", group=entry.group or part)
        for part, some in sets
        for entry in some
    ]
    return tuple(sorted(entries, key=lambda entry: entry.id))
