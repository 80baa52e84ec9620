"""Training runs as their folders tell of them, whatever state those are in."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rooftrace.core.config import flat
from rooftrace.core.errors import DataError

__all__ = ["Best", "Run", "find_runs", "is_lower_better", "printable"]

_RECORD, _FIGURES = "config.json", "metrics.csv"

_OF_A_RUN = {"data", "model", "epochs"}
"""What a config.json has that is one of ours: a name that many programs use."""

_INSIDE = {"checkpoints", "tensorboard"}
"""Folders of a run that hold no runs."""

_LISTED = 3
_MOST_EPOCHS = 10**7
_LARGEST = 1e15
"""Numbers beyond come of damage, or of a run that went astray; NaN and infinities are beyond."""

_LOWER_IS_BETTER = ("loss", "seconds")

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Best:
    """The best value of a figure, and the epoch (from 1) that has it."""

    value: float
    epoch: int


@dataclass(frozen=True)
class Run:
    """One run.

    Args:
        name: its folder, as it is found from where the search began.
        config: the resolved configuration, each value by its whole key; empty where it cannot be
            read.
        rows: the figures of each epoch; what is no number, or not finite, is left out.
        problems: what is wrong with its files, each in a sentence.
        packaged: whether it has a bundle, which is made when a run has come to its end.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    rows: tuple[Figures, ...]
    problems: tuple[str, ...] = ()
    packaged: bool = False

    @property
    def epochs(self) -> int:
        return len(self.rows)

    @cached_property
    def status(self) -> str:
        """`finished`, `stopped early`, `unfinished: …` or `damaged`."""
        wanted = self.config.get("epochs")
        if not self.rows:
            return "damaged" if self.problems else "unfinished: no epoch"
        if isinstance(wanted, int) and self.rows[-1]["epoch"] >= wanted:
            return "finished"
        if self.packaged or self._out_of_patience:
            return "stopped early"
        if not isinstance(wanted, int):
            return "damaged"
        return f"unfinished: {self.rows[-1]['epoch']:.0f} of {wanted} epochs"

    @property
    def _out_of_patience(self) -> bool:
        patience = self.config.get("stop.patience")
        best = self.best(str(self.config.get("stop.monitor")))
        if best is None or not isinstance(patience, int) or patience < 1:
            return False
        return self.rows[-1]["epoch"] - best.epoch >= patience

    def best(self, figure: str) -> Best | None:
        """The highest value; the lowest of a loss; None where no epoch has one."""
        values = [(row[figure], int(row["epoch"])) for row in self.rows if figure in row]
        if not values:
            return None
        sign = -1 if is_lower_better(figure) else 1
        value, epoch = max(values, key=lambda pair: (sign * pair[0], -pair[1]))
        return Best(value, epoch)

    def at(self, epoch: int, figure: str) -> float | None:
        """Of one epoch."""
        return next((row.get(figure) for row in self.rows if row["epoch"] == epoch), None)

    @property
    def minutes(self) -> float | None:
        """Of training and validation, all epochs together."""
        seconds = [row["seconds"] for row in self.rows if "seconds" in row]
        return sum(seconds) / 60 if seconds else None

    @property
    def images_per_s(self) -> float | None:
        """Training samples a second: the median over epochs, of which the first may be slow."""
        rates = sorted(row["images_per_s"] for row in self.rows if "images_per_s" in row)
        return rates[len(rates) // 2] if rates else None


def is_lower_better(figure: str) -> bool:
    """Whether the best value of a figure is its lowest."""
    return any(word in figure for word in _LOWER_IS_BETTER)


def find_runs(folder: Path) -> list[Run]:
    """All runs in a folder, itself among them, at any depth, by name.

    Raises:
        DataError: no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise DataError(
            f"{printable(str(folder))} is not a folder.",
            remedy="Name the folder that the runs lie in, such as runs/.",
        )
    found = [_read(path, folder) for path in _folders(folder)]
    runs = [run for run in found if run is not None]
    if not runs:
        raise DataError(
            f"There is no run in {printable(str(folder))}: no folder has a {_RECORD} of a training "
            f"run, or a {_FIGURES} beside one.",
            remedy="Name a folder that rooftrace train or rooftrace tune has written to.",
        )
    return sorted(runs, key=lambda run: run.name)


def printable(text: str) -> str:
    """Text from elsewhere, safe to print: on one line, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _folders(folder: Path) -> Iterator[Path]:
    for path, names, _ in os.walk(folder):
        names[:] = sorted(n for n in names if n not in _INSIDE and not n.startswith("."))
        yield Path(path)


def _read(path: Path, top: Path) -> Run | None:
    if not (path / _RECORD).is_file():
        return None
    has_figures = (path / _FIGURES).is_file()
    problems: list[str] = []
    config = _read_config(path / _RECORD, problems)
    if not has_figures and not config.keys() >= _OF_A_RUN:
        return None
    rows = _read_rows(path / _FIGURES, problems) if has_figures else []
    relative = path.relative_to(top)
    name = path.resolve().name if relative == Path() else relative.as_posix()
    return Run(
        name=printable(name),
        path=path,
        config=_flattened(config, problems),
        rows=tuple(rows),
        problems=tuple(problems),
        packaged=any(path.glob("best_*.rooftrace")),
    )


def _read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text, parse_float=_finite, parse_constant=str)
    except (OSError, ValueError, RecursionError) as error:
        problems.append(printable(f"{_RECORD} cannot be read: {error}."))
        return {}
    if not isinstance(config, dict):
        problems.append(f"{_RECORD} is not the record of a run.")
        return {}
    return config


def _finite(text: str) -> float | str:
    """What JSON cannot hold stays the text that it is."""
    return value if math.isfinite(value := float(text)) else text


def _flattened(config: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    try:
        return flat(config)
    except RecursionError:
        problems.append(f"{_RECORD} is nested too deeply to be the record of a run.")
        return {}


def _read_rows(path: Path, problems: list[str]) -> list[Figures]:
    """The whole rows; a row that was cut off would give numbers that were never measured."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = list(csv.reader(text.splitlines(keepends=True)))
    except (OSError, csv.Error) as error:
        problems.append(printable(f"{_FIGURES} cannot be read: {error}."))
        return []
    columns, *cells = lines or [[]]
    if "epoch" not in columns:
        problems.append(f"{_FIGURES} has no column 'epoch'.")
        return []
    names = [printable(name) for name in columns]
    bad = []
    if cells and not text.endswith(("\n", "\r")):
        bad.append(len(cells) + 1)
        cells.pop()
    rows: dict[float, Figures] = {}
    for number, row in enumerate(cells, 2):
        values = {name: _number(text) for name, text in zip(names, row)}
        if len(row) != len(names) or values["epoch"] not in range(1, _MOST_EPOCHS):
            bad.append(number)
        else:
            rows[values["epoch"]] = {k: v for k, v in values.items() if abs(v) <= _LARGEST}
    if bad:
        listed = ", ".join(map(str, sorted(bad)[:_LISTED])) + (", …" if len(bad) > _LISTED else "")
        are = "s {} are" if len(bad) > 1 else " {} is"
        problems.append(f"{_FIGURES} is damaged: line{are.format(listed)} left out.")
    return [rows[epoch] for epoch in sorted(rows)]


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
