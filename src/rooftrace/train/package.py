"""From the weights of the best epoch to a bundle: threshold, graph, variants, figures."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rooftrace.models._torch  # noqa: F401

# isort: split
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save

from rooftrace.core.errors import ExportError
from rooftrace.core.types import Sample
from rooftrace.core.versions import installed
from rooftrace.data.dataset import EvalTiles
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.metrics.pixel import PixelCounts, ThresholdCurve
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle, write_bundle
from rooftrace.models.export import WholeModel, export_onnx, halve_weights, round_to_half
from rooftrace.models.spec import BundleSpec, Measured, Variant
from rooftrace.models.zoo import needs_fixed_size
from rooftrace.train.config import TrainConfig
from rooftrace.train.feed import TrainingData
from rooftrace.train.fit import FitResult
from rooftrace.train.quantize import quantize_openvino

__all__ = ["package"]

Run = Callable[[NDArray[Any]], NDArray[np.float32]]

_VERSIONS = ("rooftrace", "torch", "segmentation-models-pytorch", "onnx", "openvino", "nncf")
_INT8_FILES = ("variants/openvino-int8.xml", "variants/openvino-int8.bin")

_PARITY_SAMPLES = 8
_WORST_PARITY = 1e-3
"""A probability that differs by more than rounding: the graph is not the network."""


def package(
    config: TrainConfig, result: FitResult, name: str, path: Path, *, tell: Callable[[str], None]
) -> ModelBundle:
    """Write the bundle of one of the run's best epochs (`best_iou`, `best_loss`).

    The threshold is the one with the highest IoU on the validation folders, each counting alike.

    Raises:
        ExportError: the exported graph does not answer as the network does; the file cannot be
            written.
    """
    epoch, _, weights = result.trained.best[name]
    state = load_file(weights)
    result.net.load_state_dict(state)
    if config.export.half_weights:
        round_to_half(result.net)
    mean, std = result.data.statistics
    separation = config.separation
    whole = WholeModel(result.net, mean, std, separated=separation is not None).eval()
    bands = result.data.samples.bands
    multiple = _stride(result)
    fixed = config.crop_px if needs_fixed_size(result.net, bands, multiple) else None
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
        input_multiple_px=multiple,
        input_px=fixed,
        # Whom a run told of itself is no part of a model that is handed on.
        training={**config.model_dump(mode="json", exclude={"watch"}), "epoch": epoch},
        versions=installed(_VERSIONS),
        licence=config.export.licence,
        attribution=config.export.attribution,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    tell(f"{name} (epoch {epoch}): threshold on the validation folders")
    judged = [_judge(whole.run, tiles, spec) for tiles in result.data.tiles]
    if spec.is_binary:
        spec = spec.model_copy(update={"threshold": _best_threshold([j.curve for j in judged])})
        judged = [_judge(whole.run, tiles, spec) for tiles in result.data.tiles]
    tell(f"{name}: threshold {spec.threshold:.3f}; exporting the graph")
    graph = export_onnx(whole, bands=bands, multiple_px=multiple, fixed_px=fixed)
    if config.export.half_weights:
        graph = halve_weights(graph)
    _check_parity(whole.run, OpenVinoEngine(spec, [graph], "fp32", name).run, result.data, name)
    parts = {GRAPH_NAME: graph}
    if config.export.weights:
        parts[WEIGHTS_NAME] = save({k: v.contiguous() for k, v in result.net.state_dict().items()})
    if config.export.int8:
        made = _int8(config, result.data, spec, graph, judged, tell)
        if made is not None:
            variant, files = made
            parts |= files
            spec = spec.model_copy(update={"variants": (variant,)})
    spec = spec.model_copy(update={"metrics": tuple(j.measured(spec, config) for j in judged)})
    return write_bundle(path, spec, parts)


@dataclass(frozen=True)
class _Judged:
    name: str
    counts: PixelCounts
    curve: ThresholdCurve

    def iou(self, spec: BundleSpec) -> float:
        """1 where there was nothing to find and nothing was found."""
        value = self.counts.iou(1) if spec.is_binary else self.counts.mean_iou
        return 1.0 if np.isnan(value) else value

    def measured(self, spec: BundleSpec, config: TrainConfig) -> Measured:
        index = spec.building_class
        values = {
            "accuracy": self.counts.accuracy,
            "iou": self.counts.iou(index),
            "mean_iou": self.counts.mean_iou,
            "precision": self.counts.precision(index),
            "recall": self.counts.recall(index),
        }
        return Measured(
            data=self.name,
            split="val",
            protocol=(
                f"pooled over pixels, tiles of {config.val_crop_px or config.crop_px} px without "
                f"overlap{f' at {config.gsd_m} m' if config.gsd_m else ''}, PyTorch fp32; the "
                "threshold was chosen on these folders"
            ),
            values={k: round(v, 5) for k, v in values.items() if not np.isnan(v)},
        )


def _judge(run: Run, tiles: EvalTiles, spec: BundleSpec) -> _Judged:
    """Count pixels of one folder, at the contract's threshold and at all others."""
    counts = PixelCounts.zero(len(spec.classes))
    curve = ThresholdCurve()
    for batch in _batches(tiles):
        answer = run(np.stack([sample.image for sample in batch]))
        for sample, probability in zip(batch, answer):
            building = probability[spec.building_channel]
            if spec.is_binary:
                predicted = (building >= spec.threshold).astype(np.uint8)
            else:
                predicted = probability[: spec.channels].argmax(axis=0).astype(np.uint8)
            counts += PixelCounts.of(
                sample.target, predicted, sample.valid, classes=len(spec.classes)
            )
            curve.add(sample.target == spec.building_class, building, sample.valid)
    return _Judged(tiles.name, counts, curve)


def _batches(tiles: EvalTiles, size: int = 8) -> Iterator[list[Sample]]:
    for first in range(0, len(tiles), size):
        yield [tiles[i] for i in range(first, min(first + size, len(tiles)))]


def _best_threshold(curves: Sequence[ThresholdCurve]) -> float:
    mean = np.mean([curve.iou() for curve in curves], axis=0)
    return float(curves[0].thresholds[int(mean.argmax())])


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


def _int8(
    config: TrainConfig,
    data: TrainingData,
    spec: BundleSpec,
    graph: bytes,
    before: Sequence[_Judged],
    tell: Callable[[str], None],
) -> tuple[Variant, dict[str, bytes]] | None:
    """The int8 variant, if it is nearly as good as `before` on every validation folder."""
    plain = data.samples.unchanged(config.export.int8_samples)
    tell(f"quantising to int8 with {len(plain)} samples")
    files = quantize_openvino(graph, [plain[i].image for i in range(len(plain))])
    engine = OpenVinoEngine(spec, files, "int8", "int8")
    after = [_judge(engine.run, tiles, spec) for tiles in data.tiles]
    drops = {b.name: b.iou(spec) - a.iou(spec) for b, a in zip(before, after)}
    shown = ", ".join(f"{name} {drop:+.4f}" for name, drop in drops.items())
    if max(drops.values()) > config.export.int8_max_drop:
        tell(f"int8 left out: IoU falls by {shown}, allowed {config.export.int8_max_drop}")
        return None
    tell(f"int8 kept: IoU falls by {shown}")
    parity = {f"iou_drop/{name}": round(drop, 5) for name, drop in drops.items()}
    variant = Variant(engine="openvino", precision="int8", files=_INT8_FILES, parity=parity)
    return variant, dict(zip(_INT8_FILES, files))


def _stride(result: FitResult) -> int:
    encoder = getattr(result.net, "encoder", None)
    return int(getattr(encoder, "output_stride", 32))


def _band_names(count: int) -> tuple[str, ...]:
    return ("red", "green", "blue") if count == 3 else tuple(f"band{i + 1}" for i in range(count))
