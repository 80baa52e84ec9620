"""`rooftrace export --to fair`: a base model for fAIr, the mapping service of HOT.

    stac-item.json      STAC item with the extensions MLM and fAIr base model
    pipeline.py         steps that train, evaluate, export and predict by commands of rooftrace
    Dockerfile          images for training, tests and serving
    README.md           model card
    tests/              tests of the steps on toy data
    weights/            checkpoint and ONNX model, to be published at a URL

The folder is what a pull request adds to `models/` of fAIr-models, without the
weights: https://github.com/hotosm/fAIr-models
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.flows.card import model_card, stac_item
from rooftrace.flows.export.run import run_export
from rooftrace.io.files import write_atomically
from rooftrace.io.html import render_page
from rooftrace.models.bundle import ModelBundle, write_bundle
from rooftrace.models.exported import read_model

LICENCES = ("AGPL-3.0-only", "MIT", "Apache-2.0", "BSD-3-Clause")
"""Licences that fAIr accepts."""

_TEMPLATES = {
    "stac-item.json": "item", "pipeline.py": "pipeline", "Dockerfile": "Dockerfile",
    "tests/conftest.py": "conftest", "tests/test_steps.py": "test_steps",
}  # fmt: skip

_EQUATOR_M = 156_543.03
"""Metres per pixel of map tiles at zoom level 0."""

_ANY_TIME = "2026-01-01T00:00:00Z"
"""Time of a bundle that has none; fAIr asks for one."""


@dataclass(frozen=True)
class FairReport:
    """Folder of a base model.

    Args:
        folder: The folder.
        notes: What remains to be done.
    """

    folder: Path
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {"folder": str(self.folder), "notes": list(self.notes)}


def run_fair(model: Path | None, out: Path, url: str) -> FairReport:
    """Write the folder of a base model.

    Args:
        model: Bundle; None for the default model.
        out: Folder to write, whose name becomes that of a Python package.
        url: URL of the folder at which the files of `weights/` will be.

    Raises:
        ConfigError: fAIr would refuse the model, the name of the folder or the URL.
        MissingExtraError: PyTorch, whose container the checkpoint needs, is not installed.
    """
    bundle = read_model(model)
    spec, package = bundle.spec, out.resolve().name
    licence = spec.licence.partition(";")[0].strip()
    for message, remedy in _problems(bundle, package, url, licence):
        raise ConfigError(message, remedy=remedy)
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError.of("train", "rooftrace export --to fair", "torch") from error
    card = stac_item(bundle)["properties"]
    # fAIr's cache knows the path of a URL without its host: a usual name would meet another model.
    stem = f"{package}-{bundle.sha256[:8]}"
    values = {
        "card": card,
        "classes": card["mlm:output"][0]["classification:classes"],
        "licence": licence,
        "moment": card["datetime"] or _ANY_TIME,
        "outputs": spec.outputs,
        "stem": stem,
        "package": package,
        "threshold": spec.threshold,
        "title": re.sub(r"[^\w .-]+", " ", spec.name),
        "torch": torch.__version__.partition("+")[0],
        "url": url.rstrip("/"),
        "version": metadata.version("rooftrace"),
        "zoom": 19 if spec.gsd_m is None else round(math.log2(_EQUATOR_M / spec.gsd_m)),
    }
    as_json = {"json": partial(json.dumps, ensure_ascii=False)}
    for name, template in _TEMPLATES.items():
        text = render_page(f"fair/{template}.txt", as_json, **values)
        write_atomically(out / name, f"{text.rstrip()}\n".encode())
    write_atomically(out / "README.md", model_card(bundle).encode())
    weights = out / "weights"
    with TemporaryDirectory() as folder:
        packed = Path(folder, "model.rooftrace")
        write_bundle(packed, spec, bundle.parts)
        data = torch.from_numpy(np.frombuffer(packed.read_bytes(), np.uint8).copy())
    checkpoint = BytesIO()
    torch.save({"rooftrace": data}, checkpoint)
    write_atomically(weights / f"{stem}.pt", checkpoint.getbuffer())
    run_export(model, "onnx", weights / f"{stem}.onnx")
    note = f"publish the files of {weights} at {url}, and leave them out of the pull request"
    return FairReport(out, (note,))


def _problems(
    bundle: ModelBundle, package: str, url: str, licence: str
) -> Iterator[tuple[str, str]]:
    """Yield why fAIr would refuse a model, with the remedy."""
    spec = bundle.spec
    if not re.fullmatch(r"[a-z][a-z0-9_]+", package):
        yield (
            f"The folder is named {package!r}; expected the name of a Python package.",
            "Use small letters, digits and underscores: -o models/my_buildings.",
        )
    if not url.startswith("https://"):
        yield (
            f"--url received {url!r}; expected the https:// URL of a folder.",
            "Give the URL at which you will publish the weights.",
        )
    if spec.bands != ("red", "green", "blue") or spec.takes_clicks or not spec.is_binary:
        given = f"{len(spec.bands)} bands and {len(spec.classes)} classes"
        yield (
            f"{bundle.source} has {given}; expected RGB images, and buildings with background.",
            "Export such a model.",
        )
    if licence not in LICENCES:
        yield (
            f"{bundle.source} has the licence {licence or 'unknown'!r}, which fAIr refuses.",
            f"fAIr accepts {', '.join(LICENCES[:-1])} and {LICENCES[-1]}.",
        )
