"""Every kind of labelled data, and the one way to open any of them."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from rooftrace.core.config import expand_path, load_config, parse_config
from rooftrace.core.errors import ConfigError, DataError, LayoutError
from rooftrace.core.registry import Registry
from rooftrace.data.census import filtered
from rooftrace.data.chips import chipped
from rooftrace.data.coco.read import COCO
from rooftrace.data.config import LabelConfig, SourceConfig
from rooftrace.data.folders import CARD, FOLDER, IMAGES
from rooftrace.data.ground.footprints import FOOTPRINTS
from rooftrace.data.ground.tiles import TILES
from rooftrace.data.labelstudio import LABELSTUDIO
from rooftrace.data.layout import select
from rooftrace.data.moved import moved
from rooftrace.data.rle.read import RLE
from rooftrace.data.source import SceneSet, SourceKind, WriteOptions

__all__ = ["KINDS", "check_write_options", "open_source"]

KINDS: Registry[SourceKind] = Registry("kind of data")
"""In the order in which they are tried: what says more of itself first."""

for _kind in (COCO, LABELSTUDIO, FOLDER, RLE, TILES, FOOTPRINTS, IMAGES):
    KINDS.add(_kind.name, _kind)

_OWN = ("layout", "order", "annotator", "field", "zoom", "images")
"""Fields of `SourceConfig` that only some kinds take."""


def open_source(
    config: SourceConfig, labels: LabelConfig | None = None, base: Path = Path()
) -> SceneSet:
    """Open labelled data of any kind.

    `config.path` may also be a TOML file of a `SourceConfig`, or a folder with such a file of the
    name `rooftrace.toml`; what `config` itself says goes before it.

    Args:
        config: where it lies and how it is read.
        labels: what labels mean, unless `config` says so.
        base: where relative paths start.

    Raises:
        DataError and its kinds: the data is not what its kind expects, or nothing of it is left.
        ConfigError: an unknown kind, or an option that the kind does not have.
    """
    config, base = _with_card(config, base)
    if labels is not None and config.labels is not None and labels.classes != config.labels.classes:
        raise ConfigError(
            f"{config.path} is read with the classes {list(config.labels.classes)}, but "
            f"{list(labels.classes)} are expected.",
            remedy="Give it the same classes in the same order; names, values or palette may "
            "differ.",
        )
    path = expand_path(config.path, base, key="path")
    if not path.exists():
        raise LayoutError(f"There is no data at {path}.", remedy="Check the path.")
    kind, notes = _kind_of(path, config)
    _check_options(kind, config)
    source = kind.read(path, config, config.labels or labels or LabelConfig(), base)
    source = replace(source, notes=(*notes, *source.notes))
    return _chosen(source, config, path)


def check_write_options(kind: SourceKind, options: WriteOptions) -> None:
    """Raises ConfigError where the kind cannot be written, or not with these options."""
    if kind.write is None:
        writable = ", ".join(name for name, entry in KINDS.items() if entry.write is not None)
        raise ConfigError(
            f"Data cannot be written as {kind.name}.", remedy=f"Choose one of {writable}."
        )
    for name in ("order", "columns", "zoom"):
        if getattr(options, name) is not None and name not in kind.options:
            raise ConfigError(
                f"The option {name} was given, but data written as {kind.name} has none.",
                remedy=_remedy_for(name),
            )


def _with_card(config: SourceConfig, base: Path) -> tuple[SourceConfig, Path]:
    """What a TOML file says of the data, with `config` laid over it."""
    path = expand_path(config.path, base, key="path")
    card = path / CARD if path.is_dir() else path
    if card.suffix != ".toml" or not card.is_file():
        return config, base
    read = load_config(card, SourceConfig)
    given = config.model_dump(exclude_unset=True, exclude_none=True, exclude={"path"})
    if config.images is not None:
        # Relative to where it was said, and not to the card.
        given["images"] = str(expand_path(config.images, base, key="images").absolute())
    if not read.name and not config.name:
        given["name"] = card.resolve().parent.name if card.name == CARD else card.stem
    # A card in the folder that it describes would be found again.
    inner = expand_path(read.path, card.parent, key="path")
    if inner.is_dir() and (inner / CARD).is_file() and inner.resolve() != card.parent.resolve():
        raise ConfigError(
            f"{card} leads to {inner}, which has a {CARD} of its own.",
            remedy="Name that folder instead, or remove one of the two files.",
        )
    both = {**read.model_dump(exclude_unset=True), **given}
    return parse_config(both, SourceConfig, source=str(card)), card.parent


def _kind_of(path: Path, config: SourceConfig) -> tuple[SourceKind, tuple[str, ...]]:
    if config.kind is not None:
        return KINDS[config.kind], ()
    if config.layout is not None:
        return FOLDER, ()
    fitting = [kind for kind in KINDS.values() if kind.recognises(path)]
    if not fitting:
        # Its error tells what was looked for.
        return FOLDER, ()
    others = [kind.name for kind in fitting[1:] if kind is not IMAGES]
    if not others:
        return fitting[0], ()
    note = (
        f"{path} is read as {fitting[0].name}; it could also be read as {' or '.join(others)} "
        f"(kind = {others[0]!r})."
    )
    return fitting[0], (note,)


def _check_options(kind: SourceKind, config: SourceConfig) -> None:
    for name in _OWN:
        if getattr(config, name) is not None and name not in kind.options:
            raise ConfigError(
                f"The option {name} was given, but {config.path} is read as {kind.name}, which "
                "has none.",
                remedy=_remedy_for(name),
            )


def _remedy_for(option: str) -> str:
    takers = ", ".join(name for name, kind in KINDS.items() if option in kind.options)
    return f"Leave it out; it belongs to: {takers}."


def _chosen(source: SceneSet, config: SourceConfig, path: Path) -> SceneSet:
    """What glob, part, chips and the filter leave of a set."""
    if config.globs and source.kind != FOLDER.name:
        source = replace(
            source,
            entries=tuple(e for e in source.entries if _matches(e.image, config.globs)),
            unlabelled=tuple(e for e in source.unlabelled if _matches(e.image, config.globs)),
        )
    if not (source.entries or source.unlabelled):
        raise DataError(
            f"{path} has no image"
            + (f" that matches {list(config.globs)}." if config.globs else "."),
            remedy="Correct the patterns, or the path.",
        )
    if config.part is not None:
        # Where nothing is labelled the images themselves are meant.
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
        source = moved(source, config.label_shift_px)
    if config.chip_px is not None:
        source = chipped(source, config.chip_px)
    # Not without need: every label is read.
    if config.min_built_up > 0 or config.max_built_up < 1:
        source = filtered(source, config.min_built_up, config.max_built_up)
    return source


def _matches(image: Path | None, globs: tuple[str, ...]) -> bool:
    return image is not None and any(fnmatch(image.name, pattern) for pattern in globs)
