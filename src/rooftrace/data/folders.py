"""Folders of image/mask pairs, and folders of images alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rooftrace.core.errors import DataError, LabelError
from rooftrace.core.types import Scene, Window
from rooftrace.data.config import LabelConfig, SourceConfig, nodata_rule
from rooftrace.data.images import image_name, open_image, write_image
from rooftrace.data.labels import LabelFile, LabelRule
from rooftrace.data.layout import (
    Pair,
    find_pairs,
    has_images_under,
    has_pairs,
    images_under,
    is_image_file,
)
from rooftrace.data.source import Entry, Progress, SceneSet, SourceKind, WriteOptions, Written
from rooftrace.io.atomic import write_atomically
from rooftrace.io.masks import NODATA, mask_sink
from rooftrace.io.raster import NodataRule

__all__ = ["CARD", "FOLDER", "IMAGES", "write_card"]

CARD = "rooftrace.toml"
"""In a folder of data: the `SourceConfig` that it is read with."""


@dataclass(frozen=True)
class _OpenPair:
    """From an entry whose key is its mask (or None) to its scene."""

    rule: LabelRule
    nodata: NodataRule
    gsd_m: float | None

    def __call__(self, entry: Entry) -> Scene:
        assert entry.image is not None
        image = open_image(entry.image, nodata=self.nodata)
        label = None
        if entry.key is not None:
            label = LabelFile(entry.key, self.rule, image.grid, image.name)
        return Scene(entry.id, image, label, entry.group, self.gsd_m or image.grid.gsd_m)


def _read_folder(root: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """Look into the folder and pair its files; see `data.layout.find_pairs` for the errors."""
    found = find_pairs(root, layout=config.layout, glob=config.globs)
    return SceneSet(
        name=config.name or root.resolve().name,
        kind=FOLDER.name,
        classes=labels.classes,
        building_class=labels.building_class,
        entries=tuple(_entry(pair) for pair in sorted(found.pairs)),
        open_scene=_OpenPair(labels.rule(), nodata_rule(config.nodata), config.gsd_m),
        share=config.share,
        reading=found.reading,
        unlabelled=tuple(_entry(pair) for pair in found.unlabelled),
    )


def _read_images(root: Path, config: SourceConfig, labels: LabelConfig, base: Path) -> SceneSet:
    """All images under a folder, or one image; none has a label."""
    files = [root] if root.is_file() else images_under(root, config.globs)
    if not files:
        raise DataError(
            f"{root} holds no image{' that matches ' + repr(config.glob) if config.glob else ''}.",
            remedy="Name the folder that holds the images.",
        )
    top = root.parent if root.is_file() else root
    names = [path.relative_to(top).with_suffix("").as_posix() for path in files]
    if len(set(names)) < len(names):
        names = [path.relative_to(top).as_posix() for path in files]
    return SceneSet(
        name=config.name or root.resolve().name,
        kind=IMAGES.name,
        classes=labels.classes,
        building_class=labels.building_class,
        entries=(),
        open_scene=_OpenPair(labels.rule(), nodata_rule(config.nodata), config.gsd_m),
        share=config.share,
        reading="images without labels",
        unlabelled=tuple(
            Entry(name, path, name.rpartition("/")[0]) for name, path in zip(names, files)
        ),
    )


def _entry(pair: Pair) -> Entry:
    return Entry(pair.id, pair.image, pair.group, pair.mask)


def _write_folder(
    source: SceneSet, out: Path, options: WriteOptions, progress: Progress | None
) -> Written:
    """`images/` and `masks/` side by side, and a card; masks hold class indices."""
    # Where that index is a class by its number, it must still read as unknown.
    unknown = len(source.classes) > NODATA
    gsds: set[float | None] = set()
    for number, (entry, scene) in enumerate(zip(source.entries, source)):
        name = image_name(entry.id)
        write_image(scene.image, entry.image, out / "images", name)
        assert scene.label is not None
        mask = scene.label.read()
        data = mask.data
        if not mask.valid.all():
            unknown = True
            data = np.where(mask.valid, data, np.uint8(NODATA))
        if (mask.data[mask.valid] == NODATA).any():
            raise LabelError(
                f"{entry.id} uses the class index {NODATA}, which means unknown in a mask file.",
                remedy="Merge two classes, so that there are at most 255.",
            )
        grid = scene.image.grid
        gsds.add(scene.gsd_m if grid.crs is None else None)
        path = out / "masks" / (name + (".png" if grid.crs is None else ".tif"))
        with mask_sink(path, grid) as sink:
            sink.write(Window.whole(grid.shape), data)
        if progress is not None:
            progress(number + 1, len(source))
    gsd_m = gsds.pop() if len(gsds) == 1 else None
    write_card(out, source, gsd_m=gsd_m, unknown=unknown)
    return Written(out, len(source))


def write_card(out: Path, source: SceneSet, *, gsd_m: float | None, unknown: bool) -> None:
    """What a folder of pairs cannot say by itself, for whoever reads it again.

    Args:
        out: the folder.
        gsd_m: of images without a georeference, where all have the same.
        unknown: whether masks hold NODATA.
    """
    lines = ['path = "."', f'kind = "{FOLDER.name}"']
    if gsd_m is not None:
        lines.append(f"gsd_m = {gsd_m!r}")
    # A TOML string is written as a JSON string is.
    lines += ["", "[labels]", f"classes = {json.dumps(list(source.classes), ensure_ascii=False)}"]
    building = source.classes[source.building_class]
    lines.append(f"building = {json.dumps(building, ensure_ascii=False)}")
    if unknown:
        lines.append(f"ignore = [{NODATA}]")
    write_atomically(out / CARD, ("\n".join(lines) + "\n").encode())


def _is_images(path: Path) -> bool:
    return has_images_under(path) if path.is_dir() else is_image_file(path)


FOLDER = SourceKind(
    "folder",
    "images and masks, in pairs of files",
    has_pairs,
    _read_folder,
    _write_folder,
    frozenset({"layout"}),
)
IMAGES = SourceKind("images", "images without labels", _is_images, _read_images)
