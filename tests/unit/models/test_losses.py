"""Each loss against a value worked out by hand; its parameters do what they say."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")


from rooftrace.core.errors import ConfigError
from rooftrace.models.losses import (
    LOSSES,
    BinaryCrossEntropy,
    Boundary,
    CrossEntropy,
    Dice,
    Focal,
    Jaccard,
    Lovasz,
    Tversky,
    _distances,
    parse_loss,
)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9)


# Two pixels: a building that was given 0.8, and ground that was given 0.4; a third is not valid.
LOGITS = torch.tensor([[[[logit(0.8), logit(0.4), 50.0]]]], dtype=torch.float64)
TARGET = torch.tensor([[[1, 0, 0]]], dtype=torch.uint8)
VALID = torch.tensor([[[True, True, False]]])
CE = -(math.log(0.8) + math.log(0.6)) / 2
# Intersection 0.8, sides 1 and 1.2; one pixel is added to both parts of the ratio.
DICE = 1 - (2 * 0.8 + 1) / (1 + 1.2 + 1)
JACCARD = 1 - (0.8 + 1) / (2.2 - 0.8 + 1)
# 0.4 was answered and is not so, 0.2 was missed.
TVERSKY = 1 - (0.8 + 1) / (0.8 + 0.3 * 0.4 + 0.7 * 0.2 + 1)
FOCAL = -(0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2
# Margins log 4 and log 1.5, so errors e0 = 1 - log 4 < 0 and e1 = 1 - log 1.5. In falling order:
# e1 (ground), then e0, which counts nothing. With e1 wrong alone the Jaccard loss is 1 - 1/2.
LOVASZ = 0.5 * (1 - math.log(1.5))
# Each is half a pixel from the edge between them, of a diagonal of √10; 0.2 and 0.4 are wrong.
BOUNDARY = (0.2 + 0.4) / 2 * 0.5 / math.sqrt(1**2 + 3**2)


@pytest.mark.parametrize(
    ("name", "value", "rel"),
    [
        ("ce", CE, 1e-9), ("bce", CE, 1e-9), ("dice", DICE, 1e-9), ("jaccard", JACCARD, 1e-9),
        ("tversky", TVERSKY, 1e-9), ("focal", FOCAL, 1e-9), ("focal_dice", FOCAL + DICE, 1e-9),
        ("lovasz", LOVASZ, 1e-9),
        ("boundary", BOUNDARY, 1e-6),  # distances are of single precision
    ],
)  # fmt: skip
def test_one_channel_by_hand(name: str, value: float, rel: float) -> None:
    assert LOSSES[name]()(LOGITS, TARGET, VALID).item() == pytest.approx(value, rel=rel)


# Three classes: the first pixel is class 2 with (0.1, 0.2, 0.7), the second class 0 with (0.5, …).
P3 = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], dtype=torch.float64)
LOGITS3 = P3.log().T[None, :, None, :]
TARGET3 = torch.tensor([[[2, 0]]], dtype=torch.uint8)
VALID3 = torch.ones(1, 1, 2, dtype=torch.bool)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# Each channel against the rest: softplus(x) - x where it is the class, else softplus(x).
BCE3 = [
    [softplus(math.log(p)) - (math.log(p) if c == t else 0) for c, p in enumerate(row)]
    for row, t in (((0.1, 0.2, 0.7), 2), ((0.5, 0.3, 0.2), 0))
]
# Of each class what is in both, of the answer, of the truth.
SIDES = [(0.5, 0.6, 1), (0.0, 0.5, 0), (0.7, 0.9, 1)]


def of3(loss: Any) -> float:
    return float(loss(LOGITS3, TARGET3, VALID3))


def test_three_classes_by_hand() -> None:
    assert of3(CrossEntropy()) == close(-(math.log(0.7) + math.log(0.5)) / 2)
    assert of3(BinaryCrossEntropy()) == close(sum(map(sum, BCE3)) / 6)
    assert of3(Dice()) == close(sum(1 - (2 * b + 1) / (a + t + 1) for b, a, t in SIDES) / 3)
    assert of3(Jaccard()) == close(sum(1 - (b + 1) / (a + t - b + 1) for b, a, t in SIDES) / 3)
    tversky = (1 - (b + 1) / (b + 0.2 * (a - b) + 0.9 * (t - b) + 1) for b, a, t in SIDES)
    assert of3(Tversky(alpha=0.2, beta=0.9)) == close(sum(tversky) / 3)
    focal = 0.3**2 * math.log(0.7) + 0.5**2 * math.log(0.5)
    assert of3(Focal()) == close(-focal / 2)
    # Classes 0 and 2 are there. Of class 0 the errors are 0.5 (the pixel that has it) and 0.1:
    # with the first wrong alone the Jaccard loss is 1 already. Of class 2: 0.3, then 0.2.
    assert of3(Lovasz()) == close((0.5 + 0.3) / 2)
    # Classes 0 and 2 have an edge between the two pixels, class 1 has none.
    wrong = (0.1 + 0.5 + 0.3 + 0.2) / (3 * 2)
    assert of3(Boundary()) == pytest.approx(wrong * 0.5 / math.sqrt(5), rel=1e-6)


def test_lovasz_by_image_and_by_batch() -> None:
    # Two images of one pixel each: a building with margin 0, and ground with margin -1.
    logits = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    target = torch.tensor([1, 0], dtype=torch.uint8).view(2, 1, 1)
    valid = torch.ones(2, 1, 1, dtype=torch.bool)
    # Errors 1 and 2. Each image alone: its error alone makes the Jaccard loss 1.
    assert Lovasz()(logits, target, valid).item() == close((1 + 2) / 2)
    # Together: the larger error makes it 1/2, both make it 1.
    assert Lovasz(per="batch")(logits, target, valid).item() == close(2 * 0.5 + 1 * 0.5)
    # An image in which nothing is known does not thin the mean out.
    valid[0] = False
    assert Lovasz()(logits, target, valid).item() == close(2)


def test_distances_from_the_outline() -> None:
    inside = torch.tensor([[0, 0, 0, 1, 1, 1]], dtype=torch.bool)[None, None].numpy()
    valid = torch.ones(1, 1, 1, 6, dtype=torch.bool).numpy()
    diagonal = math.sqrt(37)
    found = _distances(inside, valid)[0, 0, 0] * diagonal
    assert found.tolist() == pytest.approx([2.5, 1.5, 0.5, 0.5, 1.5, 2.5])
    # What is not known is on neither side: the nearest known pixel of the other side counts.
    valid[..., 3] = False
    found = _distances(inside, valid)[0, 0, 0] * diagonal
    assert found.tolist() == pytest.approx([3.5, 2.5, 1.5, 0, 1.5, 2.5])
    assert not _distances(inside | True, valid).any()


@pytest.mark.parametrize(
    ("loss", "classes", "expected"),
    [
        (CrossEntropy(class_weights=(1, 3)), 3, "class_weights of the loss has 2 values for 3"),
        (BinaryCrossEntropy(class_weights=(1, 1, 1)), 2, "has 3 values for 2 classes"),
        (Focal(alpha=(1, 3)), 4, "alpha of the loss has 2 values for 4 classes"),
        (Focal(alpha=0.25), 3, "alpha of the loss is 0.25 for 3 classes"),
        (parse_loss("dice + ce(class_weights=[1, 3])"), 5, "has 2 values for 5 classes"),
    ],
    ids=repr,
)
def test_parameters_for_other_classes(loss: Any, classes: int, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        loss.check(classes)
    assert caught.value.remedy
    logits = torch.zeros(1, 1 if classes == 2 else classes, 4, 5)
    target, valid = torch.zeros(1, 4, 5, dtype=torch.uint8), torch.ones(1, 4, 5, dtype=torch.bool)
    with pytest.raises(ConfigError, match=expected):
        loss(logits, target, valid)


def test_half_precision_is_summed_in_full() -> None:
    # A sum of 400,000 probabilities is beyond the largest number of fp16.
    logits = torch.full((1, 1, 640, 640), 2.0, dtype=torch.float16)
    target = torch.ones(1, 640, 640, dtype=torch.uint8)
    valid = torch.ones(1, 640, 640, dtype=torch.bool)
    value = parse_loss("ce + dice + jaccard")(logits, target, valid)
    p = 1 / (1 + math.exp(-2))
    assert value.item() == pytest.approx(-math.log(p) + 1 - 2 * p / (1 + p) + 1 - p, rel=1e-3)
    assert Dice()(logits, target, valid).dtype == torch.float32
