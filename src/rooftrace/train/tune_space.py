"""A search space: the open values of a training configuration, and the settings of a study.

The space stands in the TOML file of `rooftrace train`, beside each key:

    epochs = { low = 10, high = 40, step = 10 }
    loss = { choices = ["ce", "0.6*ce + 0.4*dice"] }

    [optimizer]
    lr = { low = 1e-5, high = 1e-2, log = true }
    encoder_lr = { choices = [{}, 1e-4] }      # {} leaves the key out, so that its default holds

    [tune]
    pruner = "none"

A table with `low`, `high` or `choices` is an open value wherever it stands, except in `labels`,
where these keys may be names of classes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, ValidationError

from rooftrace.core.config import Config, parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import reason_of
from rooftrace.train.config import TUNE_TABLE, Key, TrainConfig, find_open_values, read_train_config
from rooftrace.train.early_stopping import Mode, sign_of

if TYPE_CHECKING:
    from optuna.trial import Trial

_WITHOUT_EFFECT = ("device", "export", "refine", "workers")
"""Tables and keys that do not change the value of a trial, which is that of the segmenter."""


@dataclass(frozen=True)
class Parameter:
    """An open value of a configuration.

    Args:
        key: Path to the value in the configuration.
        distribution: Optuna's distribution: of numbers, or of the labels of choices.
        choices: Values of any kind, in the order of their labels; empty for numbers.
    """

    key: Key
    distribution: Any
    choices: tuple[object, ...] = ()

    @property
    def name(self) -> str:
        return _name(self.key)

    @property
    def samples(self) -> Sequence[object]:
        """Values that represent the space where a configuration is checked."""
        if self.choices:
            return self.choices
        return self.distribution.low, self.distribution.high

    def sample(self, trial: Trial) -> object:
        one = self.distribution
        if self.choices:
            return trial.suggest_categorical(self.name, one.choices)
        suggest = trial.suggest_int if isinstance(one.low, int) else trial.suggest_float
        return suggest(self.name, one.low, one.high, step=one.step, log=one.log)

    def value(self, recorded: object) -> object:
        """Return the value in the configuration for a value that a study has recorded."""
        if not self.choices:
            return recorded
        return self.choices[self.distribution.choices.index(str(recorded))]

    def __str__(self) -> str:
        one = self.distribution
        if self.choices:
            return " | ".join(one.choices)
        step = f" in steps of {one.step:g}" if one.step not in (None, 1) else ""
        return f"{one.low:g} to {one.high:g}{step}{', logarithmic' * one.log}"


@dataclass(frozen=True)
class SearchSpace:
    """A configuration with its open values.

    Args:
        raw: Plain data, with open values as the tables that were written.
        parameters: The open values, in the order of the file.
    """

    raw: dict[str, Any]
    parameters: tuple[Parameter, ...]

    def sample(self, trial: Trial) -> dict[str, object]:
        """Return the values that a trial tries, by the names of the parameters."""
        return {p.name: p.sample(trial) for p in self.parameters}

    def resolve(self, sampled: Mapping[str, object]) -> dict[str, Any]:
        """Return the configuration with sampled values in place of the open ones."""
        values = {p.key: p.value(sampled[p.name]) for p in self.parameters}
        return self.with_values(values)

    def with_values(self, values: Mapping[Key, object]) -> dict[str, Any]:
        """Return the configuration with given values in place of the open ones."""
        raw = copy.deepcopy(self.raw)
        for key, value in values.items():
            set_value(raw, key, copy.deepcopy(value))
        return raw

    def variations(self) -> Iterator[tuple[Parameter, object, dict[str, Any]]]:
        """Yield each parameter at each of its samples, with the others at their first sample."""
        first = {p.key: p.samples[0] for p in self.parameters}
        for parameter in self.parameters:
            for value in parameter.samples:
                yield parameter, value, self.with_values({**first, parameter.key: value})


def find_space(raw: dict[str, Any]) -> SearchSpace:
    """Return the open values of plain data, in the order of the file.

    Raises:
        ConfigError: An open value is malformed: `low` above `high`, a logarithm of a number that
            is not above 0, no choice. The message names the key.
    """
    return SearchSpace(raw, tuple(_parameter(key, table) for key, table in find_open_values(raw)))


def set_value(raw: Any, key: Key, value: object) -> None:
    """Set a value in plain data; an empty table removes the key, so that its default holds."""
    *path, last = key
    for step in path:
        raw = raw[step]
    if value == {} and isinstance(raw, dict):
        raw.pop(last, None)
    else:
        raw[last] = value


class _Range(Config):
    low: StrictInt | StrictFloat
    high: StrictInt | StrictFloat
    step: StrictInt | StrictFloat | None = None
    log: StrictBool = False


class _Choices(Config):
    choices: Annotated[list[Any], Field(min_length=1)]


def _parameter(key: Key, table: dict[str, Any]) -> Parameter:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    remedy = (
        "Write { low = 1e-4, high = 1e-2, log = true }, { low = 10, high = 40, step = 10 } or "
        "{ choices = [8, 16] }."
    )
    source = f"The search of {_name(key)}"
    if "choices" in table:
        choices = parse_config(table, _Choices, source=source, remedy=remedy).choices
        labels = [_label(value) for value in choices]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"{source} has a choice twice: {', '.join(labels)}.", remedy=remedy)
        return Parameter(key, CategoricalDistribution(labels), tuple(choices))
    given = parse_config(table, _Range, source=source, remedy=remedy)
    bounds: dict[str, Any] = {"low": given.low, "high": given.high, "log": given.log}
    is_integer = all(isinstance(n, int) for n in (given.low, given.high, given.step or 1))
    try:
        if is_integer:
            return Parameter(key, IntDistribution(**bounds, step=int(given.step or 1)))
        return Parameter(key, FloatDistribution(**bounds, step=given.step))
    except ValueError as error:
        raise ConfigError(
            f"{source} is not possible: {reason_of(error)}.", remedy=remedy
        ) from error


def _name(key: Key) -> str:
    return ".".join(str(step) for step in key)


def _label(value: object) -> str:
    if value == {}:
        return "default"
    return value if isinstance(value, str) else json.dumps(value, default=str)


class TuneConfig(Config):
    """The `[tune]` table: how trials are chosen, and when one is stopped early.

    Args:
        monitor: Figure of metrics.csv to optimise; a trial's value is that of its best epoch.
        mode: Whether more of it (`max`) or less (`min`) is better; `auto` is `min` for a loss,
            else `max`.
        startup_trials: Number of random trials before a tree-structured Parzen estimator over all
            values together (Bergstra et al. 2011; Watanabe 2023) learns from them.
        pruner: `median`: a trial ends when its best value so far is below the median of other
            trials at that epoch (Golovin et al. 2017); `none`.
        warmup_epochs: Number of epochs before which no trial is pruned.
        pruner_startup_trials: Number of complete trials that `median` needs for its comparison.
        timeout_minutes: Minutes after which the command starts no more trials; None never stops.
        seed: Seed of the sampler; a trial draws the same values after the same earlier trials.
    """

    monitor: str = "val_iou"
    mode: Mode = "auto"
    startup_trials: Annotated[int, Field(ge=1)] = 10
    pruner: Literal["median", "none"] = "median"
    warmup_epochs: Annotated[int, Field(ge=1)] = 3
    pruner_startup_trials: Annotated[int, Field(ge=1)] = 5
    timeout_minutes: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def maximises(self) -> bool:
        return sign_of(self.monitor, self.mode) > 0


@dataclass(frozen=True)
class Tuning:
    """A configuration for a study.

    Args:
        settings: The `[tune]` table.
        space: The open values.
        source: Name of the file, for messages.
        base: Folder that relative paths in it start from.
    """

    settings: TuneConfig
    space: SearchSpace
    source: str
    base: Path

    @property
    def name(self) -> str:
        """Name of the study: that of the file."""
        return Path(self.source).stem

    def config(self, sampled: dict[str, object], *, source: str) -> TrainConfig:
        """Return the configuration of a trial; ConfigError if its values contradict each other."""
        return parse_config(self.space.resolve(sampled), TrainConfig, source=source)

    def first_config(self) -> TrainConfig:
        """Return a valid configuration, for a first look at the data."""
        for _, _, raw in self.space.variations():
            if not _errors(raw):
                return parse_config(raw, TrainConfig, source=self.source)
        raise AssertionError("read_tuning has checked that one is valid")


class _TuneTable(Config):
    tune: TuneConfig


def read_tuning(path: Path, overrides: Sequence[str] = ()) -> Tuning:
    """Read and check a configuration with a search space.

    Each open value is checked at its ends, or at each of its choices, so that values that can
    never be trained are reported before the first trial. A value that is wrong only together with
    another one fails in the trial that draws both.
    """
    raw = read_train_config(path, overrides)
    settings = parse_config({"tune": raw.pop(TUNE_TABLE, {})}, _TuneTable, source=str(path)).tune
    space = find_space(raw)
    if not space.parameters:
        raise ConfigError(
            f"{path} has no search space: every value is given.",
            remedy="Leave a value open, such as lr = { low = 1e-4, high = 1e-2, log = true } in "
            "[optimizer]; or use rooftrace train.",
        )
    _check(space, str(path))
    return Tuning(settings, space, str(path), path.parent)


def _check(space: SearchSpace, source: str) -> None:
    any_valid = False
    for parameter, value, raw in space.variations():
        if parameter.key[0] in _WITHOUT_EFFECT:
            raise ConfigError(
                f"{source}: {parameter.name} is searched for, but the value of a trial does not "
                "depend on it.",
                remedy="Give it one value.",
            )
        errors = _errors(raw)
        any_valid = any_valid or not errors
        if any(loc[: len(parameter.key)] == parameter.key for loc in errors):
            parse_config(raw, TrainConfig, source=f"{source}, with {parameter.name} = {value!r}")
    if not any_valid:
        parse_config(raw, TrainConfig, source=source)


def _errors(raw: dict[str, Any]) -> list[tuple[int | str, ...]]:
    """Return the paths of the values that make a configuration invalid."""
    try:
        TrainConfig.model_validate(raw)
    except ValidationError as error:
        return [problem["loc"] for problem in error.errors()]
    return []
