"""Images of Label Studio tasks, fetched only from the Label Studio server of the task.

A task is untrusted input. Of a URL in a task, only the path on that one server is used, and
only a path at which Label Studio stores images. A task never names a path on this machine.
"""

import base64
import binascii
import io
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, unquote_to_bytes, urlsplit

from PIL import ExifTags, Image

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import ConfigError, DataError, TooLargeError
from rooftrace.labels.label_files import original_name
from rooftrace.labels.labelstudio_client import LabelStudio

_UPLOAD = re.compile(r"/data/upload/(?:\d+/)?([^/\\]+)")
_STORED = re.compile(r"/(?:tasks|projects)/\d+/(?:resolve|presign)/")
_LOCAL = "/data/local-files/"
_BUCKETS = ("s3", "gs", "azure-blob", "redis")
_MAX_PROJECTS = 256
"""Maximum number of projects whose servers are remembered."""

_MAX_SHOWN_CHARS = 100
"""Maximum length of a received value in a message."""

_UPRIGHT = (None, 1)


@dataclass(frozen=True)
class TaskImage:
    """An image file of a task."""

    data: bytes
    name: str


class TaskImages:
    """Client for the images of tasks.

    Args:
        url: URL of the Label Studio server. None allows only a server on this machine, which
            sends its URL to `connect`.
        token: Personal or legacy access token of that server. None uses the token that the server
            sends to `connect`. Without `url` the token is never sent.
        max_bytes: Maximum size of an image.

    Raises:
        ConfigError: The URL or the token is malformed.
    """

    def __init__(self, url: str | None, token: str | None, max_bytes: int) -> None:
        checked = LabelStudio(url, token or "none") if url else None
        self._url = None if checked is None else checked.url
        self._own = checked if token else None
        self._max_bytes = max_bytes
        self._connected: LruCache[str, LabelStudio] = LruCache(_MAX_PROJECTS)

    def connect(self, project: str, hostname: str, token: str, *, is_local: bool) -> None:
        """Remember the URL and token that a server sends when a project is connected.

        Args:
            project: Name of the project in the server's requests.
            hostname: URL of the server, as the server knows it.
            token: Token of the person who created the project.
            is_local: Whether the request comes from this machine.
        """
        if self._own is not None:
            return
        if self._url is None:
            if not (is_local and _is_loopback(hostname)):
                raise ConfigError(
                    "A Label Studio server connects from "
                    f"{hostname[:_MAX_SHOWN_CHARS]!r}; this server was started without the "
                    "URL of a Label Studio server.",
                    remedy="Start rooftrace with the URL of Label Studio and a token for it.",
                )
        elif _origin(hostname) != _origin(self._url):
            raise ConfigError(
                f"A Label Studio server connects from {hostname[:_MAX_SHOWN_CHARS]!r}; expected "
                f"{self._url}.",
                remedy="Start rooftrace with a token, or set LABEL_STUDIO_HOST of Label Studio.",
            )
        self._connected.put(project, LabelStudio(self._url or hostname, token))

    def fetch(self, reference: object, task: int | None, project: str) -> TaskImage:
        """Fetch the image of a task.

        Args:
            reference: Reference in the task: an upload, a local file, the URL of a bucket, the
                server's URL of one of these, or a data URI.
            task: Number of the task, which requests for images in buckets need.
            project: Name of the project, see `connect`.

        Raises:
            ConfigError: The server of the project is not known, or refuses the token.
            DataError: The reference has another form, the image cannot be fetched, or its EXIF
                rotates it.
            TooLargeError: The image has more than `max_bytes` bytes.
        """
        if not isinstance(reference, str) or not reference:
            raise DataError(
                f"The image of the task is {str(reference)[:_MAX_SHOWN_CHARS]!r}, not a string.",
                remedy="Compare the task's data with the labelling interface.",
            )
        if reference[:5].casefold() == "data:":
            fetched = TaskImage(self._embedded(reference), "image")
        else:
            server = self._server(project)
            path, query, name = _place(reference, server.url, task)
            fetched = TaskImage(server.fetch(path, query, most_bytes=self._max_bytes), name)
        _check_upright(fetched)
        return fetched

    def _server(self, project: str) -> LabelStudio:
        server = self._own or self._connected.get(project)
        if server is None:
            raise ConfigError(
                "The Label Studio server of this project is not known.",
                remedy="Open the project's Settings, Model, so that Label Studio connects again; "
                "or start rooftrace with its URL and a token.",
            )
        return server

    def _embedded(self, reference: str) -> bytes:
        head, comma, body = reference[5:].partition(",")
        if not comma:
            raise DataError("The task's data URI has no comma, so it has no content.")
        try:
            data = unquote_to_bytes(body)
            if head.casefold().endswith(";base64"):
                data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"The task's data URI cannot be read: {error}.") from error
        if len(data) > self._max_bytes:
            raise _too_large(self._max_bytes)
        return data


def _place(reference: str, url: str, task: int | None) -> tuple[str, dict[str, str], str]:
    """Return path, query and file name of an image on the server, built from recognised parts."""
    try:
        split = urlsplit(reference)
        is_own = not split.scheme or _origin(reference) == _origin(url)
    except ValueError:
        raise _elsewhere(reference, url) from None
    if split.scheme in _BUCKETS:
        if task is None:
            raise _elsewhere(reference, url)
        encoded = base64.urlsafe_b64encode(reference.encode()).decode()
        return f"/tasks/{task}/resolve/", {"fileuri": encoded}, _last(split.path)
    if not is_own or (split.netloc and not split.scheme):
        raise _elsewhere(reference, url)
    path = unquote(split.path).removeprefix(urlsplit(url).path)
    query = parse_qs(split.query)
    if path == _LOCAL and len(query.get("d", [])) == 1:
        [file] = query["d"]
        if ".." not in file.replace("\\", "/").split("/"):
            return _LOCAL, {"d": file}, _last(file)
    elif _STORED.fullmatch(path) and len(query.get("fileuri", [])) == 1:
        [encoded] = query["fileuri"]
        return path, {"fileuri": encoded}, "image"
    elif (upload := _UPLOAD.fullmatch(path)) and upload[1] not in (".", ".."):
        return quote(path), {}, original_name(upload[1])
    raise _elsewhere(reference, url)


def _last(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2] or "image"


def _elsewhere(reference: str, url: str) -> DataError:
    return DataError(
        f"The image of the task is {reference[:_MAX_SHOWN_CHARS]!r}; images are fetched only from "
        f"{url}: uploads, local files and connected storages.",
        remedy="Upload the image to Label Studio, or connect its storage there without pre-signed "
        "URLs.",
    )


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The task's image has more than the maximum of {max_bytes:,} bytes.",
        remedy="Cut it into smaller images.",
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


def _check_upright(fetched: TaskImage) -> None:
    """Refuse an image that its EXIF rotates, because browsers rotate it but not its regions."""
    try:
        with Image.open(io.BytesIO(fetched.data), formats=("JPEG", "PNG")) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the decoder reports other formats and damaged files
        return
    if orientation not in _UPRIGHT:
        raise DataError(
            f"The EXIF of {fetched.name[:_MAX_SHOWN_CHARS]!r} rotates the image (orientation "
            f"{orientation}). Label Studio shows it rotated, so regions would be misplaced.",
            remedy="Save the image upright, without EXIF.",
        )
