"""The part of a configuration that says where data lies and how it is read."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from rooftrace.core.config import Config, nearest
from rooftrace.data.labels import Colour, LabelRule, NameRule
from rooftrace.io.legend import NODATA, filled_colours
from rooftrace.io.raster import NodataRule

V = TypeVar("V", str, int)
K = TypeVar("K", bound=Hashable)
Value = Annotated[int, Field(ge=0, le=65535)]

__all__ = ["DataConfig", "LabelConfig", "SourceConfig", "nodata_rule"]


def _colour(text: str) -> Colour:
    match = re.fullmatch(r"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})", text)
    if match is None:
        raise ValueError(f"{text!r} is not a colour such as #3C1098")
    red, green, blue = (int(part, 16) for part in match.groups())
    return red, green, blue


def _shown(key: object) -> str:
    return "#{:02X}{:02X}{:02X}".format(*key) if isinstance(key, tuple) else repr(key)


def _listed(table: Mapping[str, V | tuple[V, ...]] | None) -> dict[str, tuple[V, ...]]:
    """One value or several for each name, as several."""
    return {
        name: given if isinstance(given, tuple) else (given,)
        for name, given in (table or {}).items()
    }


class LabelConfig(Config):
    """What masks mean.

    Args:
        classes: names; index 0 is the background.
        building: the class whose footprints are drawn.
        palette: class name to `#RRGGBB`, or a list of such colours, where masks are RGB.
        values: class name to a value, or a list of values, where masks are single values that are
            not the class indices: so classes are merged, moved and (as background) dropped.
        names: class name to a name, or a list of names, where labels come with names of their own
            (Label Studio, COCO, an attribute of footprints). A label that has the name of a class,
            in whatever case, needs no entry.
        drop: such names whose shapes are not drawn at all.
        ignore: values, colours (`#RRGGBB`) or names that take no part in loss or metrics.
        colours: class name to the `#RRGGBB` that the model draws it in; default its first colour of
            the palette, else one of a fixed table.
    """

    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=256)] = (
        "background",
        "building",
    )
    building: str = "building"
    palette: dict[str, str | tuple[str, ...]] | None = None
    values: dict[str, Value | tuple[Value, ...]] | None = None
    names: dict[str, str | tuple[str, ...]] | None = None
    drop: tuple[str, ...] = ()
    ignore: tuple[int | str, ...] = ()
    colours: dict[str, str] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> LabelConfig:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes holds a name twice: {list(self.classes)}")
        if self.building not in self.classes[1:]:
            raise ValueError(
                f"building = {self.building!r} is not one of the classes {list(self.classes[1:])}. "
                + nearest(self.building, self.classes)
            )
        if self.palette is not None and self.values is not None:
            raise ValueError("palette and values say the same thing; give one of them")
        # Their errors belong to the configuration, not to the first mask.
        self.rule()
        self.named()
        self.drawn_in()
        return self

    @property
    def building_class(self) -> int:
        return self.classes.index(self.building)

    @property
    def channels(self) -> int:
        """Of a network's answer: one stands for two classes."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    def rule(self) -> LabelRule:
        """How pixels are read."""
        colours = tuple(v for v in self.ignore if isinstance(v, str) and v.startswith("#"))
        numbers = tuple(v for v in self.ignore if isinstance(v, int))
        if self.palette is None:
            if colours:
                raise ValueError(f"ignore holds colours {list(colours)}, but there is no palette")
            values = None if self.values is None else self._inverse("values", _listed(self.values))
            return LabelRule(self.classes, None, numbers, values)
        if numbers:
            raise ValueError(f"ignore holds values {list(numbers)}, but the masks are colours")
        palette = {
            name: tuple(_colour(text) for text in texts)
            for name, texts in _listed(self.palette).items()
        }
        ignored = tuple(_colour(text) for text in colours)
        return LabelRule(self.classes, self._inverse("palette", palette), ignored)

    def drawn_in(self) -> tuple[str, ...]:
        """`#RRGGBB` of each class, at most 255; none where no class was given one."""
        first = {name: texts[0] for name, texts in _listed(self.palette).items() if texts}
        given = first | (self.colours or {})
        inverse = self._inverse("colours", {name: (_colour(t),) for name, t in given.items()})
        known = {index: _shown(colour) for colour, index in inverse}
        return filled_colours(known, min(len(self.classes), NODATA)) if known else ()

    def named(self) -> NameRule:
        """How the names of labels are read."""
        given = dict(self._inverse("names", _listed(self.names)))
        for index, name in enumerate(self.classes):
            given.setdefault(name, index)
        ignored = {v for v in self.ignore if isinstance(v, str) and not v.startswith("#")}
        if twice := (ignored | set(self.drop)) & set(given) or ignored & set(self.drop):
            raise ValueError(f"{sorted(twice)} are both used and left out")
        return NameRule(
            self.classes, tuple(given.items()), frozenset(self.drop), frozenset(ignored)
        )

    def _inverse(self, key: str, named: Mapping[str, tuple[K, ...]]) -> tuple[tuple[K, int], ...]:
        """What stands for a class, with the class's index."""
        entries: dict[K, int] = {}
        for name, given in named.items():
            if name not in self.classes:
                raise ValueError(
                    f"{key} names {name!r}, which is not a class. {nearest(name, self.classes)}"
                )
            index = self.classes.index(name)
            for one in given:
                if entries.setdefault(one, index) != index:
                    raise ValueError(f"{key}: {_shown(one)} is given to two classes")
        return tuple(entries.items())


class SourceConfig(Config):
    """One set of data: a folder of image/mask pairs, or any other kind of `data.kinds`.

    Args:
        path: a folder or a file; `$NAME` and `~` are expanded, relative to the configuration's
            folder.
        kind: see `data.kinds`; default: found by looking.
        name: what reports call it; default the name of the path.
        images: where the images lie that a label file names: a folder, or one scene; default
            beside the file. Relative to the configuration's folder.
        glob: patterns on image file names, such as `"*-21.png"`.
        part: a slice of the names in sorted order, such as `"[:15]"`.
        gsd_m: metres per pixel; default from the georeference.
        share: weight of this set in what training draws; default its share of the pixels.
        nodata: `"alpha"` (default: a file's own alpha or nodata), a value, or a colour.
        labels: what its labels mean, where that differs from the run's; the classes must not.
        label_shift_px: all labels are moved by so many pixels down and to the right, where they
            lie off what their images show; what comes in at the edge is not known.
        chip_px: scenes are cut into squares of this side, side by side, on demand.
        min_built_up: scenes with less of the building class (in shares of their valid pixels) are
            left out; so are those above `max_built_up`.
        layout: of a folder: `IMAGE_PATTERN=MASK_PATTERN` with `{id}`; default: found by looking.
        order: of an RLE table: whether runs go along rows or down columns.
        annotator: of a Label Studio export: whose labels, or `"union"` or `"majority"` of all.
        field: of footprints: the attribute that names the class; default: all are buildings. Of a
            Label Studio export: the key of a task's data that names its image.
        zoom: of slippy tiles: only those of this zoom.
    """

    path: str
    kind: str | None = None
    name: str = ""
    images: str | None = None
    glob: str | tuple[str, ...] = ()
    part: str | None = None
    gsd_m: Annotated[float, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    nodata: str | float | tuple[float, ...] = "alpha"
    labels: LabelConfig | None = None
    label_shift_px: tuple[int, int] = (0, 0)
    chip_px: Annotated[int, Field(ge=16)] | None = None
    min_built_up: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_built_up: Annotated[float, Field(ge=0, le=1)] = 1.0
    layout: str | None = None
    order: Literal["row", "column"] | None = None
    annotator: str | None = None
    field: str | None = None
    zoom: Annotated[int, Field(ge=0, le=30)] | None = None

    @field_validator("nodata")
    @classmethod
    def _known_nodata(cls, value: object) -> object:
        if isinstance(value, str) and value != "alpha":
            raise ValueError('expected "alpha", a number or a colour such as [255, 255, 255]')
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SourceConfig:
        if self.min_built_up > self.max_built_up:
            raise ValueError(
                f"min_built_up = {self.min_built_up} is above max_built_up = {self.max_built_up}"
            )
        if self.labels is not None and self.labels.colours is not None:
            raise ValueError("labels.colours is of the model, not of one set: see [data.labels]")
        return self

    @property
    def globs(self) -> tuple[str, ...]:
        return (self.glob,) if isinstance(self.glob, str) else self.glob


class DataConfig(Config):
    """Sets for training and validation.

    Args:
        train: where samples are drawn from.
        val: what progress is judged on; without it `split` divides the training sets.
        split: a file of `rooftrace split`, relative to the configuration's folder.
        labels: what masks mean.
        cache_mb: decoded images are kept in memory up to this; beyond it they are read by window.
    """

    train: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    val: tuple[SourceConfig, ...] = ()
    split: str | None = None
    labels: LabelConfig = LabelConfig()
    cache_mb: Annotated[int, Field(ge=0)] = 4096


def nodata_rule(nodata: str | float | tuple[float, ...]) -> NodataRule:
    """`"alpha"`, a value or a colour as image readers want it."""
    if isinstance(nodata, str):
        return NodataRule()
    if isinstance(nodata, tuple):
        return NodataRule(colour=nodata)
    return NodataRule(value=nodata)
