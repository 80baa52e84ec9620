"""What differed between runs, and what came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rooftrace.core.config import nearest
from rooftrace.core.errors import ConfigError
from rooftrace.train.compare.reading import Best, Run, is_lower_better, printable

__all__ = ["ABSENT", "Comparison", "as_text", "compare"]

ABSENT = object()
"""Stands for the value of a key that a run's configuration does not have."""

_NOT_WHAT_A_RUN_IS = ("base", "watch.")
"""Where a run lay and whom it told: it would differ, and mean nothing."""

_LOWEST_FIRST = ("name", "status", "minutes", "lr")


@dataclass(frozen=True)
class Comparison:
    """Runs in order.

    Args:
        sorted_by: what they are in order of.
    """

    runs: tuple[Run, ...]
    sorted_by: str

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of the configuration: those that have not the same value in all runs."""
        known = [run.config for run in self.runs if run.config]
        every = dict.fromkeys(key for config in known for key in config)
        return tuple(
            key
            for key in every
            if not key.startswith(_NOT_WHAT_A_RUN_IS)
            and len({_token(config.get(key, ABSENT)) for config in known}) > 1
        )

    @cached_property
    def usual(self) -> Mapping[str, str]:
        """Of each differing key, the value that most runs have, as `as_text` has it.

        A key is absent where no value is in more runs than any other.
        """
        found = {}
        for key in self.keys:
            counts = Counter({text: len(runs) for text, runs in self.holders(key).items()})
            first, second = [*counts.most_common(2), ("", 0)][:2]
            if first[1] > second[1]:
                found[key] = first[0]
        return found

    def holders(self, key: str) -> dict[str, list[int]]:
        """Each value of a key, as `as_text` has it, and the numbers of its runs, from 1."""
        found: dict[str, list[int]] = {}
        for number, run in enumerate(self.runs, 1):
            if run.config:
                found.setdefault(as_text(run.config.get(key, ABSENT)), []).append(number)
        return found

    @cached_property
    def figures(self) -> tuple[str, ...]:
        """All that the runs recorded of their epochs, in the order of their columns."""
        names = dict.fromkeys(name for run in self.runs for row in run.rows for name in row)
        return tuple(name for name in names if name != "epoch")

    def differing(self, run: Run) -> dict[str, Any]:
        """What a run has for the keys that differ; without those that it does not have."""
        return {key: run.config[key] for key in self.keys if key in run.config}

    def to_json(self) -> dict[str, Any]:
        """Plain data without NaN."""
        return {
            "sorted_by": self.sorted_by,
            "differing": list(self.keys),
            "runs": [self._run_to_json(run) for run in self.runs],
        }

    def _run_to_json(self, run: Run) -> dict[str, Any]:
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


def compare(runs: Sequence[Run], sort: str = "val_iou") -> Comparison:
    """Put runs in order, the best first; those without the figure come last.

    Args:
        sort: a column of metrics.csv, by its best epoch; or `name`, `status`, `epochs`, `minutes`.

    Raises:
        ConfigError: no run has such a figure.
    """
    figures = Comparison(tuple(runs), sort).figures
    known = [*figures, "name", "status", "epochs", "minutes"]
    # Runs that have come to nothing yet are shown, too.
    if sort not in known and (figures or sort != "val_iou"):
        near = nearest(sort, known)
        raise ConfigError(
            f"--sort received {printable(sort)!r}, which no run has. {near}".strip(),
            remedy=f"Known: {', '.join(known)}.",
        )
    lowest_first = sort in _LOWEST_FIRST or is_lower_better(sort)
    with_value = [(value, run) for run in runs if (value := _value(run, sort)) is not None]
    with_value.sort(key=lambda pair: pair[0], reverse=not lowest_first)
    without = [run for run in runs if _value(run, sort) is None]
    return Comparison((*(run for _, run in with_value), *without), sort)


def as_text(value: Any) -> str:
    """A value of a configuration, on one line."""
    if value is ABSENT:
        return "–"
    if isinstance(value, str):
        return printable(value) or '""'
    return printable(json.dumps(value, ensure_ascii=False))


def _value(run: Run, sort: str) -> Any:
    if sort in ("name", "status", "epochs", "minutes"):
        return getattr(run, sort)
    best = run.best(sort)
    return None if best is None else best.value


def _token(value: Any) -> str:
    """Tells 1 from true and from "1"; 1 and 1.0 are the same, and so are a key that is not there
    and one that says nothing, as most keys of one more folder do.
    """
    if value is ABSENT or value is None or value == "":
        return "nothing"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def _best_to_json(best: Best | None) -> dict[str, float] | None:
    return None if best is None else {"value": best.value, "epoch": best.epoch}
