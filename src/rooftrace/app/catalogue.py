"""What the map of a server shows: folders that were named, and jobs that are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rooftrace.app.map.catalogue import Entry, FolderCatalogue
from rooftrace.service.jobs.store import JobStore

__all__ = ["ServerCatalogue"]

_MOST_JOBS = 200
"""Of the newest, those that are listed; the others are found by their ids."""

_OF_JOBS = "job-"


class ServerCatalogue:
    """The results folders that a person named, and those of the jobs, the newest first.

    Args:
        paths: of results folders.
        store: of jobs, if there are any.

    Raises:
        ConfigError: one of the paths is a file.
    """

    def __init__(self, paths: Sequence[Path], store: JobStore | None) -> None:
        self._named = FolderCatalogue(paths)
        self._store = store

    def entries(self) -> Sequence[Entry]:
        """What there is now."""
        jobs = [] if self._store is None else self._store.newest(_MOST_JOBS)
        return [
            *self._named.entries(),
            *(
                Entry(_OF_JOBS + job.id, f"{job.name}, {_day(job.created_s)}")
                for job in jobs
                if job.state == "done"
            ),
        ]

    def folder(self, id: str) -> Path | None:  # noqa: A002
        """The folder of an entry; None where there is no such one."""
        if self._store is None or not id.startswith(_OF_JOBS):
            return self._named.folder(id)
        job = self._store.get(id.removeprefix(_OF_JOBS))
        return None if job is None or job.state != "done" else self._store.results(job.id)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
