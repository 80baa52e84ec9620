"""First run of a foreign graph, in a process of its own with a limit of time.

The graph may loop without end, need more memory than there is, or end the process: the command
survives and reports it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, RooftraceError
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.models.foreign_graph import Activation
from rooftrace.models.spec import BundleSpec

__all__ = ["Trial", "TrialResult", "activated", "run_graphs"]

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
                f"{source} cannot be run: {_first_line(error)}.",
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
