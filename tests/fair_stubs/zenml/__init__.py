"""Steps as plain functions, in place of zenml."""

from collections.abc import Callable
from typing import Any


def step(function: Callable[..., Any] | None = None, **_: object) -> Any:
    if function is None:
        return step
    function.entrypoint = function  # type: ignore[attr-defined]
    return function


pipeline = step


def log_metadata(metadata: dict[str, Any]) -> None:
    assert metadata
