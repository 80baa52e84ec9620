"""`rooftrace import`: make a bundle of the weights or the graph of another program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, ExportError
from rooftrace.core.text import reason_of
from rooftrace.flows.export.convert import TileSet, demo_tiles, draw_tiles
from rooftrace.flows.export.run import Parity, measure_parity
from rooftrace.flows.import_model.contract import ImportOptions, pixel_statistics
from rooftrace.flows.import_model.graph import ImportedModel, import_graph
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.bundle import BUNDLE_SUFFIX, MAX_PART_BYTES, check_bundle_path, write_bundle
from rooftrace.models.spec import BundleSpec

_TILES = 3
_MAX_PARITY = 1e-3
"""Largest difference of probabilities that rounding explains; beyond it the bundle is wrong."""

_LIMIT_S = 120.0
"""Maximum number of seconds of a run of a foreign graph."""


@dataclass(frozen=True)
class NetworkOptions:
    """Description of the network in a file.

    Args:
        architecture: Architecture of a state dict; None for ONNX, which holds its network.
        encoder: Its encoder; default that of the architecture.
        overrides: `KEY=VALUE` of further keys of `[model]`.
        encoder_only: The state dict holds an encoder alone.
        output: Output of an ONNX graph to use; None if it has one.
    """

    architecture: str | None = None
    encoder: str | None = None
    overrides: tuple[str, ...] = ()
    encoder_only: bool = False
    output: str | None = None


@dataclass(frozen=True)
class ImportReport:
    """Result of an import.

    Args:
        path: The bundle.
        size_bytes: Its size.
        name: Name of the model.
        record: Facts about the import: the file, its weights, the agreement with the original.
        parity: Comparison of the bundle's graph with the original.
        notes: Assumptions and omissions to report to the user.
    """

    path: Path
    size_bytes: int
    name: str
    record: dict[str, Any]
    parity: Parity
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
    network: NetworkOptions,
    options: ImportOptions,
    *,
    check: Path | None = None,
    limit_s: float = _LIMIT_S,
    notify: Callable[[str], None] = lambda _: None,
) -> ImportReport:
    """Write a bundle with the model of a foreign file, if it answers like the original.

    Args:
        path: State dict of PyTorch (.pth, .pt, .ckpt, .safetensors) or ONNX graph (.onnx).
        out: Bundle to write.
        network: Network of the file.
        options: Contract of the model.
        check: Images for the check; default synthetic images.
        limit_s: Maximum number of seconds of a run of an ONNX graph.
        notify: Function called with a message at each step.

    Raises:
        ConfigError: An option is missing, or does not fit the file.
        BundleError: The file cannot be read, or holds another network.
        MissingExtraError: A package is not installed.
        ExportError: The bundle's graph does not answer like the original, or cannot be written.
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
        found = _import_graph(path, network, options, draw, limit_s, notify)
    else:
        found = _import_weights(path, network, options, draw, notify)
    parity = measure_parity(
        _RecordedEngine(found.original, found.expected, found.tiles),
        _RecordedEngine("openvino", found.found, found.tiles),
        found.spec,
        found.tiles.images,
    )
    if not parity.max_difference <= _MAX_PARITY:
        raise ExportError(
            f"{out} was not written: its graph does not answer like {path}. Probabilities differ "
            f"by up to {parity.max_difference:.4f}, expected at most {_MAX_PARITY}.",
            remedy="Report the architecture; an ONNX file of the same network may help.",
        )
    record = {
        **found.record,
        "file": path.name,
        "sha256": _sha256(path),
        "parity": {
            "original": found.original,
            "engine": parity.engine,
            "precision": parity.precision,
            "max_difference": float(f"{parity.max_difference:.5g}"),
            "mean_difference": float(f"{parity.mean_difference:.5g}"),
            "mask_iou": float(f"{parity.mask_iou:.5g}"),
            "data": found.tiles.name,
            "tiles": len(found.tiles.images),
        },
    }
    spec = found.spec.model_copy(
        update={
            "name": options.name or out.stem,
            "training": {**found.spec.training, "imported": record},
        }
    )
    write_bundle(out, spec, found.parts)
    return ImportReport(
        path=out,
        size_bytes=out.stat().st_size,
        name=spec.name,
        record=record,
        parity=parity,
        notes=(*found.notes, *found.tiles.notes),
    )


def _import_graph(
    path: Path,
    network: NetworkOptions,
    options: ImportOptions,
    draw: Callable[[BundleSpec], TileSet],
    limit_s: float,
    notify: Callable[[str], None],
) -> ImportedModel:
    given = {
        "--architecture": network.architecture,
        "--encoder": network.encoder,
        "--set": network.overrides,
        "--encoder-only": network.encoder_only,
    }
    if named := [name for name, value in given.items() if value]:
        raise ConfigError(
            f"{named[0]} was given, but {path} is an ONNX file, which holds its network.",
            remedy="Leave it out.",
        )
    data = _read(path)
    notify(f"{path}: run on a tile in a process of its own, for {limit_s:g} s at most")
    return import_graph(data, str(path), options, network.output, draw, limit_s)


def _import_weights(
    path: Path,
    network: NetworkOptions,
    options: ImportOptions,
    draw: Callable[[BundleSpec], TileSet],
    notify: Callable[[str], None],
) -> ImportedModel:
    # The module needs PyTorch, whose absence is an error that names the extra.
    from rooftrace.flows.import_model.weights import import_weights, parse_network

    if network.architecture is None:
        raise ConfigError(
            f"{path} does not say which network its weights belong to.",
            remedy="Give --architecture, such as Unet or TorchvisionDeepLabV3, and --encoder, such "
            "as resnet34.",
        )
    if network.output is not None:
        raise ConfigError(
            f"--output was given, but {path} is no ONNX file.", remedy="Leave it out."
        )
    if options.multiple_px is not None:
        raise ConfigError(
            "--multiple was given, but the architecture decides it.", remedy="Leave it out."
        )
    config = parse_network(network.architecture, network.encoder, network.overrides)
    notify(f"{path}: read into {config.architecture}")
    return import_weights(path, config, options, draw, encoder_only=network.encoder_only)


def _draw_tiles(spec: BundleSpec, check: Path | None) -> TileSet:
    if check is None:
        tiles = demo_tiles(spec, _TILES)
        note = "checked on synthetic images only: use --check for real images"
        return replace(tiles, notes=(note,))
    labels = LabelConfig(classes=spec.classes, building=spec.classes[spec.building_class])
    # Only the pixels matter here: images without metres per pixel are read as they are.
    config = SourceConfig(path=str(check), gsd_m=spec.gsd_m)
    return draw_tiles(open_source(config, labels), spec, _TILES)


class _RecordedEngine:
    """Answers that were computed before, as an engine that gives them for the same tiles."""

    precision = "fp32"

    def __init__(self, name: str, answers: NDArray[np.float32], tiles: TileSet) -> None:
        self.name = name
        self._answers = answers
        assert len(answers) == len(tiles.images), "one answer for each tile"

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the answers; the tiles are few enough for one batch."""
        assert len(batch) == len(self._answers), "all tiles are one batch"
        return self._answers


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PART_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {reason_of(error)}.",
            remedy="Give the path of an .onnx file.",
        ) from error
    if len(data) > MAX_PART_BYTES:
        raise BundleError(
            f"{path} is larger than the {MAX_PART_BYTES} bytes that a model may have.",
            remedy="Export it in a smaller form.",
        )
    return data


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
