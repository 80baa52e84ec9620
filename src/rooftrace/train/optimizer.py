"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch
from pydantic import Field, model_validator
from torch import nn

from rooftrace.train.kinds import KindConfig

__all__ = ["OptimizerConfig", "make_optimizer"]

Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(KindConfig):
    """How weights are changed.

    Args:
        kind: `adamw` (Loshchilov and Hutter 2019), `adam` (Kingma and Ba 2015) or `sgd`.
        lr: learning rate of everything but a pretrained encoder.
        encoder_lr: learning rate of the encoder; default the same.
        weight_decay: of `adamw` apart from the gradient, default 0.01; of `adam` and `sgd` as an
            L2 penalty that is part of the gradient, as in torch.optim, default 0.
        betas: of `adam` and `adamw`: decay of the means of the gradient and of its square;
            default (0.9, 0.999).
        momentum: of `sgd`; default 0.9.
        nesterov: of `sgd`: Nesterov's momentum, as Sutskever et al. (2013) write it.
        accumulate: batches whose mean gradient makes one step of the optimiser. Warm-up, schedule
            and average count such steps; an epoch has whole ones only.
        clip_norm: the gradient's norm is cut to this; 0 cuts nothing.
        ema_decay: weights are averaged exponentially over steps, and the average is validated and
            shipped (Polyak and Juditsky 1992); faster at first, at most (1 + n) / (10 + n) after
            n steps; 0 turns it off.
    """

    KEYS: ClassVar = {
        "adamw": {"weight_decay": 1e-2, "betas": (0.9, 0.999)},
        "adam": {"weight_decay": 0.0, "betas": (0.9, 0.999)},
        "sgd": {"weight_decay": 0.0, "momentum": 0.9, "nesterov": False},
    }

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Positive = 1e-3
    encoder_lr: Positive | None = None
    weight_decay: Decay = 0.0  # KEYS has the default of each kind
    betas: tuple[Beta, Beta] | None = None
    momentum: Beta | None = None
    nesterov: bool | None = None
    accumulate: Annotated[int, Field(ge=1)] = 1
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> OptimizerConfig:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov = true needs a momentum above 0")
        return self


_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


def make_optimizer(config: OptimizerConfig, net: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a network's weights; those of its `encoder`, if it has one, apart.

    Each group of weights has a `base_lr`, which a schedule multiplies.
    """
    encoder = getattr(net, "encoder", None)
    in_encoder = {id(p) for p in encoder.parameters()} if encoder is not None else set()
    groups = []
    for inside, lr in ((True, config.encoder_lr or config.lr), (False, config.lr)):
        chosen = [p for p in net.parameters() if (id(p) in in_encoder) == inside]
        if chosen:
            groups.append({"params": chosen, "lr": lr, "base_lr": lr})
    # One loop over all weights, a tenth of the time; on a GPU torch chooses what is fast itself.
    fused = True if all(p.device.type == "cpu" for p in net.parameters()) else None
    return _MAKERS[config.kind](groups, lr=config.lr, fused=fused, **config.own)
