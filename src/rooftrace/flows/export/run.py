"""`rooftrace export`: write a bundle in the format of an engine, and compare it with the bundle."""

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, ExportError, MissingExtraError
from rooftrace.core.report import Report
from rooftrace.core.system import installed_versions
from rooftrace.engines.base import Engine
from rooftrace.engines.select import load_engine
from rooftrace.flows.export.convert import (
    MADE_BY,
    RUNS_IN,
    TileSet,
    convert_bundle,
    demo_tiles,
    draw_tiles,
    variant_files,
)
from rooftrace.flows.labelled_predictions import training_labels
from rooftrace.io.files import check_outputs, check_replaced, export_error, write_json
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.exported import (
    READ_BY,
    SUFFIXES,
    Contract,
    Target,
    exported_files,
    part_names,
    read_model,
)
from rooftrace.models.spec import BundleSpec, Output, Precision, Variant

TOLERANCES = {"fp32": 0.002, "fp16": 0.02, "bf16": 0.05, "int8": 0.1}
"""Maximum of `Parity.mask_change` by precision: 3 to 15 times the value of the default model."""

_BATCH = 4
_MIN_SHARE = 0.01
"""Minimum share of all pixels that a change is related to, for tiles with few buildings."""


@dataclass(frozen=True)
class Parity:
    """Comparison of one engine on one file with the bundle's graph in fp32 on OpenVINO.

    Args:
        precision: Precision of its arithmetic.
        changed_share: Share of all pixels whose class changes at the model's threshold.
        mask_iou: IoU of the two masks without background; 1 if both masks are empty.
        mask_change: Number of changed pixels divided by the number that either mask does not call
            background, or by 1 % of all pixels if that is more. The tolerance applies to it.
    """

    engine: str
    precision: str
    output: Output
    max_difference: float
    mean_difference: float
    changed_share: float
    mask_iou: float
    mask_change: float

    def to_json(self) -> dict[str, Any]:
        """Return all figures, rounded to five significant digits."""
        return {
            key: float(f"{value:.5g}") if isinstance(value, float) else value
            for key, value in asdict(self).items()
        }

    def figures(self) -> dict[str, float]:
        """Return the numbers for the metadata of the exported model."""
        return {key: value for key, value in self.to_json().items() if isinstance(value, float)}


def measure_parity(
    reference: Engine,
    engine: Engine,
    spec: BundleSpec,
    tiles: Sequence[NDArray[Any]],
    output: Output = "probabilities",
) -> Parity:
    """Run two engines on the same tiles and compare their outputs.

    Args:
        reference: The bundle's graph.
        engine: The exported model, loaded from its file.
        spec: Contract, with the threshold of the output.
        tiles: Tiles (band, y, x) in pixel values, all of one size.
    """
    most = total = 0.0
    compared = changed = pixels = both = either = 0
    for first in range(0, len(tiles), _BATCH):
        batch = np.stack(tiles[first : first + _BATCH])
        before, after = reference.run(batch), engine.run(batch)
        difference = np.abs(before - after)
        # NaN compares as False and would look like no difference.
        most = max(most, float(difference.max()) if np.isfinite(difference).all() else math.inf)
        total += float(difference.sum(dtype=np.float64))
        compared += difference.size
        old, new = _mask(before, spec), _mask(after, spec)
        changed += int(np.count_nonzero(old != new))
        both += int(np.count_nonzero((old > 0) & (new > 0)))
        either += int(np.count_nonzero((old > 0) | (new > 0)))
        pixels += old.size
    mean = total / compared
    finite = math.isfinite(most) and math.isfinite(mean)
    return Parity(
        engine=engine.name,
        precision=engine.precision,
        output=output,
        max_difference=most if finite else 1.0,
        mean_difference=mean if finite else 1.0,
        changed_share=changed / pixels,
        mask_iou=both / either if either else 1.0,
        # A network that gives NaN or infinity counts as completely changed.
        mask_change=changed / max(either, _MIN_SHARE * pixels) if finite else 1.0,
    )


def _mask(probability: NDArray[np.float32], spec: BundleSpec) -> NDArray[np.uint8]:
    """Return the class indices (n, y, x)."""
    if spec.is_binary:
        return (probability[:, 0] >= spec.threshold).astype(np.uint8)
    best: NDArray[np.uint8] = probability[:, : spec.channels].argmax(axis=1).astype(np.uint8)
    return best


@dataclass(frozen=True)
class ExportReport(Report):
    """Result of an export, which is also written beside the model.

    Args:
        path: The exported file; for OpenVINO the .xml file.
        report: JSON file beside it with this report.
        bundle: `name` and `sha256` of the model.
        tolerance: Maximum allowed figures of a comparison: `mask_change`.
        check: Tiles of the comparisons.
        calibration: Tiles of the calibration, or None.
        parity: Comparison for each engine and output; the main engine comes first.
    """

    path: Path
    report: Path
    to: Target
    precision: str
    bundle: dict[str, str]
    size_bytes: int
    tolerance: dict[str, float]
    check: TileSet
    calibration: TileSet | None
    parity: tuple[Parity, ...]
    notes: tuple[str, ...] = ()


def parity_rows(parities: Sequence[Parity]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each comparison, for a table."""
    for one in parities:
        where = one.engine if one.output == "probabilities" else f"{one.engine}, {one.output}"
        yield (
            where, one.precision, f"{one.max_difference:.4f}", f"{one.mean_difference:.5f}",
            f"{one.changed_share:.3%}", f"{one.mask_iou:.4f}",
        )  # fmt: skip


_CALIBRATION_TILES = 128
_CHECK_TILES = 48
_FEW_TILES = 16

_MAIN_ONLY = ("fp16",)
"""Precisions whose ONNX files are for ONNX Runtime alone: OpenVINO would compute in fp32."""


def run_export(
    bundle: Path | None,
    to: Target,
    out: Path,
    *,
    precision: Precision = "fp32",
    calibration: SourceConfig | None = None,
    check: SourceConfig | None = None,
    tolerance: float | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write a model for one engine, if its outputs agree with those of the bundle.

    The file is read again and compared with the bundle's graph in fp32 on tiles. If the difference
    exceeds the tolerance, no file is written. An earlier export of the same name is replaced; any
    other file is not.

    Args:
        bundle: Model; None for the default model of rooftrace.
        calibration: Images for the calibration of int8; not needed if the bundle has such a
            variant.
        check: Images for the check; default other tiles of `calibration`, or the demo scene.
        tolerance: Maximum allowed `Parity.mask_change`; default by precision.

    Raises:
        ConfigError: the precision is not supported, int8 has no images, the suffix is
            wrong, or `out` is the model or a file that is not an earlier export.
        MissingExtraError: a package is not installed.
        DataError: the images cannot be used.
        BundleError: the model cannot be used.
        ExportError: the difference exceeds the tolerance, or the file cannot be written.
    """
    source = read_model(bundle)
    _check_request(source, to, precision, out, calibration)
    files = [out, *([out.with_suffix(".bin")] if to == "openvino" else [])]
    report_path = out.with_name(f"{out.name}.report.json")
    data = [path for one in (calibration, check) if one is not None for path in one.paths]
    check_outputs([*files, report_path], [bundle, *data])
    replaced = check_replaced(files, partial(read_model, out), "a model that rooftrace exported")
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    drawn, checked = _tiles(source, calibration, check)
    samples = () if drawn is None else drawn.images
    notify(f"{source.spec.name}: exported to {to} in {precision}" + (_of(drawn) if drawn else ""))
    parts = convert_bundle(source, to, precision, samples)
    contract = Contract(
        to=to,
        precision=precision,
        bundle_sha256=source.sha256,
        made_with=installed_versions(MADE_BY),
        spec=source.spec,
    )
    notes = list(dict.fromkeys((*replaced, *(drawn.notes if drawn else ()), *checked.notes)))
    if drawn is not None and len(drawn.images) < _FEW_TILES:
        notes.append(f"calibrated with only {len(drawn.images)} tiles: more images are better")
    with _staging_folder(out) as folder:
        notify(f"checked{_of(checked)}")
        engines = READ_BY[to][:1] if precision in _MAIN_ONLY else READ_BY[to]
        _write(folder / out.name, _for_engines(contract, {name: {} for name in engines}), parts)
        made = read_model(folder / out.name)
        parities: list[Parity] = []
        held: dict[str, dict[str, float]] = {}
        for name in engines:
            try:
                measured = _compared(source, made, name, RUNS_IN[to][precision], checked)
            except MissingExtraError as error:
                notes.append(f"not checked on {name}: {error.in_full}")
                continue
            worst = max(measured, key=lambda parity: parity.mask_change)
            if worst.mask_change <= tolerance:
                held[name] = measured[0].figures()
            elif name == engines[0] or precision == "fp32":
                raise _refused(worst, tolerance, out, checked)
            else:
                changed = f"{worst.mask_change:.4f} of the mask changes, tolerance {tolerance:g}"
                notes.append(f"not for {name}: {changed}")
            parities += measured
        contract = _for_engines(contract, held)
        size = _write(folder / out.name, contract, parts)
        read_model(folder / out.name)
        report = ExportReport(
            path=out,
            report=report_path,
            to=to,
            precision=precision,
            bundle={"name": source.spec.name, "sha256": source.sha256},
            size_bytes=size,
            tolerance={"mask_change": tolerance},
            check=checked,
            calibration=drawn,
            parity=tuple(parities),
            notes=tuple(notes),
        )
        write_json(folder / report.report.name, report.to_json())
    return report


def _check_request(
    source: ModelBundle,
    to: Target,
    precision: Precision,
    out: Path,
    calibration: SourceConfig | None,
) -> None:
    if precision not in RUNS_IN[to]:
        known = ", ".join(RUNS_IN[to])
        raise ConfigError(
            f"--precision {precision} was given for {to}; expected one of {known}.",
            remedy="Choose one of these precisions.",
        )
    if out.suffix.lower() != SUFFIXES[to]:
        raise ConfigError(
            f"The output {out} was given for {to}; expected a name that ends with {SUFFIXES[to]}.",
            remedy=f"Use -o {out.with_suffix(SUFFIXES[to]).name}.",
        )
    if GRAPH_NAME not in source.parts:
        raise ConfigError(
            f"{source.source} was exported for {source.spec.variants[0].engine} and holds no "
            "ONNX graph, which an export needs.",
            remedy="Give the .rooftrace file from which it was made.",
        )
    if precision != "int8" and calibration is not None:
        raise ConfigError(
            f"--calibration was given, but a model in {precision} is not calibrated.",
            remedy="Leave it out, or use --check for the images of the check.",
        )
    ready = variant_files(source, to, precision) is not None
    if precision == "int8" and calibration is None and not ready:
        raise ConfigError(
            f"int8 for {to} needs images for its calibration, and none were given.",
            remedy="Give representative images: --calibration DATA (no labels needed).",
        )


def _tiles(
    source: ModelBundle, calibration: SourceConfig | None, check: SourceConfig | None
) -> tuple[TileSet | None, TileSet]:
    """Return the tiles for calibration, and those for the check."""
    spec = source.spec
    opened = {
        key: open_source(config, training_labels(source))
        for key, config in (("calibration", calibration), ("check", check))
        if config is not None
    }
    drawn = None
    if "calibration" in opened:
        more = 0 if "check" in opened else _CHECK_TILES
        drawn = draw_tiles(opened["calibration"], spec, _CALIBRATION_TILES + more)
        if not more:
            return drawn, draw_tiles(opened["check"], spec, _CHECK_TILES)
        checked, drawn = drawn.split(_CHECK_TILES)
        if checked is drawn:
            note = f"{drawn.name} has one tile, which serves both calibration and check"
            checked = replace(checked, notes=(*checked.notes, note))
        return drawn, checked
    if "check" in opened:
        return None, draw_tiles(opened["check"], spec, _CHECK_TILES)
    return None, demo_tiles(spec, _CHECK_TILES)


def _compared(
    source: ModelBundle, made: ModelBundle, engine: str, precision: str, tiles: TileSet
) -> list[Parity]:
    """Return the comparison of an exported file on one engine with its bundle, for each output."""
    parities = []
    outputs: tuple[Output, ...] = ("probabilities", "coarse")
    for output in outputs if source.spec.is_refined else outputs[:1]:
        reference = load_engine(source, engine="openvino", precision="fp32", output=output)
        loaded = load_engine(made, engine=engine, precision=precision, output=output)
        spec = source.for_output(output).spec
        parities.append(measure_parity(reference, loaded, spec, tiles.images, output))
    return parities


def _for_engines(contract: Contract, engines: dict[str, dict[str, float]]) -> Contract:
    """Return the contract with the engines of the file and the figures measured with each."""
    variants = tuple(
        Variant.model_validate(
            {
                "engine": name,
                "precision": RUNS_IN[contract.to][contract.precision],
                "files": part_names(contract.to, contract.precision),
                "parity": figures,
            }
        )
        for name, figures in engines.items()
    )
    spec = contract.spec.model_copy(update={"variants": variants})
    return contract.model_copy(update={"spec": spec})


def _write(path: Path, contract: Contract, parts: dict[str, bytes]) -> int:
    """Write the files and return their size in bytes."""
    size = 0
    for ending, data in exported_files(contract, parts).items():
        path.with_suffix(ending).write_bytes(data)
        size += len(data)
    return size


@contextmanager
def _staging_folder(out: Path) -> Iterator[Path]:
    """Yield a folder whose files move beside `out` if the block succeeds."""
    folder = out.with_name(f".{out.stem}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
        yield folder
        # The main file comes last: it never exists without the others.
        for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
            file.replace(out.with_name(file.name))
    except OSError as error:
        raise export_error(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refused(parity: Parity, tolerance: float, out: Path, tiles: TileSet) -> ExportError:
    return ExportError(
        f"{out} was not written: on {parity.engine} in {parity.precision} "
        f"{parity.mask_change:.4f} of the mask changes; the tolerance is {tolerance:g} "
        f"(mask IoU {parity.mask_iou:.4f}, probabilities differ by up to "
        f"{parity.max_difference:.4f}, on {len(tiles.images)} tiles of {tiles.name}).",
        remedy="Choose another precision, calibrate with more representative images, or allow "
        "more with --tolerance.",
    )


def _of(tiles: TileSet) -> str:
    return f", on {len(tiles.images)} tiles of {tiles.name}"
