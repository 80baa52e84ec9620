"""Workers of a cluster, as the driver sees them: it sends work, and is told what became of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rooftrace.core.errors import RooftraceError
from rooftrace.predict.cluster.worker import Facts

__all__ = ["Answered", "Event", "Failed", "Joined", "Lost", "Pool", "Token"]

Token = tuple[int, str]
"""By which a call is known: the number of a piece, and what is done to it."""


@dataclass(frozen=True)
class Joined:
    """A worker is ready."""

    worker: Hashable
    facts: Facts


@dataclass(frozen=True)
class Lost:
    """A worker is gone, with all that it was doing."""

    worker: Hashable
    reason: str


@dataclass(frozen=True)
class Answered:
    """A call has come back."""

    worker: Hashable
    token: Token
    value: Any


@dataclass(frozen=True)
class Failed:
    """A call has raised an error; the worker goes on."""

    worker: Hashable
    token: Token
    error: RooftraceError


Event = Joined | Lost | Answered | Failed


class Pool(Protocol):
    """Some workers, which come and go."""

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        ...

    def share(self, value: Any) -> Any:
        """Something that many calls are given: it is sent to each machine once."""
        ...

    def call(self, worker: Hashable, token: Token, method: str, given: Sequence[Any]) -> None:
        """Have a worker do something; an event with the token tells of it."""
        ...

    def dismiss(self, worker: Hashable, why: str) -> None:
        """Let a worker go, for which no other is looked for."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened since; nothing after so long.

        Raises:
            PredictError: no worker is left, and none comes.
        """
        ...
