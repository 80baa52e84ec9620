"""What a study is told: the `[tune]` table, and the search space beside the keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rooftrace.core.config import Config, parse_config, read_config
from rooftrace.core.errors import ConfigError
from rooftrace.train.config import TrainConfig
from rooftrace.train.monitor import Mode, sign_of
from rooftrace.train.tune.space import Range, Space, find_space, is_open

__all__ = ["TuneConfig", "Tuning", "read_tuning", "refuse_search"]

TABLE = "tune"

_WITHOUT_EFFECT = ("device", "export", "refine", "watch", "workers")
"""A trial comes to the same value, whatever these are: it is the segmenter's, and no bundle's."""


class TuneConfig(Config):
    """How trials are chosen, and when one is given up.

    Args:
        monitor: the figure of metrics.csv that counts; a trial's value is that of its best epoch.
        mode: whether more of it (`max`) or less (`min`) is better; `auto`: less of a loss, more of
            anything else.
        sampler: `tpe`: a tree-structured Parzen estimator over all values together (Bergstra et
            al. 2011; Watanabe 2023); `random`.
        startup_trials: drawn at random before `tpe` learns from them.
        pruner: `median`: a trial ends when its best value so far is below the median of what
            others had at that epoch (Golovin et al. 2017); `hyperband` (Li et al. 2018), which
            compares trials at epochs that grow by factors of three; `none`.
        warmup_epochs: no trial ends before so many epochs are done.
        pruner_startup_trials: `median` needs so many whole trials to compare with.
        timeout_minutes: no trial begins later than this after the command did; None never stops.
        seed: of what the sampler draws; trial by trial the same for the same trials before it.
    """

    monitor: str = "val_iou"
    mode: Mode = "auto"
    sampler: Literal["tpe", "random"] = "tpe"
    startup_trials: Annotated[int, Field(ge=1)] = 10
    pruner: Literal["median", "hyperband", "none"] = "median"
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
        source: what errors call it.
        base: folder that relative paths in it start from.
    """

    settings: TuneConfig
    space: Space
    source: str
    base: Path

    @property
    def most_epochs(self) -> int:
        """That a trial may have."""
        for parameter in self.space.parameters:
            if parameter.key == ("epochs",):
                values = [parameter.high] if isinstance(parameter, Range) else parameter.values
                return max(v for v in values if isinstance(v, int))
        given = self.space.raw.get("epochs", TrainConfig.model_fields["epochs"].default)
        assert isinstance(given, int)
        return given

    def config(self, drawn: dict[str, object], *, source: str) -> TrainConfig:
        """That of a trial. Raises ConfigError where what was drawn does not go together."""
        return parse_config(self.space.resolve(drawn), TrainConfig, source=source)

    def first_config(self) -> TrainConfig:
        """One that holds, to look at the data with."""
        for _, _, raw in self.space.variations():
            if not _errors(raw):
                return parse_config(raw, TrainConfig, source=self.source)
        raise AssertionError("read_tuning has checked that one holds")


def read_tuning(path: Path, overrides: Sequence[str] = ()) -> Tuning:
    """Read and check a configuration with a search space.

    Each open value is tried at its ends, or at each of its choices, so that what can never be
    trained is said before anything is. What is wrong only together with another value is left to
    the trial that draws both.

    Raises:
        ConfigError: as `core.config.load_config`; there is no open value, or one is wrong.
    """
    raw = read_config(path, overrides)
    settings = parse_config({"tune": raw.pop(TABLE, {})}, _Table, source=str(path)).tune
    space = find_space(raw)
    if not space.parameters:
        raise ConfigError(
            f"{path} has no search space: every value is given.",
            remedy="Leave a value open, such as lr = { low = 1e-4, high = 1e-2, log = true } in "
            "[optimizer]; or use rooftrace train.",
        )
    _check(space, str(path))
    tuning = Tuning(settings, space, str(path), path.parent)
    if settings.pruner == "hyperband" and settings.warmup_epochs > tuning.most_epochs:
        raise ConfigError(
            f"{path}: hyperband would end no trial: tune.warmup_epochs = {settings.warmup_epochs}, "
            f"but a trial has at most {tuning.most_epochs} epochs.",
            remedy='Lower tune.warmup_epochs, or set tune.pruner = "none".',
        )
    return tuning


def refuse_search(raw: dict[str, Any], *, source: str) -> None:
    """Raises ConfigError where plain data for a training run is one for a study."""
    found = is_open(raw) or (TABLE if TABLE in raw else None)
    if found is not None:
        what = "settings of a study" if found == TABLE else "a search space"
        raise ConfigError(
            f"{source}: {found} is {what}, where a training run needs one value.",
            remedy="Use rooftrace tune with this file; it writes a best.toml for rooftrace train.",
        )


class _Table(Config):
    tune: TuneConfig


def _check(space: Space, source: str) -> None:
    holds = False
    for parameter, value, raw in space.variations():
        if parameter.key[0] in _WITHOUT_EFFECT:
            raise ConfigError(
                f"{source}: {parameter.name} is searched for, but the value of a trial does not "
                "depend on it.",
                remedy="Give it one value.",
            )
        errors = _errors(raw)
        holds = holds or not errors
        if any(loc[: len(parameter.key)] == parameter.key for loc in errors):
            parse_config(raw, TrainConfig, source=f"{source}, with {parameter.name} = {value!r}")
    if not holds:
        parse_config(raw, TrainConfig, source=source)
    if {"devices", "nodes"} & {str(p.key[0]) for p in space.parameters} or any(
        space.raw.get(key, 1) != 1 for key in ("devices", "nodes")
    ):
        raise ConfigError(
            f"{source}: a trial is trained on one device; devices and nodes are to be 1.",
            remedy="Run trials side by side: --jobs on one machine, --storage on several.",
        )


def _errors(raw: dict[str, Any]) -> list[tuple[int | str, ...]]:
    """Where a configuration is wrong."""
    try:
        TrainConfig.model_validate(raw)
    except ValidationError as error:
        return [problem["loc"] for problem in error.errors()]
    return []
