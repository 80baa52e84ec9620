"""Label Studio's REST interface, as much of it as pushing and pulling needs.

https://api.labelstud.io. Through the standard library alone: a handful of JSON calls and one upload
need no client, and the vendor's own brings pandas, NLTK and another OpenCV.
"""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from rooftrace.core.errors import ConfigError, DataError, TooLargeError
from rooftrace.io.atomic import replacing

__all__ = ["LabelStudio"]

_TIMEOUT_S = 60
_EXPORT_TIMEOUT_S = 1800
_PAGE = 500
_BLOCK_BYTES = 1 << 20
_MOST_ANSWER_BYTES = 64 << 20
_MOST_FILE_BYTES = 8 << 30
_TOLD = 300


class _NoRedirect(HTTPRedirectHandler):
    """The token is for the server that was named, and for no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirect)


class LabelStudio:
    """A server and the right to use it.

    Args:
        url: such as `https://labels.example.com`; `http` or `https`.
        token: a personal access token, or a legacy one. It is in no message and no repr.

    Raises:
        ConfigError: the address or the token cannot be one.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = _checked_url(url)
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ConfigError(
                "The token for Label Studio holds signs that no token has, or nothing.",
                remedy="Copy it anew from Account & Settings in Label Studio.",
            )
        self._token = token
        # A personal access token is a JSON Web Token, which is exchanged for others that are short
        # lived; a legacy token is sent as it is.
        self._personal = token.count(".") == 2
        self._access: str | None = None

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    def project(self, number: int) -> dict[str, Any]:
        """The project of a number.

        Raises:
            ConfigError: there is none that the token may see; or as all calls, the token is wrong.
            DataError: the server cannot be reached, or does not answer as Label Studio does.
        """
        return self._object("GET", f"/api/projects/{number}")

    def projects_named(self, title: str) -> list[dict[str, Any]]:
        """All projects of exactly this title."""
        query = {"title": title, "page_size": str(_PAGE)}
        answer = self._object("GET", "/api/projects", query)
        found = self._of(answer, "results", list)
        return [one for one in found if isinstance(one, dict) and one.get("title") == title]

    def create_project(self, title: str, label_config: str) -> dict[str, Any]:
        """A new project."""
        return self._object(
            "POST", "/api/projects", body={"title": title, "label_config": label_config}
        )

    def task_data(self, project: int) -> Iterator[dict[str, Any]]:
        """The data of all tasks of a project."""
        page, seen, total = 1, 0, 1
        while seen < total:
            query = {"project": str(project), "page": str(page), "page_size": str(_PAGE),
                     "fields": "task_only"}  # fmt: skip
            answer = self._object("GET", "/api/tasks", query)
            tasks, total = self._of(answer, "tasks", list), self._of(answer, "total", int)
            if not tasks:
                return
            yield from (task["data"] for task in tasks if isinstance(task.get("data"), dict))
            page, seen = page + 1, seen + len(tasks)

    def upload(self, project: int, name: str, content: bytes, media_type: str) -> str:
        """Store an image, and say what a task calls it: `/data/upload/…`."""
        boundary = uuid.uuid4().hex
        # As browsers do it: https://html.spec.whatwg.org/#multipart-form-data
        told = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{told}"\r\n'
            f"Content-Type: {media_type}\r\n\r\n"
        )
        body = head.encode("utf-8", "replace") + content + f"\r\n--{boundary}--\r\n".encode()
        answer = self._object(
            "POST", f"/api/projects/{project}/import", {"commit_to_project": "false"},
            body=body, media_type=f"multipart/form-data; boundary={boundary}",
        )  # fmt: skip
        [number] = self._of(answer, "file_upload_ids", list) or [None]
        stored = self._object("GET", f"/api/import/file-upload/{number}")
        return "/data/" + str(self._of(stored, "file", str))

    def import_tasks(self, project: int, tasks: list[dict[str, Any]]) -> None:
        """Make tasks, with the predictions that they hold."""
        self._object("POST", f"/api/projects/{project}/import", body=tasks)

    def serve_folder(self, project: int, folder: Path) -> None:
        """Let the server show the images of a folder of its own disk, under its document root."""
        path = "/api/storages/localfiles"
        known = self._answer("GET", path, {"project": str(project)})
        if isinstance(known, list) and any(
            isinstance(one, dict) and one.get("path") == str(folder) for one in known
        ):
            return
        body = {"project": project, "path": str(folder), "title": folder.name,
                "use_blob_urls": True}  # fmt: skip
        self._object("POST", path, body=body)

    def export(self, project: int, target: Path) -> None:
        """All tasks of a project with their annotations as JSON, to a file."""
        query = {"exportType": "JSON", "download_all_tasks": "true"}
        path = f"/api/projects/{project}/export"
        self._save("GET", path, target, query, timeout_s=_EXPORT_TIMEOUT_S)

    def download(self, path: str, target: Path) -> None:
        """A file that was uploaded to the server, `/data/upload/…`."""
        self._save("GET", quote(path), target)

    def fetch(self, path: str, query: Mapping[str, str], *, most_bytes: int) -> bytes:
        """A file that the server gives to the owner of the token, in memory.

        Raises:
            ConfigError: there is none, or it is not for this token; it lies on another server.
            DataError: the server cannot be reached, or breaks off.
            TooLargeError: it has more bytes than `most_bytes`.
        """
        with self._opened("GET", path, query) as response:
            content: bytes = response.read(most_bytes + 1)
            left = response.length
        if len(content) > most_bytes:
            raise TooLargeError(
                f"{self.url} answers {path} with more than the {most_bytes:,} bytes that are "
                "taken.",
                remedy="Cut the image into chips.",
            )
        if left:
            raise self._strange(path, f"{left:,} bytes less than it said")
        return content

    def _object(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **request: Any
    ) -> dict[str, Any]:
        answer = self._answer(method, path, query, **request)
        if not isinstance(answer, dict):
            raise self._strange(path, f"{type(answer).__name__}, where an object was expected")
        return answer

    def _answer(
        self, method: str, path: str, query: Mapping[str, str] | None = None, **request: Any
    ) -> Any:
        with self._opened(method, path, query, **request) as response:
            content = response.read(_MOST_ANSWER_BYTES + 1)
        if len(content) > _MOST_ANSWER_BYTES:
            raise self._strange(path, f"more than {_MOST_ANSWER_BYTES:,} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise self._strange(path, "no JSON") from None

    def _save(
        self, method: str, path: str, target: Path, query: Mapping[str, str] | None = None,
        *, timeout_s: int = _TIMEOUT_S,
    ) -> None:  # fmt: skip
        with (
            self._opened(method, path, query, timeout_s=timeout_s) as response,
            replacing(target) as partial,
            partial.open("wb") as file,
        ):
            self._copy(response, file)

    def _copy(self, response: http.client.HTTPResponse, file: IO[bytes]) -> None:
        expected = response.headers.get("Content-Length")
        length = 0
        while True:
            try:
                block = response.read(_BLOCK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise self._unreached(error) from None
            if not block:
                break
            length += len(block)
            if length > _MOST_FILE_BYTES:
                raise self._strange("a download", f"more than {_MOST_FILE_BYTES:,} bytes")
            file.write(block)
        if expected is not None and expected != str(length):
            raise self._strange("a download", f"{length:,} of {expected} bytes")

    def _of(self, answer: Mapping[str, Any], key: str, kind: type) -> Any:
        value = answer.get(key)
        if not isinstance(value, kind):
            raise self._strange(key, f"no {key} in {sorted(answer)[:8]}")
        return value

    def _strange(self, path: str, what: str) -> DataError:
        return DataError(
            f"{self.url} answers {path} with {what}.",
            remedy="Check that the address is that of a Label Studio server, 1.20 or later.",
        )

    @contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        media_type: str = "application/json",
        timeout_s: int = _TIMEOUT_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to one request; what goes wrong until it is read is told in our words."""
        url = self.url + path + ("?" + urlencode(query) if query else "")
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        for attempt in (1, 2):
            headers = {"Authorization": self._authorization(), "Content-Type": media_type}
            # The scheme is checked when the server is made.
            request = Request(url, data=data, headers=headers, method=method)  # noqa: S310
            try:
                with _OPENER.open(request, timeout=timeout_s) as response:
                    yield response
                return
            except HTTPError as error:
                with error:
                    if error.code == 401 and self._personal and attempt == 1:
                        self._access = None
                        continue
                    raise self._refused(error, path) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._unreached(error) from None

    def _authorization(self) -> str:
        if not self._personal:
            return f"Token {self._token}"
        if self._access is None:
            self._access = self._refreshed()
        return f"Bearer {self._access}"

    def _refreshed(self) -> str:
        """A token that is good for some minutes."""
        path = "/api/token/refresh/"
        request = Request(  # noqa: S310
            self.url + path,
            data=json.dumps({"refresh": self._token}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
                access = json.loads(response.read(_MOST_ANSWER_BYTES)).get("access")
        except HTTPError as error:
            with error:
                raise self._refused(error, path) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached(error) from None
        except (ValueError, AttributeError, RecursionError):
            raise self._strange(path, "no JSON object") from None
        if not isinstance(access, str) or not access.isascii() or not access.isprintable():
            raise self._strange(path, "no token")
        return access

    def _refused(self, error: HTTPError, path: str) -> ConfigError | DataError:
        told = self._told_by(error)
        if error.code == 401:
            return ConfigError(
                f"{self.url} does not accept the token{told}.",
                remedy="Check --token or LABEL_STUDIO_API_KEY. Legacy tokens work only where the "
                "organization allows them; else make a personal access token.",
            )
        if error.code == 403:
            return ConfigError(
                f"{self.url} does not allow {path} to the owner of this token{told}.",
                remedy="Ask for access to the project.",
            )
        if error.code == 404:
            return ConfigError(
                f"{self.url} has no {path}{told}.",
                remedy="Check --project, and that the address is that of a Label Studio server.",
            )
        if 300 <= error.code < 400:
            where = self._without_token(str(error.headers.get("Location", "elsewhere")))[:_TOLD]
            return ConfigError(
                f"{self.url} sends us to {where}; the token is not sent to another address.",
                remedy="Give that address, if it is the server that you mean.",
            )
        return DataError(
            f"{self.url} answers {path} with the status {error.code}{told}.",
            remedy="See the log of the server." if error.code >= 500 else "",
        )

    def _told_by(self, error: HTTPError) -> str:
        """What the server says of its refusal, cut short."""
        try:
            answer = json.loads(error.read(_MOST_ANSWER_BYTES))
            said = answer.get("validation_errors") or answer.get("detail")
        except (OSError, http.client.HTTPException, ValueError, AttributeError, RecursionError):
            return ""
        text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        text = self._without_token(" ".join(text.split()).rstrip("."))
        return f": {text[:_TOLD]}" if said else ""

    def _without_token(self, text: str) -> str:
        return text.replace(self._token, "(token)").replace(self._access or self._token, "(token)")

    def _unreached(self, error: Exception) -> DataError:
        reason = error.reason if isinstance(error, URLError) else error
        told = " ".join(str(getattr(reason, "strerror", None) or reason).split())
        told = told.rstrip(".") or type(error).__name__
        return DataError(
            f"{self.url} cannot be reached: {self._without_token(told)}.",
            remedy="Check the address, and that Label Studio runs there.",
        )


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if good and not (parts.username or parts.password or parts.query or parts.fragment):
        return url.rstrip("/")
    shown = url if "@" not in url else "…@" + url.rpartition("@")[2]
    raise ConfigError(
        f"The address {shown!r} was given; expected the address of a Label Studio server.",
        remedy="For example: https://labels.example.com, without user, question mark or #.",
    )
