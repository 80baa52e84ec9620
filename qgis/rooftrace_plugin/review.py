"""Review of predicted buildings through `rooftrace serve`. This module imports nothing of QGIS.

The server keeps the review in the same file as the review on the web: one continues the other.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Sequence
from urllib.parse import quote

from .command import Canceled, RooftraceProblem, reason_of, start_process, stop_process
from .server import Server

_START_S = 120.0
"""Seconds that the server may take to load its model."""

Point = Sequence[float]
"""Longitude and latitude in degrees."""


def start_review(
    command: str,
    results: Path,
    reviewer: str,
    is_canceled: Callable[[], bool],
    variables: Mapping[str, str],
) -> Review:
    """Start a server for a folder of results, and open the review of its image.

    Args:
        command: Path of rooftrace.
        results: Folder that `rooftrace predict` wrote.
        reviewer: Name of the person.
        is_canceled: Function that returns True when the user has canceled.
        variables: Further variables of the environment of the server.

    Raises:
        Canceled: The user has canceled.
        RooftraceProblem: The server does not start, or the folder has no buildings.
    """
    scratch = tempfile.mkdtemp(prefix="rooftrace-review-")
    call = [command, "serve", "--results", str(results), "--port", "0", "--json", "--jobs", scratch]
    process = start_process(call, variables)
    try:
        first = json.loads(_first_line(process, is_canceled) or "{}")
        if "url" not in first:
            error = first.get("error") or {"message": "rooftrace serve ended before it was ready."}
            raise RooftraceProblem(reason_of(error))
        client = Server(first["url"], {}, lambda: False)
        return Review(process, scratch, client, results, reviewer)
    except BaseException:
        _end(process, scratch)
        raise


def _end(process: subprocess.Popen[str], scratch: str) -> None:
    stop_process(process)
    shutil.rmtree(scratch, ignore_errors=True)


def _first_line(process: subprocess.Popen[str], is_canceled: Callable[[], bool]) -> str:
    lines: queue.Queue[str] = queue.Queue()
    # Both are read to their ends: a server whose pipe is full would stand still.
    for stream in (process.stdout, process.stderr):
        threading.Thread(
            target=_drain, args=(stream, lines if stream is process.stdout else None), daemon=True
        ).start()
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if is_canceled():
            raise Canceled
        try:
            return lines.get(timeout=0.1)
        except queue.Empty:
            continue
    raise RooftraceProblem(f"rooftrace serve was not ready after {_START_S:.0f} seconds.")


def _drain(stream: Any, lines: queue.Queue[str] | None) -> None:
    with stream:
        for line in stream:
            if lines is not None:
                lines.put(line)
    if lines is not None:
        lines.put("")


class Review:
    """The review of the buildings of one image.

    Args:
        process: Server, which ends with `close`.
        scratch: Folder of its jobs, which is removed then.
        server: Its client.
        results: Folder of results.
        reviewer: Name of the person.

    Attributes:
        image: Name of the image.
        polygons: File of the predicted buildings.
        counts: Numbers of buildings by status.
    """

    def __init__(
        self,
        process: subprocess.Popen[str],
        scratch: str,
        server: Server,
        results: Path,
        reviewer: str,
    ) -> None:
        self._process, self._scratch = process, scratch
        self._server, self._reviewer = server, reviewer
        folder = next(iter(server.json("/map/folders")), {"id": "-"})["id"]
        images = server.json(f"/map/folders/{quote(folder)}")["images"]
        names = [one["name"] for one in images if one["buildings"] is not None]
        if len(names) != 1:
            raise RooftraceProblem(
                f"{results} has the buildings of {len(names)} images; a review in QGIS has one. "
                "Choose the folder of one prediction, or review on the web: rooftrace serve."
            )
        self.image = names[0]
        self.results = results
        self.polygons = next(
            (path for end in ("gpkg", "geojson", "parquet")
             if (path := results / f"{self.image}_buildings.{end}").is_file()),
            results,
        )  # fmt: skip
        if self.polygons.suffix != ".gpkg":
            raise RooftraceProblem(
                f"{results} has no GeoPackage of buildings in a coordinate system. Review it on "
                "the web: rooftrace serve."
            )
        self._path = f"/v1/results/{quote(folder)}/images/{quote(self.image)}/review"
        self._fingerprint, self._revision = "", 0
        self._revisions: dict[int, int] = {}
        self.counts: dict[str, int] = {}

    def close(self) -> None:
        """End the server."""
        _end(self._process, self._scratch)

    def refresh(self) -> tuple[list[dict[str, Any]], list[int]]:
        """Return the buildings changed since the last call, and the numbers of those removed."""
        state = self._server.json(f"{self._path}?after={self._revision}")
        self._fingerprint, self.counts = state["polygons"], state["counts"]
        self._revision = state["revision"]
        return self._seen(state["buildings"]), state["removed"]

    def change(
        self, action: str, buildings: Sequence[int] = (), outline: Sequence[Point] | None = None
    ) -> list[dict[str, Any]]:
        """Make a change, which is saved at once, and return the buildings after it.

        Args:
            action: accept, reject, reopen, redraw or add.
            buildings: Numbers of the buildings.
            outline: Closed outline, for redraw and add.

        Raises:
            RooftraceProblem: It does not fit, or another reviewer was faster.
        """
        seen = [{"id": one, "revision": self._revisions.get(one, 0)} for one in buildings]
        body: dict[str, Any] = {
            "action": action, "reviewer": self._reviewer, "buildings": seen,
            "polygons": self._fingerprint,
        }  # fmt: skip
        if outline is not None:
            body["outline"] = {"type": "Polygon", "coordinates": [list(map(list, outline))]}
        return self._seen(self._post("changes", body)["buildings"])

    def undo(self) -> None:
        """Undo the last change of this reviewer; `refresh` returns the buildings after it."""
        self._post("undo", {"reviewer": self._reviewer})

    def click(self, clicks: Sequence[tuple[Point, bool]]) -> list[Point] | None:
        """Return the outline at all clicks on one building so far; None if nothing was found.

        Args:
            clicks: Points, and whether each is inside; the first one is.
        """
        body = {"clicks": [{"position": list(one), "inside": inside} for one, inside in clicks]}
        outline = self._post("clicks", body)["outline"]
        return None if outline is None else outline["coordinates"][0]

    def following(self, start: int | None, *, backwards: bool = False) -> int | None:
        """Return the next building that is open, in the order of doubt; None if there is none."""
        query = f"?status=open&backwards={str(backwards).lower()}"
        query += "" if start is None else f"&start={start}"
        building = self._server.json(f"{self._path}/next{query}")["building"]
        return None if building is None else int(building["id"])

    def export(self) -> Path:
        """Write the corrections as labels, open buildings as ignored ground; return the file."""
        path = self.results / f"{self.image}_reviewed.gpkg"
        self._server.download(f"{self._path}/export?format=gpkg&open=ignore", path)
        return path

    def _post(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._server.json(
            f"{self._path}/{name}", data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        return found

    def _seen(self, buildings: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._revisions.update((one["id"], one["revision"]) for one in buildings)
        return buildings
