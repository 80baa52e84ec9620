"""Things that are chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from rooftrace.core.config import nearest
from rooftrace.core.errors import ConfigError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Names to things of one kind. A name that is taken is never taken over.

    >>> shapes: Registry[int] = Registry("shape")
    >>> shapes.add("square", 4)
    >>> shapes["square"]
    4
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Raises ValueError where the name is taken: that is a defect, not a user's mistake."""
        if name in self._entries:
            raise ValueError(f"the {self._kind} {name!r} is registered already")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """`add` as a decorator."""

        def enter(entry: T) -> T:
            self.add(name, entry)
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise ConfigError(
                f"There is no {self._kind} named {name!r}. {nearest(name, self._entries)}".strip(),
                remedy=f"Known: {', '.join(sorted(self._entries))}.",
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
