"""Every architecture and encoder of segmentation-models-pytorch, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401  (before smp: see there)

# isort: split
import segmentation_models_pytorch as smp
import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from rooftrace.core.config import Config, expand_path, nearest
from rooftrace.core.errors import ConfigError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "ModelConfig", "build_model", "load_encoder"]

# What nearly every published encoder was trained with, in shares of the full scale.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ModelConfig(Config):
    """Which network.

    Args:
        architecture: of segmentation-models-pytorch: Unet, UnetPlusPlus, FPN, DeepLabV3Plus, …
        encoder: one of its encoders, or a timm model as `tu-NAME`.
        encoder_weights: `"imagenet"` (downloaded), `"none"`, or the path of a .safetensors file.
        options: further arguments of the architecture, such as `decoder_channels`.
    """

    architecture: str = "Unet"
    encoder: str = "mobilenet_v2"
    encoder_weights: str = "imagenet"
    options: dict[str, Any] = Field(default_factory=dict)


def build_model(
    config: ModelConfig, *, bands: int, channels: int, base: Path = Path()
) -> nn.Module:
    """A network from (n, band, y, x) normalised pixels to (n, channel, y, x) logits.

    Args:
        bands: of the image; the first convolution of a pretrained encoder is adapted to them.
        channels: of the answer.
        base: folder that a relative weights file starts from.

    Raises:
        ConfigError: an unknown architecture, encoder or option (the nearest are named), weights
            that cannot be had or do not fit.
    """
    known = {name.lower(): name for name in _architectures()}
    if config.architecture.lower() not in known:
        raise ConfigError(
            f"There is no architecture {config.architecture!r}. "
            f"{nearest(config.architecture.lower(), known)}".strip(),
            remedy=f"Known: {', '.join(sorted(known.values()))}.",
        )
    encoders = smp.encoders.get_encoder_names()
    if config.encoder not in encoders and not config.encoder.startswith("tu-"):
        raise ConfigError(
            f"There is no encoder {config.encoder!r}. {nearest(config.encoder, encoders)}".strip(),
            remedy="See the list of segmentation-models-pytorch, or use a timm model as tu-NAME.",
        )
    download = config.encoder_weights == "imagenet"
    from_file = not download and config.encoder_weights != "none"
    try:
        model: nn.Module = smp.create_model(
            config.architecture,
            encoder_name=config.encoder,
            encoder_weights="imagenet" if download else None,
            in_channels=bands,
            classes=channels,
            **config.options,
        )
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"{config.architecture} with {config.encoder} cannot be built with options "
            f"{config.options}: {error}.",
            remedy="Correct [model] and [model.options].",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The weights 'imagenet' of {config.encoder} could not be downloaded: {error}.",
            remedy='Without a network, give a file: encoder_weights = "encoder.safetensors", '
            'or start from nothing with "none".',
        ) from error
    if from_file:
        path = expand_path(config.encoder_weights, base, key="model.encoder_weights")
        load_encoder(model, path)
    return model


def load_encoder(model: nn.Module, path: Path) -> None:
    """Load the weights of an encoder; everything must be there, and nothing else.

    A first layer for three bands is adapted to the bands of the model.

    Raises:
        ConfigError: no such file, not safetensors, weights that are missing, surplus or of another
            shape; all are named.
    """
    if not path.is_file():
        raise ConfigError(
            f"There are no encoder weights at {path}.",
            remedy='Give a .safetensors file, or encoder_weights = "none".',
        )
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    try:
        found = _for_bands(load_file(path), encoder.state_dict())
        # Not the encoder's own method: smp's drops keys and says nothing of what is missing.
        result = nn.Module.load_state_dict(encoder, found, strict=False)
    except Exception as error:  # safetensors and torch raise several kinds
        raise ConfigError(
            f"{path} does not hold weights of this encoder: {str(error)[:300]}.",
            remedy="Choose the encoder that the file was made for.",
        ) from error
    # Counters of batches are no weights; files leave them out.
    missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        raise ConfigError(
            f"{path} does not fit this encoder: missing {missing[:5]} ({len(missing)}), "
            f"surplus {result.unexpected_keys[:5]} ({len(result.unexpected_keys)}).",
            remedy="Choose the encoder that the file was made for.",
        )


def _for_bands(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights whose first layer takes the three colours in turn, where there are more bands, or
    their sum, where there is one; scaled so that its answer stays as large.
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


def _architectures() -> list[str]:
    classes = (getattr(smp, name) for name in dir(smp))
    base = smp.base.SegmentationModel
    return sorted(
        c.__name__ for c in classes if isinstance(c, type) and issubclass(c, base) and c is not base
    )


def needs_fixed_size(model: nn.Module, bands: int, multiple_px: int) -> bool:
    """Whether a network has to be exported for inputs of one size alone."""
    # Pooling to a fixed number of cells has windows of uneven sizes: no ONNX operator does that for
    # an input whose size is not known.
    for module in model.modules():
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            size = module.output_size
            if any(side != 1 for side in (size if isinstance(size, tuple) else (size,))):
                return True
    model.eval()
    with torch.no_grad():
        try:
            for shape in ((2 * multiple_px, 3 * multiple_px), (5 * multiple_px, 4 * multiple_px)):
                if model(torch.zeros(1, bands, *shape)).shape[-2:] != shape:
                    return True
        except (RuntimeError, ValueError):
            return True
    return False
