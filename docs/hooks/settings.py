"""The reference of configuration files, made from the pydantic models that read them."""

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
from rooftrace.train.tune_space import TuneConfig

HEAD = """# Configuration

This page lists every key of the TOML file of `rooftrace train`. It is made from the models that
read the file. An unknown key is an error that names the nearest known key. Any key can be set on
the command line, with dots between tables: `--set optimizer.lr=3e-4`. The pages on
[training](../training.md), [augmentation](../augmentation.md) and [data](../data.md) help to choose
values. The table `[tune]` belongs to [`rooftrace train --trials`](../tuning.md).
"""


def page() -> str:
    """Return the page, with one section for each table of the file."""
    return "\n\n".join([HEAD, *_tables("", TrainConfig), *_tables("[tune]", TuneConfig)]) + "\n"


def _tables(title: str, model: type[Config], done: set[type] | None = None) -> list[str]:
    """Return the sections of a table and of the tables in it, each model once."""
    done = set() if done is None else done
    descriptions, inner_tables = _described(model), []
    rows = ["| key | kind | default | |", "|---|---|---|---|"]
    key = title.strip("[]")
    for name, field in model.model_fields.items():
        path = f"{key}.{name}".lstrip(".")
        brackets = "[[{}]]" if "tuple[" in str(field.annotation) else "[{}]"
        for inner in _models(field.annotation):
            if inner not in done:
                done.add(inner)
                inner_tables.append((brackets.format(path), inner))
        text = descriptions.get(name, "")
        rows.append(f"| `{name}` | {_kind(field)} | {_default(field)} | {text} |")
    head = f"## `{title}`" if title else "## Keys at the top"
    deeper = [section for path, inner in inner_tables for section in _tables(path, inner, done)]
    return [head, "\n".join(rows), *deeper]


def _described(model: type[Config]) -> dict[str, str]:
    """Return the description of each key in the docstring; `mean, std: …` describes both."""
    descriptions: dict[str, str] = {}
    for section in Docstring(model.__doc__ or "").parse("google", warnings=False):
        if section.kind is DocstringSectionKind.parameters:
            for entry in section.value:
                for name in entry.name.split(","):
                    text = " ".join(entry.description.split())
                    descriptions[name.strip()] = text.replace("|", "\\|")
    return descriptions


def _models(annotation: Any) -> list[type[Config]]:
    """Return the models of the tables that a value may be."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _kind(field: FieldInfo) -> str:
    return f"{_named(field.annotation)}{_bounds(field.metadata)}"


def _bounds(limits: Iterable[Any]) -> str:
    """Return the limits of a number, such as ` ≥ 0`."""
    texts = [
        f" {sign} {getattr(limit, name):g}"
        for limit in limits
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(limit, name, None) is not None
    ]
    return ",".join(texts)


def _named(annotation: Any) -> str:
    """Return a type in the words of a person who writes its values."""
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
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value, default=str)}`"
