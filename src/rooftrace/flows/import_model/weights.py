"""Import of a state dict that another program wrote into a network that rooftrace can build.

Files of PyTorch are pickles, which may hold code. They are opened by PyTorch's reader of plain
tensors alone (`weights_only=True`), which refuses everything else. Weights are matched by name.
"""

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from rooftrace.core.config import apply_override, parse_config
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.text import list_first, plural
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.flows.import_model.options import ImportOptions
from rooftrace.flows.import_model.run import (
    Channels,
    DrawTiles,
    ImportedModel,
    check_finite,
    make_spec,
    refuse_options,
    resolve_channels,
)
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle
from rooftrace.models.export import ExportableModel, export_onnx
from rooftrace.models.start import LoadedWeights, load_matching
from rooftrace.models.state_dict import match_weight_names, read_state_dict
from rooftrace.models.zoo import ModelConfig, build_model, check_side, multiple_px, needs_fixed_size

_LISTED = 4


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
    refuse_options(f"{path} is not an ONNX file",
                   {"--output": options.output, "--multiple": options.multiple_px})  # fmt: skip
    raw: dict[str, object] = {"architecture": options.architecture}
    if options.encoder is not None:
        raw["encoder"] = options.encoder
    for override in options.overrides:
        apply_override(raw, override)
    refuse_options("the weights come from the file",
                   {"--set encoder_weights": raw.get("encoder_weights")})  # fmt: skip
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
            "built; the weights of an encoder alone are encoder_weights of a training. Export "
            "networks of other libraries, such as transformers, as ONNX.",
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
    keep = channels.keep
    if keep is None:
        return original
    net, weights = _built(config, bands, len(keep)), original.state_dict()
    other = _built(config, bands, channels.count + 1).state_dict()
    is_pair = channels.activation == "softmax" and channels.count == 2
    for name, weight in weights.items():
        if weight.shape != other[name].shape:
            kept = weight[list(keep)]
            weights[name] = kept - weight[[1 - keep[0]]] if is_pair else kept
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
        probability = probability[:, list(channels.keep)]
    output: NDArray[np.float32] = probability.numpy()
    return output
