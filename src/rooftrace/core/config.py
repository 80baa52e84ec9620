"""Configuration: a TOML file with `--set key=value` on top, read into a frozen pydantic model.

`Config` is the base of every configuration. `KindConfig` is the base of those whose key `kind`
decides which other keys exist. A `Registry` holds the entries that a person can choose by name.
"""

import difflib
import json
import os
import re
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural, reason_of


class Config(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


C = TypeVar("C", bound=Config)


class Options(Config):
    """Base of options that users and callers set.

    Raises:
        ConfigError: A value is outside of its limits.
    """

    options_of: ClassVar[str] = "a scene"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(
                f"The options of {self.options_of} are invalid: "
                f"{invalid_values(error, type(self))}",
                remedy="Correct the option.",
            ) from None


def load_config(path: Path, model: type[C], overrides: Sequence[str] = ()) -> C:
    """Read a TOML file into `model`, with `key.path=value` strings applied on top.

    Raises:
        ConfigError: the file does not exist or is not TOML, a key is unknown (the message names
            similar keys), or a value has the wrong type.
    """
    return parse_config(read_config(path, overrides), model, source=str(path))


def read_config(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a TOML file as plain data, with `key.path=value` strings applied on top."""
    import tomllib

    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {reason_of(error)}.",
            remedy="Give the path of a TOML file; recipes/ holds examples.",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"The configuration {path} is not TOML: {error}.",
            remedy="Correct the line that the message names.",
        ) from error
    for override in overrides:
        apply_override(raw, override)
    return raw


def parse_config(
    raw: dict[str, Any],
    model: type[C],
    *,
    source: str,
    remedy: str = "Correct the file, or use --set KEY=VALUE.",
) -> C:
    """Validate plain data.

    Args:
        raw: Content of the file.
        model: Model to validate against.
        source: Name of the file in messages.
        remedy: Remedy in the error.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = invalid_values(error, model)
        raise ConfigError(f"{source}: {problems}", remedy=remedy) from error


def invalid_values(error: ValidationError, model: type[BaseModel], most: int = 20) -> str:
    """Return a sentence of the problems that pydantic found, with their keys and what was received.

    Args:
        error: Error of the validation.
        model: Model that was validated against.
        most: Maximum number of problems that are described; the others are counted.
    """
    # Where a value may be of several types, each has a problem of its own.
    by_place: dict[tuple[int | str, ...], list[Any]] = {}
    for problem in error.errors(include_url=False):
        *path, last = problem["loc"] or ("",)
        is_key = problem["type"] in ("extra_forbidden", "missing")
        steps = [step for step in path if not _TYPE_NAME.fullmatch(str(step))]
        if is_key or not _TYPE_NAME.fullmatch(str(last)):
            steps.append(last)
        by_place.setdefault(tuple(steps), []).append(problem)
    # A list of which an entry has a problem counts as shorter.
    around = {place[:length] for place in by_place for length in range(len(place))}
    places = [
        place
        for place, problems in by_place.items()
        if place not in around or problems[0]["type"] != "too_short"
    ]
    texts = [_explain(place, by_place[place], model) for place in places[:most]]
    if (left_out := len(places) - most) > 0:
        texts.append(f"and {plural(left_out, 'more problem')}")
    problems = "; ".join(texts)
    return problems if problems.endswith("?") else f"{problems}."


_TYPE_NAME = re.compile(
    r"str|int|float|bool|none|constrained-\w+|(literal|tuple|list|dict|function-\w+)\[.*\]"
)
"""Names of types, which pydantic adds to the place of a value that may have several."""

_EXPECTED = {
    "int": "a whole number", "int_from": "a whole number", "float": "a number",
    "bool": "true or false", "string": "a text", "none": "null",
    "dict": "an object of names and values", "model": "an object of names and values",
}  # fmt: skip
"""Expected values by pydantic's names of errors, without their last word: `int_parsing`."""


def plain_reason(problem: Mapping[str, Any]) -> str:
    """Return the reason in one problem of pydantic, without pydantic's own words."""
    if expected := _EXPECTED.get(problem["type"].rpartition("_")[0]):
        given = str(problem.get("input"))
        has_comma = expected == "a number" and re.fullmatch(r"-?\d+,\d+", given)
        point = f" with a decimal point: {given.replace(',', '.')}" if has_comma else ""
        return f"it should be {expected}{point}"
    if problem["type"].endswith(("too_short", "too_long")):
        limits = problem["ctx"]
        bound, count = next((k, v) for k, v in limits.items() if k in ("min_length", "max_length"))
        unit = "character" if problem["type"].startswith("string") else "item"
        least = "at least" if bound == "min_length" else "at most"
        return f"it should have {least} {plural(count, unit)}"
    reason = str(problem["msg"]).removeprefix("Value error, ").replace("valid tuple", "valid list")
    # "Input should be ..." becomes "it should be ...".
    return f"it {reason.removeprefix('Input ')}" if reason.startswith("Input ") else reason


def did_you_mean(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return a sentence that suggests up to `n` similar names; empty if none is similar."""
    close = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f"Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def expand_path(text: str, base: Path, *, key: str) -> Path:
    """Return a path from a configuration: `$NAME` and `~` expanded, relative to the file's folder.

    They stay as they are where there is a file of this name.

    Args:
        text: Path as it stands in the file.
        base: Folder of the file.
        key: Name of the setting in messages.
    """
    # A file may have exactly this name.
    if os.path.exists(base / text):  # noqa: PTH110 - a path's raises an error for a long name
        return base / text
    expanded = os.path.expandvars(text)
    if "$" in expanded:
        raise ConfigError(
            f"{key} = {text!r} uses an environment variable that is not set.",
            remedy="Set the variable, or write the whole path.",
        )
    try:
        return base / Path(expanded).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{key} = {text!r}: {error}.", remedy="Write the whole path.") from error


@dataclass(frozen=True)
class PathField:
    """Annotation of a configuration's field that holds a path, relative to the file's folder.

    Args:
        names: Values that are names, not paths.
    """

    names: tuple[str, ...] = ()


def find_paths(
    raw: Mapping[str, Any], model: type[BaseModel], key: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the key and the text of each path in plain data.

    Args:
        raw: Plain data, well formed or not.
        model: Model of the data; `PathField` annotates its fields that hold paths.
        key: Key of the data in the whole configuration.
    """
    for name, field in model.model_fields.items():
        value, here = raw.get(name), (*key, name)
        mark = next((one for one in field.metadata if isinstance(one, PathField)), None)
        inner = next(_models_in(field.annotation), None)
        if mark is not None:
            if isinstance(value, str) and value not in mark.names:
                yield here, value
        elif inner is not None and isinstance(value, Mapping):
            yield from find_paths(value, inner, here)
        elif inner is not None and isinstance(value, list | tuple):
            for index, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    yield from find_paths(entry, inner, (*here, index))


def replace_paths(config: C, change: Callable[[str], str]) -> C:
    """Return a configuration with each of its paths changed, see `find_paths`."""
    for key, text in list(find_paths(config.model_dump(), type(config))):
        config = _replaced(config, key, change(text))
    return config


def _replaced(value: Any, key: Sequence[str | int], text: str) -> Any:
    """Return a copy of a configuration, or of a tuple of these, with the value at a key."""
    if not key:
        return text
    first, *rest = key
    if isinstance(first, int):
        return (*value[:first], _replaced(value[first], rest, text), *value[first + 1 :])
    return value.model_copy(update={first: _replaced(getattr(value, first), rest, text)})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation, such as the one in `tuple[Model, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Return each single value of plain data by its whole key, as `--set` names it."""
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return {key: value}
    return {
        k: v for name, part in parts for k, v in flatten(part, f"{key}.{name}".strip(".")).items()
    }


def differences(before: Any, now: Any, *, free: Collection[str]) -> str:
    """Describe how two pieces of plain data differ, key by key; empty if they do not differ.

    Args:
        before: Earlier data.
        now: Present data.
        free: Keys that are not compared, with all keys below them.
    """
    old, new = flatten(before), flatten(now)
    return "; ".join(
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
        and not any(key == one or key.startswith(f"{one}.") for one in free)
    )


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Apply one `key.path=value` to plain data."""
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
                remedy="Give the whole key of a single value.",
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
    import tomllib

    try:
        parsed = tomllib.loads(f"value = {text}")
    except ValueError:
        return text  # a bare word is a string, as in a shell
    return parsed["value"] if len(parsed) == 1 else text


def _explain(loc: tuple[int | str, ...], problems: Sequence[Any], model: type[BaseModel]) -> str:
    problem = problems[0]
    where = ".".join(str(step) for step in loc)
    if problem["type"] == "extra_forbidden":
        keys = _keys_at(model, loc[:-1])
        elsewhere = [key for key in _nested_keys(model) if key.split(".")[-1] == str(loc[-1])]
        elsewhere.sort(key=lambda key: not key.startswith(f"{loc[0]}."))
        near = (
            f"Did you mean {' or '.join(map(repr, elsewhere[:3]))}?"
            if elsewhere
            else did_you_mean(str(loc[-1]), keys)
        )
        return f"unknown key {where!r}. {near or 'Known here: ' + ', '.join(sorted(keys))}"
    if problem["type"] == "missing":
        return f"the key {where!r} is missing"
    if problem["type"] == "json_invalid":
        return f"it is not JSON: {problem['ctx']['error']}"
    first, *reasons = dict.fromkeys(plain_reason(one) for one in problems)
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        # The keys of a table contradict each other, and the reason names them.
        return f"{where}: {first}" if where else first
    received = json.dumps(problem.get("input"), default=str)[:80]
    reasons = [one.removeprefix("it should be ") for one in reasons]
    return f"{where or 'the file'}: {' or '.join([first, *reasons])} (received {received})"


def _keys_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Return the field names of the model that `loc` leads to."""
    current: Any = model
    for step in loc:
        field = current.model_fields.get(step)
        if field is None:
            continue  # an index of a list, or a free key of a table
        inner = next(_models_in(field.annotation), None)
        if inner is None:
            return []
        current = inner
    return list(current.model_fields)


def _nested_keys(model: type[BaseModel], table: str = "") -> Iterator[str]:
    """Yield the whole key of each value in a model; of a free table, those of its examples."""
    for name, field in model.model_fields.items():
        key = f"{table}{name}"
        yield key
        yield from (f"{key}.{example}" for example in field.examples or ())
        kinds = map(typing.get_origin, (field.annotation, *typing.get_args(field.annotation)))
        inner = f"{key}.0." if {tuple, list} & {*kinds} else f"{key}."
        for one in _models_in(field.annotation):
            yield from _nested_keys(one, inner)


class KindConfig(Config):
    """Base of a configuration whose key `kind` decides which other keys exist.

    A key of another kind is an error, so that no key is silently ignored. The keys of the chosen
    kind take its defaults; those of other kinds are None.

    A subclass declares `kind` as a Literal with a default and each key of a kind as
    `X | None = None`. `KEYS` holds the keys of each kind with their defaults. Keys that all kinds
    have are ordinary fields.
    """

    KEYS: ClassVar[Mapping[str, Mapping[str, Any]]]

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        kind = raw.get("kind", cls.model_fields["kind"].default)
        if not isinstance(kind, str) or kind not in cls.KEYS:
            return raw  # pydantic reports the error and names the known kinds
        own_keys = cls.KEYS[kind]
        other_keys = {key for keys in cls.KEYS.values() for key in keys} - own_keys.keys()
        foreign = sorted(key for key in other_keys if raw.get(key) is not None)
        if foreign:
            raise ValueError(
                f'kind = "{kind}" has no {" and no ".join(foreign)}; '
                f"its own keys: {', '.join(own_keys) or 'none'}"
            )
        return {**own_keys, **{k: v for k, v in raw.items() if v is not None or k not in own_keys}}

    @property
    def own(self) -> dict[str, Any]:
        """The keys of the chosen kind with their values."""
        kind: str = getattr(self, "kind")  # noqa: B009  (declared by subclasses)
        return {key: getattr(self, key) for key in self.KEYS[kind]}


T = TypeVar("T")


class Registry(dict[str, T]):
    """Entries of one kind by name; `add` never replaces a registered name.

    >>> shapes: Registry[int] = Registry("shape")
    >>> shapes.add("square", 4)
    >>> shapes["square"]
    4

    Args:
        kind: Kind of the entries, as messages name it.
        entries: First entries.
    """

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None) -> None:
        super().__init__(entries or {})
        self._kind = kind

    def add(self, name: str, entry: T) -> None:
        """Register an entry.

        Raises:
            ValueError: the name is registered already, which is a defect and not a user's mistake.
        """
        if name in self:
            raise ValueError(f"the {self._kind} {name!r} is registered already")
        self[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers what it decorates."""

        def enter(entry: T) -> T:
            self.add(name, entry)
            return entry

        return enter

    def __missing__(self, name: str) -> T:
        raise ConfigError(
            f"There is no {self._kind} named {name!r}. {did_you_mean(name, self)}".strip(),
            remedy=f"Choose one of these: {', '.join(sorted(self))}.",
        )
