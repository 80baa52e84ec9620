"""Each optimiser is that of torch, with every key of its own."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from rooftrace.train.config import OptimizerConfig
from rooftrace.train.task import make_optimizer


def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1)


def weights_after(make: Any) -> Any:
    """Return the weights after three steps with gradients that are not those of a quadratic."""
    module = net()
    optimizer = make(module)
    inputs = torch.linspace(-1, 1, 20).reshape(5, 4)
    for _ in range(3):
        optimizer.zero_grad()
        module(inputs).exp().mean().backward()
        optimizer.step()
    return module.weight.detach().clone()


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({"lr": 0.1}, lambda p: torch.optim.AdamW(p, lr=0.1)),
        (
            {"kind": "adamw", "lr": 0.1, "weight_decay": 0.3, "betas": (0.5, 0.8)},
            lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3, betas=(0.5, 0.8)),
        ),
        ({"kind": "adam", "lr": 0.1}, lambda p: torch.optim.Adam(p, lr=0.1)),
        (
            {"kind": "adam", "lr": 0.1, "weight_decay": 0.3, "betas": (0.5, 0.8)},
            lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.3, betas=(0.5, 0.8)),
        ),
        ({"kind": "sgd", "lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (
            {"kind": "sgd", "lr": 0.1, "weight_decay": 0.3, "momentum": 0.5, "nesterov": True},
            lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.3, momentum=0.5, nesterov=True),
        ),
    ],
)
def test_it_is_that_of_torch(settings: dict[str, Any], theirs: Any) -> None:
    ours = weights_after(lambda m: make_optimizer(OptimizerConfig(**settings), m))
    expected = weights_after(lambda m: theirs(m.parameters()))
    # Fused, it rounds elsewhere.
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(ours, net().weight)
