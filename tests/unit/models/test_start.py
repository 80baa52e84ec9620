"""Training starts from a bundle, a run or an exported file; weights that do not fit are listed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from rooftrace.core.errors import BundleError, ConfigError
from rooftrace.engines.select import load_engine
from rooftrace.models.bundle import WEIGHTS_NAME, bundled_model, write_bundle
from rooftrace.models.export import ExportableModel
from rooftrace.models.start import StartModel, fill_from_start, read_start
from rooftrace.models.zoo import ModelConfig, build_model

if TYPE_CHECKING:
    from tests.conftest import TinyRun


def network(start: StartModel, **changes: int) -> nn.Module:
    return build_model(start.config, **{"bands": 3, "channels": 1, **changes})


def difference(start: StartModel, side_px: int = 64) -> float:
    """Return the largest difference of probabilities between the network and its bundle."""
    spec = start.bundle.spec
    net = network(start, bands=len(spec.bands), channels=spec.channels)
    assert start.load_into(net, start.config).share == 1
    tile = np.random.default_rng(0).integers(0, 256, (1, 3, side_px, side_px), np.uint8)
    ours = ExportableModel(net, spec.mean, spec.std).eval().run(tile)
    theirs = load_engine(start.bundle, engine="openvino", precision="fp32").run(tile)
    assert np.ptp(theirs) > 0.01  # a constant answer would agree with anything
    return float(np.abs(ours - theirs).max())


def test_the_default_model_goes_back_into_pytorch() -> None:
    start = read_start("default")
    assert WEIGHTS_NAME not in start.bundle.parts
    assert difference(start, 256) < 1e-4


@pytest.mark.campaign
def test_a_run_a_bundle_and_an_exported_graph_hold_the_same_weights(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from rooftrace.flows.export.run import run_export

    run_export(tiny_run.bundle, "onnx", tmp_path / "model.onnx")
    graph = read_start("model.onnx", tmp_path)
    bundle = read_start(str(tiny_run.bundle))
    assert difference(bundle) < 1e-4
    for other in (graph, read_start(str(tiny_run.run))):
        assert {**other.weights}.keys() >= {
            name for name in bundle.weights if "num_batches" not in name
        }
        assert all(torch.equal(weight, bundle.weights[n]) for n, weight in other.weights.items())


def test_other_classes_and_bands_keep_what_fits() -> None:
    start = read_start("default")
    net = network(start, bands=4, channels=3)
    head = net.segmentation_head[0].weight.detach().clone()
    result = start.load_into(net, start.config)
    assert result.adapted == ("encoder.model.conv_stem.weight",)
    assert result.of_another_shape == (
        "segmentation_head.0.weight (4, 16, 3, 3) for (12, 16, 3, 3)",
        "segmentation_head.0.bias (4,) for (12,)",
    )
    assert (result.missing, result.surplus) == ((), ())
    assert torch.equal(net.segmentation_head[0].weight, head)
    first = start.weights["encoder.model.conv_stem.weight"]
    assert torch.allclose(net.encoder.model.conv_stem.weight[:, 3], first[:, 0] * 3 / 4)
    assert "of another shape: segmentation_head.0.weight" in result.describe()
    assert json.loads(json.dumps(result.to_json()))["loaded"] == len(result.loaded)


def test_another_architecture_takes_the_encoder() -> None:
    start = read_start("default")
    config = ModelConfig(
        architecture="FPN", encoder="tu-efficientnet_lite2", encoder_weights="none"
    )
    net = build_model(config, bands=3, channels=1)
    result = start.load_into(net, config)
    encoder = {name for name in net.state_dict() if name.startswith("encoder.")}
    assert {name for name in encoder if "num_batches" not in name} <= set(result.loaded)
    assert any(name.startswith("decoder.") for name in result.missing)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoder = 'resnet18', but the start model default has"):
        fill_from_start({"model": {"start": "default", "encoder": "resnet18"}}, Path())
    config = ModelConfig(architecture="PlainUnet")
    with pytest.raises(ConfigError, match=r"fit only 0% of the values of PlainUnet\."):
        read_start("default").load_into(build_model(config, bands=3, channels=1), config)
    with pytest.raises(ConfigError, match="both give weights of the encoder"):
        ModelConfig(start="default", encoder_weights="imagenet")


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing.rooftrace", ConfigError, "there is no file"),
        ("empty", BundleError, "contains no .rooftrace file"),
        ("evil.pth", ConfigError, "is a file of weights without a contract, or a pickle"),
        ("evil.rooftrace", BundleError, "cannot be read as a bundle"),
        ("set.json", ConfigError, "is an ensemble"),
        ("$NO_SUCH_VARIABLE/a", ConfigError, "environment variable that is not set"),
    ],
)
def test_files_that_are_no_start_are_refused(
    name: str, error: type[Exception], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "set.json").write_text("{}")
    for evil in ("evil.pth", "evil.rooftrace"):
        (tmp_path / evil).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(error, match=message):
        read_start(name, tmp_path)
    assert not (tmp_path / "evil").exists()


def test_a_bundle_whose_options_open_files_is_refused(tmp_path: Path) -> None:
    bundle = bundled_model()
    training = {"model": {"architecture": "Unet", "options": {"checkpoint_path": "/etc/passwd"}}}
    spec = bundle.spec.model_copy(update={"training": training})
    write_bundle(tmp_path / "bad.rooftrace", spec, bundle.parts)
    with pytest.raises(BundleError, match="name checkpoint_path"):
        read_start("bad.rooftrace", tmp_path)
