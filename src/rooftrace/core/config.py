"""One TOML file, read into a frozen model that knows every key; `--set key=value` on top."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
import typing
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rooftrace.core.errors import ConfigError

__all__ = [
    "Config",
    "differences",
    "expand_path",
    "flat",
    "lay_over",
    "load_config",
    "nearest",
    "parse_config",
    "read_config",
]


class Config(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def load_config(path: Path, model: type[C], overrides: Sequence[str] = ()) -> C:
    """Read a TOML file into `model`, with `key.path=value` strings laid over it.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the nearest known one is named), a
            value of the wrong kind.
    """
    return parse_config(read_config(path, overrides), model, source=str(path))


def read_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file as plain data, with `key.path=value` strings laid over it.

    Raises:
        ConfigError: no such file, not TOML, an override that is no setting of it.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {error}.",
            remedy="Give the path of a TOML file; recipes/ holds some to start from.",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise ConfigError(
            f"The configuration {path} is not TOML: {error}.",
            remedy="Mend the line that the message names.",
        ) from error
    for override in overrides:
        lay_over(raw, override)
    return raw


def parse_config(raw: dict[str, Any], model: type[C], *, source: str) -> C:
    """Validate plain data; all that is wrong with it is said in one ConfigError."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(problem, model) for problem in error.errors()]
        told = "; ".join(problems)
        raise ConfigError(
            f"{source}: {told}{'' if told.endswith('?') else '.'}",
            remedy="Correct the file, or use --set KEY=VALUE.",
        ) from error


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """A sentence that names what `name` may have been meant to be; empty if nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def expand_path(text: str, base: Path, *, key: str) -> Path:
    """A path from a configuration: `$NAME` and `~` expanded, relative to the file's folder.

    Raises:
        ConfigError: it names an environment variable that is not set, or the home of nobody.
    """
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ConfigError(
            f"{key} = {text!r} uses an environment variable that is not set.",
            remedy="Set it, or write the path out.",
        )
    try:
        return base / Path(expanded).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{key} = {text!r}: {error}.", remedy="Write the path out.") from error


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Each single value of plain data by its whole key, as `--set` names it."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)  # type: ignore[assignment]
    else:
        return {key: value}
    return {k: v for name, part in parts for k, v in flat(part, f"{key}.{name}".strip(".")).items()}


def differences(before: Any, now: Any, *, free: Collection[str]) -> str:
    """How two pieces of plain data differ, key by key, for a message; empty where they do not.

    Args:
        free: keys that may differ, with all below them.
    """
    old, new = flat(before), flat(now)
    return "; ".join(
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
        and not any(key == one or key.startswith(f"{one}.") for one in free)
    )


def lay_over(raw: dict[str, Any], override: str) -> None:
    """Lay `key.path=value` over plain data; ConfigError where that is no setting of it."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set received {override!r}; expected KEY=VALUE.",
            remedy="For example: --set optimizer.lr=3e-4",
        )
    node: Any = raw
    *path, last = key.strip().split(".")
    for depth, step in enumerate(path):
        if isinstance(node, list):
            node = node[_index(node, step, override)]
        else:
            node = node.setdefault(step, {})
        if not isinstance(node, (dict, list)):
            raise ConfigError(
                f"--set {override!r}: {'.'.join(path[: depth + 1])} is not a table.",
                remedy="Give the whole path to a single value.",
            )
    value = _parse_value(text.strip())
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _index(entries: list[Any], step: str, override: str) -> int:
    if step.isdecimal() and int(step) < len(entries):
        return int(step)
    raise ConfigError(
        f"--set {override!r}: {step} is not an index of a list of {len(entries)}.",
        remedy="Count from 0.",
    )


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text  # a bare word is a string, as in a shell
    return parsed["value"] if len(parsed) == 1 else text


def _explain(problem: Any, model: type[BaseModel]) -> str:
    loc = problem["loc"]
    where = ".".join(str(step) for step in loc)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(model, loc[:-1])
        near = nearest(str(loc[-1]), known)
        return f"unknown key {where!r}. {near or 'Known here: ' + ', '.join(sorted(known))}"
    received = json.dumps(problem.get("input"), default=str)[:80]
    return f"{where or 'the file'}: {problem['msg']} (received {received})"


def _keys_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The field names of the model that `loc` leads to."""
    current: Any = model
    for step in loc:
        field = current.model_fields.get(step)
        if field is None:
            continue  # an index of a list, or a free key of a table
        inner = _model_in(field.annotation)
        if inner is None:
            return []
        current = inner
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside `X`, `X | None`, `tuple[X, ...]`, or None."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
