"""Which figure of an epoch is watched, and which way is better."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rooftrace.core.config import nearest
from rooftrace.core.errors import ConfigError

__all__ = ["Mode", "check_monitor", "sign_of"]

Mode = Literal["auto", "min", "max"]


def sign_of(monitor: str, mode: Mode = "auto") -> Literal[-1, 1]:
    """1 where more is better, -1 where less is; `auto` takes a loss for the latter."""
    if mode == "auto":
        return -1 if "loss" in monitor else 1
    return 1 if mode == "max" else -1


def check_monitor(key: str, monitor: str, known: Collection[str]) -> None:
    """Raises ConfigError where a run has no figure of this name; it lists those it has.

    Args:
        key: of the configuration, for the message.
    """
    if monitor not in known:
        raise ConfigError(
            f"{key} = {monitor!r} is no figure of this run. {nearest(monitor, known)}".strip(),
            remedy=f"It has: {', '.join(known)}.",
        )
