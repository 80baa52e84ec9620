"""Find the label files of a folder, and the local image that a label file names.

Label Studio names an image `/data/upload/PROJECT/HASH-name.png`, as
`/data/local-files/?d=folder/name.png`, by a path, or by the URL of a bucket or a web server. Other
tools give a path. A local file with that name is looked for.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rooftrace.core.errors import LabelError, LayoutError
from rooftrace.core.text import list_first, reason_of
from rooftrace.io.companions import images_under
from rooftrace.io.files import is_file
from rooftrace.labels.image_files import images_folder
from rooftrace.labels.source import SceneEntry, SceneSet, by_id
from rooftrace.labels.split import part_of_folder

_ANNOTATIONS = "annotations"
_INNER = (_ANNOTATIONS, "labels")
"""Folders for label files of whole sets, beside the folders of the images, as those of parts."""

_SUFFIXES = (".json", ".xml", ".ndjson", ".csv")
_SMALL = re.compile(r"(.+)[-_]small")


_MOST_FILES = 200
"""Maximum number of files in a folder that are looked at; more are labels of single images."""


def label_files(path: Path, is_label_file: Callable[[Path], bool]) -> list[Path]:
    """Return the label files at a path: the file itself, or those of a folder, sorted.

    They lie in the folder, in `annotations` there, or in the folders of parts such as `train`; see
    `split.part_of_folder` for their names.
    """
    if not path.is_dir():
        return [path] if is_label_file(path) else []
    inside = _folders_in(path)
    parts = [folder for folder in inside if part_of_folder(folder.name)]
    places = [path, *filter(_is_annotations, inside), *parts]
    places += [folder for part in parts for folder in filter(_is_annotations, _folders_in(part))]
    found = [file for place in places for file in _candidates(place) if is_label_file(file)]
    names = {(file.parent, file.stem) for file in found}

    def is_sample(file: Path) -> bool:
        small = _SMALL.fullmatch(file.stem)
        return small is not None and (file.parent, small[1]) in names

    return [file for file in found if not is_sample(file)]


ID_KEY, FILE_KEY, GROUP_KEY, GSD_KEY = "scene_id", "scene_file", "group", "gsd_m"
"""Keys that rooftrace adds to the data of a task, so that a scene is read back unchanged."""

_UPLOAD = re.compile(r".*(/data/upload/(?:\d+/)?([^/]+))", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
_LOCAL = "/data/local-files/"
_LOOKS_LIKE_IMAGE = re.compile(
    r"/data/(upload|local-files)/|\.(png|jpe?g|tiff?|bmp|webp|jp2|gif)([?#].*)?$", re.IGNORECASE
)


def image_key(data: Mapping[str, Any], where: str, asked: str | None = None) -> str:
    """Return the key of a task's data that names its image.

    Args:
        where: Location of the task for error messages.
        asked: Key that the user gave, or None.
    """
    if asked is not None:
        found = [asked] if asked in data else []
    elif "image" in data:
        found = ["image"]
    else:
        found = [
            key
            for key, value in data.items()
            if isinstance(value, str)
            and key not in (ID_KEY, FILE_KEY, GROUP_KEY)
            and _LOOKS_LIKE_IMAGE.search(value)
        ]
    if len(found) != 1:
        named = " or ".join(map(repr, found[:5])) or "none"
        expected = "exactly one that names an image" if asked is None else repr(asked)
        raise LayoutError(
            f"{where}: of the keys {list_first([*map(repr, data)])} of its data, "
            f"{named} names the image; expected {expected}.",
            remedy="Give the key, for example with --set field=picture.",
        )
    return found[0]


def uploaded_name(reference: str) -> str | None:
    """Return the server's name of an upload, `HASH-name.png`; None for other references."""
    path = upload_path(reference)
    return None if path is None else path.rpartition("/")[2]


def upload_path(reference: str) -> str | None:
    """Return the server's path of an upload, `/data/upload/PROJECT/HASH-name.png`, on any host."""
    match = _UPLOAD.fullmatch(unquote(_split(reference)[1]))
    return match[1] if match else None


def original_name(upload: str) -> str:
    """Return the name of an upload without the eight digits that the server put before it."""
    match = _HASHED.fullmatch(upload)
    return match[1] if match else upload


def stored_name(name: str) -> str:
    """Return a file name as the server stores it (Django's `get_valid_filename`).

    Spaces become `_`; of other punctuation only `-`, `_` and `.` are kept.
    """
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def _folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted."""
    with os.scandir(folder) as inside:
        return sorted(folder / one.name for one in inside if one.is_dir())


def _is_annotations(folder: Path) -> bool:
    return folder.name.casefold() == _ANNOTATIONS


def _candidates(folder: Path) -> list[Path]:
    with os.scandir(folder) as inside:
        named = sorted(one.name for one in inside if one.name.lower().endswith(_SUFFIXES))
    visible = [folder / name for name in named if not name.startswith(".")]
    return visible if len(visible) <= _MOST_FILES else []


class ImageFinder:
    """Finds the images that a label file names.

    Args:
        folders: Folders to which the names in tasks may be relative.
        searched: Folder that is searched with its subfolders for the last part of a name; a
            single file; or all files that may be meant.
    """

    def __init__(self, folders: Sequence[Path], searched: Path | Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._searched = searched

    @classmethod
    def beside(cls, label_file: Path, images: Path | None, root: Path | None = None) -> ImageFinder:
        """Return a finder for a label file.

        It looks in `images` or, if that is None, beside the file, in its own folder or `images`
        there, and beside the folder `annotations` of the file. The folder of a file may be large,
        so its other subfolders are searched only if the data is a folder, `root`.

        """
        own = [label_file.parent, images_folder(label_file)]
        if images is not None:
            return cls((images, *own), images)
        own.append(label_file.parent / "images")
        inner = label_file.parent.name
        if inner.casefold() in _INNER or part_of_folder(inner):
            own += [label_file.parent.parent, label_file.parent.parent / "images"]
        beside = next((folder for folder in own[1::2] + own[2:3] if folder.is_dir()), own[1])
        return cls(own, root or beside)

    def find(self, reference: object, where: str, *, pushed_from: str = "") -> Path:
        """Return the one file that an image's name can be.

        Better matches take precedence: the whole path over its end, the name of an upload with its
        digits over the name without them; the same name with another suffix comes late, and a name
        that ends in it last.

        Args:
            reference: Name of the image in the label file.
            where: Location of the name for error messages.
            pushed_from: Path of the file from which a server's image was made, relative to one
                of the folders; it takes precedence over all others.
        """
        if not isinstance(reference, str) or not reference:
            raise LabelError(
                f"{where}: its image is {reference!r:.40}; expected a path or a URL.",
                remedy="Export the labels again.",
            )
        found = self.look(reference, where, pushed_from=pushed_from)
        if found is None:
            names = list(dict.fromkeys([*filter(None, [pushed_from]), *_names(reference)]))
            raise LayoutError(
                f"{where} names the image {reference!r}, which is not found; looked for "
                f"{list_first([*map(repr, names)]) or 'nothing'} in "
                f"{' and '.join(str(folder) for folder in self._folders)}.",
                remedy="Give the folder of the images with --images FOLDER.",
            )
        return found

    def expected(self, name: str) -> Path:
        """Return the path at which an image of this name is looked for first."""
        return self._folders[0] / name

    def look(self, reference: str, where: str, *, pushed_from: str = "") -> Path | None:
        """Return the file, or None if there is none; see `find`."""
        names = list(dict.fromkeys(_names(reference)))
        names = [pushed_from, *names] if pushed_from else names
        for name in names:
            found = [path for folder in self._folders if is_file(path := folder / name)]
            if found:
                return _only(list({path.resolve(): path for path in found}.values())
                             if found[1:] else found, reference, where)  # fmt: skip
        stored = [stored_name(PurePosixPath(name).name) for name in names]
        for keys, by_key in (
            (stored, self._by_name), ([PurePosixPath(key).stem for key in stored], self._by_stem),
            # SpaceNet's tables leave out the suffix, and what stands before the name.
            (stored, self._by_stem),
        ):  # fmt: skip
            for key in keys:
                if key in by_key:
                    return _only(by_key[key], reference, where)
        ends = [path for path in self._files if path.stem.endswith(f"_{stored[-1]}")]
        colours = [path for path in ends if re.search("RGB|3band", path.name)]
        return _only(colours or ends, reference, where) if ends else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _grouped(self._files, lambda file: stored_name(file.name))

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _grouped(self._files, lambda file: stored_name(file.stem))

    @cached_property
    def _files(self) -> Sequence[Path]:
        if not isinstance(self._searched, Path):
            return self._searched
        return [self._searched] if self._searched.is_file() else images_under(self._searched)


def _only(found: Sequence[Path], reference: str, where: str) -> Path:
    if len(found) > 1:
        # Of several with one name, the folders in the reference decide.
        steps = PurePosixPath(reference.replace("\\", "/")).parts[:-1]
        found = [one for one in found if one.parts[-1 - len(steps) : -1] == steps] or found
    if len(found) > 1:
        # DFC2023 has radar and heights of the same names beside the colours.
        found = [one for one in found if one.parent.name.casefold() == "rgb"] or found
    if len(found) > 1:
        raise LayoutError(
            f"{where} names the image {reference!r}, which matches {len(found)} files: "
            f"{list_first(found)}.",
            remedy="Keep one of them, or give a folder that holds only one with --images.",
        )
    return found[0]


def _names(reference: str) -> Iterator[str]:
    """Yield the file names that a reference may mean, best match first."""
    upload = uploaded_name(reference)
    if upload is not None:
        yield upload
        yield original_name(upload)
        return
    scheme, path, query = _split(reference)
    if path.endswith(_LOCAL):
        wanted = parse_qs(query).get("d", [""])[0]
    elif len(scheme) > 1:  # a single letter is a drive
        wanted = unquote(path).lstrip("/")
    else:
        wanted = reference
        yield reference.replace("\\", "/")
    parts = [part for part in wanted.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        yield "/".join(parts[start:])
    if parts and not scheme:
        yield unquote(parts[-1])


def _split(reference: str) -> tuple[str, str, str]:
    """Return scheme, path and query of a URL; a string that is not a URL is a path."""
    try:
        split = urlsplit(reference)
    except ValueError:
        return "", reference, ""
    return split.scheme, split.path, split.query


def _grouped(files: Sequence[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file)
    return groups


REMEDY = "Correct the file, or export it again."


def load_json(path: Path) -> Any:
    """Read JSON; raise LabelError if the file is none."""
    try:
        return json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except (OSError, ValueError) as error:
        raise LabelError(f"{path} is not JSON: {reason_of(error)}.", remedy=REMEDY) from error


def read_each(
    path: Path, files: Sequence[Path], read: Callable[[Path, Path | None], SceneSet]
) -> SceneSet:
    """Read the label files at a path as one set; the ids of several begin with their part."""
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
        return [re.sub(f"/{_ANNOTATIONS}$", "", folder, flags=re.I) for folder in folders]
    return [file.stem for file in files]


def _together(sets: Iterator[tuple[str, Sequence[SceneEntry]]]) -> tuple[SceneEntry, ...]:
    return by_id(
        replace(entry, id=f"{part}/{entry.id}", group=entry.group or part)
        for part, some in sets
        for entry in some
    )
