"""Measurement of a trained model on its validation images, with the code of `rooftrace fit` and
`rooftrace evaluate`.

`write_measured` exports an epoch, chooses its thresholds, calibrates it, measures it, quantises it,
and writes it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rooftrace.core.errors import RooftraceError
from rooftrace.core.text import plural
from rooftrace.engines.openvino import capabilities
from rooftrace.flows.evaluate.predictions import of_model, of_stored
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import (
    level_of,
    predict_set,
    protocol_of,
    threshold_at,
)
from rooftrace.flows.threshold import ThresholdSearchSet, best_level, rounded_figures
from rooftrace.labels.derived import cut_into_chips
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.calibration import BuildingOutcomes, fit_calibration
from rooftrace.metrics.report import EvalReport
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, write_bundle
from rooftrace.models.quantize import quantize_openvino
from rooftrace.models.spec import BundleSpec, MeasuredMetrics, Output, Variant
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.plan import AS_FOUND, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.samples.dataset import model_scale
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData
from rooftrace.train.export_bundle import Notify, export_bundle
from rooftrace.train.loop import FitResult

_INT8_FILES = ("variants/openvino-int8.xml", "variants/openvino-int8.bin")

_WINDOW_PX, _MOST_SCALE = 1024, 4.0
"""Side of the windows that are measured in place of whole images, in pixels of the model, and the
most pixels of an image per pixel of the model along it."""

_LARGEST_PX = 4096**2
"""Pixels of an image above which windows of it are measured, to limit memory."""

_PIXELS = EvalOptions(pixels_only=True)


def write_measured(
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
    """Export one of a run's best epochs, measure it on the validation images, and write its bundle.

    Images are predicted in fp32 as by `rooftrace predict`. Of more ground than `val_tiles`
    validation tiles have, windows are taken that are spread evenly.

    Args:
        config, result, name, path, refined, monitor, contract, start: See `export_bundle`. What
            `contract` says is not measured again.

    Raises:
        ExportError: The exported graph does not give the outputs of the network; or the file
            cannot be written.
    """
    bundle = export_bundle(
        config, result, name, path,
        refined=refined, monitor=monitor, contract=contract, start=start, notify=notify,
    )  # fmt: skip
    # The graph was made here, so that it needs no first use in a child process.
    bundle = replace(bundle, is_trusted=True)
    if config.clicks is None and (contract is None or config.export.int8):
        sets, part = validation_sets(config, result.data, bundle.spec, notify)
        if contract is None:
            bundle = _measured(bundle, sets, part, notify)
        if config.export.int8:
            bundle = with_int8(bundle, config, result.data, sets, notify)
    return write_bundle(path, bundle.spec, bundle.parts)


def validation_sets(
    config: TrainConfig, data: TrainingData, spec: BundleSpec, notify: Notify
) -> tuple[list[SceneSet], str]:
    """Return the validation images that are measured, and what part of them it is, for records."""
    most_px = config.val_tiles * (config.val_crop_px or config.crop_px) ** 2
    sets, parts = [], []
    for source in data.val:
        area_px, largest_px, scale, ids, problem = 0.0, 0, 1.0, [], None
        for scene in source:
            options = AS_FOUND.model_copy(update={"gsd_m": scene.stated_gsd_m})
            try:
                plan_scene(scene.image, spec, options)
            except RooftraceError as error:
                problem = error
                continue
            ids.append(scene.id)
            pixels, scale_yx = math.prod(scene.image.grid.shape), model_scale(scene, spec.scales)
            area_px += pixels / math.prod(scale_yx)
            largest_px, scale = max(largest_px, pixels), max(scale, *scale_yx)
        if problem is not None:
            left_out = plural(len(source) - len(ids), "image")
            notify(f"{source.name}: {left_out} left out of the measurement: {problem}")
        chosen = source.subset(ids)
        if area_px > most_px or largest_px > _LARGEST_PX:
            side = int(_WINDOW_PX * min(scale, _MOST_SCALE))
            windows = cut_into_chips(chosen, side)
            count = min(len(windows), max(1, int(len(windows) * most_px / area_px)))
            # The middle of equal shares: those at the edges of an image are often without data.
            places = ((np.arange(count) + 0.5) * len(windows) / count).astype(int)
            entries = tuple(windows.entries[place] for place in places)
            chosen = replace(windows, entries=entries)
            parts.append(f"of {source.name} {count} of {len(windows)} windows of up to {side} px")
        sets.append(chosen)
    return sets, "".join(f"; {one}" for one in parts)


def _measured(
    bundle: ModelBundle, sets: Sequence[SceneSet], part: str, notify: Notify
) -> ModelBundle:
    """Return the bundle with thresholds, calibration and figures."""
    spec, metrics = bundle.spec, []
    outputs: tuple[Output, ...] = ("probabilities", "coarse")
    for output in outputs if spec.is_refined else outputs[:1]:
        predictor = ModelSet((bundle,), engine="openvino", precision="fp32", output=output).ready()
        protocol = f"{protocol_of(predictor)}{part}"
        with TemporaryDirectory(prefix="rooftrace-") as scratch:
            if spec.is_binary:
                searched = [
                    ThresholdSearchSet(spec, predict_set(predictor, one, Path(scratch) / str(n)))
                    for n, one in enumerate(sets)
                ]
                built_up = [one for one in searched if one.curve.prevalence > 0]
                level = level_of(spec.threshold)
                if built_up:
                    level, _, _ = best_level(built_up, "iou", level)
                field = "threshold" if output == "probabilities" else "coarse_threshold"
                spec = spec.model_copy(update={field: threshold_at(level)})
                notify(f"{output}: threshold {threshold_at(level):.3f}")
                chosen = replace(bundle, spec=spec).for_output(output)
                models = [
                    of_stored(Predictor(chosen, predictor.engine), one.scored, pixels_only=True)
                    for one in searched
                ]
                options = _PIXELS
            else:
                models, options = [of_model(predictor)] * len(sets), EvalOptions()
            reports = [
                compare_with_labels([model], one, options)[0] for model, one in zip(models, sets)
            ]
            if output == "probabilities":
                outcomes = (
                    [one.outcomes(level) for one in searched]
                    if spec.is_binary
                    else [_outcomes(one, report) for one, report in zip(sets, reports)]
                )
                calibration, reason = fit_calibration(outcomes, protocol=protocol)
                spec = spec.model_copy(update={"calibration": calibration})
                notify(
                    f"scores of buildings are not calibrated: {reason}"
                    if calibration is None
                    else f"scores of buildings calibrated ({calibration.map.kind}): expected "
                    f"calibration error {calibration.ece_before:.3f} uncalibrated, "
                    f"{calibration.ece_after:.3f} calibrated"
                )
        if spec.is_binary:
            protocol += "; the threshold was chosen on these images by their iou"
        if output == "coarse":
            protocol += "; the segmenter alone, without the refiner"
        metrics += [
            MeasuredMetrics(data=one.name, split="val", protocol=protocol, values=_figures(report))
            for one, report in zip(sets, reports)
            if report.pooled.pixels
        ]
    return replace(bundle, spec=spec.model_copy(update={"metrics": tuple(metrics)}))


def _figures(report: EvalReport) -> dict[str, float]:
    """Return the figures of one set for its record, without those that are not defined."""
    pooled, index = report.pooled, report.building_class
    return rounded_figures(
        {
            "accuracy": pooled.accuracy,
            "iou": pooled.iou(index),
            "iou_all_building": pooled.share(index),
            "mean_iou": pooled.mean_iou,
            "precision": pooled.precision(index),
            "recall": pooled.recall(index),
            **report.outlines.figures(),
        }
    )


def _outcomes(source: SceneSet, report: EvalReport) -> BuildingOutcomes:
    """Return the buildings of a report, none of them as a piece of a divided region."""
    scenes = [(one.score, one.right, np.zeros_like(one.right)) for one in report.images]
    return BuildingOutcomes.of_scenes(source.name, "val", scenes)


def with_int8(
    bundle: ModelBundle, config: TrainConfig, data: TrainingData, sets: Sequence[SceneSet],
    notify: Notify,
) -> ModelBundle:  # fmt: skip
    """Return the bundle with an int8 variant if that is nearly as good as the graph on every set,
    else the same bundle.

    The graph is evaluated in each precision that the processor has and that would be used without
    the variant: fp32, and bf16, whose IoU differs from fp32 on some data by as much as that of
    int8. The loss of IoU on each set is recorded.
    """
    plain = data.samples.unchanged(config.export.int8_samples)
    notify(f"quantising to int8 with {len(plain)} samples")
    graph = bundle.parts[GRAPH_NAME]
    files = quantize_openvino(graph, [plain[i].image for i in range(len(plain))])
    variant = Variant(engine="openvino", precision="int8", files=_INT8_FILES)

    def with_variant(variant: Variant) -> ModelBundle:
        parts = {**bundle.parts, **dict(zip(_INT8_FILES, files))}
        others = (one for one in bundle.spec.variants if one.files != _INT8_FILES)
        spec = bundle.spec.model_copy(update={"variants": (*others, variant)})
        return replace(bundle, spec=spec, parts=parts)

    precisions = ("int8", "fp32", "bf16") if "BF16" in capabilities() else ("int8", "fp32")
    models = [
        of_model(
            ModelSet((with_variant(variant),), engine="openvino", precision=one).ready(),
            pixels_only=True,
        )
        for one in precisions
    ]
    drops: dict[str, float] = {}
    for source in sets:
        reports = compare_with_labels(models, source, _PIXELS)
        if not reports[0].pooled.pixels:
            notify(f"int8 left out: nothing in {source.name} can be predicted and compared")
            return bundle
        # Without a labelled or predicted building, the IoU is not defined, and nothing is lost.
        after, *ious = np.nan_to_num([one.headline(one.pooled) for one in reports], nan=1.0)
        for precision, iou in zip(precisions[1:], ious):
            drops[f"{source.name}/{precision}"] = float(iou - after)
    listed = ", ".join(f"{name} {drop:+.4f}" for name, drop in drops.items())
    if max(drops.values()) > config.export.int8_max_drop:
        notify(f"int8 left out: IoU falls by {listed}, allowed {config.export.int8_max_drop}")
        return bundle
    notify(f"int8 kept: IoU falls by {listed}")
    parity = {f"iou_drop/{name}": round(drop, 5) for name, drop in drops.items()}
    return with_variant(variant.model_copy(update={"parity": parity}))
