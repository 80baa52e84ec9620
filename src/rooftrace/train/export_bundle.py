"""Export of the best epoch to a bundle: thresholds, figures, graph and variants.

`export_bundle` reads from top to bottom. Everything that a bundle records of a model is measured
here on the validation folders.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from rooftrace.core.errors import ExportError
from rooftrace.core.system import installed_versions
from rooftrace.core.text import utc_now
from rooftrace.core.types import BoolArray, Footprints, GeoGrid, Sample, Window
from rooftrace.engines.openvino import OpenVinoEngine, capabilities
from rooftrace.io.gdal import number_polygons
from rooftrace.labels.derived import building_instances
from rooftrace.metrics.boundary import BoundaryCounts
from rooftrace.metrics.calibration import BuildingOutcomes, fit_calibration
from rooftrace.metrics.objects import Labels, match_predicted
from rooftrace.metrics.pixel import PixelCounts, ThresholdCurve, robust_threshold
from rooftrace.metrics.tiled_evaluation import evaluate_scenes
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle, write_bundle
from rooftrace.models.clicks import Click, draw_clicks
from rooftrace.models.export import (
    ExportableModel,
    RefinedModel,
    export_onnx,
    round_weights_to_fp16,
    store_weights_as_fp16,
    with_weights,
)
from rooftrace.models.pix2pix import RefinedNet
from rooftrace.models.quantize import quantize_openvino
from rooftrace.models.spec import (
    CLICK_BANDS,
    BundleSpec,
    Calibration,
    MeasuredMetrics,
    Output,
    Variant,
)
from rooftrace.models.zoo import multiple_px, needs_fixed_size
from rooftrace.samples.dataset import EvalTiles
from rooftrace.tiling.plan import quantise
from rooftrace.train.checkpoint import load_weights
from rooftrace.train.config import ExportConfig, TrainConfig
from rooftrace.train.datamodule import TrainingData
from rooftrace.train.loop import FitResult
from rooftrace.vector.assemble import FootprintAssembler
from rooftrace.vector.prepare import VectorOptions
from rooftrace.vector.watershed import WatershedOptions

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Function from (n, band, y, x) pixel values to (n, channel, y, x) probabilities."""

Notify = Callable[[str], None]
"""Function called with each line of progress."""

_VERSIONS = ("rooftrace", "torch", "segmentation-models-pytorch", "onnx", "openvino", "nncf")

_MAX_PARITY = 1e-3
"""Largest difference of probabilities that rounding explains; beyond it the graph is wrong."""

_INT8_FILES = ("variants/openvino-int8.xml", "variants/openvino-int8.bin")

_AT_ONCE = 8
"""Number of tiles that the model is given at a time."""


def export_bundle(
    config: TrainConfig,
    result: FitResult,
    name: str,
    path: Path,
    *,
    refined: FitResult | None = None,
    monitor: str = "",
    contract: BundleSpec | None = None,
    start: ModelBundle | None = None,
    notify: Notify,
) -> ModelBundle:
    """Write the bundle of one of the run's best epochs (`best_iou`, `best_loss`).

    The threshold is the middle of those whose mean IoU over the validation folders is near to the
    best, see `metrics.pixel.middle_of_plateau`. Scores of buildings are calibrated on the same
    folders if these have enough buildings. The bundle of a click network has the bands of the
    images and `CLICK_BANDS`, and the figure of the validation in training.

    Args:
        refined: Refiner to include, at its own best epoch: one graph has both outputs.
        monitor: Figure by which the epoch is the best, if it is neither of the two.
        contract: Contract with thresholds, figures and calibration that were measured elsewhere;
            default those of the validation folders.
        start: Model that this one was tuned from: if it is the same network, its graph is used with
            the new weights.

    Raises:
        ExportError: The exported graph does not give the answers of the network; or the file
            cannot be written.
    """
    if config.clicks is not None:
        return _export_click_bundle(config, result, name, path, monitor, notify)
    epoch, _, weights = result.trained.best[name]
    load_weights(result.net, weights)
    epochs = {"epoch": epoch}
    net, kind, multiple = result.net, ExportableModel, multiple_px(result.net)
    fixed = needs_fixed_size(result.net, result.data.samples.bands, multiple)
    if refined is not None:
        epochs["refine_epoch"], _, weights = refined.trained.best["best_iou"]
        load_weights(refined.net, weights)
        net, kind = RefinedNet(result.net, refined.net), RefinedModel
        multiple = math.lcm(multiple, multiple_px(refined.net))
    if config.export.half_weights:
        round_weights_to_fp16(net)
    mean, std = result.data.statistics
    model = kind(net, mean, std).eval()
    bands = result.data.samples.bands
    spec = (contract or contract_of(config, result, path, epochs)).model_copy(
        update={"input_multiple_px": multiple, "input_px": config.crop_px if fixed else None}
    )
    name = path.stem
    if contract is None:
        notify(f"{name} (epoch {epoch}): evaluated on the validation folders")
        spec = _measured(model, config, result.data, spec, notify)
    threshold = f"threshold {spec.threshold:.3f}; " if spec.is_binary else ""
    notify(f"{name}: {threshold}exporting the graph")
    graph = None if start is None else with_weights(start.parts[GRAPH_NAME], model)
    if graph is None:
        graph = export_onnx(model, bands=bands, multiple_px=multiple, fixed_px=spec.input_px)
    if config.export.half_weights:
        graph = store_weights_as_fp16(graph)
    for output in model.outputs:
        engine = OpenVinoEngine(ModelBundle(spec, {GRAPH_NAME: graph}, name), "fp32", output)
        _check_parity(partial(model.run, output=output), engine.run, _tiles(result.data), name)
    parts = {GRAPH_NAME: graph}
    if config.export.weights:
        parts[WEIGHTS_NAME] = save({k: v.contiguous() for k, v in net.state_dict().items()})
    if config.export.int8:
        made = int8_variant(config.export, result.data, spec, graph, notify)
        if made is not None:
            variant, files = made
            parts |= files
            spec = spec.model_copy(update={"variants": (variant,)})
    return write_bundle(path, spec, parts)


def _measured(
    model: ExportableModel,
    config: TrainConfig,
    data: TrainingData,
    spec: BundleSpec,
    notify: Notify,
) -> BundleSpec:
    """Return a contract with the thresholds, figures and calibration of the validation folders."""
    update = {"threshold": _threshold(model.run, data, spec)}
    if "coarse" in model.outputs:
        update["coarse_threshold"] = _threshold(partial(model.run, output="coarse"), data, spec)
    spec = spec.model_copy(update=update)
    folders = [_evaluate_folder(model.run, one, spec, with_buildings=True) for one in data.tiles]
    coarse: list[_FolderMetrics] = []
    if spec.coarse_threshold is not None:
        coarse_spec = spec.model_copy(update={"threshold": spec.coarse_threshold})
        run = partial(model.run, output="coarse")
        coarse = [_evaluate_folder(run, tiles, coarse_spec) for tiles in data.tiles]
    for after, before in zip(folders, coarse):
        notify(
            f"{after.name}: IoU {_iou(after.counts, spec):.3f} refined, "
            f"{_iou(before.counts, spec):.3f} coarse; "
            f"boundary IoU {after.outlines.iou:.3f} and {before.outlines.iou:.3f}"
        )
    figures = [one.measured(spec, config) for one in folders]
    figures += [one.measured(spec, config, "coarse") for one in coarse]
    calibration = _calibration([one.buildings for one in folders], config, notify)
    return spec.model_copy(update={"metrics": tuple(figures), "calibration": calibration})


def contract_of(
    config: TrainConfig, result: FitResult, path: Path, epochs: Mapping[str, int]
) -> BundleSpec:
    """Return the contract of a trained network, before anything is measured.

    Args:
        config, result, path: See `export_bundle`.
        epochs: Numbers of the epochs, for the training record.
    """
    mean, std = result.data.statistics
    training: dict[str, Any] = {**epochs}
    if result.start is not None:
        training["start"] = {key: result.start[key] for key in ("model", "sha256")}
    return BundleSpec(
        bands=result.data.bands,
        dtype=str(result.data.samples.dtype),  # type: ignore[arg-type]  # checked by pydantic
        mean=mean,
        std=std,
        colours=config.data.labels.class_colours(),
        fingerprint=result.fingerprint,
        fitted_fingerprint=result.fitted_fingerprint,
        start_fingerprints=result.start_fingerprints,
        input_multiple_px=multiple_px(result.net),
        **_described(config, path, training),
    )


def _export_click_bundle(
    config: TrainConfig, result: FitResult, name: str, path: Path, monitor: str, notify: Notify
) -> ModelBundle:
    epoch, value, weights = result.trained.best[name]
    load_weights(result.net, weights)
    if config.export.half_weights:
        round_weights_to_fp16(result.net)
    (mean, std), extra = result.data.statistics, len(CLICK_BANDS)
    mean, std = (*mean, *[0.0] * extra), (*std, *[1.0] * extra)
    model = ExportableModel(result.net, mean, std).eval()
    assert config.clicks is not None
    figure = monitor.removeprefix("val_") or name.removeprefix("best_")
    measured = MeasuredMetrics(
        data=", ".join(tiles.name for tiles in result.data.tiles),
        split="val",
        protocol=f"mean over the sets after {config.clicks.rounds} simulated clicks on one "
        f"building of each tile of {config.val_crop_px or config.crop_px} px",
        values={figure: round(value, 5)},
    )
    spec = BundleSpec(
        bands=(*result.data.bands, *CLICK_BANDS),
        dtype="float32",
        mean=mean,
        std=std,
        threshold=0.5,
        input_multiple_px=multiple_px(result.net),
        metrics=(measured,),
        **_described(config, path, {"epoch": epoch}),
    )
    notify(f"{path.stem} (epoch {epoch}): exporting the graph")
    graph = export_onnx(model, bands=len(spec.bands), multiple_px=spec.input_multiple_px)
    if config.export.half_weights:
        graph = store_weights_as_fp16(graph)
    engine = OpenVinoEngine(ModelBundle(spec, {GRAPH_NAME: graph}, path.stem), "fp32")
    _check_parity(model.run, engine.run, _clicked_tiles(result.data, config), path.stem)
    return write_bundle(path, spec, {GRAPH_NAME: graph})


def _described(config: TrainConfig, path: Path, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a contract that the configuration gives."""
    return {
        "name": config.export.name or path.parent.name,
        "gsd_m": config.gsd_m,
        "finest_gsd_m": config.finest_gsd_m,
        "interpolated_gsd_m": config.interpolated_gsd_m,
        "classes": config.data.labels.classes,
        "building_class": config.data.labels.building_class,
        "training": {**config.model_dump(mode="json"), **more},
        "versions": installed_versions(_VERSIONS),
        "licence": config.export.licence,
        "attribution": config.export.attribution,
        "created": utc_now(),
    }


def _threshold(run: Run, data: TrainingData, spec: BundleSpec) -> float:
    """Return the threshold by the mean IoU; the default for more than two classes."""
    if not spec.is_binary:
        return spec.threshold
    return robust_threshold([_curve(run, tiles, spec) for tiles in data.tiles])


def _curve(run: Run, tiles: EvalTiles, spec: BundleSpec) -> ThresholdCurve:
    """Count the pixels of one folder at every threshold."""
    curve = ThresholdCurve()
    for sample, probability in _predictions(run, tiles):
        truth = sample.target == spec.building_class
        curve.add(truth, probability[spec.building_channel], sample.valid)
    return curve


def _predictions(run: Run, tiles: EvalTiles) -> Iterator[tuple[Sample, NDArray[np.float32]]]:
    """Yield each tile with the probabilities of the model."""
    for first in range(0, len(tiles), _AT_ONCE):
        batch = [tiles[i] for i in range(first, min(first + _AT_ONCE, len(tiles)))]
        yield from zip(batch, run(np.stack([sample.image for sample in batch])))


@dataclass(frozen=True)
class _FolderMetrics:
    """Pixels, outlines and, if asked for, buildings of one validation folder."""

    name: str
    counts: PixelCounts
    outlines: BoundaryCounts
    buildings: BuildingOutcomes

    def measured(
        self, spec: BundleSpec, config: TrainConfig, output: Output = "probabilities"
    ) -> MeasuredMetrics:
        """Return the record for the bundle."""
        index = spec.building_class
        values = {
            "accuracy": self.counts.accuracy,
            "iou": self.counts.iou(index),
            "iou_all_building": self.counts.share(index),
            "mean_iou": self.counts.mean_iou,
            "precision": self.counts.precision(index),
            "recall": self.counts.recall(index),
            **self.outlines.figures(),
        }
        return MeasuredMetrics(
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


def _evaluate_folder(
    run: Run, tiles: EvalTiles, spec: BundleSpec, *, with_buildings: bool = False
) -> _FolderMetrics:
    """Count pixels, outlines and buildings of one folder at the contract's threshold."""
    counts = PixelCounts.zero(len(spec.classes))
    outlines = BoundaryCounts.zero()
    matched = []
    for sample, probability in _predictions(run, tiles):
        predicted = _class_map(probability, spec)
        counts += PixelCounts.of(sample.target, predicted, sample.valid, classes=len(spec.classes))
        truth = sample.target == spec.building_class
        outlines += BoundaryCounts.of(truth, predicted == spec.building_class, sample.valid)
        if with_buildings:
            matched.append(match_buildings(spec, sample, probability))
    return _FolderMetrics(tiles.name, counts, outlines, join_tiles(tiles, matched))


def _class_map(probability: NDArray[np.float32], spec: BundleSpec) -> NDArray[np.uint8]:
    """Return (y, x) class indices from (channel, y, x) probabilities."""
    if spec.is_binary:
        found = probability[spec.building_channel] >= spec.threshold
    else:
        found = probability.argmax(axis=0)
    return np.asarray(found, np.uint8)


def _iou(counts: PixelCounts, spec: BundleSpec) -> float:
    """Return the IoU; 1 if there is no building in the labels and none was predicted."""
    value = counts.iou(1) if spec.is_binary else counts.mean_iou
    return 1.0 if math.isnan(value) else value


Matched = tuple[Footprints, Labels, BoolArray]
"""Buildings of one tile, the numbers of those that count, and which of them are right."""


def match_buildings(spec: BundleSpec, sample: Sample, probability: NDArray[np.float32]) -> Matched:
    """Match the buildings of one tile, as `rooftrace predict` writes them, with its label.

    A building that touches the edge of its tile is left out, because the tile may have cut it.

    Args:
        spec: Contract with its thresholds.
        sample: The tile with its label.
        probability: (channel, y, x) probabilities of the model.
    """
    building, values = spec.building_class, quantise(probability)
    mask = _class_map(probability, spec)
    mask[~sample.valid] = 0
    threshold = spec.threshold if spec.is_binary else None
    options = VectorOptions(watershed=WatershedOptions.at_threshold(threshold))
    whole = Window.whole((mask.shape[0], mask.shape[1]))
    with FootprintAssembler(GeoGrid(mask.shape), [building], building, options) as assembler:
        assembler.feed(whole, mask, values[spec.building_channel], np.unique(mask))
        with assembler.finish() as found:
            footprints = found.whole()
    shape = number_polygons(footprints.geometry, Window.whole(mask.shape))
    labelled = building_instances((sample.target == building) & sample.valid, sample.instances)
    numbers, right = match_predicted(labelled, shape, sample.valid)
    inner = ~np.isin(numbers, np.concatenate([shape[0], shape[-1], shape[:, 0], shape[:, -1]]))
    return footprints, numbers[inner], right[inner]


def join_tiles(tiles: EvalTiles, matched: Sequence[Matched]) -> BuildingOutcomes:
    """Return the buildings of the first tiles of a folder."""
    found = BuildingOutcomes.of_scenes(tiles.name, "val", matched)
    scenes = np.array([tiles.scene_of(number) for number in range(len(matched))], np.int64)
    return replace(found, scene=scenes[found.scene], scenes=len(tiles.scenes))


def _calibration(
    folders: Sequence[BuildingOutcomes], config: TrainConfig, notify: Notify
) -> Calibration | None:
    measured = (
        f"tiles of {config.val_crop_px or config.crop_px} px, without the buildings that reach to "
        "the edge of one"
    )
    made, reason = fit_calibration(folders, protocol=f"{measured}, PyTorch fp32")
    if made is None:
        notify(f"scores of buildings are not calibrated on {measured}: {reason}")
    else:
        notify(
            f"scores of buildings calibrated ({made.map.kind}) on {measured}: expected calibration "
            f"error {made.ece_before:.3f} uncalibrated, {made.ece_after:.3f} calibrated"
        )
    return made


def _tiles(data: TrainingData) -> NDArray[np.float32]:
    """Return up to four validation tiles (n, band, y, x)."""
    tiles = data.tiles[0]
    images = [tiles[number].image for number in range(min(4, len(tiles)))]
    # Pixel values as they are read from a file, which is what an engine takes.
    return np.stack(images).astype(data.samples.dtype).astype(np.float32)


def _clicked_tiles(data: TrainingData, config: TrainConfig) -> NDArray[np.float32]:
    """Return some validation tiles with a click in the middle of each, (n, band, y, x)."""
    images = _tiles(data)
    side = config.val_crop_px or config.crop_px
    clicks = [Click(side / 2, side / 2), Click(1, 1, positive=False)]
    maps = np.zeros((len(images), len(CLICK_BANDS), side, side), np.float32)
    maps[:, 1:] = draw_clicks(clicks, (side, side))
    return np.concatenate([images, maps], axis=1)


def _check_parity(network: Run, engine: Run, batch: NDArray[Any], name: str) -> None:
    worst = float(np.abs(network(batch) - engine(batch)).max())
    if not worst <= _MAX_PARITY:
        raise ExportError(
            f"The exported graph of {name} does not give the answers of the network: probabilities "
            f"differ by up to {worst:.4f}, expected at most {_MAX_PARITY}.",
            remedy="The weights are kept in the run's checkpoints. Report the architecture; "
            "export.half_weights = false may help.",
        )


def int8_variant(
    config: ExportConfig,
    data: TrainingData,
    spec: BundleSpec,
    graph: bytes,
    notify: Notify,
) -> tuple[Variant, dict[str, bytes]] | None:
    """Return the int8 variant if it is nearly as good as the graph on every validation folder.

    Both are evaluated on whole images at the contract's threshold. The graph is evaluated in each
    precision that the processor has and that would be used without the variant: fp32, and bf16,
    whose IoU differs from fp32 on some data by as much as that of int8.

    Args:
        config: Number of training samples for the quantisation, and the maximum loss of IoU.
        spec: Contract with its threshold.
        graph: The graph of the bundle.
        notify: Function called with each line of progress.

    Returns:
        The variant with the loss of IoU on each folder, and its parts; None if that is too much.
    """
    plain = data.samples.unchanged(config.int8_samples)
    notify(f"quantising to int8 with {len(plain)} samples")
    files = quantize_openvino(graph, [plain[i].image for i in range(len(plain))])
    parts = dict(zip(_INT8_FILES, files))
    engine = OpenVinoEngine(ModelBundle(spec, parts, "int8"), "int8", files=_INT8_FILES)
    after = _iou_by_folder(data, spec, engine)
    unmeasured = [source.name for source in data.val if source.name not in after]
    if unmeasured:
        notify(f"int8 left out: nothing in {', '.join(unmeasured)} can be predicted and compared")
        return None
    drops: dict[str, float] = {}
    for precision in ("fp32", "bf16") if "BF16" in capabilities() else ("fp32",):
        plain_bundle = ModelBundle(spec, {GRAPH_NAME: graph}, GRAPH_NAME)
        before = _iou_by_folder(data, spec, OpenVinoEngine(plain_bundle, precision))
        for name, iou in before.items():
            drops[f"{name}/{precision}"] = iou - after[name]
    listed = ", ".join(f"{name} {drop:+.4f}" for name, drop in drops.items())
    if max(drops.values()) > config.int8_max_drop:
        notify(f"int8 left out: IoU falls by {listed}, allowed {config.int8_max_drop}")
        return None
    notify(f"int8 kept: IoU falls by {listed}")
    parity = {f"iou_drop/{name}": round(drop, 5) for name, drop in drops.items()}
    variant = Variant(engine="openvino", precision="int8", files=_INT8_FILES, parity=parity)
    return variant, parts


def _iou_by_folder(
    data: TrainingData, spec: BundleSpec, engine: OpenVinoEngine
) -> dict[str, float]:
    """Return the IoU by folder; a folder without a comparable pixel is left out."""
    found = {source.name: evaluate_scenes(source, spec, engine.run) for source in data.val}
    return {name: _iou(counts, spec) for name, counts in found.items() if counts.pixels}
