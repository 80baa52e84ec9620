"""`rooftrace import`: make a bundle of the weights or the ONNX graph of another program.

A file does not state what its network takes and gives: options do. The original network and the
bundle are run on tiles, and the bundle is written only if they agree.
"""

import hashlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import did_you_mean, parse_config
from rooftrace.core.errors import BundleError, ConfigError, ExportError
from rooftrace.core.system import installed_versions
from rooftrace.core.text import plural, utc_now
from rooftrace.flows.export.convert import TileSet, demo_tiles, draw_tiles
from rooftrace.flows.import_model.hub_folder import network_in_folder
from rooftrace.flows.import_model.options import Activation, ImportOptions
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.bundle import BUNDLE_SUFFIX, MAX_PART_BYTES, check_bundle_path, write_bundle
from rooftrace.models.spec import BundleSpec

DrawTiles = Callable[[BundleSpec], TileSet]
"""Function that returns the tiles of the check for a contract."""

_VERSIONS = ("rooftrace", "torch", "torchvision", "segmentation-models-pytorch", "timm", "onnx",
             "openvino")  # fmt: skip

_TILES = 3
MAX_DIFFERENCE = 1e-3
"""Largest difference of probabilities that rounding explains; beyond it the bundle is wrong."""


@dataclass(frozen=True)
class Channels:
    """Meaning of the channels of a network's output.

    Args:
        activation: Function that turns them into probabilities.
        keep: Channels that the bundle's graph returns, in their order; None for all.
        classes: Names of the bundle's classes; index 0 is the background.
        building_class: Index of the building among them.
    """

    count: int
    activation: Activation
    keep: tuple[int, ...] | None
    classes: tuple[str, ...]
    building_class: int


def resolve_channels(
    count: int, options: ImportOptions, activation: Activation, source: str
) -> Channels:
    """Return the meaning of the channels of a network's output.

    The background goes first. Two channels of which one is the background become one; of channels
    that are activated by themselves (sigmoid), that of the building remains.
    """
    classes = options.classes
    if len(set(classes)) != len(classes):
        raise ConfigError(
            f"--classes {','.join(classes)} names a class twice.", remedy="Give each class once."
        )
    if len(classes) != (2 if count == 1 else count):
        names = "background and building" if count == 1 else "one name for each channel"
        raise ConfigError(
            f"{source} has an output of {plural(count, 'channel')}, but --classes names "
            f"{len(classes)}: {', '.join(classes)}; expected {names}.",
            remedy="Give --classes in the order of the channels.",
        )
    usual = "building" if "building" in classes else classes[1] if len(classes) == 2 else ""
    building = options.building or usual
    if building not in classes:
        raise ConfigError(
            f"--building is {building!r}, which is not one of --classes {', '.join(classes)}. "
            f"{did_you_mean(building, classes)}".strip(),
            remedy="Name the class of the buildings: --building NAME.",
        )
    index = classes.index(building)
    if activation == "sigmoid" and count > 1:
        return Channels(count, activation, (index,), ("background", building), 1)
    ground = next((at for at, name in enumerate(classes) if name.lower() == "background"), 0)
    if index == ground:
        raise ConfigError(
            f"--building {building} is the first of --classes, which is the background.",
            remedy="Give --classes in the order of the channels. If the background is another "
            "one, name it background.",
        )
    if activation == "softmax" and count == 1:
        raise ConfigError(
            f"{source} has an output of one channel, for which softmax is always 1.",
            remedy="Use --activation sigmoid, or none if the output is a probability.",
        )
    order = (ground, *(at for at in range(len(classes)) if at != ground))
    keep = None if count == 1 or (count > 2 and not ground) else order[1:] if count == 2 else order
    ordered = tuple(classes[at] for at in order)
    return Channels(count, activation, keep, ordered, ordered.index(building))


def make_spec(
    options: ImportOptions, channels: Channels, *, multiple_px: int, input_px: int | None,
    training: dict[str, Any],
) -> BundleSpec:  # fmt: skip
    """Return the contract of the bundle; its name is given later.

    Raises:
        ConfigError: A value is out of range.
    """
    mean, std = options.pixel_statistics
    raw = {
        "name": options.name,
        "bands": options.bands,
        "dtype": options.dtype,
        "gsd_m": options.gsd_m,
        "mean": mean,
        "std": std,
        "classes": channels.classes,
        "building_class": channels.building_class,
        "threshold": options.threshold,
        "input_multiple_px": multiple_px,
        "input_px": input_px,
        "training": training,
        "versions": installed_versions(_VERSIONS),
        "licence": options.licence,
        "attribution": options.attribution,
        "created": utc_now(),
    }
    return parse_config(
        raw, BundleSpec, source="the options of rooftrace import", remedy="Correct that option."
    )


@dataclass(frozen=True)
class ImportedModel:
    """A foreign model as the content of a bundle, and its output beside that of the original.

    Args:
        original: Name of the program that ran the original.
        expected, found: Probabilities (n, class, y, x) of the original and of the bundle.
        record: Facts about the import, for the bundle and the report.
    """

    spec: BundleSpec
    parts: dict[str, bytes]
    original: str
    expected: NDArray[np.float32]
    found: NDArray[np.float32]
    tiles: TileSet
    record: dict[str, Any]
    notes: tuple[str, ...] = ()
    max_difference: float = MAX_DIFFERENCE


def refuse_options(reason: str, options: Mapping[str, object]) -> None:
    """Raise ConfigError for the first option, by its name, that has a value."""
    for name, value in options.items():
        if value:
            raise ConfigError(f"{name} was given, but {reason}.", remedy="Leave it out.")


def check_finite(output: NDArray[np.float32], source: str) -> None:
    """Raise BundleError if an output has NaN or infinity."""
    if not np.isfinite(output).all():
        raise BundleError(
            f"The output of {source} has values that are not finite (NaN or infinity).",
            remedy="Check --mean, --std and --input-range; else its weights are damaged.",
        )


@dataclass(frozen=True)
class ImportReport:
    """Result of an import."""

    path: Path
    size_bytes: int
    name: str
    record: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
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
        path: State dict of PyTorch (.pth, .pt, .ckpt, .safetensors), ONNX graph (.onnx), or folder
            that segmentation-models-pytorch saved.
        check: Images for the check; default tiles of the demo scene.

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
            remedy=f"Use it as it is: rooftrace predict IMAGES -m {shlex.quote(str(path))} -o out",
        )
    if path.is_dir():
        path, options = network_in_folder(path, options)
    options.pixel_statistics  # noqa: B018  (wrong options are an error before the work)
    if not path.is_file() or path.stat().st_size > MAX_PART_BYTES:
        raise BundleError(
            f"{path} cannot be read: it does not exist, is not a regular file, or has more than "
            f"{MAX_PART_BYTES:,} bytes.",
            remedy="Give a .pth, .pt, .ckpt, .safetensors or .onnx file.",
        )

    def draw(spec: BundleSpec) -> TileSet:
        return _draw_tiles(spec, check)

    if path.suffix.lower() == ".onnx":
        from rooftrace.flows.import_model.graph import import_graph

        notify(f"{path}: run on tiles")
        model = import_graph(path, options, draw)
    else:
        # The module needs PyTorch, whose absence is an error that names the extra.
        from rooftrace.flows.import_model.weights import import_weights

        notify(f"{path}: read into {options.architecture}")
        model = import_weights(path, options, draw)
    difference = np.abs(model.expected - model.found)
    if not difference.max() <= model.max_difference:
        raise ExportError(
            f"{out} was not written: its output differs from that of {path}. Probabilities differ "
            f"by up to {difference.max():.4f}, expected at most {model.max_difference}.",
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
    built = model.found[:, model.spec.building_channel] >= model.spec.threshold
    if built.all() or not built.any():
        share = "every" if built.all() else "no"
        causes = "--input-range, the normalisation, --bands and --classes"
        notes += (f"{share} pixel of the tiles is a building: are {causes} right?",)
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
