"""Weights that training starts from: those of a bundle, a run or an exported model.

`load_matching` puts what fits of a state dict into a network and lists what does not. `read_start`
reads the model that `model.start` of a training configuration names.
"""

from __future__ import annotations

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rooftrace.core.config import expand_path, parse_config
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.text import list_first, plural
from rooftrace.models.bundle import (
    BUNDLED_MODELS,
    GRAPH_NAME,
    RAW_WEIGHTS,
    WEIGHTS_NAME,
    ModelBundle,
    bundle_file,
    bundled_model,
)
from rooftrace.models.exported import part_names, read_model
from rooftrace.models.zoo import ModelConfig, adapt_bands, recorded_network

_LISTED = 4
"""Maximum number of weights of each kind that a line of output names; the record has all."""

_COUNTER = "num_batches_tracked"
"""Ending of the names of counters, which are no weights: graphs leave them out."""


@dataclass(frozen=True)
class LoadedWeights:
    """The weights of a state dict that were put into a network, and those that were not.

    Args:
        loaded: Names of the weights that were taken.
        adapted: Names of loaded weights that were adapted to another number of bands or outputs.
        missing: Weights of the network that the state dict does not hold; they keep their values.
        surplus: Weights of the state dict that the network does not have.
        of_another_shape: `NAME (found) for (expected)` of weights that were not taken.
        share: Share of the network's values that were taken, 0..1.
    """

    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    of_another_shape: tuple[str, ...]
    share: float

    def describe(self) -> str:
        """Return one line for the output of a command; it names the first weights of each kind."""
        kinds = {
            "adapted": self.adapted,
            "missing": self.missing,
            "surplus": self.surplus,
            "of another shape": self.of_another_shape,
        }
        listed = [
            f"{kind}: {list_first(names, _LISTED)} ({len(names)})"
            for kind, names in kinds.items()
            if names
        ]
        total = plural(len(self.loaded), "weight")
        return "; ".join([f"{total} taken, {self.share:.1%} of the network's values", *listed])

    def to_json(self) -> dict[str, Any]:
        """Return the record of a run: the number of weights taken, and all that were not."""
        return {
            "loaded": len(self.loaded),
            "share": round(self.share, 5),
            "adapted": list(self.adapted),
            "missing": list(self.missing),
            "surplus": list(self.surplus),
            "of_another_shape": list(self.of_another_shape),
        }


def load_matching(net: nn.Module, found: Mapping[str, Tensor]) -> LoadedWeights:
    """Put the weights of a state dict into a network where name and shape agree.

    A first convolution for three bands is adapted to the network's number of bands. All other
    weights of the network keep their values. Counters of batches are neither taken nor listed.

    Args:
        net: Network to load into; it is changed in place.
        found: Weights by name, of any floating-point type.

    Returns:
        The names of the weights that were taken and of those that were not.
    """
    own = net.state_dict()
    given = {k: v for k, v in found.items() if not k.endswith(_COUNTER)}
    adapted = adapt_bands(given, own)
    names = [name for name in own if not name.endswith(_COUNTER)]
    taken = {
        name: adapted[name]
        for name in names
        if name in adapted and adapted[name].shape == own[name].shape
    }
    net.load_state_dict(taken, strict=False)
    total = sum(own[name].numel() for name in names)
    return LoadedWeights(
        loaded=tuple(taken),
        adapted=tuple(name for name in taken if given[name].shape != own[name].shape),
        missing=tuple(name for name in names if name not in given),
        surplus=tuple(name for name in given if name not in own),
        of_another_shape=tuple(
            f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"
            for name in names
            if name in given and name not in taken
        ),
        share=sum(weight.numel() for weight in taken.values()) / max(1, total),
    )


@dataclass(frozen=True)
class StartModel:
    """The model that training starts from."""

    bundle: ModelBundle
    config: ModelConfig
    weights: Mapping[str, Tensor]

    def load_into(self, net: nn.Module, config: ModelConfig) -> LoadedWeights:
        """Put the weights that fit into a network.

        Raises:
            ConfigError: It is a network of another kind: less than half of its values are in the
                start model.
        """
        result = load_matching(net, self.weights)
        if result.share < 0.5:
            raise ConfigError(
                f"{self.bundle.source} holds weights of {_network(self.config)}, which fit only "
                f"{result.share:.0%} of the values of {_network(config)}.",
                remedy="Leave model.architecture, model.encoder and model.options out: they are "
                "then those of the start model.",
            )
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the record of the start model."""
        return {"model": self.bundle.spec.name, "sha256": self.bundle.sha256}


def read_start(start: str, base: Path = Path()) -> StartModel:
    """Read the model that training starts from.

    Args:
        start: Name of a bundled model, or the path of a bundle, of the folder of a run, or of an
            ONNX file that `rooftrace export` wrote.
        base: Folder that a relative path starts from.

    Raises:
        ConfigError: There is no such file, it is not a model of ours, or it holds no weights that
            PyTorch can take.
        BundleError: The file is damaged.
    """
    bundle = bundled_model(start) if start in BUNDLED_MODELS else _read(start, base)
    config = _recorded_network(bundle)
    return StartModel(bundle, config, bundle_weights(bundle))


def fill_from_start(
    raw: dict[str, Any], base: Path, start: StartModel | None = None
) -> dict[str, Any]:
    """Return a training configuration whose network is that of its start model.

    Keys of `[model]` that are given stay as they are. With another architecture only the encoder
    is taken over.

    Args:
        raw: Plain data of the configuration; without `model.start` it is returned unchanged.
        base: Folder that relative paths start from.
        start: The start model, if it was read before.

    Raises:
        ConfigError: See `read_start`; or the encoder given is not that of the start model.
    """
    table = raw.get("model")
    if not isinstance(table, dict) or not isinstance(table.get("start"), str):
        return raw
    recorded = (start or read_start(table["start"], base)).config
    if not all(isinstance(table.get(key, ""), str) for key in ("architecture", "encoder")):
        return raw
    given = parse_config(
        {"architecture": table.get("architecture", recorded.architecture)},
        ModelConfig,
        source="model",
    )
    same = given.architecture == recorded.architecture
    keys = ("encoder", "dropout", "options") if same else ("encoder",)
    filled = {
        key: value
        for key in keys
        if (value := recorded.model_dump(mode="json")[key]) is not None
        and not (key == "encoder" and given.encoder is None)
    }
    encoder = table.get("encoder", recorded.encoder)
    if encoder != recorded.encoder:
        raise ConfigError(
            f"model.encoder = {encoder!r}, but the start model {table['start']} has the encoder "
            f"{recorded.encoder!r}.",
            remedy="Leave model.encoder out, or choose another start model.",
        )
    return {**raw, "model": {"architecture": recorded.architecture, **filled, **table}}


def bundle_weights(bundle: ModelBundle) -> dict[str, Tensor]:
    """Return the weights of a bundle's network by name, in fp32.

    They are those of `weights.safetensors`; without it they are read from the graph, whose tensors
    have the names of the network's weights and whose convolutions and normalisations are not
    merged. Of a refined model, they are those of its segmenter.

    Raises:
        ConfigError: The bundle holds neither.
        BundleError: The weights or the graph cannot be read.
    """
    graph = next((n for n in (GRAPH_NAME, *part_names("onnx", "fp16")) if n in bundle.parts), None)
    try:
        if WEIGHTS_NAME in bundle.parts:
            found = load(bundle.parts[WEIGHTS_NAME])
        else:
            found = _graph_weights(bundle.parts[graph]) if graph else {}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"The weights of {bundle.source} cannot be read: {str(error)[:200]}.",
            remedy="Get the file again from where it was trained.",
        ) from error
    if bundle.spec.is_refined:
        prefix = "segmenter."
        found = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    if not found:
        raise ConfigError(
            f"{bundle.source} holds no weights that training can start from; expected "
            f"{WEIGHTS_NAME}, or a graph whose tensors have the names of the network's weights.",
            remedy="Start from the bundle that it was exported from.",
        )
    return {name: weight.float() for name, weight in found.items()}


def _graph_weights(graph: bytes) -> dict[str, Tensor]:
    """Return the weights in a graph of `models.export`, where they are named `net.NAME`."""
    try:
        tensors = onnx.load_from_string(graph).graph.initializer
    except Exception as error:  # protobuf raises an error of its own
        raise ValueError(f"the graph is not ONNX: {error}") from error
    prefix = "net."
    return {
        tensor.name.removeprefix(prefix).removesuffix("_fp16"): torch.from_numpy(
            numpy_helper.to_array(tensor).copy()
        )
        for tensor in tensors
        if tensor.name.startswith(prefix)
    }


def _read(start: str, base: Path) -> ModelBundle:
    path = expand_path(start, base, key="model.start")
    path = bundle_file(path)
    if not path.is_file():
        raise ConfigError(
            f"model.start = {start!r}: there is no file {path}.",
            remedy=f"Give {' or '.join(BUNDLED_MODELS)}, or the path of a bundle, a run or an "
            "exported ONNX file.",
        )
    if path.suffix.lower() in RAW_WEIGHTS:
        raise ConfigError(
            f"model.start = {start!r} is a file of weights without a contract, or a pickle, which "
            "may hold code and is not opened; expected a bundle, a run or an exported ONNX file.",
            remedy="Make a bundle of the weights first: rooftrace import FILE -o model.rooftrace; "
            "or give those of an encoder alone as model.encoder_weights.",
        )
    if path.suffix.lower() == ".json":
        raise ConfigError(
            f"model.start = {start!r} is an ensemble; expected a single model.",
            remedy="Give one of its bundles.",
        )
    return read_model(path)


def _recorded_network(bundle: ModelBundle) -> ModelConfig:
    recorded = bundle.spec.training.get("model")
    if not isinstance(recorded, dict):
        raise ConfigError(
            f"{bundle.source} does not record which network it holds.",
            remedy="Start from a bundle that rooftrace train wrote.",
        )
    try:
        return recorded_network(recorded, bundle.source)
    except ConfigError as error:
        raise BundleError(
            error.message, remedy="Start from another model, or get the file again."
        ) from error


def _network(config: ModelConfig) -> str:
    encoder = f" with {config.encoder}" if config.encoder else ""
    return f"{config.architecture}{encoder}"
