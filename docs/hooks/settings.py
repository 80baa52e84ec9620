"""The reference of configuration files, from the pydantic models that read them."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal, Union

from griffe import Docstring, DocstringSectionKind
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rooftrace.core.config import Config
from rooftrace.train.config import TrainConfig
from rooftrace.train.tune.config import TuneConfig

HEAD = """# Configuration

Every key of the TOML file of `rooftrace train`, made from the models that read it. An unknown key
is an error that names the nearest one. Any key can be set on the command line, tables with dots:
`--set optimizer.lr=3e-4`. The pages on [training](../training.md),
[augmentation](../augmentation.md) and [data](../data.md) say what to choose; `[tune]` is that of
[`rooftrace tune`](../tuning.md).
"""


def page() -> str:
    """One section for each table of the file."""
    return "\n\n".join([HEAD, *_tables("", TrainConfig), *_tables("[tune]", TuneConfig)]) + "\n"


def _tables(title: str, model: type[Config], done: set[type] | None = None) -> list[str]:
    """A section of a table, and after it those of the tables in it; each kind of table once."""
    done = set() if done is None else done
    told, below = _described(model), []
    rows = ["| key | kind | default | |", "|---|---|---|---|"]
    key = title.strip("[]")
    for name, field in model.model_fields.items():
        path = f"{key}.{name}".lstrip(".")
        brackets = "[[{}]]" if "tuple[" in str(field.annotation) else "[{}]"
        for inner in _models(field.annotation):
            if inner not in done:
                done.add(inner)
                below.append((brackets.format(path), inner))
        rows.append(f"| `{name}` | {_kind(field)} | {_default(field)} | {told.get(name, '')} |")
    head = f"## `{title}`" if title else "## Keys at the top"
    deeper = [section for path, inner in below for section in _tables(path, inner, done)]
    return [head, "\n".join(rows), *deeper]


def _described(model: type[Config]) -> dict[str, str]:
    """What the docstring says of each key; `mean, std: …` is said of both."""
    told: dict[str, str] = {}
    for section in Docstring(model.__doc__ or "").parse("google", warnings=False):
        if section.kind is DocstringSectionKind.parameters:
            for entry in section.value:
                for name in entry.name.split(","):
                    told[name.strip()] = " ".join(entry.description.split()).replace("|", "\\|")
    return told


def _models(annotation: Any) -> list[type[Config]]:
    """Tables that a value may be."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _kind(field: FieldInfo) -> str:
    return f"{_named(field.annotation)}{_bounds(field.metadata)}"


def _bounds(limits: Iterable[Any]) -> str:
    """What a number is held to, such as ` ≥ 0`."""
    told = [
        f" {sign} {getattr(limit, name):g}"
        for limit in limits
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(limit, name, None) is not None
    ]
    return ",".join(told)


def _named(annotation: Any) -> str:
    """A type as a person writes its values."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *limits = typing.get_args(annotation)
        return _named(inner) + "".join(_bounds(getattr(one, "metadata", [one])) for one in limits)
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(a) for a in arguments if a is not type(None))
    if origin is tuple:
        kinds = list(dict.fromkeys(_named(a) for a in arguments if a is not Ellipsis))
        return f"list of {' and '.join(kinds)}"
    if origin is dict:
        return f"table of {_named(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f'`"{member.value}"`' for member in annotation)
    words = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return words.get(annotation, "any value")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value, default=str)}`"
