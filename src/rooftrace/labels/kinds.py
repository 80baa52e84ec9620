"""Registry of the kinds of labelled data, and the function that opens data of any kind.

`labels.derived` has what options make of a set: chips, shifted labels, an area.
"""

import re
from dataclasses import replace
from functools import partial
from itertools import filterfalse, islice
from pathlib import Path

from rooftrace.core.config import Registry, expand_path, load_config, parse_config
from rooftrace.core.errors import ConfigError, DataError, LabelError, LayoutError
from rooftrace.core.text import list_first, without_folders
from rooftrace.core.types import Scene
from rooftrace.io.area import read_area
from rooftrace.io.companions import (
    holds_results,
    images_under,
    matches_glob,
    no_image,
    predicted_labels,
)
from rooftrace.io.elevation import WithHeights
from rooftrace.io.files import check_exists, read_head, visible_files
from rooftrace.io.vector_formats import is_vector_file
from rooftrace.labels.coco import COCO
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.derived import cut_into_chips, shift_labels, within_area
from rooftrace.labels.folders import (
    CARD,
    CHANGE_MASKS,
    FOLDER,
    IMAGES,
    YOLO,
    holds_only_results,
    select,
)
from rooftrace.labels.footprints import FOOTPRINTS
from rooftrace.labels.image_table import IMAGE_TABLE
from rooftrace.labels.labelstudio import LABELSTUDIO
from rooftrace.labels.layouts import MASK_NAMES
from rooftrace.labels.mask_files import suggest_layouts
from rooftrace.labels.rle_source import RLE
from rooftrace.labels.shape_exports import EXPORTS
from rooftrace.labels.slippy_tiles import TILES
from rooftrace.labels.source import SceneSet, SourceKind, WriteOptions

KINDS: Registry[SourceKind] = Registry("kind of data")
"""Kinds in the order in which they are tried: the most distinctive first."""

for _kind in (
    *EXPORTS,
    IMAGE_TABLE,
    COCO,
    LABELSTUDIO,
    FOLDER,
    RLE,
    TILES,
    FOOTPRINTS,
    YOLO,
    IMAGES,
):
    KINDS.add(_kind.name, _kind)

_BRUSH = re.compile(r"task-\d+-annotation-\d+-by-.*-tag-")
"""Beginning of the names of Label Studio's brush PNGs."""

_TEXT = re.compile(r"(?<!\.aux)\.(json|jsonl|ndjson|xml|csv|txt)$", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"[^\s\"'<>,;/\\]+\.(?:png|jpe?g|tiff?|bmp|webp|jp2)", re.IGNORECASE)
"""Files that may hold labels, and the names of images in them."""

_MOST_TEXTS, _HEAD_BYTES, _MOST_LAYOUTS = 200, 1 << 14, 6
"""Maximum number of such files, and of their bytes, that are looked at; of layouts in an error."""

_SPECIFIC_FIELDS = ("layout", "order", "annotator", "field", "layer", "zoom", "tms", "images")
"""Fields of `SourceConfig` that only some kinds accept."""


def open_source(
    config: SourceConfig, labels: LabelConfig | None = None, base: Path = Path()
) -> SceneSet:
    """Open labelled data of any kind.

    `config.path` may also be a data card: a TOML file of a `SourceConfig`, or a folder with such a
    file named `rooftrace.toml`. Fields of `config` itself take precedence over the card.

    Args:
        config: Location of the data and how it is read.
        labels: Meaning of labels, unless `config` defines it.
        base: Folder in which relative paths start.

    Raises:
        DataError: The data does not fit its kind, no scene is left, the name of an image is not
            UTF-8, or the id of a scene is not UTF-8 or leads out of a folder. The error may be of
            a subclass.
        ConfigError: The kind is unknown or does not have a given option.
    """
    config, base = _with_card(config, base)
    if labels and (own := config.labels) and "classes" not in own.model_fields_set:
        named = {*(own.values or own.palette or ())}
        if named and named <= {*labels.classes}:  # masks of some of the classes of a model
            own = own.model_copy(update={"classes": labels.classes, "building": labels.building})
            config = config.model_copy(update={"labels": own})
    if labels is not None and config.labels is not None and labels.classes != config.labels.classes:
        raise ConfigError(
            f"{config.path} is read with the classes {list(config.labels.classes)}, but "
            f"{list(labels.classes)} are expected.",
            remedy="Use the same classes in the same order; names, values or palette may differ.",
        )
    path = expand_path(config.path, base, key="path")
    check_exists(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        # YOLO's data.yaml lies in the folder of its data.
        path = path.parent
    folder = path
    if config.kind in (None, FOOTPRINTS.name) and config.layout is None:
        layers = polygons_of_results(path)
        path = next(iter(layers.values())) if len(layers) == 1 else path
    kind, notes = _kind_of(path, config)
    if path != folder:
        name = folder.resolve().name
        notes += (f"{name} is the folder of a prediction: its polygons are the labels.",)
    _check_options(kind, config)
    if config.images is not None:
        images = expand_path(config.images, base, key="images")
        check_exists(images)
        config = config.model_copy(update={"images": str(images)})
    source = kind.read(path, config, config.labels or labels or LabelConfig())
    if config.surface is not None and config.terrain is not None:
        surface = str(expand_path(config.surface, base, key="surface"))
        terrain = str(expand_path(config.terrain, base, key="terrain"))
        source = source.mapped(partial(_with_heights, surface, terrain))
    for entry in (*source.entries, *source.unlabelled):
        # Writers name files after ids, so an id must not lead out of their folder.
        as_path = Path(entry.id)
        if as_path.anchor or ".." in as_path.parts:
            raise LabelError(
                f"{path} has a scene with the id {entry.id!r}, which as a path leads out of a "
                "folder; expected a name, or a relative path without '..'.",
                remedy="Correct the id in the file.",
            )
    # Notes reach pages and the API, whose readers need not know where the data lies.
    paths = [path] if config.images is None else [path, Path(config.images)]
    notes = tuple(without_folders(note, paths) for note in (*notes, *source.notes))
    source = _apply_options(replace(source, notes=notes), config, path)
    if config.area is not None:
        area = read_area(expand_path(config.area, base, key="area"), config.layer)
        source = within_area(source, area)
    return source


def polygons_of_results(path: Path) -> dict[str, Path]:
    """Return the file of polygons of each image in a folder that has only results of a prediction.

    It is empty for other paths, and where an image has no polygons on the ground.
    """
    labels = predicted_labels(path) if holds_only_results(path) else {}
    return labels if all(map(is_vector_file, labels.values())) else {}


def open_labelled(config: SourceConfig, labels: LabelConfig, base: Path = Path()) -> SceneSet:
    """Open data of which at least one image is labelled; see `open_source`."""
    source = open_source(config, labels, base)
    if not len(source):
        raise DataError(
            f"{config.path} is read as {source.kind}: it has no label to train on (images: "
            f"{len(source.unlabelled)}).",
            remedy=" ".join(source.notes) or "Give a folder with masks, or the file of the labels.",
        )
    return source


def _with_heights(surface: str, terrain: str, scene: Scene) -> Scene:
    return replace(scene, image=WithHeights(scene.image, [surface], [terrain]))


def check_write_options(kind: SourceKind, options: WriteOptions) -> None:
    """Raise ConfigError if the kind cannot be written, or not with these options."""
    if kind.write is None:
        writable = ", ".join(name for name, entry in KINDS.items() if entry.write is not None)
        raise ConfigError(
            f"Data cannot be written as {kind.name}.", remedy=f"Choose one of {writable}."
        )
    for name in ("order", "columns"):
        if getattr(options, name) is not None and name not in kind.options:
            raise _no_option(name, f"data written as {kind.name}")


def _with_card(config: SourceConfig, base: Path) -> tuple[SourceConfig, Path]:
    """Return the configuration of the data card, if there is one, overridden by `config`."""
    path = expand_path(config.path, base, key="path")
    card = path / CARD if path.is_dir() else path
    if card.suffix != ".toml" or not card.is_file():
        return config, base
    read = load_config(card, SourceConfig)
    given = config.model_dump(exclude_unset=True, exclude_none=True, exclude={"path"})
    for key in ("images", "area"):
        if (text := getattr(config, key)) is not None:
            # The path is relative to where it was given, not to the card.
            given[key] = str(expand_path(text, base, key=key).absolute())
    if not read.name and not config.name:
        given["name"] = card.resolve().parent.name if card.name == CARD else card.stem
    both = {**read.model_dump(exclude_unset=True), **given}
    return parse_config(both, SourceConfig, source=str(card)), card.parent


def _kind_of(path: Path, config: SourceConfig) -> tuple[SourceKind, tuple[str, ...]]:
    if config.kind is not None:
        return KINDS[config.kind], ()
    if config.layout is not None or holds_only_results(path):
        return FOLDER, ()
    fitting = [kind for kind in KINDS.values() if kind.recognises(path)]
    if not fitting or (fitting[0] is IMAGES and config.images is not None):
        # Its error lists what was looked for; images elsewhere make these images masks.
        return FOLDER, ()
    if fitting[0] is IMAGES:
        return IMAGES, _unread(path) if path.is_dir() else ()
    others = [kind.name for kind in fitting[1:] if kind is not IMAGES]
    if not others:
        return fitting[0], ()
    note = (
        f"{path} is read as {fitting[0].name}; it could also be read as {' or '.join(others)} "
        f"(kind = {others[0]!r})."
    )
    return fitting[0], (note,)


def _unread(path: Path) -> tuple[str, ...]:
    """Return a note on files in a folder that may hold the labels of its images."""
    paths = images_under(path)
    images, places = {image.name for image in paths}, {image.parent for image in paths}
    if any(map(_BRUSH.match, images)):
        raise LayoutError(
            f"{path} holds brush masks of Label Studio, which do not name their image.",
            remedy="Export JSON from Label Studio, which holds the same masks.",
        )
    found = suggest_layouts(path)[:_MOST_LAYOUTS]
    layouts = [f'--layout "{one}"' for one in found]
    choice = " Choose the images and labels that belong together." * (len(layouts) > 1)
    if len({one.partition("=")[2] for one in found}) < len(found):
        raise LayoutError(
            f"{path} holds several folders of images with the same labels, as those of two dates.",
            remedy=f"{CHANGE_MASKS}: do not train on them. If yours mark all buildings of one "
            f"folder, give it: {' or '.join(layouts)}.",
        )
    relative = [one.relative_to(path) for one in paths]
    mask = next(filter(_is_in_masks, relative), None)
    picture = next(filterfalse(_is_in_masks, relative), None)
    if not layouts and mask and picture:
        pattern = picture.with_name(f"{{id}}{picture.suffix}").as_posix()
        start = f'--layout "{pattern}={mask.parent.as_posix()}/{{id}}'
        layouts = [f'{start}_gt{mask.suffix}"']
        choice = (
            " If each building has a mask of its own: "
            f'{start}_*{mask.suffix}", or with a folder for each image: {start}/*".'
        )
    if layouts:
        raise LayoutError(
            f"{path} holds images and labels, but in no known layout.",
            remedy=f"Say how their names agree: {' or '.join(layouts)}.{choice}",
        )
    folders = (place for place in visible_files(path) if not holds_results(place[0]))
    files = (folder / name for folder, names in folders for name in names)
    texts = islice((file for file in files if _TEXT.search(file.name)), _MOST_TEXTS)
    heads = ((text, read_head(text, _HEAD_BYTES).decode("utf-8", "replace")) for text in texts)
    # In a folder of labels, such as that of DOTA's boxes, a text may have the name of its image.
    stems = {image.stem for image in paths}
    named = [
        text for text, head in heads
        if images.intersection(_IMAGE_NAME.findall(head))
        or (text.stem in stems and text.parent not in places)
    ]  # fmt: skip
    if not named:
        return ()
    readable = [one for one in named if any(kind.recognises(one) for kind in KINDS.values())]
    listed = list_first([one.relative_to(path).as_posix() for one in readable or named])
    if readable:
        return (f"No label is read from {listed}: give that file as the data.",)
    note = f"No label is read from {listed}: the images are named there, but not in the format of "
    return (f"{note}a known label tool. If outlines are there, too, export them as COCO.",)


def _is_in_masks(image: Path) -> bool:
    """Return whether a folder of an image is named as one of masks."""
    return any(part.casefold() in MASK_NAMES for part in image.parts[:-1])


def _check_options(kind: SourceKind, config: SourceConfig) -> None:
    allowed = {*kind.options, *(("layer",) if config.area is not None else ())}
    for name in _SPECIFIC_FIELDS:
        if getattr(config, name) is not None and name not in allowed:
            raise _no_option(name, f"{config.path} is read as {kind.name}, which")


def _no_option(option: str, where: str) -> ConfigError:
    kinds = ", ".join(name for name, kind in KINDS.items() if option in kind.options)
    return ConfigError(
        f"The option {option} was given, but {where} does not have it.",
        remedy=f"Leave it out; it belongs to: {kinds}.",
    )


def _apply_options(source: SceneSet, config: SourceConfig, path: Path) -> SceneSet:
    """Apply glob, part, label shift and chips to a set."""
    if config.globs and source.kind != FOLDER.name:
        source = source.filtered(
            lambda entry: entry.image is not None and matches_glob(entry.image, config.globs)
        )
    if not (source.entries or source.unlabelled):
        raise no_image(path, config.globs)
    if config.part is not None:
        # If no scene is labelled, the images themselves are meant.
        among = source.entries or source.unlabelled
        chosen = select(among, config.part)
        if not chosen:
            raise DataError(
                f"part = {config.part!r} leaves none of the {len(among)} scenes of {path}.",
                remedy="Correct the slice.",
            )
        labelled = bool(source.entries)
        source = replace(source, entries=chosen) if labelled else replace(source, unlabelled=chosen)
    if any(config.label_shift_px):
        source = shift_labels(source, config.label_shift_px)
    if config.chip_px is not None:
        source = cut_into_chips(source, config.chip_px)
    return source
