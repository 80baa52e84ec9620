"""The list of jobs in SQLite: its table, and how it is written to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.io.atomic import export_error
from rooftrace.service.jobs.job import Job, JobFile, options_from_json

__all__ = ["job_of", "open_list", "writing"]

_VERSION = 1

_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    options TEXT NOT NULL,
    upload TEXT NOT NULL,
    upload_bytes INTEGER NOT NULL,
    created_s REAL NOT NULL,
    started_s REAL,
    finished_s REAL,
    pixels_done INTEGER NOT NULL DEFAULT 0,
    pixels INTEGER NOT NULL,
    buildings INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 1,
    error TEXT,
    figures TEXT,
    files TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, number);
"""


def open_list(path: Path) -> sqlite3.Connection:
    """The list at a path, made where it is missing; whoever uses it has a lock.

    Raises:
        ExportError: it cannot be written to, or is no list of jobs.
        ConfigError: it was written by another version.
    """
    try:
        base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    except sqlite3.Error as error:
        raise export_error(path, error) from error
    base.row_factory = sqlite3.Row
    try:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA busy_timeout = 10000")
        # What was answered with "accepted" is there after a loss of power, too.
        base.execute("PRAGMA synchronous = FULL")
        with writing(base):
            version = int(base.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    base.execute(statement)
                base.execute(f"PRAGMA user_version = {_VERSION}")
    except sqlite3.Error as error:
        base.close()
        raise ExportError(
            f"{path} cannot be used as the list of jobs: {error}.",
            remedy="Name another folder for the jobs, or remove that file.",
        ) from error
    if version not in (0, _VERSION):
        base.close()
        raise ConfigError(
            f"{path} has version {version}; this rooftrace knows {_VERSION}.",
            remedy="Name another folder for the jobs, or use the rooftrace that wrote it.",
        )
    return base


@contextmanager
def writing(base: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, or nothing of it."""
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
        base.execute("COMMIT")
    except BaseException:
        # Of some errors, such as a full disk, SQLite has done so itself.
        if base.in_transaction:
            base.execute("ROLLBACK")
        raise


def job_of(row: sqlite3.Row) -> Job:
    """The job that a row of the list holds."""
    values = dict(row)
    return Job(**{
        **values,
        "options": options_from_json(values["options"]),
        "error": None if values["error"] is None else json.loads(values["error"]),
        "figures": None if values["figures"] is None else json.loads(values["figures"]),
        "files": tuple(JobFile(**one) for one in json.loads(values["files"])),
    })  # fmt: skip
