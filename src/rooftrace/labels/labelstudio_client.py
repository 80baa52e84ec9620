"""Client of Label Studio's REST interface, as far as pushing and pulling tasks needs it.

The interface: https://api.labelstud.io. The vendor's own client is not used, since it requires
pandas, NLTK and a second OpenCV.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from rooftrace.core.config import did_you_mean
from rooftrace.core.errors import ConfigError, DataError, TooLargeError
from rooftrace.core.text import json_kind, reason_of
from rooftrace.io.files import replacing
from rooftrace.io.remote import known_authorities
from rooftrace.labels.labelstudio import Control

T = TypeVar("T")

_TIMEOUT_S = 60
_EXPORT_TIMEOUT_S = 1800

_PAGE = 500
"""Number of projects or tasks requested at a time."""

_SHOWN_CHARACTERS = 300
"""Maximum number of characters of the server's own message that an error repeats."""


class LabelStudio:
    """A Label Studio server and the permission to use it.

    Redirects are not followed and cookies are not kept, so the token is sent only to the server
    that was named.

    Args:
        url: URL such as `https://labels.example.com`; `http` or `https`.
        token: Personal access token or legacy token. It appears in no message and no repr.

    Raises:
        ConfigError: The URL or the token is malformed.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = _checked_url(url)
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ConfigError(
                "The token for Label Studio is empty or has characters that no token contains.",
                remedy="Copy it again from Account & Settings in Label Studio.",
            )
        self._token = token
        # A personal access token is a JSON Web Token, which is exchanged for short-lived tokens;
        # a legacy token is sent as it is.
        self._personal = token.count(".") == 2
        self._access: str | None = None
        self._http = httpx.Client(
            verify=known_authorities(),
            # The size of a file is limited in bytes on the wire.
            headers={"Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    def project(self, number: int) -> dict[str, Any]:
        """Return the project with a number.

        Raises:
            ConfigError: The token may see no such project, or the token is wrong. Every method
                raises this error for a wrong token.
            DataError: The server cannot be reached, or does not answer like Label Studio.
        """
        return self._object("GET", f"/api/projects/{number}")

    def projects_named(self, title: str) -> list[dict[str, Any]]:
        """Return all projects with exactly this title."""
        query = {"title": title, "page_size": str(_PAGE)}
        found = self._field(self._object("GET", "/api/projects", query), "results", list)
        return [one for one in found if isinstance(one, dict) and one.get("title") == title]

    def create_project(self, title: str, label_config: str) -> dict[str, Any]:
        """Create a project and return it."""
        return self._object(
            "POST", "/api/projects", body={"title": title, "label_config": label_config}
        )

    def task_data(self, project: int) -> Iterator[dict[str, Any]]:
        """Yield the data of each task of a project."""
        page, seen, total = 1, 0, 1
        while seen < total:
            query = {"project": str(project), "page": str(page), "page_size": str(_PAGE),
                     "fields": "task_only"}  # fmt: skip
            answer = self._object("GET", "/api/tasks", query)
            tasks, total = self._field(answer, "tasks", list), self._field(answer, "total", int)
            if not tasks:
                return
            yield from (task["data"] for task in tasks if isinstance(task.get("data"), dict))
            page, seen = page + 1, seen + len(tasks)

    def upload(self, project: int, name: str, content: bytes, media_type: str) -> str:
        """Upload an image and return its name in tasks: `/data/upload/…`."""
        answer = self._object(
            "POST", f"/api/projects/{project}/import", {"commit_to_project": "false"},
            files={"file": (name, content, media_type)},
        )  # fmt: skip
        [number] = self._field(answer, "file_upload_ids", list) or [None]
        stored = self._object("GET", f"/api/import/file-upload/{number}")
        return "/data/" + str(self._field(stored, "file", str))

    def import_tasks(self, project: int, tasks: list[dict[str, Any]]) -> None:
        """Create tasks, including their predictions."""
        self._object("POST", f"/api/projects/{project}/import", body=tasks)

    def serve_folder(self, project: int, folder: Path) -> None:
        """Make the server show the images of a folder below its own document root."""
        path = "/api/storages/localfiles"
        known = self._answer("GET", path, {"project": str(project)})
        if isinstance(known, list) and any(
            isinstance(one, dict) and one.get("path") == str(folder) for one in known
        ):
            return
        body = {"project": project, "path": str(folder), "title": folder.name,
                "use_blob_urls": True}  # fmt: skip
        self._object("POST", path, body=body)

    def export(self, project: int, target: Path, read: Callable[[Path], T]) -> T:
        """Save all tasks of a project with their annotations as a JSON file.

        Args:
            project: Number of the project.
            target: File to write; it is replaced only by an export that can be read.
            read: Function that reads a file of tasks.

        Returns:
            The content of the file, as `read` returns it.
        """
        query = {"exportType": "JSON", "download_all_tasks": "true"}
        path = f"/api/projects/{project}/export"
        return self._save(path, target, read, query, timeout_s=_EXPORT_TIMEOUT_S)

    def download(self, path: str, target: Path) -> None:
        """Save a file that was uploaded to the server, `/data/upload/…`."""
        self._save(quote(path), target, lambda _: None)

    def fetch(self, path: str, query: Mapping[str, str], *, most_bytes: int) -> bytes:
        """Return the bytes of a file that the server gives to the owner of the token.

        Raises:
            ConfigError: There is no such file, the token may not read it, or it lies on another
                server.
            DataError: The server cannot be reached, or closes the connection early.
            TooLargeError: The file has more bytes than `most_bytes`.
        """
        content = bytearray()
        with self._request("GET", path, query) as response:
            for block in response.iter_raw():
                content += block
                if len(content) > most_bytes:
                    raise TooLargeError(
                        f"{self.url} answers {path} with more than the {most_bytes:,} bytes that "
                        "are accepted.",
                        remedy="Cut the image into chips.",
                    )
        return bytes(content)

    def _object(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **request: Any
    ) -> dict[str, Any]:
        answer = self._answer(method, path, query, **request)
        if not isinstance(answer, dict):
            raise self._unexpected(path, f"{json_kind(answer)}, where an object was expected")
        return answer

    def _answer(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **request: Any
    ) -> Any:
        with self._request(method, path, query, **request) as response:
            content = response.read()
        try:
            return json.loads(content)
        except ValueError:
            raise self._unexpected(path, "no JSON") from None

    def _save(
        self, path: str, target: Path, read: Callable[[Path], T],
        query: Mapping[str, str] | None = None, *, timeout_s: float | None = None,
    ) -> T:  # fmt: skip
        with (
            self._request("GET", path, query, timeout_s=timeout_s) as response,
            replacing(target) as partial,
        ):
            with partial.open("wb") as file:
                file.writelines(response.iter_raw())
            return read(partial)

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        files: Mapping[str, Any] | None = None,
        authorized: bool = True,
        timeout_s: float | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request and yield the response, whose body is not read yet.

        A short-lived token that has expired is renewed once. `files` is a multipart body, as httpx
        takes it; a `timeout_s` of None waits a minute for the next bytes.
        """
        headers = {} if body is None else {"Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        try:
            for attempt in (1, 2):
                if authorized:
                    headers["Authorization"] = self._authorization()
                with self._http.stream(
                    method, self.url + path, params=query, headers=headers,
                    content=content, files=files, timeout=timeout_s or _TIMEOUT_S,
                ) as response:  # fmt: skip
                    renewable = authorized and self._personal and attempt == 1
                    if response.status_code == 401 and renewable:
                        self._access = None
                        continue
                    if not response.is_success:
                        raise self._refused(response, path)
                    yield response
                    return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DataError(
                f"{self.url}{path} cannot be read: {self._without_token(reason_of(error))}.",
                remedy="Check the URL, and that Label Studio runs there; then try again.",
            ) from None

    def _authorization(self) -> str:
        if not self._personal:
            return f"Token {self._token}"
        if self._access is None:
            path = "/api/token/refresh/"
            answer = self._object("POST", path, body={"refresh": self._token}, authorized=False)
            self._access = self._field(answer, "access", str)
        return f"Bearer {self._access}"

    def _field(self, answer: Mapping[str, Any], key: str, kind: type) -> Any:
        value = answer.get(key)
        if not isinstance(value, kind):
            raise self._unexpected(key, f"no {key} in {sorted(answer)[:8]}")
        return value

    def _unexpected(self, path: str, received: str) -> DataError:
        return DataError(
            f"{self.url} answers {path} with {received}.",
            remedy="Check that the URL is that of a Label Studio server, 1.20 or later.",
        )

    def _refused(self, response: httpx.Response, path: str) -> ConfigError | DataError:
        """Return the error for a status that is not a success."""
        status, detail = response.status_code, self._detail(response)
        if status == 401:
            return ConfigError(
                f"{self.url} does not accept the token{detail}.",
                remedy="Check --token or LABEL_STUDIO_API_KEY. Legacy tokens work only if the "
                "organization allows them; otherwise create a personal access token.",
            )
        if status == 403:
            return ConfigError(
                f"{self.url} does not allow {path} to the owner of this token{detail}.",
                remedy="Ask for access to the project.",
            )
        if status == 404:
            is_file = path.startswith("/data/")
            return ConfigError(
                f"{self.url} has no {path}{detail}.",
                remedy="Remove the task of this image from the project, or give the folder of the "
                "image with --images." if is_file else
                "Check --project, and that the URL is that of a Label Studio server.",
            )  # fmt: skip
        if 300 <= status < 400:
            target = self._without_token(response.headers.get("Location", "another URL"))
            return ConfigError(
                f"{self.url} redirects to {target[:_SHOWN_CHARACTERS]}; the token is not sent to "
                "another server.",
                remedy="Give that URL if it is the server that you mean.",
            )
        return DataError(
            f"{self.url} answers {path} with the status {status}{detail}.",
            remedy="See the log of the server.",
        )

    def _detail(self, response: httpx.Response) -> str:
        """Return the server's own reason for an error, shortened; empty if it gives none."""
        try:
            answer = json.loads(response.read())
            said = answer.get("validation_errors") or answer.get("detail")
        except (httpx.HTTPError, ValueError, AttributeError):
            return ""
        text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        text = self._without_token(" ".join(text.split()).rstrip("."))
        return f": {text[:_SHOWN_CHARACTERS]}" if said else ""

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "(token)").replace(self._access or self._token, "(token)")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good and not (parts.username or parts.password or parts.query or parts.fragment):
        return url.rstrip("/")
    shown = url if "@" not in url else "…@" + url.rpartition("@")[2]
    raise ConfigError(
        f"{shown!r} was given; expected the URL of a Label Studio server.",
        remedy="For example: https://labels.example.com, without user, question mark or #.",
    )


@dataclass(frozen=True)
class PolygonTool:
    """Place in a project where polygons of a class belong."""

    control: Control
    label: str
    key: str


def find_project(server: LabelStudio, project: str) -> dict[str, Any] | None:
    """Return the project with a number or a title; None if no project has that title."""
    if project.isdecimal() and project.isascii():
        return server.project(int(project))
    found = server.projects_named(project)
    if len(found) > 1:
        raise ConfigError(
            f"{server.url} has {len(found)} projects called {project!r}: "
            f"{', '.join(str(one.get('id')) for one in found)}.",
            remedy="Give the number of the project instead.",
        )
    return found[0] if found else None


def project_number(project: Mapping[str, Any]) -> int:
    """Return the number of a project; raise DataError if the server's answer has none."""
    number = project.get("id")
    if not isinstance(number, int):
        raise DataError(f"The server's project has the number {number!r}; expected an integer.")
    return number


def polygon_tool(project: Mapping[str, Any], building: str) -> PolygonTool:
    """Find where the labelling interface of a project takes polygons of buildings."""
    parsed = project.get("parsed_label_config")
    labels: list[str] = []
    for name, control in parsed.items() if isinstance(parsed, dict) else ():
        match control:
            case {
                "type": "PolygonLabels",
                "to_name": [str(to_name), *_],
                "inputs": [{"type": "Image", "value": str(key)}, *_],
                "labels": [*names],
            }:
                names = [label for label in names if isinstance(label, str)]
                for label in names:
                    if label.casefold() == building.casefold():
                        return PolygonTool(Control(str(name), to_name), label, key)
                labels += names
    title = project.get("title")
    if not labels:
        raise ConfigError(
            f"The project {title!r} has no <PolygonLabels> on an <Image>, which predictions need.",
            remedy="Add them to its labelling interface, or give a title that is not in use: then "
            "a new project is created.",
        )
    raise ConfigError(
        f"The project {title!r} has no polygon label {building!r}, which is the model's name for "
        f"buildings. {did_you_mean(building, labels)}".strip(),
        remedy=f"Add it to its labelling interface; it has {', '.join(labels)}.",
    )
