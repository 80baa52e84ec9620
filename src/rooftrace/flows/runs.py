"""`rooftrace runs`: training runs, read from their folders in any state, and compared on a page.

None of it imports torch, so that it works on any machine.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from rooftrace.core.config import did_you_mean, flatten
from rooftrace.core.early_stopping import StopConfig, sign_of, stops_early
from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.text import list_first, parse_json, reason_of
from rooftrace.io.files import read_file, write_atomically
from rooftrace.io.html import (
    Axis,
    Series,
    check_page_path,
    draw_chart,
    line_sample,
    read_asset,
    render_page,
)

_CONFIG, _METRICS = "config.json", "metrics.csv"

_RUN_KEYS = {"data", "model", "epochs"}
"""Keys that identify the config.json of a run; other programs write files of that name, too."""

_SKIPPED_FOLDERS = {"checkpoints", "tensorboard"}
"""Folders of a run that hold no runs."""

_MAX_LISTED_LINES = 3
_MOST_EPOCHS = 10**7
_MAX_NUMBER = 1e15
"""Largest absolute value that is kept; larger numbers, NaN and infinities come from a damaged file
or a run that diverged.
"""

Figures = Mapping[str, float]


@dataclass(frozen=True)
class BestValue:
    """The best value of a figure, and the epoch (from 1) that has it."""

    value: float
    epoch: int


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Args:
        name: Path of its folder, relative to the folder where the search began.
        path: Its folder.
        config: Resolved configuration, each value by its full key; empty if it cannot be read.
        rows: Figures of each epoch; values that are not finite numbers are left out.
        problems: Faults of its files, as sentences.
        packaged: The run has a bundle, which is written at its end.
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
        if self.packaged or self._stops_early:
            return "stopped early"
        if not isinstance(wanted, int):
            return "damaged"
        return f"unfinished: {self.rows[-1]['epoch']:.0f} of {wanted} epochs"

    @property
    def _stops_early(self) -> bool:
        keys = {name: f"stop.{name}" for name in StopConfig.model_fields}
        known = {name: self.config[key] for name, key in keys.items() if key in self.config}
        try:
            stop = StopConfig(**({"patience": 0} | known))
        except ValidationError:
            return False
        return stops_early(self.rows, stop)

    def best(self, figure: str) -> BestValue | None:
        """Return the highest value, or the lowest of a loss; None if no epoch has one."""
        values = [(row[figure], int(row["epoch"])) for row in self.rows if figure in row]
        if not values:
            return None
        sign = sign_of(figure)
        value, epoch = max(values, key=lambda pair: (sign * pair[0], -pair[1]))
        return BestValue(value, epoch)

    def at(self, epoch: int, figure: str) -> float | None:
        """Return a figure of one epoch."""
        return next((row.get(figure) for row in self.rows if row["epoch"] == epoch), None)

    @property
    def minutes(self) -> float | None:
        """Minutes of training and validation, over all epochs."""
        seconds = [row["seconds"] for row in self.rows if "seconds" in row]
        return sum(seconds) / 60 if seconds else None

    @property
    def images_per_s(self) -> float | None:
        """Training samples per second: the median over epochs, because the first may be slow."""
        rates = sorted(row["images_per_s"] for row in self.rows if "images_per_s" in row)
        return rates[len(rates) // 2] if rates else None


def find_runs(folder: Path) -> list[RunRecord]:
    """Return all runs in a folder, including the folder itself, at any depth, by name.

    Raises:
        DataError: The folder does not exist, or there is no run in it.
    """
    if not folder.is_dir():
        raise DataError(
            f"{printable(str(folder))} is not a folder.",
            remedy="Give the folder that holds the runs, such as runs/.",
        )
    found = [_read(path, folder) for path in _folders(folder)]
    runs = [run for run in found if run is not None]
    if not runs:
        raise DataError(
            f"There is no run in {printable(str(folder))}: no folder has a {_CONFIG} of a training "
            f"run, or a {_METRICS} beside one.",
            remedy="Give a folder that rooftrace train or rooftrace tune has written to.",
        )
    return sorted(runs, key=lambda run: run.name)


def printable(text: str) -> str:
    """Make text from a file safe to print: on one line, and without terminal control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _folders(folder: Path) -> Iterator[Path]:
    for path, names, _ in os.walk(folder):
        names[:] = sorted(n for n in names if n not in _SKIPPED_FOLDERS and not n.startswith("."))
        yield Path(path)


def _read(path: Path, top: Path) -> RunRecord | None:
    if not (path / _CONFIG).is_file():
        return None
    has_figures = (path / _METRICS).is_file()
    problems: list[str] = []
    config = _read_config(path / _CONFIG, problems)
    if not has_figures and not config.keys() >= _RUN_KEYS:
        return None
    rows = _read_rows(path / _METRICS, problems) if has_figures else []
    relative = path.relative_to(top)
    name = path.resolve().name if relative == Path() else relative.as_posix()
    return RunRecord(
        name=printable(name),
        path=path,
        config=_flatten_config(config, problems),
        rows=tuple(rows),
        problems=tuple(problems),
        packaged=any(path.glob("best_*.rooftrace")),
    )


def _read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        config = parse_json(read_file(path), parse_float=_parse_number, parse_constant=str)
    except (OSError, ValueError) as error:
        problems.append(printable(f"{_CONFIG} cannot be read: {reason_of(error)}."))
        return {}
    if not isinstance(config, dict):
        problems.append(f"{_CONFIG} is not the record of a run.")
        return {}
    return config


def _parse_number(text: str) -> float | str:
    """Return a finite number, or else the text itself, because JSON cannot hold infinity."""
    return value if math.isfinite(value := float(text)) else text


def _flatten_config(config: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return each value by its full key, without null: a key of another `kind` has no value."""
    try:
        return {key: value for key, value in flatten(config).items() if value is not None}
    except RecursionError:
        problems.append(f"{_CONFIG} is nested too deeply to be the record of a run.")
        return {}


def _read_rows(path: Path, problems: list[str]) -> list[Figures]:
    """Return the complete rows; a truncated row would give numbers that were never measured."""
    try:
        text = read_file(path).decode(errors="replace")
        lines = list(csv.reader(text.splitlines(keepends=True)))
    except (OSError, csv.Error) as error:
        problems.append(printable(f"{_METRICS} cannot be read: {reason_of(error)}."))
        return []
    columns, *cells = lines or [[]]
    if "epoch" not in columns:
        problems.append(f"{_METRICS} has no column 'epoch'.")
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
            rows[values["epoch"]] = {k: v for k, v in values.items() if abs(v) <= _MAX_NUMBER}
    if bad:
        listed = list_first(sorted(bad), _MAX_LISTED_LINES)
        are = "s {} are" if len(bad) > 1 else " {} is"
        problems.append(f"{_METRICS} is damaged: line{are.format(listed)} left out.")
    return [rows[epoch] for epoch in sorted(rows)]


def _number(text: str) -> float:
    """Return the number, or NaN if the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


ABSENT = object()
"""Stands for the value of a key that the configuration of a run does not have."""

_IGNORED_KEYS = ("base", "watch.")
"""Keys that say where a run was stored and reported; their differences mean nothing."""

_LOWEST_FIRST = ("name", "status", "minutes", "lr")


@dataclass(frozen=True)
class RunComparison:
    """Runs in order.

    Args:
        runs: The runs.
        sorted_by: Figure that they are sorted by.
    """

    runs: tuple[RunRecord, ...]
    sorted_by: str

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of the configuration whose values differ between runs."""
        known = [run.config for run in self.runs if run.config]
        every = dict.fromkeys(key for config in known for key in config)
        return tuple(
            key
            for key in every
            if not key.startswith(_IGNORED_KEYS)
            and len({_token(config.get(key, ABSENT)) for config in known}) > 1
        )

    @cached_property
    def usual(self) -> Mapping[str, str]:
        """The value that most runs have, as `as_text` writes it, for each differing key.

        A key is absent if no value occurs in more runs than any other.
        """
        found = {}
        for key in self.keys:
            counts = Counter({text: len(runs) for text, runs in self.holders(key).items()})
            first, second = [*counts.most_common(2), ("", 0)][:2]
            if first[1] > second[1]:
                found[key] = first[0]
        return found

    def holders(self, key: str) -> dict[str, list[int]]:
        """Return each value of a key, as `as_text` writes it, and the numbers of its runs."""
        found: dict[str, list[int]] = {}
        for number, run in enumerate(self.runs, 1):
            if run.config:
                found.setdefault(as_text(run.config.get(key, ABSENT)), []).append(number)
        return found

    @cached_property
    def figures(self) -> tuple[str, ...]:
        """All figures that the runs recorded, in the order of their columns."""
        names = dict.fromkeys(name for run in self.runs for row in run.rows for name in row)
        return tuple(name for name in names if name != "epoch")

    def differing(self, run: RunRecord) -> dict[str, Any]:
        """Return a run's values of the keys that differ, without those that it does not have."""
        return {key: run.config[key] for key in self.keys if key in run.config}

    def to_json(self) -> dict[str, Any]:
        """Return plain data without NaN."""
        return {
            "sorted_by": self.sorted_by,
            "differing": list(self.keys),
            "runs": [self._run_to_json(run) for run in self.runs],
        }

    def _run_to_json(self, run: RunRecord) -> dict[str, Any]:
        best = run.best("val_iou")
        return {
            "name": run.name,
            "path": printable(str(run.path)),
            "status": run.status,
            "problems": list(run.problems),
            "best_iou": _best_to_json(best),
            "best_loss": _best_to_json(run.best("val_loss")),
            "dice": None if best is None else run.at(best.epoch, "val_dice"),
            "epochs": run.epochs,
            "minutes": run.minutes,
            "images_per_s": run.images_per_s,
            "config": self.differing(run),
        }


def compare_runs(runs: Sequence[RunRecord], sort: str = "val_iou") -> RunComparison:
    """Sort runs, the best first; those without the figure come last.

    Args:
        sort: A column of metrics.csv, by its best epoch; or `name`, `status`, `epochs`, `minutes`.

    Raises:
        ConfigError: No run has such a figure.
    """
    figures = RunComparison(tuple(runs), sort).figures
    known = [*figures, "name", "status", "epochs", "minutes"]
    # Runs without any epoch are listed, too.
    if sort not in known and (figures or sort != "val_iou"):
        near = did_you_mean(sort, known)
        raise ConfigError(
            f"--sort received {printable(sort)!r}, which no run has. {near}".strip(),
            remedy=f"Known: {', '.join(known)}.",
        )
    lowest_first = sort in _LOWEST_FIRST or sign_of(sort) < 0
    with_value = [(value, run) for run in runs if (value := _value(run, sort)) is not None]
    with_value.sort(key=lambda pair: pair[0], reverse=not lowest_first)
    without = [run for run in runs if _value(run, sort) is None]
    return RunComparison((*(run for _, run in with_value), *without), sort)


def as_text(value: Any) -> str:
    """Return a value of a configuration on one line."""
    if value is ABSENT:
        return "–"
    if isinstance(value, str):
        return printable(value) or '""'
    return printable(json.dumps(value, ensure_ascii=False))


def _value(run: RunRecord, sort: str) -> Any:
    if sort in ("name", "status", "epochs", "minutes"):
        return getattr(run, sort)
    best = run.best(sort)
    return None if best is None else best.value


def _token(value: Any) -> str:
    """Return a text that is equal for equal values.

    It distinguishes 1 from true and from "1". 1 and 1.0 are the same. So are a missing key and an
    empty one, since most keys of an additional folder are empty.
    """
    if value is ABSENT or value is None or value == "":
        return "nothing"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _best_to_json(best: BestValue | None) -> dict[str, float] | None:
    return None if best is None else {"value": best.value, "epoch": best.epoch}


def draw_figure(runs: Sequence[RunRecord], figure: str) -> Markup:
    """Return a chart of one figure over the epochs, with each run's number (from 1) at its end.

    The axis is logarithmic where all values are positive and the largest is more than 50 times the
    smallest, as learning rates are. The chart is empty if no run has the figure.
    """
    lines = [
        Series(
            f"{number}  {run.name}",
            [row["epoch"] for row in run.rows if figure in row],
            [row[figure] for row in run.rows if figure in row],
        )
        for number, run in enumerate(runs, 1)
    ]
    values = [value for line in lines for value in line.y]
    if not values:
        return Markup("")
    last = max(epoch for line in lines for epoch in line.x)
    return draw_chart(
        lines,
        Axis.numbered("epoch", 1, int(last)),
        Axis.around(figure, values, logarithmic=min(values) > 0 and max(values) > 50 * min(values)),
        numbered=True,
        width=1060,
        height=420,
    )


_FIRST = ("val_iou", "val_loss", "val_dice", "val_accuracy", "train_loss", "train_iou", "lr")
_MOST_CHARTS = 40
_LONGEST_VALUE = 120


@dataclass(frozen=True)
class _Cell:
    """A cell of a table.

    Args:
        text: The text.
        order: Sort key; an empty one comes last.
    """

    text: str
    order: str = ""


def runs_page(comparison: RunComparison) -> str:
    """Return the whole page."""
    script = read_asset("runs.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    figures = [name for name in _FIRST if name in comparison.figures]
    figures += [name for name in comparison.figures if name not in figures]
    return render_page(
        "runs.html",
        {},
        comparison=comparison,
        rows=[(run, _row(run)) for run in comparison.runs],
        heads=("run", "state", "val IoU", "epoch", "val loss", "epoch", "Dice", "epochs",
               "minutes", "images/s"),
        differing=[(key, _values(comparison, key)) for key in comparison.keys],
        charts=[(name, draw_figure(comparison.runs, name)) for name in figures[:_MOST_CHARTS]],
        line_samples=[line_sample(number) for number in range(len(comparison.runs))],
        script=Markup(script),  # noqa: S704  # nosec B704 # a file of this package
        script_hash=f"sha256-{digest}",
        version=metadata.version("rooftrace"),
    )  # fmt: skip


def _row(run: RunRecord) -> Sequence[_Cell]:
    iou, loss = run.best("val_iou"), run.best("val_loss")
    return (
        _Cell(run.name, run.name),
        _Cell(run.status, run.status),
        _number_cell(None if iou is None else iou.value, 4),
        _number_cell(None if iou is None else iou.epoch, 0),
        _number_cell(None if loss is None else loss.value, 4),
        _number_cell(None if loss is None else loss.epoch, 0),
        _number_cell(None if iou is None else run.at(iou.epoch, "val_dice"), 4),
        _number_cell(run.epochs, 0),
        _number_cell(run.minutes, 1),
        _number_cell(run.images_per_s, 1),
    )


def _number_cell(value: float | None, digits: int) -> _Cell:
    return _Cell("–") if value is None else _Cell(f"{value:,.{digits}f}", repr(value))


def _values(comparison: RunComparison, key: str) -> list[tuple[str, bool]]:
    """Return the value of each run, and whether it differs from that of most runs; `?` if
    unreadable.
    """
    usual = comparison.usual.get(key)
    cells = []
    for run in comparison.runs:
        text = as_text(run.config.get(key, ABSENT)) if run.config else "?"
        cells.append((text[:_LONGEST_VALUE], bool(run.config) and usual not in (None, text)))
    return cells


def run_runs(folder: Path, out: Path | None = None, *, sort: str = "val_iou") -> RunComparison:
    """Compare all runs in a folder, and write the page.

    Args:
        folder: Folder that holds runs at any depth. Unfinished and damaged runs are shown as such.
        out: HTML file to write; None writes none.
        sort: See `flows.runs.compare_runs`.

    Raises:
        DataError: The folder does not exist, or there is no run in it.
        ConfigError: No run has the figure to sort by; or `out` is a folder, or its name is not that
            of an HTML file.
        ExportError: The page cannot be written.
    """
    if out is not None:
        check_page_path(out, "runs.html")
    comparison = compare_runs(find_runs(folder), sort)
    if out is not None:
        write_atomically(out, runs_page(comparison).encode())
    return comparison
