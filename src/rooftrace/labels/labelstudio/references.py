"""Find the local file that a Label Studio task names as its image.

A task names `/data/upload/PROJECT/HASH-name.png`, `/data/local-files/?d=folder/name.png`, a path,
or the URL of a bucket or a web server. A local file with that name is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rooftrace.core.errors import LayoutError
from rooftrace.io.files import is_file
from rooftrace.labels.image_files import images_folder, images_under
from rooftrace.labels.labelstudio.regions import malformed

ID_KEY, FILE_KEY, GROUP_KEY, GSD_KEY = "scene_id", "scene_file", "group", "gsd_m"
"""Keys that rooftrace adds to the data of a task, so that a scene is read back unchanged."""

_UPLOAD = re.compile(r".*(/data/upload/(?:\d+/)?([^/]+))", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
_LOCAL = "/data/local-files/"
_LOOKS_LIKE_IMAGE = re.compile(
    r"/data/(upload|local-files)/|\.(png|jpe?g|tiff?|bmp|webp|jp2|gif)([?#].*)?$", re.IGNORECASE
)
_LISTED = 6


def image_key(data: Mapping[str, Any], where: str, asked: str | None = None) -> str:
    """Return the key of a task's data that names its image.

    Args:
        data: Data of the task.
        where: Location of the task for error messages.
        asked: Key that the user gave, or None.

    Raises:
        LayoutError: No key names an image, or several may.
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
        named = " or ".join(map(repr, found[:_LISTED])) or "none"
        expected = "exactly one that names an image" if asked is None else repr(asked)
        raise LayoutError(
            f"{where}: of the keys {', '.join(map(repr, list(data)[:_LISTED]))} of its data, "
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


class ImageFinder:
    """Finds the images of a set of tasks.

    Args:
        folders: Folders to which the names in tasks may be relative.
        searched: Folder that is searched with its subfolders for the last part of a name; or a
            single file.
    """

    def __init__(self, folders: Sequence[Path], searched: Path) -> None:
        self._folders = tuple(folders)
        self._searched = searched

    @classmethod
    def beside(cls, label_file: Path, images: Path | None) -> ImageFinder:
        """Return a finder for a label file.

        It looks in `images` or, if that is None, beside the file, and in its own folder or `images`
        there. The folder of the file may be large, so its other subfolders are not searched.
        """
        own = (label_file.parent, images_folder(label_file))
        if images is not None:
            return cls((images, *own), images)
        beside = label_file.parent / "images"
        return cls((*own, beside), own[1] if own[1].is_dir() else beside)

    def find(self, reference: object, where: str, *, pushed_from: str = "") -> Path:
        """Return the one file that a task's image can be.

        Better matches take precedence: the whole path over its end, the name of the upload with its
        digits over the name without them, and the same name with another suffix comes last.

        Args:
            reference: Name of the image in the task.
            where: Location of the task for error messages.
            pushed_from: Path of the file from which the server's image was made, relative to one
                of the folders; it takes precedence over all others.

        Raises:
            LabelError: The reference is not a string.
            LayoutError: No file matches, or several match equally well. The message lists the names
                that were tried.
        """
        if not isinstance(reference, str) or not reference:
            raise malformed(where, "its image", reference, "a path or a URL")
        names = list(dict.fromkeys(_names(reference)))
        names = [pushed_from, *names] if pushed_from else names
        for name in names:
            paths = (folder / name for folder in self._folders)
            found = {path.resolve(): path for path in paths if is_file(path)}
            if found:
                return _only(list(found.values()), reference, where)
        stored = [stored_name(PurePosixPath(name).name) for name in names]
        for keys, by_key in (
            (stored, self._by_name), ([PurePosixPath(key).stem for key in stored], self._by_stem),
        ):  # fmt: skip
            for key in keys:
                if key in by_key:
                    return _only(by_key[key], reference, where)
        raise LayoutError(
            f"{where} names the image {reference!r}, which is not found; looked for "
            f"{', '.join(map(repr, names[:_LISTED])) or 'nothing'} in "
            f"{' and '.join(str(folder) for folder in self._folders)}.",
            remedy="Give the folder of the images with --images FOLDER.",
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
            f"{where} names the image {reference!r}, which matches {len(found)} files: "
            f"{', '.join(str(path) for path in found[:_LISTED])}.",
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
        yield reference
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
