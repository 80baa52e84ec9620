"""Readers of the folder that a training run writes."""

import csv
from pathlib import Path
from typing import Any

from rooftrace.train.checkpoint import read_checkpoint


def rows(run: Path) -> list[dict[str, str]]:
    """Return the rows of `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def figures(run: Path) -> list[dict[str, str]]:
    """Return the rows of `metrics.csv` without the columns that depend on the clock."""
    return [{k: v for k, v in r.items() if k not in ("seconds", "images_per_s")} for r in rows(run)]


def weights(run: Path) -> dict[str, Any]:
    """Return the weights of the last checkpoint."""
    state: dict[str, Any] = read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]
    return state
