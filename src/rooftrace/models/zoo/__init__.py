"""Networks by name: every architecture and encoder of segmentation-models-pytorch, and our own.

An architecture is an entry of `ARCHITECTURES`; one more is one more entry.
"""

from __future__ import annotations

from rooftrace.models.zoo.build import build_model, check_side, multiple_px, needs_fixed_size
from rooftrace.models.zoo.config import ARCHITECTURES, Architecture, ModelConfig
from rooftrace.models.zoo.pretrained import IMAGENET_MEAN, IMAGENET_STD, load_encoder
from rooftrace.models.zoo.smp import SmpArchitecture
from rooftrace.models.zoo.unet import PlainUnet, PlainUnetConfig

__all__ = [
    "ARCHITECTURES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Architecture",
    "ModelConfig",
    "PlainUnet",
    "PlainUnetConfig",
    "SmpArchitecture",
    "build_model",
    "check_side",
    "load_encoder",
    "multiple_px",
    "needs_fixed_size",
]
