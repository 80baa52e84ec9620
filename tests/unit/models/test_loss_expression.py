"""A sum of losses is read as it is written, or what is wrong with it is said."""

import pytest

pytest.importorskip("torch")


from rooftrace.core.errors import ConfigError
from rooftrace.models.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Dice,
    Focal,
    Jaccard,
    LossSum,
    Lovasz,
    Tversky,
    parse_loss,
)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ce", [(1, CrossEntropy())]),
        ("0.6*ce + 0.4*dice", [(0.6, CrossEntropy()), (0.4, Dice())]),
        (" .5 * jaccard+2*bce ", [(0.5, Jaccard()), (2, BinaryCrossEntropy())]),
        ("lovasz()", [(1, Lovasz())]),
        ("lovasz(per=batch)+lovasz(per='image')", [(1, Lovasz(per="batch")), (1, Lovasz())]),
        ('lovasz(per="batch")', [(1, Lovasz(per="batch"))]),
        ("focal(gamma=0, alpha=.25)", [(1, Focal(gamma=0, alpha=0.25))]),
        ("focal(alpha=[1, 2, 3])", [(1, Focal(alpha=(1, 2, 3)))]),
        (
            "tversky(alpha=0.3, beta=0.7) +\n 0.5*ce(label_smoothing=0.1, class_weights=[1, 3])",
            [
                (1, Tversky(alpha=0.3, beta=0.7)),
                (0.5, CrossEntropy(class_weights=(1, 3), label_smoothing=0.1)),
            ],
        ),
    ],
)
def test_a_sum_is_read(text: str, terms: list) -> None:
    assert parse_loss(text) == LossSum(terms=tuple(terms))


@pytest.mark.parametrize(
    ("text", "expected_text"),
    [
        ("", "expected a loss or WEIGHT*LOSS"),
        ("ce - dice", "received 'ce - dice', expected a loss or WEIGHT*LOSS"),
        ("ce*0.6", "received the weight ce, expected a finite number"),
        ("0.6 ce", "is not a sum of losses"),
        ("ce(0.1)", "received 'ce(0.1)', expected a loss"),
        ("tversky(alpha=1, alpha=2)", "received 'alpha=2', expected each NAME=VALUE once"),
        ("dicee", "no loss named 'dicee'. Did you mean 'dice'"),
        ("tversky(alpa=1)", "'alpa'. Did you mean 'alpha'?"),
        ("dice(gamma=2)", "dice takes no parameters, but received ['gamma']"),
        ("tversky(alpha=-1)", "alpha: it should be greater than or equal to 0"),
        ("ce(label_smoothing=1)", "label_smoothing: it should be less than 1"),
        ("ce(class_weights=[1])", "class_weights: it should have at least 2 items"),
        ("lovasz(per=tile)", "per: it should be 'image' or 'batch'"),
    ],
)
def test_what_is_no_sum_is_a_config_error(text: str, expected_text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_loss(text)
    assert expected_text in caught.value.message
    assert caught.value.remedy
