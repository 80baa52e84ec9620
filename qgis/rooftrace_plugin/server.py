"""Prediction by a rooftrace server, as a job. This module imports nothing of QGIS."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from .command import Canceled, Progress, RooftraceProblem

_TIMEOUT_S = 60.0
_PAUSE_S = 1.0
_PATIENCE_S = 120.0
"""Seconds for which a server may be away while a job runs, as during a restart."""

_CHUNK = 1 << 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Handler that refuses redirects, which would pass the key to another machine."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)
_opener_here = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
"""Opener for servers of this computer, which no proxy reaches."""


class Server:
    """A rooftrace server.

    Args:
        address: Address, such as http://127.0.0.1:8000.
        headers: Headers of each request, such as one with a key.
        is_canceled: Function that returns True when the user has canceled.
    """

    def __init__(
        self, address: str, headers: Mapping[str, str], is_canceled: Callable[[], bool]
    ) -> None:
        self._address = address.strip().rstrip("/")
        if urllib.parse.urlsplit(self._address).scheme not in ("http", "https"):
            raise RooftraceProblem(
                f"The server is {address!r}; expected an address such as http://127.0.0.1:8000."
            )
        is_here = urllib.parse.urlsplit(self._address).hostname in ("127.0.0.1", "localhost", "::1")
        self._opener = _opener_here if is_here else _opener
        self._headers = dict(headers)
        self._is_canceled = is_canceled

    def predict(
        self,
        image: Path,
        out: Path,
        options: Mapping[str, Any],
        on_progress: Callable[[Progress], None],
    ) -> dict[str, Any]:
        """Upload an image, wait for its job, and download the results.

        The job is deleted from the server at the end, also if the user cancels.

        Args:
            image: Image to upload.
            out: Folder of the results.
            options: Parameters of the address, such as `threshold`.
            on_progress: Function that receives each progress.

        Returns:
            Last state of the job.

        Raises:
            Canceled: The user has canceled.
            RooftraceProblem: The server or the job has failed.
        """
        query = urllib.parse.urlencode({"filename": image.name, **options}, doseq=True)
        upload = _Upload(image, self._is_canceled, on_progress)
        try:
            job = self.json(
                f"/v1/jobs?{query}", data=upload,
                headers={
                    "Content-Type": "application/octet-stream", "Content-Length": str(upload.size),
                },
            )  # fmt: skip
        finally:
            upload.file.close()
        links = job["links"]
        try:
            job = self._wait(job, on_progress)
            if job["state"] != "done":
                error = job.get("error") or {"message": f"The job ended as {job['state']}."}
                raise RooftraceProblem(f"{error['message']} {error.get('remedy') or ''}".strip())
            out.mkdir(parents=True, exist_ok=True)
            for file in self.json(self._below(links["results"]))["files"]:
                on_progress(Progress("download", 1.0, file["name"]))
                self.download(self._below(file["url"]), out / Path(file["name"]).name)
        finally:
            # Deleting cancels a job that still runs.
            try:
                self._open(self._below(links["self"]), method="DELETE").close()
            except RooftraceProblem as problem:
                on_progress(Progress("cleaning up", 1.0, f"the job stays there: {problem}"))
        return job

    def _below(self, link: str) -> str:
        """Return a link of the server without the folder that its address may end with."""
        path = urllib.parse.urlsplit(self._address).path
        return link[len(path) :] if link.startswith(path) else link

    def _wait(self, job: dict[str, Any], on_progress: Callable[[Progress], None]) -> dict[str, Any]:
        seen = time.monotonic()
        address = self._below(job["links"]["self"])
        while job["state"] in ("queued", "running"):
            progress = job["progress"]
            buildings = progress.get("buildings") or 0
            on_progress(Progress(job["state"], progress["share"], f"{buildings:,} buildings"))
            until = time.monotonic() + _PAUSE_S
            while time.monotonic() < until:
                if self._is_canceled():
                    raise Canceled
                time.sleep(0.05)
            try:
                job = self.json(address)
                seen = time.monotonic()
            except _Unreachable as problem:
                if time.monotonic() - seen > _PATIENCE_S:
                    raise
                on_progress(Progress("waiting", None, str(problem)))
        return job

    def download(self, address: str, path: Path) -> None:
        """Write a response to a file.

        Raises:
            Canceled: The user has canceled.
            RooftraceProblem: See `json`.
        """
        begun = path.with_name(f"{path.name}.download")
        with self._open(address) as answer, begun.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                if self._is_canceled():
                    raise Canceled
                file.write(chunk)
        begun.replace(path)

    def json(self, address: str, **how: Any) -> Any:
        """Return the JSON of a response; `how` has the `data`, `method` and `headers` of a request.

        Raises:
            RooftraceProblem: The server refuses, cannot be reached, or is none of rooftrace.
        """
        with self._open(address, **how) as answer:
            try:
                return json.load(answer)
            except ValueError:
                raise RooftraceProblem(
                    f"{self._address} did not answer as a rooftrace server does. Check the address."
                ) from None

    def _open(
        self, address: str, data: Any = None, method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:  # fmt: skip
        request = urllib.request.Request(
            self._address + address, data, {**self._headers, **(headers or {})}, method=method
        )
        try:
            return self._opener.open(request, timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise RooftraceProblem(_explain(self._address, error)) from None
        except OSError as error:
            raise _Unreachable(
                f"{self._address} does not answer: {getattr(error, 'reason', error)}. "
                "Start it with rooftrace serve, or correct the address."
            ) from None


class _Unreachable(RooftraceProblem):
    """A server that does not answer at the moment."""


class _Upload:
    """An image as the body of a request, which reports its progress and stops on request."""

    def __init__(
        self, path: Path, is_canceled: Callable[[], bool], on_progress: Callable[[Progress], None]
    ) -> None:
        self.size = path.stat().st_size
        self.file = path.open("rb")
        self._is_canceled = is_canceled
        self._on_progress = on_progress
        self._sent = 0
        self._shown = 0.0

    def read(self, count: int = -1) -> bytes:
        if self._is_canceled():
            raise Canceled
        chunk = self.file.read(count)
        self._sent += len(chunk)
        now = time.monotonic()
        if now - self._shown > 0.2:
            self._shown = now
            text = f"{self._sent / 1e6:,.1f} of {self.size / 1e6:,.1f} MB"
            self._on_progress(Progress("upload", self._sent / max(self.size, 1), text))
        return chunk


def _explain(address: str, error: urllib.error.HTTPError) -> str:
    """Return the reason of an answer that is an error."""
    try:
        problem = json.load(error)
        detail = f"{problem['detail']} {problem.get('remedy') or ''}".strip()
    except (ValueError, KeyError, TypeError, OSError):
        detail = f"{address} answered {error.code} {error.reason}."
    if error.code == 401:
        detail += " Choose an authentication of the kind Basic with the key as the password."
    elif 300 <= error.code < 400:
        detail += f" It redirects to {error.headers.get('Location')}: enter the final address."
    return detail
