"""What a configuration leaves open: the search space, which stands in the TOML beside each key.

    epochs = { low = 10, high = 40, step = 10 }
    loss = { choices = ["ce", "0.6*ce + 0.4*dice"] }

    [optimizer]
    lr = { low = 1e-5, high = 1e-2, log = true }
    encoder_lr = { choices = [{}, 1e-4] }      # {} leaves the key out: its default

A table with `low`, `high` or `choices` is an open value wherever it stands, but for what masks mean
(`labels`), where these may be names of classes.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rooftrace.core.config import nearest
from rooftrace.core.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["Choices", "Key", "Parameter", "Range", "Space", "find_space", "is_open", "put"]

Key = tuple[str | int, ...]
"""The way to a value: keys of tables, and indices of lists."""

_RANGE_KEYS = ("low", "high", "step", "log")
_CHOICE_KEYS = ("choices",)
_MARKS = {"low", "high", "choices"}
_FIXED = "labels"


@dataclass(frozen=True)
class Range:
    """A number between two, both included; whole where all of its numbers are.

    Args:
        step: values are `low`, `low + step`, …; None allows all between.
        log: drawn evenly on a logarithmic scale.
    """

    key: Key
    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def name(self) -> str:
        return _name(self.key)

    @property
    def is_whole(self) -> bool:
        return all(isinstance(n, int) for n in (self.low, self.high, self.step or 1))

    @property
    def samples(self) -> Sequence[object]:
        """Values that stand for all of them where a configuration is checked."""
        return (self.low, self.high)

    def draw(self, trial: Trial) -> object:
        if self.is_whole:
            step = int(self.step or 1)
            return trial.suggest_int(
                self.name, int(self.low), int(self.high), step=step, log=self.log
            )
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def value(self, drawn: object) -> object:
        """What stands in the configuration for what a study has recorded."""
        return drawn

    def __str__(self) -> str:
        told = f"{self.low:g} to {self.high:g}"
        if self.step is not None:
            told += f" in steps of {self.step:g}"
        return told + (", logarithmic" if self.log else "")


@dataclass(frozen=True)
class Choices:
    """One of several values, of any kind; a study records them by their labels."""

    key: Key
    values: tuple[object, ...]

    @property
    def name(self) -> str:
        return _name(self.key)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(_label(value) for value in self.values)

    @property
    def samples(self) -> Sequence[object]:
        return self.values

    def draw(self, trial: Trial) -> object:
        return trial.suggest_categorical(self.name, self.labels)

    def value(self, drawn: object) -> object:
        return self.values[self.labels.index(str(drawn))]

    def __str__(self) -> str:
        return " | ".join(self.labels)


Parameter = Range | Choices


@dataclass(frozen=True)
class Space:
    """A configuration with its open values.

    Args:
        raw: plain data, open values as the tables that they were written as.
    """

    raw: dict[str, Any]
    parameters: tuple[Parameter, ...]

    def draw(self, trial: Trial) -> dict[str, object]:
        """What a trial is to try, by the names of the parameters."""
        return {p.name: p.draw(trial) for p in self.parameters}

    def resolve(self, drawn: Mapping[str, object]) -> dict[str, Any]:
        """The configuration with what was drawn in the place of every open value."""
        values = {p.key: p.value(drawn[p.name]) for p in self.parameters}
        return self.with_values(values)

    def with_values(self, values: Mapping[Key, object]) -> dict[str, Any]:
        """The configuration with values in the place of the open ones."""
        raw = copy.deepcopy(self.raw)
        for key, value in values.items():
            put(raw, key, copy.deepcopy(value))
        return raw

    def variations(self) -> Iterator[tuple[Parameter, object, dict[str, Any]]]:
        """Each parameter at each of its samples, while the others stay at their first."""
        first = {p.key: p.samples[0] for p in self.parameters}
        for parameter in self.parameters:
            for value in parameter.samples:
                yield parameter, value, self.with_values({**first, parameter.key: value})


def find_space(raw: dict[str, Any]) -> Space:
    """The open values of plain data, in the order in which they stand.

    Raises:
        ConfigError: an open value that is none: `low` above `high`, a logarithm of nothing, no
            choice; the key is named.
    """
    return Space(raw, tuple(_parameter(key, table) for key, table in _open_tables(raw)))


def is_open(raw: dict[str, Any]) -> str | None:
    """The name of the first open value of plain data, well written or not; None without any."""
    return next((_name(key) for key, _ in _open_tables(raw)), None)


def put(raw: Any, key: Key, value: object) -> None:
    """Lay a value over plain data; an empty table takes a key away, so that its default holds."""
    *path, last = key
    for step in path:
        raw = raw[step]
    if value == {} and isinstance(raw, dict):
        raw.pop(last, None)
    else:
        raw[last] = value


def _open_tables(node: object, key: Key = ()) -> Iterator[tuple[Key, dict[str, Any]]]:
    if isinstance(node, list):
        for index, entry in enumerate(node):
            yield from _open_tables(entry, (*key, index))
    elif isinstance(node, dict):
        if key and _MARKS & node.keys():
            yield key, node
            return
        for name, entry in node.items():
            if name != _FIXED:
                yield from _open_tables(entry, (*key, name))


def _parameter(key: Key, table: dict[str, Any]) -> Parameter:
    known = _CHOICE_KEYS if "choices" in table else _RANGE_KEYS
    for name in table:
        if name not in known:
            near = nearest(name, known) or f"Known here: {', '.join(known)}."
            raise _wrong(key, f"has the key {name!r}, which no search has. {near}")
    return _choices(key, table["choices"]) if "choices" in table else _range(key, table)


def _choices(key: Key, values: object) -> Choices:
    if not isinstance(values, list) or not values:
        raise _wrong(
            key, f"has choices = {json.dumps(values, default=str)}; expected a list of some."
        )
    choices = Choices(key, tuple(values))
    twice = sorted({label for label in choices.labels if choices.labels.count(label) > 1})
    if twice:
        raise _wrong(key, f"has a choice twice: {', '.join(twice)}.")
    return choices


def _range(key: Key, table: dict[str, Any]) -> Range:
    for name in ("low", "high"):
        if name not in table:
            raise _wrong(key, f"has no {name}.")
    for name in ("low", "high", "step"):
        value = table.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(key, f"has {name} = {json.dumps(value, default=str)}; expected a number.")
        if not math.isfinite(value):
            raise _wrong(key, f"has {name} = {value}; expected a finite number.")
    low, high, step, log = table["low"], table["high"], table.get("step"), table.get("log", False)
    if not isinstance(log, bool):
        raise _wrong(key, f"has log = {json.dumps(log, default=str)}; expected true or false.")
    if low > high:
        raise _wrong(key, f"has low = {low:g} above high = {high:g}.")
    if log and low <= 0:
        raise _wrong(key, f"has log = true with low = {low:g}; expected low above 0.")
    if step is not None:
        if log:
            raise _wrong(key, "has both log = true and a step; expected one of them.")
        steps = (high - low) / step if step > 0 else -1
        if steps < 1 or not math.isclose(steps, round(steps), abs_tol=1e-6):
            raise _wrong(key, f"has step = {step:g}, which does not lead from {low:g} to {high:g}.")
    return Range(key, low, high, step, log)


def _wrong(key: Key, told: str) -> ConfigError:
    return ConfigError(
        f"The search of {_name(key)} {told}",
        remedy="Write { low = 1e-4, high = 1e-2, log = true }, { low = 10, high = 40, step = 10 } "
        "or { choices = [8, 16] }.",
    )


def _name(key: Key) -> str:
    return ".".join(str(step) for step in key)


def _label(value: object) -> str:
    if value == {}:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, default=str)
