"""Each loss against a value worked out by hand; what is not valid has no part in any."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from rooftrace.core.errors import ConfigError  # noqa: E402
from rooftrace.models.losses import LOSSES, parse_loss, probabilities  # noqa: E402


def logit(p: float) -> float:
    return math.log(p / (1 - p))


# Two pixels: a building that was given 0.8, and ground that was given 0.4; a third is not valid.
LOGITS = torch.tensor([[[[logit(0.8), logit(0.4), 50.0]]]], dtype=torch.float64)
TARGET = torch.tensor([[[1, 0, 0]]], dtype=torch.uint8)
VALID = torch.tensor([[[True, True, False]]])
CE = -(math.log(0.8) + math.log(0.6)) / 2
# Intersection 0.8, sides 1 and 1.2; one pixel is added to both parts of the ratio.
DICE = 1 - (2 * 0.8 + 1) / (1 + 1.2 + 1)
JACCARD = 1 - (0.8 + 1) / (2.2 - 0.8 + 1)


@pytest.mark.parametrize(
    ("name", "value"), [("ce", CE), ("bce", CE), ("dice", DICE), ("jaccard", JACCARD)]
)
def test_one_channel_by_hand(name: str, value: float) -> None:
    assert LOSSES[name](LOGITS, TARGET, VALID).item() == pytest.approx(value, rel=1e-9)


# Three classes: the first pixel is class 2 with (0.1, 0.2, 0.7), the second class 0 with (0.5, …).
P3 = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], dtype=torch.float64)
LOGITS3 = P3.log().T[None, :, None, :]
TARGET3 = torch.tensor([[[2, 0]]], dtype=torch.uint8)
VALID3 = torch.ones(1, 1, 2, dtype=torch.bool)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_three_classes_by_hand() -> None:
    assert LOSSES["ce"](LOGITS3, TARGET3, VALID3).item() == pytest.approx(
        -(math.log(0.7) + math.log(0.5)) / 2
    )
    # Each channel against the rest: softplus(x) - x where it is the class, else softplus(x).
    each = [
        softplus(math.log(p)) - (math.log(p) if c == t else 0)
        for row, t in (((0.1, 0.2, 0.7), 2), ((0.5, 0.3, 0.2), 0))
        for c, p in enumerate(row)
    ]
    assert LOSSES["bce"](LOGITS3, TARGET3, VALID3).item() == pytest.approx(sum(each) / 6)
    sides = [(0.5, 0.6 + 1), (0.0, 0.5 + 0), (0.7, 0.9 + 1)]
    dice = sum(1 - (2 * both + 1) / (total + 1) for both, total in sides) / 3
    jaccard = sum(1 - (both + 1) / (total - both + 1) for both, total in sides) / 3
    assert LOSSES["dice"](LOGITS3, TARGET3, VALID3).item() == pytest.approx(dice)
    assert LOSSES["jaccard"](LOGITS3, TARGET3, VALID3).item() == pytest.approx(jaccard)


SEEDS = st.integers(0, 10_000)
CHANNELS = st.sampled_from([1, 2, 3, 5])


def drawn(seed: int, channels: int):  # type: ignore[no-untyped-def]
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, channels, 4, 5, generator=g, dtype=torch.float64)
    target = torch.randint(0, max(2, channels), (2, 4, 5), generator=g, dtype=torch.uint8)
    valid = torch.rand(2, 4, 5, generator=g) < 0.6
    return logits, target, valid


@pytest.mark.parametrize("name", [*LOSSES, "0.6*ce + 0.4*dice"])
@given(seed=SEEDS, channels=CHANNELS)
def test_what_is_not_valid_has_no_part(name: str, seed: int, channels: int) -> None:
    loss = parse_loss(name)
    logits, target, valid = drawn(seed, channels)
    logits.requires_grad_()
    value = loss(logits, target, valid)
    value.backward()
    assert torch.isfinite(value)
    outside = ~valid[:, None].expand_as(logits)
    assert not logits.grad[outside].any()
    if valid.any():
        assert logits.grad[~outside].any()
    # Another answer and another truth there change nothing.
    other = torch.where(outside, 20 * torch.randn_like(logits), logits.detach())
    classes = max(2, channels)
    other_target = torch.where(valid, target, (target + 1) % classes)
    assert loss(other, other_target, valid).item() == pytest.approx(value.item(), abs=1e-9)


@given(seed=SEEDS)
def test_one_channel_stands_for_two(seed: int) -> None:
    two, target, valid = drawn(seed, 2)
    one = two[:, 1:] - two[:, :1]
    assert LOSSES["ce"](one, target, valid).item() == pytest.approx(
        LOSSES["ce"](two, target, valid).item(), rel=1e-9
    )
    assert torch.equal(LOSSES["ce"](one, target, valid), LOSSES["bce"](one, target, valid))
    torch.testing.assert_close(probabilities(one)[:, 0], probabilities(two)[:, 1])


@pytest.mark.parametrize("name", LOSSES)
@given(seed=SEEDS, channels=CHANNELS)
def test_the_truth_is_the_best_answer(name: str, seed: int, channels: int) -> None:
    logits, target, valid = drawn(seed, channels)
    if channels == 1:
        right = (target[:, None].double() * 2 - 1) * 40
    else:
        classes = torch.arange(channels)[None, :, None, None]
        right = torch.where(target[:, None] == classes, 40.0, -40.0).double()
    loss = LOSSES[name]
    assert loss(right, target, valid).item() == pytest.approx(0, abs=1e-9)
    assert loss(logits, target, valid).item() >= 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_valid_pixels_is_harmless(name: str) -> None:
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    value = LOSSES[name](logits, torch.zeros(1, 4, 4, dtype=torch.uint8), nothing)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", {"ce": 1}),
        ("0.6*ce + 0.4*dice", {"ce": 0.6, "dice": 0.4}),
        (" .5 * jaccard+2*bce ", {"jaccard": 0.5, "bce": 2}),
        ("1e-2*ce+dice", {"ce": 0.01, "dice": 1}),
    ],
)
def test_a_sum_is_read(text: str, terms: dict[str, float]) -> None:
    logits, target, valid = drawn(1, 1)
    expected = sum(weight * LOSSES[name](logits, target, valid) for name, weight in terms.items())
    assert parse_loss(text)(logits, target, valid).item() == pytest.approx(expected.item(), 1e-5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is not WEIGHT*NAME"),
        ("ce +", "'' is not WEIGHT*NAME"),
        ("ce - dice", "'ce - dice' is not WEIGHT*NAME"),
        ("ce*0.6", "'ce*0.6' is not WEIGHT*NAME"),
        ("1.2.3*ce", "'1.2.3' is not a number"),
        ("dicee", "no loss named 'dicee'. Did you mean 'dice'"),
    ],
)
def test_what_is_no_sum_is_a_config_error(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_loss(text)
    assert told in caught.value.message
    assert caught.value.remedy


def test_half_precision_is_summed_in_full() -> None:
    # A sum of 400,000 probabilities is beyond the largest number of fp16.
    logits = torch.full((1, 1, 640, 640), 2.0, dtype=torch.float16)
    target = torch.ones(1, 640, 640, dtype=torch.uint8)
    valid = torch.ones(1, 640, 640, dtype=torch.bool)
    value = parse_loss("ce + dice + jaccard")(logits, target, valid)
    p = 1 / (1 + math.exp(-2))
    assert value.item() == pytest.approx(-math.log(p) + 1 - 2 * p / (1 + p) + 1 - p, rel=1e-3)


def test_probabilities_sum_to_one() -> None:
    logits, _, _ = drawn(0, 3)
    torch.testing.assert_close(probabilities(logits).sum(dim=1), torch.ones(2, 4, 5).double())
