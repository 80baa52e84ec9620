"""What can be chosen for a job, as parameters of its address."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rooftrace.predict.options import OUTPUTS, SceneOptions, SceneOutput
from rooftrace.rest.scene_query import SceneQuery

__all__ = ["JobQuery"]


class JobQuery(SceneQuery):
    """The options of a job."""

    outputs: Annotated[
        list[SceneOutput],
        Field(min_length=1, max_length=len(OUTPUTS), description="What is made; default all."),
    ] = list(OUTPUTS)  # noqa: RUF012  # pydantic copies it
    forgiving: Annotated[
        bool,
        Field(
            description="Whether a tile that cannot be read or run becomes nodata, and the rest "
            "goes on."
        ),
    ] = False

    @property
    def options(self) -> SceneOptions:
        """What the predictor is told."""
        outputs = tuple(output for output in OUTPUTS if output in self.outputs)
        return self.scene_options(outputs, forgiving=self.forgiving)
