"""Import of an ONNX graph without a contract.

The first run of a foreign graph takes place in a process of its own with a limit of time. The graph
may loop without end, need more memory than there is, or end the process: the command survives and
reports it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, RooftraceError
from rooftrace.core.text import first_line, plural
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.flows.export.convert import TileSet
from rooftrace.flows.import_model.contract import (
    Channels,
    ImportOptions,
    make_spec,
    pixel_statistics,
    resolve_channels,
)
from rooftrace.models.bundle import GRAPH_NAME
from rooftrace.models.foreign_graph import Activation, ForeignGraph, read_foreign_graph, wrap_graph
from rooftrace.models.spec import BundleSpec

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


_ROUNDING = 1e-3
"""Largest deviation from one of a sum of probabilities that rounding explains."""


@dataclass(frozen=True)
class Trial:
    """Graphs to run, and the tiles to run them on.

    Args:
        original: Bytes of the foreign graph.
        output: Name of its output that is used.
        dtype: Type of its input in numpy.
        graph: Bytes of the graph for the bundle; None to run the original alone.
        spec: Contract of the bundle; None without `graph`.
        mean, std: One value per band, in pixel values.
        tiles: Tiles (band, y, x) in pixel values, all of one size.
        activation: Function that turns the answers into probabilities.
        keep: The only channel that counts; None for all.
    """

    original: bytes
    output: str
    dtype: str
    graph: bytes | None
    spec: BundleSpec | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tiles: tuple[NDArray[Any], ...]
    activation: Activation = "none"
    keep: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """Answers of the graphs.

    Args:
        runtime: Name of the engine that ran the original.
        original: Answers (n, channel, y, x) of the original, or its probabilities.
        wrapped: Probabilities of the bundle's graph on OpenVINO; None if it was not run.
    """

    runtime: str
    original: NDArray[np.float32]
    wrapped: NDArray[np.float32] | None


def run_graphs(trial: Trial, source: str, limit_s: float) -> TrialResult:
    """Run the graphs in another process.

    Raises:
        BundleError: The process takes longer than `limit_s`, ends by itself, or the graph cannot
            be run.
        ConfigError: The answers are no probabilities after the activation.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_in_child, args=(trial, source, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit_s):
            raise BundleError(
                f"{source} did not answer for {len(trial.tiles)} tiles of "
                f"{trial.tiles[0].shape[1]} px within {limit_s:g} s.",
                remedy="Check that the graph has no endless loop, or give a smaller --input-px or "
                "--multiple.",
            )
        answer = receiver.recv()
    except EOFError as error:
        process.join()
        raise BundleError(
            f"{source} ended the process that ran it, with exit code {process.exitcode}.",
            remedy="Check whether memory was exhausted; export the network again.",
        ) from error
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(answer, RooftraceError):
        raise answer
    assert isinstance(answer, TrialResult)
    return answer


def _run_in_child(trial: Trial, source: str, sender: Connection) -> None:
    try:
        sender.send(_answers(trial, source))
    except RooftraceError as error:
        sender.send(error)
    except KeyboardInterrupt:
        # The terminal has interrupted the parent process, too.
        pass
    except Exception as error:  # runtimes raise kinds of their own
        sender.send(
            BundleError(
                f"{source} cannot be run: {first_line(error)}.",
                remedy="Check --bands, --input-px and --multiple, or export the network again.",
            )
        )


def _answers(trial: Trial, source: str) -> TrialResult:
    runtime, run = _original_runner(trial)
    found = []
    for tile in trial.tiles:
        given = (tile[None].astype(np.float32) - _per_band(trial.mean)) / _per_band(trial.std)
        answer = np.asarray(run(given.astype(trial.dtype)), np.float32)
        expected = tile.shape[-2:]
        if answer.ndim != 4 or answer.shape[0] != 1 or answer.shape[2:] != expected:
            raise BundleError(
                f"{source} answers {answer.shape} for an image of {(1, *tile.shape)}; expected "
                f"(1, channel, {expected[0]}, {expected[1]}).",
                remedy="Export the network with an answer for each pixel, at the size of its "
                "input; --output names another output.",
            )
        found.append(answer)
    original = np.concatenate(found)
    if not np.isfinite(original).all():
        raise BundleError(
            f"{source} answers values that are not finite (NaN or infinity).",
            remedy="Check --mean, --std and --input-range; else its weights are damaged.",
        )
    if trial.graph is None or trial.spec is None:
        return TrialResult(runtime, original, None)
    probability = activated(original, trial.activation)
    if trial.keep is not None:
        probability = probability[:, trial.keep : trial.keep + 1]
    low, high = float(probability.min()), float(probability.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ConfigError(
            f"{source} answers values from {low:.4g} to {high:.4g}, which are no probabilities.",
            remedy="Give --activation sigmoid or softmax.",
        )
    wrapped = _bundle_answers(trial.graph, trial.spec, trial.tiles, source)
    return TrialResult(runtime, probability, wrapped)


def _bundle_answers(
    graph: bytes, spec: BundleSpec, tiles: Sequence[NDArray[Any]], source: str
) -> NDArray[np.float32]:
    """Return the probabilities of the bundle's graph for all tiles as one batch."""
    engine = OpenVinoEngine(spec, [graph], "fp32", source)
    answer = engine.run(np.stack(tiles))
    single = engine.run(np.stack(tiles[:1]))
    if answer.shape[0] != len(tiles) or np.abs(answer[:1] - single).max() > _ROUNDING:
        raise BundleError(
            f"{source} answers differently for an image in a batch than for the image alone.",
            remedy="Export the network in evaluation mode and with a dynamic batch axis.",
        )
    total = answer.sum(axis=1)
    if spec.channels > 1 and np.abs(total - 1).max() > _ROUNDING:
        raise BundleError(
            f"{source} answers probabilities that sum to {total.min():.3f} to {total.max():.3f} "
            "over the classes; expected 1.",
            remedy="Give the activation that the network needs: --activation softmax, or sigmoid "
            "for classes that overlap.",
        )
    return answer


def activated(answers: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Return the probabilities of (n, channel, y, x) answers."""
    if activation == "none":
        return answers
    if activation == "sigmoid":
        halved = np.tanh(answers.astype(np.float64) / 2)  # does not overflow
        return np.asarray((1 + halved) / 2, np.float32)
    shares = np.exp(answers.astype(np.float64) - answers.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _original_runner(trial: Trial) -> tuple[str, Any]:
    """Return the name of an engine and a function that runs the foreign graph on it."""
    try:
        import onnxruntime
    except ImportError:
        import openvino

        core = openvino.Core()
        model = core.read_model(trial.original)
        model.reshape([1, *trial.tiles[0].shape])
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", config)
        return "openvino", lambda given: compiled([given])[trial.output]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        trial.original, options, providers=["CPUExecutionProvider"]
    )
    held = session.get_inputs()[0].name
    return "onnxruntime", lambda given: session.run([trial.output], {held: given})[0]


def _per_band(values: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)
