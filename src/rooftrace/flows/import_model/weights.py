"""Import of a state dict that another program wrote into a network that rooftrace can build.

Files of PyTorch are pickles, which may hold code. They are opened by PyTorch's reader of plain
tensors alone (`weights_only=True`), which refuses everything else. Weights are matched by name.
"""

from __future__ import annotations

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rooftrace.core.config import apply_override, parse_config
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.text import first_line, list_first, plural
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.flows.import_model.options import ImportOptions
from rooftrace.flows.import_model.run import (
    Channels,
    DrawTiles,
    ImportedModel,
    check_finite,
    make_spec,
    resolve_channels,
)
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle
from rooftrace.models.export import ExportableModel, export_onnx
from rooftrace.models.start import LoadedWeights, load_matching
from rooftrace.models.zoo import ModelConfig, build_model, check_side, multiple_px, needs_fixed_size

_LISTED = 4

_ENTRIES = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs store the weights, the preferred one first."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")

_SAVE = "Save the weights alone: torch.save(model.state_dict(), 'weights.pth')"


def import_weights(path: Path, options: ImportOptions, draw: DrawTiles) -> ImportedModel:
    """Return a bundle's content with the weights of a state dict.

    The network of the file, with all its channels, is built and run by PyTorch beside the graph of
    the bundle.

    Raises:
        BundleError: The file cannot be read, or holds the weights of another network.
        ConfigError: The options do not fit the file.
    """
    mean, std = options.pixel_statistics
    config = _network(path, options)
    bands, source = len(options.bands), str(path)
    tensors = read_state_dict(path)
    notes = []
    original, result = _with_weights(tensors, config, options, source)
    count = _channels_of(original, bands)
    activation = options.activation or ("sigmoid" if count == 1 else "softmax")
    if activation == "none":
        raise ConfigError(
            "--activation none was given for a state dict; expected sigmoid or softmax, which "
            "follow the last layer of the network.",
            remedy="Leave --activation out, or give the function that the training used.",
        )
    channels = resolve_channels(count, options, activation, source)
    net = _reduced(original, config, channels, bands)
    if result.surplus:
        notes.append(
            f"not used of the file: {plural(len(result.surplus), 'weight')} "
            f"({list_first(result.surplus, _LISTED)})"
        )
    multiple = multiple_px(net)
    fixed = needs_fixed_size(net, bands, multiple)
    if fixed and options.input_px is None:
        raise ConfigError(
            f"{config.architecture} with {config.encoder} accepts inputs of one size only.",
            remedy="Give the side that it was trained with: --input-px N.",
        )
    if options.input_px is not None:
        check_side(net, bands, options.input_px, "--input-px")
    spec = make_spec(
        options,
        channels,
        multiple_px=multiple,
        input_px=options.input_px if fixed else None,
        training={"model": config.model_dump(mode="json")},
    )
    tiles = draw(spec)
    batch = np.stack(tiles.images).astype(np.float32)
    expected = _run_original(original, batch, mean, std, channels)
    check_finite(expected, source)
    model = ExportableModel(net, mean, std).eval()
    graph = export_onnx(model, bands=bands, multiple_px=multiple, fixed_px=spec.input_px)
    output = OpenVinoEngine(ModelBundle(spec, {GRAPH_NAME: graph}, source), "fp32").run(batch)
    weights = save({name: weight.contiguous() for name, weight in net.state_dict().items()})
    record = {
        "kind": "state dict",
        "architecture": config.architecture,
        "encoder": config.encoder,
        "activation": channels.activation,
        "channels": channels.count,
        "weights": result.to_json(),
    }
    parts = {GRAPH_NAME: graph, WEIGHTS_NAME: weights}
    return ImportedModel(spec, parts, "torch", expected, output, tiles, record, tuple(notes))


def _network(path: Path, options: ImportOptions) -> ModelConfig:
    """Return the choice of the network that a state dict belongs to."""
    if options.architecture is None:
        raise ConfigError(
            f"{path} does not say which network its weights belong to.",
            remedy="Give --architecture, such as Unet, and --encoder, such as resnet34.",
        )
    for name, value in (("--output", options.output), ("--multiple", options.multiple_px)):
        if value is not None:
            raise ConfigError(
                f"{name} was given, but {path} is not an ONNX file.", remedy="Leave it out."
            )
    raw: dict[str, object] = {"architecture": options.architecture}
    if options.encoder is not None:
        raw["encoder"] = options.encoder
    for override in options.overrides:
        apply_override(raw, override)
    if "encoder_weights" in raw:
        raise ConfigError(
            "--set encoder_weights was given, but the weights come from the file.",
            remedy="Leave it out.",
        )
    remedy = "Correct --architecture, --encoder or --set."
    config = parse_config(raw, ModelConfig, source="the network", remedy=remedy)
    if config.encoder is None:
        return config
    raw["encoder_weights"] = "none"
    return parse_config(raw, ModelConfig, source="the network", remedy=remedy)


def _built(config: ModelConfig, bands: int, channels: int) -> nn.Module:
    return build_model(config, bands=bands, channels=channels).eval()


def _with_weights(
    tensors: Mapping[str, Tensor], config: ModelConfig, options: ImportOptions, source: str
) -> tuple[nn.Module, LoadedWeights]:
    """Return the network of the file with its weights, and which of them were used."""
    bands = len(options.bands)
    net = _built(config, bands, 1 if len(options.classes) == 2 else len(options.classes))
    weights = match_weight_names(tensors, net.state_dict())
    result = load_matching(net, weights)
    if result.of_another_shape:
        # The file may have another number of channels, which the options do not need to state.
        count = weights[result.of_another_shape[-1].split(" ")[0]].shape[:1]
        if count and 0 < count[0] <= 256:
            net = _built(config, bands, count[0])
            result = load_matching(net, weights)
    if result.missing or result.of_another_shape or result.adapted:
        what = f"{config.architecture} with {config.encoder} for {plural(bands, 'band')}"
        raise BundleError(
            f"{source} does not hold the weights of {what}: {result.describe()}.",
            remedy="Give --architecture, --encoder, --bands and --set options.… as the network was "
            "built; the weights of an encoder alone are encoder_weights of a training.",
        )
    return net, result


def _channels_of(net: nn.Module, bands: int) -> int:
    side = max(128, multiple_px(net))
    with torch.no_grad():
        output: Tensor = net(torch.zeros(1, bands, side, side))
    return int(output.shape[1])


def _reduced(original: nn.Module, config: ModelConfig, channels: Channels, bands: int) -> nn.Module:
    """Return the network with the channels of the bundle.

    Two channels of softmax are one of sigmoid: the difference of their logits. As all after the
    last convolution is linear, the difference of its weights gives it.
    """
    if channels.keep is None:
        return original
    net = _built(config, bands, 1)
    state, weights = net.state_dict(), original.state_dict()
    for name, weight in weights.items():
        if weight.shape == state[name].shape:
            continue
        kept = weight[channels.keep : channels.keep + 1]
        weights[name] = kept - weight[:1] if channels.activation == "softmax" else kept
    net.load_state_dict(weights)
    return net


@torch.no_grad()
def _run_original(
    net: nn.Module,
    batch: NDArray[np.float32],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    channels: Channels,
) -> NDArray[np.float32]:
    """Return the probabilities of the network of the file, as its own program computes them."""
    per_band = [torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
                for values in (mean, std)]  # fmt: skip
    logits = net((torch.from_numpy(batch) - per_band[0]) / per_band[1])
    if channels.activation == "sigmoid":
        probability = torch.sigmoid(logits)
    else:
        probability = torch.softmax(logits, dim=1)
    if channels.keep is not None:
        probability = probability[:, channels.keep : channels.keep + 1]
    output: NDArray[np.float32] = probability.numpy()
    return output


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the weights of a .safetensors file or of a file of PyTorch, without running code in it.

    The state dict inside of a checkpoint is found, such as that of Lightning.

    Raises:
        BundleError: It holds other objects than tensors, is damaged, or holds no weights.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # PyTorch raises many types for damaged files
        code = _GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise BundleError(
                f"{path} is not a plain state dict: it asks Python to load {code[1]}, which may "
                "run code, so it was not opened.",
                remedy=f"Where you trust the file: {_SAVE}",
            ) from error
        raise BundleError(
            f"{path} cannot be read as weights: {first_line(error) or type(error).__name__}.",
            remedy=f"Get the file again; it may be truncated. {_SAVE}",
        ) from error
    for value in (content, *(content.get(key) for key in _ENTRIES if isinstance(content, dict))):
        tensors = {
            name: tensor
            for name, tensor in (value.items() if isinstance(value, dict) else ())
            if isinstance(name, str) and isinstance(tensor, Tensor)
        }
        if tensors:
            return tensors
    raise BundleError(
        f"{path} holds no weights; expected a state dict, by itself or as {', '.join(_ENTRIES)}.",
        remedy=_SAVE,
    )


def match_weight_names(found: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Rename the weights of a file to the names of a network.

    The common prefix is removed by which most names agree: `model.` of Lightning, `module.` of
    DataParallel, or both. Names that do not match stay as they are.

    Args:
        found: Weights by the names in the file.
        expected: Names of the network's weights.
    """
    known = set(expected)
    votes = Counter(
        ".".join([*parts[:first], ""])
        for parts in (name.split(".") for name in found)
        for first in range(len(parts))
        if ".".join(parts[first:]) in known
    )
    if not votes:
        return dict(found)
    most = max(votes.values())
    prefix = min((one for one, count in votes.items() if count == most), key=len)
    renamed: dict[str, Tensor] = {}
    for name, tensor in found.items():
        rest = name.removeprefix(prefix)
        matched = name.startswith(prefix) and rest in known and rest not in renamed
        renamed[rest if matched else name] = tensor
    return renamed
