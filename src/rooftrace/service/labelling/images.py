"""The images of tasks, fetched from the Label Studio server that they are of, and nowhere else.

A task is the word of a stranger: from an address in it only the place within the one server is
taken, and of that only where Label Studio keeps images. Nothing in it is a path on this machine.
"""

from __future__ import annotations

import base64
import binascii
import io
import ipaddress
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, unquote_to_bytes, urlsplit

from PIL import Image

from rooftrace.core.errors import ConfigError, DataError, TooLargeError
from rooftrace.data.labelstudio.client import LabelStudio
from rooftrace.data.labelstudio.references import original_name

__all__ = ["Fetched", "TaskImages"]

_UPLOAD = re.compile(r"/data/upload/(?:\d+/)?([^/\\]+)")
_STORED = re.compile(r"/(?:tasks|projects)/\d+/(?:resolve|presign)/")
_LOCAL = "/data/local-files/"
_BUCKETS = ("s3", "gs", "azure-blob", "redis")
_MOST_PROJECTS = 256
_TOLD = 100
_ORIENTATION = 0x0112
_UPRIGHT = (None, 1)


@dataclass(frozen=True)
class Fetched:
    """An image as it was stored.

    Args:
        data: of the file.
        name: of it, for messages and for what its name says of its place.
    """

    data: bytes
    name: str


class TaskImages:
    """What may be fetched, and with which right.

    Args:
        url: of the Label Studio server; None where only one on this machine is to introduce
            itself.
        token: for it, personal or legacy; None where it is to give its own at `introduce`. Without
            an address it is sent nowhere.
        most_bytes: of one image.

    Raises:
        ConfigError: the address or the token cannot be one.
    """

    def __init__(self, url: str | None, token: str | None, most_bytes: int) -> None:
        checked = LabelStudio(url, token or "none") if url else None
        self._url = None if checked is None else checked.url
        self._own = checked if token else None
        self._most_bytes = most_bytes
        self._introduced: OrderedDict[str, LabelStudio] = OrderedDict()
        self._lock = threading.Lock()

    def introduce(self, project: str, hostname: str, token: str, *, near: bool) -> None:
        """A server says where it is and gives a token for a project; kept while this process is.

        Args:
            project: as the server names it in every request.
            hostname: its address, as it knows it.
            token: of the person who made the project.
            near: whether it asks from this machine.

        Raises:
            ConfigError: it is not the server that was named; or none was, and it is elsewhere.
        """
        if self._own is not None:
            return
        if self._url is None:
            if not (near and _is_loopback(hostname)):
                raise ConfigError(
                    f"A Label Studio server introduces itself as {hostname[:_TOLD]!r}, which was "
                    "not named when this server was started.",
                    remedy="Start rooftrace with the address of Label Studio and a token for it.",
                )
        elif _origin(hostname) != _origin(self._url):
            raise ConfigError(
                f"A Label Studio server introduces itself as {hostname[:_TOLD]!r}; expected "
                f"{self._url}.",
                remedy="Start rooftrace with a token, too, or set the server's LABEL_STUDIO_HOST.",
            )
        server = LabelStudio(self._url or hostname, token)
        with self._lock:
            self._introduced[project] = server
            self._introduced.move_to_end(project)
            while len(self._introduced) > _MOST_PROJECTS:
                self._introduced.popitem(last=False)

    def fetch(self, reference: object, task: int | None, project: str) -> Fetched:
        """The image that a task names.

        Args:
            reference: how it does: an upload, a local file, the address of a bucket, the server's
                own address of one of these, or a data URI.
            task: its number; an image in a bucket is asked for by it.
            project: see `introduce`.

        Raises:
            ConfigError: no server is known, or it does not accept the token.
            DataError: it is anything else, or cannot be fetched; it is turned by its EXIF.
            TooLargeError: more bytes than the limit.
        """
        if not isinstance(reference, str) or not reference:
            raise DataError(
                f"The task names its image as {str(reference)[:_TOLD]!r}; expected a text.",
                remedy="Check the task's data against the labelling interface.",
            )
        if reference[:5].casefold() == "data:":
            fetched = Fetched(self._embedded(reference), "image")
        else:
            server = self._server(project)
            path, query, name = _place(reference, server.url, task)
            fetched = Fetched(server.fetch(path, query, most_bytes=self._most_bytes), name)
        _check_upright(fetched)
        return fetched

    def _server(self, project: str) -> LabelStudio:
        with self._lock:
            server = self._own or self._introduced.get(project)
        if server is None:
            raise ConfigError(
                "It is not known which Label Studio server this project is of.",
                remedy="Open the project's Settings, Model, so that Label Studio introduces "
                "itself again; or start rooftrace with its address and a token.",
            )
        return server

    def _embedded(self, reference: str) -> bytes:
        head, comma, body = reference[5:].partition(",")
        if not comma:
            raise DataError("The task's data URI has no comma, and so no content.")
        if len(body) > 3 * self._most_bytes:  # every byte may be written %41
            raise _too_large(self._most_bytes)
        try:
            data = unquote_to_bytes(body)
            if head.casefold().endswith(";base64"):
                data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"The task's data URI cannot be read: {error}.") from error
        if len(data) > self._most_bytes:
            raise _too_large(self._most_bytes)
        return data


def _place(reference: str, url: str, task: int | None) -> tuple[str, dict[str, str], str]:
    """Path, query and file name of an image on the server; made anew of what is understood."""
    try:
        split = urlsplit(reference)
        own = not split.scheme or _origin(reference) == _origin(url)
    except ValueError:
        raise _elsewhere(reference, url) from None
    if split.scheme in _BUCKETS:
        if task is None:
            raise _elsewhere(reference, url)
        asked = base64.urlsafe_b64encode(reference.encode()).decode()
        return f"/tasks/{task}/resolve/", {"fileuri": asked}, _last(split.path)
    if not own or (split.netloc and not split.scheme):
        raise _elsewhere(reference, url)
    path = unquote(split.path).removeprefix(urlsplit(url).path)
    query = parse_qs(split.query)
    if path == _LOCAL and len(query.get("d", [])) == 1:
        [file] = query["d"]
        if ".." not in file.replace("\\", "/").split("/"):
            return _LOCAL, {"d": file}, _last(file)
    elif _STORED.fullmatch(path) and len(query.get("fileuri", [])) == 1:
        [asked] = query["fileuri"]
        return path, {"fileuri": asked}, "image"
    elif (upload := _UPLOAD.fullmatch(path)) and upload[1] not in (".", ".."):
        return quote(path), {}, original_name(upload[1])
    raise _elsewhere(reference, url)


def _last(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or "image"


def _elsewhere(reference: str, url: str) -> DataError:
    return DataError(
        f"The task names its image as {reference[:_TOLD]!r}; images are fetched from {url} alone: "
        "uploads, local files and connected storages.",
        remedy="Upload the image to Label Studio, or connect its storage there without pre-signed "
        "URLs.",
    )


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The task's image has more than the {most_bytes:,} bytes that are taken.",
        remedy="Cut it into chips.",
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    split = urlsplit(url)
    default = {"http": 80, "https": 443}.get(split.scheme)
    return split.scheme, split.hostname, split.port or default


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _check_upright(fetched: Fetched) -> None:
    """A browser turns such an image, and regions would lie beside what they outline."""
    try:
        with Image.open(io.BytesIO(fetched.data), formats=("JPEG", "PNG")) as image:
            orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # what is none of these, or damaged, is told by who decodes it
        return
    if orientation not in _UPRIGHT:
        raise DataError(
            f"{fetched.name[:_TOLD]!r} says by its EXIF that it is to be turned (orientation "
            f"{orientation}): Label Studio shows it so, and regions would lie elsewhere.",
            remedy="Save it upright, without EXIF.",
        )
