"""Folders of Hugging Face given to `rooftrace import`: the network that their config.json names."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rooftrace.core.errors import BundleError
from rooftrace.core.text import reason_of
from rooftrace.flows.import_model.options import IMAGENET, ImportOptions

_WEIGHTS, _CONFIG, _PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"

_CHOSEN = (
    "_model_class",
    "encoder_name",
    "encoder_weights",
    "in_channels",
    "classes",
    "activation",
)
"""Arguments of a network of segmentation-models-pytorch that other options give."""


def network_in_folder(folder: Path, options: ImportOptions) -> tuple[Path, ImportOptions]:
    """Return the weights in a folder that segmentation-models-pytorch saved, and the options with
    its network, unless they name one.

    Raises:
        BundleError: The folder is of another library, or is damaged; the remedy says how to export
            a network of transformers.
    """
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
        raw = config.items() if isinstance(config, dict) else ()
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder} is a folder without a {_CONFIG} that can be read: {reason_of(error)}.",
            remedy="Give a .pth, .pt, .ckpt, .safetensors or .onnx file.",
        ) from error
    if "_model_class" in config and (folder / _WEIGHTS).is_file():
        if options.architecture is not None:
            return folder / _WEIGHTS, options
        more = [
            f"options.{key}={json.dumps(value)}"
            for key, value in raw
            if key not in _CHOSEN and value is not None
        ]
        network = {"architecture": config["_model_class"], "encoder": config.get("encoder_name")}
        update = network | {"overrides": (*more, *options.overrides)}
        return folder / _WEIGHTS, options.model_copy(update=update)
    graphs = sorted(folder.rglob("*.onnx"))
    if graphs:
        remedy = f"Give its ONNX file: rooftrace import {shlex.quote(str(graphs[0]))}"
    elif "ForUniversalSegmentation" in str(config.get("architectures")):
        remedy = (
            "It gives masks, not classes of pixels: predict with transformers, and give its masks "
            "to rooftrace vectorize or evaluate --predictions."
        )
    else:
        remedy = (
            "Export it as ONNX with the lines of Python in docs/bundle.md#hugging-face, then: "
            f"rooftrace import model.onnx {_contract(folder, config)}"
        )
    named = ", ".join(map(str, config.get("architectures") or [])) or "an unknown network"
    raise BundleError(f"{folder} is a folder of Hugging Face with {named}.", remedy=remedy)


def _contract(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the options that a folder of transformers states."""
    names = [name.lower() for name in config.get("id2label", {}).values()]
    try:
        image = json.loads((folder / _PREPROCESSOR).read_bytes())
        mean, std = image["image_mean"], image["image_std"]
    except (OSError, ValueError, KeyError, TypeError):
        normalise = "--normalise imagenet"
    else:
        texts = (",".join(f"{value:g}" for value in values) for values in (mean, std))
        normalise = f"--mean {next(texts)} --std {next(texts)}"
        if (tuple(mean), tuple(std)) == IMAGENET:
            normalise = "--normalise imagenet"
    classes = f"--classes {shlex.quote(','.join(names))} " if len(names) > 1 else ""
    return f"{classes}--activation softmax {normalise} --gsd METRES -o OUT.rooftrace"
