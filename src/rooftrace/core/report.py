"""Base of the results that `--json` prints."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


class Report:
    """Base of a dataclass whose fields are those of a JSON object."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints."""
        return _fields(self)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _plain(value: Any) -> Any:
    """Return a value as plain data: paths as strings, dataclasses as objects."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [*map(_plain, value)]
    if hasattr(value, "to_json"):
        return value.to_json()
    return _fields(value) if is_dataclass(value) else value
