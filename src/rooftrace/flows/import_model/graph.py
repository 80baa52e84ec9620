"""Import of an ONNX graph without a contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plural
from rooftrace.flows.export.convert import TileSet
from rooftrace.flows.import_model.contract import (
    Channels,
    ImportOptions,
    make_spec,
    pixel_statistics,
    resolve_channels,
)
from rooftrace.flows.import_model.trial import Trial, run_graphs
from rooftrace.models.bundle import GRAPH_NAME
from rooftrace.models.foreign_graph import ForeignGraph, read_foreign_graph, wrap_graph
from rooftrace.models.spec import BundleSpec

__all__ = ["ImportedModel", "import_graph"]

DrawTiles = Callable[[BundleSpec], TileSet]
"""Function that returns the tiles of the check for a contract."""

_MULTIPLE_PX = 32
_NUMPY = {"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "UINT8": "uint8",
          "UINT16": "uint16"}  # fmt: skip


@dataclass(frozen=True)
class ImportedModel:
    """A foreign model as the content of a bundle, and what it answered beside the original.

    Args:
        spec: Contract of the bundle.
        parts: Parts of the bundle.
        original: Name of the program that ran the original.
        expected, found: Probabilities (n, class, y, x) of the original and of the bundle.
        tiles: Tiles of the check.
        record: Facts about the import, for the bundle and the report.
        notes: Assumptions to report to the user.
    """

    spec: BundleSpec
    parts: dict[str, bytes]
    original: str
    expected: NDArray[np.float32]
    found: NDArray[np.float32]
    tiles: TileSet
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


def import_graph(
    data: bytes,
    source: str,
    options: ImportOptions,
    output: str | None,
    draw: DrawTiles,
    limit_s: float,
) -> ImportedModel:
    """Return an ONNX graph with the contract that the options give, checked by a run.

    Args:
        data: Content of the file.
        source: Name of the file, for messages.
        options: The contract.
        output: Name of the output to use; needed if the graph has several.
        draw: Function that returns the tiles of the check.
        limit_s: Maximum number of seconds of each run of the graph.

    Raises:
        MissingExtraError: The package onnx is not installed.
        BundleError: The file is damaged, or does not answer as the options say.
        ConfigError: The options do not fit the graph, or `--activation` is missing.
    """
    mean, std = pixel_statistics(options)
    foreign = read_foreign_graph(data, source, output)
    multiple_px, input_px = _input_size(foreign, options)
    _check_bands(foreign, options)
    made = partial(make_spec, options, multiple_px=multiple_px, input_px=input_px, training={})
    guessed = Channels(1, "none", None, ("background", "building"), 1)
    tiles = draw(made(channels=guessed, name=source))
    trial = Trial(
        data, foreign.output, _NUMPY[foreign.dtype], None, None, mean, std, tiles.images[:1]
    )
    count = foreign.channels
    if count is None or options.activation is None:
        answers = run_graphs(trial, source, limit_s).original
        if options.activation is None:
            raise _without_activation(answers, source)
        count = answers.shape[1]
    channels = resolve_channels(count, options, options.activation, source)
    record = {"kind": "onnx", "output": foreign.output, "activation": channels.activation}
    spec = made(channels=channels, name=source)
    graph = wrap_graph(
        foreign,
        mean=mean,
        std=std,
        channels=channels.count,
        activation=channels.activation,
        keep=channels.keep,
    )
    trial = replace(
        trial,
        graph=graph,
        spec=spec,
        tiles=tiles.images,
        activation=channels.activation,
        keep=channels.keep,
    )
    result = run_graphs(trial, source, limit_s)
    if result.wrapped is None:
        raise AssertionError("the graph was run")
    notes = ["the model has no weights that training can start from: only its graph is known"]
    if input_px is None and options.multiple_px is None:
        notes.append(
            f"height and width of its input are taken to be multiples of {_MULTIPLE_PX}: give "
            "--multiple for another number"
        )
    return ImportedModel(
        spec, {GRAPH_NAME: graph}, result.runtime, result.original, result.wrapped, tiles, record,
        tuple(notes),
    )  # fmt: skip


def _check_bands(foreign: ForeignGraph, options: ImportOptions) -> None:
    bands = foreign.shape[1]
    if bands is not None and bands != len(options.bands):
        hint = ""
        if foreign.shape[3] == len(options.bands):
            hint = " Its bands seem to come last, which is not supported."
        raise ConfigError(
            f"{foreign.source} takes {plural(bands, 'band')}, but --bands names "
            f"{len(options.bands)}: {', '.join(options.bands)}.{hint}",
            remedy="Give --bands in the order of its input, or export it as (n, band, y, x).",
        )


def _input_size(foreign: ForeignGraph, options: ImportOptions) -> tuple[int, int | None]:
    """Return the multiple of an input's sides, and the only side if there is one."""
    height, width = foreign.shape[2:]
    if height is None and width is None:
        return options.multiple_px or _MULTIPLE_PX, options.input_px
    side = height or width
    if height is not None and width is not None and height != width:
        raise ConfigError(
            f"{foreign.source} takes images of {height} rows × {width} columns; expected squares, "
            "or any size.",
            remedy="Export it with dynamic height and width.",
        )
    if options.input_px not in (None, side):
        raise ConfigError(
            f"--input-px is {options.input_px}, but {foreign.source} takes {side}.",
            remedy="Leave it out.",
        )
    assert side is not None, "one of both is stated"
    return side, side


def _without_activation(answers: NDArray[np.float32], source: str) -> ConfigError:
    low, high = float(answers.min()), float(answers.max())
    found = f"{plural(answers.shape[1], 'channel')} with values from {low:.4g} to {high:.4g}"
    likely = "sigmoid" if answers.shape[1] == 1 else "softmax"
    if low >= 0 and high <= 1:
        likely = "none"
    return ConfigError(
        f"The activation of {source} is not known; on a tile it answers {found}.",
        remedy=f"Give --activation none (it answers probabilities), sigmoid or softmax; these "
        f"values suggest {likely}.",
    )
