"""Assumptions of an evaluation that the user should know: the scale of images, and mask labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rooftrace.core.text import plain_number, plural
from rooftrace.core.types import Scene
from rooftrace.predict.plan import SceneOptions

__all__ = ["ScaleCounts", "note_on_masks"]

_Origin = Literal["given", "georeference", "unknown"]

_ORIGINS: dict[_Origin, str] = {"given": "as given", "georeference": "by their georeference"}


@dataclass
class ScaleCounts:
    """Metres per pixel of the evaluated images, by their origin."""

    _found: dict[_Origin, list[float]] = field(default_factory=dict)

    def add(self, scene: Scene) -> None:
        """Count an image."""
        stated_m, own_m = scene.stated_gsd_m, scene.image.grid.gsd_m
        if stated_m is not None:
            self._found.setdefault("given", []).append(stated_m)
        elif own_m is not None:
            self._found.setdefault("georeference", []).append(own_m)
        else:
            self._found.setdefault("unknown", []).append(0.0)

    def notes(self, model_gsd_m: float, images: SceneOptions) -> tuple[str, ...]:
        """Return one note on the metres per pixel with which a model read the images.

        Args:
            model_gsd_m: Metres per pixel of the model.
            images: Options with which the images were read.
        """
        if not self._found:
            return ()
        if images.scale is not None:
            count = plural(sum(map(len, self._found.values())), "image")
            return (
                f"Scale: {count} resized by the factor {plain_number(images.scale)}, as given.",
            )
        parts = []
        for origin, text in _ORIGINS.items():
            if values := self._found.get(origin):
                lowest, highest = plain_number(min(values)), plain_number(max(values))
                span = lowest if lowest == highest else f"{lowest} to {highest}"
                parts.append(f"{plural(len(values), 'image')} at {span} m per pixel, {text}")
        if values := self._found.get("unknown"):
            parts.append(
                f"{plural(len(values), 'image')} without metres per pixel, assumed to have the "
                f"model's {plain_number(model_gsd_m)} m; if that is wrong, give them with --gsd"
            )
        return (f"Scale: {'; '.join(parts)}.",)


def note_on_masks(masks: int, scenes: int) -> tuple[str, ...]:
    """Return the note that buildings in masks are not divided.

    Args:
        masks: Number of scenes with a building whose labels are masks of classes.
        scenes: Number of all scenes.
    """
    if not masks:
        return ()
    which = "The labels" if masks == scenes else f"The labels of {plural(masks, 'image')}"
    return (f"{which} are masks of pixels: touching buildings count as one.",)
