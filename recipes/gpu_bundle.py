"""Make a bundle of weights that `gpu_train.py` wrote: of one file, or of the mean of several.

    python recipes/gpu_bundle.py work/trained.rooftrace runs/gpu/mean.safetensors
    python recipes/gpu_bundle.py work/packs/default.safetensors default

The first call writes the bundle of the network with what `default.toml` says of it. The mean of
several files is that of "Averaging weights leads to wider optima" (Izmailov et al. 2018). int8,
threshold, calibration and fingerprint follow, as in `default_model.py`. The second call writes the
weights of a bundle, for `--start` or `--teacher` of `gpu_train.py`.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np
import torch
from gpu_train import network, network_of, save
from safetensors.torch import load_file

from rooftrace.core.config import load_config
from rooftrace.core.system import installed_versions
from rooftrace.engines.openvino import OpenVinoEngine
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, write_bundle
from rooftrace.models.export import (
    ExportableModel,
    export_onnx,
    round_weights_to_fp16,
    store_weights_as_fp16,
)
from rooftrace.models.spec import BundleSpec
from rooftrace.models.start import read_start
from rooftrace.models.zoo import IMAGENET_MEAN, IMAGENET_STD
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
FULL_SCALE = 255
MULTIPLE_PX = 32
MAX_DIFFERENCE = 1e-3
VERSIONS = ("rooftrace", "torch", "segmentation-models-pytorch", "onnx", "openvino", "nncf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    given = parser.parse_args()
    if given.out.suffix == ".safetensors":
        write_weights(given.out, str(given.weights[0]))
    else:
        make_bundle(given.out, given.weights)
    print(given.out, f"{given.out.stat().st_size / 1e6:.1f} MB")


def write_weights(out: Path, model: str) -> None:
    """Write the weights of a bundle."""
    start, net = read_start(model), network()
    start.load_into(net, start.config)
    save(net, out)


def make_bundle(out: Path, weights: list[Path]) -> None:
    """Make a bundle of the mean of weights."""
    config = load_config(RECIPES / "default.toml", TrainConfig)
    net = network_of(mean_of([load_file(path) for path in weights]))
    round_weights_to_fp16(net)
    mean, std = (
        tuple(FULL_SCALE * value for value in values) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    spec = BundleSpec(
        name=config.export.name,
        bands=("red", "green", "blue"),
        dtype="uint8",
        mean=mean,
        std=std,
        gsd_m=config.gsd_m,
        finest_gsd_m=config.finest_gsd_m,
        interpolated_gsd_m=config.interpolated_gsd_m,
        classes=config.data.labels.classes,
        building_class=config.data.labels.building_class,
        input_multiple_px=MULTIPLE_PX,
        context_px=MULTIPLE_PX,
        training=config.model_dump(mode="json"),
        versions=installed_versions(VERSIONS),
        licence=config.export.licence,
        attribution=config.export.attribution,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    model = ExportableModel(net, mean, std).eval()
    graph = store_weights_as_fp16(export_onnx(model, bands=3, multiple_px=MULTIPLE_PX))
    check(model, spec, graph)
    write_bundle(out, spec, {GRAPH_NAME: graph})


def mean_of(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of weights, statistics of normalisations included."""
    return {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0)
        for name in states[0]
    }


def check(model: ExportableModel, spec: BundleSpec, graph: bytes) -> None:
    """Check that the graph gives what the network gives, on noise."""
    engine = OpenVinoEngine(ModelBundle(spec, {GRAPH_NAME: graph}, spec.name), "fp32")
    side = 8 * MULTIPLE_PX
    batch = np.random.default_rng(0).integers(0, 256, (1, 3, side, side)).astype(np.uint8)
    difference = float(np.abs(model.run(batch) - engine.run(batch)).max())
    if difference > MAX_DIFFERENCE:
        raise SystemExit(f"the graph differs from the network by {difference:.2g}")


if __name__ == "__main__":
    main()
