"""Prompts, by which a user or a program hints at an object, and the networks that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.types import Window
from rooftrace.models.clicks import Click


@dataclass(frozen=True)
class Prompt:
    """Hints at one object of an image: clicks, a box, or both.

    Args:
        clicks: Places in the object and outside of it.
        box: Window around the object; None for clicks alone.

    Raises:
        ConfigError: There is neither a click nor a box.
    """

    clicks: tuple[Click, ...] = ()
    box: Window | None = None

    def __post_init__(self) -> None:
        if not self.clicks and self.box is None:
            raise ConfigError(
                "A prompt has neither a click nor a box.", remedy="Give a click or a box."
            )


@dataclass(frozen=True)
class Segment:
    """Object that a network found for a prompt.

    Args:
        mask: (y, x) bool on the pixels of the image.
        score: IoU with the true object that the network estimates, about 0..1.
    """

    mask: NDArray[np.bool_]
    score: float


class PromptSegmenter(Protocol):
    """Network that outlines the object at which a prompt hints."""

    @property
    def record(self) -> dict[str, Any]:
        """Everything on which its results depend, as plain data."""
        ...

    def encode(self, image: NDArray[np.uint8]) -> Any:
        """Return the features of an image (3, y, x), red, green and blue, for any prompts."""
        ...

    def segment(self, image: Any, prompt: Prompt) -> Segment:
        """Return the object of a prompt on the pixels of an image that `encode` has returned."""
        ...
