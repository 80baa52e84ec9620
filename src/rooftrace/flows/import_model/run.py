"""`rooftrace import`: make a bundle of the weights or the ONNX graph of another program.

A file does not state what its network takes and gives: options do. The original network and the
bundle are run on tiles, and the bundle is written only if they agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.flows.export.convert import TileSet, demo_tiles, draw_tiles
from rooftrace.flows.import_model.contract import ImportOptions, pixel_statistics
from rooftrace.flows.import_model.graph import import_graph
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.bundle import BUNDLE_SUFFIX, check_bundle_path, write_bundle
from rooftrace.models.spec import BundleSpec

_TILES = 3
_MAX_DIFFERENCE = 1e-3
"""Largest difference of probabilities that rounding explains; beyond it the bundle is wrong."""


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    Args:
        path: The bundle.
        size_bytes: Its size.
        name: Name of the model.
        record: Facts about the import: the file, its weights, the agreement with the original.
        notes: Assumptions and omissions to report to the user.
    """

    path: Path
    size_bytes: int
    name: str
    record: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "name": self.name,
            **self.record,
            "notes": list(self.notes),
        }


def run_import(
    path: Path,
    out: Path,
    options: ImportOptions,
    *,
    check: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> ImportReport:
    """Write a bundle with the model of a foreign file, if its output is that of the original.

    Args:
        path: State dict of PyTorch (.pth, .pt, .ckpt, .safetensors) or ONNX graph (.onnx).
        out: Bundle to write.
        options: Network and contract of the model.
        check: Images for the check; default tiles of the demo scene.
        notify: Function called with a message at each step.

    Raises:
        ConfigError: An option is missing, or does not fit the file.
        BundleError: The file cannot be read, holds another network, or exceeds a limit.
        MissingExtraError: A package is not installed.
        ExportError: The bundle's output differs from that of the original, or cannot be written.
    """
    check_bundle_path(out)
    if path.suffix.lower() == BUNDLE_SUFFIX:
        raise ConfigError(
            f"{path} is a bundle of rooftrace already, which needs no import.",
            remedy=f"Use it as it is: rooftrace predict IMAGES -m {path.name} -o out",
        )
    pixel_statistics(options)

    def draw(spec: BundleSpec) -> TileSet:
        return _draw_tiles(spec, check)

    if path.suffix.lower() == ".onnx":
        notify(f"{path}: run on tiles in a child process")
        model = import_graph(path, options, draw)
    else:
        # The module needs PyTorch, whose absence is an error that names the extra.
        from rooftrace.flows.import_model.weights import import_weights

        notify(f"{path}: read into {options.architecture}")
        model = import_weights(path, options, draw)
    difference = np.abs(model.expected - model.found)
    if not difference.max() <= _MAX_DIFFERENCE:
        raise ExportError(
            f"{out} was not written: its output differs from that of {path}. Probabilities differ "
            f"by up to {difference.max():.4f}, expected at most {_MAX_DIFFERENCE}.",
            remedy="Report the architecture; an ONNX file of the same network may help.",
        )
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    record = {
        **model.record,
        "file": path.name,
        "sha256": digest,
        "parity": {
            "original": model.original,
            "engine": "openvino",
            "max_difference": float(f"{difference.max():.5g}"),
            "mean_difference": float(f"{difference.mean():.5g}"),
            "data": model.tiles.name,
            "tiles": len(model.tiles.images),
        },
    }
    update = {
        "name": options.name or out.stem,
        "training": {**model.spec.training, "imported": record},
    }
    bundle = write_bundle(out, model.spec.model_copy(update=update), model.parts)
    notes = (*model.notes, *model.tiles.notes)
    return ImportReport(out, out.stat().st_size, bundle.spec.name, record, notes)


def _draw_tiles(spec: BundleSpec, check: Path | None) -> TileSet:
    if check is None:
        tiles = demo_tiles(spec, _TILES)
        note = "checked on the demo scene only: use --check for real images"
        return replace(tiles, notes=(note,))
    labels = LabelConfig(classes=spec.classes, building=spec.classes[spec.building_class])
    # Only the pixels matter here: images without metres per pixel are read as they are.
    config = SourceConfig(path=str(check), gsd_m=spec.gsd_m)
    return draw_tiles(open_source(config, labels), spec, _TILES)
