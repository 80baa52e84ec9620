"""The engine PyTorch (extra `train`), which runs the network from the weights of a bundle."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError, PredictError
from rooftrace.core.parallel import thread_limit
from rooftrace.core.text import first_line
from rooftrace.engines.base import Engine, EngineKind, Offers, this_processor
from rooftrace.models.bundle import WEIGHTS_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec, Output
from rooftrace.tiling.plan import PROB_ONE, check_range

_REFINER = ("filters", "depth", "dropout", "residual")

_REMEDY = "Use another engine, which runs the graph, or get the bundle again."


class TorchEngine(Engine):
    """The network of a bundle in PyTorch, channels-last, on a GPU if there is one.

    Args:
        spec: Contract of the model; `training` describes the network.
        weights: All weights of the network, as safetensors.
        precision: `fp32`, or `bf16` by autocast.
        source: Name of the bundle in messages.
        output: Output to return, for a refined model with two outputs.

    Raises:
        BundleError: the network cannot be built, or the weights belong to another network.
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
        threads = thread_limit()
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.settings = {"device": str(self._device), "torch": str(torch.__version__)}
        model = _restored(spec, weights, source)
        self._index = model.outputs.index(output)
        self._net = model.to(self._device, memory_format=torch.channels_last)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        probability: NDArray[np.float32] = self._infer(batch).cpu().numpy()
        return probability

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Like `run`, but rounded to 255ths on the device: a quarter of the bytes."""
        import torch

        # As `quantise` does, which would need the output in the memory of the processor.
        probabilities = self._infer(batch)
        low, high = torch.aminmax(probabilities)
        check_range(low.item(), high.item())
        rounded: NDArray[np.uint8] = (probabilities * PROB_ONE + 0.5).to(torch.uint8).cpu().numpy()
        return rounded

    def _infer(self, batch: NDArray[Any]) -> Any:
        """Return the output in fp32 as a tensor on the device."""
        import torch

        # Pixel values become fp32 on the device, which receives fewer bytes.
        pixels = torch.from_numpy(np.ascontiguousarray(batch))
        arithmetic: AbstractContextManager[Any] = nullcontext()
        if self.precision == "bf16":
            arithmetic = torch.autocast(self._device.type, torch.bfloat16)
        elif self._device.type == "cuda":
            # A GPU would compute convolutions in TF32, with ten bits of precision.
            arithmetic = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        try:
            with torch.inference_mode(), arithmetic:
                image = pixels.to(self._device).to(torch.float32, memory_format=torch.channels_last)
                return self._net(image)[self._index].float()
        except RuntimeError as error:
            raise PredictError(
                f"PyTorch failed on an input of shape {batch.shape}: {first_line(error)}.",
                remedy="Check input_px and input_multiple_px in the bundle's bundle.json, or use "
                "a machine with more memory.",
            ) from error

    def release(self) -> None:
        """Free the memory that PyTorch keeps on a GPU."""
        import torch

        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _restored(spec: BundleSpec, weights: bytes, source: str) -> Any:
    """Return the whole model with its weights, in evaluation mode."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from rooftrace.models.export import ExportableModel, RefinedModel
    from rooftrace.models.pix2pix import Generator, RefinedNet
    from rooftrace.models.zoo import build_model, recorded_network

    try:
        config = recorded_network(spec.training["model"], source)
        net = build_model(config, bands=len(spec.bands), channels=spec.channels)
        kind = ExportableModel
        if spec.is_refined:
            settings = {key: spec.training["refine"][key] for key in _REFINER}
            net = RefinedNet(net, Generator(len(spec.bands), spec.channels, **settings))
            kind = RefinedModel
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"The network that {source} records cannot be built: {first_line(error)}.",
            remedy=_REMEDY,
        ) from error
    try:
        net.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"The weights in {source} are not those of the network that it records: "
            f"{first_line(error)}.",
            remedy=_REMEDY,
        ) from error
    return kind(net, spec.mean, spec.std).eval()


def _offers(bundle: ModelBundle) -> Offers:
    is_whole = WEIGHTS_NAME in bundle.parts and "model" in bundle.spec.training
    if not is_whole or bundle.spec.separation is not None:
        return {}
    return {"fp32": (WEIGHTS_NAME,), "bf16": (WEIGHTS_NAME,)}


def _prefers() -> Sequence[str]:
    import torch

    has_bf16 = torch.cuda.is_available() or this_processor().has_bf16
    return ("bf16", "fp32") if has_bf16 else ("fp32", "bf16")


def _check_installed() -> None:
    # The order matters: the module that makes torchvision importable comes before its users.
    for name in ("torch", "rooftrace.models._torch", "safetensors", "segmentation_models_pytorch",
                 "onnx"):  # fmt: skip
        with MissingExtraError.on_import("train", "The engine torch", name):
            import_module(name)


KIND = EngineKind(
    name=TorchEngine.name,
    takes="bundles that hold weights.safetensors, in fp32 and bf16",
    build=lambda bundle, files, precision, output: TorchEngine(
        bundle.spec, bundle.part(files[0]), precision, bundle.source, output
    ),
    offers=_offers,
    prefers=_prefers,
    check=_check_installed,
)
