"""Which network, and what every entry of the zoo can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import rooftrace.models._torch  # noqa: F401

# isort: split
from pydantic import Field, model_validator
from torch import nn

from rooftrace.core.config import Config
from rooftrace.core.registry import Registry

__all__ = ["ARCHITECTURES", "Architecture", "ModelConfig"]


class Architecture(ABC):
    """A kind of network.

    Args:
        defaults: of the keys of `ModelConfig` that have none of their own.
    """

    defaults: ClassVar[Mapping[str, str]] = {}

    def resolved(self, options: dict[str, Any]) -> dict[str, Any]:
        """`ModelConfig.options` with what is left out, as far as we choose it.

        Raises:
            ConfigError: an option that there is not, or a value out of its range.
        """
        return options

    @abstractmethod
    def check(self, config: ModelConfig) -> None:
        """Raises ConfigError for settings that this architecture does not have, before anything
        is built.
        """

    @abstractmethod
    def build(self, config: ModelConfig, *, bands: int, channels: int, base: Path) -> nn.Module:
        """See `build_model`."""


ARCHITECTURES: Registry[Architecture] = Registry("architecture")


class ModelConfig(Config):
    """Which network.

    Args:
        architecture: of segmentation-models-pytorch: Unet, UnetPlusPlus, FPN, DeepLabV3Plus, …;
            or PlainUnet, which has no encoder: see `PlainUnet`. Capitals do not matter.
        encoder: one of its encoders, or a timm model as `tu-NAME`; default `mobilenet_v2`.
        encoder_weights: `"imagenet"` (downloaded, default), `"none"`, or the path of a
            .safetensors file.
        dropout: share of the channels that are set to 0 in training before the last convolution
            of the segmentation head (Tompson et al. 2015); above what the architecture does of
            itself, such as `decoder_dropout` of FPN. PlainUnet has `options.dropout` instead.
        options: further arguments of the architecture, such as `decoder_channels`.
    """

    architecture: str = "Unet"
    encoder: str | None = None
    encoder_weights: str | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _resolved(cls, raw: Any) -> Any:
        """The architecture as it is spelt, and what is left out as it is chosen for it."""
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
        return {**chosen.defaults, **given, "architecture": spelt}

    @model_validator(mode="after")
    def _possible(self) -> ModelConfig:
        ARCHITECTURES[self.architecture].check(self)
        return self
