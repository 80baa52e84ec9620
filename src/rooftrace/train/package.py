"""From the weights of the best epoch to a bundle: threshold, graph, variants, figures."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Sample
from rooftrace.core.versions import installed
from rooftrace.data.dataset import EvalTiles
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.metrics.calibration import JudgedBuildings, fit_calibration
from rooftrace.metrics.curves import ThresholdCurve, best_threshold
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle, write_bundle
from rooftrace.models.calibration import Calibration
from rooftrace.models.export import (
    RefinedModel,
    WholeModel,
    export_onnx,
    halve_weights,
    round_to_half,
)
from rooftrace.models.pix2pix import RefinedNet
from rooftrace.models.spec import BundleSpec, Measured, Output
from rooftrace.models.zoo import multiple_px, needs_fixed_size
from rooftrace.train.buildings import BuildingJudge
from rooftrace.train.config import TrainConfig
from rooftrace.train.feed import TrainingData
from rooftrace.train.fit import FitResult
from rooftrace.train.refine import Refined
from rooftrace.train.separation import SeparationFigures, choose_separation
from rooftrace.train.variants import int8_variant
from rooftrace.train.weights import load_weights

__all__ = ["package"]

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
Watch = Callable[[int, Sample, NDArray[np.float32]], None]

_VERSIONS = ("rooftrace", "torch", "segmentation-models-pytorch", "onnx", "openvino", "nncf")

_PARITY_SAMPLES = 8
_WORST_PARITY = 1e-3
"""A probability that differs by more than rounding: the graph is not the network."""


def package(
    config: TrainConfig,
    result: FitResult,
    name: str,
    path: Path,
    *,
    refined: Refined | None = None,
    tell: Callable[[str], None],
) -> ModelBundle:
    """Write the bundle of one of the run's best epochs (`best_iou`, `best_loss`).

    The threshold is the one with the highest IoU on the validation folders, each counting alike;
    that of a second head the one with the highest F1 of buildings. Scores of buildings are
    calibrated on the same folders, where these have buildings enough.

    Args:
        refined: also its refiner, of its own best epoch: one graph answers both.

    Raises:
        ExportError: the exported graph does not answer as the network does; the file cannot be
            written.
    """
    epoch, _, weights = result.trained.best[name]
    load_weights(result.net, weights)
    epochs = {"epoch": epoch}
    net, kind, multiple = result.net, WholeModel, multiple_px(result.net)
    fixed = needs_fixed_size(result.net, result.data.samples.bands, multiple)
    if refined is not None:
        epochs["refine_epoch"] = refined.load_best()
        net, kind = RefinedNet(result.net, refined.generator), RefinedModel
        multiple = math.lcm(multiple, refined.generator.multiple_px)
    if config.export.half_weights:
        round_to_half(net)
    mean, std = result.data.statistics
    separation = config.separation
    whole = kind(net, mean, std, separated=separation is not None).eval()
    bands = result.data.samples.bands
    labels = config.data.labels
    spec = BundleSpec(
        name=config.export.name or path.parent.name,
        bands=_band_names(bands),
        dtype=str(result.data.samples.dtype),  # type: ignore[arg-type]  # checked by pydantic
        gsd_m=config.gsd_m,
        mean=mean,
        std=std,
        classes=labels.classes,
        colours=labels.drawn_in(),
        building_class=labels.building_class,
        separation=None if separation is None else separation.kind,
        fingerprint=result.fingerprint,
        input_multiple_px=multiple,
        input_px=config.crop_px if fixed else None,
        # Whom a run told of itself is no part of a model that is handed on.
        training={**config.model_dump(mode="json", exclude={"watch"}), **epochs},
        versions=installed(_VERSIONS),
        licence=config.export.licence,
        attribution=config.export.attribution,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    name = path.stem
    tell(f"{name} (epoch {epoch}): judged on the validation folders")
    spec, parted = _with_thresholds(whole, result.data, spec)
    judged, buildings = [], []
    for tiles in result.data.tiles:
        judge = BuildingJudge(spec, tiles)
        judged.append(_judge(whole.run, tiles, spec, judge.feed))
        buildings.append(judge.finish())
    coarse: list[_Judged] = []
    if spec.coarse_threshold is not None:
        alone = spec.model_copy(update={"threshold": spec.coarse_threshold})
        run = partial(whole.run, output="coarse")
        coarse = [_judge(run, tiles, alone) for tiles in result.data.tiles]
    for ours, theirs in zip(judged, coarse):
        tell(
            f"{ours.name}: IoU {ours.iou(spec):.3f} refined, {theirs.iou(spec):.3f} coarse; "
            f"boundary IoU {ours.outlines.iou:.3f} and {theirs.outlines.iou:.3f}"
        )
    for one in parted:
        tell(
            f"{one.name}: F1 of buildings {one.apart.f1:.3f} told apart by {spec.separation} "
            f"from {spec.separation_threshold}, {one.without.f1:.3f} as connected regions"
        )
    spec = spec.model_copy(update={"calibration": _calibration(buildings, config, tell)})
    told = f"threshold {spec.threshold:.3f}; " if spec.is_binary else ""
    tell(f"{name}: {told}exporting the graph")
    graph = export_onnx(whole, bands=bands, multiple_px=multiple, fixed_px=spec.input_px)
    if config.export.half_weights:
        graph = halve_weights(graph)
    for output in whole.outputs:
        engine = OpenVinoEngine(spec, [graph], "fp32", name, output)
        _check_parity(partial(whole.run, output=output), engine.run, result.data, name)
    parts = {GRAPH_NAME: graph}
    if config.export.weights:
        parts[WEIGHTS_NAME] = save({k: v.contiguous() for k, v in net.state_dict().items()})
    if config.export.int8:
        made = int8_variant(config.export, result.data, spec, graph, tell)
        if made is not None:
            variant, files = made
            parts |= files
            spec = spec.model_copy(update={"variants": (variant,)})
    figures = [j.measured(spec, config) for j in judged]
    figures += [one.measured(spec) for one in parted]
    figures += [j.measured(spec, config, "coarse") for j in coarse]
    return write_bundle(path, spec.model_copy(update={"metrics": tuple(figures)}), parts)


@dataclass(frozen=True)
class _Judged:
    name: str
    counts: PixelCounts
    outlines: BoundaryCounts

    def iou(self, spec: BundleSpec) -> float:
        """1 where there was nothing to find and nothing was found."""
        value = self.counts.iou(1) if spec.is_binary else self.counts.mean_iou
        return 1.0 if np.isnan(value) else value

    def measured(
        self, spec: BundleSpec, config: TrainConfig, output: Output = "probabilities"
    ) -> Measured:
        index = spec.building_class
        values = {
            "accuracy": self.counts.accuracy,
            "iou": self.counts.iou(index),
            "mean_iou": self.counts.mean_iou,
            "precision": self.counts.precision(index),
            "recall": self.counts.recall(index),
            **self.outlines.figures(),
        }
        return Measured(
            data=self.name,
            split="val",
            protocol=(
                f"pooled over pixels, tiles of {config.val_crop_px or config.crop_px} px without "
                f"overlap{f' at {config.gsd_m} m' if config.gsd_m else ''}, PyTorch fp32; the "
                "threshold was chosen on these folders"
                f"{'; the segmenter alone, without the refiner' if output == 'coarse' else ''}"
            ),
            values={k: round(v, 5) for k, v in values.items() if not np.isnan(v)},
        )


def _with_thresholds(
    whole: WholeModel, data: TrainingData, spec: BundleSpec
) -> tuple[BundleSpec, list[SeparationFigures]]:
    """The contract with its thresholds, and what the second head is good for, if there is one."""
    update: dict[str, float] = {}
    if "coarse" in whole.outputs:
        run = partial(whole.run, output="coarse")
        update["coarse_threshold"] = _threshold(run, data, spec)
    update["threshold"] = _threshold(whole.run, data, spec)
    spec = spec.model_copy(update=update)
    if spec.separation is None:
        return spec, []
    from_on, parted = choose_separation(whole.run, data.tiles, spec)
    return spec.model_copy(update={"separation_threshold": from_on}), parted


def _threshold(run: Run, data: TrainingData, spec: BundleSpec) -> float:
    """The best one; of more than two classes that which is there, for none is needed."""
    if not spec.is_binary:
        return spec.threshold
    return best_threshold([_curve(run, tiles, spec) for tiles in data.tiles])


def _calibration(
    folders: Sequence[JudgedBuildings], config: TrainConfig, tell: Callable[[str], None]
) -> Calibration | None:
    fit = fit_calibration(
        folders,
        protocol=f"tiles of {config.val_crop_px or config.crop_px} px, without the buildings that "
        "reach to the edge of one, PyTorch fp32",
    )
    made = fit.calibration
    if made is None:
        tell(f"scores of buildings are not calibrated: {fit.reason}")
    else:
        tell(
            f"scores of buildings calibrated ({made.map.kind}): expected calibration error "
            f"{made.ece_before:.3f} before, {made.ece_after:.3f} after"
        )
    return made


def _curve(run: Run, tiles: EvalTiles, spec: BundleSpec) -> ThresholdCurve:
    """What one folder comes to at every threshold."""
    curve = ThresholdCurve()
    for sample, probability in _answers(run, tiles):
        truth = sample.target == spec.building_class
        curve.add(truth, probability[spec.building_channel], sample.valid)
    return curve


def _judge(run: Run, tiles: EvalTiles, spec: BundleSpec, also: Watch | None = None) -> _Judged:
    """Count pixels and outlines of one folder, at the contract's threshold.

    Args:
        also: sees each tile, too: its number, and what a model makes of it.
    """
    counts = PixelCounts.zero(len(spec.classes))
    outlines = BoundaryCounts.zero()
    for number, (sample, probability) in enumerate(_answers(run, tiles)):
        if spec.is_binary:
            predicted = (probability[spec.building_channel] >= spec.threshold).astype(np.uint8)
        else:
            predicted = probability[: spec.channels].argmax(axis=0).astype(np.uint8)
        counts += PixelCounts.of(sample.target, predicted, sample.valid, classes=len(spec.classes))
        truth = sample.target == spec.building_class
        outlines += BoundaryCounts.of(truth, predicted == spec.building_class, sample.valid)
        if also is not None:
            also(number, sample, probability)
    return _Judged(tiles.name, counts, outlines)


def _answers(
    run: Run, tiles: EvalTiles, size: int = 8
) -> Iterator[tuple[Sample, NDArray[np.float32]]]:
    """Each tile with what a model makes of it."""
    for first in range(0, len(tiles), size):
        batch = [tiles[i] for i in range(first, min(first + size, len(tiles)))]
        yield from zip(batch, run(np.stack([sample.image for sample in batch])))


def _check_parity(network: Run, engine: Run, data: TrainingData, name: str) -> None:
    tiles = data.tiles[0]
    # Pixel values as they are read from a file, which is what an engine takes.
    images = [tiles[i].image for i in range(min(_PARITY_SAMPLES, len(tiles)))]
    batch = np.stack(images).astype(data.samples.dtype).astype(np.float32)
    worst = float(np.abs(network(batch) - engine(batch)).max())
    if not worst <= _WORST_PARITY:
        raise ExportError(
            f"The exported graph of {name} answers otherwise than the network: probabilities "
            f"differ by up to {worst:.4f}, expected at most {_WORST_PARITY}.",
            remedy="The weights are kept in the run's checkpoints. Report the architecture; "
            "export.half_weights = false may help.",
        )


def _band_names(count: int) -> tuple[str, ...]:
    return ("red", "green", "blue") if count == 3 else tuple(f"band{i + 1}" for i in range(count))
