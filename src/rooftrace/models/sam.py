"""Segment Anything: outlines objects at which clicks or boxes of a user or program hint.

The networks are those of the package transformers: SAM (Kirillov et al. 2023, arXiv:2304.02643),
SAM 2 (Ravi et al. 2024, arXiv:2408.00714) and their relatives for prompts, such as EdgeTAM. Weights
are read from files that hold tensors alone (.safetensors), so that opening them runs no code.
"""

from __future__ import annotations

import json

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError

with MissingExtraError.on_import("sam", "SAM", "transformers"):
    import transformers

import rooftrace.models._torch  # noqa: F401  (before all that imports torchvision)

# isort: split
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rooftrace.core.errors import is_out_of_memory
from rooftrace.core.text import first_line, list_first
from rooftrace.models.clicks import Prompt, Segment

_CONFIG, _PREPROCESSOR, _WEIGHTS = "config.json", "preprocessor_config.json", "*.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

_KINDS: Sequence[str] = tuple(
    transformers.models.auto.modeling_auto.MODEL_FOR_MASK_GENERATION_MAPPING_NAMES
)
"""Types of models that answer prompts with masks, as config.json names them."""

_EXPECTED = f"expected a folder with {_CONFIG}, {_PREPROCESSOR} and {_WEIGHTS}"
_REMEDY = "Save the model with save_pretrained of transformers, or download the whole repository."


@dataclass(frozen=True)
class EncodedImage:
    """Features of an image, which serve any number of prompts.

    Args:
        features: Arguments of the network that replace the pixels.
        scale_yx: Pixels of the network's input per pixel of the image.
        sizes: Arguments by which masks are brought back to the pixels of the image.
    """

    features: Mapping[str, Any]
    scale_yx: tuple[float, float]
    sizes: Mapping[str, Any]


class SamSegmenter:
    """Network of the SAM family, see `load_sam` and `PromptSegmenter`; not thread-safe.

    Args:
        network: Network of transformers for mask generation.
        processor: Its image processor.
        name: Folder or id of the weights, for messages and records.
        sha256: Hash of the files.
    """

    def __init__(self, network: Any, processor: Any, name: str, sha256: str) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = network.eval().to(self._device)
        self._processor = processor
        self.name = name
        self.sha256 = sha256

    @property
    def record(self) -> dict[str, Any]:
        """Everything on which results depend, as plain data."""
        return {
            "name": self.name,
            "kind": self._network.config.model_type,
            "sha256": self.sha256,
            "device": self._device.type,
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        }

    def encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        """Compute the features of an image, which takes most of the time.

        Args:
            image: (3, y, x) red, green and blue, uint8.

        Raises:
            BundleError: The network fails, as one whose settings were changed does.
            ConfigError: The array has another shape or type.
        """
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.uint8 or not image.size:
            raise ConfigError(
                f"An image of shape {image.shape} and type {image.dtype} was given; expected "
                "(3, y, x) uint8: red, green and blue.",
                remedy="Choose three bands, and stretch them to 0..255.",
            )
        with self._failures():
            return self._encode(image)

    def _encode(self, image: NDArray[np.uint8]) -> EncodedImage:
        height, width = image.shape[1:]
        made = self._processor(images=np.ascontiguousarray(image.transpose(1, 2, 0)),
                               input_data_format="channels_last", return_tensors="pt")  # fmt: skip
        pixels = made["pixel_values"]
        sizes = {"original_sizes": [[height, width]]}
        inner = list(pixels.shape[-2:])
        if "reshaped_input_sizes" in made:
            # SAM keeps the proportions and fills the rest of its square input.
            sizes["reshaped_input_sizes"] = [inner] = made["reshaped_input_sizes"].tolist()
        with torch.inference_mode():
            found = self._network.get_image_embeddings(pixels.to(self._device))
        features = {"image_embeddings": found}
        if self._network.config.model_type == "sam_hq":
            features = dict(zip(("image_embeddings", "intermediate_embeddings"), found))
        scale_yx = inner[0] / height, inner[1] / width
        return EncodedImage(features, scale_yx, sizes)

    def segment(self, image: EncodedImage, prompt: Prompt) -> Segment:
        """Return the object that a prompt hints at.

        A single click may mean a part or a whole. The network then proposes several objects, of
        which the one with the best score is returned.

        Args:
            image: Result of `encode`.
            prompt: Clicks and box in pixels of the image.

        Raises:
            BundleError: The network fails.
        """
        with self._failures():
            return self._segment(image, prompt)

    def _segment(self, image: EncodedImage, prompt: Prompt) -> Segment:
        given: dict[str, torch.Tensor] = {}
        if prompt.clicks:
            points = np.array([(click.row, click.col) for click in prompt.clicks], np.float64)
            given["input_points"] = self._placed(points, image)[None, None]
            labels = torch.tensor([int(click.positive) for click in prompt.clicks])
            given["input_labels"] = labels[None, None].to(self._device)
        if prompt.box is not None:
            box = prompt.box
            corners = np.array([[box.row, box.col], [box.row_stop, box.col_stop]], np.float64)
            given["input_boxes"] = self._placed(corners, image).reshape(1, 1, 4)
        is_ambiguous = prompt.box is None and len(prompt.clicks) == 1
        with torch.inference_mode():
            made = self._network(**image.features, **given, multimask_output=is_ambiguous)
            scores = made.iou_scores[0, 0].float().cpu()
            best = int(scores.argmax())
            low = made.pred_masks[:, :, best : best + 1].float().cpu()
            (mask,) = self._processor.post_process_masks(low, **image.sizes)
        return Segment(mask[0, 0].numpy(), float(scores[best]))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Name the weights where the network fails: settings are only known to fit once used."""
        try:
            yield
        except Exception as error:  # the library and torch raise many kinds
            if is_out_of_memory(error):
                raise
            raise BundleError(
                f"The model in {self.name} fails on an image: {first_line(error)}.",
                remedy=f"Restore its {_CONFIG} and {_PREPROCESSOR}. {_REMEDY}",
            ) from error

    def _placed(self, places_yx: NDArray[np.float64], image: EncodedImage) -> torch.Tensor:
        """Return (n, 2) x and y in the network's input, whose pixel centres are whole numbers."""
        placed = (places_yx * image.scale_yx - 0.5)[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(placed, np.float32)).to(self._device)


def load_sam(weights: str | Path) -> SamSegmenter:
    """Load a network of the SAM family.

    Args:
        weights: Folder that `save_pretrained` of transformers has written, or the id of such a
            repository on the Hugging Face hub, which is downloaded once: `facebook/sam-vit-base`.

    Raises:
        BundleError: The folder is missing, incomplete or damaged, holds a model of another kind, or
            weights as pickles alone; the repository cannot be downloaded.
        MissingExtraError: The extra `sam` is not installed.
    """
    folder = Path(weights)
    if not folder.is_dir():
        folder = _downloaded(str(weights))
    _check(folder)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    more: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        # A folder of this machine, so that there is no revision to name.
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **more)  # nosec B615
        network, info = transformers.AutoModelForMaskGeneration.from_pretrained(  # nosec B615
            folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **more
        )
    except Exception as error:  # the library raises many kinds for damaged and unfitting files
        raise BundleError(
            f"The model in {folder} cannot be loaded: {first_line(error)}.",
            remedy=_REMEDY,
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if missing:
        raise BundleError(
            f"The weights in {folder} lack {len(missing)} tensors of the network that {_CONFIG} "
            f"describes: {list_first(missing, 3)}.",
            remedy="Put the weights and the configuration of one model into the folder.",
        )
    return SamSegmenter(network, processor, str(weights), _hash(folder))


def _downloaded(name: str) -> Path:
    """Return the folder of a repository of the hub, which is downloaded if need be."""
    if not _HUB_ID.fullmatch(name):
        raise BundleError(f"There is no folder {name}; {_EXPECTED}.", remedy="Check the path.")
    from huggingface_hub import snapshot_download

    try:
        # The user names the repository; only JSON and safetensors are fetched, which hold no code.
        files = ["*.json", _WEIGHTS]
        return Path(snapshot_download(name, allow_patterns=files))  # nosec B615
    except Exception as error:  # errors of the network, of the hub and of the disk
        raise BundleError(
            f"There is no folder {name}, and the repository {name} cannot be downloaded from the "
            f"Hugging Face hub: {first_line(error)}.",
            remedy="Check the name; without a network, give the folder of the weights.",
        ) from error


def _check(folder: Path) -> None:
    """Raise BundleError if a folder does not hold a network for prompts, without reading it."""
    try:
        kind = json.loads((folder / _CONFIG).read_bytes())["model_type"]
    except FileNotFoundError as error:
        raise BundleError(f"{folder} has no {_CONFIG}; {_EXPECTED}.", remedy=_REMEDY) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{folder / _CONFIG} does not name the type of a model; {_EXPECTED}.", remedy=_REMEDY
        ) from error
    if kind not in _KINDS:
        raise BundleError(
            f"{folder} holds a model of the type {kind!r}; expected a model that answers prompts "
            f"with masks: {', '.join(_KINDS)}.",
            remedy="Give the weights of SAM, SAM 2 or a relative.",
        )
    if any(folder.glob(_WEIGHTS)):
        return
    pickles = sorted(path.name for form in _PICKLES for path in folder.glob(form))
    if pickles:
        raise BundleError(
            f"{folder} holds weights as pickles alone ({list_first(pickles, 3)}), which may run "
            "code, so they were not opened; expected .safetensors.",
            remedy="Where you trust them, load them with transformers and save them again with "
            "save_pretrained.",
        )
    raise BundleError(f"{folder} has no weights; {_EXPECTED}.", remedy=_REMEDY)


def _hash(folder: Path) -> str:
    """Return one hash of the configuration and the weights."""
    digest = hashlib.sha256()
    for path in sorted([folder / _CONFIG, folder / _PREPROCESSOR, *folder.glob(_WEIGHTS)]):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
