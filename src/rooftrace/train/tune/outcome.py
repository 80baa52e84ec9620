"""What a study leaves of its best trial: a configuration to train with, and a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import tomlkit
from optuna.trial import FrozenTrial
from tomlkit.items import Table

from rooftrace.io.atomic import write_atomically
from rooftrace.train.fit import fit
from rooftrace.train.package import package
from rooftrace.train.tune.config import Tuning
from rooftrace.train.tune.space import Key, Parameter, put
from rooftrace.train.tune.trial import folder_name
from rooftrace.train.watch.config import WatchConfig

__all__ = ["package_best", "render_config", "write_config"]

_NO_FILE = ("imagenet", "none")
"""What stands for encoder weights without being a path."""


def write_config(
    path: Path, tuning: Tuning, best: FrozenTrial, trials: Sequence[FrozenTrial], study: str
) -> None:
    """Write the configuration of the best trial, ready for `rooftrace train`.

    Args:
        path: relative paths in it are made to start from its folder.
        trials: all that are finished.
    """
    raw = _moved(tuning.space.resolve(best.params), tuning.base, path.parent)
    head = (
        f"The best of {len(trials)} trials of the study {study!r}: trial {best.number}, "
        f"{tuning.settings.monitor} {best.value:.6g}."
    )
    write_atomically(path, render_config(raw, tuning.space.parameters, head).encode())


def render_config(raw: dict[str, Any], parameters: Sequence[Parameter], head: str) -> str:
    """TOML in which each value that was searched for says among which it was found.

    Args:
        raw: plain data, every value given.
    """
    notes = {p.key: f"searched: {p}" for p in parameters}
    document = tomlkit.document()
    document.add(tomlkit.comment(head))
    _fill(document, raw, (), notes)
    return tomlkit.dumps(document)


def package_best(
    tuning: Tuning, best: FrozenTrial, out: Path, path: Path, *, tell: Callable[[str], None]
) -> bool:
    """Write the bundle of the best trial's best epoch.

    Returns:
        False where the weights of that trial are not in this folder: it ran on another machine.

    Raises:
        ExportError: see `train.package`.
    """
    run = out / folder_name(best.number)
    if not (run / "checkpoints" / "last.ckpt").is_file():
        return False
    config = tuning.config(best.params, source=run.name)
    record = run / "config.json"
    before = record.read_bytes()
    try:
        # To resume a run that has as many epochs as it may have opens it, and trains nothing.
        over = {"epochs": len(best.intermediate_values), "watch": WatchConfig(panel=0)}
        result = fit(config.model_copy(update=over), run, base=tuning.base, resume=True)
    finally:
        write_atomically(record, before)
    kind = "best_iou" if tuning.settings.maximises else "best_loss"
    package(config, result, kind, path, tell=tell)
    return True


def _fill(
    into: tomlkit.TOMLDocument | Table, raw: Mapping[str, Any], key: Key, notes: Mapping[Key, str]
) -> None:
    """Values first, then tables, then lists of tables, as TOML wants them."""
    for name, value in raw.items():
        if isinstance(value, dict) or _is_tables(value):
            continue
        item = tomlkit.item(value)
        if note := notes.get((*key, name)):
            item.comment(note)
        into.add(name, item)
    for left_out in (k for k in notes if k[:-1] == key and k[-1] not in raw):
        into.add(tomlkit.comment(f"{left_out[-1]}: its default, {notes[left_out]}"))
    for name, value in raw.items():
        if isinstance(value, dict):
            table = tomlkit.table()
            _note(table, notes.get((*key, name)))
            _fill(table, value, (*key, name), notes)
            into.add(name, table)
    for name, value in raw.items():
        if _is_tables(value):
            tables = tomlkit.aot()
            for index, entry in enumerate(value):
                table = tomlkit.table()
                _note(table, notes.get((*key, name, index)) or notes.get((*key, name)))
                _fill(table, entry, (*key, name, index), notes)
                tables.append(table)
            into.add(name, tables)


def _note(table: Table, note: str | None) -> None:
    if note is not None:
        table.add(tomlkit.comment(note))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _moved(raw: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """The same places, told from another folder."""
    for key, text in _paths(raw):
        # What starts with a variable, a home or a root is the same from everywhere.
        if isinstance(text, str) and not (text.startswith(("$", "~")) or Path(text).is_absolute()):
            put(raw, key, os.path.relpath(base.resolve() / text, folder.resolve()))
    return raw


def _paths(raw: Mapping[str, Any]) -> list[tuple[Key, object]]:
    """Every value that is a path relative to the configuration's folder, if it is there."""
    data = raw["data"]
    found: list[tuple[Key, object]] = [(("data", "split"), data.get("split"))]
    for part in ("train", "val"):
        for index, source in enumerate(data.get(part, ())):
            found += [(("data", part, index, k), source.get(k)) for k in ("path", "images")]
    weights = raw.get("model", {}).get("encoder_weights")
    if weights not in _NO_FILE:
        found.append((("model", "encoder_weights"), weights))
    return found
