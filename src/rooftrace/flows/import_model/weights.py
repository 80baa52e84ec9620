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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rooftrace.core.config import apply_override, parse_config
from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.core.text import first_line, list_first, plural
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.flows.import_model.contract import (
    Channels,
    ImportOptions,
    make_spec,
    pixel_statistics,
    resolve_channels,
)
from rooftrace.flows.import_model.graph import DrawTiles, ImportedModel
from rooftrace.models.bundle import GRAPH_NAME, MAX_PART_BYTES, WEIGHTS_NAME
from rooftrace.models.export import ExportableModel, export_onnx
from rooftrace.models.foreign_graph import Activation
from rooftrace.models.start import LoadedWeights, load_matching
from rooftrace.models.zoo import ModelConfig, build_model, check_side, multiple_px, needs_fixed_size

_LISTED = 4
_SEED = 0
"""Seed of the weights that the file does not hold, where only an encoder is imported."""


def parse_network(
    architecture: str, encoder: str | None, overrides: tuple[str, ...]
) -> ModelConfig:
    """Return the choice of the network that a state dict belongs to.

    Args:
        architecture: Name of the architecture.
        encoder: Name of its encoder; default that of the architecture.
        overrides: `KEY=VALUE` of further keys of `[model]`, such as `options.decoder_channels`.

    Raises:
        ConfigError: There is no such network.
    """
    raw: dict[str, object] = {"architecture": architecture}
    if encoder is not None:
        raw["encoder"] = encoder
    for override in overrides:
        apply_override(raw, override)
    if raw.get("encoder_weights", "none") != "none":
        raise ConfigError(
            "--set encoder_weights was given, but the weights come from the file.",
            remedy="Leave it out.",
        )
    remedy = "Correct --architecture, --encoder or --set."
    config = parse_config(raw, ModelConfig, source="the network", remedy=remedy)
    if config.encoder is None:
        return config
    return parse_config(
        {**raw, "encoder_weights": "none"}, ModelConfig, source="the network", remedy=remedy
    )


def import_weights(
    path: Path,
    config: ModelConfig,
    options: ImportOptions,
    draw: DrawTiles,
    *,
    encoder_only: bool,
) -> ImportedModel:
    """Return a bundle's content with the weights of a state dict.

    The network of the file, with all its channels, is built and run by PyTorch beside the graph of
    the bundle.

    Args:
        path: File with the weights.
        config: Network that they belong to.
        options: Contract of the model.
        draw: Function that returns the tiles of the check.
        encoder_only: The file holds an encoder alone; the rest of the network gets random weights,
            to train from.

    Raises:
        BundleError: The file cannot be read, or holds the weights of another network.
        ConfigError: The options do not fit the file.
    """
    mean, std = pixel_statistics(options)
    bands, source = len(options.bands), str(path)
    file = read_state_dict(path)
    notes = []
    if file.entry:
        also = f"; it also holds {list_first(file.others, _LISTED)}" if file.others else ""
        notes.append(f"the weights are those of its entry {file.entry!r}{also}")
    if encoder_only:
        original, result = _with_encoder(file.tensors, config, options, source)
        channels = resolve_channels(
            _outputs(options), options, options.activation or _default(_outputs(options)), source
        )
        net = original
        notes.append(
            "the file holds an encoder alone, and the decoder has random weights: train from this "
            "model before you predict with it"
        )
    else:
        original, result = _with_all(file.tensors, config, bands, source)
        count = _channels_of(original, bands)
        activation = options.activation or _default(count)
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
        name=path.stem,
        training={"model": config.model_dump(mode="json")},
    )
    tiles = draw(spec)
    batch = np.stack(tiles.images).astype(np.float32)
    expected = _run_original(original, batch, mean, std, channels)
    if not np.isfinite(expected).all():
        raise BundleError(
            f"{source} answers values that are not finite (NaN or infinity) on a tile.",
            remedy="Check --mean, --std and --input-range; else its weights are damaged.",
        )
    model = ExportableModel(net, mean, std).eval()
    graph = export_onnx(model, bands=bands, multiple_px=multiple, fixed_px=spec.input_px)
    found = OpenVinoEngine(spec, [graph], "fp32", source).run(batch)
    weights = save({name: weight.contiguous() for name, weight in net.state_dict().items()})
    record = {
        "kind": "state dict",
        "architecture": config.architecture,
        "encoder": config.encoder,
        "encoder_only": encoder_only,
        "activation": channels.activation,
        "channels": channels.count,
        "weights": result.to_json(),
    }
    return ImportedModel(
        spec, {GRAPH_NAME: graph, WEIGHTS_NAME: weights}, "torch", expected, found, tiles, record,
        tuple(notes),
    )  # fmt: skip


def _default(channels: int) -> Activation:
    return "sigmoid" if channels == 1 else "softmax"


def _outputs(options: ImportOptions) -> int:
    return 1 if len(options.classes) == 2 else len(options.classes)


def _built(config: ModelConfig, bands: int, channels: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return build_model(config, bands=bands, channels=channels).eval()


def _head(config: ModelConfig, bands: int) -> tuple[nn.Module, dict[str, torch.Size]]:
    """Return the network with two channels, and its weights that depend on their number."""
    two = _built(config, bands, 2)
    shapes = {name: weight.shape for name, weight in _built(config, bands, 1).state_dict().items()}
    return two, {
        name: weight.shape
        for name, weight in two.state_dict().items()
        if weight.shape != shapes[name]
    }


def _with_all(
    tensors: Mapping[str, Tensor], config: ModelConfig, bands: int, source: str
) -> tuple[nn.Module, LoadedWeights]:
    """Return the network of the file with all its weights, and what was found."""
    net, head = _head(config, bands)
    found = _floating(match_weight_names(tensors, list(net.state_dict())), net)
    counts = {
        found[name].shape[0] for name, shape in head.items()
        if name in found and found[name].shape[1:] == shape[1:] and found[name].ndim
    }  # fmt: skip
    if len(counts) == 1 and counts != {2} and 0 < min(counts) <= 256:
        net = _built(config, bands, counts.pop())
    result = load_matching(net, found)
    network = f"{config.architecture}{f' with {config.encoder}' if config.encoder else ''}"
    own = net.state_dict()
    if other := _other_bands(found, own, result):
        raise ConfigError(
            f"{source} holds weights for {plural(other, 'band')}, but --bands names {bands}.",
            remedy="Give --bands in the order of the network's input.",
        )
    if result.missing or result.of_another_shape:
        raise BundleError(
            f"{source} does not hold the weights of {network}: {result.describe()}.",
            remedy="Give --architecture, --encoder and --set options.… as the network was built; "
            "for the weights of an encoder alone add --encoder-only.",
        )
    return net, result


def _with_encoder(
    tensors: Mapping[str, Tensor], config: ModelConfig, options: ImportOptions, source: str
) -> tuple[nn.Module, LoadedWeights]:
    """Return the network with the encoder of the file, and what was found."""
    net = _built(config, len(options.bands), _outputs(options))
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ConfigError(
            f"--encoder-only was given, but {config.architecture} has no encoder.",
            remedy="Leave it out, or choose another --architecture.",
        )
    found = _floating(match_weight_names(tensors, list(encoder.state_dict())), encoder)
    # The encoders of segmentation-models-pytorch refuse, in a method of their own, what they do not
    # have; the plain method takes what fits.
    result = load_matching(_Outer(encoder), {f"{_OUTER}{k}": v for k, v in found.items()})
    result = replace(
        result,
        loaded=_without_outer(result.loaded),
        adapted=_without_outer(result.adapted),
        missing=_without_outer(result.missing),
        surplus=_without_outer(result.surplus),
        of_another_shape=_without_outer(result.of_another_shape),
    )
    if result.missing or result.of_another_shape:
        raise BundleError(
            f"{source} does not hold the weights of the encoder {config.encoder}: "
            f"{result.describe()}.",
            remedy="Give the --encoder that the file was made for; tu-NAME is a model of timm.",
        )
    return net, result


_OUTER = "encoder."


class _Outer(nn.Module):
    """A module around an encoder, whose own `load_state_dict` is not called."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder


def _without_outer(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.removeprefix(_OUTER) for name in names)


def _floating(found: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Return the weights in fp32; those of another shape than the network's stay as they are."""
    # A damaged file may state a size that no memory holds: only what fits is converted.
    own = net.state_dict()
    return {
        name: tensor.float()
        if name in own and own[name].shape == tensor.shape and tensor.is_floating_point()
        else tensor
        for name, tensor in found.items()
    }


def _other_bands(
    found: dict[str, Tensor], own: dict[str, Tensor], result: LoadedWeights
) -> int | None:
    """Return the bands of the file's first convolution if only their number differs."""
    names = [*result.adapted, *(text.split(" ")[0] for text in result.of_another_shape)]
    for name in names:
        here, there = found[name].shape, own[name].shape
        if len(here) == 4 and (here[0], *here[2:]) == (there[0], *there[2:]) and len(names) == 1:
            return int(here[1])
    return None


def _channels_of(net: nn.Module, bands: int) -> int:
    side = max(128, multiple_px(net))
    with torch.no_grad():
        answer: Tensor = net(torch.zeros(1, bands, side, side))
    return int(answer.shape[1])


def _reduced(original: nn.Module, config: ModelConfig, channels: Channels, bands: int) -> nn.Module:
    """Return the network with the channels of the bundle.

    Two channels of softmax are one of sigmoid: the difference of their logits. As all after the
    last convolution is linear, the difference of its weights gives it.
    """
    if channels.keep is None:
        return original
    net = _built(config, bands, 1)
    own, weights = net.state_dict(), original.state_dict()
    for name, weight in weights.items():
        if weight.shape == own[name].shape:
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
    answer: NDArray[np.float32] = probability.numpy()
    return answer


_SAFETENSORS = ".safetensors"

_ENTRIES = ("state_dict", "model_state_dict", "state_dict_ema", "model_state", "model_ema",
            "model", "net", "network", "weights")  # fmt: skip
"""Keys under which training programs store the weights, the preferred one first."""

_MAX_TENSORS = 20_000
_MAX_DEPTH = 8
"""Maximum number of dots in a prefix that is removed from names."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_FLATTENED = re.compile(r"^([A-Za-z]\w*?)_(\d+)\.")
_TIMM = "model."
"""Prefix that segmentation-models-pytorch puts before the names of a timm encoder."""

_SAVE = "torch.save(model.state_dict(), 'weights.pth')"


@dataclass(frozen=True)
class StateDict:
    """Weights by name.

    Args:
        tensors: Weights in the order of the file; nothing but tensors of finite size.
        entry: Key of the file that holds them; empty if the file is the state dict itself.
        others: Further keys of the file that hold weights, too.
    """

    tensors: Mapping[str, Tensor]
    entry: str = ""
    others: tuple[str, ...] = ()


def read_state_dict(path: Path) -> StateDict:
    """Read the weights of a .safetensors file or of a file of PyTorch, without running code in it.

    Weights that a training program wrapped are found: Lightning's `state_dict`, and similar keys.

    Raises:
        BundleError: There is no such file, it holds other objects than tensors, is damaged, or
            holds no weights.
    """
    if not path.is_file():
        raise BundleError(
            f"There is no file {path}.",
            remedy="Give a .pth, .pt, .ckpt or .safetensors file with weights.",
        )
    size = path.stat().st_size
    if size > MAX_PART_BYTES:
        raise BundleError(
            f"{path} has {size} bytes; at most {MAX_PART_BYTES} are read.",
            remedy=f"Save the weights alone: {_SAVE}",
        )
    if path.suffix.lower() == _SAFETENSORS:
        found = StateDict(_load_safetensors(path))
    else:
        found = _unwrapped(_load_pickle(path), path)
    if len(found.tensors) > _MAX_TENSORS:
        raise BundleError(
            f"{path} holds {len(found.tensors)} tensors; at most {_MAX_TENSORS} are read.",
            remedy=f"Save the weights of one network alone: {_SAVE}",
        )
    return found


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be read as safetensors: {first_line(error)}.",
            remedy="Get the file again; it may be truncated.",
        ) from error


def _load_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        if named:
            raise BundleError(
                f"{path} is not a plain state dict: it asks Python to load {named[1]}, which may "
                "run code, so it was not opened.",
                remedy=f"Where you trust the file, save its tensors alone: {_SAVE}",
            ) from error
        raise BundleError(
            f"{path} is not a file of PyTorch weights, or is damaged.",
            remedy="Give a .pth, .pt, .ckpt or .safetensors file with weights.",
        ) from error
    except Exception as error:  # the reader of PyTorch raises many kinds for damaged files
        if "TorchScript" in str(error):
            raise BundleError(
                f"{path} is a TorchScript program; expected a state dict.",
                remedy=f"Save the weights of the network: {_SAVE}",
            ) from error
        reason = first_line(error) if str(error) else "it ends too early"
        raise BundleError(
            f"{path} cannot be read: {reason}.", remedy="Get the file again; it may be truncated."
        ) from error


def _unwrapped(loaded: Any, path: Path) -> StateDict:
    own = _tensors(loaded)
    if own and len(own) == len(loaded):
        return StateDict(own)
    if isinstance(loaded, Mapping):
        entries = {key: found for key in _ENTRIES if (found := _tensors(loaded.get(key)))}
        if entries:
            entry, *others = entries
            return StateDict(entries[entry], entry, tuple(others))
        if own:
            return StateDict(own)
    received = (
        f"the keys {list_first(list(loaded), 5)}"
        if isinstance(loaded, Mapping)
        else f"an object of type {type(loaded).__name__}"
    )
    raise BundleError(
        f"{path} holds {received}; expected a state dict, by itself or as {', '.join(_ENTRIES)}.",
        remedy=f"Save the state dict: {_SAVE}",
    )


def _tensors(value: Any) -> dict[str, Tensor]:
    """Return the tensors of a mapping by name; empty if it is no mapping."""
    if not isinstance(value, Mapping):
        return {}
    return {
        name: tensor
        for name, tensor in value.items()
        if isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
    }


def match_weight_names(found: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Rename the weights of a file to the names of a network.

    The common prefix is removed by which most names agree: `model.` of Lightning, `module.` of
    DataParallel, or both. Names of a timm network also match those of the same encoder in
    segmentation-models-pytorch. Names that do not match stay as they are.

    Args:
        found: Weights by the names in the file.
        expected: Names of the network's weights.
    """
    known = {alias: name for name in expected for alias in _aliases(name)}
    known |= {name: name for name in expected}
    votes = Counter(
        name[: len(name) - len(rest)] for name in found for rest in _suffixes(name) if rest in known
    )
    if not votes:
        return dict(found)
    most = max(votes.values())
    prefix = min((one for one, count in votes.items() if count == most), key=len)
    renamed: dict[str, Tensor] = {}
    for name, tensor in found.items():
        rest = name.removeprefix(prefix)
        matched = name.startswith(prefix) and rest in known and known[rest] not in renamed
        renamed[known[rest] if matched else name] = tensor
    return renamed


def _aliases(name: str) -> list[str]:
    """Return the names that timm gives to a weight of an encoder inside of the network."""
    if not name.startswith(_TIMM):
        return []
    plain = name.removeprefix(_TIMM)
    # A timm network that returns features has its stages as `stages_0`, others as `stages.0`.
    return [plain, _FLATTENED.sub(r"\1.\2.", plain)]


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[first:]) for first in range(min(len(parts), _MAX_DEPTH))]
