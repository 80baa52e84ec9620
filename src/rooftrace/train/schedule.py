"""The learning rate as a factor of its base value.

Kept apart from the optimiser so that its whole state is three numbers in the checkpoint, and a
resumed run goes on at exactly the rate it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rooftrace.train.kinds import KindConfig
from rooftrace.train.monitor import Mode, sign_of

__all__ = ["Schedule", "ScheduleConfig"]

Share = Annotated[float, Field(gt=0, lt=1)]


class ScheduleConfig(KindConfig):
    """How the learning rate goes.

    Args:
        kind: `plateau`: by `factor` when `monitor` gets no better; `step`: by `factor` every
            `step_epochs` epochs; `cosine`: to `min_lr` over all steps of the run (Loshchilov and
            Hutter 2017, without restarts); `onecycle`: up to `optimizer.lr` and down again (Smith
            2018); `none`.
        factor: of `plateau`, default 0.5, and of `step`, default 0.1.
        patience: of `plateau`: so many epochs without a better `monitor` are borne; default 3.
        min_lr: of `plateau` and `cosine`: not below this; default 1e-6. For an encoder with a rate
            of its own it is less in proportion.
        monitor: of `plateau`: any figure of metrics.csv; default `val_loss`.
        mode: of `plateau`: whether `min` or `max` is better; `auto`: `min` for a loss, else `max`.
        step_epochs: of `step`; default 10.
        warm_share: of `onecycle`: share of the run in which the rate rises; default 0.3.
        start, end: of `onecycle`: the first and the last rate in shares of the highest; default
            1/25 and 1/250,000, those of torch.optim.lr_scheduler.OneCycleLR. Its momentum stays.
        warmup_steps: of all but `onecycle`: the rate rises linearly from nothing over so many
            steps first; default 0.
    """

    KEYS: ClassVar = {
        "plateau": {
            "factor": 0.5, "patience": 3, "min_lr": 1e-6, "monitor": "val_loss", "mode": "auto",
            "warmup_steps": 0,
        },
        "step": {"factor": 0.1, "step_epochs": 10, "warmup_steps": 0},
        "cosine": {"min_lr": 1e-6, "warmup_steps": 0},
        "onecycle": {"warm_share": 0.3, "start": 1 / 25, "end": 1 / 250_000},
        "none": {"warmup_steps": 0},
    }  # fmt: skip

    kind: Literal["plateau", "step", "cosine", "onecycle", "none"] = "plateau"
    factor: Share | None = None
    patience: Annotated[int, Field(ge=0)] | None = None
    min_lr: Annotated[float, Field(ge=0)] | None = None
    monitor: str | None = None
    mode: Mode | None = None
    step_epochs: Annotated[int, Field(ge=1)] | None = None
    warm_share: Share | None = None
    start: Annotated[float, Field(gt=0, le=1)] | None = None
    end: Annotated[float, Field(ge=0, le=1)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None


class Schedule:
    """The factor of each step.

    Args:
        config: which schedule.
        base_lr: what the factor is of; `min_lr` is a rate, not a factor.
        total_steps: of the optimiser in the whole run, for `cosine` and `onecycle`.
    """

    def __init__(self, config: ScheduleConfig, *, base_lr: float, total_steps: int) -> None:
        self._kind, self._own = config.kind, config.own
        self._lowest = min(1.0, self._own.get("min_lr", 0.0) / base_lr)
        self._total = max(1, total_steps)
        self._plateau = 1.0
        self._best = math.nan
        self._waited = 0

    def factor(self, step: int, epoch: int) -> float:
        """For the step of the run and the epoch with these numbers, counted from 0."""
        if self._kind == "onecycle":
            return _one_cycle(step, self._total, **self._own)
        warmup: int = self._own["warmup_steps"]
        rise = min(1.0, (step + 1) / (warmup + 1))
        if self._kind == "cosine":
            share = min(1.0, max(0.0, (step - warmup) / max(1, self._total - warmup)))
            return rise * _between(1.0, self._lowest, share)
        if self._kind == "step":
            fall: float = self._own["factor"] ** (epoch // self._own["step_epochs"])
            return rise * fall
        return rise * self._plateau

    def observe(self, figures: Mapping[str, float]) -> None:
        """Take note of an epoch's figures; `plateau` may lower the rate.

        Raises:
            KeyError: `monitor` is none of them.
        """
        if self._kind != "plateau":
            return
        value = figures[self._own["monitor"]]
        sign = sign_of(self._own["monitor"], self._own["mode"])
        if sign * value > sign * self._best or (math.isnan(self._best) and not math.isnan(value)):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self._own["patience"]:
            self._plateau = max(self._lowest, self._plateau * self._own["factor"])
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"plateau": self._plateau, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._plateau = state["plateau"]
        self._best = state["best"]
        self._waited = state["waited"]


def _one_cycle(step: int, total: int, *, warm_share: float, start: float, end: float) -> float:
    """From `start` to 1 and on to `end`, both along half a cosine."""
    top, last = warm_share * total - 1, total - 1
    if step <= top and top > 0:
        return _between(start, 1.0, step / top)
    top = max(0.0, top)
    return _between(1.0, end, min(1.0, (step - top) / (last - top)) if last > top else 1.0)


def _between(first: float, last: float, share: float) -> float:
    """Along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
