"""Configurations of which one key, `kind`, says which others there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator

from rooftrace.core.config import Config

__all__ = ["KindConfig"]


class KindConfig(Config):
    """Base of a configuration with a `kind`.

    A key that belongs to other kinds is an error where it is given, so that none is ignored. The
    keys of the chosen kind take its defaults, and those of other kinds are None.

    A subclass declares `kind` as a Literal with a default, each key of a kind as `X | None = None`,
    and in `KEYS` the keys of each kind with their defaults. Keys that all kinds have are ordinary.
    """

    KEYS: ClassVar[Mapping[str, Mapping[str, Any]]]

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        kind = raw.get("kind", cls.model_fields["kind"].default)
        if not isinstance(kind, str) or kind not in cls.KEYS:
            return raw  # pydantic names those there are
        own = cls.KEYS[kind]
        others = {key for keys in cls.KEYS.values() for key in keys} - own.keys()
        foreign = sorted(key for key in others if raw.get(key) is not None)
        if foreign:
            raise ValueError(
                f'kind = "{kind}" has no {" and no ".join(foreign)}; '
                f"its own keys: {', '.join(own) or 'none'}"
            )
        return {**own, **{k: v for k, v in raw.items() if v is not None or k not in own}}

    @property
    def own(self) -> dict[str, Any]:
        """The keys of the chosen kind."""
        kind: str = getattr(self, "kind")  # noqa: B009  (declared by subclasses)
        return {key: getattr(self, key) for key in self.KEYS[kind]}
