"""Training of a click network, from footprints to answers."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rooftrace.core.config import parse_config
from rooftrace.core.errors import ConfigError
from rooftrace.engines.select import load_engine
from rooftrace.models.bundle import read_bundle
from rooftrace.models.spec import CLICK_BANDS
from rooftrace.models.zoo import ModelConfig, build_model
from rooftrace.train.click_task import ClickNet, ClickTask
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import Batch

NETWORK = {
    "encoder": "tu-test_resnet", "encoder_weights": "none",
    "options": {"decoder_channels": [16, 8, 8, 8, 8]},
}  # fmt: skip


def config(**others: object) -> TrainConfig:
    raw = {
        "data": {"train": [{"path": "a"}], "val": [{"path": "b"}]}, "loss": "0.5*ce + 0.5*dice",
        "clicks": {}, "model": NETWORK, "crop_px": 64, **others,
    }  # fmt: skip
    return parse_config(raw, TrainConfig, source="c")


def click_net() -> ClickNet:
    torch.manual_seed(0)
    plain = build_model(ModelConfig.model_validate(NETWORK), bands=3, channels=1)
    return ClickNet.of(plain, bands=3, extra=len(CLICK_BANDS))


def houses() -> Batch:
    """Return two houses of one colour; only a click shows which of them is wanted."""
    images = torch.full((2, 3, 64, 64), 40.0)
    numbers = torch.zeros((2, 64, 64), dtype=torch.int32)
    for number, (rows, cols) in enumerate(((slice(20, 44), slice(4, 26)),
                                           (slice(20, 44), slice(38, 60)))):  # fmt: skip
        images[:, :, rows, cols] = 200.0
        numbers[:, rows, cols] = number + 1
    valid = torch.ones((2, 64, 64), dtype=torch.bool)
    return Batch(images, (numbers > 0).byte(), valid, numbers)


@pytest.mark.campaign
def test_it_learns_which_house_is_clicked() -> None:
    task = ClickTask(
        click_net(), config(), mean=(100,) * 3, std=(60,) * 3, val_names=("b",), total_steps=10
    )
    before = {name: value.clone() for name, value in task.net.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(
        [one for one in task.net.parameters() if one.requires_grad], lr=5e-3
    )
    task.train()
    for step in range(60):
        torch.manual_seed(step)
        loss = task.training_step(houses(), 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    task.eval()
    from rooftrace.models.clicks import Click
    from rooftrace.train.click_task import _maps

    batch = houses()
    clicks = [[Click(32, 15)], [Click(32, 49)]]
    images = task.normalise(batch.images)
    with torch.no_grad():
        maps = _maps(clicks, torch.zeros_like(images[:, :1]))
        answers = task.net.decode(images, task.net.encode(images), maps)[:, 0] > 0
        joined = task.net(torch.cat([images, maps], dim=1))[:, 0] > 0
    assert torch.equal(answers, joined)
    for answer, number in zip(answers, (1, 2)):
        wanted = batch.instances[0] == number
        assert (answer & wanted).sum() / (answer | wanted).sum() > 0.7
    # The encoder is that of the segmenter, to the bit.
    for name, value in task.net.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_sample_without_a_building_counts_nothing() -> None:
    task = ClickTask(
        click_net(), config(), mean=(0,) * 3, std=(1,) * 3, val_names=("b",), total_steps=10
    )
    empty = houses()._replace(instances=torch.zeros((2, 64, 64), dtype=torch.int32))
    loss = task.training_step(empty, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(not one.grad.any() for one in task.net.parameters() if one.grad is not None)
    task.validation_step(empty, 0)
    assert task._val[0].counts.pixels == 0


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"refine": {"depth": 2}}, "has no refine"),
        ({"export": {"int8": True}}, "has no export.int8"),
        ({"export": {"weights": True}}, "has no export.weights: leave it out"),
        ({"optimizer": {"encoder_lr": 1e-4}}, "has no optimizer.encoder_lr"),
        ({"model": {**NETWORK, "dropout": 0.2}}, "has no model.dropout"),
        ({"data": {"train": [{"path": "a"}], "val": [{"path": "b"}],
                   "labels": {"classes": ["none", "building", "road"]}}}, "needs two classes"),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_with_clicks(others: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**others)


def test_a_network_without_an_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an encoder with features at the strides"):
        ClickNet.of(torch.nn.Conv2d(3, 1, 1), bands=3, extra=3)


def write_config(folder: Path, more: str = "") -> Path:
    """Write three pairs, and the configuration of a click network that trains on them."""
    from town import write_pairs

    write_pairs(folder / "data", range(3), shape_yx=(128, 128), gsd_m=0.3)
    path = folder / "clicks.toml"
    path.write_text(
        f"""
gsd_m = 0.3
crop_px = 64
epochs = 2
samples_per_epoch = 8
batch_size = 4
precision = "fp32"
device = "cpu"
[clicks]
[model]
encoder = "tu-test_resnet"
encoder_weights = "none"
[[data.train]]
path = "data"
[[data.val]]
path = "data"
[augment]
prefer_buildings = 1.0
{more}
""",
        encoding="utf-8",
    )
    return path


@pytest.mark.campaign
def test_from_a_configuration_to_clicks(tmp_path: Path) -> None:
    from rooftrace.flows.train import run_train
    from rooftrace.predict.clicks import ClickSegmenter, load_clicks
    from town import generate_scene

    path = write_config(tmp_path)
    report = run_train(path, tmp_path / "run")
    trained = report.best["best_iou"][2]
    bundle = read_bundle(trained)
    assert bundle.spec.takes_clicks
    batch = np.random.default_rng(0).random((2, 6, 64, 96)).astype(np.float32)
    answers = [
        load_engine(bundle, engine=engine, precision="fp32").run(batch)
        for engine in ("openvino", "onnxruntime")
    ]
    np.testing.assert_allclose(*answers, atol=1e-4)
    scene = generate_scene(4, (128, 128), 0.3)
    answer = ClickSegmenter(scene.image, load_clicks(trained), gsd_m=0.3).click(64, 64)
    assert answer.mask.shape == answer.window.shape_yx
    # A run that is resumed after it ended gives the same weights.
    first = trained.read_bytes()
    again = run_train(path, tmp_path / "run", resume=True)
    assert read_bundle(again.best["best_iou"][2]).parts == bundle.parts
    assert len(first) < 10_000_000
