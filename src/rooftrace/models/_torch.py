"""Import this before anything that imports torchvision.

The torchvision of the package index is built for CUDA. Beside a CPU build of torch its compiled
operators do not load, and `import torchvision` then fails because two operators that its Python
part refers to do not exist; timm, segmentation-models-pytorch and torchmetrics fall with it.
Declaring the two schemas is enough: nothing here calls them. With a working torchvision this module
does nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from rooftrace.core.errors import MissingExtraError

with MissingExtraError.on_import("train", "Training", "torch"):
    import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _import_torchvision() -> object:
    """Import torchvision, and return an object that must stay alive while it is used."""
    try:
        import torchvision
    except ImportError as error:
        raise MissingExtraError.of("train", "Training", "torchvision") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        # The types of PyTorch lack it.
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            library.define(schema)
        import torchvision  # noqa: F401

        return library
    return None


_KEPT_ALIVE = _import_torchvision()
