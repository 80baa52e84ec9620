"""Export of the best epoch to a bundle that is not yet measured: contract, graph and weights.

`flows.measure` measures it and writes it.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from rooftrace.core.errors import ExportError
from rooftrace.core.system import installed_versions
from rooftrace.core.text import utc_now
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.models.bundle import GRAPH_NAME, WEIGHTS_NAME, ModelBundle
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
from rooftrace.models.spec import CLICK_BANDS, BundleSpec, MeasuredMetrics
from rooftrace.models.zoo import multiple_px, needs_fixed_size
from rooftrace.train.checkpoint import load_weights
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData
from rooftrace.train.loop import FitResult

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Function from (n, band, y, x) pixel values to (n, channel, y, x) probabilities."""

Notify = Callable[[str], None]
"""Function called with each line of progress."""

_VERSIONS = ("rooftrace", "torch", "segmentation-models-pytorch", "onnx", "openvino", "nncf")

_MAX_PARITY = 1e-3
"""Largest difference of probabilities that rounding explains; beyond it the graph is wrong."""


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
    """Return the bundle of one of the run's best epochs (`best_iou`, `best_loss`), not written.

    Without `contract`, its thresholds are one half, and it has no figures: `flows.measure` measures
    it. The bundle of a click network has the bands of the images and `CLICK_BANDS`, and the figure
    of the validation in training.

    Args:
        path: File that it will be written to.
        refined: Refiner to include, at its own best epoch: one graph has both outputs.
        monitor: Figure by which the epoch is the best, if it is neither of the two.
        contract: Contract with thresholds, figures and calibration that were measured elsewhere.
        start: Model that this one was tuned from: if it is the same network, its graph is used with
            the new weights.

    Raises:
        ExportError: The exported graph does not give the outputs of the network.
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
    if refined is not None:
        spec = spec.model_copy(update={"coarse_threshold": spec.threshold})
    name = path.stem
    notify(f"{name} (epoch {epoch}): exporting the graph")
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
    return ModelBundle(spec, parts, str(path))


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
    return ModelBundle(spec, {GRAPH_NAME: graph}, str(path))


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
            f"The exported graph of {name} does not give the outputs of the network: probabilities "
            f"differ by up to {worst:.4f}, expected at most {_MAX_PARITY}.",
            remedy="The weights are kept in the run's checkpoints. Report the architecture; "
            "export.half_weights = false may help.",
        )
