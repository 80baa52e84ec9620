"""Steps and figures of the refinement without a trainer: losses by hand, who learns from what."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from rooftrace.core.config import parse_config
from rooftrace.models.pix2pix import Generator, PatchDiscriminator
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import Batch
from rooftrace.train.refine import RefineTask, adversarial_loss


def config_of(classes: int = 2, **refine: object) -> TrainConfig:
    names = ["background", "building", "road", "water"][:classes]
    raw = {
        "crop_px": 32,
        "data": {
            "train": [{"path": "a"}], "val": [{"path": "b"}], "labels": {"classes": names},
        },
        "refine": {"depth": 2, "discriminator_layers": 1, **refine},
    }  # fmt: skip
    return parse_config(raw, TrainConfig, source="c")


def task_of(segmenter: nn.Module, classes: int = 2, **refine: object) -> RefineTask:
    torch.manual_seed(0)
    config = config_of(classes, **refine)
    channels = config.data.labels.channels
    return RefineTask(
        segmenter, Generator(1, channels, filters=4, depth=2, dropout=0.0),
        PatchDiscriminator(1, channels, filters=4, layers=1), config, mean=(0.0,), std=(1.0,),
        val_names=("b",), fingerprint="0123456789abcdef",
    )  # fmt: skip


def batch_of(classes: int = 2, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 1, 16, 16, generator=rng)
    targets = torch.randint(0, classes, (2, 16, 16), generator=rng, dtype=torch.uint8)
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[0, 12:], valid[1, :, :3] = False, False
    return Batch(images, targets, valid)


def by_hand(task: RefineTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps without a trainer."""
    settings = task.settings
    adam = {"lr": settings.lr, "betas": (settings.beta1, 0.999)}
    both = tuple(
        torch.optim.Adam(net.parameters(), **adam) for net in (task.generator, task.discriminator)
    )
    monkeypatch.setattr(task, "_optimizers", lambda: both)
    monkeypatch.setattr(task, "manual_backward", lambda loss: loss.backward())


def gradients(net: nn.Module) -> list[Any]:
    return [p.grad.clone() for p in net.parameters()]


def test_a_patch_counts_by_what_is_known_of_it() -> None:
    verdict = torch.tensor([[[[0.0, 2.0]]]])
    known = torch.ones(1, 1, 4, 8)
    softplus = [math.log1p(math.exp(x)) for x in (0.0, -2.0, 2.0)]
    real = adversarial_loss(verdict, known, True).item()
    assert real == pytest.approx((softplus[0] + softplus[1]) / 2)
    fake = adversarial_loss(verdict, known, False).item()
    assert fake == pytest.approx((softplus[0] + softplus[2]) / 2)
    known[..., 6:] = 0
    half = adversarial_loss(verdict, known, True).item()
    assert half == pytest.approx((softplus[0] + 0.5 * softplus[1]) / 1.5)
    assert adversarial_loss(verdict, torch.zeros_like(known), True).item() == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_not_valid_teaches_nothing(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = 1 if classes == 2 else classes
    taught = []
    for change in (False, True):
        torch.manual_seed(1)
        task = task_of(nn.Conv2d(1, channels, 1), classes, loss_weight=1.0)
        by_hand(task, monkeypatch)
        batch = batch_of(classes)
        if change:
            other = (batch.targets + 1) % classes
            # As a label may be that says nothing: no class at all.
            other[0, 14] = 255
            batch.targets[~batch.valid] = other[~batch.valid]
        task.training_step(batch, 0)
        taught.append([*gradients(task.generator), *gradients(task.discriminator)])
    assert all(torch.equal(a, b) for a, b in zip(*taught))
    assert any(grad.abs().sum() > 0 for grad in taught[0])


def test_each_network_learns_in_its_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the segmenter changes, nor does the generator learn from judging itself."""
    segmenter = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    before = {k: v.clone() for k, v in segmenter.state_dict().items()}
    task = task_of(segmenter)
    by_hand(task, monkeypatch)
    stepped: list[tuple[str, list[str]]] = []
    for name, optimizer in zip(("generator", "discriminator"), task._optimizers()):
        net = getattr(task, name)
        monkeypatch.setattr(
            optimizer,
            "step",
            lambda name=name, net=net: stepped.append(
                (name, [k for k, p in net.named_parameters() if p.grad is not None])
            ),
        )
    assert not segmenter.training
    task.training_step(batch_of(), 0)
    assert [name for name, _ in stepped] == ["discriminator", "generator"]
    assert all(grads for _, grads in stepped)
    after = task.segmenter.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.grad is None for p in task.segmenter.parameters())
    # The discriminator's gradient is that of judging alone: fooling it adds nothing.
    judged = gradients(task.discriminator)
    batch = batch_of()
    logits, _ = task._both(batch.images)
    truth, drawn, known = task._maps(logits, batch)
    task.discriminator.zero_grad()
    real = adversarial_loss(task.discriminator(batch.images, truth), known, True)
    fake = adversarial_loss(task.discriminator(batch.images, drawn.detach()), known, False)
    ((real + fake) / 2).backward()
    for expected, found in zip(gradients(task.discriminator), judged):
        torch.testing.assert_close(found, expected)
