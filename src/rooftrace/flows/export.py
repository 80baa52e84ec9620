"""`rooftrace export`: a bundle as a file of one engine's own kind, held against the bundle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rooftrace.core.errors import ConfigError, ExportError, MissingExtraError
from rooftrace.data.config import SourceConfig
from rooftrace.data.kinds import open_source
from rooftrace.data.source import SceneSet
from rooftrace.engines.select import ENGINES, load_engine
from rooftrace.flows.export_convert import (
    RUNS_IN,
    check_precision,
    convert,
    is_ready_made,
    made_with,
)
from rooftrace.flows.export_parity import TOLERANCES, Parity, measure_parity
from rooftrace.flows.export_report import ExportReport
from rooftrace.flows.export_tiles import TileSet, draw_tiles, generated_tiles, tile_side
from rooftrace.flows.labelled import labels_of
from rooftrace.io.atomic import export_error
from rooftrace.models.artefact import (
    SUFFIXES,
    Contract,
    Target,
    artefact_files,
    part_names,
    read_model,
)
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import Output, Precision, Variant
from rooftrace.predict.predictor import Predictor, default_bundle

__all__ = ["run_export"]

_CALIBRATED = 128
_CHECKED = 48
"""Tiles that are looked at."""

_FEW = 16

_JUDGED_BY: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
}
"""Engines that a file may be for; it is for the first."""

_BY_ONE = ("fp16",)
"""Of ONNX files in these precisions OpenVINO computes in fp32: they are for ONNX Runtime."""


def run_export(
    bundle: Path | None,
    to: Target,
    out: Path,
    *,
    precision: str = "fp32",
    calibration: SourceConfig | None = None,
    check: SourceConfig | None = None,
    tolerance: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write a model for one engine, if it answers as the bundle does.

    The file is read again and run on tiles beside the bundle's graph in fp32. Where it is over
    the tolerance nothing is left under its name.

    Args:
        bundle: the model; None for the one that comes with rooftrace.
        to: which kind of file.
        out: the file.
        precision: what its arithmetic is done in.
        calibration: images that int8 is calibrated with; not needed where the bundle has such a
            variant.
        check: images that it is judged on, and labels if it has them; default other tiles of
            `calibration`, or generated town.
        tolerance: the most that `Parity.mask_change` may be; default by precision.
        tell: what is done, for people.

    Raises:
        ConfigError: no such precision; int8 without images; a wrong ending; no GPU for TensorRT.
        MissingExtraError: a package is not installed.
        DataError, BundleError: as images or model give cause.
        ExportError: it is too far from the bundle; it cannot be written.
    """
    wanted = check_precision(to, precision)
    source = default_bundle() if bundle is None else read_model(bundle)
    _check_request(source, to, wanted, out, calibration)
    for name in _JUDGED_BY[to][:1]:
        if (to, wanted) != ("onnx", "fp32"):
            _check_engine(name)
    tolerance = TOLERANCES[wanted] if tolerance is None else tolerance
    given, checked, labelled = _tiles(source, calibration, check)
    samples = () if given is None else given.images
    tell(f"{source.spec.name}: to {to} in {wanted}" + (_of(given) if given else ""))
    parts = convert(source, to, wanted, samples)
    contract = Contract(
        to=to,
        precision=wanted,
        bundle_sha256=source.sha256,
        made_with=made_with(to),
        spec=source.spec,
    )
    notes = list(dict.fromkeys((*(given.notes if given else ()), *checked.notes)))
    if given is not None and len(given.images) < _FEW:
        notes.append(f"calibrated with {len(given.images)} tiles alone: more tell it more")
    with _unfinished(out) as folder:
        tell(f"checked{_of(checked)}")
        engines = _engines(to, wanted)
        _write(folder / out.name, _for_engines(contract, {name: {} for name in engines}), parts)
        judged = _Judged(source, read_model(folder / out.name), checked, labelled)
        parities, held = [], {}
        for name in engines:
            try:
                found = judged.by(name, RUNS_IN[to][wanted])
            except MissingExtraError as error:
                notes.append(f"not checked on {name}: {error}")
                continue
            worst = max(found, key=lambda parity: parity.mask_change)
            if worst.mask_change > tolerance:
                if name == engines[0] or wanted == "fp32":
                    raise _refused(worst, tolerance, out, checked)
                notes.append(
                    f"not for {name}, where {worst.mask_change:.4f} of the mask changes: "
                    f"{tolerance:g} may"
                )
            else:
                held[name] = found[0].figures()
            parities += found
        contract = _for_engines(contract, held)
        size = _write(folder / out.name, contract, parts)
        read_model(folder / out.name)
        report = ExportReport(
            path=out,
            report=out.with_name(f"{out.name}.report.json"),
            to=to,
            precision=wanted,
            bundle=(source.spec.name, source.sha256),
            size_bytes=size,
            tolerance=tolerance,
            checked=(checked.name, len(checked.images)),
            calibrated=None if given is None else (given.name, len(given.images)),
            tile_px=tile_side(source.spec),
            parities=tuple(parities),
            notes=tuple(notes),
        )
        text = json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
        (folder / report.report.name).write_text(text, encoding="utf-8")
    return report


def _check_engine(name: str) -> None:
    """Whether what judges a file is here; of an extra the one that has all that exports need."""
    try:
        ENGINES[name].check()
    except MissingExtraError as error:
        if name != "onnxruntime":
            raise
        raise MissingExtraError.of("export", "rooftrace export", name) from error


def _check_request(
    source: ModelBundle,
    to: Target,
    precision: Precision,
    out: Path,
    calibration: SourceConfig | None,
) -> None:
    if out.suffix.lower() != SUFFIXES[to]:
        raise ConfigError(
            f"{out} was given for {to}, whose files end with {SUFFIXES[to]}.",
            remedy=f"Name it {out.with_suffix(SUFFIXES[to]).name}.",
        )
    if GRAPH_NAME not in source.parts:
        raise ConfigError(
            f"{source.source} was exported for {source.spec.variants[0].engine} and holds no "
            "graph that it could be exported from again.",
            remedy="Give the .rooftrace file that it was made from.",
        )
    if precision != "int8" and calibration is not None:
        raise ConfigError(
            f"--calibration was given, and a model in {precision} is not calibrated.",
            remedy="Leave it out, or say --check for what the model is to be judged on.",
        )
    ready = is_ready_made(source, to, precision)
    if precision == "int8" and calibration is None and not ready:
        raise ConfigError(
            f"int8 for {to} is made by looking at images, and none were given.",
            remedy="Name some like those that it will see: --calibration DATA (no labels needed).",
        )


def _tiles(
    source: ModelBundle, calibration: SourceConfig | None, check: SourceConfig | None
) -> tuple[TileSet | None, TileSet, SceneSet | None]:
    """Tiles to calibrate with and to judge on, and what has labels of the latter."""
    spec = source.spec
    opened = {}
    for key, config in (("calibration", calibration), ("check", check)):
        if config is not None:
            predictor = Predictor(source, load_engine(source, engine="openvino", precision="fp32"))
            opened[key] = open_source(config, labels_of(predictor))
    judged_on = opened.get("check", opened.get("calibration"))
    labelled = judged_on if judged_on is not None and len(judged_on) else None
    given = None
    if "calibration" in opened:
        more = 0 if "check" in opened else _CHECKED
        given = draw_tiles(opened["calibration"], spec, _CALIBRATED + more)
        if not more:
            return given, draw_tiles(opened["check"], spec, _CHECKED), labelled
        checked, given = given.split(_CHECKED)
        if checked is given:
            note = f"{given.name} has one tile: it was calibrated with and is judged on it"
            checked = replace(checked, notes=(*checked.notes, note))
        return given, checked, labelled
    if "check" in opened:
        return None, draw_tiles(opened["check"], spec, _CHECKED), labelled
    return None, generated_tiles(spec, _CHECKED), None


class _Judged:
    """A written file beside the bundle that it was made from."""

    def __init__(
        self, source: ModelBundle, made: ModelBundle, tiles: TileSet, labelled: SceneSet | None
    ) -> None:
        self._source, self._made = source, made
        self._tiles, self._labelled = tiles, labelled
        outputs: tuple[Output, ...] = ("probabilities", "coarse")
        self._outputs = outputs if source.spec.is_refined else outputs[:1]

    def by(self, engine: str, precision: str) -> list[Parity]:
        """What one engine makes of it, for each output."""
        found = []
        for output in self._outputs:
            reference = load_engine(
                self._source, engine="openvino", precision="fp32", output=output
            )
            loaded = load_engine(self._made, engine=engine, precision=precision, output=output)
            spec = self._source.giving(output).spec
            labelled = self._labelled if output == "probabilities" else None
            found.append(
                measure_parity(reference, loaded, spec, self._tiles.images, output, labelled)
            )
        return found


def _engines(to: Target, precision: Precision) -> tuple[str, ...]:
    return _JUDGED_BY[to][:1] if precision in _BY_ONE else _JUDGED_BY[to]


def _for_engines(contract: Contract, engines: dict[str, dict[str, float]]) -> Contract:
    """The same with the engines that the file is for, and what was measured with each."""
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
    """Write the files; how many bytes they have."""
    size = 0
    for ending, data in artefact_files(contract, parts).items():
        path.with_suffix(ending).write_bytes(data)
        size += len(data)
    return size


@contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """A folder beside `out` whose files take their places there when the block ends well."""
    folder = out.with_name(f".{out.stem}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
        yield folder
        # That which is opened by name comes last: it never lies there without the others.
        for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
            file.replace(out.with_name(file.name))
    except OSError as error:
        raise export_error(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refused(parity: Parity, tolerance: float, out: Path, tiles: TileSet) -> ExportError:
    return ExportError(
        f"{out} was not written: on {parity.engine} in {parity.precision} "
        f"{parity.mask_change:.4f} of the mask changes, {tolerance:g} may "
        f"(mask IoU {parity.mask_iou:.4f}, probabilities differ by up to "
        f"{parity.max_difference:.4f}, on {len(tiles.images)} tiles of {tiles.name}).",
        remedy="Choose another precision, calibrate with images more like those that it will see, "
        "or allow more with --tolerance.",
    )


def _of(tiles: TileSet) -> str:
    return f", on {len(tiles.images)} tiles of {tiles.name}"
