"""Which file on this machine a Label Studio task means by its image.

A task says `/data/upload/PROJECT/HASH-name.png`, `/data/local-files/?d=folder/name.png`, a path, or
the address of a bucket or a web server; of these a file of that name is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rooftrace.core.errors import LayoutError
from rooftrace.data.labelstudio.regions import malformed
from rooftrace.data.layout import images_under

__all__ = ["FILE_KEY", "GROUP_KEY", "GSD_KEY", "ID_KEY", "ImageFinder", "image_key",
           "original_name", "own_images", "stored_name", "upload_name", "upload_path"]  # fmt: skip

ID_KEY, FILE_KEY, GROUP_KEY, GSD_KEY = "scene_id", "scene_file", "group", "gsd_m"
"""What we add to the data of a task, so that a scene comes back as it went."""

_UPLOAD = re.compile(r".*(/data/upload/(?:\d+/)?([^/]+))", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
_LOCAL = "/data/local-files/"
_LOOKS_LIKE_IMAGE = re.compile(
    r"/data/(upload|local-files)/|\.(png|jpe?g|tiff?|bmp|webp|jp2|gif)([?#].*)?$", re.IGNORECASE
)
_LISTED = 6


def image_key(data: Mapping[str, Any], where: str, asked: str | None = None) -> str:
    """Which key of a task's data names its image.

    Args:
        data: of the task.
        where: the task's place, for errors.
        asked: the key, where the person has said it.

    Raises:
        LayoutError: none does, or several may.
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
        told = " or ".join(map(repr, found[:_LISTED])) or "none"
        expected = "exactly one that names an image" if asked is None else repr(asked)
        raise LayoutError(
            f"{where}: of the keys {', '.join(map(repr, list(data)[:_LISTED]))} of its data {told} "
            f"names the image; expected {expected}.",
            remedy="Say which it is, for example with --set field=picture.",
        )
    return found[0]


def upload_name(reference: str) -> str | None:
    """The name under which the server keeps an upload, `HASH-name.png`; None for anything else."""
    path = upload_path(reference)
    return None if path is None else path.rpartition("/")[2]


def upload_path(reference: str) -> str | None:
    """Where the server keeps an upload, `/data/upload/PROJECT/HASH-name.png`, on whatever host."""
    match = _UPLOAD.fullmatch(unquote(_split(reference)[1]))
    return match[1] if match else None


def original_name(upload: str) -> str:
    """The name of an upload without the eight digits that the server put before it."""
    match = _HASHED.fullmatch(upload)
    return match[1] if match else upload


def stored_name(name: str) -> str:
    """What the server makes of a file's name (Django's `get_valid_filename`).

    Spaces become `_`; of other signs only `-`, `_` and `.` are left.
    """
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def own_images(label_file: Path) -> Path:
    """The folder beside a label file for the images that belong to it alone."""
    return label_file.with_name(f"{label_file.stem}_images")


class ImageFinder:
    """Finds the images of a set of tasks.

    Args:
        folders: what the names in tasks are relative to; each is tried.
        searched: a folder whose files, and those in its folders, are searched for the last part of
            a name; or the one file that there is.
    """

    def __init__(self, folders: Sequence[Path], searched: Path) -> None:
        self._folders = tuple(folders)
        self._searched = searched

    @classmethod
    def beside(cls, label_file: Path, images: Path | None) -> ImageFinder:
        """For a label file: in `images`; else beside the file, and in the folder of its own there.

        What lies beside may be a whole disk, which is not searched.
        """
        own = (label_file.parent, own_images(label_file))
        return cls(own, own[1]) if images is None else cls((images, *own), images)

    def find(self, reference: object, where: str, *, pushed_from: str = "") -> Path:
        """The one file that a task's image can be.

        What fits more of the name goes first: the whole path before its end, the name of the
        upload before that without its digits, and last the same name with another ending.

        Args:
            reference: how the task names it.
            where: the task's place, for errors.
            pushed_from: the path of the file that the server's image was made of, relative to one
                of the folders; it goes before all others.

        Raises:
            LabelError: it is not a text.
            LayoutError: there is none, or several fit alike; says what was tried.
        """
        if not isinstance(reference, str) or not reference:
            raise malformed(where, "its image", reference, "a path or an address")
        names = list(dict.fromkeys(_names(reference)))
        names = [pushed_from, *names] if pushed_from else names
        for name in names:
            paths = (folder / name for folder in self._folders)
            found = {path.resolve(): path for path in paths if _is_file(path)}
            if found:
                return _only(list(found.values()), reference, where)
        last = [stored_name(PurePosixPath(name).name) for name in names]
        for key in last:
            if key in self._by_name:
                return _only(self._by_name[key], reference, where)
        for key in last:
            stem = PurePosixPath(key).stem
            if stem in self._by_stem:
                return _only(self._by_stem[stem], reference, where)
        raise LayoutError(
            f"{where} names the image {reference!r}, which is not found; looked for "
            f"{', '.join(map(repr, names[:_LISTED])) or 'nothing'} in "
            f"{' and '.join(str(folder) for folder in self._folders)}.",
            remedy="Say where the images are with --images FOLDER.",
        )

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _grouped(self._files, lambda file: stored_name(file.name))

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _grouped(self._files, lambda file: stored_name(file.stem))

    @cached_property
    def _files(self) -> list[Path]:
        return [self._searched] if self._searched.is_file() else images_under(self._searched)


def _only(found: Sequence[Path], reference: str, where: str) -> Path:
    if len(found) > 1:
        raise LayoutError(
            f"{where} names the image {reference!r}, which {len(found)} files may be: "
            f"{', '.join(str(path) for path in found[:_LISTED])}.",
            remedy="Keep one of them, or give a folder that holds only one with --images.",
        )
    return found[0]


def _names(reference: str) -> Iterator[str]:
    """The names of a file that a reference may mean, what fits best first."""
    upload = upload_name(reference)
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
        yield reference
    parts = [part for part in wanted.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        yield "/".join(parts[start:])
    if parts and not scheme:
        yield unquote(parts[-1])


def _split(reference: str) -> tuple[str, str, str]:
    """Scheme, path and query of an address; a path is all of what is none."""
    try:
        split = urlsplit(reference)
    except ValueError:
        return "", reference, ""
    return split.scheme, split.path, split.query


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _grouped(files: Sequence[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(key(file), []).append(file)
    return groups
