"""Every registered loss keeps the same contract."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.models.losses import LOSSES, parse_loss

EVERY = [*LOSSES, "0.6*ce + 0.4*dice", "focal(gamma=0.5)", "lovasz(per=batch)"]
SEEDS = st.integers(0, 10_000)
CHANNELS = st.sampled_from([1, 2, 3, 5])


def drawn(seed: int, channels: int) -> tuple[Any, Any, Any]:
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, channels, 4, 5, generator=g, dtype=torch.float64)
    target = torch.randint(0, max(2, channels), (2, 4, 5), generator=g, dtype=torch.uint8)
    valid = torch.rand(2, 4, 5, generator=g) < 0.6
    return logits, target, valid


def truth_as_logits(target: Any, channels: int, sure: float) -> Any:
    if channels == 1:
        return (target[:, None].double() * 2 - 1) * sure
    classes = torch.arange(channels)[None, :, None, None]
    return torch.where(target[:, None] == classes, sure, -sure).double()


@pytest.mark.parametrize("text", EVERY)
@settings(max_examples=25)
@given(seed=SEEDS, channels=CHANNELS, anything=st.integers(0, 255))
def test_what_is_not_valid_has_no_part(text: str, seed: int, channels: int, anything: int) -> None:
    loss = parse_loss(text)
    logits, target, valid = drawn(seed, channels)
    logits.requires_grad_()
    value = loss(logits, target, valid)
    value.backward()
    assert value.ndim == 0
    assert torch.isfinite(value)
    outside = ~valid[:, None].expand_as(logits)
    assert not logits.grad[outside].any()
    if value > 0:
        assert logits.grad[~outside].any()
    # Another answer and another truth there change nothing, be it no class at all.
    other = torch.where(outside, 20 * torch.randn_like(logits), logits.detach())
    other_target = torch.where(valid, target, anything).to(torch.uint8)
    assert loss(other, other_target, valid).item() == pytest.approx(value.item(), abs=1e-9)


@pytest.mark.parametrize("text", EVERY)
@settings(max_examples=25)
@given(seed=SEEDS, channels=CHANNELS)
def test_the_truth_is_the_best_answer(text: str, seed: int, channels: int) -> None:
    logits, target, valid = drawn(seed, channels)
    loss = parse_loss(text)
    right = truth_as_logits(target, channels, 40)
    assert loss(right, target, valid).item() == pytest.approx(0, abs=1e-9)
    assert loss(logits, target, valid).item() >= 0


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("sure", [1e4, -1e4])
def test_extreme_logits_have_finite_gradients(text: str, channels: int, sure: float) -> None:
    _, target, valid = drawn(3, channels)
    logits = truth_as_logits(target, channels, sure).float().requires_grad_()
    value = parse_loss(text)(logits, target, valid)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert (value > 0.05) == (sure < 0)


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_without_valid_pixels_is_harmless(text: str, channels: int) -> None:
    logits = torch.randn(1, channels, 4, 4, requires_grad=True)
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    value = parse_loss(text)(logits, torch.zeros(1, 4, 4, dtype=torch.uint8), nothing)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_following_the_gradient_makes_it_less(text: str, channels: int) -> None:
    logits, target, valid = drawn(7, channels)
    loss = parse_loss(text)
    values = []
    for _ in range(30):
        logits = logits.detach().requires_grad_()
        value = loss(logits, target, valid)
        value.backward()
        values.append(value.item())
        logits = logits - logits.grad
    assert values[-1] < values[0]
