"""The part of a configuration that says where data lies and how it is read."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from rooftrace.core.config import Config, nearest
from rooftrace.data.labels import Colour, LabelRule
from rooftrace.io.raster import NodataRule

__all__ = ["DataConfig", "FolderConfig", "LabelConfig", "nodata_rule"]


class FolderConfig(Config):
    """One folder of image/mask pairs.

    Args:
        path: the folder; `$NAME` and `~` are expanded, relative to the configuration's folder.
        name: what reports call it; default the folder's name.
        layout: `IMAGE_PATTERN=MASK_PATTERN` with `{id}`; default: found by looking.
        glob: patterns on image file names, such as `"*-21.png"`.
        part: a slice of the names in sorted order, such as `"[:15]"`.
        gsd_m: metres per pixel; default from the georeference.
        share: weight of this folder in what training draws; default its share of the pixels.
        nodata: `"alpha"` (default: a file's own alpha or nodata), a value, or a colour.
    """

    path: str
    name: str = ""
    layout: str | None = None
    glob: str | tuple[str, ...] = ()
    part: str | None = None
    gsd_m: Annotated[float, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    nodata: str | float | tuple[float, ...] = "alpha"

    @field_validator("nodata")
    @classmethod
    def _known_nodata(cls, value: object) -> object:
        if isinstance(value, str) and value != "alpha":
            raise ValueError('expected "alpha", a number or a colour such as [255, 255, 255]')
        return value

    @property
    def globs(self) -> tuple[str, ...]:
        return (self.glob,) if isinstance(self.glob, str) else self.glob


class LabelConfig(Config):
    """What masks mean.

    Args:
        classes: names; index 0 is the background.
        building: the class whose footprints are drawn.
        palette: class name to `#RRGGBB`, or a list of such colours, where masks are RGB.
        ignore: values, or colours where masks are RGB, that take no part in loss or metrics.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=256)] = (
        "background",
        "building",
    )
    building: str = "building"
    palette: dict[str, str | tuple[str, ...]] | None = None
    ignore: tuple[int | str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> LabelConfig:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes holds a name twice: {list(self.classes)}")
        if self.building not in self.classes[1:]:
            raise ValueError(
                f"building = {self.building!r} is not one of the classes {list(self.classes[1:])}. "
                + nearest(self.building, self.classes)
            )
        self.rule()  # its errors belong to the configuration, not to the first mask
        return self

    @property
    def building_class(self) -> int:
        return self.classes.index(self.building)

    def rule(self) -> LabelRule:
        """The same as the readers want it."""
        if self.palette is None:
            if strings := [v for v in self.ignore if isinstance(v, str)]:
                raise ValueError(f"ignore holds colours {strings}, but there is no palette")
            return LabelRule(self.classes, None, tuple(int(v) for v in self.ignore))
        entries: dict[Colour, int] = {}
        for name, colours in self.palette.items():
            if name not in self.classes:
                raise ValueError(
                    f"palette names {name!r}, which is not a class. {nearest(name, self.classes)}"
                )
            for text in (colours,) if isinstance(colours, str) else colours:
                colour = _colour(text)
                if entries.setdefault(colour, self.classes.index(name)) != self.classes.index(name):
                    raise ValueError(f"the colour {text} is given to two classes")
        ignored = tuple(_colour(str(value)) for value in self.ignore)
        return LabelRule(self.classes, tuple(entries.items()), ignored)


class DataConfig(Config):
    """Folders for training and validation.

    Args:
        train: where samples are drawn from.
        val: what progress is judged on; without it `split` divides the training folders.
        split: a file of `rooftrace split`, relative to the configuration's folder.
        labels: what masks mean.
        cache_mb: decoded images are kept in memory up to this; beyond it they are read by window.
    """

    train: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]
    val: tuple[FolderConfig, ...] = ()
    split: str | None = None
    labels: LabelConfig = LabelConfig()
    cache_mb: Annotated[int, Field(ge=0)] = 4096


def _colour(text: str) -> Colour:
    match = re.fullmatch(r"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})", text)
    if match is None:
        raise ValueError(f"{text!r} is not a colour such as #3C1098")
    red, green, blue = (int(part, 16) for part in match.groups())
    return red, green, blue


def nodata_rule(nodata: str | float | tuple[float, ...]) -> NodataRule:
    """`"alpha"`, a value or a colour as image readers want it."""
    if isinstance(nodata, str):
        return NodataRule()
    if isinstance(nodata, tuple):
        return NodataRule(colour=nodata)
    return NodataRule(value=nodata)
