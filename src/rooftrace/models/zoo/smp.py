"""The architectures of segmentation-models-pytorch, each with any of its encoders and of timm's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import rooftrace.models._torch  # noqa: F401  (before smp: see there)

# isort: split
import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn

from rooftrace.core.config import expand_path, nearest
from rooftrace.core.errors import ConfigError
from rooftrace.models.zoo.config import ARCHITECTURES, Architecture, ModelConfig
from rooftrace.models.zoo.pretrained import load_encoder, no_long_tries, weight_names

__all__ = ["SmpArchitecture"]

_TIMM = "tu-"
_OURS = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")
"""Arguments that other settings decide, or that would make the answer another thing than logits."""


@dataclass(frozen=True)
class SmpArchitecture(Architecture):
    """One class of segmentation-models-pytorch."""

    kind: type[nn.Module]

    defaults: ClassVar[dict[str, str]] = {"encoder": "mobilenet_v2", "encoder_weights": "imagenet"}

    def check(self, config: ModelConfig) -> None:
        encoder = _encoder_of(config)
        _check_encoder(encoder)
        known = self._options()
        # What is not the architecture's goes to the encoder; only timm's do not swallow it.
        unknown = [
            name
            for name in config.options
            if name in _OURS or (name not in known and not encoder.startswith(_TIMM))
        ]
        if unknown:
            raise ConfigError(
                f"{config.architecture} with {encoder} has no option {unknown[0]!r}. "
                f"{nearest(unknown[0], known)}".strip(),
                remedy=f"Known in [model.options]: {', '.join(known)}.",
            )

    def build(self, config: ModelConfig, *, bands: int, channels: int, base: Path) -> nn.Module:
        encoder, weights = _encoder_of(config), config.encoder_weights
        options: dict[str, Any] = dict(config.options)
        path = None
        if weights not in ("imagenet", "none"):
            path = expand_path(str(weights), base, key="model.encoder_weights")
            if encoder.startswith(_TIMM) and not _is_of_smp(weight_names(path)):
                options["pretrained_cfg_overlay"] = {"file": str(path)}
        by_library = weights == "imagenet" or "pretrained_cfg_overlay" in options
        pretrained: str | bool | None = None
        if by_library:
            pretrained = True if encoder.startswith(_TIMM) else "imagenet"
        try:
            with no_long_tries() if weights == "imagenet" else nullcontext():
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
                remedy='Without a network, give a file: encoder_weights = "encoder.safetensors", '
                'or start from nothing with "none".',
            ) from error
        except Exception as error:  # of whatever kind the library's own mistakes are
            raise ConfigError(
                f"{config.architecture} with {encoder} cannot be built with encoder_weights = "
                f"{weights!r} and options {config.options}: {str(error)[:300]}.",
                remedy="Correct [model] and [model.options].",
            ) from error
        if path is not None and not by_library:
            load_encoder(net, path)
        if config.dropout:
            _drop_out(net, config)
        return net

    def _options(self) -> list[str]:
        names = inspect.signature(self.kind).parameters
        return [name for name in names if name not in (*_OURS, "kwargs")]


def _encoder_of(config: ModelConfig) -> str:
    assert config.encoder is not None, "there is a default"
    return config.encoder


def _check_encoder(name: str) -> None:
    own = smp.encoders.get_encoder_names()
    if name in own:
        return
    of_timm = name.removeprefix(_TIMM)
    exists = timm.is_model(of_timm)
    if exists and name.startswith(_TIMM):
        return
    if exists:
        near = f"Did you mean {_TIMM + name!r}, timm's?"
    elif name.startswith(_TIMM):
        near = nearest(name, [_TIMM + other for other in timm.list_models()])
    else:
        near = nearest(name, own)
    raise ConfigError(
        f"There is no encoder {name!r}. {near}".strip(),
        remedy="See the list of segmentation-models-pytorch, or use a timm model as tu-NAME.",
    )


def _is_of_smp(names: list[str]) -> bool:
    """Or of timm itself, whose names smp puts after `model.`."""
    return any(name.startswith("model.") for name in names)


def _drop_out(net: nn.Module, config: ModelConfig) -> None:
    head = getattr(net, "segmentation_head", None)
    layers = [] if head is None else [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    if not layers:
        raise ConfigError(
            f"model.dropout = {config.dropout}, but {config.architecture} has no segmentation "
            "head to drop channels in.",
            remedy="Leave dropout out, or choose another architecture.",
        )
    # Not a layer around it: weights keep the names that they have without dropout.
    layers[-1].add_module("dropout", nn.Dropout2d(config.dropout))
    layers[-1].register_forward_pre_hook(_dropped)


def _dropped(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    assert isinstance(layer.dropout, nn.Dropout2d)
    return (layer.dropout(inputs[0]),)


def _published() -> Iterator[type[nn.Module]]:
    base = smp.base.SegmentationModel
    for name in sorted(dir(smp)):
        kind = getattr(smp, name)
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base:
            yield kind


for _kind in _published():
    ARCHITECTURES.add(_kind.__name__, SmpArchitecture(_kind))
