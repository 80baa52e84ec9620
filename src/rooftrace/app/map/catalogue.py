"""Which results folders the map shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rooftrace.core.errors import ConfigError

__all__ = ["Catalogue", "Entry", "FolderCatalogue"]


@dataclass(frozen=True)
class Entry:
    """A results folder that can be chosen.

    Args:
        id: what requests call it; it is looked up, and never part of a path.
        title: for people.
    """

    id: str
    title: str


class Catalogue(Protocol):
    """Knows results folders by an id. Threads call it at the same time."""

    def entries(self) -> Sequence[Entry]:
        """What there is now, in the order that it is shown in."""
        ...

    def folder(self, id: str) -> Path | None:  # noqa: A002
        """The folder of an entry; None where there is no such one."""
        ...


class FolderCatalogue:
    """The folders that a person named.

    Args:
        paths: of results folders; they may be empty, or come to be later.

    Raises:
        ConfigError: one is a file.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._folders: dict[str, Path] = {}
        for path in dict.fromkeys(path.resolve() for path in paths):
            if path.is_file():
                raise ConfigError(
                    f"{path} is a file; a folder of results was expected.",
                    remedy="Name the folder that rooftrace predict wrote with -o.",
                )
            slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-") or "results"
            number = 2
            unique = slug
            while unique in self._folders:
                unique, number = f"{slug}-{number}", number + 1
            self._folders[unique] = path

    def entries(self) -> Sequence[Entry]:
        names = [path.name for path in self._folders.values()]

        def title(path: Path) -> str:
            return path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}"

        return [Entry(name, title(path)) for name, path in self._folders.items()]

    def folder(self, id: str) -> Path | None:  # noqa: A002
        return self._folders.get(id)
