"""Where the trials of a study are recorded, be it one file or a server that many machines share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from rooftrace.core.errors import ConfigError, DataError

__all__ = ["default_storage", "open_storage", "shown_storage", "told_storage_errors"]

_LOCKED_S = 60
"""How long a process waits for others that write to the same SQLite file."""

_TRIES = 5


def default_storage(out: Path) -> str:
    """A SQLite file in the folder of the study."""
    return f"sqlite:///{(out / 'study.db').resolve()}"


def shown_storage(storage: str) -> str:
    """As people may read it: without a password."""
    password = urlsplit(storage).password if "://" in storage else None
    return storage.replace(f":{password}@", ":***@") if password else storage


@contextmanager
def open_storage(storage: str) -> Iterator[BaseStorage]:
    """Open it, making what is not there yet.

    Args:
        storage: an address as SQLAlchemy reads it (`sqlite:///study.db`, `postgresql://…`), or the
            path of a journal file, which may lie on a network drive.

    Raises:
        ConfigError: no such kind of storage, a driver that is not installed, nobody who answers.
    """
    if "://" not in storage:
        with told_storage_errors(storage):
            Path(storage).parent.mkdir(parents=True, exist_ok=True)
            yield JournalStorage(JournalFileBackend(storage))
        return
    opened = _open_database(storage)
    try:
        with told_storage_errors(storage):
            yield opened
    finally:
        opened.engine.dispose()


@contextmanager
def told_storage_errors(storage: str) -> Iterator[None]:
    """A storage that fails under way is told as a DataError."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"The storage {shown_storage(storage)} failed: {str(cause).splitlines()[0]}.",
            remedy="What is recorded stays. Start the same command again when it answers.",
        ) from error


def _open_database(storage: str) -> RDBStorage:
    shown = shown_storage(storage)
    if storage.startswith("sqlite:///"):
        Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    options = {"connect_args": {"timeout": _LOCKED_S}} if storage.startswith("sqlite:") else {}
    for attempt in range(1, _TRIES + 1):
        try:
            return RDBStorage(storage, engine_kwargs=options)
        except ImportError as error:
            raise ConfigError(
                f"The storage {shown} needs a driver that is not installed: {error}.",
                remedy="Install it: psycopg2-binary for postgresql://, PyMySQL for mysql+pymysql://.",
            ) from error
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigError(
                f"The storage {shown} is not an address that SQLAlchemy knows: {error}.",
                remedy="Give sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME, or the path "
                "of a journal file.",
            ) from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            # Two that make the same tables at the same moment: one of them is told they exist.
            if attempt == _TRIES:
                reason = str(error.__cause__ or error).splitlines()[0]
                raise ConfigError(
                    f"The storage {shown} cannot be opened: {reason}.",
                    remedy="Check the address, the name and the password, and that it answers.",
                ) from error
            time.sleep(0.2 * attempt)
    raise AssertionError("the last attempt returns or raises")
