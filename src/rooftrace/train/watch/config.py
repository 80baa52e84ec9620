"""What a run tells of itself while it goes on, and to whom."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rooftrace.core.config import Config

__all__ = ["WatchConfig"]


class WatchConfig(Config):
    """Besides metrics.csv and curves.png, which every run writes.

    Args:
        panel: at most so many validation tiles are shown in `panel.png`; 0 draws none.
        tensorboard: the figures of each epoch also go to `tensorboard/` in the run's folder.
        mlflow: and to this tracking server (`http://…`) or database (`sqlite:///…`); empty: to
            none. Who one is there is said by MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN.
        experiment: the MLflow experiment; made where there is none of that name.
        run_name: how MLflow calls the run; default the name of its folder.
    """

    panel: Annotated[int, Field(ge=0, le=64)] = 8
    tensorboard: bool = False
    mlflow: str = ""
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "rooftrace"
    run_name: str = ""

    @field_validator("mlflow")
    @classmethod
    def _no_secret(cls, address: str) -> str:
        # The configuration is recorded in the run's folder, where everybody may read it.
        if address.startswith(("http://", "https://")) and urlsplit(address).password:
            raise ValueError(
                "the address holds a password; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD instead"
            )
        return address
