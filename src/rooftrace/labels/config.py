"""Configuration of data: where it lies, how it is read, and what its labels mean."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field, field_validator, model_validator

from rooftrace.core.config import Config, PathField, expand_path, find_paths, replace_paths
from rooftrace.core.scales import LEAST_GSD_M, MOST_GSD_M
from rooftrace.io.legend import NODATA, Colour, filled_colours
from rooftrace.io.nodata import NodataRule
from rooftrace.labels.mask_values import LabelRule, NameRule

V = TypeVar("V", str, int)
K = TypeVar("K", bound=Hashable)
Value = Annotated[int, Field(ge=0, le=65535)]


def _colour(text: str) -> Colour:
    match = re.fullmatch(r"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})", text)
    if match is None:
        raise ValueError(f"{text!r} is not a colour such as #3C1098")
    red, green, blue = (int(part, 16) for part in match.groups())
    return red, green, blue


def _format_key(key: object) -> str:
    return "#{:02X}{:02X}{:02X}".format(*key) if isinstance(key, tuple) else repr(key)


def _as_tuples(table: Mapping[str, V | tuple[V, ...]] | None) -> dict[str, tuple[V, ...]]:
    """Return each value of a table as a tuple, also if it is a single value."""
    return {
        name: given if isinstance(given, tuple) else (given,)
        for name, given in (table or {}).items()
    }


_USUAL = ("background", "building")


class LabelConfig(Config):
    """Meaning of labels.

    Args:
        classes: Class names; index 0 is the background.
        building: Class whose footprints are drawn.
        palette: Mapping from class name to `#RRGGBB`, or to a list of such colours, for RGB masks.
        values: Mapping from class name to a value, or to a list of values, for masks whose values
            are not the class indices. Classes can be merged, reordered and (as background) dropped
            in this way.
        names: Mapping from class name to a name, or to a list of names, for labels that have names
            (Label Studio, COCO, an attribute of footprints). A label with the name of a class, in
            upper or lower case, needs no entry.
        drop: Names of labels whose shapes are not drawn.
        ignore: Values, colours (`#RRGGBB`) or names that are left out of loss and metrics.
        instances: Whether every value of a mask above 0 is one building.
        colours: Mapping from class name to the `#RRGGBB` in which the model draws it; default the
            first colour of its palette, otherwise a colour of a fixed table.
    """

    # The command line and TOML give a name such as "0" of YOLO as a number.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=256)] = _USUAL
    building: str = "building"
    palette: dict[str, str | tuple[str, ...]] | None = None
    values: dict[str, Value | tuple[Value, ...]] | None = None
    names: dict[str, str | tuple[str, ...]] | None = None
    drop: tuple[str, ...] = ()
    ignore: tuple[int | str, ...] = ()
    instances: bool = False
    colours: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_one_class(cls, given: object) -> object:
        """Take the one class that values, a palette or names define in place of building."""
        if not isinstance(given, dict) or {"classes", "building"} & given.keys():
            return given
        tables = [given.get(key) for key in ("values", "palette", "names")]
        named = {name for table in tables if isinstance(table, dict) for name in table}
        # A word like one of these is misspelt.
        if len(own := sorted(named - {"background"})) != 1 or get_close_matches(own[0], _USUAL):
            return given
        return given | {"classes": ("background", own[0]), "building": own[0]}

    @model_validator(mode="after")
    def _consistent(self) -> LabelConfig:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes contains a name twice: {list(self.classes)}")
        if self.building not in self.classes[1:]:
            raise ValueError(
                f"building = {self.building!r} is not one of the classes {list(self.classes[1:])}: "
                "set labels.building to one of these"
            )
        if self.palette is not None and self.values is not None:
            raise ValueError("palette and values mean the same; give only one of them")
        # Errors in the rules should appear now, and not with the first mask.
        self.rule()
        self.name_rule()
        self.class_colours()
        return self

    @property
    def building_class(self) -> int:
        return self.classes.index(self.building)

    @property
    def channels(self) -> int:
        """Number of output channels of a network: 1 for two classes."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    def rule(self) -> LabelRule:
        """Return the rule that reads pixels as classes."""
        colours = tuple(v for v in self.ignore if isinstance(v, str) and v.startswith("#"))
        numbers = tuple(v for v in self.ignore if isinstance(v, int))
        if self.palette is None:
            if colours:
                raise ValueError(f"ignore has colours {list(colours)}, but there is no palette")
            values = (
                None if self.values is None else self._inverse("values", _as_tuples(self.values))
            )
            return LabelRule(self.classes, None, numbers, values, self.instances)
        if numbers:
            raise ValueError(f"ignore has values {list(numbers)}, but the masks are colours")
        palette = {
            name: tuple(_colour(text) for text in texts)
            for name, texts in _as_tuples(self.palette).items()
        }
        ignored = tuple(_colour(text) for text in colours)
        return LabelRule(self.classes, self._inverse("palette", palette), ignored)

    def class_colours(self) -> tuple[str, ...]:
        """Return `#RRGGBB` of each class, at most 255; empty if no class has a colour."""
        first = {name: texts[0] for name, texts in _as_tuples(self.palette).items() if texts}
        given = first | (self.colours or {})
        inverse = self._inverse("colours", {name: (_colour(t),) for name, t in given.items()})
        known = {index: _format_key(colour) for colour, index in inverse}
        return filled_colours(known, min(len(self.classes), NODATA)) if known else ()

    def name_rule(self) -> NameRule:
        """Return the rule that reads names of labels as classes."""
        given = dict(self._inverse("names", _as_tuples(self.names)))
        for index, name in enumerate(self.classes):
            given.setdefault(name, index)
        ignored = {v for v in self.ignore if isinstance(v, str) and not v.startswith("#")}
        if twice := (ignored | set(self.drop)) & set(given) or ignored & set(self.drop):
            raise ValueError(f"{sorted(twice)} are in more than one of names, drop and ignore")
        return NameRule(
            self.classes, tuple(given.items()), frozenset(self.drop), frozenset(ignored)
        )

    def _inverse(self, key: str, named: Mapping[str, tuple[K, ...]]) -> tuple[tuple[K, int], ...]:
        """Return pairs of a value, colour or name and the class index that it stands for."""
        entries: dict[K, int] = {}
        for name, given in named.items():
            if name not in self.classes:
                raise ValueError(
                    f"{key} names {name!r}, which is not among labels.classes, {list(self.classes)}"
                )
            index = self.classes.index(name)
            for one in given:
                if entries.setdefault(one, index) != index:
                    raise ValueError(f"{key}: {_format_key(one)} is given to two classes")
        return tuple(entries.items())


class SourceConfig(Config):
    """One set of data: a folder of image/mask pairs, or another kind of `labels.kinds`.

    Args:
        path: Folder or file; `$NAME` and `~` are expanded. Relative to the configuration's folder.
        kind: Kind of data, see `labels.kinds`; detected by default.
        name: Name of the set in reports; default the name of the path.
        images: Folder of the images that a label file names, or one scene; or those whose masks
            `path` is. Default the folder of the label file. Relative to the configuration's folder.
        glob: Patterns for image file names, such as `"*-21.png"`.
        part: Slice of the names in sorted order, such as `"[:15]"`.
        gsd_m: Ground sample distance in metres per pixel; default from the georeference.
        share: Weight of this set when training samples are drawn; default its share of the pixels.
        crs: Coordinate system of images that have a position, such as a world file, and state none:
            a code such as `EPSG:32645`, WKT or PROJ.
        nodata: `"alpha"` (default: what the file declares by alpha, a mask or a value), `"none"`
            (nothing of it counts), or a value or colour that counts as well.
        labels: Meaning of this set's labels if it differs from the run's; the classes must be the
            same.
        label_shift_px: Shift of all labels in pixels, down and to the right, for labels that are
            offset from their images. Pixels that come in at the edge are unknown.
        surface, terrain: Surface and terrain model of the images, each a file or a folder of tiles.
            Their difference becomes the last band, see `io.elevation.WithHeights`. Relative to the
            configuration's folder.
        chip_px: Side in pixels of the squares into which scenes are cut on demand.
        area: Vector file of the polygons inside which labels are complete; pixels outside are
            unknown, and images outside are left out. Relative to the configuration's folder.
        layout: Layout of a folder: `IMAGE_PATTERN=MASK_PATTERN` with `{id}`; detected by default.
        order: Order of the runs of an RLE table: along rows or down columns.
        annotator: Annotator of a Label Studio export whose labels are used, or `"union"` or
            `"majority"` of all.
        field: Attribute of footprints that names the class; by default all are buildings. For a
            Label Studio export, the key of a task's data that names its image.
        layer: Name or pattern of the layers of footprints, of a file with several.
        zoom: Zoom of the slippy tiles that are used; default all.
        tms: Whether the rows of slippy tiles are counted from the south; default: if their
            `tilemapresource.xml` or the labels say so.
    """

    path: Annotated[str, PathField()]
    kind: str | None = None
    name: str = ""
    images: Annotated[str | None, PathField()] = None
    glob: str | tuple[str, ...] = ()
    part: str | None = None
    gsd_m: Annotated[float, Field(ge=LEAST_GSD_M, le=MOST_GSD_M)] | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    crs: str | None = None
    nodata: str | float | tuple[float, ...] = "alpha"
    labels: LabelConfig | None = None
    label_shift_px: tuple[int, int] = (0, 0)
    surface: Annotated[str | None, PathField()] = None
    terrain: Annotated[str | None, PathField()] = None
    chip_px: Annotated[int, Field(ge=16)] | None = None
    area: Annotated[str | None, PathField()] = None
    layout: str | None = None
    order: Literal["row", "column"] | None = None
    annotator: str | None = None
    field: str | None = None
    layer: str | None = None
    zoom: Annotated[int, Field(ge=0, le=30)] | None = None
    tms: bool | None = None

    @field_validator("path", "images", "surface", "terrain", "area", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("nodata")
    @classmethod
    def _known_nodata(cls, value: object) -> object:
        if isinstance(value, str) and value not in ("alpha", "none"):
            raise ValueError('expected "alpha", "none", a number or a colour: [255, 255, 255]')
        return value

    @model_validator(mode="after")
    def _consistent(self) -> SourceConfig:
        if (self.surface is None) != (self.terrain is None):
            raise ValueError("surface and terrain belong together: heights are their difference")
        if self.labels is not None and self.labels.colours is not None:
            raise ValueError("labels.colours belongs to the model, not to a set: use [data.labels]")
        return self

    @property
    def globs(self) -> tuple[str, ...]:
        return (self.glob,) if isinstance(self.glob, str) else self.glob

    @property
    def paths(self) -> tuple[Path, ...]:
        """Absolute paths of the data and of their images, as far as they were given.

        Relative ones begin in the current folder, as those of the command line do.
        """
        found = find_paths(self.model_dump(), SourceConfig)
        return tuple(expand_path(text, Path.cwd(), key=str(key[-1])) for key, text in found)

    def absolute(self) -> SourceConfig:
        """Return the same set with absolute paths, which are the same from every folder."""
        return replace_paths(self, absolute_text)


class DataConfig(Config):
    """Sets for training and validation.

    Args:
        train: Sets from which training samples are drawn.
        val: Sets on which progress is measured; without them `split` divides the training sets.
        split: File of `rooftrace split`, relative to the configuration's folder.
        labels: Meaning of labels.
        cache_mb: Memory limit in megabytes for decoded images; beyond it, images are read by
            window.
    """

    train: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    val: tuple[SourceConfig, ...] = ()
    split: Annotated[str | None, PathField()] = None
    labels: LabelConfig = LabelConfig()
    cache_mb: Annotated[int, Field(ge=0)] = 4096


def absolute_text(path: str) -> str:
    """Return a path as absolute, unless it begins with a variable or a home folder."""
    # Links are not resolved, because the last part of the path names the set.
    return path if path.startswith(("$", "~")) else os.path.normpath(Path(path).absolute())


def relative_text(path: str, base: Path) -> str:
    """Return an absolute path relative to a folder, so that it shows no home folder to others.

    A path that has nothing in common with the folder begins with `~` in a home folder, and stays
    absolute elsewhere. Other paths are returned as they are.
    """
    given = Path(path)
    if not given.is_absolute():
        return path
    base = Path(os.path.normpath(base.absolute()))
    if given.parts[:2] == base.parts[:2]:
        return Path(os.path.relpath(given, base)).as_posix()
    with suppress(RuntimeError, ValueError):
        return f"~/{given.relative_to(Path.home()).as_posix()}"
    return path


def nodata_rule(nodata: str | float | tuple[float, ...]) -> NodataRule:
    """Return the rule of image readers for `"alpha"`, `"none"`, a value or a colour."""
    if isinstance(nodata, str):
        return NodataRule(declared=nodata != "none")
    if isinstance(nodata, tuple):
        return NodataRule(colour=nodata)
    return NodataRule(value=nodata)
