"""PyTorch: the network itself, from the weights of a bundle; of the extra `train`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError, PredictError
from rooftrace.engines.kind import EngineKind, Offers
from rooftrace.engines.processor import has_fast_bf16, most_threads
from rooftrace.models.bundle import WEIGHTS_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec, Output

__all__ = ["KIND", "TorchEngine"]

_REFINER = ("filters", "depth", "dropout", "residual")

_LOADING = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}
)
"""Options of an encoder that make its library open files; a stranger's bundle may not."""

_REMEDY = "Run it on another engine, which takes the graph; or get the bundle again."


class TorchEngine:
    """The network of a bundle in PyTorch, channels-last, on a GPU where there is one.

    Args:
        spec: the model's contract; `training` says which network it is.
        weights: all of the network's, as safetensors.
        precision: `fp32`, or `bf16` by autocast.
        source: the bundle, for messages.
        output: of a refined model, which of its two outputs.

    Raises:
        MissingExtraError: PyTorch is not installed, or what networks are built with.
        BundleError: the record of the network cannot be read, or the weights are not its own.
    """

    name = "torch"

    def __init__(
        self,
        spec: BundleSpec,
        weights: bytes,
        precision: str,
        source: str,
        output: Output = "probabilities",
    ) -> None:
        _check_installed()
        import torch

        self.precision = precision
        threads = most_threads()
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        whole = _restored(spec, weights, source)
        self._answer = whole.outputs.index(output)
        self._net = whole.to(self._device, memory_format=torch.channels_last)

    @classmethod
    def from_bundle(
        cls, bundle: ModelBundle, files: Sequence[str], precision: str, output: Output
    ) -> TorchEngine:
        """The engine over the weights of a bundle."""
        return cls(bundle.spec, bundle.part(files[0]), precision, bundle.source, output)

    @property
    def settings(self) -> dict[str, str]:
        """What it runs on, for the record."""
        import torch

        return {"device": str(self._device), "torch": str(torch.__version__)}

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, band, y, x) pixel values to (n, class, y, x) probabilities in 0..1."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
        try:
            with torch.inference_mode(), self._arithmetic():
                given = pixels.to(self._device, memory_format=torch.channels_last)
                answer = self._net(given)[self._answer]
        except RuntimeError as error:
            raise PredictError(
                f"PyTorch failed on an input of shape {batch.shape}: {_first_line(error)}.",
                remedy="Check input_px and input_multiple_px in the bundle's bundle.json, or give "
                "it more memory.",
            ) from error
        probability: NDArray[np.float32] = answer.float().cpu().numpy()
        return probability

    def release(self) -> None:
        """Give back the memory that PyTorch keeps on a GPU."""
        import torch

        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _arithmetic(self) -> AbstractContextManager[Any]:
        import torch

        if self.precision == "bf16":
            return torch.autocast(self._device.type, torch.bfloat16)
        return nullcontext()


def _restored(spec: BundleSpec, weights: bytes, source: str) -> Any:
    """The whole model with its weights, in evaluation."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from rooftrace.models.export import RefinedModel, WholeModel
    from rooftrace.models.pix2pix import Generator, RefinedNet
    from rooftrace.models.zoo import ModelConfig, build_model

    try:
        recorded = dict(spec.training["model"])
        if named := _LOADING & set(recorded.get("options", {})):
            raise ValueError(f"its options name {', '.join(sorted(named))}")
        # All weights come with the bundle: nothing is downloaded, and no path is looked at.
        config = ModelConfig.model_validate({**recorded, "encoder_weights": "none"})
        net = build_model(config, bands=len(spec.bands), channels=spec.outputs)
        kind = WholeModel
        if spec.is_refined:
            told = {key: spec.training["refine"][key] for key in _REFINER}
            net = RefinedNet(net, Generator(len(spec.bands), spec.channels, **told))
            kind = RefinedModel
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"The network that {source} records cannot be built: {_first_line(error)}.",
            remedy=_REMEDY,
        ) from error
    try:
        net.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"The weights in {source} are not those of the network that it records: "
            f"{_first_line(error)}.",
            remedy=_REMEDY,
        ) from error
    separated = spec.separation is not None
    return kind(net, spec.mean, spec.std, separated=separated).eval()


def _offers(bundle: ModelBundle) -> Offers:
    if WEIGHTS_NAME not in bundle.parts or "model" not in bundle.spec.training:
        return {}
    return {"fp32": (WEIGHTS_NAME,), "bf16": (WEIGHTS_NAME,)}


def _prefers() -> Sequence[str]:
    import torch

    return ("bf16", "fp32") if torch.cuda.is_available() or has_fast_bf16() else ("fp32", "bf16")


def _check_installed() -> None:
    # In this order: what makes torchvision importable comes before what needs it.
    for name in ("torch", "rooftrace.models._torch", "safetensors", "segmentation_models_pytorch",
                 "onnx"):  # fmt: skip
        try:
            import_module(name)
        except ImportError as error:
            raise MissingExtraError.of("train", "The engine torch", name) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".:")


KIND = EngineKind(
    name=TorchEngine.name,
    takes="bundles that hold weights.safetensors, in fp32 and bf16",
    build=TorchEngine.from_bundle,
    offers=_offers,
    prefers=_prefers,
    check=_check_installed,
)
